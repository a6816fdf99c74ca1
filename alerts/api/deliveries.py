"""`/v1/deliveries`: messages that were sent, that wait, and that could not be delivered."""

from typing import Annotated, Final
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from alerts.delivery import resend
from alerts.models import Delivery, DeliveryEvent, DeliveryState, HeldBy, Severity
from common.api.pagination import PAGE_PARAMETERS
from common.api.parameters import ID_SCHEMA, read_choice, read_id
from common.api.structs import Answer, UtcTimestamp, about, one_of
from tenants.api.idempotency import idempotent
from tenants.api.resources import Resource

# The latest; a delivery that fails for three days has more than anyone reads.
ATTEMPTS_MAX: Final = 100


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
        str, one_of(DeliveryState.values, "`dead`: given up; `superseded`: no longer needed.")
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


@extend_schema_view(
    list=extend_schema(summary="List deliveries, newest first"),
    retrieve=extend_schema(
        summary="Show a delivery and its attempts", responses=DeliveryDetailAnswer
    ),
)
class Deliveries(Resource[Delivery]):
    """The deliveries of the tenant."""

    model = Delivery
    noun = "delivery"
    answer = DeliveryAnswer
    order = ("-id",)
    parameters = {
        "list": (
            *PAGE_PARAMETERS,
            OpenApiParameter("state", str, enum=DeliveryState.values),
            OpenApiParameter("channel", ID_SCHEMA),
            OpenApiParameter("incident", ID_SCHEMA),
        )
    }

    def listed_rows(self) -> QuerySet[Delivery]:
        filters = {
            "state": read_choice(self.request, "state", DeliveryState.values),
            "channel_id": read_id(self.request, "channel"),
            "incident_id": read_id(self.request, "incident"),
        }
        given = {name: value for name, value in filters.items() if value is not None}
        return self.rows().filter(**given)

    def answer_of(self, row: Delivery) -> DeliveryAnswer:
        return delivery_answer(row)

    def full_answer(self, row: Delivery) -> DeliveryAnswer:
        return detail_answer(row)

    @extend_schema(
        summary="Send a delivery again, with its message and reference as they were",
        description="The answer comes before the attempt: see `state` and `attempts` later.",
        request=None,
        responses={202: DeliveryDetailAnswer},
    )
    @idempotent
    def resend(self, request: Request, **path: object) -> Response:
        again = resend(delivery=self.row(), actor=self.actor)
        return Response(detail_answer(again), status=202)


def delivery_answer(
    delivery: Delivery, kind: type[DeliveryAnswer] = DeliveryAnswer, **further: object
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
