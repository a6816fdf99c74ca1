"""How much was asked for within the last minute, second by second: in the database, so that it
survives a restart and holds across processes.

Pure, but for the two statements at the end that lock and write rows of `rate_counter`.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from django.db.backends.utils import CursorWrapper

from common.queries import TakesStatements

# 60 whole seconds and the one under way: any 60 seconds on the clock touch no more than these.
SLOTS: Final = 61
MEASURES: Final = ("nanos", "tokens", "requests")


class SlidingMinute:
    """Sums over the last 60 whole seconds and the one under way, for some named measures.

    Invariant: who adds no more than `limit` less the sum never has more than `limit` within any
    60 seconds, wherever in a second they begin. Item `s % 61` of a measure counts second `s`.
    """

    __slots__ = ("amounts", "last_second", "sums")

    def __init__(self, last_second: int, amounts: Mapping[str, list[int]]) -> None:
        self.last_second = last_second
        self.amounts = dict(amounts)
        self.sums = {name: sum(slots) for name, slots in self.amounts.items()}

    @classmethod
    def empty(cls, names: Iterable[str]) -> "SlidingMinute":
        """A minute in which nothing happened."""
        return cls(0, {name: [0] * SLOTS for name in names})

    def advance(self, now_second: int) -> None:
        """Forget what has left the minute that ends now.

        A clock a little behind the one that wrote last counts by that one. More than a minute
        behind, the other clock was wrong: what it counted counts as of now.
        """
        seconds = now_second - self.last_second
        if seconds >= SLOTS:
            self._restart(now_second, dict.fromkeys(self.sums, 0))
        elif seconds > 0:
            self._forget_slots(range(self.last_second + 1, now_second + 1))
            self.last_second = now_second
        elif seconds < 1 - SLOTS:
            self._restart(now_second, self.sums)

    def _restart(self, now_second: int, sums: Mapping[str, int]) -> None:
        for name, sum_ in sums.items():
            self.amounts[name] = [0] * SLOTS
            self.amounts[name][now_second % SLOTS] = sum_
        self.sums = dict(sums)
        self.last_second = now_second

    def _forget_slots(self, seconds: range) -> None:
        for name, slots in self.amounts.items():
            if self.sums[name] == 0:
                continue
            for second in seconds:
                slot = second % SLOTS
                self.sums[name] -= slots[slot]
                slots[slot] = 0

    def add(self, **amounts: int) -> None:
        """Count amounts in the second under way."""
        slot = self.last_second % SLOTS
        for name, amount in amounts.items():
            self.amounts[name][slot] += amount
            self.sums[name] += amount

    def sum(self, name: str) -> int:
        """What the minute holds of a measure."""
        return self.sums[name]

    def seconds_until(self, name: str, amount: int, limit: int) -> int:
        """Return the number of whole seconds until `amount` more fits; 0 where it fits now.

        An amount above the limit itself would never fit, and so may have a minute to itself: it
        fits where the minute is empty, and what comes after it waits until it has left.
        """
        left = self.sums[name]
        slots = self.amounts[name]
        wait_seconds = 0
        while amount > 0 and left > 0 and left + amount > limit:
            # The oldest second of the minute is the one whose slot comes up next.
            wait_seconds += 1
            left -= slots[(self.last_second + wait_seconds) % SLOTS]
        return wait_seconds


class RateCounterKey(NamedTuple):
    """Whose pace it is: a rate limit (`limit:7`) or a level that throttles (`level:12:80`), and
    the group.
    """

    subject: str
    group_key: str


class RateCounterState:
    """A row of `rate_counter`, locked by this transaction."""

    __slots__ = ("id", "is_changed", "minute")

    def __init__(self, id_: int, minute: SlidingMinute) -> None:
        self.id = id_
        self.minute = minute
        self.is_changed = False

    def add(self, *, nanos: int, tokens: int, requests: int) -> None:
        """Count what was granted; `write_rate_counters` stores it."""
        self.minute.add(nanos=nanos, tokens=tokens, requests=requests)
        self.is_changed = True


# The insertion locks what is there and opens what is not, one row after the other: so transactions
# wait for each other in the one order of the keys, whichever rows were there before. (Rows that
# are there locked first, and missing ones opened then, would be two orders, and a deadlock.) The
# condition spares a new version of each row; it is locked all the same.
_LOCK: Final = """
    INSERT INTO rate_counter (tenant_id, id, subject, group_key, nanos, tokens, requests)
    SELECT %(tenant_id)s, nextval('rate_counter_id'), n.subject, n.group_key,
        z.zeros, z.zeros, z.zeros
    FROM (SELECT array_fill(0, ARRAY[%(slots)s]) AS zeros) z, (
        SELECT * FROM unnest(%(subjects)s::text[], %(group_keys)s::text[])
            WITH ORDINALITY AS n (subject, group_key, place) ORDER BY place
    ) n
    ON CONFLICT (tenant_id, subject, group_key)
        DO UPDATE SET last_second = rate_counter.last_second WHERE false;
    SELECT p.subject, p.group_key, p.id, p.last_second, p.nanos, p.tokens, p.requests
    FROM unnest(%(subjects)s::text[], %(group_keys)s::text[]) AS n (subject, group_key)
    JOIN rate_counter p ON p.tenant_id = %(tenant_id)s AND p.subject = n.subject
        AND p.group_key = n.group_key
"""


def lock_rate_counters(
    cursor: CursorWrapper, tenant_id: int, subjects: Iterable[tuple[str, str]]
) -> dict[RateCounterKey, RateCounterState]:
    """Lock the paces of these subjects and groups until the transaction ends, opening those that
    are missing. One round trip; none where there are no subjects.
    """
    keys = sorted(set(subjects))
    if not keys:
        return {}
    parameters: dict[str, int | list[str]] = {
        "tenant_id": tenant_id,
        "slots": SLOTS,
        "subjects": [subject for subject, _ in keys],
        "group_keys": [group_key for _, group_key in keys],
    }
    cursor.execute(_LOCK, parameters)
    # The answer of the second statement, whose snapshot is younger than the locks.
    cursor.nextset()
    return {
        RateCounterKey(subject, group_key): RateCounterState(
            id_, SlidingMinute(last_second, dict(zip(MEASURES, amounts, strict=True)))
        )
        for subject, group_key, id_, last_second, *amounts in cursor.fetchall()
    }


def write_rate_counters(
    cursor: TakesStatements, tenant_id: int, states: Iterable[RateCounterState]
) -> None:
    """Store the locked paces that changed, in one statement."""
    changed = [state for state in states if state.is_changed]
    if not changed:
        return
    cursor.execute(
        "UPDATE rate_counter p SET last_second = n.last_second, nanos = n.nanos::numeric[],"
        " tokens = n.tokens::numeric[], requests = n.requests::bigint[]"
        " FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[])"
        " AS n (id, last_second, nanos, tokens, requests)"
        # Looked up by the index, also by a plan from when the table was small.
        " WHERE p.tenant_id = %s AND p.id = n.id AND p.id = ANY(%s::bigint[])",
        [
            ids := [state.id for state in changed],
            [state.minute.last_second for state in changed],
            *([array_text(state.minute.amounts[name]) for state in changed] for name in MEASURES),
            tenant_id,
            ids,
        ],
    )
    for state in changed:
        state.is_changed = False


def array_text(numbers: Iterable[int]) -> str:
    """Whole numbers as PostgreSQL spells an array. An array of arrays cannot be unnested by row."""
    return "{" + ",".join(map(str, numbers)) + "}"


# A chunk of the rows whose last second is before then. Those in use are skipped.
FORGET_IDLE: Final = """
    DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table}
        WHERE last_hour <= %(before)s / 3600 AND last_second < %(before)s AND {condition}
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
"""


def forget_idle_rate_counters(cursor: CursorWrapper, *, before_second: int, limit: int) -> int:
    """Remove paces of which nothing counts any more, `limit` at most; return the number."""
    cursor.execute(
        FORGET_IDLE.format(table="rate_counter", condition="true"),
        {"before": before_second, "limit": limit},
    )
    return int(cursor.rowcount)
