"""What a budget's period has spent before the budget was made: counted immediately if that is
little, else by a job, while usage continues.

A budget is in force from the moment it is made. New usage posts to its windows like any other. The
past is added in the order of (time, id), a stretch a transaction; until all of it is, windows hold
less than was spent, never more, so every refusal is correct.

Invariant: an event counts in a counting budget from the step on that has read its position, or from
its arrival if the budget was there before it. A change to an event that was not read yet moves
nothing (`CountingPast.holds`); the step that reads it finds it changed. Both take COUNTING_LOCK:
steps alone, changes shared.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from django.db import connection
from psycopg import sql

from metering.budgets.index import BudgetIndex, WindowKey
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule
from metering.core.amounts import NOTHING, Amounts, add_amounts
from metering.core.background_jobs import finish_job, move_on, position_of, start_job
from metering.core.dimensions import MATCHABLE, REQUEST
from metering.core.event_stretches import AT_ONCE_MAX, Position, next_stretch, within_stretch
from metering.core.periods import EPOCH
from metering.ledger.crossings import NO_LEVEL_CHANGES, LevelChanges
from metering.ledger.opening import open_windows
from metering.ledger.posting import Posting, lock_windows, post
from metering.models import (
    BATCH_ID_STRIDE,
    UNFINISHED,
    BackgroundJob,
    Budget,
    CostSource,
    EntryKind,
    JobKind,
    Operation,
    Status,
)
from metering.rollups.counts import estimated_events

# What one step reads: a tenth of a second's work.
STEP_EVENTS: Final = 10_000
COUNTING_LOCK: Final = 7307
ALL: Final = sql.SQL("true")


class CountingPast(NamedTuple):
    """How far a budget's count of the past has come."""

    budget_id: int
    revision: int
    until_id: int
    read: Position

    def holds(self, event_id: int, at: datetime) -> bool:
        """Whether an event there is in the budget's windows."""
        return event_id >= self.until_id or (at, event_id) <= self.read


def count_what_was_spent(budget: Budget, *, actor: str) -> LevelChanges:
    """Add what the budget's present period holds to its windows, or leave that to a job.

    The caller holds the configuration lock alone: every batch of before is committed, and has a
    lower number than every later one.
    """
    past = next_stretch(
        tenant_id=budget.tenant_id, after=Position(budget.counts_from), limit=AT_ONCE_MAX + 1
    )
    if REQUEST in budget.per:
        past = None
    is_long = past is not None and past.events > AT_ONCE_MAX
    if budget.is_counting != is_long:
        budget.is_counting = is_long
        budget.save(update_fields=["is_counting"])
    if is_long:
        _start_counting(budget, actor=actor)
    elif past is not None:
        book = read_budget_index(budget.tenant_id, budget_id=budget.id)
        # No reservation holds a window of a revision that has none yet.
        return _count(book, book.rules[budget.id], within=ALL, holders=())
    return NO_LEVEL_CHANGES


def _start_counting(budget: Budget, *, actor: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('ingest_batch_id')")
        (batch_id,) = cursor.fetchone()
    start_job(
        tenant_id=budget.tenant_id,
        kind=JobKind.COUNT_BUDGET,
        actor=actor,
        total=estimated_events(tenant_id=budget.tenant_id, from_=budget.counts_from),
        budget_id=budget.id,
        revision=budget.revision,
        until_id=batch_id * BATCH_ID_STRIDE,
        after_at=budget.counts_from,
    )


def count_a_stretch(book: BudgetIndex, job: BackgroundJob) -> LevelChanges:
    """A step of such a job: count the next stretch, or end it where there is no more.

    In a transaction that holds the configuration shared, and the job.
    """
    rule = book.rules.get(job.budget_id or 0)
    if rule is None or rule.revision != job.revision:
        finish_job(job, {"is_complete": False})
        return NO_LEVEL_CHANGES
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [COUNTING_LOCK, book.tenant_id])
    changes = NO_LEVEL_CHANGES
    after = position_of(job)
    stretch = next_stretch(tenant_id=book.tenant_id, after=after, limit=STEP_EVENTS)
    if stretch is not None:
        within = sql.SQL("e.id < {} AND {}").format(
            sql.Literal(job.until_id), within_stretch(after, stretch.end)
        )
        holders = _holders(rule, book.tenant_id, within)
        changes = _count(book.for_transaction(), rule, within=within, holders=holders)
        move_on(job, position=stretch.end, count=stretch.events)
    if stretch is None or stretch.events < STEP_EVENTS:
        Budget.objects.filter(tenant_id=book.tenant_id, id=rule.id).update(is_counting=False)
        finish_job(job, {"is_complete": True})
    return changes


def _holders(rule: BudgetRule, tenant_id: int, within: sql.Composable) -> Sequence[UUID]:
    """The reservations of these events that hold windows of the budget. Hardly ever any: they were
    made after the budget, for calls that had been reported before it.

    Look-ups by key, one after the other: joined, they take seconds where the planner knows nothing
    of the new windows yet.
    """
    query = sql.SQL(
        "SELECT DISTINCT e.reservation_id FROM usage_event e WHERE e.tenant_id = {tenant}"
        " AND e.reservation_id IS NOT NULL AND {within}"
    ).format(tenant=sql.Literal(tenant_id), within=within)
    with connection.cursor() as cursor:
        cursor.execute(query.as_string(cursor.cursor))
        ids = [row[0] for row in cursor.fetchall()]
        if not ids:
            return ()
        cursor.execute(
            "SELECT id, window_ids FROM reservation WHERE tenant_id = %s AND id = ANY(%s)",
            [tenant_id, ids],
        )
        held = dict(cursor.fetchall())
        cursor.execute(
            "SELECT id FROM budget_window WHERE tenant_id = %s AND id = ANY(%s)"
            " AND budget_id = %s AND revision = %s",
            [
                tenant_id,
                list({window_id for ids in held.values() for window_id in ids}),
                rule.id,
                rule.revision,
            ],
        )
        windows = {row[0] for row in cursor.fetchall()}
    return [id_ for id_, window_ids in held.items() if not windows.isdisjoint(window_ids)]


def counting_pasts(book: BudgetIndex) -> dict[int, CountingPast]:
    """How far the counts of these budgets have come, by budget; none moves on until commit.

    For callers that are about to change events. Read under the lock: what a book says may be old.
    """
    if not any(rule.is_counting for rule in book.rules.values()):
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock_shared(%s, %s)", [COUNTING_LOCK, book.tenant_id]
        )
    return _read_pasts(book.tenant_id, book.rules.values())


def _read_pasts(tenant_id: int, rules: Iterable[BudgetRule]) -> dict[int, CountingPast]:
    revisions = {rule.id: rule.revision for rule in rules}
    jobs = BackgroundJob.objects.filter(
        UNFINISHED, tenant_id=tenant_id, kind=JobKind.COUNT_BUDGET, budget_id__in=list(revisions)
    )
    return {
        job.budget_id: CountingPast(job.budget_id, job.revision, job.until_id, position_of(job))
        for job in jobs
        if job.budget_id is not None
        and job.until_id is not None
        and job.revision == revisions[job.budget_id]
    }


def _counted(rule: BudgetRule, tenant_id: int) -> sql.Composable:
    """A condition for events that are counted so far: all, but of a budget that still counts."""
    past = _read_pasts(tenant_id, [rule]).get(rule.id) if rule.is_counting else None
    if past is None:
        return ALL
    return sql.SQL("(e.id >= {until} OR (e.time, e.id) <= ({time}, {id}))").format(
        until=sql.Literal(past.until_id),
        time=sql.Literal(past.read.time),
        id=sql.Literal(past.read.id),
    )


def _count(
    book: BudgetIndex, rule: BudgetRule, *, within: sql.Composable, holders: Sequence[UUID]
) -> LevelChanges:
    """Post what these events add to the budget, as one entry a window (and grain). `holders` are
    the reservations of some that hold its windows.
    """
    sums: dict[tuple[WindowKey, datetime | None], Amounts] = {}
    first_used_at: dict[WindowKey, datetime] = {}
    for at, window, amounts in _amounts(rule, book.tenant_id, within, holders):
        first_used_at[window] = min(at, first_used_at.get(window, at))
        key = (window, rule.grain_at(at) if rule.is_rolling else None)
        sums[key] = add_amounts(sums.get(key, NOTHING), amounts)
    if not first_used_at:
        return NO_LEVEL_CHANGES
    # Opening windows inside this transaction is safe as it is in `movements`, which waits for this.
    open_windows(book=book, keys=book.lacking(first_used_at))
    # Other writers may have the windows by now: all are locked in the order of their ids.
    lock_windows(book=book, window_ids={book.window_ids[window] for window in first_used_at})
    _note_first_use(book, first_used_at)
    return post(
        book=book,
        sums={
            Posting(book.window_ids[window], grain_at): amounts
            for (window, grain_at), amounts in sums.items()
        },
        kind=EntryKind.BACKFILL,
        batch_id=None,
    )


def _amounts(
    rule: BudgetRule, tenant_id: int, within: sql.Composable, holders: Sequence[UUID]
) -> Iterator[tuple[datetime, WindowKey, Amounts]]:
    if holders:
        held = sql.SQL("{} AND e.reservation_id = ANY({})").format(
            within, sql.Literal(list(holders))
        )
        for at, key, starts_at, amounts in held_amounts(rule, tenant_id=tenant_id, within=held):
            yield at, WindowKey(rule.id, tuple(json.loads(key)), starts_at), amounts
        within = sql.SQL("{} AND (e.reservation_id = ANY({})) IS NOT TRUE").format(
            within, sql.Literal(list(holders))
        )
    for at, group, amounts in stored_amounts(rule, tenant_id=tenant_id, within=within):
        span = rule.span(at)
        if span is not None:
            yield at, WindowKey(rule.id, group, span.starts_at), amounts


def _note_first_use(book: BudgetIndex, first_used_at: Mapping[WindowKey, datetime]) -> None:
    """Say since when windows have been used, to a quarter of an hour; before anything is posted."""
    with connection.cursor() as cursor:
        cursor.execute(
            # The least of both: NULL counts for nothing.
            "UPDATE budget_window w SET first_used_at = least(w.first_used_at, n.at)"
            " FROM unnest(%s::bigint[], %s::timestamptz[]) AS n (id, at)"
            " WHERE w.tenant_id = %s AND w.id = n.id",
            [
                [book.window_ids[window] for window in first_used_at],
                list(first_used_at.values()),
                book.tenant_id,
            ],
        )


def stored_amounts(
    rule: BudgetRule,
    *,
    tenant_id: int,
    within: sql.Composable | None = None,
    since: datetime = EPOCH,
) -> Iterator[tuple[datetime, tuple[str, ...], Amounts]]:
    """What events stored `since` then add to a budget, by a portion of time and group: (its begin,
    group, amounts).

    Of those `within` a condition on `e`; else of all that are counted so far, without what counts
    where a reservation holds (`held_amounts`).

    A portion is a quarter of an hour, within which no period ends; a minute where an anchor or a
    rolling window is as fine as that.
    """
    minutes = 15 if rule.clock.is_aligned and not rule.is_rolling else 1
    columns = [_dimension_sql(name) for name in rule.per if name != REQUEST]
    conditions = [
        sql.SQL("e.tenant_id = {}").format(sql.Literal(tenant_id)),
        sql.SQL("NOT e.is_void"),
        *([within] if within else [_counted(rule, tenant_id), _not_held(rule, tenant_id)]),
    ]
    if (first := max(rule.counts_from, since)) > EPOCH:
        conditions.append(sql.SQL("e.time >= {}").format(sql.Literal(first)))
    for index, wanted in rule.wanted:
        values = sql.Literal(sorted(wanted))
        conditions.append(sql.SQL("{} = ANY({})").format(_dimension_sql(MATCHABLE[index]), values))
    portion = sql.SQL("date_bin({}::interval, time, {})").format(
        sql.Literal(f"{minutes} minutes"), sql.Literal(EPOCH)
    )
    grouped = sql.SQL(", ").join([portion, *columns])
    query = sql.SQL(
        "SELECT coalesce(sum(cost_nanos), 0), sum(input_tokens + output_tokens),"
        " count(*) FILTER (WHERE operation <> {tool}), count(*) FILTER (WHERE operation = {tool}),"
        " {grouped} FROM usage_event e WHERE {conditions} GROUP BY {grouped}"
    ).format(
        tool=sql.Literal(Operation.TOOL.value),
        grouped=grouped,
        conditions=sql.SQL(" AND ").join(conditions),
    )
    with connection.cursor() as cursor:
        cursor.execute(query.as_string(cursor.cursor))
        for cost, tokens, requests, tool_calls, begin, *group in cursor:
            # The first portion may begin before the budget counts; what is in it does not.
            at = max(begin, rule.counts_from)
            yield at, tuple(group), Amounts(cost, tokens, requests, tool_calls)


def _not_held(rule: BudgetRule, tenant_id: int) -> sql.Composable:
    return sql.SQL(
        "(e.reservation_id IS NULL OR NOT EXISTS (SELECT FROM reservation r JOIN budget_window w"
        " ON w.tenant_id = r.tenant_id AND w.id = ANY(r.window_ids)"
        " WHERE r.tenant_id = {tenant} AND r.id = e.reservation_id"
        " AND w.budget_id = {budget} AND w.revision = {revision}))"
    ).format(
        tenant=sql.Literal(tenant_id),
        budget=sql.Literal(rule.id),
        revision=sql.Literal(rule.revision),
    )


def held_amounts(
    rule: BudgetRule,
    *,
    tenant_id: int,
    within: sql.Composable | None = None,
    since: datetime = EPOCH,
) -> Iterator[tuple[datetime, str, datetime, Amounts]]:
    """What events of reservations `since` then add to the windows of a budget that these hold,
    whatever the events say of themselves: (event time to a minute, group key, the window's begin,
    amounts). `within` as for `stored_amounts`.
    """
    query = sql.SQL(
        """
        SELECT date_bin('1 minute', e.time, {epoch}), w.group_key, w.starts_at,
            coalesce(sum(e.cost_nanos), 0), sum(e.input_tokens + e.output_tokens),
            count(*) FILTER (WHERE e.operation <> {tool}),
            count(*) FILTER (WHERE e.operation = {tool})
        FROM usage_event e
        JOIN reservation r ON r.tenant_id = e.tenant_id AND r.id = e.reservation_id
        JOIN budget_window w ON w.tenant_id = r.tenant_id AND w.id = ANY(r.window_ids)
        WHERE e.tenant_id = {tenant} AND NOT e.is_void AND e.time >= {since}
            AND w.budget_id = {budget} AND w.revision = {revision} AND {within}
        GROUP BY 1, 2, 3
        """
    ).format(
        epoch=sql.Literal(EPOCH),
        tool=sql.Literal(Operation.TOOL.value),
        tenant=sql.Literal(tenant_id),
        since=sql.Literal(since),
        budget=sql.Literal(rule.id),
        revision=sql.Literal(rule.revision),
        within=within or _counted(rule, tenant_id),
    )
    with connection.cursor() as cursor:
        cursor.execute(query.as_string(cursor.cursor))
        for at, key, starts_at, *amounts in cursor.fetchall():
            yield at, key, starts_at, Amounts(*amounts)


def _dimension_sql(name: str) -> sql.Composable:
    """A dimension's value as text; what is stored as a number is spelled out."""
    assert name in MATCHABLE, name
    if name == "operation":
        return _spelled("operation", Operation)
    if name == "status":
        return _spelled("status", Status)
    return sql.Identifier(name)


def _spelled(
    column: str, choices: type[Operation] | type[Status] | type[CostSource]
) -> sql.Composable:
    whens = [
        sql.SQL("WHEN {} THEN {}").format(sql.Literal(choice.value), sql.Literal(choice.label))
        for choice in choices
    ]
    return sql.SQL("CASE {} {} END").format(sql.Identifier(column), sql.SQL(" ").join(whens))
