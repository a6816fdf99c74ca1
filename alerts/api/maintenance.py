"""`/v1/maintenance-windows`: times in which unusual spend is expected."""

from datetime import timedelta
from typing import Any, Final

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.requests import answer_page, find, read_body
from alerts.models import MaintenanceWindow
from alerts.settings import MAINTENANCE_MAX, create_maintenance_window, end_maintenance_window
from common.api.fields import Count, Moment, StrictSerializer, Text, problem_at
from common.api.pagination import PAGE_PARAMETERS, PAGE_SCHEMA, page_serializer
from metering.fields.body import Match
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of

DURATION_SECONDS_MAX: Final = int(MAINTENANCE_MAX.total_seconds())


class MaintenanceWindowBody(StrictSerializer):
    """A time in which what is not critical waits until it is over.

    It ends at `ends_at`, or `duration_seconds` after it begins.
    """

    id = serializers.IntegerField(read_only=True)
    starts_at = Moment(required=False, help_text="Now, if left out.")
    ends_at = Moment(required=False, help_text="At most 31 days after it begins.")
    duration_seconds = Count(
        required=False,
        write_only=True,
        max_value=DURATION_SECONDS_MAX,
        help_text="Instead of `ends_at`.",
    )
    match = Match(required=False, help_text="Which incidents, by dimension. Empty: all.")
    reason = Text(max_length=1000, help_text="For people who wonder why they were not notified.")
    created_at = Moment(read_only=True)
    created_by = serializers.CharField(read_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("ends_at" in attrs) == ("duration_seconds" in attrs):
            raise problem_at("ends_at", "give this or 'duration_seconds', and not both", "required")
        now = timezone.now()
        starts_at = attrs.setdefault("starts_at", now)
        if "duration_seconds" in attrs:
            attrs["ends_at"] = starts_at + timedelta(seconds=attrs.pop("duration_seconds"))
        if attrs["ends_at"] <= max(starts_at, now):
            raise problem_at("ends_at", "must lie after 'starts_at', and in the future")
        if attrs["ends_at"] > starts_at + timedelta(seconds=DURATION_SECONDS_MAX):
            raise problem_at("ends_at", "must be at most 31 days after 'starts_at'")
        return attrs


class MaintenanceWindowsView(ApiView):
    """All maintenance windows of the tenant."""

    parameters = {"GET": PAGE_PARAMETERS}

    @extend_schema(
        summary="List maintenance windows, newest first",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(MaintenanceWindowBody),
    )
    def get(self, request: Request) -> Response:
        return answer_page(
            request, _windows(request), lambda window: MaintenanceWindowBody(window).data
        )

    @extend_schema(
        summary="Announce a maintenance window",
        description="Critical incidents are sent all the same.",
        request=MaintenanceWindowBody,
        responses={201: MaintenanceWindowBody},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = {"match": {}, **read_body(MaintenanceWindowBody, request)}
        window = create_maintenance_window(
            tenant=tenant_of(request), actor=actor_of(request), **body
        )
        return Response(MaintenanceWindowBody(window).data, status=201)


class MaintenanceWindowView(ApiView):
    """One maintenance window."""

    @extend_schema(summary="Show a maintenance window", responses=MaintenanceWindowBody)
    def get(self, request: Request, window_id: int) -> Response:
        return Response(MaintenanceWindowBody(find(_windows(request), window_id)).data)

    @extend_schema(
        summary="End a maintenance window now, or take back one that has not begun",
        description="One that is over stays as it is.",
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, window_id: int) -> Response:
        end_maintenance_window(window=find(_windows(request), window_id), actor=actor_of(request))
        return Response(status=204)


def _windows(request: Request) -> QuerySet[MaintenanceWindow]:
    return MaintenanceWindow.objects.filter(tenant=tenant_of(request))
