"""`GET /v1/usage`: what was used and what it cost, by bucket and group."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Final, Self

from drf_spectacular.utils import OpenApiParameter, extend_schema
from msgspec import UNSET, Meta, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.pagination import PAGE_PARAMETERS, read_limit
from common.api.parameters import read_choice, read_flag
from common.api.structs import AmountUsd, Answer, GroupValues, UtcTimestamp, about, usd_or_none
from common.json_bodies import JsonObject
from metering.core.dimensions import MATCHABLE
from metering.fields.parameters import FILTER_PARAMETERS, RANGE_PARAMETERS, read_filters, read_range
from metering.reporting import (
    METRICS,
    MONEY_METRICS,
    Figures,
    Percentiles,
    ReportRow,
    UsageQuestion,
    percentiles_of,
    range_of_cursor,
    require_sums,
    usage_report,
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


_DISTINCT: Final = "Different values in the row's time. They do not add up over rows."
_RATIO: Final = "Null where there is nothing to divide by. Ratios do not add up over rows."
_PERCENTILE: Final = "Within 5%; null where nothing was measured. Does not add up over rows."
Share = Annotated[float, Meta(ge=0)]
ShareMetric = Annotated[Share | UnsetType | None, about(f"A share, from 0 to 1. {_RATIO}")]
AmountMetric = Annotated[AmountUsd | UnsetType | None, about(_RATIO)]
DistinctMetric = Annotated[int | UnsetType | None, about(_DISTINCT)]
AmountPercentile = Annotated[AmountUsd | UnsetType | None, about(_PERCENTILE)]
LatencyPercentile = Annotated[int | UnsetType | None, about(_PERCENTILE)]


class FiguresAnswer(MeasuresAnswer, kw_only=True):
    """What was counted, and the metrics that were asked for."""

    cost_per_request: AmountMetric = UNSET
    error_rate: ShareMetric = UNSET
    cache_hit_share: ShareMetric = UNSET
    users: DistinctMetric = UNSET
    sessions: DistinctMetric = UNSET
    customers: DistinctMetric = UNSET
    p50_cost_usd: AmountPercentile = UNSET
    p95_cost_usd: AmountPercentile = UNSET
    p99_cost_usd: AmountPercentile = UNSET
    p50_latency_ms: LatencyPercentile = UNSET
    p95_latency_ms: LatencyPercentile = UNSET
    p99_latency_ms: LatencyPercentile = UNSET
    successes: Annotated[
        int | UnsetType | None,
        about("Successful tasks and sessions, each counted at its last call."),
    ] = UNSET
    cost_per_success_usd: AmountMetric = UNSET

    @classmethod
    def showing(cls, figures: Figures, **further: object) -> Self:
        """Return figures as they are answered."""
        shown = {name: _shown(name, figure) for name, figure in figures.metrics.items()}
        return cls.of(figures.measures, **shown, **further)


class PreviousAnswer(FiguresAnswer):
    """The same figures of the time before."""


class TotalAnswer(FiguresAnswer, kw_only=True):
    """The total of all pages. Metrics are of the whole range, not sums of rows."""

    previous: Annotated[
        PreviousAnswer | UnsetType, about("The whole time before. Present with `compare`.")
    ] = UNSET


class CoverageAnswer(Answer):
    """How much of the usage has a price; shares are rounded down, null where there is nothing."""

    priced_share: Annotated[Share | None, about("Of calls.")]
    unpriced_requests: int
    given_cost_share: Annotated[
        Share | None, about("The share of the cost that was given instead of rated by prices.")
    ]


class UsageRowAnswer(FiguresAnswer, kw_only=True):
    """Usage of one group in one bucket of time."""

    group: GroupValues
    start: UtcTimestamp
    is_other: Annotated[
        bool | UnsetType, about("The long tail of values, added up. Present when true.")
    ] = UNSET
    latency_ms: PercentilesAnswer | UnsetType = UNSET
    time_to_first_token_ms: PercentilesAnswer | UnsetType = UNSET
    request_cost_usd: AmountPercentilesAnswer | UnsetType = UNSET
    previous: Annotated[
        PreviousAnswer | UnsetType,
        about("The same group in the same elapsed time before. Present with `compare`."),
    ] = UNSET


class UsageAnswer(Answer):
    """A page of usage, and the total of all pages."""

    data: list[UsageRowAnswer]
    total: TotalAnswer
    next_cursor: str | None
    coverage: CoverageAnswer


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
                " whole and for team, customer, agent, feature, model or provider alone, by UTC"
                " days.",
            ),
            OpenApiParameter(
                "metrics",
                {"type": "string", "examples": ["users,p95_cost_usd"]},
                description="Further figures of every row, with commas between:"
                f" {', '.join(METRICS)}. Only `successes` adds up over rows.",
            ),
            OpenApiParameter(
                "compare",
                str,
                enum=["previous"],
                description="Adds `previous` to every row and the total: the same elapsed time"
                " before, by the wall clock of `timezone`.",
            ),
            OpenApiParameter(
                "cumulative",
                bool,
                description="Sums run up from `from`, for each group by itself.",
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
        metrics = request.query_params.get("metrics", "")
        report = usage_report(
            question,
            metrics=tuple(dict.fromkeys(metrics.split(","))) if metrics else (),
            is_compared=read_choice(request, "compare", ("previous",)) is not None,
            is_cumulative=read_flag(request, "cumulative") or False,
            limit=read_limit(request),
            cursor=cursor,
        )
        percentiles: Sequence[Percentiles | None] = [None] * len(report.rows)
        if read_flag(request, "percentiles"):
            percentiles = percentiles_of(question, [row.row for row in report.rows])
        return Response(
            UsageAnswer(
                data=[_row_answer(*row) for row in zip(report.rows, percentiles, strict=True)],
                total=TotalAnswer.showing(report.total, **_previous(report.previous_total)),
                next_cursor=report.next_cursor,
                coverage=CoverageAnswer(
                    priced_share=_share(report.coverage.priced_share),
                    unpriced_requests=report.coverage.unpriced_requests,
                    given_cost_share=_share(report.coverage.given_cost_share),
                ),
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


def _row_answer(report: ReportRow, percentiles: Percentiles | None) -> UsageRowAnswer:
    row = report.row
    further: JsonObject = {"is_other": True} if row.is_other else {}
    further |= _previous(report.previous)
    if percentiles is not None:
        costs = {percent: usd_or_none(cost) for percent, cost in percentiles.cost_nanos.items()}
        further |= {
            "latency_ms": PercentilesAnswer(**_named(percentiles.latency_ms)),
            "time_to_first_token_ms": PercentilesAnswer(
                **_named(percentiles.time_to_first_token_ms)
            ),
            "request_cost_usd": AmountPercentilesAnswer(**_named(costs)),
        }
    return UsageRowAnswer.showing(report.figures, group=row.group, start=row.start, **further)


def _previous(figures: Figures | None) -> dict[str, PreviousAnswer]:
    return {} if figures is None else {"previous": PreviousAnswer.showing(figures)}


def _shown(name: str, figure: int | Decimal | None) -> str | float | int | None:
    if isinstance(figure, Decimal):
        return float(figure)
    return usd_or_none(figure) if name in MONEY_METRICS else figure


def _share(share: Decimal | None) -> float | None:
    return None if share is None else float(share)


def _named(values: Mapping[int, object]) -> JsonObject:
    return {f"p{percent}": value for percent, value in values.items()}
