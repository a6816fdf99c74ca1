"""Budget windows as people watch them: how full, how much is reserved, and when they run out."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from django.db import connection

from metering.budgets.index import BudgetIndex
from metering.budgets.levels import REFUSING
from metering.budgets.rules import BudgetRule, LimitIncreaseRule
from metering.core.dimensions import REQUEST
from metering.core.match import wanted_values
from metering.core.periods import ROLLING_SECONDS
from metering.ledger.windows import WINDOW_COLUMNS, WindowState, used_percent
from metering.models import LimitIncrease, LimitIncreaseStatus
from metering.reporting.fullest_windows import (
    EVERY_WINDOW,
    RANKED_MAX,
    SEEN_SHARE,
    WindowFilter,
    read_fullest,
)
from metering.reporting.unknown_holds import unknown_by_window, window_from

SEEN_MIN: Final = timedelta(minutes=10)
WHOLE: Final = Decimal(100)
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
        reached = [level.percent for level in self.rule.levels if level.percent <= self.percent]
        return "near" if reached else "calm"


@dataclass(frozen=True)
class Outlook:
    """Where a window is going: `runs_out_at` at this rate, or the percentage at its end."""

    runs_out_at: datetime | None = None
    end_percent: Decimal | None = None
    is_over: bool = False


class Spread(NamedTuple):
    """How full all windows of a budget are: how many there are in each tenth of the limit, and over
    it.
    """

    windows: int
    bins: Sequence[int]

    @property
    def over(self) -> int:
        return self.bins[-1]


@dataclass(frozen=True)
class Watch:
    """The fullest windows of each budget, and how many of all are over or will be at their rate."""

    windows: list[WatchedWindow]
    over: int
    running_out: int
    spreads: Mapping[int, Spread] = field(default_factory=dict)


def watched_windows(
    *,
    tenant_id: int,
    book: BudgetIndex,
    now: datetime,
    per_budget: int,
    only: WindowFilter = EVERY_WINDOW,
    skipped: int = 0,
) -> Watch:
    """The windows that count now, the fullest first: of each budget `per_budget`, after those that
    are `skipped`.

    Budgets on single calls have no window that fills, and are not here.
    """
    budget_ids = book.rules.keys() if only.budget_ids is None else only.budget_ids
    rows = read_fullest(
        tenant_id,
        only=only._replace(budget_ids=budget_ids),
        now=now,
        per_budget=per_budget,
        skipped=skipped,
    )
    waiting = open_requests(tenant_id, now)
    watched = [
        _watched(book.rules[row.state.budget_id], row.state, waiting, windows=row.windows, now=now)
        for row in rows
        if row.state.budget_id in book.rules
    ]
    watched = _with_unknown(tenant_id, watched, now)
    watched.sort(key=lambda window: (-window.percent, window.rule.name, window.state.id))
    over, running_out = (rows[0].over, rows[0].running_out) if rows else (0, 0)
    # Windows without an end have no rate in SQL; those that are shown have one here.
    endless = sum(
        window.state.ends_at is None and bool(window.outlook.runs_out_at) for window in watched
    )
    spreads = {row.state.budget_id: Spread(row.windows, row.bins) for row in rows}
    return Watch(watched, over, running_out + endless, spreads)


def watched_window(
    *, tenant_id: int, rule: BudgetRule, state: WindowState, now: datetime
) -> WatchedWindow:
    """One window; one whose period is over is judged as of its end."""
    is_past = state.ends_at is not None and state.ends_at <= now
    at = state.ends_at - timedelta(microseconds=1) if is_past and state.ends_at else now
    watched = _watched(rule, state, open_requests(tenant_id, now), windows=1, now=at)
    if is_past:
        watched = replace(watched, outlook=Outlook(is_over=watched.percent >= WHOLE), requests=0)
    return _with_unknown(tenant_id, [watched], now)[0]


def windows_about(book: BudgetIndex, filters: Mapping[str, Sequence[str]]) -> WindowFilter:
    """The windows that are about these values alone: for each dimension, the budget's match or the
    window's group names one of them.
    """
    budget_ids = [
        rule.id
        for rule in book.rules.values()
        if all(name in rule.per or _is_about(rule, name, filters[name]) for name in filters)
    ]
    return WindowFilter(budget_ids, values=filters)


def _is_about(rule: BudgetRule, name: str, values: Sequence[str]) -> bool:
    """Whether the budget counts calls with these values of a dimension and no others."""
    return name in rule.match and wanted_values(rule.match[name]) <= frozenset(values)


def _with_unknown(
    tenant_id: int, windows: Sequence[WatchedWindow], now: datetime
) -> list[WatchedWindow]:
    asked = [
        window_from(window.rule, window.state.id, window.state.starts_at, now) for window in windows
    ]
    unknown = unknown_by_window(tenant_id, asked, now=now)
    return [replace(window, unknown_nanos=unknown.get(window.state.id, 0)) for window in windows]


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
                "budget_ids": [group.budget_id for group in wanted],
                "group_keys": [group.group_key for group in wanted],
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
        index = list(rule.limits).index(part)
        spent, held = state.spent[index], state.reserved[index]
        limit = (rule.limits[part] or 0) + raised[index]
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
        increase
        for increase in rule.raises
        if increase.starts_at <= now < increase.ends_at and increase.group_key in ("", group_key)
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
    percent = min(
        (level.percent for level in rule.levels if level.action in REFUSING), default=None
    )
    if percent is None:
        return []
    raised = rule.raised(state.group_key, now)
    added = [before + more for before, more in zip(raised, add, strict=True)]
    added[0] += state.carried_nanos
    used = [spent + reserved for spent, reserved in zip(state.spent, state.reserved, strict=True)]
    parts = [
        part
        for index, (part, limit) in enumerate(rule.limits.items())
        if limit is not None and used[index] * 100 >= percent * (limit + added[index])
    ]
    if rule.limit_seconds is None or state.first_used_at is None:
        return parts
    seconds = _seconds(state.first_used_at, now)
    is_late = seconds * 100 >= percent * (rule.limit_seconds + added[4])
    return [*parts, "seconds"] if is_late else parts
