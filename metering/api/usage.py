"""`GET /v1/usage`: what was used and what it cost, by bucket and group."""

from collections.abc import Sequence
from typing import Any, Final

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import moment_text
from common.api.pagination import PAGE_PARAMETERS, PAGE_SCHEMA
from common.money import usd_from_nanos
from metering.core.dimensions import MATCHABLE
from metering.fields.parameters import (
    FILTER_SCHEMA,
    RANGE_SCHEMA,
    filters_of,
    flag_of,
    limit_of,
    range_of,
)
from metering.models import MEASURES
from metering.reporting import (
    Measures,
    Percentiles,
    UsageQuestion,
    UsageRow,
    percentiles_of,
    range_of_cursor,
    require_sums,
    usage,
)
from metering.reporting.question import INTERVALS
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

COUNTS: Final = MEASURES[1:]
USD: Final = {"type": "string", "example": "0.001234567"}
MEASURES_SCHEMA: Final[dict[str, Any]] = {
    "cost_usd": USD,
    **{name: {"type": "integer"} for name in COUNTS},
}
PERCENTILES_SCHEMA: Final = {
    "type": "object",
    "properties": {name: {"type": "integer", "nullable": True} for name in ("p50", "p95", "p99")},
}
ROW_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "group": {"type": "object", "additionalProperties": {"type": "string"}},
        "start": {"type": "string", "format": "date-time"},
        **MEASURES_SCHEMA,
        "is_other": {
            "type": "boolean",
            "description": "The long tail of values, added up. Present when true.",
        },
        "latency_ms": PERCENTILES_SCHEMA,
        "time_to_first_token_ms": PERCENTILES_SCHEMA,
        "request_cost_usd": {
            "type": "object",
            "properties": {name: {**USD, "nullable": True} for name in ("p50", "p95", "p99")},
        },
    },
    "required": ["group", "start", *MEASURES_SCHEMA],
}
USAGE_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "data": {"type": "array", "items": ROW_SCHEMA},
        "total": {
            "type": "object",
            "properties": MEASURES_SCHEMA,
            "required": list(MEASURES_SCHEMA),
        },
        "next_cursor": {"type": "string", "nullable": True},
    },
    "required": ["data", "total", "next_cursor"],
}


class UsageView(ApiView):
    """Usage of the tenant."""

    read_scope = Scope.READ
    filters = MATCHABLE
    parameters = {
        "GET": PAGE_PARAMETERS | {"from", "to", "group_by", "interval", "timezone", "percentiles"}
    }

    @extend_schema(
        summary="What was used and what it cost, by time and by dimensions",
        description="Rows come by start and then group values; without interval the most expensive"
        " first, and after 600 of them by group values. Each row comes once, even if costs move."
        " Every event is a request, except tool calls. `total` is of all pages. A value that is"
        " beyond what roll-ups keep of a dimension counts in the group `(other)`.",
        parameters=[
            *PAGE_SCHEMA,
            *RANGE_SCHEMA,
            OpenApiParameter("group_by", str, description="Dimensions, with commas between."),
            OpenApiParameter("interval", str, enum=INTERVALS, default="day"),
            OpenApiParameter("timezone", str, description="As in Europe/Berlin.", default="UTC"),
            OpenApiParameter(
                "percentiles",
                bool,
                description="Latency, time to first token and cost of requests, within 5 %: for the"
                " whole and for agent, feature or model alone, by UTC days.",
            ),
            *FILTER_SCHEMA,
        ],
        responses={200: USAGE_SCHEMA},
    )
    def get(self, request: Request) -> Response:
        cursor = request.query_params.get("cursor")
        question = _question(request, cursor)
        require_sums(question)
        has_percentiles = flag_of(request, "percentiles") or False
        page = usage(question, limit=limit_of(request), cursor=cursor)
        percentiles: Sequence[Percentiles | None] = [None] * len(page.rows)
        if has_percentiles:
            percentiles = percentiles_of(question, page.rows)
        return Response(
            {
                "data": [_row(*one) for one in zip(page.rows, percentiles, strict=True)],
                "total": measures_answer(page.total),
                "next_cursor": page.next_cursor,
            }
        )


def _question(request: Request, cursor: str | None) -> UsageQuestion:
    starts_at, ends_at = range_of(request, range_of_cursor(cursor) if cursor else None)
    group_by = request.query_params.get("group_by", "")
    return UsageQuestion(
        tenant_id=tenant_of(request).id,
        starts_at=starts_at,
        ends_at=ends_at,
        group_by=tuple(group_by.split(",")) if group_by else (),
        interval=request.query_params.get("interval", "day"),
        timezone=request.query_params.get("timezone", "UTC"),
        filters=filters_of(request),
    )


def _row(row: UsageRow, percentiles: Percentiles | None) -> dict[str, Any]:
    answer = {
        "group": row.group,
        "start": moment_text(row.start),
        **measures_answer(row.measures),
    }
    if row.is_other:
        answer["is_other"] = True
    if percentiles is not None:
        answer |= _percentiles_answer(percentiles)
    return answer


def measures_answer(measures: Measures) -> dict[str, Any]:
    """Measures as they are answered."""
    counts = measures._asdict()
    return {"cost_usd": usd_from_nanos(counts.pop("cost_nanos")), **counts}


def _percentiles_answer(percentiles: Percentiles) -> dict[str, Any]:
    def named(values: dict[int, int | None]) -> dict[str, Any]:
        return {f"p{percent}": value for percent, value in values.items()}

    cost = {
        name: None if nanos is None else usd_from_nanos(nanos)
        for name, nanos in named(percentiles.cost_nanos).items()
    }
    return {
        "latency_ms": named(percentiles.latency_ms),
        "time_to_first_token_ms": named(percentiles.time_to_first_token_ms),
        "request_cost_usd": cost,
    }
