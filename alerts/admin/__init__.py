"""Admin pages of alerts. Each module registers its pages when it is imported."""

from alerts.admin import channels, maintenance, settings

__all__ = ["channels", "maintenance", "settings"]
