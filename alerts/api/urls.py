"""Addresses of the API of alerts."""

from django.urls import path

from alerts.api import channels, deliveries, incidents, maintenance, settings

urlpatterns = [
    path("incidents", incidents.IncidentsView.as_view()),
    path("incidents/<int:incident_id>", incidents.IncidentView.as_view()),
    path("incidents/<int:incident_id>/acknowledge", incidents.AcknowledgeView.as_view()),
    path("incidents/<int:incident_id>/resolve", incidents.ResolveView.as_view()),
    path("incidents/<int:incident_id>/snooze", incidents.SnoozeView.as_view()),
    path("incidents/<int:incident_id>/comment", incidents.CommentView.as_view()),
    path("channels", channels.ChannelsView.as_view()),
    path("channels/<int:channel_id>", channels.ChannelView.as_view()),
    path("channels/<int:channel_id>/test", channels.ProbeView.as_view()),
    path("channels/<int:channel_id>/rotate-secret", channels.RotateView.as_view()),
    path("deliveries", deliveries.DeliveriesView.as_view()),
    path("deliveries/<int:delivery_id>", deliveries.DeliveryView.as_view()),
    path("deliveries/<int:delivery_id>/resend", deliveries.ResendView.as_view()),
    path("alert-settings", settings.AlertSettingsView.as_view()),
    path("maintenance-windows", maintenance.MaintenanceWindowsView.as_view()),
    path("maintenance-windows/<int:window_id>", maintenance.MaintenanceWindowView.as_view()),
]
