"""The ledger: the one writer of window balances, and the entries that say why they moved.

Invariant: a window's `spent_*` is the sum of its entries. Both are written by the same statement
list, in one transaction, last before commit; `manage.py audit_ledger` recomputes them and the
events behind.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db import connection
from django.utils import timezone

from metering.budgets.index import BudgetBook
from metering.core.amounts import NOTHING, Amounts, add_amounts
from metering.ledger.crossings import NO_LEVEL_CHANGES, LevelChanges, settle_levels
from metering.ledger.rollover import carry_on, late_successors
from metering.ledger.windows import WINDOW_COLUMNS, WindowState, left_until, read_states
from metering.models import EntryKind, FellBy


class Posting(NamedTuple):
    """Where amounts go: a window, and for a rolling one the grain of time that they leave with."""

    window_id: int
    grain_at: datetime | None


class HoldMove(NamedTuple):
    """How what is reserved in a window changes; the overrun is what was booked beyond a hold."""

    reserved: Amounts
    overrun_nanos: int = 0

    def plus(self, other: "HoldMove") -> "HoldMove":
        """Both moves as one."""
        return HoldMove(
            add_amounts(self.reserved, other.reserved), self.overrun_nanos + other.overrun_nanos
        )


NO_HOLD: Final = HoldMove(NOTHING)


class Moved(NamedTuple):
    """As much of a window that moved as tells whether it is worth a closer look."""

    id: int
    budget_id: int
    spent_nanos: int
    spent_tokens: int
    spent_requests: int
    spent_tool_calls: int
    carried_nanos: int
    level_percent: int


MOVED_COLUMNS: Final = ", ".join(f"w.{name}" for name in Moved._fields)


def post(
    *,
    book: BudgetBook,
    sums: Mapping[Posting, Amounts],
    kind: EntryKind,
    batch_id: int | None,
    first_used_at: datetime | None = None,
    holds: Mapping[int, HoldMove] | None = None,
) -> LevelChanges:
    """Move balances and write the entries that say why; then the crossings that this caused.

    Return what they ask of halts, for `limits.lockouts`.

    `holds` says what reservations that this transaction finishes give back, by window.
    The last thing a transaction does: windows stay locked until it ends. They are locked in the
    order of their ids, everywhere, so that no two transactions can wait for each other.
    """
    sums = {key: amounts for key, amounts in sums.items() if amounts != NOTHING}
    if holds:
        locked = lock_windows(book=book, window_ids={*(key.window_id for key in sums), *holds})
        return move(book=book, locked=locked, sums=sums, holds=holds, kind=kind, batch_id=batch_id)
    if not sums:
        return NO_LEVEL_CHANGES
    successors = late_successors(book, {key.window_id for key in sums})
    with connection.cursor() as cursor:
        sums = _lock(cursor, book, sums, successors)
        if not sums:
            return NO_LEVEL_CHANGES
        moved = write_entries_and_move(cursor, book.tenant_id, sums, kind, batch_id, first_used_at)
    lessened = _lessened(sums) if any(window.level_percent for window in moved) else set()
    changing = [
        window.id
        for window in moved
        if (window.level_percent and window.id in lessened) or _may_reach_a_level(book, window)
    ]
    return _settle(
        book, changing=changing, moved=[window.id for window in moved], successors=successors
    )


def _lessened(sums: Mapping[Posting, Amounts]) -> set[int]:
    """The windows in which some part became less, so that a level may no longer be reached."""
    return {key.window_id for key, amounts in sums.items() if min(amounts) < 0}


def _settle(
    book: BudgetBook,
    *,
    changing: Sequence[int],
    moved: Sequence[int],
    successors: Sequence[int],
) -> LevelChanges:
    """After a move: what later windows carry, and the levels that windows have reached by it."""
    changes = NO_LEVEL_CHANGES
    if successors:
        carried = carry_on(book, moved, successors)
        changes = settle_levels(book=book, windows=carried, by=FellBy.CARRIED)
    if changing:
        with connection.cursor() as cursor:
            states = read_states(cursor, book.tenant_id, changing)
        changes = changes.plus(settle_levels(book=book, windows=states, by=FellBy.SPEND))
    return changes


class Locked(NamedTuple):
    """Windows that this transaction has locked, as they stand; and the later windows of budgets
    with rollover whose carried amount depends on them.
    """

    windows: dict[int, WindowState]
    successors: list[int]


LOCK_WINDOWS: Final = (
    f"SELECT {WINDOW_COLUMNS} FROM budget_window w WHERE w.tenant_id = %s"  # noqa: S608
    " AND w.id = ANY(string_to_array(%s, ',')::bigint[]) ORDER BY w.id FOR UPDATE"
)


def lock_windows(*, book: BudgetBook, window_ids: set[int]) -> Locked:
    """Lock windows in the order of their ids, so that nobody else moves them until commit."""
    successors = late_successors(book, window_ids)
    with connection.cursor() as cursor:
        cursor.execute(LOCK_WINDOWS, lock_parameters(book, {*window_ids, *successors}))
        return locked_of(cursor.fetchall(), window_ids, successors)


def lock_parameters(book: BudgetBook, window_ids: Iterable[int]) -> list[Any]:
    """The parameters of LOCK_WINDOWS."""
    return [book.tenant_id, ",".join(map(str, window_ids))]


def locked_of(
    rows: Iterable[Sequence[Any]], window_ids: set[int], successors: Sequence[int] = ()
) -> Locked:
    """The windows that LOCK_WINDOWS has locked."""
    windows = {row[0]: WindowState(*row) for row in rows}
    assert window_ids <= windows.keys(), "windows are never removed"
    return Locked(windows, list(successors))


class Planned(NamedTuple):
    """A move of locked windows: one statement, and what is to be looked at once it is done."""

    statement: str
    parameters: list[Any]
    # Windows whose level may change by it; and those whose change later windows carry.
    changing: list[int]
    moved: list[int]

    @property
    def is_all(self) -> bool:
        """Whether nothing is left to do once the statement is done."""
        return not self.changing and not self.moved


def move(
    *,
    book: BudgetBook,
    locked: Locked,
    sums: Mapping[Posting, Amounts],
    holds: Mapping[int, HoldMove],
    kind: EntryKind,
    batch_id: int | None,
) -> LevelChanges:
    """Move what is spent and what is reserved in locked windows, by one statement; then crossings.

    Every window of `sums` and `holds` must be locked. What is too old for a rolling window does not
    count in it.
    """
    planned = plan_move(
        book=book, locked=locked, sums=sums, holds=holds, kind=kind, batch_id=batch_id
    )
    if planned is None:
        return NO_LEVEL_CHANGES
    with connection.cursor() as cursor:
        cursor.execute(planned.statement, planned.parameters)
    return finish_move(book=book, locked=locked, planned=planned)


def plan_move(
    *,
    book: BudgetBook,
    locked: Locked,
    sums: Mapping[Posting, Amounts],
    holds: Mapping[int, HoldMove],
    kind: EntryKind,
    batch_id: int | None,
) -> Planned | None:
    """The statement that moves locked windows; None where nothing moves. See `move`."""
    now = timezone.now()
    sums = {key: amounts for key, amounts in sums.items() if amounts != NOTHING}
    left = {
        window.id: left_until(
            book.rules.get(window.budget_id), window.counted_from, window.oldest_grain_at, now
        )
        for window in (locked.windows[key.window_id] for key in sums)
    }
    counted = {
        key: amounts for key, amounts in sums.items() if _still_counts(key, left[key.window_id])
    }
    # What is too late for a window has to be so for whoever adds its events up again.
    noted = {
        key.window_id: at
        for key in sums.keys() - counted.keys()
        if (at := left[key.window_id]) != locked.windows[key.window_id].counted_from
    }
    if not counted and not holds and not noted:
        return None
    spent: dict[int, Amounts] = {}
    for key, amounts in counted.items():
        spent[key.window_id] = add_amounts(spent.get(key.window_id, NOTHING), amounts)
    changing = [
        window_id
        for window_id, amounts in spent.items()
        if (locked.windows[window_id].level_percent and min(amounts) < 0)
        or _may_reach_a_level(book, _moved(locked.windows[window_id], amounts))
    ]
    return Planned(
        statement=_MOVE_ALL if counted else _MOVE_HOLDS,
        parameters=_move_parameters(
            tenant_id=book.tenant_id,
            sums=counted,
            spent=spent,
            holds=holds,
            noted=noted,
            kind=kind,
            batch_id=batch_id,
            now=now,
        ),
        changing=changing,
        moved=list(spent) if locked.successors else [],
    )


def finish_move(*, book: BudgetBook, locked: Locked, planned: Planned) -> LevelChanges:
    """After a planned move: what later windows carry, and the levels that were reached."""
    successors = locked.successors if planned.moved else []
    return _settle(book, changing=planned.changing, moved=planned.moved, successors=successors)


def _moved(window: WindowState, amounts: Amounts) -> Moved:
    return Moved(
        window.id,
        window.budget_id,
        *add_amounts(window.spent, amounts),
        carried_nanos=window.carried_nanos,
        level_percent=window.level_percent,
    )


def _still_counts(key: Posting, left: datetime | None) -> bool:
    return key.grain_at is None or left is None or key.grain_at >= left


# Numbers come joined to texts: an array of thousands is quoted item by item otherwise.
_WHOLES: Final = "string_to_array(%s, ',')::bigint[]"
_SUMS: Final = "string_to_array(%s, ',')::numeric[]"
# A window's id, cost, tokens, requests, tool calls; and what is held: the same four, the overrun.
_AMOUNT_ARRAYS: Final = ", ".join((_WHOLES, _SUMS, _SUMS, _WHOLES, _WHOLES))
_HOLD_ARRAYS: Final = ", ".join((_SUMS, _SUMS, _WHOLES, _WHOLES, _SUMS))
_ENTRIES: Final = f"""
    n AS MATERIALIZED (
        SELECT * FROM unnest({_AMOUNT_ARRAYS},
            %s::timestamptz[]) AS n (id, cost, tokens, requests, tool_calls, grain_at)
    ), entries AS (
        INSERT INTO ledger_entry (tenant_id, id, kind, batch_id, window_id, grain_at,
            cost_nanos, tokens, requests, tool_calls)
        SELECT %s, nextval('ledger_entry_id'), %s, %s, id, grain_at, cost, tokens, requests,
            tool_calls FROM n
    ),
"""  # noqa: S608 - constant lists
_MOVES: Final = f"""
    m AS MATERIALIZED (
        SELECT * FROM unnest({_AMOUNT_ARRAYS}, {_HOLD_ARRAYS}, %s::timestamptz[], %s::timestamptz[])
            AS m (id, cost, tokens, requests, tool_calls, held_nanos, held_tokens, held_requests,
                held_tool_calls, overrun, grain_at, counted_from)
    )
    UPDATE budget_window w SET
        spent_nanos = w.spent_nanos + m.cost, spent_tokens = w.spent_tokens + m.tokens,
        spent_requests = w.spent_requests + m.requests,
        spent_tool_calls = w.spent_tool_calls + m.tool_calls,
        reserved_nanos = w.reserved_nanos + m.held_nanos,
        reserved_tokens = w.reserved_tokens + m.held_tokens,
        reserved_requests = w.reserved_requests + m.held_requests,
        reserved_tool_calls = w.reserved_tool_calls + m.held_tool_calls,
        overrun_nanos = w.overrun_nanos + m.overrun,
        oldest_grain_at = least(w.oldest_grain_at, m.grain_at),
        counted_from = coalesce(m.counted_from, w.counted_from),
        first_used_at = coalesce(w.first_used_at, %s)
    FROM m WHERE w.tenant_id = %s AND w.id = m.id
"""  # noqa: S608 - constant lists


_MOVE_ALL: Final = f"WITH {_ENTRIES} {_MOVES}"
_MOVE_HOLDS: Final = f"WITH {_MOVES}"


def _move_parameters(  # noqa: PLR0913 - all of it is what a move writes
    *,
    tenant_id: int,
    sums: Mapping[Posting, Amounts],
    spent: Mapping[int, Amounts],
    holds: Mapping[int, HoldMove],
    noted: Mapping[int, datetime | None],
    kind: EntryKind,
    batch_id: int | None,
    now: datetime,
) -> list[Any]:
    """The entries, and the balances: what is spent is their sum."""
    window_ids = list({**spent, **holds, **noted})
    rows = [
        (
            window_id,
            *spent.get(window_id, NOTHING),
            *(hold := holds.get(window_id, NO_HOLD)).reserved,
            hold.overrun_nanos,
        )
        for window_id in window_ids
    ]
    grains: dict[int, datetime] = {}
    for key in sums:
        if key.grain_at is not None:
            grains[key.window_id] = min(grains.get(key.window_id, key.grain_at), key.grain_at)
    parameters: list[Any] = []
    if sums:
        columns = [[key.window_id for key in sums], *zip(*sums.values(), strict=True)]
        parameters += [",".join(map(str, column)) for column in columns]
        parameters += [[key.grain_at for key in sums], tenant_id, kind.value, batch_id]
    parameters += [",".join(map(str, column)) for column in zip(*rows, strict=True)]
    # Where no budget rolls there are none; what a short array lacks is NULL.
    parameters += [
        [moments.get(window_id) for window_id in window_ids] if moments else []
        for moments in (grains, noted)
    ]
    return [*parameters, now, tenant_id]


def _may_reach_a_level(book: BudgetBook, window: Moved) -> bool:
    """Whether the window may have reached its next level. Whole numbers only: most have not."""
    rule = book.rules.get(window.budget_id)
    if rule is None:
        return False
    percent = next(
        (level.percent for level in rule.levels if level.percent > window.level_percent), None
    )
    if percent is None:
        return False
    if rule.limit_seconds is not None:
        return True
    limits = rule.limits
    cost, tokens = limits["cost_nanos"], limits["tokens"]
    requests, tool_calls = limits["requests"], limits["tool_calls"]
    return (
        (cost is not None and window[2] * 100 >= percent * (cost + window.carried_nanos))
        or (tokens is not None and window[3] * 100 >= percent * tokens)
        or (requests is not None and window[4] * 100 >= percent * requests)
        or (tool_calls is not None and window[5] * 100 >= percent * tool_calls)
    )


def _lock(
    cursor: Any,
    book: BudgetBook,
    sums: Mapping[Posting, Amounts],
    successors: Sequence[int],
) -> dict[Posting, Amounts]:
    """Lock the windows; leave out what is too old for a rolling window, now that it cannot move."""
    cursor.execute(
        "SELECT id, budget_id, counted_from, oldest_grain_at FROM budget_window"
        " WHERE tenant_id = %s"
        " AND id = ANY(string_to_array(%s, ',')::bigint[]) ORDER BY id FOR UPDATE",
        [book.tenant_id, ",".join(map(str, {*(key.window_id for key in sums), *successors}))],
    )
    found = cursor.fetchall()
    assert {key.window_id for key in sums} <= {row[0] for row in found}, "windows are never removed"
    rolling = [row for row in found if row[2] is not None]
    if not rolling:
        return dict(sums)
    now = timezone.now()
    left = {row[0]: left_until(book.rules.get(row[1]), row[2], row[3], now) for row in rolling}
    counted = {
        key: amounts for key, amounts in sums.items() if _still_counts(key, left.get(key.window_id))
    }
    too_late = {key.window_id for key in sums.keys() - counted.keys()}
    noted = [row[0] for row in rolling if row[0] in too_late and left[row[0]] != row[2]]
    if noted:
        # What is too late for a window has to be so for whoever adds its events up again.
        cursor.execute(
            "UPDATE budget_window w SET counted_from = n.at"
            " FROM unnest(%s::bigint[], %s::timestamptz[]) AS n (id, at)"
            " WHERE w.tenant_id = %s AND w.id = n.id",
            [noted, [left[window_id] for window_id in noted], book.tenant_id],
        )
    return counted


def write_entries_and_move(
    cursor: Any,
    tenant_id: int,
    sums: Mapping[Posting, Amounts],
    kind: EntryKind,
    batch_id: int | None,
    first_used_at: datetime | None,
) -> list[Moved]:
    """One statement: the entries, and the balances that are their sums."""
    grains = [key.grain_at for key in sums]
    columns = [
        [key.window_id for key in sums],
        *zip(*sums.values(), strict=True),
    ]
    cursor.execute(
        f"""
        WITH n AS MATERIALIZED (
            SELECT * FROM unnest({_AMOUNT_ARRAYS},
                %s::timestamptz[]) AS n (id, cost, tokens, requests, tool_calls, grain_at)
        ), entries AS (
            INSERT INTO ledger_entry (tenant_id, id, kind, batch_id, window_id, grain_at,
                cost_nanos, tokens, requests, tool_calls)
            SELECT %s, nextval('ledger_entry_id'), %s, %s, id, grain_at, cost, tokens, requests,
                tool_calls FROM n
        )
        UPDATE budget_window w SET
            spent_nanos = w.spent_nanos + n.cost, spent_tokens = w.spent_tokens + n.tokens,
            spent_requests = w.spent_requests + n.requests,
            spent_tool_calls = w.spent_tool_calls + n.tool_calls,
            oldest_grain_at = least(w.oldest_grain_at, n.grain_at),
            first_used_at = coalesce(w.first_used_at, %s)
        FROM {_ONE_ROW_A_WINDOW if any(grains) else "n"} WHERE w.tenant_id = %s AND w.id = n.id
        RETURNING {MOVED_COLUMNS}
        """,  # noqa: S608 - constant lists
        [
            *(",".join(map(str, column)) for column in columns),
            # The grains of budgets that do not roll are all NULL, as are those a short array lacks.
            grains if any(grains) else [],
            tenant_id,
            kind.value,
            batch_id,
            first_used_at or timezone.now(),
            tenant_id,
        ],
    )
    return [Moved(*row) for row in cursor.fetchall()]


# A rolling window may get several grains at once; an UPDATE would add only one of them.
_ONE_ROW_A_WINDOW: Final = (
    "(SELECT id, sum(cost) AS cost, sum(tokens) AS tokens,"
    " sum(requests)::bigint AS requests, sum(tool_calls)::bigint AS tool_calls,"
    " min(grain_at) AS grain_at"
    " FROM n GROUP BY id) n"
)
