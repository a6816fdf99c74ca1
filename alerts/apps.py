"""The app of alerts."""

from django.apps import AppConfig


class AlertsConfig(AppConfig):
    """Incidents, and who is notified of them."""

    name = "alerts"
