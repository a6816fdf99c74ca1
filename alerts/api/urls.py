"""Addresses of the API of alerts."""

from django.urls import path

from alerts.api.channels import Channels
from alerts.api.deliveries import Deliveries
from alerts.api.incidents import Incidents
from alerts.api.maintenance import MaintenanceWindows
from alerts.api.settings import AlertSettingsView
from tenants.api.resources import (
    LIST,
    LIST_AND_CREATE,
    SHOW,
    SHOW_AND_REMOVE,
    SHOW_CHANGE_AND_REMOVE,
)

urlpatterns = [
    path("incidents", Incidents.as_view(LIST)),
    path("incidents/<int:incident_id>", Incidents.as_view({**SHOW, "patch": "partial_update"})),
    path("incidents/<int:incident_id>/acknowledge", Incidents.as_view({"post": "acknowledge"})),
    path("incidents/<int:incident_id>/resolve", Incidents.as_view({"post": "resolve"})),
    path("incidents/<int:incident_id>/snooze", Incidents.as_view({"post": "snooze"})),
    path("incidents/<int:incident_id>/comment", Incidents.as_view({"post": "comment"})),
    path("channels", Channels.as_view(LIST_AND_CREATE)),
    path("channels/<int:channel_id>", Channels.as_view(SHOW_CHANGE_AND_REMOVE)),
    path("channels/<int:channel_id>/test", Channels.as_view({"post": "test"})),
    path("channels/<int:channel_id>/rotate-secret", Channels.as_view({"post": "rotate_secret"})),
    path("deliveries", Deliveries.as_view(LIST)),
    path("deliveries/<int:delivery_id>", Deliveries.as_view(SHOW)),
    path("deliveries/<int:delivery_id>/resend", Deliveries.as_view({"post": "resend"})),
    path("alert-settings", AlertSettingsView.as_view()),
    path("maintenance-windows", MaintenanceWindows.as_view(LIST_AND_CREATE)),
    path("maintenance-windows/<int:window_id>", MaintenanceWindows.as_view(SHOW_AND_REMOVE)),
]
