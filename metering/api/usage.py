"""`GET /v1/usage`: what was used and what it cost, by bucket and group."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.pagination import PAGE_PARAMETERS, read_limit
from common.api.parameters import read_flag
from common.api.structs import (
    AmountUsd,
    Answer,
    GroupValues,
    UtcTimestamp,
    about,
    usd_or_none,
)
from common.json_bodies import JsonObject
from metering.core.dimensions import MATCHABLE
from metering.fields.parameters import (
    FILTER_PARAMETERS,
    RANGE_PARAMETERS,
    read_filters,
    read_range,
)
from metering.reporting import (
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


class MeasuresAnswer(Answer):
    """What was counted."""

    cost_usd: AmountUsd
    requests: int
    errors: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    tool_calls: int


class PercentilesAnswer(Answer):
    """Percentiles; null where nothing was measured."""

    p50: int | None
    p95: int | None
    p99: int | None


class AmountPercentilesAnswer(Answer):
    """Percentiles of amounts; null where nothing was measured."""

    p50: AmountUsd | None
    p95: AmountUsd | None
    p99: AmountUsd | None


class UsageRowAnswer(MeasuresAnswer):
    """Usage of one group in one bucket of time."""

    group: GroupValues
    start: UtcTimestamp
    is_other: Annotated[
        bool | UnsetType, about("The long tail of values, added up. Present when true.")
    ] = UNSET
    latency_ms: PercentilesAnswer | UnsetType = UNSET
    time_to_first_token_ms: PercentilesAnswer | UnsetType = UNSET
    request_cost_usd: AmountPercentilesAnswer | UnsetType = UNSET


class UsageAnswer(Answer):
    """A page of usage, and the total of all pages."""

    data: list[UsageRowAnswer]
    total: MeasuresAnswer
    next_cursor: str | None


class UsageView(ApiView):
    """Usage of the tenant."""

    filters = MATCHABLE
    parameters = {
        "GET": (
            *PAGE_PARAMETERS,
            *RANGE_PARAMETERS,
            OpenApiParameter("group_by", str, description="Dimensions, with commas between."),
            OpenApiParameter("interval", str, enum=INTERVALS, default="day"),
            OpenApiParameter("timezone", str, description="As in Europe/Berlin.", default="UTC"),
            OpenApiParameter(
                "percentiles",
                bool,
                description="Latency, time to first token and cost of requests, within 5%: for the"
                " whole and for agent, feature or model alone, by UTC days.",
            ),
            *FILTER_PARAMETERS,
        )
    }

    @extend_schema(
        summary="What was used and what it cost, by time and by dimensions",
        description="Rows come by start and then group values; without interval the most expensive"
        " first, and after 600 of them by group values. Each row comes once, even if costs move."
        " Every event is a request, except tool calls. `total` is of all pages. A value that is"
        " beyond what roll-ups keep of a dimension counts in the group `(other)`.",
        responses={200: UsageAnswer},
    )
    def get(self, request: Request) -> Response:
        cursor = request.query_params.get("cursor")
        question = _question(request, cursor)
        require_sums(question)
        has_percentiles = read_flag(request, "percentiles") or False
        page = usage(question, limit=read_limit(request), cursor=cursor)
        percentiles: Sequence[Percentiles | None] = [None] * len(page.rows)
        if has_percentiles:
            percentiles = percentiles_of(question, page.rows)
        return Response(
            UsageAnswer(
                data=[_row_answer(*row) for row in zip(page.rows, percentiles, strict=True)],
                total=MeasuresAnswer.of(page.total),
                next_cursor=page.next_cursor,
            )
        )


def _question(request: Request, cursor: str | None) -> UsageQuestion:
    starts_at, ends_at = read_range(request, range_of_cursor(cursor) if cursor else None)
    group_by = request.query_params.get("group_by", "")
    return UsageQuestion(
        tenant_id=tenant_of(request).id,
        starts_at=starts_at,
        ends_at=ends_at,
        group_by=tuple(group_by.split(",")) if group_by else (),
        interval=request.query_params.get("interval", "day"),
        timezone=request.query_params.get("timezone", "UTC"),
        filters=read_filters(request),
    )


def _row_answer(row: UsageRow, percentiles: Percentiles | None) -> UsageRowAnswer:
    further: JsonObject = {"is_other": True} if row.is_other else {}
    if percentiles is not None:
        costs = {percent: usd_or_none(cost) for percent, cost in percentiles.cost_nanos.items()}
        further |= {
            "latency_ms": PercentilesAnswer(**_named(percentiles.latency_ms)),
            "time_to_first_token_ms": PercentilesAnswer(
                **_named(percentiles.time_to_first_token_ms)
            ),
            "request_cost_usd": AmountPercentilesAnswer(**_named(costs)),
        }
    return UsageRowAnswer.of(row.measures, group=row.group, start=row.start, **further)


def _named(values: Mapping[int, Any]) -> JsonObject:
    return {f"p{percent}": value for percent, value in values.items()}
