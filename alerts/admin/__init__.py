"""Admin pages of alerts. Each module registers its pages when it is imported."""

from alerts.admin import channels, deliveries, incidents, maintenance, settings

__all__ = ["channels", "deliveries", "incidents", "maintenance", "settings"]
