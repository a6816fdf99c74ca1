"""What breakers know of their groups, as rows of `breaker_state` that a transaction locks."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from common.queries import TakesStatements
from metering.core.match import Grouping
from metering.limits.breakers.rules import MEASURES, BreakerRule, GroupState, is_probe_due
from metering.limits.halts import match_of_group
from metering.limits.rate_counters import FORGET_IDLE, SLOTS, SlidingMinute, array_text
from metering.models import Breaker


class StateKey(NamedTuple):
    """A breaker and a group of it."""

    breaker_id: int
    group_key: str


class LockedState:
    """A row of `breaker_state`, locked by this transaction."""

    __slots__ = ("group", "halt_id", "id")

    def __init__(self, id_: int, group: GroupState, halt_id: int | None) -> None:
        self.id = id_
        self.group = group
        # The halt by which the group is stopped, while the breaker is open.
        self.halt_id = halt_id


# As in `rate_counter`: one statement locks what is there and opens what is not, in the order of
# the keys.
_LOCK: Final = """
    INSERT INTO breaker_state (tenant_id, id, breaker_id, group_key, nanos, calls, errors)
    SELECT %(tenant_id)s, nextval('breaker_state_id'), n.breaker_id, n.group_key, z.zeros, z.zeros,
        z.zeros
    FROM (SELECT array_fill(0, ARRAY[%(slots)s]) AS zeros) z, (
        SELECT * FROM unnest(%(breaker_ids)s::bigint[], %(group_keys)s::text[])
            WITH ORDINALITY AS n (breaker_id, group_key, place) ORDER BY place
    ) n
    ON CONFLICT (tenant_id, breaker_id, group_key)
        DO UPDATE SET last_second = breaker_state.last_second WHERE false;
    SELECT s.breaker_id, s.group_key, s.id, s.last_second, s.nanos, s.calls, s.errors,
        s.usual_calls, s.usual_tokens, s.opened_at, s.why, s.halt_id, s.probe_id, s.probe_at,
        h.lifted_at IS NOT NULL
    FROM unnest(%(breaker_ids)s::bigint[], %(group_keys)s::text[]) AS n (breaker_id, group_key)
    JOIN breaker_state s ON s.tenant_id = %(tenant_id)s AND s.breaker_id = n.breaker_id
        AND s.group_key = n.group_key
    LEFT JOIN halt h ON h.tenant_id = s.tenant_id AND h.id = s.halt_id
"""


def read_breaker_rules(tenant_id: int) -> tuple[BreakerRule, ...]:
    """Return the tenant's breakers as they are stored."""
    breakers = Breaker.objects.filter(tenant_id=tenant_id).order_by("id")
    return tuple(BreakerRule.of(breaker) for breaker in breakers)


def lock_states(
    cursor: CursorWrapper, tenant_id: int, keys: Iterable[tuple[int, str]]
) -> dict[StateKey, LockedState]:
    """Lock what is known of these groups until the transaction ends, opening rows that are
    missing. A group whose halt was lifted counts as closed.
    """
    wanted = sorted(set(keys))
    parameters: dict[str, int | list[int] | list[str]] = {
        "tenant_id": tenant_id,
        "slots": SLOTS,
        "breaker_ids": [breaker_id for breaker_id, _ in wanted],
        "group_keys": [group_key for _, group_key in wanted],
    }
    cursor.execute(_LOCK, parameters)
    # The answer of the second statement, whose snapshot is younger than the locks.
    cursor.nextset()
    return {
        StateKey(breaker_id, group_key): _stored(*columns)
        for breaker_id, group_key, *columns in cursor.fetchall()
    }


def _stored(  # noqa: PLR0913, PLR0917 - the columns of one row
    id_: int,
    last_second: int,
    nanos: list[int],
    calls: list[int],
    errors: list[int],
    usual_calls: int,
    usual_tokens: int,
    opened_at: datetime | None,
    why: str,
    halt_id: int | None,
    probe_id: UUID | None,
    probe_at: datetime | None,
    is_lifted: bool,
) -> LockedState:
    minute = SlidingMinute(last_second, dict(zip(MEASURES, (nanos, calls, errors), strict=True)))
    group = GroupState(minute, usual_calls=usual_calls, usual_tokens=usual_tokens)
    if is_lifted:
        group.close()
        return LockedState(id_, group, None)
    group.opened_at, group.why = opened_at, why
    group.probe_id, group.probe_at = probe_id, probe_at
    return LockedState(id_, group, halt_id)


def write_states(cursor: CursorWrapper, tenant_id: int, states: Iterable[LockedState]) -> None:
    """Store locked states, in one statement."""
    rows = list(states)
    cursor.execute(
        """
        UPDATE breaker_state s SET last_second = n.last_second, nanos = n.nanos::numeric[],
            calls = n.calls::bigint[], errors = n.errors::bigint[], usual_calls = n.usual_calls,
            usual_tokens = n.usual_tokens, opened_at = n.opened_at, why = n.why,
            halt_id = n.halt_id, probe_id = n.probe_id, probe_at = n.probe_at
        FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[],
            %s::bigint[], %s::timestamptz[], %s::text[], %s::bigint[], %s::uuid[],
            %s::timestamptz[])
            AS n (id, last_second, nanos, calls, errors, usual_calls, usual_tokens, opened_at, why,
                halt_id, probe_id, probe_at)
        WHERE s.tenant_id = %s AND s.id = n.id
        """,
        [
            [row.id for row in rows],
            [row.group.minute.last_second for row in rows],
            *([array_text(row.group.minute.amounts[name]) for row in rows] for name in MEASURES),
            [row.group.usual_calls for row in rows],
            [row.group.usual_tokens for row in rows],
            [row.group.opened_at for row in rows],
            [row.group.why for row in rows],
            [row.halt_id for row in rows],
            [row.group.probe_id for row in rows],
            [row.group.probe_at for row in rows],
            tenant_id,
        ],
    )


def try_probe(
    cursor: CursorWrapper, tenant_id: int, halt_id: int, reservation_id: UUID, now: datetime
) -> bool:
    """Make this reservation the probe of the breaker that halted; False where none is due.

    Never waits: if another transaction holds this group's state, this is no time for a
    probe. So it may come after `feed_breakers` in a transaction, whatever that has locked.
    """
    cursor.execute(
        "SELECT s.id, b.close, b.cool_down_seconds, s.opened_at, s.probe_at FROM breaker_state s"
        " JOIN breaker b ON b.tenant_id = s.tenant_id AND b.id = s.breaker_id"
        " JOIN halt h ON h.tenant_id = s.tenant_id AND h.id = s.halt_id AND h.lifted_at IS NULL"
        " WHERE s.tenant_id = %s AND s.halt_id = %s AND s.opened_at IS NOT NULL"
        " FOR UPDATE OF s SKIP LOCKED",
        [tenant_id, halt_id],
    )
    row = cursor.fetchone()
    if row is None:
        return False
    state_id, close, cool_down_seconds, opened_at, probe_at = row
    if not is_probe_due(
        close=close,
        cool_down_seconds=cool_down_seconds,
        opened_at=opened_at,
        probe_at=probe_at,
        now=now,
    ):
        return False
    cursor.execute(
        "UPDATE breaker_state SET probe_id = %s, probe_at = %s WHERE tenant_id = %s AND id = %s",
        [reservation_id, now, tenant_id, state_id],
    )
    return True


def forget_probes(cursor: TakesStatements, tenant_id: int, reservation_ids: Iterable[UUID]) -> None:
    """Let another call be the probe: these were refused for another reason, or never made."""
    cursor.execute(
        "UPDATE breaker_state s SET probe_id = NULL, probe_at = NULL FROM ("
        " SELECT id FROM breaker_state WHERE tenant_id = %s AND probe_id = ANY(%s)"
        " FOR UPDATE SKIP LOCKED) ended WHERE s.tenant_id = %s AND s.id = ended.id",
        [tenant_id, list(reservation_ids), tenant_id],
    )


class OpenGroup(NamedTuple):
    """A group for which a breaker is open."""

    breaker_id: int
    group_key: str
    opened_at: datetime
    why: str
    halt_id: int | None
    probe_at: datetime | None


def open_groups(
    cursor: CursorWrapper, tenant_id: int, breaker_ids: Iterable[int], *, now: datetime
) -> dict[int, list[OpenGroup]]:
    """The groups for which these breakers are open, by breaker, the latest first.

    Not those whose halt was lifted, nor those of a breaker that does not act and has cooled down:
    they are closed with the next call.
    """
    cursor.execute(
        "SELECT s.breaker_id, s.group_key, s.opened_at, s.why, s.halt_id, s.probe_at"
        " FROM breaker_state s JOIN breaker b ON b.tenant_id = s.tenant_id AND b.id = s.breaker_id"
        " LEFT JOIN halt h ON h.tenant_id = s.tenant_id AND h.id = s.halt_id"
        " WHERE s.tenant_id = %s AND s.breaker_id = ANY(%s) AND s.opened_at IS NOT NULL"
        " AND h.lifted_at IS NULL AND (b.mode = 'enforce'"
        " OR s.opened_at + make_interval(secs => b.cool_down_seconds) > %s)"
        " ORDER BY s.opened_at DESC, s.id",
        [tenant_id, list(breaker_ids), now],
    )
    groups: dict[int, list[OpenGroup]] = {}
    for row in cursor.fetchall():
        group = OpenGroup(*row)
        groups.setdefault(group.breaker_id, []).append(group)
    return groups


def lock_open_groups(
    cursor: CursorWrapper, tenant_id: int, breaker_id: int, *, group_key: str | None
) -> list[OpenGroup]:
    """Lock the states of a breaker that is open, for one group or (None) for all, in the order in
    which `lock_states` does.
    """
    cursor.execute(
        "SELECT s.breaker_id, s.group_key, s.opened_at, s.why, s.halt_id, s.probe_at"
        " FROM breaker_state s WHERE s.tenant_id = %s AND s.breaker_id = %s"
        " AND s.opened_at IS NOT NULL AND (%s::text IS NULL OR s.group_key = %s)"
        ' ORDER BY s.group_key COLLATE "C" FOR UPDATE',
        [tenant_id, breaker_id, group_key, group_key],
    )
    return [OpenGroup(*row) for row in cursor.fetchall()]


def reset_states(
    cursor: CursorWrapper, tenant_id: int, breaker_id: int, group_keys: list[str]
) -> None:
    """Close these groups: they count from an empty minute, and what is usual stays known."""
    cursor.execute(
        "UPDATE breaker_state SET opened_at = NULL, why = '', halt_id = NULL, probe_id = NULL,"
        " probe_at = NULL, nanos = z.zeros, calls = z.zeros, errors = z.zeros"
        " FROM (SELECT array_fill(0, ARRAY[%s]) AS zeros) z"
        " WHERE tenant_id = %s AND breaker_id = %s AND group_key = ANY(%s)",
        [SLOTS, tenant_id, breaker_id, group_keys],
    )


def remove_states(cursor: CursorWrapper, tenant_id: int, breaker_id: int) -> None:
    """Forget everything that a breaker knows. No one feeds it: the caller holds the configuration
    lock alone.
    """
    cursor.execute(
        "DELETE FROM breaker_state WHERE tenant_id = %s AND breaker_id = %s",
        [tenant_id, breaker_id],
    )


def forget_idle_states(cursor: CursorWrapper, *, before_second: int, limit: int) -> int:
    """Remove what is known of groups that have not been seen since, and are not open, `limit` at
    most; return the number.
    """
    cursor.execute(
        FORGET_IDLE.format(table="breaker_state", condition="opened_at IS NULL"),
        {"before": before_second, "limit": limit},
    )
    return int(cursor.rowcount)


def group_values(grouping: Grouping, group_key: str) -> dict[str, str]:
    """A group as dimension to value, "" for none."""
    return dict(zip(grouping.per, json.loads(group_key), strict=True))


def match_of(grouping: Grouping, group_key: str) -> Mapping[str, object]:
    """What picks the calls of one group: the breaker's own match, and the group's values."""
    return match_of_group(grouping.match, grouping.per, json.loads(group_key))
