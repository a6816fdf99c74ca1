"""How far estimates were from what calls cost: reservations against their settles."""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final, NamedTuple

from django.db import connection

from metering.models import ReservationState
from metering.reporting.conditions import NO_CONDITION, Condition
from metering.reporting.cursors import Page, cut_page, fingerprint, position_after
from metering.reporting.question import InvalidQuestion, check_range
from metering.reporting.usage import TUNING

# What reservations are grouped by, and where a row has it.
GROUPS: Final = {
    "agent": "coalesce(dimensions ->> 'agent', '')",
    "feature": "coalesce(dimensions ->> 'feature', '')",
    "model": "model",
}
# Rows lie in the order of time. The planner takes the primary key to be as good an order, and reads
# a million of them one by one at random: three times slower than in the order of pages.
READ_IN_ORDER: Final = f"{TUNING}; SET LOCAL enable_indexscan = off"
READ_AS_BEFORE: Final = "SET LOCAL enable_indexscan = on"
# Counted by whole percent of what was reserved first, so that nothing is sorted but these counts.
READ_ERRORS: Final = f"""
    WITH counted AS MATERIALIZED (
        SELECT {{value}} COLLATE "C" AS value, estimate COLLATE "C" AS estimate,
            CASE WHEN cost_nanos IS NOT NULL AND reserved_nanos > 0
                THEN least(round(cost_nanos * 100.0::float8 / reserved_nanos), 1e9)::int END
                AS percent,
            count(cost_nanos) AS settled,
            count(*) FILTER (WHERE state = {ReservationState.RELEASED.value}) AS released,
            count(*) FILTER (WHERE state = {ReservationState.EXPIRED.value}) AS expired,
            count(*) FILTER (WHERE state = {ReservationState.OPEN.value}) AS open,
            count(*) FILTER (WHERE is_late) AS late,
            sum(reserved_nanos) FILTER (WHERE cost_nanos IS NOT NULL) AS reserved_nanos,
            sum(cost_nanos) AS cost_nanos,
            count(*) FILTER (WHERE cost_nanos > reserved_nanos) AS over,
            sum(cost_nanos - reserved_nanos) FILTER (WHERE cost_nanos > reserved_nanos)
                AS overrun_nanos,
            sum(abs(cost_nanos - reserved_nanos)) AS error_nanos
        FROM reservation WHERE tenant_id = %s AND created_at >= %s AND created_at < %s AND {{after}}
            AND (%s::text[] IS NULL OR dimensions ->> 'team' = ANY(%s))
        GROUP BY 1, 2, 3
    ), ranked AS (
        SELECT *, sum(settled) OVER (PARTITION BY value, estimate ORDER BY percent) AS seen,
            sum(settled) FILTER (WHERE percent IS NOT NULL) OVER (PARTITION BY value, estimate)
                AS known
        FROM counted
    )
    SELECT value, estimate, sum(settled)::bigint, sum(released)::bigint, sum(expired)::bigint,
        sum(open)::bigint, sum(late)::bigint, coalesce(sum(reserved_nanos), 0),
        coalesce(sum(cost_nanos), 0), sum(over)::bigint, coalesce(sum(overrun_nanos), 0),
        coalesce(sum(error_nanos), 0),
        min(percent) FILTER (WHERE seen * 100 >= known * 50),
        min(percent) FILTER (WHERE seen * 100 >= known * 95)
    FROM ranked GROUP BY value, estimate ORDER BY value, estimate LIMIT %s
"""


@dataclass(frozen=True, kw_only=True)
class EstimateQuestion:
    """Reservations that were asked for from `starts_at` up to but not including `ends_at`, by one
    of GROUPS. Raises InvalidQuestion.
    """

    tenant_id: int
    starts_at: datetime
    ends_at: datetime
    group_by: str = "agent"
    # Of calls of these teams alone.
    teams: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_range(self.starts_at, self.ends_at)
        if self.group_by not in GROUPS:
            raise InvalidQuestion("invalid_group_by", f"group_by is one of {', '.join(GROUPS)}.")


class EstimateError(NamedTuple):
    """Reservations of one group and kind of estimate, and what the settled ones of them cost.

    `over` cost more than was reserved, together by `overrun_nanos`. The percentiles `p50` and `p95`
    are of cost in whole percent of what was reserved, where anything was.
    """

    value: str
    estimate: str
    settled: int
    released: int
    expired: int
    open: int
    late: int
    reserved_nanos: int
    cost_nanos: int
    over: int
    overrun_nanos: int
    error_nanos: int
    p50: int | None
    p95: int | None

    @property
    def mean_absolute_error_percent(self) -> Decimal | None:
        """The mean distance between reserved and true cost, in percent of the mean true cost."""
        if not self.cost_nanos:
            return None
        percent = Decimal(self.error_nanos * 100) / self.cost_nanos
        return percent.quantize(Decimal("0.1"), rounding=ROUND_HALF_UP)


def estimate_errors(
    question: EstimateQuestion, *, limit: int = 100, cursor: str | None = None
) -> Page[EstimateError]:
    """Return a page of the errors of estimates, by value and kind of estimate."""
    mark = fingerprint("estimates", question.group_by, question.starts_at, question.ends_at)
    after = NO_CONDITION
    if cursor is not None:
        position = position_after(cursor, mark, tuple[str, str])
        after = Condition(
            f'({GROUPS[question.group_by]} COLLATE "C", estimate COLLATE "C") > (%s, %s)',
            position,
        )
    statement = READ_ERRORS.format(value=GROUPS[question.group_by], after=after.sql)
    range_ = (question.tenant_id, question.starts_at, question.ends_at)
    teams = None if question.teams is None else list(question.teams)
    with connection.cursor() as database:
        database.execute(READ_IN_ORDER)
        database.execute(statement, [*range_, *after.parameters, teams, teams, limit + 1])
        rows = [
            EstimateError._make([value, estimate, *map(int, counts), p50, p95])
            for value, estimate, *counts, p50, p95 in database.fetchall()
        ]
        database.execute(READ_AS_BEFORE)
    return cut_page(
        rows,
        limit=limit,
        question=mark,
        after=lambda row: (row.value, row.estimate),
        bounds=(question.starts_at, question.ends_at),
    )
