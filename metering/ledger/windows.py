"""A budget's window as it is stored, and how full that is."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from metering.budgets.levels import Use, WindowBalance, use_of
from metering.budgets.rules import BudgetRule
from metering.core.amounts import Amounts
from metering.models import BudgetWindow


class WindowState(NamedTuple):
    """A window as it stands, in the order of WINDOW_COLUMNS."""

    id: int
    budget_id: int
    revision: int
    group_key: str
    starts_at: datetime
    ends_at: datetime | None
    spent_nanos: int
    spent_tokens: int
    spent_requests: int
    spent_tool_calls: int
    reserved_nanos: int
    reserved_tokens: int
    reserved_requests: int
    reserved_tool_calls: int
    carried_nanos: int
    counted_from: datetime | None
    first_used_at: datetime | None
    level_percent: int
    episode: int
    oldest_grain_at: datetime | None = None

    @property
    def spent(self) -> Amounts:
        """What was spent in it."""
        return Amounts(
            self.spent_nanos, self.spent_tokens, self.spent_requests, self.spent_tool_calls
        )

    @property
    def reserved(self) -> Amounts:
        """What open reservations hold in it."""
        return Amounts(
            self.reserved_nanos,
            self.reserved_tokens,
            self.reserved_requests,
            self.reserved_tool_calls,
        )


def left_until(
    rule: BudgetRule | None,
    counted_from: datetime | None,
    oldest_grain_at: datetime | None,
    now: datetime,
) -> datetime | None:
    """The moment before which nothing counts any more in a rolling window; None in others.

    Where nothing is to leave, nobody has noted that time went on since it was last posted to.
    """
    if counted_from is None or rule is None or not rule.is_rolling:
        return counted_from
    until = rule.counted_from(now)
    is_letting_go = oldest_grain_at is not None and oldest_grain_at < until
    return counted_from if is_letting_go else max(counted_from, until)


WINDOW_COLUMNS: Final = ", ".join(f"w.{name}" for name in WindowState._fields)


def state_of(window: BudgetWindow) -> WindowState:
    """The same of a window's row."""
    return WindowState(*(getattr(window, name) for name in WindowState._fields))


def read_states(cursor: Any, tenant_id: int, window_ids: Sequence[int]) -> list[WindowState]:
    """These windows as they stand, in the order of their ids."""
    cursor.execute(
        f"SELECT {WINDOW_COLUMNS} FROM budget_window w WHERE w.tenant_id = %s AND w.id = ANY(%s)"  # noqa: S608
        " ORDER BY w.id",
        [tenant_id, list(window_ids)],
    )
    return [WindowState(*row) for row in cursor.fetchall()]


def balance_of(rule: BudgetRule, window: WindowState, *, now: datetime) -> WindowBalance:
    """The balance of a window under its present limits: with raises and what was carried over."""
    return WindowBalance(
        spent=window.spent,
        reserved=window.reserved,
        carried_nanos=window.carried_nanos,
        first_used_at=window.first_used_at,
        raised=rule.raised(window.group_key, now),
    )


def used_percent(rule: BudgetRule, window: WindowState, *, now: datetime) -> Use:
    """The fullest part of a window's present limit."""
    return use_of(rule, balance_of(rule, window, now=now), now=now)
