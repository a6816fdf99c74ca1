"""Rows of alerts: incidents, channels and deliveries, settings, and what scans remember."""

from alerts.models.channels import (
    Channel,
    ChannelKind,
    Delivery,
    DeliveryAttempt,
    DeliveryEvent,
    DeliveryState,
    Digest,
    HeldBy,
    is_failing,
)
from alerts.models.detection import Anomaly, ScanProgress, SeriesState
from alerts.models.incidents import (
    SERVICE,
    STATUSES,
    EntryKind,
    Incident,
    IncidentEntry,
    IncidentKind,
    Severity,
)
from alerts.models.settings import AlertSettings, MaintenanceWindow

__all__ = [
    "SERVICE",
    "STATUSES",
    "AlertSettings",
    "Anomaly",
    "Channel",
    "ChannelKind",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryEvent",
    "DeliveryState",
    "Digest",
    "EntryKind",
    "HeldBy",
    "Incident",
    "IncidentEntry",
    "IncidentKind",
    "MaintenanceWindow",
    "ScanProgress",
    "SeriesState",
    "Severity",
    "is_failing",
]
