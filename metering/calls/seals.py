"""Usage that is too old to be kept is sealed before it goes, so that every balance stays provable.

A month goes in steps, each of them short, safe to repeat, and right if the next one never comes:
a tenant's events are frozen, so that nothing changes them any more; their sums are added to the
seals of the windows in which they count, a portion a transaction; their ledger entries are replaced
by their sums in the same seals; and once all tenants are that far, the partition is dropped
(`metering.usage.partitions`).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from django.conf import settings
from django.db import connection
from django.db.backends.utils import CursorWrapper

from common.queries import Parameter
from metering.budgets.index import BudgetIndex
from metering.budgets.reading import read_budget_index
from metering.calls.movements import Change, added_up, movements
from metering.calls.reading import read_events
from metering.core.amounts import NOTHING, Amounts, add_amounts
from metering.core.dimensions import REQUEST
from metering.core.periods import EPOCH
from metering.usage.columns import StoredEvent
from tenants.retention import permit_removal
from tenants.scope import (
    change_configuration,
    hold_configuration,
    lock_configuration_shared,
    once_a_snapshot,
)

EVENTS_A_CHUNK: Final = 2_000
ENTRIES_A_CHUNK: Final = 5_000
# Events times budgets of one chunk: each may count in each.
POSTINGS_A_CHUNK: Final = 80_000
WINDOWS_A_CHUNK: Final = 2_000
# Dimensions whose values come and go: each is of one piece of work.
PASSING: Final = ("session", "task", "trace", REQUEST)
_MOMENT: Final = timedelta(microseconds=1)


class Sealed(NamedTuple):
    """How far a tenant's usage is frozen and sealed; the epoch: not at all."""

    frozen_until: datetime = EPOCH
    sealed_until: datetime = EPOCH

    @property
    def is_complete(self) -> bool:
        """Whether all that is frozen is sealed."""
        return self.frozen_until == self.sealed_until > EPOCH

    @property
    def changes_until(self) -> datetime:
        """What is older than this changed nothing but sealed events.

        An event is changed for as long as its key is kept, and to a time as much later at most.
        """
        return self.sealed_until - keys_kept()


def keys_kept() -> timedelta:
    """For how long reports can change an event: its key is kept a day longer than it is taken."""
    max_age: timedelta = settings.EVENT_MAX_AGE
    return max_age + timedelta(days=1)


def first_kept(now: datetime) -> datetime:
    """Return the start of the oldest month (UTC) whose events are kept."""
    oldest: datetime = now - settings.RETENTION_EVENTS
    return oldest.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


@once_a_snapshot
def read_sealed(tenant_id: int) -> Sealed:
    """How far the tenant's usage is sealed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT frozen_until, sealed_until FROM usage_seal WHERE tenant_id = %s", [tenant_id]
        )
        row = cursor.fetchone()
    return Sealed(*row) if row else Sealed()


def tenants_to_freeze(until: datetime) -> list[int]:
    """Tenants that may have usage before then that is not frozen. Needs a platform scope."""
    return _tenants(
        "SELECT t.id FROM tenant t LEFT JOIN usage_seal s ON s.tenant_id = t.id"
        " WHERE t.created_at < %s AND coalesce(s.frozen_until < %s, true)",
        [until + settings.EVENT_MAX_AGE, until],
    )


def tenants_to_seal() -> list[int]:
    """Tenants with frozen events that are not sealed. Needs a platform scope."""
    return _tenants("SELECT tenant_id FROM usage_seal WHERE sealed_until < frozen_until", [])


def tenants_with_seals() -> list[int]:
    """Tenants whose frozen events are all sealed. Needs a platform scope."""
    return _tenants("SELECT tenant_id FROM usage_seal WHERE sealed_until = frozen_until", [])


def _tenants(statement: str, parameters: Sequence[Parameter]) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return [row[0] for row in cursor.fetchall()]


# What must be done before a tenant's older events are frozen: their keys are dropped, so that no
# report changes them; they are rolled up; and rolling windows have let them go.
_UNFINISHED: Final = """
    SELECT EXISTS (SELECT FROM event_key WHERE tenant_id = %(tenant)s AND event_at < %(until)s)
        OR EXISTS (SELECT FROM ingest_batch WHERE tenant_id = %(tenant)s AND rolled_up_at IS NULL
            AND first_at < %(until)s)
        OR EXISTS (SELECT FROM budget_window w JOIN budget b ON b.tenant_id = w.tenant_id
            AND b.id = w.budget_id AND b.revision = w.revision AND b.archived_at IS NULL
            WHERE w.tenant_id = %(tenant)s AND w.counted_from < %(until)s
            AND (w.spent_nanos, w.spent_tokens, w.spent_requests, w.spent_tool_calls)
                <> (0, 0, 0, 0))
"""


def freeze(*, tenant_id: int, until: datetime) -> int:
    """Let nothing change the tenant's events before `until` any more; return 0 where something has
    to be finished first. Call it in the tenant's scope.

    A transaction that changes events holds the configuration lock shared and reads `frozen_until`
    under it, so no change is under way once this has the lock alone.
    """
    with connection.cursor() as cursor:
        cursor.execute(_UNFINISHED, {"tenant": tenant_id, "until": until})
        if cursor.fetchone()[0]:
            return 0
        hold_configuration(tenant_id)
        # A budget that is counting reads the past, and begins to under the same lock.
        cursor.execute(
            "SELECT FROM budget WHERE tenant_id = %s AND is_counting AND archived_at IS NULL",
            [tenant_id],
        )
        if cursor.fetchone() is not None:
            return 0
        cursor.execute(
            "INSERT INTO usage_seal (tenant_id, frozen_until, sealed_until) VALUES (%s, %s, %s)"
            " ON CONFLICT (tenant_id) DO UPDATE SET frozen_until ="
            " greatest(usage_seal.frozen_until, excluded.frozen_until)",
            [tenant_id, until, EPOCH],
        )
    return 1


def seal_events(*, tenant_id: int) -> int:
    """Add the next frozen events to the seals of the windows in which they count; return 1 while
    there may be more. Call it in the tenant's scope.

    They stay where they are until their partition is dropped, but from now on the seal counts for
    them.
    """
    lock_configuration_shared(tenant_id)
    with connection.cursor() as cursor:
        # Two simultaneous runs take turns.
        cursor.execute(
            "SELECT frozen_until, sealed_until FROM usage_seal WHERE tenant_id = %s FOR UPDATE",
            [tenant_id],
        )
        frozen_until, sealed_until = cursor.fetchone()
        if sealed_until >= frozen_until:
            return 0
        book = _sealable(read_budget_index(tenant_id))
        limit = max(1, min(EVENTS_A_CHUNK, POSTINGS_A_CHUNK // max(1, len(book.rules))))
        events, until = _next_events(cursor, tenant_id, sealed_until, frozen_until, limit)
        _add_events(cursor, book, events)
        cursor.execute(
            "UPDATE usage_seal SET sealed_until = %s WHERE tenant_id = %s", [until, tenant_id]
        )
    return 1 if until < frozen_until else 0


def _sealable(book: BudgetIndex) -> BudgetIndex:
    """Return the budgets whose windows hold usage for longer than events are kept."""
    rules = [rule for rule in book.rules.values() if not (rule.is_rolling or rule.is_per_request)]
    return BudgetIndex(tenant_id=book.tenant_id, version=book.version, rules=rules)


def _next_events(
    cursor: CursorWrapper, tenant_id: int, since: datetime, frozen_until: datetime, limit: int
) -> tuple[list[StoredEvent], datetime]:
    """Return the oldest events from `since` on, about `limit` of them, and the time before which
    they are all.
    """
    cursor.execute(
        "SELECT time FROM usage_event WHERE tenant_id = %s AND time >= %s AND time < %s"
        " ORDER BY time, id OFFSET %s LIMIT 1",
        [tenant_id, since, frozen_until, limit],
    )
    row = cursor.fetchone()
    until: datetime = frozen_until if row is None else row[0]
    # All of them may be of one moment.
    until = max(until, since + _MOMENT)
    events = read_events(
        tenant_id=tenant_id,
        condition="e.time >= %s AND e.time < %s AND NOT e.is_void",
        parameters=[since, until],
        limit=None,
    )
    return events, until


def _add_events(cursor: CursorWrapper, book: BudgetIndex, events: Sequence[StoredEvent]) -> None:
    sums: dict[int, Amounts] = defaultdict(lambda: NOTHING)
    moves = movements(book, [Change(None, event) for event in events])
    for posting, amounts in added_up(moves).items():
        sums[posting.window_id] = add_amounts(sums[posting.window_id], amounts)
    if not sums:
        return
    cursor.execute(
        """
        INSERT INTO window_seal AS s (tenant_id, window_id, event_nanos, event_tokens,
            event_requests, event_tool_calls)
        SELECT %s, n.* FROM unnest(%s::bigint[], %s::numeric[], %s::numeric[], %s::bigint[],
            %s::bigint[]) AS n
        ON CONFLICT (tenant_id, window_id) DO UPDATE SET
            event_nanos = s.event_nanos + excluded.event_nanos,
            event_tokens = s.event_tokens + excluded.event_tokens,
            event_requests = s.event_requests + excluded.event_requests,
            event_tool_calls = s.event_tool_calls + excluded.event_tool_calls
        """,
        [book.tenant_id, list(sums), *map(list, zip(*sums.values(), strict=True))],
    )


# A rolling window in force takes out grains by their entries: those that it has yet to let go stay.
_SEAL_ENTRIES: Final = """
    WITH looked AS MATERIALIZED (
        SELECT id, window_id, created_at, grain_at FROM ledger_entry
        WHERE tenant_id = %(tenant)s AND id > %(after)s ORDER BY id LIMIT %(limit)s
    ), removed AS (
        DELETE FROM ledger_entry e USING looked l
        JOIN budget_window w ON w.tenant_id = %(tenant)s AND w.id = l.window_id
        LEFT JOIN budget b ON b.tenant_id = w.tenant_id AND b.id = w.budget_id
            AND b.revision = w.revision AND b.archived_at IS NULL
        WHERE e.tenant_id = %(tenant)s AND e.id = l.id AND l.created_at < %(before)s
            AND (l.grain_at IS NULL OR b.id IS NULL OR l.grain_at < w.counted_from)
        RETURNING e.window_id, e.cost_nanos, e.tokens, e.requests, e.tool_calls
    ), sealed AS (
        INSERT INTO window_seal AS s (tenant_id, window_id, entry_count, entry_nanos, entry_tokens,
            entry_requests, entry_tool_calls)
        SELECT %(tenant)s, window_id, count(*), sum(cost_nanos), sum(tokens), sum(requests),
            sum(tool_calls)
        FROM removed GROUP BY window_id ORDER BY window_id
        ON CONFLICT (tenant_id, window_id) DO UPDATE SET
            entry_count = s.entry_count + excluded.entry_count,
            entry_nanos = s.entry_nanos + excluded.entry_nanos,
            entry_tokens = s.entry_tokens + excluded.entry_tokens,
            entry_requests = s.entry_requests + excluded.entry_requests,
            entry_tool_calls = s.entry_tool_calls + excluded.entry_tool_calls
        RETURNING window_id
    )
    SELECT max(id), count(*) FILTER (WHERE created_at < %(before)s),
        (SELECT coalesce(array_agg(window_id), '{}') FROM sealed)
    FROM looked
"""


def seal_entries(*, tenant_id: int, positions: dict[int, int]) -> int:
    """Replace the oldest ledger entries by their sums in the seals of their windows, and remove
    those windows that are over by now; return the number of old entries. Call it in the
    tenant's scope.

    `positions` has the entry that each tenant's last chunk ended with: ids rise with time, but for
    portions that a connection has taken.
    """
    before = read_sealed(tenant_id).changes_until
    with connection.cursor() as cursor:
        permit_removal(cursor)
        cursor.execute(
            _SEAL_ENTRIES,
            {
                "tenant": tenant_id,
                "after": positions.get(tenant_id, 0),
                "limit": ENTRIES_A_CHUNK,
                "before": before,
            },
        )
        last_id, count, window_ids = cursor.fetchone()
        if window_ids:
            _remove_windows(cursor, tenant_id, window_ids, before)
    positions[tenant_id] = last_id or 0
    return int(count)


def remove_ended_windows(*, tenant_id: int) -> int:
    """Remove windows that ended long ago and have no entries left; return their number. Call
    it in the tenant's scope.
    """
    before = read_sealed(tenant_id).changes_until
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM budget_window w WHERE tenant_id = %s AND ends_at <= %s"
            " AND NOT EXISTS (SELECT FROM ledger_entry e"
            " WHERE e.tenant_id = w.tenant_id AND e.window_id = w.id)"
            " ORDER BY ends_at LIMIT %s",
            [tenant_id, before, WINDOWS_A_CHUNK],
        )
        ids = [row[0] for row in cursor.fetchall()]
        return _remove_windows(cursor, tenant_id, ids, before)


# A window goes with its seal once it is over and none of its entries remains, and only if its proof
# closes a last time: what drifts stays for the audit to tell. A lifetime window is over once its
# session, task, trace or call has not been heard of for as long as events are kept.
_REMOVE_WINDOWS: Final = """
    WITH removed AS (
        DELETE FROM budget_window w USING (
            SELECT w.id, b.id IS NOT NULL AND w.ends_at IS NULL AS is_known FROM budget_window w
            LEFT JOIN window_seal s ON s.tenant_id = w.tenant_id AND s.window_id = w.id
            LEFT JOIN budget b ON b.tenant_id = w.tenant_id AND b.id = w.budget_id
                AND b.revision = w.revision AND b.archived_at IS NULL
            WHERE w.tenant_id = %(tenant)s AND w.id = ANY(%(ids)s)
                AND (w.ends_at <= %(before)s OR b.id IS NULL
                    OR b.per && %(passing)s::varchar[] AND NOT b.is_rolling)
                AND (w.reserved_nanos, w.reserved_tokens, w.reserved_requests,
                    w.reserved_tool_calls) = (0, 0, 0, 0)
                AND (w.spent_nanos, w.spent_tokens, w.spent_requests, w.spent_tool_calls)
                    = (coalesce(s.entry_nanos, 0), coalesce(s.entry_tokens, 0),
                        coalesce(s.entry_requests, 0), coalesce(s.entry_tool_calls, 0))
                AND (b.id IS NULL OR %(request)s = ANY(b.per)
                    OR (w.spent_nanos, w.spent_tokens, w.spent_requests, w.spent_tool_calls)
                    = (coalesce(s.event_nanos, 0), coalesce(s.event_tokens, 0),
                        coalesce(s.event_requests, 0), coalesce(s.event_tool_calls, 0)))
                AND NOT EXISTS (SELECT FROM ledger_entry e WHERE e.tenant_id = w.tenant_id
                    AND e.window_id = w.id)
            ORDER BY w.id FOR UPDATE OF w
        ) over WHERE w.tenant_id = %(tenant)s AND w.id = over.id
        RETURNING w.id, over.is_known
    ), unsealed AS (
        DELETE FROM window_seal s USING removed
        WHERE s.tenant_id = %(tenant)s AND s.window_id = removed.id
    )
    SELECT count(*), coalesce(bool_or(is_known), false) FROM removed
"""


def _remove_windows(
    cursor: CursorWrapper, tenant_id: int, window_ids: Sequence[int], before: datetime
) -> int:
    cursor.execute(
        _REMOVE_WINDOWS,
        {
            "tenant": tenant_id,
            "ids": list(window_ids),
            "before": before,
            "request": REQUEST,
            "passing": list(PASSING),
        },
    )
    count, is_known = cursor.fetchone()
    if is_known:
        # Processes may know such a window by its key, should its session go on after all.
        change_configuration(tenant_id)
    return int(count)


class EventSeal(NamedTuple):
    """What sealed events add to a window of a budget, and when its first event was."""

    group_key: str
    starts_at: datetime
    first_used_at: datetime | None
    amounts: Amounts


def sealed_events(*, tenant_id: int, budget_id: int, revision: int) -> Iterator[EventSeal]:
    """Yield what sealed events add to the windows of a budget's revision."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT w.group_key, w.starts_at, w.first_used_at, s.event_nanos, s.event_tokens,"
            " s.event_requests, s.event_tool_calls FROM window_seal s JOIN budget_window w"
            " ON w.tenant_id = s.tenant_id AND w.id = s.window_id"
            " WHERE s.tenant_id = %s AND w.budget_id = %s AND w.revision = %s",
            [tenant_id, budget_id, revision],
        )
        for group_key, starts_at, first_used_at, *amounts in cursor.fetchall():
            yield EventSeal(group_key, starts_at, first_used_at, Amounts(*amounts))
