"""Compares what the service stored, counted and answers with what was sent."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import psycopg

from bench.exactly_once.budgets import Budget, Place, Sums
from bench.exactly_once.calls import NANOS, Call
from bench.exactly_once.victim import Victim

ROLLED_UP_SECONDS: Final = 180.0
TOOL: Final = 3


class Check(NamedTuple):
    """One statement of the proof: it holds when what was found is what must be."""

    what: str
    expected: object
    found: object

    @property
    def holds(self) -> bool:
        """Whether nothing deviates."""
        return self.expected == self.found


class Stored(NamedTuple):
    """An event as the database has it."""

    source: str
    sent_id: str
    at: datetime
    nanos: int | None
    tokens: int
    operation: int
    team: str
    customer: str
    agent: str
    is_void: bool


def prove(
    victim: Victim, calls: Sequence[Call], budgets: Sequence[Budget], *, awaits_roll_ups: bool
) -> Iterator[Check]:
    """Every check, in the order of the contract: stored, in the balances, in the answers."""
    with victim.connect() as connection, connection.transaction():
        # Row security shows nothing to a transaction that does not say why it looks.
        connection.execute("SET LOCAL spendgate.platform = 'proof'")
        yield from _events(connection, calls)
        for budget in budgets:
            yield from _windows(connection, budget, budget.windows(calls))
    total = Sums()
    for call in calls:
        total = total.plus(call)
    yield from _usage(victim, calls, total, "at once")
    if awaits_roll_ups:
        yield Check("batches not rolled up after a while", 0, _wait_for_roll_ups(victim))
        yield from _usage(victim, calls, total, "rolled up")
    yield audit(victim)


def _events(connection: psycopg.Connection[Any], calls: Sequence[Call]) -> Iterator[Check]:
    call_of = {name: call for call in calls for name in call.names}
    times_stored: Counter[int] = Counter()
    strangers, changed, nanos, rows = 0, 0, 0, 0
    for stored in _stored(connection):
        call = call_of.get((stored.source, stored.sent_id))
        rows += 1
        nanos += stored.nanos or 0
        if call is None:
            strangers += 1
        else:
            times_stored[call.number] += 1
            changed += not _is_same(stored, call)
    yield Check("events stored", len(calls), rows)
    yield Check("events missing", 0, len(calls) - len(times_stored))
    repeated = sum(count > 1 for count in times_stored.values())
    yield Check("events stored more than once", 0, repeated)
    yield Check("events that nobody sent", 0, strangers)
    yield Check("events stored with another content or cost", 0, changed)
    yield Check("cost of what is stored", usd(sum(call.cost_nanos for call in calls)), usd(nanos))


def _stored(connection: psycopg.Connection[Any]) -> Iterator[Stored]:
    with connection.cursor(name="stored_events") as cursor:
        cursor.itersize = 10_000
        cursor.execute(
            "SELECT source, sent_id, time, cost_nanos, input_tokens + output_tokens, operation,"
            " team, customer, agent, is_void FROM usage_event"
        )
        for row in cursor:
            yield Stored(*row)


def _is_same(stored: Stored, call: Call) -> bool:
    return stored[2:] == (
        call.at,
        call.cost_nanos,
        call.tokens,
        TOOL if call.is_tool else 1,
        call.team,
        call.customer,
        call.agent,
        False,
    )


def _windows(
    connection: psycopg.Connection[Any], budget: Budget, expected: dict[Place, Sums]
) -> Iterator[Check]:
    rows = connection.execute(
        "SELECT group_key, starts_at, spent_nanos, spent_tokens, spent_requests, spent_tool_calls"
        " FROM budget_window WHERE budget_id = %s",
        [budget.id],
    )
    found = {Place(tuple(json.loads(row[0])), row[1]): Sums(*row[2:]) for row in rows}
    # A window may have been opened for events whose transaction a crash then ended.
    places = expected.keys() | {place for place, sums in found.items() if sums != Sums()}
    drifting = sum(expected.get(place, Sums()) != found.get(place, Sums()) for place in places)
    spent = [sum(sums.nanos for sums in windows.values()) for windows in (expected, found)]
    yield Check(f"{budget.name}: spent in {len(expected):,} windows", usd(spent[0]), usd(spent[1]))
    yield Check(f"{budget.name}: windows that drift", 0, drifting)


def _usage(victim: Victim, calls: Sequence[Call], total: Sums, when: str) -> Iterator[Check]:
    first, last = min(call.at for call in calls), max(call.at for call in calls)
    asked = (
        f"/v1/usage?interval=none&from={quote(first.isoformat())}"
        f"&to={quote((last + timedelta(seconds=1)).isoformat())}"
    )
    answer = victim.call("GET", asked)["total"]
    yield Check(f"GET /v1/usage, {when}: total", _shown(total), _answered(answer))
    by_agent: dict[str, Sums] = {}
    for call in calls:
        by_agent[call.agent] = by_agent.get(call.agent, Sums()).plus(call)
    rows = victim.call("GET", f"{asked}&group_by=agent&limit=500")["data"]
    found = {row["group"]["agent"]: _answered(row) for row in rows}
    drifting = sum(_shown(sums) != found.get(agent) for agent, sums in by_agent.items())
    yield Check(f"GET /v1/usage, {when}: agents that drift", 0, drifting)


def _shown(sums: Sums) -> str:
    return f"{usd(sums.nanos)}, {sums.requests:,} calls, {sums.tool_calls:,} of tools"


def _answered(row: dict[str, Any]) -> str:
    nanos = Decimal(row["cost_usd"]) * NANOS
    return _shown(Sums(int(nanos), 0, row["requests"], row["tool_calls"]))


def _wait_for_roll_ups(victim: Victim) -> int:
    def waiting(connection: psycopg.Connection[Any]) -> int:
        with connection.transaction():
            connection.execute("SET LOCAL spendgate.platform = 'proof'")
            found = connection.execute(
                "SELECT count(*) FROM ingest_batch WHERE rolled_up_at IS NULL"
            ).fetchone()
        return int(found[0]) if found else 0

    with victim.connect() as connection:
        return _until_zero(lambda: waiting(connection), seconds=ROLLED_UP_SECONDS)


def _until_zero(count: Callable[[], int], *, seconds: float) -> int:
    end = time.monotonic() + seconds
    while (left := count()) and time.monotonic() < end:
        time.sleep(0.25)
    return left


def audit(victim: Victim) -> Check:
    """What the service's own audit says."""
    try:
        said = victim.manage("audit_ledger").splitlines()[-1]
    except subprocess.CalledProcessError as error:
        words = [*error.stdout.splitlines()[:8], *error.stderr.splitlines()[-1:]]
        return Check(
            "manage.py audit_ledger", "exit 0", "\n".join([f"exit {error.returncode}", *words])
        )
    return Check("manage.py audit_ledger", "zero drift", said.partition(":")[0].lower())


def usd(nanos: int) -> str:
    """Nano-dollars as exact dollars."""
    whole, part = divmod(nanos, NANOS)
    return f"{whole:,}.{part:09d} USD"
