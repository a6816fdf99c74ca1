"""Budget windows as people watch them: how full, how much is reserved, and when they run out."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from django.db import connection
from psycopg.types.json import Jsonb

from metering.budgets.index import BudgetIndex
from metering.budgets.levels import REFUSING
from metering.budgets.rules import BudgetRule, LimitIncreaseRule
from metering.core.dimensions import REQUEST
from metering.core.match import wanted_values
from metering.core.periods import ROLLING_SECONDS
from metering.ledger.windows import WINDOW_COLUMNS, WindowState, used_percent, used_share_sql
from metering.models import LimitIncrease, LimitIncreaseStatus
from metering.reporting.unknown_holds import unknown_by_window, window_from

# A rate that was seen for less than this share of the window, or these minutes, says nothing yet.
SEEN_SHARE: Final = Decimal("0.02")
SEEN_MIN: Final = timedelta(minutes=10)
WHOLE: Final = Decimal(100)
# A bar shows this much beyond its limit; what is further is cut off and said in words.
BAR_PERCENT_MAX: Final = Decimal(160)

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
    WHERE NOT b.is_rolling AND o.tenant_id = b.tenant_id AND o.id IN (
        (SELECT id FROM budget_window w WHERE w.tenant_id = b.tenant_id AND w.budget_id = b.id
            AND w.revision = b.revision AND w.ends_at IS NULL AND w.level_percent > 0
        ORDER BY id DESC LIMIT {RANKED_MAX})
        UNION
        (SELECT id FROM budget_window w WHERE w.tenant_id = b.tenant_id AND w.budget_id = b.id
            AND w.revision = b.revision AND w.ends_at IS NULL
        ORDER BY id DESC LIMIT {RANKED_MAX})
    )
"""
_FULLEST: Final = f"""
    WITH raised AS (
        SELECT budget_id, group_key, sum(add_cost_nanos) AS cost_nanos, sum(add_tokens) AS tokens,
            sum(add_requests) AS requests, sum(add_tool_calls) AS tool_calls,
            sum(add_seconds) AS seconds
        FROM limit_increase WHERE tenant_id = %(tenant)s
            AND status = '{LimitIncreaseStatus.APPROVED.value}'
            AND starts_at <= %(now)s AND ends_at > %(now)s GROUP BY budget_id, group_key
    ), counting AS (
        SELECT w.tenant_id, w.id, w.budget_id,
            {used_share_sql("coalesce(every.{part}, 0) + coalesce(own.{part}, 0)")} AS used,
            CASE WHEN w.ends_at IS NOT NULL AND NOT b.is_rolling THEN
            extract(epoch FROM %(now)s - w.starts_at) / extract(epoch FROM w.ends_at - w.starts_at)
        END AS passed
        FROM budget b CROSS JOIN LATERAL ({_RANKED}) w
        LEFT JOIN raised every ON every.budget_id = b.id AND every.group_key = ''
        LEFT JOIN raised own ON own.budget_id = b.id AND own.group_key = w.group_key
        WHERE b.tenant_id = %(tenant)s AND b.archived_at IS NULL AND NOT ('{REQUEST}' = ANY(b.per))
            AND NOT EXISTS (
                SELECT FROM jsonb_each(%(filters)s::jsonb) AS wanted (name, by)
                WHERE NOT (wanted.by -> 'budgets' @> to_jsonb(b.id))
                    AND NOT coalesce(wanted.by -> 'values' ? (w.group_key::jsonb ->>
                        (array_position(b.per, wanted.name::varchar) - 1)), false)
            )
    ), ranked AS (
        SELECT tenant_id, id, count(*) OVER (PARTITION BY budget_id) AS windows,
            count(*) FILTER (WHERE used >= 1) OVER () AS over,
            count(*) FILTER (WHERE used < 1 AND used > passed AND passed >= {SEEN_SHARE}) OVER ()
                AS running_out,
            row_number() OVER (PARTITION BY budget_id ORDER BY used DESC NULLS LAST, id) AS place
        FROM counting
    )
    SELECT {WINDOW_COLUMNS}, ranked.windows, ranked.over, ranked.running_out
    FROM ranked JOIN budget_window w ON w.tenant_id = ranked.tenant_id AND w.id = ranked.id
    WHERE ranked.place <= %(per_budget)s
"""
_OF_GROUPS = f"""
    SELECT {WINDOW_COLUMNS}
    FROM unnest(%(budget_ids)s::bigint[], %(group_keys)s::text[]) AS n (budget_id, group_key)
    JOIN budget b ON b.tenant_id = %(tenant)s AND b.id = n.budget_id
    JOIN budget_window w ON w.tenant_id = b.tenant_id AND w.budget_id = b.id
        AND w.revision = b.revision AND w.group_key = n.group_key
    WHERE w.starts_at <= %(now)s AND (w.ends_at IS NULL OR w.ends_at > %(now)s)
"""


class GroupOfBudget(NamedTuple):
    """A budget and a group's key, as `budget_window` has it."""

    budget_id: int
    group_key: str


@dataclass(frozen=True)
class WatchedWindow:
    """A window that counts now. Percentages are of its fullest part."""

    rule: BudgetRule
    state: WindowState
    group: tuple[tuple[str, str], ...]
    part: str
    spent: int
    reserved: int
    limit: int
    percent: Decimal
    reserved_percent: Decimal
    windows: int
    outlook: "Outlook"
    # Raises in force, and how many requests for one wait.
    raises: tuple[LimitIncreaseRule, ...] = ()
    requests: int = 0
    # What was held for calls that may have run, until their time was over.
    unknown_nanos: int = 0

    @property
    def has_more(self) -> bool:
        """Whether the budget may have windows besides those that were ranked."""
        return self.state.ends_at is None and self.windows >= RANKED_MAX

    @property
    def levels(self) -> list[tuple[int, str]]:
        return [(level.percent, level.action) for level in self.rule.levels]

    @property
    def tone(self) -> str:
        """How pressing it is: over, near (a level is reached), or calm."""
        if self.percent >= WHOLE:
            return "over"
        reached = [one.percent for one in self.rule.levels if one.percent <= self.percent]
        return "near" if reached else "calm"


@dataclass(frozen=True)
class Outlook:
    """Where a window is going: `runs_out_at` at this rate, or the percentage at its end."""

    runs_out_at: datetime | None = None
    end_percent: Decimal | None = None
    is_over: bool = False


@dataclass(frozen=True)
class Watch:
    """The fullest windows of each budget, and how many of all are over or will be at their rate."""

    windows: list[WatchedWindow]
    over: int
    running_out: int


def watched_windows(
    *,
    tenant_id: int,
    book: BudgetIndex,
    now: datetime,
    per_budget: int,
    filters: Mapping[str, Sequence[str]],
) -> Watch:
    """The windows that count now, the fullest first: those that are about the values of `filters`
    alone, because the budget's match or the window's group names one of them for each dimension.

    Budgets on single calls have no window that fills, and are not here.
    """
    about = {
        name: {
            "values": list(values),
            "budgets": [one.id for one in book.rules.values() if _is_about(one, name, values)],
        }
        for name, values in filters.items()
    }
    asked = {"tenant": tenant_id, "now": now, "per_budget": per_budget, "filters": Jsonb(about)}
    with connection.cursor() as cursor:
        cursor.execute(_FULLEST, asked)
        rows = cursor.fetchall()
    width = len(WindowState._fields)
    waiting = open_requests(tenant_id, now)
    found = [
        _watched(book.rules[state.budget_id], state, waiting, windows=row[width], now=now)
        for row in rows
        if (state := WindowState(*row[:width])).budget_id in book.rules
    ]
    found = _with_unknown(tenant_id, found, now)
    found.sort(key=lambda one: (-one.percent, one.rule.name, one.state.id))
    over, running_out = rows[0][width + 1 :] if rows else (0, 0)
    # Windows without an end have no rate in SQL; those that are shown have one here.
    endless = sum(one.state.ends_at is None and bool(one.outlook.runs_out_at) for one in found)
    return Watch(found, over, running_out + endless)


def _is_about(rule: BudgetRule, name: str, values: Sequence[str]) -> bool:
    """Whether the budget counts calls with these values of a dimension and no others."""
    return name in rule.match and wanted_values(rule.match[name]) <= frozenset(values)


def _with_unknown(
    tenant_id: int, windows: Sequence[WatchedWindow], now: datetime
) -> list[WatchedWindow]:
    asked = [window_from(one.rule, one.state.id, one.state.starts_at, now) for one in windows]
    unknown = unknown_by_window(tenant_id, asked, now=now)
    return [replace(one, unknown_nanos=unknown.get(one.state.id, 0)) for one in windows]


def windows_of_groups(
    *, tenant_id: int, book: BudgetIndex, groups: Iterable[GroupOfBudget], now: datetime
) -> dict[GroupOfBudget, WatchedWindow]:
    """The windows that count now for these groups; none for those that used nothing yet."""
    wanted = list(set(groups))
    with connection.cursor() as cursor:
        cursor.execute(
            _OF_GROUPS,
            {
                "tenant": tenant_id,
                "now": now,
                "budget_ids": [one.budget_id for one in wanted],
                "group_keys": [one.group_key for one in wanted],
            },
        )
        states = [WindowState(*row) for row in cursor.fetchall()]
    return {
        GroupOfBudget(state.budget_id, state.group_key): _watched(
            book.rules[state.budget_id], state, Counter(), windows=1, now=now
        )
        for state in states
        if state.budget_id in book.rules
    }


def open_requests(tenant_id: int, now: datetime) -> Counter[GroupOfBudget]:
    """How many requests to raise a limit wait, by budget and group ("": every group)."""
    waiting = LimitIncrease.objects.filter(
        tenant_id=tenant_id, status=LimitIncreaseStatus.ASKED, ends_at__gt=now
    )
    return Counter(
        GroupOfBudget(*row)
        for row in waiting.values_list("budget_id", "group_key").order_by("budget_id")
    )


def _watched(
    rule: BudgetRule,
    state: WindowState,
    waiting: Counter[GroupOfBudget],
    *,
    windows: int,
    now: datetime,
) -> WatchedWindow:
    use = used_percent(rule, state, now=now)
    raised = rule.raised(state.group_key, now)
    if use.part == "seconds":
        assert rule.limit_seconds is not None, "a part is fullest only where it is limited"
        assert state.first_used_at is not None, "its time runs from the first use"
        spent, held = _seconds(state.first_used_at, now), 0
        limit = rule.limit_seconds + raised[4]
    else:
        part = _fullest_part(rule, use.part)
        place = list(rule.limits).index(part)
        spent, held = state.spent[place], state.reserved[place]
        limit = (rule.limits[part] or 0) + raised[place]
        if part == "cost_nanos":
            limit += state.carried_nanos
        use = use._replace(part=part)
    return WatchedWindow(
        rule=rule,
        state=state,
        group=group_of(rule.per, state.group_key),
        part=use.part,
        spent=spent,
        reserved=held,
        limit=limit,
        percent=use.percent,
        reserved_percent=Decimal(held) * 100 / limit if limit else Decimal(0),
        windows=windows,
        outlook=outlook(rule, state, percent=use.percent, now=now),
        raises=_raises_now(rule, state.group_key, now),
        requests=sum(waiting[GroupOfBudget(rule.id, key)] for key in ("", state.group_key)),
    )


def _raises_now(rule: BudgetRule, group_key: str, now: datetime) -> tuple[LimitIncreaseRule, ...]:
    return tuple(
        one
        for one in rule.raises
        if one.starts_at <= now < one.ends_at and one.group_key in ("", group_key)
    )


def _fullest_part(rule: BudgetRule, part: str) -> str:
    """The part to show: an unused window names cost, which its budget may not limit."""
    if rule.limits[part] is not None:
        return part
    return next((name for name, limit in rule.limits.items() if limit is not None), part)


def _seconds(first_used_at: datetime, now: datetime) -> int:
    return max(0, int((now - first_used_at).total_seconds()))


def group_of(per: Iterable[str], key: str) -> tuple[tuple[str, str], ...]:
    """A group's key as dimensions and values. The budget may have other dimensions today."""
    names = [name for name in per if name != REQUEST]
    return tuple(zip(names, json.loads(key), strict=False))


def outlook(rule: BudgetRule, state: WindowState, *, percent: Decimal, now: datetime) -> Outlook:
    """Return where the window will be if it continues at its rate so far. Pure.

    No estimate (all fields empty) where too little was seen, or where usage also leaves the window.
    """
    if percent >= WHOLE:
        return Outlook(is_over=True)
    elapsed = now - (state.starts_at if state.ends_at else state.first_used_at or now)
    if percent <= 0 or rule.is_rolling or elapsed < _seen_min(state):
        return Outlook()
    left = elapsed * float((WHOLE - percent) / percent)
    if state.ends_at is None:
        # A window without end always runs out some day; more than a quarter of a year ahead no one
        # cares.
        is_near = left < timedelta(seconds=ROLLING_SECONDS["quarter"])
        return Outlook(runs_out_at=now + left) if is_near else Outlook()
    if now + left < state.ends_at:
        return Outlook(runs_out_at=now + left)
    share = Decimal((state.ends_at - state.starts_at) / elapsed)
    return Outlook(end_percent=percent * share)


def _seen_min(state: WindowState) -> timedelta:
    if state.ends_at is None:
        return timedelta(days=1)
    return max(SEEN_MIN, (state.ends_at - state.starts_at) * float(SEEN_SHARE))


def full_parts(window: WatchedWindow, add: Sequence[int], *, now: datetime) -> list[str]:
    """The parts that would have reached a level that refuses even if this were added to the limits.

    Pure.
    """
    rule, state = window.rule, window.state
    percent = min((one.percent for one in rule.levels if one.action in REFUSING), default=None)
    if percent is None:
        return []
    raised = rule.raised(state.group_key, now)
    more = [one + another for one, another in zip(raised, add, strict=True)]
    more[0] += state.carried_nanos
    used = [one + another for one, another in zip(state.spent, state.reserved, strict=True)]
    found = [
        part
        for place, (part, limit) in enumerate(rule.limits.items())
        if limit is not None and used[place] * 100 >= percent * (limit + more[place])
    ]
    if rule.limit_seconds is None or state.first_used_at is None:
        return found
    seconds = _seconds(state.first_used_at, now)
    is_late = seconds * 100 >= percent * (rule.limit_seconds + more[4])
    return [*found, "seconds"] if is_late else found


@dataclass(frozen=True)
class Bar:
    """A window's bar: places and widths in percent of the drawing, not of the limit."""

    spent_width: Decimal
    over_from: Decimal
    over_width: Decimal
    reserved_from: Decimal
    reserved_width: Decimal
    limit_at: Decimal
    ticks: list[tuple[Decimal, int, str]]
    is_cut: bool


def bar_of(window: WatchedWindow) -> Bar:
    """How a window is drawn. Pure."""
    used = window.percent + window.reserved_percent
    highest = max([level for level, _ in window.levels], default=100)
    scale = max(WHOLE, min(BAR_PERCENT_MAX, max(used, Decimal(highest))))
    drawn = min(window.percent, scale)
    within = min(drawn, WHOLE)
    reserved = max(Decimal(0), min(used, scale) - drawn)

    def placed(percent: Decimal) -> Decimal:
        return round(percent * 100 / scale, 2)

    return Bar(
        spent_width=placed(within),
        over_from=placed(within),
        over_width=placed(drawn - within),
        reserved_from=placed(drawn),
        reserved_width=placed(reserved),
        limit_at=placed(WHOLE),
        ticks=[
            (placed(Decimal(level)), level, action)
            for level, action in window.levels
            if level <= scale
        ],
        is_cut=used > scale,
    )
