"""`/v1/deliveries`: messages that were sent, that wait, and that could not be delivered."""

from typing import Annotated, Any, Final
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.api.requests import answer_page, find
from alerts.delivery import resend
from alerts.models import Delivery, DeliveryEvent, DeliveryState, HeldBy, Severity
from common.api.pagination import ID_MAX, PAGE_PARAMETERS, PAGE_SCHEMA, page_serializer
from common.api.structs import Answer, UtcTimestamp, about, one_of
from common.errors import InvalidRequest
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of

# The latest; a delivery that fails for three days has more than anyone reads.
ATTEMPTS_MAX: Final = 100
ID_SCHEMA: Final = {"type": "integer", "minimum": 1, "maximum": ID_MAX}


class DeliveryAnswer(Answer):
    """One message for one channel."""

    id: int
    channel: Annotated[int | None, about("Null: mail to people by the service's own mail server.")]
    recipients: Annotated[list[str], about("Of mail without a channel.")]
    incident: Annotated[int | None, about("Null: a digest or a test.")]
    event: Annotated[str, one_of(DeliveryEvent.values)]
    severity: Annotated[str, one_of(Severity.values)]
    title: str
    reference: Annotated[
        UUID,
        about(
            "The same for all attempts and every resend: what a receiver recognizes a repeat by."
        ),
    ]
    state: Annotated[
        str, one_of(DeliveryState.values, "`dead`: given up; `superseded`: not needed any more.")
    ]
    created_at: UtcTimestamp
    due_at: Annotated[UtcTimestamp | None, about("When it is tried next, while it waits.")]
    held_by: Annotated[
        str | None,
        one_of([*HeldBy.values, None], "Why it waits, or waited, although nothing failed."),
    ]
    attempt_count: int
    sent_at: UtcTimestamp | None
    last_error: str | None


class AttemptAnswer(Answer):
    """One try to send a delivery."""

    started_at: UtcTimestamp
    duration_ms: int
    is_success: bool
    status: Annotated[int | None, about("Of HTTP, if the receiver answered.")]
    error: str | None


class DeliveryDetailAnswer(DeliveryAnswer):
    """A delivery with its latest 100 attempts."""

    summary: str
    attempts: Annotated[list[AttemptAnswer], about("Newest first.")]


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
        deliveries = Delivery.objects.filter(tenant=tenant_of(request), **_filters(request))
        return answer_page(request, deliveries, delivery_answer)


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
        again = resend(delivery=_find(request, delivery_id), actor=actor_of(request))
        return Response(detail_answer(again), status=202)


def _filters(request: Request) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    state = request.query_params.get("state")
    if state is not None:
        if state not in DeliveryState.values:
            raise InvalidRequest(f"'state' must be one of {', '.join(DeliveryState.values)}.")
        filters["state"] = state
    for name in ("channel", "incident"):
        text = request.query_params.get(name)
        if text is not None:
            is_id = text.isascii() and text.isdecimal() and len(text) <= 19
            if not is_id or not 1 <= int(text) <= ID_MAX:
                raise InvalidRequest(f"{name!r} must be the id of one.")
            filters[f"{name}_id"] = int(text)
    return filters


def _find(request: Request, delivery_id: int) -> Delivery:
    return find(Delivery.objects.filter(tenant=tenant_of(request)), delivery_id)


def delivery_answer(
    delivery: Delivery, kind: type[DeliveryAnswer] = DeliveryAnswer, **further: Any
) -> DeliveryAnswer:
    """Return a delivery as lists show it, or as a kind that has further fields."""
    return kind.of(
        delivery,
        channel=delivery.channel_id,
        incident=delivery.incident_id,
        title=delivery.message.get("title", ""),
        due_at=delivery.due_at if delivery.state == DeliveryState.WAITING else None,
        held_by=delivery.held_by or None,
        attempt_count=delivery.attempts,
        last_error=delivery.last_error or None,
        **further,
    )


def detail_answer(delivery: Delivery) -> DeliveryAnswer:
    """Return a delivery with its attempts."""
    tried = delivery.tried.order_by("-id")[:ATTEMPTS_MAX]
    return delivery_answer(
        delivery,
        DeliveryDetailAnswer,
        summary=delivery.message.get("summary", ""),
        attempts=[AttemptAnswer.of(attempt, error=attempt.error or None) for attempt in tried],
    )
