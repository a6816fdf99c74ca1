"""`/v1/maintenance-windows`: times in which unusual spend is expected."""

from datetime import timedelta
from typing import Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers

from alerts.models import MaintenanceWindow
from alerts.settings import (
    MAINTENANCE_MAX,
    create_maintenance_window,
    end_maintenance_window,
    validate_period,
)
from common.api.fields import Count, StrictSerializer, Text, Timestamp, problem_at
from common.json_bodies import JsonObject
from metering.fields.body import Match, errors_at_members
from tenants.api.resources import Resource

DURATION_SECONDS_MAX: Final = int(MAINTENANCE_MAX.total_seconds())


class MaintenanceWindowBody(StrictSerializer):
    """A time in which what is not critical waits until it is over.

    It ends at `ends_at`, or `duration_seconds` after it begins.
    """

    id = serializers.IntegerField(read_only=True)
    starts_at = Timestamp(required=False, help_text="Now, if left out.")
    ends_at = Timestamp(required=False, help_text="At most 31 days after it begins.")
    duration_seconds = Count(
        required=False,
        write_only=True,
        max_value=DURATION_SECONDS_MAX,
        help_text="Instead of `ends_at`.",
    )
    match = Match(required=False, help_text="Which incidents, by dimension. Empty: all.")
    reason = Text(max_length=1000, help_text="For people who wonder why they were not notified.")
    created_at = Timestamp(read_only=True)
    created_by = serializers.CharField(read_only=True)

    def validate(self, attrs: JsonObject) -> JsonObject:
        if ("ends_at" in attrs) == ("duration_seconds" in attrs):
            raise problem_at("ends_at", "give this or 'duration_seconds', and not both", "required")
        starts_at = attrs.setdefault("starts_at", timezone.now())
        if "duration_seconds" in attrs:
            attrs["ends_at"] = starts_at + timedelta(seconds=attrs.pop("duration_seconds"))
        with errors_at_members(self):
            validate_period(starts_at, attrs["ends_at"])
        return attrs


@extend_schema_view(
    list=extend_schema(summary="List maintenance windows, newest first"),
    create=extend_schema(
        summary="Schedule a maintenance window",
        description="Critical incidents are sent all the same.",
    ),
    retrieve=extend_schema(summary="Show a maintenance window"),
    destroy=extend_schema(
        summary="End a maintenance window now, or cancel one that has not begun",
        description="One that has ended does not change.",
    ),
)
class MaintenanceWindows(Resource[MaintenanceWindow]):
    """The maintenance windows of the tenant."""

    model = MaintenanceWindow
    noun = "maintenance window"
    body = MaintenanceWindowBody
    order = ("-id",)

    def create_row(self, fields: JsonObject) -> MaintenanceWindow:
        return create_maintenance_window(
            tenant=self.tenant, actor=self.actor, **{"match": {}, **fields}
        )

    def delete_row(self, row: MaintenanceWindow) -> object:
        return end_maintenance_window(window=row, actor=self.actor)
