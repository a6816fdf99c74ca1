"""What another tenant notices while a client attacks: each kind for some seconds, on this machine.

Everything goes to the service that was started for it, on loopback, and ends by itself.
"""

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Final

import msgspec

from bench.kit.abuse import GZIP, empty_members, fortunes, left_open, wrong_events
from bench.kit.figures import Row
from bench.kit.load import percentile
from bench.kit.service import Service
from bench.kit.wire import Answer, Connection, Requests

ATTACK_SECONDS: Final = 5.0
ASK_EVERY_SECONDS: Final = 0.01
MEMORY_SECONDS: Final = 60.0
RESERVE: Final = msgspec.json.encode({"agent": "quiet", "amount_usd": "0.0001"})
JSON_TYPE: Final = {"Content-Type": "application/json"}
Attack = Callable[[Event], None]


def measure(service: Service, row: Row, *, memory_seconds: float = MEMORY_SECONDS) -> None:
    """Make all attacks, one after the other, and measure the memory of the web process."""
    service.create_tenant("quiet")
    quiet = service.headers
    service.create_tenant("attacker")
    attacks = _Attacks(service)
    attacks.prepare()
    report(row, "Attack: nothing (for comparison)", watched(service.port, quiet, lambda _: None))
    for name, attack, clients in attacks.all():
        answers = watched(service.port, quiet, attack, clients=clients)
        report(row, f"Attack: {name} ({service.web_memory_mib():,.0f} MiB)", answers)
    before = service.web_memory_mib()
    watched(service.port, quiet, attacks.refused, clients=2, seconds=memory_seconds)
    grown = service.web_memory_mib() - before
    row(
        f"Web process over {memory_seconds:.0f} s of refused bodies",
        f"{grown:+,.0f} MiB of {before:,.0f} MiB",
        "flat",
    )


class _Attacks:
    def __init__(self, service: Service) -> None:
        self._port = service.port
        self._service = service
        self._key = Requests(dict(service.headers))
        self._compressed = Requests({**service.headers, **GZIP})
        self._nobody = Requests(JSON_TYPE)

    def prepare(self) -> None:
        """Make as much configuration as one tenant may have, which some attacks need."""
        budget = {"name": "b", "period": "day", "limit": {"cost_usd": "5"}, "mode": "enforce"}
        connection = Connection(self._port)
        for number in range(1_000):
            made = [
                ("/v1/budgets", {**budget, "name": f"b{number}", "match": {"agent": "a"}}),
                ("/v1/halts", {"match": {"agent": f"h{number}"}, "reason": "r"}),
            ]
            answers = [connection.ask(self._post(path, body)) for path, body in made]
            if all(answer.status >= 400 for answer in answers):
                break

    def all(self) -> Iterator[tuple[str, Attack, int]]:
        """Name, attack, clients at once."""
        yield "64 callers, and 10 that poll halts", self._poll, 74
        yield "Half-sent bodies and heads, 1,500 connections", self._half_sent, 1
        yield "Gzip of half a million members", self._members, 3
        yield "A member of whom nothing is read: 100 exports", self._unread, 1
        yield "Sign-in with invented names, 48 loops", self._sign_in, 48
        yield "Sums beyond 64 bits, 2 clients", self._fortune, 2
        yield "Refused bodies of 2 MB, 3 clients", self.refused, 3
        yield "400,000 unknown fields, 2 clients", self._unknown_fields, 2
        yield "Hundreds of budgets and halts, 4 clients", self._many_budgets, 4

    def _post(self, path: str, body: object) -> bytes:
        return self._key.make("POST", path, msgspec.json.encode(body))

    def _repeat(self, stopping: Event, *requests: bytes | Callable[[str], bytes]) -> None:
        """Send requests over and over; what is called makes one from a name that is new."""
        connection = Connection(self._port)
        for number in itertools.count(1):
            for request in requests:
                if stopping.is_set():
                    return
                name = f"{threading.get_ident()}-{number}"
                with suppress(OSError):
                    connection.ask(request if isinstance(request, bytes) else request(name))

    def _poll(self, stopping: Event) -> None:
        is_poller = int(threading.current_thread().name.rpartition("-")[2]) < 10
        ask = self._post("/v1/reservations", {"agent": "x", "amount_usd": "0.01"})
        self._repeat(stopping, self._key.make("GET", "/v1/halts") if is_poller else ask)

    def _half_sent(self, stopping: Event) -> None:
        bodies = [
            requests.make("POST", path, b"x" * 1000)[:-990]
            for requests in (self._key, self._nobody)
            for path in ("/v1/events", "/v1/budgets")
        ]
        heads = [b"GET /v1/usage HTTP/1.1\r\nHost: x"]
        with self._left_open([*(bodies * 32), *(heads * 1_372)]):
            stopping.wait()

    def _unread(self, stopping: Event) -> None:
        export = self._key.make("GET", "/v1/export/focus.csv?month=2026-11")
        with self._left_open([export] * 100):
            stopping.wait()

    @contextmanager
    def _left_open(self, requests: list[bytes]) -> Iterator[None]:
        with ExitStack() as stack:
            for request in requests:
                stack.enter_context(left_open(self._port, request))
            yield

    def _members(self, stopping: Event) -> None:
        self._repeat(stopping, self._compressed.make("POST", "/v1/events", empty_members(500_000)))

    def _sign_in(self, stopping: Event) -> None:
        """Sign in as a browser does: with the form's token in a cookie and in the body."""
        token = "a" * 32
        requests = Requests(
            {
                "Cookie": f"csrftoken={token}",
                "Content-Type": "application/x-www-form-urlencoded",
            }
        )

        def sign_in(name: str) -> bytes:
            user = f"username={name}@example.com&password=wrong-{name}"
            form = f"csrfmiddlewaretoken={token}&{user}"
            return requests.make("POST", "/login", form.encode())

        self._repeat(stopping, sign_in)

    def _fortune(self, stopping: Event) -> None:
        self._repeat(stopping, lambda name: self._post("/v1/events", fortunes(name, 1_800)))

    def refused(self, stopping: Event) -> None:
        """Send bodies of which every event is wrong."""
        self._repeat(stopping, self._post("/v1/events", wrong_events(9_000)))

    def _unknown_fields(self, stopping: Event) -> None:
        fields = {f"f{n}": n for n in range(400_000)}
        first = self._post("/v1/reservations", fields)
        budget = self._post("/v1/budgets", fields)
        Connection(self._port).ask(first)
        self._repeat(stopping, budget)

    def _many_budgets(self, stopping: Event) -> None:
        def report(name: str) -> bytes:
            event = {"id": name, "cost_usd": "0.01", "agent": "a"}
            return self._post("/v1/events", [event] * 50)

        ask = self._post("/v1/reservations", {"agent": "a", "amount_usd": "0.01"})
        self._repeat(stopping, report, ask)


def watched(
    port: int,
    headers: Mapping[str, str],
    attack: Attack,
    *,
    clients: int = 1,
    seconds: float = ATTACK_SECONDS,
) -> list[tuple[float, Answer]]:
    """Return what the quiet tenant's reserves took and were answered while an attack went on.

    The attackers have a process of their own, so that no one here waits for them in Python.
    """
    context = get_context("fork")
    stopping = context.Event()
    attackers = context.Process(target=_attack_together, args=[attack, clients, stopping])
    attackers.start()
    request = Requests(headers).make("POST", "/v1/reservations", RESERVE)
    connection, answers = Connection(port), []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        answer = connection.ask(request)
        answers.append((time.monotonic() - begun, answer))
        time.sleep(ASK_EVERY_SECONDS)
    stopping.set()
    attackers.join(timeout=60)
    attackers.kill()
    return answers


def _attack_together(attack: Attack, clients: int, stopping: Event) -> None:
    threads = [
        threading.Thread(target=attack, args=[stopping], name=f"client-{number}", daemon=True)
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)


def report(row: Row, what: str, answers: list[tuple[float, Answer]]) -> None:
    """Show what the quiet tenant noticed."""
    taken = sorted(seconds * 1000 for seconds, _ in answers)
    refused = sum(answer.status != 201 for _, answer in answers)
    row(
        what,
        f"half of another's reserves within {statistics.median(taken):,.1f} ms,"
        f" p99 {percentile(taken, 99):,.0f} ms, all within {taken[-1]:,.0f} ms,"
        f" {refused} of {len(taken)} refused",
        "p99 under 50 ms, none refused",
    )
