"""What asking before spending takes: reserve, then settle at a true cost; and how fast halts are.

One process drives all clients, because it shares the machine with the service and PostgreSQL.
"""

import itertools
import json
import random
import re
import statistics
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from typing import Any, Final, NamedTuple

from bench.attacks import report, watched
from bench.events import Load as Events
from bench.events import budget_bodies
from bench.kit.database import fetch_rows
from bench.kit.figures import Row as Note
from bench.kit.load import percentile
from bench.kit.money import nanos_of
from bench.kit.service import Service, headers_of
from bench.kit.wire import Answer, Connection, Conversation, JsonObject, Requests, converse
from bench.raw_limit import updates_per_second

WARM_UP_SECONDS: Final = 3.0
AGENTS: Final = 1_000
MATCHING: Final = 100
TENANTS: Final = 1_000
MEETING_SECONDS_MAX: Final = 120.0
BUSY_CLIENTS: Final = 8
BUSY_BODIES: Final = 400
RESERVATION_ID: Final = re.compile(rb'"id":\s?"([0-9a-f-]{36})"')
COST: Final = re.compile(rb'"cost_usd":\s?"([0-9.]+)"')
MODEL: Final = {"provider": "openai", "model": "gpt-4o-mini"}

HALTS: Final = 20
HALT_WITHIN_SECONDS: Final = 10.0
# Longer than anything a process may go on with without asking PostgreSQL.
STOPPED_SECONDS: Final = 4.0


class Row(NamedTuple):
    """One load: a number of connections on these budgets."""

    what: str
    wanted: str
    connections: int
    agents: int
    budgets: Sequence[JsonObject]
    # In how many budgets each call counts.
    matching: int = 1


def _budget(name: str, **fields: Any) -> JsonObject:
    return {
        "name": name,
        "match": {},
        "period": "month",
        "limit": {"cost_usd": "1000000", "tokens": 10**14},
        "mode": "enforce",
        "levels": [{"percent": 100, "notify": [], "action": "block"}],
        **fields,
    }


def rows() -> Iterator[Row]:
    """What is measured, each in a tenant of its own. The first is what others are compared with."""
    shared = [_budget("shared")]
    yield Row("One budget, 50 connections", "1,500 pairs/s, p99 60 ms", 50, 1, shared)
    yield Row("One budget, 200 connections", "no errors", 200, 1, shared)
    per_agent = [_budget("each agent", per=["agent"])]
    yield Row("1,000 windows, 50 connections", "80% of one budget", 50, AGENTS, per_agent)
    all_match = [_budget(f"match {number}") for number in range(MATCHING)]
    yield Row(
        "100 budgets that match, 50 connections", "40% of one budget", 50, 1, all_match, MATCHING
    )
    matched = [
        _budget(f"agent {index}", match={"agent": f"agent-{index}"}) for index in range(AGENTS)
    ]
    yield Row("1,000 budgets of one agent each", "80% of one budget", 50, AGENTS, matched)


@dataclass
class Tally:
    """What the clients saw. Times count only during the measurement, costs always."""

    reserves_ms: list[float] = field(default_factory=list)
    settles_ms: list[float] = field(default_factory=list)
    costs: list[bytes] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def pairs(self) -> int:
        """How many reservations were settled while the measuring went on."""
        return len(self.settles_ms)

    @property
    def booked_nanos(self) -> int:
        """What the service says it has booked."""
        return sum(nanos_of(cost.decode()) for cost in self.costs)


class Load:
    """Clients that reserve and settle for a while, and then finish what they hold."""

    def __init__(
        self, keys: Sequence[str], *, agents: int, seed: int, is_once: bool = False
    ) -> None:
        self.tally = Tally()
        # Tenants take turns: each has one where `is_once`.
        tenants = [Requests(headers_of(key)) for key in keys]
        self._tenants = iter(tenants) if is_once else itertools.cycle(tenants)
        self._agents = agents
        self._seed = seed
        self._pick = random.Random(seed)
        self._from = self._until = 0.0

    def run(self, port: int, *, clients: int, warm_up: float, measured: float) -> None:
        """Let the clients work."""
        self._from = time.perf_counter() + warm_up
        self._until = self._from + measured
        converse(port, [self._converse(f"{self._seed}-{number}") for number in range(clients)])

    def _converse(self, client: str) -> Conversation:
        count = 0
        while (begun := time.perf_counter()) < self._until:
            requests = next(self._tenants, None)
            if requests is None:
                return
            count += 1
            ask, true_use = self._call()
            answer = yield requests.make("POST", "/v1/reservations", ask)
            match = RESERVATION_ID.search(answer.body) if answer.status == 201 else None
            if match is None:
                self._note_error("reserve", answer)
                continue
            reserved = self._note_time(self.tally.reserves_ms, begun)
            body = b'{"id":"%b-%d",%b}' % (client.encode(), count, true_use)
            path = f"/v1/reservations/{match[1].decode()}/settle"
            answer = yield requests.make("POST", path, body)
            self._note_settle(answer, reserved)

    def _call(self) -> tuple[bytes, bytes]:
        """What is asked for, and what the call turns out to use: sometimes more."""
        pick = self._pick
        given, most = pick.randrange(200, 4_000), pick.randrange(64, 1_024)
        ask = {
            **MODEL,
            "agent": f"agent-{pick.randrange(self._agents)}",
            "input_tokens": given,
            "max_output_tokens": most,
        }
        written = pick.randrange(1, most * 11 // 10 + 1)
        true_use = b'"input_tokens":%d,"output_tokens":%d' % (given, written)
        return json.dumps(ask).encode(), true_use

    def _note_time(self, times_ms: list[float], begun: float) -> float:
        now = time.perf_counter()
        if begun >= self._from and now <= self._until:
            times_ms.append((now - begun) * 1000)
        return now

    def _note_settle(self, answer: Answer, begun: float) -> None:
        cost = COST.search(answer.body) if answer.status == 200 else None
        if cost is None:
            self._note_error("settle", answer)
            return
        self._note_time(self.tally.settles_ms, begun)
        self.tally.costs.append(cost[1])

    def _note_error(self, what: str, answer: Answer) -> None:
        words = answer.body[:200].decode(errors="replace")
        self.tally.errors[f"{what}: {answer.status} {words}"] += 1


def measure(service: Service, note: Note, *, seconds: float) -> None:
    """Every figure of enforcement."""
    first = raw = 0.0
    for index, row in enumerate(rows()):
        budget_ids = _prepare(service, f"row-{index}", row, note)
        tally = _run([service.api_key], service, row, seconds=seconds)
        if not first:
            first, raw = tally.pairs / seconds, updates_per_second(service, row.connections) / 2
        note(
            f"{row.what}: reserve and settle",
            _figure(tally, seconds, first),
            row.wanted,
            f"{raw:,.0f} pairs/s of updates of one row",
        )
        _require_exact(service, budget_ids, tally, matching=row.matching)
    _measure_alone(service, note, seconds=seconds / 3)
    _measure_tenants(service, note, seconds=seconds, first=first)
    _measure_quiet(service, note, seconds=seconds)
    _measure_halts(service, note)


def _prepare(service: Service, tenant: str, row: Row, note: Note) -> list[int]:
    service.create_tenant(tenant)
    begun = time.perf_counter()
    budget_ids = [service.call("POST", "/v1/budgets", body)["id"] for body in row.budgets]
    if len(budget_ids) == AGENTS:
        note("1,000 budgets made by API", f"{time.perf_counter() - begun:.1f} s", "15 s")
    return budget_ids


def _run(keys: Sequence[str], service: Service, row: Row, *, seconds: float) -> Tally:
    load = Load(keys, agents=row.agents, seed=row.connections)
    load.run(service.port, clients=row.connections, warm_up=WARM_UP_SECONDS, measured=seconds)
    return load.tally


def _figure(tally: Tally, seconds: float, first: float) -> str:
    if not tally.reserves_ms or not tally.settles_ms:
        return f"nothing measured; {_errors(tally)}"
    rate = tally.pairs / seconds
    share = "" if rate == first else f" ({rate / first:.0%} of one budget)"
    taken = sorted([*tally.reserves_ms, *tally.settles_ms])
    return (
        f"{rate:,.0f} pairs/s{share}, half within {percentile(taken, 50):.0f} ms,"
        f" p99 {percentile(taken, 99):.0f} ms, {_errors(tally)}"
    )


def _errors(tally: Tally) -> str:
    if not tally.errors:
        return "no errors"
    (words, _), *_ = tally.errors.most_common(1)
    return f"{tally.errors.total():,} ERRORS, most of them {words}"


def _require_exact(
    service: Service, budget_ids: Sequence[int], tally: Tally, *, matching: int = 1
) -> None:
    """What is spent is the sum of the answers, and nothing is held any more."""
    with service.connect() as connection:
        (row,) = fetch_rows(
            connection,
            "SELECT coalesce(sum(spent_nanos), 0)::bigint, coalesce(sum(spent_requests), 0)::bigint"
            ", coalesce(sum(reserved_nanos + reserved_requests), 0)::bigint"
            " FROM budget_window WHERE budget_id = ANY(%s)",
            [list(budget_ids)],
        )
    wanted = (tally.booked_nanos * matching, len(tally.costs) * matching, 0)
    if row != wanted:
        raise SystemExit(f"Spent, settled, held must be {wanted}, are {row}; {_errors(tally)}")


def _measure_alone(service: Service, note: Note, *, seconds: float) -> None:
    row = Row("One client alone", "2.5 ms", 1, 1, [_budget("shared")])
    budget_ids = _prepare(service, "alone", row, note)
    tally = _run([service.api_key], service, row, seconds=seconds)
    _require_exact(service, budget_ids, tally)
    figure = (
        f"{statistics.median(tally.reserves_ms):.1f} ms to reserve,"
        f" {statistics.median(tally.settles_ms):.1f} ms to settle, at the median"
    )
    note(row.what, figure, row.wanted, f"{1000 / updates_per_second(service, 1):.2f} ms to update")


def _measure_tenants(service: Service, note: Note, *, seconds: float, first: float) -> None:
    """Tenants that this process has never met, once each; then the same tenants again."""
    row = Row("1,000 tenants in turn, 50 connections", "half of one tenant", 50, 1, [])
    keys = service.make_tenants(TENANTS)
    meeting = Load(keys, agents=1, seed=0, is_once=True)
    begun = time.perf_counter()
    meeting.run(service.port, clients=row.connections, warm_up=0, measured=MEETING_SECONDS_MAX)
    taken = time.perf_counter() - begun
    note(f"{row.what}: the first pair of each", _figure(meeting.tally, taken, first), "")
    tally = _run(keys, service, row, seconds=seconds)
    note(f"{row.what}: reserve and settle", _figure(tally, seconds, first), row.wanted)
    tally.costs += meeting.tally.costs
    query = "SELECT b.id FROM budget b JOIN tenant t ON t.id = b.tenant_id WHERE t.name LIKE %s"
    with service.connect() as connection:
        budget_ids = [row[0] for row in fetch_rows(connection, query, ["many-%"])]
    _require_exact(service, budget_ids, tally)


def _measure_quiet(service: Service, note: Note, *, seconds: float) -> None:
    """What a quiet tenant notices while another reports all that it can."""
    service.create_tenant("quiet")
    quiet = service.headers
    service.create_tenant("busy")
    for body in budget_bodies():
        service.call("POST", "/v1/budgets", body)
    load = Events(seed=1, name="busy", days=1 / 1440)
    bodies = deque(load.bodies(batches=BUSY_BODIES, size=1_000))
    requests = Requests(service.headers)

    def report_all(stopping: Event) -> None:
        connection = Connection(service.port)
        while bodies and not stopping.is_set():
            connection.ask(requests.make("POST", "/v1/events", bodies.popleft()))
        connection.close()

    answers = watched(service.port, quiet, report_all, clients=BUSY_CLIENTS, seconds=seconds)
    report(note, "A quiet tenant while another sends all it can", answers)


def _measure_halts(service: Service, note: Note) -> None:
    service.create_tenant("halts")
    service.call("POST", "/v1/budgets", _budget("shared"))
    requests = Requests(service.headers)
    with service.another_web() as other_port, ExitStack() as stack:
        webs = [_Web(port, requests) for port in (service.port, other_port)]
        for web in webs:
            stack.callback(web.connection.close)
        worst = max(_halt_ms(webs, number) for number in range(HALTS))
        note(f"A halt stops both web processes, worst of {HALTS}", f"{worst:,.0f} ms", "1,000 ms")
        with _known_halt(webs) as agent, service.stopped_postgres():
            figure = _refusals_figure(webs, agent)
        note("A known halt, with PostgreSQL stopped", figure, "refused")


class _Web:
    """A web process as one client sees it."""

    def __init__(self, port: int, requests: Requests) -> None:
        self.connection = Connection(port)
        self.requests = requests

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        return self.connection.ask(self.requests.make(method, path, content))

    def reserve(self, agent: str) -> int:
        """The status that a small call of this agent meets."""
        body = {**MODEL, "agent": agent, "amount_usd": "0.000001", "ttl_seconds": 60}
        return self.ask("POST", "/v1/reservations", body).status


def _halt_ms(webs: Sequence[_Web], number: int) -> float:
    """How long after the answer the last web process refused for the first time."""
    agent = f"halted-{number}"
    _require(all(web.reserve(agent) == 201 for web in webs), "an agent that runs is refused")
    halt_id = _halt(webs[0], agent)
    begun = time.perf_counter()
    running = list(webs)
    while running:
        running = [web for web in running if web.reserve(agent) != 423]
        _require(time.perf_counter() < begun + HALT_WITHIN_SECONDS, "a halt is not in force")
    halted = time.perf_counter()
    _require(all(web.reserve(agent) == 423 for web in webs), "a halted agent was let through")
    _lift(webs[0], halt_id)
    return (halted - begun) * 1000


@contextmanager
def _known_halt(webs: Sequence[_Web]) -> Iterator[str]:
    """An agent whose halt every web process knows."""
    agent = "halted-before"
    halt_id = _halt(webs[0], agent)
    while any(web.reserve(agent) != 423 for web in webs):
        time.sleep(0.05)
    yield agent
    _lift(webs[0], halt_id)


def _halt(web: _Web, agent: str) -> int:
    answer = web.ask("POST", "/v1/halts", {"match": {"agent": agent}, "reason": "bench"})
    _require(answer.status == 201, f"no halt was made: {answer}")
    return int(json.loads(answer.body)["id"])


def _lift(web: _Web, halt_id: int) -> None:
    answer = web.ask("DELETE", f"/v1/halts/{halt_id}")
    _require(answer.status in (200, 204), f"a halt was not lifted: {answer}")


def _refusals_figure(webs: Sequence[_Web], agent: str) -> str:
    """What a halted agent meets while nothing can be asked of PostgreSQL."""
    times_ms: list[float] = []
    end = time.perf_counter() + STOPPED_SECONDS
    while time.perf_counter() < end:
        for web in webs:
            begun = time.perf_counter()
            try:
                status: object = web.reserve(agent)
            except OSError as error:
                status = error
            if status != 423:
                return f"NOT REFUSED: {status}"
            times_ms.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.01)
    return f"refused, all {len(times_ms):,} times, within {max(times_ms):,.0f} ms"


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise SystemExit(f"Halts: {problem}.")
