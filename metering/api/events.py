"""`/v1/events`: the stored events, newest first; and taking events in."""

from typing import Annotated, Any, Final, Self, get_type_hints

from drf_spectacular.utils import OpenApiParameter, extend_schema
from msgspec import Meta
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.pagination import PAGE_PARAMETERS, page_of, read_limit
from common.api.parameters import read_flag, read_timestamp
from common.api.structs import AmountUsd, Answer, UtcTimestamp, about, one_of, usd_or_none
from common.json_bodies import JsonObject
from metering.api.fast_views import fast_post
from metering.api.ingest import EVENT_BODIES, INGEST_ANSWERS
from metering.core.dimensions import MATCHABLE
from metering.fields.parameters import FILTER_PARAMETERS, RANGE_PARAMETERS, read_filters
from metering.models import Completeness, CostSource, Operation, Route, Status, UsageEvent
from metering.reporting import EventQuestion, list_events, require_events
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

UNPRICED_REASONS: Final = ("usage_missing", "no_price", "no_rate")


class EventAnswer(Answer):
    """An event as it is stored."""

    id: str
    time: UtcTimestamp
    operation: Annotated[str, one_of(Operation.labels)]
    status: Annotated[str, one_of(Status.labels)]
    route: Annotated[str, one_of(Route.labels)]
    source: str
    provider: str | None
    team: str | None
    customer: str | None
    agent: str | None
    user: str | None
    feature: str | None
    session: str | None
    task: str | None
    trace: str | None
    model: str | None
    tool: str | None
    span: str | None
    parent_span: str | None
    response_id: str | None
    request_id: str | None
    requested_model: str | None
    service_tier: str | None
    error_type: str | None
    tool_arguments_hash: str | None
    task_type: str | None
    output_hash: str | None
    prefix_hash: str | None
    # What a call used: none is zero.
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    web_searches: int
    # What may be unknown.
    max_output_tokens: int | None
    latency_ms: int | None
    time_to_first_token_ms: int | None
    step: int | None
    complexity: int | None
    price_id: int | None
    extra_usage: Annotated[
        JsonObject,
        about(
            "What was used beside the counts above: units such as `input_characters` or"
            " `audio_seconds`, and `unknown_parts` of a usage object that adds up without them."
        ),
    ]
    cost_usd: Annotated[
        AmountUsd | None,
        about("Null while there is no price; what has a rate where only some of it has none."),
    ]
    cost_source: Annotated[str, one_of(CostSource.labels)]
    unpriced_reason: Annotated[
        str | None,
        about(
            "`usage_missing`: no report says what the call used. `no_price`: the catalogue has no"
            " price for its model. `no_rate`: the price has no rate for some of what the call"
            " used; `cost_usd` is that of the rest."
        ),
        Meta(extra_json_schema={"enum": [*UNPRICED_REASONS, None]}),
    ]
    is_estimate: Annotated[bool, about("The answer broke off: the figures are what was received.")]
    conflict: Annotated[bool, about("It shares an identity with another call and contradicts it.")]
    saved_usd: AmountUsd | None
    reservation: str | None
    tags: JsonObject
    void: Annotated[bool, about("Taken back by a correction.")]

    @classmethod
    def telling(cls, event: UsageEvent, **further: Any) -> Self:
        """Return an event as it is answered; an empty dimension is null, as it was sent."""
        computed: JsonObject = {
            "id": event.sent_id,
            "operation": Operation(event.operation).label,
            "status": Status(event.status).label,
            "route": Route(event.route).label,
            "source": event.source,
            "extra_usage": event.extra_usage or {},
            "cost_usd": usd_or_none(event.cost_nanos),
            "cost_source": CostSource(event.cost_source).label,
            "unpriced_reason": _unpriced_reason(event),
            "is_estimate": event.completeness == Completeness.ESTIMATE,
            "conflict": event.is_conflict,
            "saved_usd": usd_or_none(event.saved_nanos),
            "reservation": None if event.reservation_id is None else str(event.reservation_id),
            "tags": event.tags or {},
            "void": event.is_void,
        }
        stored = {name: getattr(event, name) for name in _TYPES if name not in computed}
        shown = {name: value or _EMPTY.get(_TYPES[name], value) for name, value in stored.items()}
        return cls(**computed, **shown, **further)


# What stands for a missing value, by type: an empty text is answered as null.
_EMPTY: Final[dict[Any, Any]] = {int: 0, str | None: None}
_TYPES: Final = get_type_hints(EventAnswer)


class EventsView(ApiView):
    """Usage events: taken in, and listed."""

    post = fast_post(
        summary="Report usage",
        description="One event, an array, NDJSON, or CloudEvents in structured or batch mode; in"
        " binary mode (`ce-` headers) the event is the body. A bad event never loses a good one.",
        request=EVENT_BODIES,
        responses=INGEST_ANSWERS,
    )
    write_scope = Scope.INGEST
    filters = MATCHABLE
    parameters = {
        "GET": (
            *PAGE_PARAMETERS,
            *RANGE_PARAMETERS,
            OpenApiParameter("status", str, enum=Status.labels),
            OpenApiParameter("unpriced", bool, description="Only those without (or with) a price."),
            OpenApiParameter(
                "conflicts",
                bool,
                description="Only calls that share an identity with another call (the provider's"
                " response, say) and contradict it, or only the others.",
            ),
            *FILTER_PARAMETERS,
        )
    }

    @extend_schema(
        summary="The stored events, newest first",
        description="Tokens are as normalised: input includes cached, output includes reasoning."
        " Events that a correction took back are listed with `void`.",
        responses=page_of(EventAnswer),
    )
    def get(self, request: Request) -> Response:
        filters = dict(read_filters(request))
        if (status := request.query_params.get("status")) is not None:
            filters["status"] = (status,)
        question = EventQuestion(
            tenant_id=tenant_of(request).id,
            starts_at=read_timestamp(request, "from"),
            ends_at=read_timestamp(request, "to"),
            filters=filters,
            is_unpriced=read_flag(request, "unpriced"),
            is_conflict=read_flag(request, "conflicts"),
        )
        if question.starts_at is not None:
            require_events(tenant_id=question.tenant_id, starts_at=question.starts_at)
        page = list_events(
            question, limit=read_limit(request), cursor=request.query_params.get("cursor")
        )
        data = [EventAnswer.telling(event) for event in page.rows]
        return Response({"data": data, "next_cursor": page.next_cursor})


class OpenMeterEventsView(ApiView):
    """OpenMeter's address for events, which only takes them in."""

    write_scope = Scope.INGEST
    post = fast_post(exclude=True)


def _unpriced_reason(event: UsageEvent) -> str | None:
    if event.cost_source != CostSource.UNPRICED:
        return None
    if event.completeness == Completeness.MISSING:
        return "usage_missing"
    return "no_price" if event.price_id is None else "no_rate"
