"""`GET /v1/events`: the stored events, newest first."""

from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import moment_text
from common.api.pagination import PAGE_PARAMETERS, PAGE_SCHEMA
from common.money import usd_from_nanos
from metering.core.dimensions import DIMENSIONS, MATCHABLE
from metering.fields.parameters import (
    FILTER_SCHEMA,
    RANGE_SCHEMA,
    filters_of,
    flag_of,
    limit_of,
    moment_of,
)
from metering.models import Completeness, CostSource, Operation, Route, Status, UsageEvent
from metering.reporting import EventQuestion, list_events, require_events
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

# What a call used: none is zero.
USED: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "web_searches",
)
# What may be unknown.
COUNTS: Final = (
    "max_output_tokens",
    "latency_ms",
    "time_to_first_token_ms",
    "step",
    "complexity",
    "price_id",
)
TEXTS: Final = (
    "source",
    "provider",
    *DIMENSIONS,
    "tool",
    "span",
    "parent_span",
    "response_id",
    "request_id",
    "requested_model",
    "service_tier",
    "error_type",
    "tool_arguments_hash",
    "task_type",
    "output_hash",
    "prefix_hash",
)
UNPRICED_REASONS: Final = ("usage_missing", "no_price", "no_rate")
# What an event has in any case; the other texts are null where it has none.
SURE_TEXTS: Final = frozenset({"source"})
_COUNT: Final = {"type": "integer", "nullable": True}
_TEXT: Final = {"type": "string", "nullable": True}
EVENT_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "operation": {"type": "string", "enum": Operation.labels},
        "status": {"type": "string", "enum": Status.labels},
        "route": {"type": "string", "enum": Route.labels},
        **{name: {"type": "string"} if name in SURE_TEXTS else _TEXT for name in TEXTS},
        **{name: {"type": "integer"} for name in USED},
        **dict.fromkeys(COUNTS, _COUNT),
        "extra_usage": {
            "type": "object",
            "description": "What was used beside the counts above: units such as"
            " `input_characters` or `audio_seconds`, and `unknown_parts` of a usage object that"
            " adds up without them.",
        },
        "cost_usd": {
            **_TEXT,
            "description": "Null while there is no price; what has a rate where only some of it"
            " has none.",
        },
        "cost_source": {"type": "string", "enum": CostSource.labels},
        "unpriced_reason": {
            "type": "string",
            "enum": [*UNPRICED_REASONS, None],
            "nullable": True,
            "description": "`usage_missing`: no report says what the call used. `no_price`: the"
            " catalogue has no price for its model. `no_rate`: the price has no rate for some of"
            " what the call used; `cost_usd` is that of the rest.",
        },
        "is_estimate": {
            "type": "boolean",
            "description": "The answer broke off: the figures are what was received.",
        },
        "conflict": {
            "type": "boolean",
            "description": "It shares an identity with another call and contradicts it.",
        },
        "saved_usd": _TEXT,
        "reservation": _TEXT,
        "tags": {"type": "object", "additionalProperties": {}},
        "void": {"type": "boolean", "description": "Taken back by a correction."},
    },
    "required": ["id", "source", "time", "cost_usd", "cost_source", "void"],
}
EVENTS_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "data": {"type": "array", "items": EVENT_SCHEMA},
        "next_cursor": {"type": "string", "nullable": True},
    },
    "required": ["data", "next_cursor"],
}


class EventsView(ApiView):
    """The stored events."""

    read_scope = Scope.READ
    filters = MATCHABLE
    parameters = {"GET": PAGE_PARAMETERS | {"from", "to", "status", "unpriced", "conflicts"}}

    @extend_schema(
        summary="The stored events, newest first",
        description="Tokens are as normalised: input includes cached, output includes reasoning."
        " Events that a correction took back are listed with `void`.",
        parameters=[
            *PAGE_SCHEMA,
            *RANGE_SCHEMA,
            OpenApiParameter("status", str, enum=Status.labels),
            OpenApiParameter("unpriced", bool, description="Only those without (or with) a price."),
            OpenApiParameter(
                "conflicts",
                bool,
                description="Only calls that share an identity with another call (the provider's"
                " response, say) and contradict it, or only the others.",
            ),
            *FILTER_SCHEMA,
        ],
        responses={200: EVENTS_SCHEMA},
    )
    def get(self, request: Request) -> Response:
        filters = dict(filters_of(request))
        if (status := request.query_params.get("status")) is not None:
            filters["status"] = (status,)
        question = EventQuestion(
            tenant_id=tenant_of(request).id,
            starts_at=moment_of(request, "from"),
            ends_at=moment_of(request, "to"),
            filters=filters,
            is_unpriced=flag_of(request, "unpriced"),
            is_conflict=flag_of(request, "conflicts"),
        )
        if question.starts_at is not None:
            require_events(tenant_id=question.tenant_id, starts_at=question.starts_at)
        page = list_events(
            question, limit=limit_of(request), cursor=request.query_params.get("cursor")
        )
        return Response(
            {
                "data": [event_answer(event) for event in page.rows],
                "next_cursor": page.next_cursor,
            }
        )


def event_answer(event: UsageEvent) -> dict[str, Any]:
    """An event as it is answered; an empty dimension is null, as it was sent."""
    return {
        "id": event.sent_id,
        "time": moment_text(event.time),
        "operation": Operation(event.operation).label,
        "status": Status(event.status).label,
        "route": Route(event.route).label,
        **{name: getattr(event, name) or None for name in TEXTS},
        **{name: getattr(event, name) or 0 for name in USED},
        **{name: getattr(event, name) for name in COUNTS},
        "source": event.source,
        "extra_usage": event.extra_usage or {},
        "cost_usd": _usd(event.cost_nanos),
        "cost_source": CostSource(event.cost_source).label,
        "unpriced_reason": _unpriced_reason(event),
        "is_estimate": event.completeness == Completeness.ESTIMATE,
        "conflict": event.is_conflict,
        "saved_usd": _usd(event.saved_nanos),
        "reservation": None if event.reservation_id is None else str(event.reservation_id),
        "tags": event.tags or {},
        "void": event.is_void,
    }


def _unpriced_reason(event: UsageEvent) -> str | None:
    if event.cost_source != CostSource.UNPRICED:
        return None
    if event.completeness == Completeness.MISSING:
        return "usage_missing"
    return "no_price" if event.price_id is None else "no_rate"


def _usd(nanos: int | None) -> str | None:
    return None if nanos is None else usd_from_nanos(nanos)
