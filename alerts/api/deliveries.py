"""`/v1/deliveries`: what was told, what waits, and what could not be told."""

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.delivery import resend
from alerts.models import Delivery, DeliveryAttempt, DeliveryEvent, DeliveryState, HeldBy, Severity
from common.api.fields import Moment, moment_text
from common.api.pagination import (
    ID_MAX,
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import InvalidRequest, NotFound
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of

# The latest: what fails for three days is tried more often than anybody reads.
ATTEMPTS_MAX: Final = 100
ID_SCHEMA: Final = {"type": "integer", "minimum": 1, "maximum": ID_MAX}


class DeliveryAnswer(serializers.Serializer[Any]):
    """One message for one channel."""

    id = serializers.IntegerField()
    channel = serializers.IntegerField(
        allow_null=True, help_text="Null: mail to people by the service's own mail server."
    )
    recipients = serializers.ListField(
        child=serializers.CharField(), help_text="Of mail without a channel."
    )
    incident = serializers.IntegerField(allow_null=True, help_text="Null: a digest or a test.")
    event = serializers.ChoiceField(choices=DeliveryEvent.values)
    severity = serializers.ChoiceField(choices=Severity.values)
    title = serializers.CharField(allow_blank=True)
    reference = serializers.UUIDField(
        help_text="The same for all attempts and every resend: what a receiver recognises a"
        " repeat by."
    )
    state = serializers.ChoiceField(
        choices=DeliveryState.values,
        help_text="`dead`: given up; `superseded`: not needed any more.",
    )
    created_at = Moment()
    due_at = Moment(allow_null=True, help_text="When it is tried next, while it waits.")
    held_by = serializers.ChoiceField(
        choices=HeldBy.values,
        allow_null=True,
        help_text="Why it waits, or waited, although nothing failed.",
    )
    attempt_count = serializers.IntegerField()
    sent_at = Moment(allow_null=True)
    last_error = serializers.CharField(allow_null=True)


class AttemptAnswer(serializers.Serializer[Any]):
    """One try to send a delivery."""

    started_at = Moment()
    duration_ms = serializers.IntegerField()
    is_success = serializers.BooleanField()
    status = serializers.IntegerField(allow_null=True, help_text="Of HTTP, where one was answered.")
    error = serializers.CharField(allow_null=True)


class DeliveryDetailAnswer(DeliveryAnswer):
    """A delivery with its latest 100 attempts."""

    summary = serializers.CharField(allow_blank=True)
    attempts = AttemptAnswer(many=True, help_text="Newest first.")


class DeliveriesView(ApiView):
    """All deliveries of the tenant."""

    parameters = {"GET": PAGE_PARAMETERS | {"state", "channel", "incident"}}

    @extend_schema(
        summary="List deliveries, newest first",
        parameters=[
            *PAGE_SCHEMA,
            OpenApiParameter("state", str, enum=DeliveryState.values),
            OpenApiParameter("channel", ID_SCHEMA),
            OpenApiParameter("incident", ID_SCHEMA),
        ],
        responses=page_serializer(DeliveryAnswer),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        deliveries = Delivery.objects.filter(tenant=tenant_of(request), **_wanted(request))
        if page.after is not None:
            deliveries = deliveries.filter(id__lt=page.after[0])
        rows = list(deliveries.order_by("-id")[: page.limit + 1])
        return Response(
            page_answer(rows, page=page, answer=delivery_answer, key=lambda row: [row.id])
        )


class DeliveryView(ApiView):
    """One delivery."""

    @extend_schema(summary="Show a delivery and its attempts", responses=DeliveryDetailAnswer)
    def get(self, request: Request, delivery_id: int) -> Response:
        return Response(detail_answer(_find(request, delivery_id)))


class ResendView(ApiView):
    """Another try, by hand."""

    @extend_schema(
        summary="Send a delivery again, with its message and reference as they were",
        description="The answer is given before it is tried: see `state` and `attempts` later.",
        request=None,
        responses={202: DeliveryDetailAnswer},
    )
    @idempotent
    def post(self, request: Request, delivery_id: int) -> Response:
        delivery = _find(request, delivery_id)
        again = resend(delivery=delivery, actor=actor_of(request))
        return Response(detail_answer(again), status=202)


def _wanted(request: Request) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    state = request.query_params.get("state")
    if state is not None:
        if state not in DeliveryState.values:
            raise InvalidRequest(f"'state' must be one of {', '.join(DeliveryState.values)}.")
        wanted["state"] = state
    for name in ("channel", "incident"):
        text = request.query_params.get(name)
        if text is not None:
            wanted[f"{name}_id"] = _id(name, text)
    return wanted


def _id(name: str, text: str) -> int:
    is_id = text.isascii() and text.isdecimal() and len(text) <= 19
    if not is_id or not 1 <= int(text) <= ID_MAX:
        raise InvalidRequest(f"{name!r} must be the id of one.")
    return int(text)


def _find(request: Request, delivery_id: int) -> Delivery:
    found = Delivery.objects.filter(tenant=tenant_of(request), id=delivery_id).first()
    if found is None:
        raise NotFound(f"There is no delivery {delivery_id}.")
    return found


def delivery_answer(delivery: Delivery) -> dict[str, Any]:
    """A delivery as lists show it."""
    is_waiting = delivery.state == DeliveryState.WAITING
    return {
        "id": delivery.id,
        "channel": delivery.channel_id,
        "recipients": delivery.recipients,
        "incident": delivery.incident_id,
        "event": delivery.event,
        "severity": delivery.severity,
        "title": delivery.message.get("title", ""),
        "reference": str(delivery.reference),
        "state": delivery.state,
        "created_at": moment_text(delivery.created_at),
        "due_at": moment_text(delivery.due_at) if is_waiting else None,
        "held_by": delivery.held_by or None,
        "attempt_count": delivery.attempts,
        "sent_at": moment_text(delivery.sent_at) if delivery.sent_at else None,
        "last_error": delivery.last_error or None,
    }


def detail_answer(delivery: Delivery) -> dict[str, Any]:
    """A delivery with its attempts."""
    tried = delivery.tried.order_by("-id")[:ATTEMPTS_MAX]
    return {
        **delivery_answer(delivery),
        "summary": delivery.message.get("summary", ""),
        "attempts": [_attempt_answer(attempt) for attempt in tried],
    }


def _attempt_answer(attempt: DeliveryAttempt) -> dict[str, Any]:
    return {
        "started_at": moment_text(attempt.started_at),
        "duration_ms": attempt.duration_ms,
        "is_success": attempt.is_success,
        "status": attempt.status,
        "error": attempt.error or None,
    }
