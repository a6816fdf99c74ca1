"""A budget's window as it is stored, and how full that is."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Final, NamedTuple

from django.db import connection
from django.db.backends.utils import CursorWrapper

from common.queries import Parameter
from metering.budgets.index import BudgetIndex, WindowKey
from metering.budgets.levels import Use, WindowBalance, use_of
from metering.budgets.rules import BudgetRule
from metering.core.amounts import Amounts
from metering.core.match import group_key
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

    If nothing is to leave, no one has noted that time passed since it was last posted to.
    """
    if counted_from is None or rule is None or not rule.is_rolling:
        return counted_from
    until = rule.counted_from(now)
    is_letting_go = oldest_grain_at is not None and oldest_grain_at < until
    return counted_from if is_letting_go else max(counted_from, until)


WINDOW_COLUMNS: Final = ", ".join(f"w.{name}" for name in WindowState._fields)


# The parts of a limit and the columns that they are compared with, in the order of Amounts.
_SPENT_COLUMNS: Final = {
    "cost_nanos": "spent_nanos",
    "tokens": "spent_tokens",
    "requests": "spent_requests",
    "tool_calls": "spent_tool_calls",
}


def used_share_sql(added: str) -> str:
    """Return the SQL of how full a window `w` of a budget `b` is at `now`, by its fullest part: 1
    is all of its limit. `added` is what limit increases add to a `{part}`.

    For ranking many windows; `used_percent` says it exactly.
    """
    shares = [
        f"w.{column} / nullif(b.limit_{part} + {added.format(part=part)}"
        f"{' + w.carried_nanos' if part == 'cost_nanos' else ''}, 0)"
        for part, column in _SPENT_COLUMNS.items()
    ]
    seconds = added.format(part="seconds")
    time = f"extract(epoch FROM %(now)s - w.first_used_at) / nullif(b.limit_seconds + {seconds}, 0)"
    return f"greatest({', '.join([*shares, time])})"


def may_have_reached(rule: BudgetRule, percent: int | Fraction) -> tuple[str, list[Parameter]]:
    """Return a condition on `budget_window`: enough is spent for a percentage of some limit.

    Limit increases, which only make that less, and limits on time are left out.
    """
    conditions, parameters = ["false"], list[Parameter]()
    for part, limit in rule.limits.items():
        if limit is not None:
            carried = " + carried_nanos" if part == "cost_nanos" else ""
            conditions.append(
                f"{_SPENT_COLUMNS[part]}::numeric * %s >= %s * (%s::numeric{carried})"
            )
            parameters += [100 * percent.denominator, percent.numerator, limit]
    return " OR ".join(conditions), parameters


def state_of(window: BudgetWindow) -> WindowState:
    """The same of a window's row."""
    return WindowState(*(getattr(window, name) for name in WindowState._fields))


def identify_windows(book: BudgetIndex, keys: Sequence[WindowKey]) -> list[list[object]]:
    """Return what identifies windows, as columns: budget, revision, group, begin."""
    return [
        [key.budget_id for key in keys],
        [book.rules[key.budget_id].revision for key in keys],
        [group_key(key.group) for key in keys],
        [key.starts_at for key in keys],
    ]


def read_windows(book: BudgetIndex, keys: Iterable[WindowKey]) -> dict[WindowKey, WindowState]:
    """Return those of these windows that exist, as they are stored."""
    wanted = list(keys)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT n.place, {WINDOW_COLUMNS}
            FROM unnest(%s::bigint[], %s::int[], %s::text[], %s::timestamptz[])
                WITH ORDINALITY AS n (budget_id, revision, group_key, starts_at, place)
            JOIN budget_window w ON w.tenant_id = %s AND w.budget_id = n.budget_id
                AND w.revision = n.revision AND w.starts_at = n.starts_at
                AND w.group_key = n.group_key
            """,
            [*identify_windows(book, wanted), book.tenant_id],
        )
        return {wanted[number - 1]: WindowState(*row) for number, *row in cursor.fetchall()}


def read_states(
    cursor: CursorWrapper, tenant_id: int, window_ids: Sequence[int]
) -> list[WindowState]:
    """These windows as they stand, in the order of their ids."""
    cursor.execute(
        f"SELECT {WINDOW_COLUMNS} FROM budget_window w WHERE w.tenant_id = %s AND w.id = ANY(%s)"
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
