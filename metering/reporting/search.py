"""Finding what a person types: values of dimensions used lately, sessions, traces and budgets.

Values come from the roll-ups of the last days; sessions and traces from the newest calls, and by
their whole id from all of them. `teams` are those that the person may see; None: the whole tenant.
Of values without a roll-up by team, a person who sees some teams alone finds none.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from common.queries import fetch_rows
from metering.models import Budget
from metering.rollups.sets import DAY_SECONDS, OTHER, find_set

DAYS: Final = timedelta(days=7)
# Rows of roll-ups, and newest calls, that one search reads at most.
ROWS_MAX: Final = 100_000
CALLS_MAX: Final = 20_000
BUDGETS_MAX: Final = 200
# Dimensions by which single calls are found.
INDEXED: Final = frozenset({"session", "task", "trace"})


class FoundValue(NamedTuple):
    """A value of a dimension, and what its usage cost lately."""

    value: str
    cost_nanos: int


def find_values(
    *,
    tenant_id: int,
    dimension: str,
    text: str,
    now: datetime,
    teams: Collection[str] | None,
    limit: int,
) -> list[FoundValue]:
    """Return values that hold the text, whatever its case: those that begin with it first, then by
    cost.
    """
    names = {dimension} if teams is None else {dimension, "team"}
    days = find_set(frozenset(names), grain_seconds=DAY_SECONDS)
    if days is None:
        return []
    column = f"value_{days.dimensions.index(dimension) + 1}"
    team = f"value_{days.dimensions.index('team') + 1}" if teams is not None else "NULL::text"
    rows = fetch_rows(
        f"""
        SELECT value, sum(cost_nanos) FROM (
            SELECT {column} AS value, {team} AS team, cost_nanos FROM usage_rollup
            WHERE tenant_id = %s AND dimension_set = %s AND starts_at >= %s
            ORDER BY starts_at DESC LIMIT {ROWS_MAX}
        ) lately
        WHERE value NOT IN ('', %s) AND strpos(lower(value), lower(%s)) > 0
            AND (%s::text[] IS NULL OR team = ANY(%s))
        GROUP BY value
        ORDER BY NOT starts_with(lower(value), lower(%s)), sum(cost_nanos) DESC, value LIMIT %s
        """,
        [
            *(tenant_id, days.number, now - DAYS, OTHER, text),
            *(None if teams is None else list(teams), list(teams or ()), text, limit),
        ],
    )
    return [FoundValue(value, int(cost_nanos)) for value, cost_nanos in rows]


class FoundCalls(NamedTuple):
    """A session or trace, and the agent and the team of a call of it."""

    value: str
    agent: str


def find_calls(
    *, tenant_id: int, dimension: str, text: str, teams: Collection[str] | None, limit: int
) -> list[FoundCalls]:
    """Return sessions (or traces) that begin with the text, the latest first."""
    assert dimension in {"session", "trace"}
    own = [None if teams is None else list(teams), list(teams or ())]
    rows = fetch_rows(
        f"""
        SELECT value, max(agent) FROM (
            (SELECT {dimension} AS value, agent, team, time FROM usage_event
                WHERE tenant_id = %s AND {dimension} = %s AND {dimension} <> '' LIMIT 1)
            UNION ALL
            (SELECT {dimension}, agent, team, time FROM usage_event
                WHERE tenant_id = %s ORDER BY time DESC, id DESC LIMIT {CALLS_MAX})
        ) calls
        WHERE starts_with(value, %s) AND (%s::text[] IS NULL OR team = ANY(%s))
        GROUP BY value ORDER BY max(time) DESC, value LIMIT %s
        """,
        [tenant_id, text, tenant_id, text, *own, limit],
    )
    return [FoundCalls(*row) for row in rows]


def find_budgets(*, tenant_id: int, text: str) -> list[Budget]:
    """Return budgets in use whose name holds the text, by name."""
    rows = Budget.objects.filter(tenant_id=tenant_id, archived_at=None, name__icontains=text)
    return list(rows.order_by("name", "id")[:BUDGETS_MAX])


def find_used(
    *,
    tenant_id: int,
    dimension: str,
    values: Collection[str],
    teams: Collection[str],
    since: datetime,
) -> frozenset[str]:
    """Return those of the values with which calls of these teams came since then: by the roll-up of
    the pair, or by the index of sessions, tasks and traces. Of other dimensions none is found.
    """
    days = find_set(frozenset({dimension, "team"}), grain_seconds=DAY_SECONDS)
    if days is None and dimension not in INDEXED:
        return frozenset()
    if days is None:
        rows = fetch_rows(
            f"""
            SELECT wanted FROM unnest(%s::text[]) wanted WHERE wanted <> '' AND EXISTS (
                SELECT FROM usage_event WHERE tenant_id = %s AND {dimension} = wanted
                    AND {dimension} <> '' AND time >= %s AND team = ANY(%s))
            """,
            [list(values), tenant_id, since, list(teams)],
        )
    else:
        column = f"value_{days.dimensions.index(dimension) + 1}"
        team = f"value_{days.dimensions.index('team') + 1}"
        rows = fetch_rows(
            f"""
            SELECT DISTINCT value FROM (
                SELECT {column} AS value, {team} AS team FROM usage_rollup
                WHERE tenant_id = %s AND dimension_set = %s AND starts_at >= %s
                ORDER BY starts_at DESC LIMIT {ROWS_MAX}
            ) lately WHERE value = ANY(%s) AND team = ANY(%s)
            """,
            [tenant_id, days.number, since, list(values), list(teams)],
        )
    return frozenset(value for (value,) in rows)
