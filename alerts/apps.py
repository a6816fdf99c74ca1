"""The app of alerts."""

from django.apps import AppConfig


class AlertsConfig(AppConfig):
    """Incidents, and who hears of them."""

    name = "alerts"
