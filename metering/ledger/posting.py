"""The ledger: the one writer of window balances, and the entries that say why they moved.

Invariant: a window's `spent_*` is the sum of its entries. Both are written by the same statement,
in one transaction, last before commit; `manage.py audit_ledger` recomputes them and the events
behind.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Final, Generic, NamedTuple, TypeVar

from django.db import connection
from django.utils import timezone

from common.queries import Parameter, Row
from metering.budgets.index import BudgetIndex
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
        """Return both moves as one."""
        return HoldMove(
            add_amounts(self.reserved, other.reserved), self.overrun_nanos + other.overrun_nanos
        )


NO_HOLD: Final = HoldMove(NOTHING)


class WindowSums(NamedTuple):
    """As much of a window as a move of it needs: fewer columns take less time to read."""

    id: int
    budget_id: int
    spent_nanos: int
    spent_tokens: int
    spent_requests: int
    spent_tool_calls: int
    carried_nanos: int
    counted_from: datetime | None
    level_percent: int
    oldest_grain_at: datetime | None


Window = TypeVar("Window", WindowState, WindowSums)


class Locked(NamedTuple, Generic[Window]):
    """Windows that this transaction has locked, as they stand; and the later windows of budgets
    with rollover whose carried amount depends on them.
    """

    windows: Mapping[int, Window]
    successors: Sequence[int]


def _lock_statement(columns: str) -> str:
    return (
        f"SELECT {columns} FROM budget_window w WHERE w.tenant_id = %s"
        " AND w.id = ANY(string_to_array(%s, ',')::bigint[]) ORDER BY w.id FOR UPDATE"
    )


LOCK_WINDOWS: Final = _lock_statement(WINDOW_COLUMNS)
_LOCK_SUMS: Final = _lock_statement(", ".join(f"w.{name}" for name in WindowSums._fields))


def lock_windows(*, book: BudgetIndex, window_ids: set[int]) -> Locked[WindowState]:
    """Lock windows in the order of their ids, so that no one else moves them until commit."""
    return _lock(book, window_ids, LOCK_WINDOWS, WindowState)


def _lock(
    book: BudgetIndex, window_ids: set[int], statement: str, kind: type[Window]
) -> Locked[Window]:
    successors: list[int] = late_successors(book, window_ids)
    with connection.cursor() as cursor:
        cursor.execute(statement, lock_parameters(book, {*window_ids, *successors}))
        return _locked(map(kind._make, cursor.fetchall()), window_ids, successors)


def lock_parameters(book: BudgetIndex, window_ids: Iterable[int]) -> list[Parameter]:
    """Return the parameters of LOCK_WINDOWS."""
    return [book.tenant_id, ",".join(map(str, window_ids))]


def locked_of(rows: Iterable[Row], window_ids: set[int]) -> Locked[WindowState]:
    """Return the windows that LOCK_WINDOWS has locked; of a tenant without rollover."""
    return _locked(map(WindowState._make, rows), window_ids, ())


def _locked(
    windows: Iterable[Window], window_ids: set[int], successors: Sequence[int]
) -> Locked[Window]:
    by_id = {window.id: window for window in windows}
    assert window_ids <= by_id.keys(), "windows are never removed"
    return Locked(by_id, successors)


def post(
    *,
    book: BudgetIndex,
    sums: Mapping[Posting, Amounts],
    kind: EntryKind,
    batch_id: int | None,
    holds: Mapping[int, HoldMove] | None = None,
) -> LevelChanges:
    """Move balances and write the entries that say why; then the crossings that this caused.

    Return what they ask of halts, for `limits.lockouts`.

    `holds` says what reservations that this transaction finishes give back, by window.
    The last thing a transaction does: windows stay locked until it ends. They are locked in the
    order of their ids, everywhere, so that no two transactions can wait for each other.
    """
    sums = {key: amounts for key, amounts in sums.items() if amounts != NOTHING}
    holds = holds or {}
    if not sums and not holds:
        return NO_LEVEL_CHANGES
    window_ids = {key.window_id for key in sums}.union(holds)
    locked = _lock(book, window_ids, _LOCK_SUMS, WindowSums)
    return move(book=book, locked=locked, sums=sums, holds=holds, kind=kind, batch_id=batch_id)


class Planned(NamedTuple):
    """A move of locked windows: one statement, and what must be looked at once it is done."""

    statement: str
    parameters: list[Parameter]
    # Windows whose level may change by it; and those whose change later windows carry.
    changing: list[int]
    moved: list[int]

    @property
    def is_all(self) -> bool:
        """Whether nothing is left to do once the statement is done."""
        return not self.changing and not self.moved


def move(
    *,
    book: BudgetIndex,
    locked: Locked[Window],
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
    book: BudgetIndex,
    locked: Locked[Window],
    sums: Mapping[Posting, Amounts],
    holds: Mapping[int, HoldMove],
    kind: EntryKind,
    batch_id: int | None,
) -> Planned | None:
    """Return the statement that moves locked windows; None if nothing moves. See `move`."""
    now = timezone.now()
    windows = locked.windows
    counted = {key: amounts for key, amounts in sums.items() if amounts != NOTHING}
    left = {
        window.id: left_until(
            book.rules.get(window.budget_id), window.counted_from, window.oldest_grain_at, now
        )
        for window in windows.values()
        if window.counted_from is not None
    }
    late: dict[int, datetime] = {}
    if left:
        for key in list(counted):
            until = left.get(key.window_id)
            if until is not None and key.grain_at is not None and key.grain_at < until:
                del counted[key]
                # What is too late for a window must be so for any code that adds its events up
                # again.
                if until != windows[key.window_id].counted_from:
                    late[key.window_id] = until
    if not counted and not holds and not late:
        return None
    spent = _by_window(counted)
    changing = [
        window_id
        for window_id, amounts in spent.items()
        if (windows[window_id].level_percent and min(amounts) < 0)
        or _may_reach_a_level(book, windows[window_id], amounts)
    ]
    statement, parameters = move_statement(
        tenant_id=book.tenant_id,
        sums=counted,
        kind=kind,
        batch_id=batch_id,
        now=now,
        holds=holds,
        late=late,
    )
    return Planned(statement, parameters, changing, list(spent) if locked.successors else [])


def _may_reach_a_level(book: BudgetIndex, window: WindowState | WindowSums, added: Amounts) -> bool:
    """Whether the window may have reached its next level. Whole numbers only: most have not."""
    rule = book.rules.get(window.budget_id)
    if rule is None:
        return False
    reached = window.level_percent
    percent = next((level.percent for level in rule.levels if level.percent > reached), None)
    if percent is None:
        return False
    if rule.limit_seconds is not None:
        return True
    cost, tokens, requests, tool_calls = rule.limit_parts
    return (
        (
            cost is not None
            and (window.spent_nanos + added[0]) * 100 >= percent * (cost + window.carried_nanos)
        )
        or (tokens is not None and (window.spent_tokens + added[1]) * 100 >= percent * tokens)
        or (requests is not None and (window.spent_requests + added[2]) * 100 >= percent * requests)
        or (
            tool_calls is not None
            and (window.spent_tool_calls + added[3]) * 100 >= percent * tool_calls
        )
    )


def finish_move(*, book: BudgetIndex, locked: Locked[Window], planned: Planned) -> LevelChanges:
    """After a planned move: what later windows carry, and the levels that were reached."""
    changes = NO_LEVEL_CHANGES
    if planned.moved:
        carried = carry_on(book, planned.moved, locked.successors)
        changes = settle_levels(book=book, windows=carried, by=FellBy.CARRIED)
    if planned.changing:
        with connection.cursor() as cursor:
            states = read_states(cursor, book.tenant_id, planned.changing)
        changes = changes.plus(settle_levels(book=book, windows=states, by=FellBy.SPEND))
    return changes


# Numbers come joined to texts: an array of thousands is quoted item by item otherwise.
_WHOLES: Final = "string_to_array(%s, ',')::bigint[]"
_SUMS: Final = "string_to_array(%s, ',')::numeric[]"
_AMOUNTS: Final = ", ".join((_SUMS, _SUMS, _WHOLES, _WHOLES))
_ENTRIES: Final = f"""
    n AS MATERIALIZED (
        SELECT * FROM unnest({_WHOLES}, {_AMOUNTS}, %s::timestamptz[])
            AS n (id, cost, tokens, requests, tool_calls, grain_at)
    ), entries AS (
        INSERT INTO ledger_entry (tenant_id, id, kind, batch_id, window_id, grain_at,
            cost_nanos, tokens, requests, tool_calls)
        SELECT %s, nextval('ledger_entry_id'), %s, %s, id, grain_at, cost, tokens, requests,
            tool_calls FROM n
    )
"""
# What moves in each window: what its entries say, of which a rolling window may have several (an
# UPDATE would add only one of them); or with what is held, and since when a window counts.
_ENTRY: Final = "n m"
_ENTRIES_BY_WINDOW: Final = """(
    SELECT id, sum(cost) AS cost, sum(tokens) AS tokens, sum(requests)::bigint AS requests,
        sum(tool_calls)::bigint AS tool_calls, min(grain_at) AS grain_at FROM n GROUP BY id
) m"""
_WITH_HOLDS: Final = f"""
    m AS MATERIALIZED (
        SELECT * FROM unnest({_WHOLES}, {_AMOUNTS}, {_AMOUNTS}, {_SUMS},
            %s::timestamptz[], %s::timestamptz[])
            AS m (id, cost, tokens, requests, tool_calls, held_nanos, held_tokens, held_requests,
                held_tool_calls, overrun, grain_at, counted_from)
    )
"""
_MOVE_HOLDS: Final = """
    reserved_nanos = w.reserved_nanos + m.held_nanos,
    reserved_tokens = w.reserved_tokens + m.held_tokens,
    reserved_requests = w.reserved_requests + m.held_requests,
    reserved_tool_calls = w.reserved_tool_calls + m.held_tool_calls,
    overrun_nanos = w.overrun_nanos + m.overrun,
    counted_from = coalesce(m.counted_from, w.counted_from),
"""


@cache
def _move_sql(source: str, *, has_entries: bool, has_holds: bool) -> str:
    """Return the statement that writes entries and moves the balances that are their sums.

    The ids are given besides, so that PostgreSQL looks them up by the index also where it takes the
    table for a small one: a plan is kept from when it was.
    """
    parts = [*([_ENTRIES] if has_entries else []), *([_WITH_HOLDS] if has_holds else [])]
    return f"""
        WITH {", ".join(parts)} UPDATE budget_window w SET
            spent_nanos = w.spent_nanos + m.cost, spent_tokens = w.spent_tokens + m.tokens,
            spent_requests = w.spent_requests + m.requests,
            spent_tool_calls = w.spent_tool_calls + m.tool_calls,
            oldest_grain_at = least(w.oldest_grain_at, m.grain_at),
            {_MOVE_HOLDS if has_holds else ""}
            first_used_at = coalesce(w.first_used_at, %s)
        FROM {source} WHERE w.tenant_id = %s AND w.id = m.id AND w.id = ANY({_WHOLES})
    """


def move_statement(  # noqa: PLR0913 - all of it is what a move writes
    *,
    tenant_id: int,
    sums: Mapping[Posting, Amounts],
    kind: EntryKind,
    batch_id: int | None,
    now: datetime,
    holds: Mapping[int, HoldMove] | None = None,
    late: Mapping[int, datetime] | None = None,
) -> tuple[str, list[Parameter]]:
    """Return the statement that writes these entries and moves balances by them and by holds, with
    its parameters. `late` says since when windows count.
    """
    has_grains = any([key.grain_at for key in sums])  # noqa: C419 - faster
    entries: list[Parameter] = []
    if sums:
        columns = [[key.window_id for key in sums], *zip(*sums.values(), strict=True)]
        entries += [",".join(map(str, column)) for column in columns]
        # What a short array lacks is NULL.
        entries.append([key.grain_at for key in sums] if has_grains else [])
        entries += [tenant_id, kind.value, batch_id]
    source = _ENTRIES_BY_WINDOW if has_grains else _ENTRY
    moves: list[Parameter] = []
    if holds or late:
        moves = _held_parameters(sums, holds or {}, late or {})
        source = "m"
    window_ids = (moves or entries)[0]
    statement = _move_sql(source, has_entries=bool(sums), has_holds=bool(moves))
    return statement, [*entries, *moves, now, tenant_id, window_ids]


def _held_parameters(
    sums: Mapping[Posting, Amounts],
    holds: Mapping[int, HoldMove],
    late: Mapping[int, datetime],
) -> list[Parameter]:
    """Return the parameters of _WITH_HOLDS, by window."""
    spent = _by_window(sums)
    grains: dict[int, datetime] = {}
    for window_id, grain_at in sums:
        if grain_at is not None:
            grains[window_id] = min(grains.get(window_id, grain_at), grain_at)
    window_ids = list({**spent, **holds, **late})
    rows = [
        (
            window_id,
            *spent.get(window_id, NOTHING),
            *(hold := holds.get(window_id, NO_HOLD)).reserved,
            hold.overrun_nanos,
        )
        for window_id in window_ids
    ]
    return [
        *(",".join(map(str, column)) for column in zip(*rows, strict=True)),
        # Where no budget rolls there are none.
        *([times.get(id_) for id_ in window_ids] if times else [] for times in (grains, late)),
    ]


def _by_window(sums: Mapping[Posting, Amounts]) -> dict[int, Amounts]:
    spent: dict[int, Amounts] = {}
    for (window_id, _), amounts in sums.items():
        known = spent.get(window_id)
        spent[window_id] = amounts if known is None else add_amounts(known, amounts)
    return spent
