"""Halts: everything that matches stops, manually, by a breaker, or by a level that locks out.

A halt never waits for those who write usage: it takes no configuration lock. Every transaction that
gives or extends a reservation reads the halts in force; `halt_watch` keeps them in each process's
memory besides.
"""

import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from itertools import product
from math import prod
from typing import Final, NamedTuple, Self

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from common.queries import Row
from metering.core.dimensions import REQUEST
from metering.core.match import Values, Wanted, wanted_of, wanted_values
from metering.core.validation import require_known_before_call
from metering.models import Halt, HaltKind
from tenants.audit import audited_change, record_change
from tenants.limits import require_room
from tenants.models import Tenant

CODE_BY_KIND: Final[Mapping[str, str]] = {
    HaltKind.MANUAL: "halted",
    HaltKind.BREAKER: "breaker_open",
    HaltKind.LOCKOUT: "locked_out",
}
# A halt whose lists of values combine to more than this is looked at by itself.
COMBINATIONS_MAX: Final = 1_000


class ActiveHalt(NamedTuple):
    """A halt in force, ready to judge calls."""

    id: int
    match: Mapping[str, object]
    reason: str
    kind: str
    since: datetime
    # What `match` asks for, in one order, so that halts on the same dimensions are looked up
    # together.
    wanted: Wanted
    breaker_id: int | None = None
    group_key: str = ""
    # From when its breaker lets a probe through; None: a person has to lift it.
    probe_from: datetime | None = None
    # Of a lockout: from when on it stops nothing.
    ends_at: datetime | None = None

    @property
    def code(self) -> str:
        """The code of a refusal for it."""
        return CODE_BY_KIND[self.kind]

    def matches(self, values: Values) -> bool:
        """Whether a call with these values is stopped."""
        return all(values[index] in wanted for index, wanted in self.wanted)

    def is_certain(self, now: datetime) -> bool:
        """Whether it refuses without a look at the database: no probe can be due."""
        return self.probe_from is None or now < self.probe_from


class HaltMark(NamedTuple):
    """What differs whenever a tenant's halts in force differ, in whatever order they commit."""

    version: int
    halts: int
    version_sum: int


class ActiveHalts(tuple[ActiveHalt, ...]):
    """A tenant's halts in force, oldest first."""

    mark: HaltMark
    # When reading them began, on the monotonic clock.
    read_at: float

    @classmethod
    def of(cls, halts: Iterable[ActiveHalt], *, mark: HaltMark, read_at: float) -> Self:
        """The halts that a mark stands for."""
        active = cls(halts)
        active.mark = mark
        active.read_at = read_at
        return active

    def matching(self, values: Values) -> list[ActiveHalt]:
        """The halts that stop a call with these values: manual ones first, then the oldest.

        A look-up for each set of dimensions that halts name, however many halts there are.
        """
        halts = [
            halt
            for places, by_values in self._by_places.items()
            for halt in by_values.get(tuple([values[index] for index in places]), ())
        ]
        halts += [halt for halt in self._manifold if halt.matches(values)]
        if any(halt.ends_at is not None for halt in halts):
            # What is remembered may have ended since it was read, above all without a database.
            now = timezone.now()
            halts = [halt for halt in halts if halt.ends_at is None or halt.ends_at > now]
        return sorted(halts, key=lambda halt: (halt.kind != HaltKind.MANUAL, halt.id))

    @cached_property
    def _by_places(self) -> dict[tuple[int, ...], dict[Values, list[ActiveHalt]]]:
        halts: dict[tuple[int, ...], dict[Values, list[ActiveHalt]]] = {}
        for halt in self:
            if _combinations(halt) <= COMBINATIONS_MAX:
                by_values = halts.setdefault(tuple(index for index, _ in halt.wanted), {})
                for values in product(*(wanted for _, wanted in halt.wanted)):
                    by_values.setdefault(values, []).append(halt)
        return halts

    @cached_property
    def _manifold(self) -> list[ActiveHalt]:
        return [halt for halt in self if _combinations(halt) > COMBINATIONS_MAX]


def _combinations(halt: ActiveHalt) -> int:
    return prod(len(wanted) for _, wanted in halt.wanted)


NO_HALTS: Final = ActiveHalts.of((), mark=HaltMark(0, 0, 0), read_at=0.0)

# A halt of these is in force: not lifted, and not ended.
IN_FORCE: Final = "lifted_at IS NULL AND (ends_at IS NULL OR ends_at > now())"
# What every transaction that enforces asks first: a third of the time that HALTS_SQL takes.
MARK_SQL: Final = f"""
    SELECT coalesce((SELECT max(version) FROM halt WHERE tenant_id = %s), 0),
        count(*), coalesce(sum(version), 0)::bigint
    FROM halt WHERE tenant_id = %s AND {IN_FORCE}
"""
# For each tenant whose mark is not the one that is known its mark, and its halts.
HALTS_SQL: Final = f"""
    SELECT k.tenant_id, m.version, m.halts, m.version_sum,
        h.id, h.match::text, h.reason, h.kind, h.since, h.breaker_id, h.group_key,
        CASE WHEN b.close = 'trial'
            THEN s.opened_at + make_interval(secs => b.cool_down_seconds) END, h.ends_at
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS k (tenant_id, version, halts, version_sum)
    CROSS JOIN LATERAL (
        SELECT coalesce((SELECT max(version) FROM halt WHERE tenant_id = k.tenant_id), 0)
            AS version, count(*) AS halts, coalesce(sum(version), 0)::bigint AS version_sum
        FROM halt WHERE tenant_id = k.tenant_id AND {IN_FORCE}
    ) m
    LEFT JOIN LATERAL (
        SELECT * FROM halt WHERE tenant_id = k.tenant_id AND {IN_FORCE}
    ) h ON true
    LEFT JOIN breaker b ON b.tenant_id = h.tenant_id AND b.id = h.breaker_id
    LEFT JOIN breaker_state s ON s.tenant_id = h.tenant_id AND s.breaker_id = h.breaker_id
        AND s.group_key = h.group_key
    WHERE (m.version, m.halts, m.version_sum) <> (k.version, k.halts, k.version_sum)
    ORDER BY k.tenant_id, h.id
"""
NOT_KNOWN: Final = HaltMark(-1, -1, -1)


class HaltsQuestion:
    """One reading of HALTS_SQL for some tenants: what is sent, and how the rows are taken.

    To be asked before its transaction writes halts: what is read is remembered for the process.
    """

    def __init__(self, tenant_ids: Iterable[int]) -> None:
        self.read_at = time.monotonic()
        self.known = {tenant_id: remembered_halts(tenant_id) for tenant_id in tenant_ids}

    @property
    def parameters(self) -> list[list[int]]:
        """The parameters of HALTS_SQL."""
        marks = [NOT_KNOWN if known is None else known.mark for known in self.known.values()]
        columns = (list(column) for column in zip(*marks, strict=True))
        return [list(self.known), *columns] if marks else [[], [], [], []]

    def take(self, rows: Sequence[Row]) -> dict[int, ActiveHalts]:
        """The halts in force by tenant, out of the rows of HALTS_SQL; they are remembered."""
        by_tenant: dict[int, list[ActiveHalt]] = {}
        marks = {}
        for tenant_id, *row in rows:
            mark, columns = row[:3], row[3:]
            halts = by_tenant.setdefault(tenant_id, [])
            marks[tenant_id] = HaltMark(*mark)
            if columns[0] is not None:
                id_, text, reason, kind, since, *cause = columns
                match = json.loads(text)
                halts.append(ActiveHalt(id_, match, reason, kind, since, wanted_of(match), *cause))
        current = {}
        for tenant_id, known in self.known.items():
            if tenant_id in by_tenant:
                read = ActiveHalts.of(
                    by_tenant[tenant_id], mark=marks[tenant_id], read_at=self.read_at
                )
                current[tenant_id] = note_halts(tenant_id, read)
            elif known is not None:
                known.read_at = self.read_at
                current[tenant_id] = known
        return current


def read_halts(cursor: CursorWrapper, tenant_id: int) -> ActiveHalts:
    """The tenant's halts in force: by their mark those of this process's memory, and read only when
    they have changed.
    """
    cursor.execute(MARK_SQL, [tenant_id, tenant_id])
    return halts_of_mark(cursor, tenant_id, cursor.fetchone())


def halts_of_mark(cursor: CursorWrapper, tenant_id: int, mark: Sequence[int]) -> ActiveHalts:
    """The halts that the row of MARK_SQL stands for. For who sends that with other statements."""
    known = remembered_halts(tenant_id)
    if known is not None and known.mark == tuple(mark):
        return known
    question = HaltsQuestion([tenant_id])
    cursor.execute(HALTS_SQL, question.parameters)
    return question.take(cursor.fetchall())[tenant_id]


_memory: dict[int, ActiveHalts] = {}
_memory_lock = threading.Lock()
# Set when this process has committed a halt or lifted one: `halt_watch` then looks immediately.
halts_changed: Final = threading.Event()


def remembered_halts(tenant_id: int) -> ActiveHalts | None:
    """The tenant's halts as this process read them last."""
    return _memory.get(tenant_id)


def note_halts(tenant_id: int, halts: ActiveHalts) -> ActiveHalts:
    """Remember a tenant's halts, unless a reading that began later is remembered already."""
    with _memory_lock:
        known = _memory.get(tenant_id)
        if known is None or known.read_at <= halts.read_at:
            _memory[tenant_id] = halts
    return halts


def forget_halts_of(tenant_ids: Iterable[int] | None) -> None:
    """Drop what is remembered of tenants; of all of them where none are named."""
    with _memory_lock:
        for tenant_id in list(_memory) if tenant_ids is None else tenant_ids:
            _memory.pop(tenant_id, None)


_INSERT: Final = """
    INSERT INTO halt (tenant_id, match, reason, kind, actor, lifted_by, version, window_id,
        level_percent, episode, ends_at, breaker_id, group_key)
    VALUES (%s, %s::jsonb, %s, %s, %s, '', nextval('halt_version'), %s, %s, %s, %s, %s, %s)
    ON CONFLICT DO NOTHING RETURNING id
"""


def insert_halt(  # noqa: PLR0913 - all of it is what a halt is made of
    cursor: CursorWrapper,
    *,
    tenant_id: int,
    match: Mapping[str, object],
    reason: str,
    kind: str,
    actor: str,
    window_id: int | None = None,
    level_percent: int | None = None,
    episode: int | None = None,
    ends_at: datetime | None = None,
    breaker_id: int | None = None,
    group_key: str = "",
) -> int | None:
    """Halt within the caller's transaction; return the id, or None if the halt is there already.

    A lockout is made once for a window, level and episode, even after a person has lifted it; of a
    breaker and group there is one halt in force. The caller that commits it sets `halts_changed`.
    """
    cursor.execute(
        _INSERT,
        [
            *(tenant_id, json.dumps(match), reason[:1000], kind, actor[:300]),
            *(window_id, level_percent, episode, ends_at, breaker_id, group_key),
        ],
    )
    row = cursor.fetchone()
    if row is None:
        return None
    halt_id = int(row[0])
    record_change(
        tenant_id=tenant_id,
        actor=actor,
        action="create",
        subject=Halt(id=halt_id),
        after={"match": match, "reason": reason, "kind": kind},
    )
    return halt_id


@transaction.atomic
def halt(*, tenant: Tenant, match: Mapping[str, object], reason: str, actor: str) -> Halt:
    """Stop everything that matches, manually. In force with the commit, everywhere within a second.

    Reservations that were given before go on, and are settled at their true cost. Raises
    ValidationError for a match that no call has.
    """
    require_known_before_call(match)
    if match:
        # To stop everything is always possible.
        by_hand = Halt.objects.filter(tenant_id=tenant.id, lifted_at=None, kind=HaltKind.MANUAL)
        # Stopping something never waits for others.
        require_room(tenant.id, "halts", by_hand, is_exact=False)
    with connection.cursor() as cursor:
        halt_id = insert_halt(
            cursor,
            tenant_id=tenant.id,
            match=match,
            reason=reason,
            kind=HaltKind.MANUAL,
            actor=actor,
        )
    assert halt_id is not None, "nothing keeps people from halting twice"
    transaction.on_commit(halts_changed.set)
    return Halt.objects.get(tenant_id=tenant.id, id=halt_id)


@transaction.atomic
def lift_halt(*, halt: Halt, actor: str) -> Halt:
    """End a halt. Lifting twice changes nothing."""
    with audited_change(halt, actor=actor) as change:
        stored = change.row
        if stored.lifted_at is not None:
            return stored
        with connection.cursor() as cursor:
            cursor.execute("SELECT nextval('halt_version')")
            (stored.version,) = cursor.fetchone()
        stored.lifted_at = timezone.now()
        stored.lifted_by = actor[:300]
    forget_halts_on_commit(stored.tenant_id)
    return stored


def forget_halts_on_commit(tenant_id: int) -> None:
    """Where halts were lifted or changed: this process refuses nothing by what it remembers, and
    the watcher reads what is still in force.
    """
    transaction.on_commit(partial(forget_halts_of, [tenant_id]))
    transaction.on_commit(halts_changed.set)


def is_wide(match: Mapping[str, object]) -> bool:
    """Whether a match may be about every call: it asks for no value that calls have to name."""
    return all(name == "operation" or "" in wanted_values(value) for name, value in match.items())


def match_of_group(
    match: Mapping[str, object], per: Sequence[str], group: Sequence[str]
) -> dict[str, object]:
    """The match of one group of a budget or breaker: its own match, and the group's values.

    A single call's own mark, which comes last in a group, is left out: that call is over.
    """
    names = [name for name in per if name != REQUEST]
    return {**match, **{name: value or None for name, value in zip(names, group, strict=False)}}
