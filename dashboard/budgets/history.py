"""A budget's past: what each period used, what was crossed, and how the limit changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from dashboard.amounts import listed
from dashboard.budgets.burn_chart import unit_of
from dashboard.budgets.words import ACTION_WORDS, contacts_words
from dashboard.chart_notes import Level, with_levels
from dashboard.charts import CRITICAL, FIRST, WARNING, Buckets, Column, Figure, stacked_bars
from dashboard.findings import shortened
from metering.core.amounts import format_amount
from metering.ledger.windows import state_of
from metering.models import Budget, BudgetWindow, Crossing, LimitIncrease, Period
from metering.reporting.budget_windows import WHOLE, WatchedWindow, group_of, watched_window
from tenants.models import AuditEntry

PERIODS_MAX: Final = 31
CROSSINGS_MAX: Final = 10
CHANGES_MAX: Final = 10
LIMIT_PREFIX: Final = "limit_"
# How the bars of a chart are named whose buckets are a budget's periods.
INTERVALS: Final = {"hour": "hour", "month": "month", "quarter": "month", "year": "month"}


def past_windows(window: WatchedWindow, *, tenant_id: int, now: datetime) -> list[WatchedWindow]:
    """The windows of the same group, the oldest first; none of a budget without periods."""
    rule = window.rule
    if rule.is_rolling or rule.is_per_request or rule.period == Period.LIFETIME:
        return []
    rows = BudgetWindow.objects.filter(
        tenant_id=tenant_id,
        budget_id=rule.id,
        revision=rule.revision,
        group_key=window.state.group_key,
        starts_at__lte=now,
    ).order_by("-starts_at")[:PERIODS_MAX]
    return [
        watched_window(tenant_id=tenant_id, rule=rule, state=state_of(row), now=now)
        for row in reversed(rows)
    ]


def amount_in(window: WatchedWindow, part: str) -> int:
    """What a window used of a part of the limit."""
    amount: int = window.spent if part == "seconds" else getattr(window.state.spent, part)
    return amount


def history_figure(
    windows: Sequence[WatchedWindow], *, part: str, limit: int, zone: ZoneInfo, now: datetime
) -> Figure:
    """A bar for each period: blue, amber from a level on, red over the limit."""
    unit = unit_of(part)
    starts = [window.state.starts_at.astimezone(zone) for window in windows]
    last = windows[-1].state.ends_at if windows else None
    running = len(windows) - 1 if last is not None and last > now else None
    columns = [
        Column(
            name,
            [amount_in(window, part) if window.tone == tone else 0 for window in windows],
            color,
        )
        for name, tone, color in (
            ("Spent", "calm", FIRST),
            ("Above a level", "near", WARNING),
            ("Over the limit", "over", CRITICAL),
        )
    ]
    period = windows[0].rule.period if windows else "day"
    buckets = Buckets(starts, INTERVALS.get(period, "day"), running)
    figure = stacked_bars(columns, buckets, unit=unit)
    level = Level(limit, f"Limit now {unit.text(limit)}", is_limit=True)
    return with_levels(figure, [level], unit) if windows else figure


def history_headline(windows: Sequence[WatchedWindow], period: str) -> str:
    """The finding about past periods."""
    over = sum(window.percent >= WHOLE for window in windows)
    name = f"{period}{'' if len(windows) == 1 else 's'}"
    if over:
        return f"Over the limit in {over} of the last {len(windows)} {name}"
    fullest = max((window.percent for window in windows), default=Decimal(0))
    return f"Never above {fullest:.0f}% in the last {len(windows)} {name}"


@dataclass(frozen=True)
class CrossingLine:
    """A level that a window reached."""

    row: Crossing
    group: str

    @property
    def action(self) -> str:
        """What the level does besides notifying, in words."""
        has_action = self.row.action != "none"
        return ACTION_WORDS.get(self.row.action, self.row.action) if has_action else ""

    @property
    def contacts(self) -> str:
        return contacts_words(self.row.notify)


def crossings_of(budget: Budget, group_key: str | None) -> list[CrossingLine]:
    """The newest crossings, of one group where `group_key` names it."""
    rows = Crossing.objects.filter(tenant_id=budget.tenant_id, budget=budget)
    if group_key is not None:
        rows = rows.filter(group_key=group_key)
    return [
        CrossingLine(row, group_words(budget.per, row.group_key))
        for row in rows.order_by("-id")[:CROSSINGS_MAX]
    ]


def group_words(per: Sequence[str], group_key: str) -> str:
    """A group in words: its values, shortened."""
    values = [value for _, value in group_of(per, group_key)] if group_key else []
    return " · ".join(shortened(value) if value else "(none)" for value in values)


@dataclass(frozen=True)
class LimitChange:
    """A change of the limit itself, from the audit log."""

    at: datetime
    actor: str
    words: str


def limit_changes(budget: Budget) -> list[LimitChange]:
    """The newest changes of the limit, from what to what."""
    rows = AuditEntry.objects.filter(
        tenant_id=budget.tenant_id,
        object_type="budget",
        object_id=str(budget.id),
        action="update",
    ).order_by("-id")
    changes = [
        LimitChange(row.at, row.actor, words)
        for row in rows[: CHANGES_MAX * 5]
        if (words := _change_words(row.changes))
    ]
    return changes[:CHANGES_MAX]


def _change_words(changes: dict[str, Any]) -> str:
    parts = [
        f"{_limit_words(name, before)} → {_limit_words(name, after)}"
        for name, (before, after) in changes.items()
        if name.startswith(LIMIT_PREFIX)
    ]
    return listed(parts)


def _limit_words(name: str, amount: int | None) -> str:
    return "no limit" if amount is None else format_amount(name.removeprefix(LIMIT_PREFIX), amount)


def increases_of(budget: Budget, group_key: str | None) -> list[LimitIncrease]:
    """The newest requests to raise the limit, of one group and of every group."""
    rows = LimitIncrease.objects.filter(tenant_id=budget.tenant_id, budget=budget)
    if group_key is not None:
        rows = rows.filter(group_key__in=["", group_key])
    return list(rows.select_related("budget").order_by("-id")[:CHANGES_MAX])
