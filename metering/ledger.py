"""The ledger: the one writer of window balances, and the entries that say why they moved.

Invariant: a window's `spent_*` is the sum of its entries. Both are written by the same statement
list, in one transaction, last before commit; `manage.py audit_ledger` recomputes them and the
events behind.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from django.db import connection
from django.utils import timezone

from metering.budget_rules import (
    Amounts,
    BudgetBook,
    BudgetRule,
    LevelRule,
    WindowKey,
    group_key,
)
from metering.enforcement.halts import insert_halt, match_of_group
from metering.models import Action, Crossing, EntryKind, HaltKind, Mode

NOTHING: Final = Amounts(0, 0, 0, 0)
# Who halts, in the words of the halt's record.
BY_LEVEL: Final = "a budget's level"


class Posting(NamedTuple):
    """Where amounts go: a window, and for a rolling one the grain of time that they leave with."""

    window_id: int
    grain_at: datetime | None


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


WINDOW_COLUMNS: Final = ", ".join(f"w.{name}" for name in WindowState._fields)


def add_amounts(left: Amounts, right: Amounts) -> Amounts:
    """The sum, part by part."""
    return Amounts(left[0] + right[0], left[1] + right[1], left[2] + right[2], left[3] + right[3])


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


def open_windows(*, book: BudgetBook, keys: Iterable[WindowKey]) -> None:
    """See that a window exists for every key, and remember their ids in the book.

    Until the transaction commits, the book must be the transaction's own (`for_transaction`).
    Called in a transaction of its own before the one that locks windows: inserting inside the
    locking transaction would take locks in the order of arrival, and two batches would block each
    other.
    """
    missing = sorted(set(keys) - book.window_ids.keys())
    if not missing:
        return
    rules = [book.rules[key.budget_id] for key in missing]
    spans = [rule.clock.span(key.starts_at) for rule, key in zip(rules, missing, strict=True)]
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO budget_window (tenant_id, id, budget_id, revision, group_key, starts_at,
                ends_at, carried_nanos, counted_from)
            SELECT %s, nextval('budget_window_id'), n.* FROM unnest(%s::bigint[],
                %s::int[], %s::text[],
                %s::timestamptz[], %s::timestamptz[], %s::bigint[], %s::timestamptz[]) AS n
            ON CONFLICT DO NOTHING
            """,
            [
                book.tenant_id,
                *_places(book, missing),
                [span.ends_at for span in spans],
                [
                    _carried(book.tenant_id, rule, key)
                    for rule, key in zip(rules, missing, strict=True)
                ],
                [rule.counted_from(now) if rule.is_rolling else None for rule in rules],
            ],
        )
    find_windows(book=book, keys=missing)


def find_windows(*, book: BudgetBook, keys: Iterable[WindowKey]) -> set[WindowKey]:
    """The keys for which a window exists; their ids are remembered in the book."""
    wanted = list(keys)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT w.id, n.place FROM unnest(%s::bigint[], %s::int[], %s::text[], %s::timestamptz[])
                WITH ORDINALITY AS n (budget_id, revision, group_key, starts_at, place)
            JOIN budget_window w ON w.tenant_id = %s AND w.budget_id = n.budget_id
                AND w.revision = n.revision AND w.starts_at = n.starts_at AND w.group_key =
                n.group_key
            """,
            [*_places(book, wanted), book.tenant_id],
        )
        found = set()
        for window_id, place in cursor.fetchall():
            key = wanted[place - 1]
            book.remember(key, window_id)
            found.add(key)
        return found


def _places(book: BudgetBook, keys: Sequence[WindowKey]) -> tuple[list[Any], ...]:
    """What identifies windows, as columns: budget, revision, group, begin."""
    return (
        [key.budget_id for key in keys],
        [book.rules[key.budget_id].revision for key in keys],
        [group_key(key.group) for key in keys],
        [key.starts_at for key in keys],
    )


def _carried(tenant_id: int, rule: BudgetRule, key: WindowKey) -> int:
    """What the group's period before left unused, as far as the budget carries it over."""
    limit = rule.limits["cost_nanos"]
    if not rule.has_rollover or limit is None or key.starts_at <= rule.counts_from:
        return 0
    before = rule.clock.before(rule.clock.span(key.starts_at))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT spent_nanos, carried_nanos FROM budget_window WHERE tenant_id = %s"
            " AND budget_id = %s AND revision = %s AND group_key = %s AND starts_at = %s",
            [tenant_id, rule.id, rule.revision, group_key(key.group), before.starts_at],
        )
        row = cursor.fetchone()
    spent_nanos, carried_nanos = row or (0, 0)
    return unused_nanos(rule, limit=limit, carried=carried_nanos, spent=spent_nanos)


def unused_nanos(rule: BudgetRule, *, limit: int, carried: int, spent: int) -> int:
    """What a finished window hands to the next: what is left of its limit, up to the budget's
    maximum.
    """
    most = limit * rule.rollover_max_percent // 100
    return max(0, min(most, limit + carried - spent))


def post(
    *,
    book: BudgetBook,
    sums: Mapping[Posting, Amounts],
    kind: EntryKind,
    batch_id: int | None,
    first_used_at: datetime | None = None,
    holds: Mapping[int, HoldMove] | None = None,
) -> None:
    """Move balances and write the entries that say why; then the crossings that this caused.

    `holds` says what reservations that this transaction finishes give back, by window.
    The last thing a transaction does: windows stay locked until it ends. They are locked in the
    order of their ids, everywhere, so that no two transactions can wait for each other.
    """
    sums = {key: amounts for key, amounts in sums.items() if amounts != NOTHING}
    if holds:
        locked = lock_windows(book=book, window_ids={*(key.window_id for key in sums), *holds})
        move(book=book, locked=locked, sums=sums, holds=holds, kind=kind, batch_id=batch_id)
        return
    if not sums:
        return
    successors = _late_successors(book, {key.window_id for key in sums})
    with connection.cursor() as cursor:
        sums = _lock(cursor, book, sums, successors)
        if not sums:
            return
        moved = _write_entries_and_move(cursor, book.tenant_id, sums, kind, batch_id, first_used_at)
        reaching = [window.id for window in moved if _may_reach_a_level(book, window)]
        if successors:
            _carry_on(book, _states(cursor, book.tenant_id, [one.id for one in moved]), successors)
        if reaching:
            record_crossings(book=book, windows=_states(cursor, book.tenant_id, reaching))


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
    successors = _late_successors(book, window_ids)
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
    # Windows that may reach a level by it; and whether later windows carry what changes.
    reaching: list[int]
    moved: list[int]

    @property
    def is_all(self) -> bool:
        """Whether nothing is left to do once the statement is done."""
        return not self.reaching and not self.moved


def move(
    *,
    book: BudgetBook,
    locked: Locked,
    sums: Mapping[Posting, Amounts],
    holds: Mapping[int, HoldMove],
    kind: EntryKind,
    batch_id: int | None,
) -> None:
    """Move what is spent and what is reserved in locked windows, by one statement; then crossings.

    Every window of `sums` and `holds` must be locked. What is too old for a rolling window does not
    count in it.
    """
    planned = plan_move(
        book=book, locked=locked, sums=sums, holds=holds, kind=kind, batch_id=batch_id
    )
    if planned is None:
        return
    with connection.cursor() as cursor:
        cursor.execute(planned.statement, planned.parameters)
    finish_move(book=book, locked=locked, planned=planned)


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
    counted = {
        key: amounts
        for key, amounts in sums.items()
        if amounts != NOTHING and _still_counts(key, locked.windows[key.window_id])
    }
    if not counted and not holds:
        return None
    spent: dict[int, Amounts] = {}
    for key, amounts in counted.items():
        spent[key.window_id] = add_amounts(spent.get(key.window_id, NOTHING), amounts)
    reaching = [
        window_id
        for window_id, amounts in spent.items()
        if _may_reach_a_level(book, _moved(locked.windows[window_id], amounts))
    ]
    return Planned(
        statement=_MOVE_ALL if counted else _MOVE_HOLDS,
        parameters=_move_parameters(book.tenant_id, counted, spent, holds, kind, batch_id),
        reaching=reaching,
        moved=list(spent) if locked.successors else [],
    )


def finish_move(*, book: BudgetBook, locked: Locked, planned: Planned) -> None:
    """After a planned move: what later windows carry, and crossings."""
    if planned.is_all:
        return
    with connection.cursor() as cursor:
        if planned.moved:
            states = _states(cursor, book.tenant_id, planned.moved)
            _carry_on(book, states, locked.successors)
        if planned.reaching:
            states = _states(cursor, book.tenant_id, planned.reaching)
            record_crossings(book=book, windows=states)


def _moved(window: WindowState, amounts: Amounts) -> Moved:
    return Moved(
        window.id,
        window.budget_id,
        *add_amounts(window.spent, amounts),
        carried_nanos=window.carried_nanos,
        level_percent=window.level_percent,
    )


def _still_counts(key: Posting, window: WindowState) -> bool:
    return (
        key.grain_at is None or window.counted_from is None or key.grain_at >= window.counted_from
    )


_ENTRIES: Final = f"""
    n AS MATERIALIZED (
        SELECT * FROM unnest({", ".join(["string_to_array(%s, ',')::bigint[]"] * 5)},
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
        SELECT * FROM unnest({", ".join(["string_to_array(%s, ',')::bigint[]"] * 10)})
            AS m (id, cost, tokens, requests, tool_calls, held_nanos, held_tokens, held_requests,
                held_tool_calls, overrun)
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
        first_used_at = coalesce(w.first_used_at, %s)
    FROM m WHERE w.tenant_id = %s AND w.id = m.id
"""  # noqa: S608 - constant lists


_MOVE_ALL: Final = f"WITH {_ENTRIES} {_MOVES}"
_MOVE_HOLDS: Final = f"WITH {_MOVES}"


def _move_parameters(
    tenant_id: int,
    sums: Mapping[Posting, Amounts],
    spent: Mapping[int, Amounts],
    holds: Mapping[int, HoldMove],
    kind: EntryKind,
    batch_id: int | None,
) -> list[Any]:
    """The entries, and the balances: what is spent is their sum."""
    rows = [
        (
            window_id,
            *spent.get(window_id, NOTHING),
            *(hold := holds.get(window_id, NO_HOLD)).reserved,
            hold.overrun_nanos,
        )
        for window_id in {**spent, **holds}
    ]
    parameters: list[Any] = []
    if sums:
        columns = [[key.window_id for key in sums], *zip(*sums.values(), strict=True)]
        parameters += [",".join(map(str, column)) for column in columns]
        parameters += [[key.grain_at for key in sums], tenant_id, kind.value, batch_id]
    parameters += [",".join(map(str, column)) for column in zip(*rows, strict=True)]
    return [*parameters, timezone.now(), tenant_id]


def _may_reach_a_level(book: BudgetBook, window: Moved) -> bool:
    """Whether the window may have reached its next level. Whole numbers only: most have not."""
    rule = book.rules.get(window.budget_id)
    if rule is None:
        return False
    percent = next((one.percent for one in rule.levels if one.percent > window.level_percent), None)
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


def _states(cursor: Any, tenant_id: int, window_ids: Sequence[int]) -> list[WindowState]:
    cursor.execute(
        f"SELECT {WINDOW_COLUMNS} FROM budget_window w WHERE w.tenant_id = %s AND w.id = ANY(%s)"  # noqa: S608
        " ORDER BY w.id",
        [tenant_id, list(window_ids)],
    )
    return [WindowState(*row) for row in cursor.fetchall()]


def _lock(
    cursor: Any,
    book: BudgetBook,
    sums: Mapping[Posting, Amounts],
    successors: Sequence[int],
) -> dict[Posting, Amounts]:
    """Lock the windows; leave out what is too old for a rolling window, now that it cannot move."""
    cursor.execute(
        "SELECT id, counted_from FROM budget_window WHERE tenant_id = %s"
        " AND id = ANY(string_to_array(%s, ',')::bigint[]) ORDER BY id FOR UPDATE",
        [book.tenant_id, ",".join(map(str, {*(key.window_id for key in sums), *successors}))],
    )
    found = cursor.fetchall()
    assert {key.window_id for key in sums} <= {row[0] for row in found}, "windows are never removed"
    counted_from = {row[0]: row[1] for row in found if row[1] is not None}
    if not counted_from:
        return dict(sums)
    return {
        key: amounts
        for key, amounts in sums.items()
        if key.grain_at is None
        or key.window_id not in counted_from
        or key.grain_at >= counted_from[key.window_id]
    }


def _write_entries_and_move(
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
            SELECT * FROM unnest({", ".join(["string_to_array(%s, ',')::bigint[]"] * 5)},
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
            first_used_at = coalesce(w.first_used_at, %s)
        FROM {_ONE_ROW_A_WINDOW if any(grains) else "n"} WHERE w.tenant_id = %s AND w.id = n.id
        RETURNING {MOVED_COLUMNS}
        """,  # noqa: S608 - constant lists
        [
            # Numbers joined to texts: an array of thousands is quoted item by item otherwise.
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
    "(SELECT id, sum(cost)::bigint AS cost, sum(tokens)::bigint AS tokens,"
    " sum(requests)::bigint AS requests, sum(tool_calls)::bigint AS tool_calls"
    " FROM n GROUP BY id) n"
)


def _late_successors(book: BudgetBook, window_ids: set[int]) -> list[int]:
    """Later windows of the same group, for budgets with rollover: late usage changes what they
    carry.
    """
    if not book.has_rollover:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT later.id FROM budget_window w
            JOIN budget b ON b.tenant_id = w.tenant_id AND b.id = w.budget_id AND b.has_rollover
            JOIN budget_window later ON later.tenant_id = w.tenant_id AND later.budget_id =
            w.budget_id
                AND later.revision = w.revision AND later.group_key = w.group_key
                AND later.starts_at > w.starts_at
            WHERE w.tenant_id = %s AND w.id = ANY(%s)
            """,
            [book.tenant_id, list(window_ids)],
        )
        return [row[0] for row in cursor.fetchall()]


def _carry_on(book: BudgetBook, changed: Sequence[WindowState], successors: Sequence[int]) -> None:
    """Carry the unused part of changed windows into the ones after them, oldest first."""
    if not successors:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {WINDOW_COLUMNS} FROM budget_window w"  # noqa: S608 - a constant list
            " WHERE w.tenant_id = %s AND w.id = ANY(%s)"
            " ORDER BY w.starts_at",
            [book.tenant_id, list(successors)],
        )
        later = [WindowState(*row) for row in cursor.fetchall()]
        by_end = {(one.budget_id, one.group_key, one.ends_at): one for one in [*changed, *later]}
        for window in later:
            rule = book.rules.get(window.budget_id)
            before = by_end.get((window.budget_id, window.group_key, window.starts_at))
            limit = rule.limits["cost_nanos"] if rule else None
            if rule is None or before is None or limit is None:
                continue
            carried = unused_nanos(
                rule, limit=limit, carried=before.carried_nanos, spent=before.spent_nanos
            )
            cursor.execute(
                "UPDATE budget_window SET carried_nanos = %s WHERE tenant_id = %s AND id = %s",
                [carried, book.tenant_id, window.id],
            )
            by_end[window.budget_id, window.group_key, window.ends_at] = window._replace(
                carried_nanos=carried
            )


class Use(NamedTuple):
    """How full a window is by its fullest part, in percent; exact to a hundredth, never rounded
    up.
    """

    percent: Decimal
    part: str


def used_percent(rule: BudgetRule, window: WindowState, *, now: datetime) -> Use:
    """The fullest part of a window's limit."""
    fullest = Use(Decimal(0), "cost_nanos")
    raised = rule.raised(window.group_key, now)
    for place, (part, limit) in enumerate(rule.limits.items()):
        if limit is None:
            continue
        whole = limit + raised[place] + (window.carried_nanos if part == "cost_nanos" else 0)
        fullest = max(fullest, Use(_percent(window.spent[place], whole), part))
    if rule.limit_seconds is not None and window.first_used_at is not None:
        seconds = max(0, int((now - window.first_used_at) / timedelta(seconds=1)))
        fullest = max(fullest, Use(_percent(seconds, rule.limit_seconds + raised[4]), "seconds"))
    return fullest


# What stands for "infinitely full": anything spent under a limit of zero.
BEYOND_PERCENT: Final = Decimal(100_000_000)


def _percent(spent: int, limit: int) -> Decimal:
    if spent <= 0:
        return Decimal(0)
    if limit <= 0:
        return BEYOND_PERCENT
    return min(BEYOND_PERCENT, Decimal(spent * 10_000 // limit) / 100)


def record_crossings(*, book: BudgetBook, windows: Iterable[WindowState]) -> None:
    """Write a crossing for every level that these windows have newly reached, once for ever."""
    now = timezone.now()
    crossings: list[Crossing] = []
    levels: dict[int, int] = {}
    for window in windows:
        rule = book.rules.get(window.budget_id)
        if rule is None or not rule.levels or rule.revision != window.revision:
            continue
        use = used_percent(rule, window, now=now)
        reached = [
            level for level in rule.levels if window.level_percent < level.percent <= use.percent
        ]
        if reached:
            levels[window.id] = reached[-1].percent
            crossings += [_crossing(book, rule, window, level, use) for level in reached]
            _lock_out(book, rule, window, reached, use)
    if not crossings:
        return
    Crossing.objects.bulk_create(crossings, ignore_conflicts=True)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE budget_window w SET level_percent = n.level"
            " FROM unnest(%s::bigint[], %s::int[])"
            " AS n (id, level) WHERE w.tenant_id = %s AND w.id = n.id",
            [list(levels), list(levels.values()), book.tenant_id],
        )


def _lock_out(
    book: BudgetBook,
    rule: BudgetRule,
    window: WindowState,
    reached: Sequence[LevelRule],
    use: Use,
) -> None:
    """Halt the window's group where what was spent has reached a level that locks out."""
    for level in reached:
        if level.action != Action.LOCKOUT or rule.mode != Mode.ENFORCE:
            continue
        group = json.loads(window.group_key)
        with connection.cursor() as cursor:
            insert_halt(
                cursor,
                tenant_id=book.tenant_id,
                match=match_of_group(rule.match, rule.per, group),
                reason=f"The budget {rule.name!r} has reached {use.percent} % of its limit;"
                f" it locks out at {level.percent} %.",
                kind=HaltKind.LOCKOUT,
                actor=BY_LEVEL,
                window_id=window.id,
                level_percent=level.percent,
                episode=window.episode,
            )


def _crossing(
    book: BudgetBook, rule: BudgetRule, window: WindowState, level: LevelRule, use: Use
) -> Crossing:
    limit = rule.limits["cost_nanos"]
    return Crossing(
        tenant_id=book.tenant_id,
        budget_id=rule.id,
        window_id=window.id,
        percent=level.percent,
        episode=window.episode,
        action=level.action,
        mode=rule.mode,
        notify=list(level.notify),
        group_key=window.group_key,
        used_percent=use.percent,
        spent_nanos=window.spent_nanos,
        limit_nanos=None if limit is None else limit + window.carried_nanos,
    )


def age_rolling_window(*, book: BudgetBook, window_id: int, now: datetime) -> None:
    """Take out of a rolling window what has become older than its period, by an entry that says
    so.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT budget_id, counted_from FROM budget_window WHERE tenant_id = %s AND id = %s"
            " FOR UPDATE",
            [book.tenant_id, window_id],
        )
        budget_id, counted_from = cursor.fetchone()
        rule = book.rules.get(budget_id)
        until = rule.counted_from(now) if rule is not None else None
        if counted_from is None or until is None or until <= counted_from:
            return
        cursor.execute(
            """
            SELECT coalesce(sum(cost_nanos), 0)::bigint, coalesce(sum(tokens), 0)::bigint,
                coalesce(sum(requests), 0)::bigint, coalesce(sum(tool_calls), 0)::bigint
            FROM ledger_entry WHERE tenant_id = %s AND window_id = %s AND grain_at >= %s AND
            grain_at < %s
            """,
            [book.tenant_id, window_id, counted_from, until],
        )
        amounts = Amounts(*(-part for part in cursor.fetchone()))
        if amounts != NOTHING:
            # No grain of its own: it belongs to the grains it cancels, which are never summed
            # again.
            sums = {Posting(window_id, None): amounts}
            _write_entries_and_move(cursor, book.tenant_id, sums, EntryKind.AGED_OUT, None, None)
        cursor.execute(
            "UPDATE budget_window SET counted_from = %s WHERE tenant_id = %s AND id = %s",
            [until, book.tenant_id, window_id],
        )
        (window,) = _states(cursor, book.tenant_id, [window_id])
        percent = used_percent(book.rules[budget_id], window, now=now).percent
        if percent < window.level_percent:
            # Below its level again: reaching it once more is news, so a new episode begins.
            cursor.execute(
                "UPDATE budget_window SET level_percent = 0, episode = episode + 1"
                " WHERE tenant_id = %s AND id = %s",
                [book.tenant_id, window_id],
            )
