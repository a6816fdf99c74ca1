"""The fullest windows of budgets, found in the database: ranked by their fullest part."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple

from django.db import connection

from common.queries import Parameter
from metering.core.dimensions import REQUEST
from metering.ledger.windows import WINDOW_COLUMNS, WindowState, used_share_sql
from metering.models import LimitIncreaseStatus, Period

# A rate that was seen for less than this share of the window says nothing yet.
SEEN_SHARE: Final = Decimal("0.02")
# How full windows are, in tenths of their limit; the last bin has those that are over.
BINS: Final = 11

# Of windows without end, which are always current, this many of each budget are ranked: the
# newest, and the newest of those that have reached a level. Of rolling ones those that count
# anything.
RANKED_MAX: Final = 1_000

_RANKED: Final = f"""
    SELECT * FROM budget_window o
    WHERE o.ends_at > %(now)s AND o.starts_at <= %(now)s
        AND o.tenant_id = b.tenant_id AND o.budget_id = b.id AND o.revision = b.revision
    UNION ALL
    SELECT * FROM budget_window o
    WHERE b.is_rolling AND o.oldest_grain_at IS NOT NULL
        AND o.tenant_id = b.tenant_id AND o.budget_id = b.id AND o.revision = b.revision
    UNION ALL
    SELECT * FROM budget_window o
    WHERE NOT b.is_rolling AND b.period = '{Period.LIFETIME.value}'
        AND o.tenant_id = b.tenant_id AND o.id IN (
        (SELECT id FROM budget_window w WHERE w.tenant_id = b.tenant_id AND w.budget_id = b.id
            AND w.revision = b.revision AND w.ends_at IS NULL AND w.level_percent > 0
        ORDER BY id DESC LIMIT {RANKED_MAX})
        UNION
        (SELECT id FROM budget_window w WHERE w.tenant_id = b.tenant_id AND w.budget_id = b.id
            AND w.revision = b.revision AND w.ends_at IS NULL
        ORDER BY id DESC LIMIT {RANKED_MAX})
    )
"""
_BIN_COUNTS: Final = ", ".join(
    f"coalesce(sum(number) FILTER (WHERE bin = {bin_}), 0)::bigint" for bin_ in range(BINS)
)
# How full a window is takes long to tell: it is told once for each, before they are ranked.
_FULLEST: Final = f"""
    WITH raised AS (
        SELECT budget_id, group_key, sum(add_cost_nanos) AS cost_nanos, sum(add_tokens) AS tokens,
            sum(add_requests) AS requests, sum(add_tool_calls) AS tool_calls,
            sum(add_seconds) AS seconds
        FROM limit_increase WHERE tenant_id = %(tenant)s
            AND status = '{LimitIncreaseStatus.APPROVED.value}'
            AND starts_at <= %(now)s AND ends_at > %(now)s GROUP BY budget_id, group_key
    ), counting AS MATERIALIZED (
        SELECT w.tenant_id, w.id, w.budget_id,
            {used_share_sql("coalesce(every.{part}, 0) + coalesce(own.{part}, 0)")} AS used,
            CASE WHEN w.ends_at IS NOT NULL AND NOT b.is_rolling THEN
            extract(epoch FROM %(now)s - w.starts_at) / extract(epoch FROM w.ends_at - w.starts_at)
        END AS passed
        FROM budget b CROSS JOIN LATERAL ({_RANKED}) w
        LEFT JOIN raised every ON every.budget_id = b.id AND every.group_key = ''
        LEFT JOIN raised own ON own.budget_id = b.id AND own.group_key = w.group_key
        WHERE b.tenant_id = %(tenant)s AND b.archived_at IS NULL AND NOT ('{REQUEST}' = ANY(b.per))
            AND b.id = ANY(%(budget_ids)s)
            AND (%(needle)s::text IS NULL OR w.group_key ILIKE %(needle)s)
            AND (%(values)s::jsonb = '{{}}' OR NOT EXISTS (
                SELECT FROM jsonb_each(%(values)s::jsonb) AS narrowed (name, wanted)
                WHERE narrowed.name = ANY(b.per) AND NOT coalesce(jsonb_exists(narrowed.wanted,
                    w.group_key::jsonb ->> (array_position(b.per::text[], narrowed.name) - 1)),
                    false)
            ))
    ), everything AS (
        SELECT count(*) FILTER (WHERE used >= 1) AS over,
            count(*) FILTER (WHERE used < 1 AND used > passed AND passed >= {SEEN_SHARE})
                AS running_out
        FROM counting
    ), spread AS (
        SELECT budget_id, sum(number)::bigint AS windows, ARRAY[{_BIN_COUNTS}] AS bins FROM (
            SELECT budget_id, least(floor(used * {BINS - 1}), {BINS - 1})::int AS bin,
                count(*) AS number
            FROM counting GROUP BY 1, 2
        ) binned GROUP BY budget_id
    ), ranked AS (
        SELECT tenant_id, id, budget_id,
            row_number() OVER (PARTITION BY budget_id ORDER BY used DESC NULLS LAST, id) AS place
        FROM counting
    )
    SELECT {WINDOW_COLUMNS}, spread.windows, everything.over, everything.running_out, spread.bins
    FROM ranked JOIN spread USING (budget_id) CROSS JOIN everything
    JOIN budget_window w ON w.tenant_id = ranked.tenant_id AND w.id = ranked.id
    WHERE ranked.place > %(skipped)s AND ranked.place <= %(skipped)s + %(per_budget)s
    ORDER BY ranked.place
"""


class WindowFilter(NamedTuple):
    """Which windows are looked at: of these budgets (None: of all), with a group that holds this
    text, and with these values of the dimensions by which a budget tells its groups apart.
    """

    budget_ids: Collection[int] | None = None
    needle: str = ""
    values: Mapping[str, Collection[str]] = {}


EVERY_WINDOW: Final = WindowFilter()


class FullestWindow(NamedTuple):
    """A window, how full all of its budget are (`windows`, `bins`), and how many of all budgets are
    over or will be (`over`, `running_out`).
    """

    state: WindowState
    windows: int
    over: int
    running_out: int
    bins: Sequence[int]


def read_fullest(
    tenant_id: int, *, only: WindowFilter, now: datetime, per_budget: int, skipped: int
) -> list[FullestWindow]:
    """Return the windows that count now: a page of them for each budget."""
    parameters: dict[str, Parameter] = {
        "tenant": tenant_id,
        "now": now,
        "per_budget": per_budget,
        "skipped": skipped,
        "budget_ids": list(only.budget_ids or ()),
        "needle": _pattern(only.needle) if only.needle else None,
        "values": json.dumps({name: list(values) for name, values in only.values.items()}),
    }
    with connection.cursor() as cursor:
        cursor.execute(_FULLEST, parameters)
        width = len(WindowState._fields)
        return [FullestWindow(WindowState(*row[:width]), *row[width:]) for row in cursor.fetchall()]


def _pattern(text: str) -> str:
    """A pattern for groups' keys that hold a text; keys are JSON."""
    written = json.dumps(text, ensure_ascii=False)[1:-1]
    escaped = written.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
