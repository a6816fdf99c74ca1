"""How soon the right receiver hears of it: from an acknowledged event to the delivered webhook.

A webhook receiver on loopback notes when each message arrives. The service runs with its default
schedule. In between the receiver is away for a while, and a worker is killed.
"""

import json
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, NamedTuple

from bench.kit.figures import Row
from bench.kit.service import Service, free_port, kill
from bench.kit.wire import JsonObject

CROSSINGS: Final = 30
# Gaps of varying length, so that events meet the schedule at every moment of its period.
GAP_SECONDS: Final = 1.3
ARRIVES_WITHIN_SECONDS: Final = 60.0
AWAY_CROSSINGS: Final = 10
# Receivers that come back are tried again within a minute or so at this stage of the back-off.
COMES_BACK_WITHIN_SECONDS: Final = 120.0
LOOPBACK_ALLOWED: Final = {"CHANNEL_NETWORKS": "127.0.0.0/8"}


class Arrival(NamedTuple):
    """A message as it came in."""

    at: float
    reference: str
    body: JsonObject


class Receiver:
    """An HTTP server on loopback that takes every message, while it is up."""

    def __init__(self) -> None:
        self.port = free_port()
        self.arrivals: list[Arrival] = []
        self._server: ThreadingHTTPServer | None = None

    @contextmanager
    def up(self) -> Iterator[None]:
        """Listen until the block ends."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at = time.perf_counter()
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.arrivals.append(Arrival(at, self.headers["webhook-id"], body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing: the figures are the log."""

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def wait_for(self, count: int, *, seconds: float) -> None:
        """Wait until this number of different messages has come, or the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if len({arrival.reference for arrival in self.arrivals}) >= count:
                return
            time.sleep(0.02)


def measure(service: Service, note: Row) -> None:
    """Measure on a service that may reach loopback, and print the figures."""
    service.create_tenant("alerting")
    receiver = Receiver()
    hook = {"url": f"http://127.0.0.1:{receiver.port}/hook"}
    service.call("POST", "/v1/channels", {"name": "bench", "kind": "webhook", "config": hook})
    level = {"percent": 100, "notify": ["engineering"], "action": "block"}
    budget = {"name": "each agent", "per": ["agent"], "period": "day", "limit": {"cost_usd": "1"}}
    service.call("POST", "/v1/budgets", {**budget, "levels": [level]})
    with receiver.up():
        _latency(service, receiver, note)
    _away(service, receiver, note)
    _killed(service, receiver, note)


def _latency(service: Service, receiver: Receiver, note: Row) -> None:
    acknowledged = {}
    draw = random.Random(1)
    for number in range(CROSSINGS):
        agent = f"agent-{number}"
        _cross(service, agent)
        acknowledged[agent] = time.perf_counter()
        time.sleep(GAP_SECONDS * draw.uniform(0.5, 1.5))
    receiver.wait_for(CROSSINGS, seconds=ARRIVES_WITHIN_SECONDS)
    arrived = {_agent(arrival): arrival.at for arrival in reversed(receiver.arrivals)}
    waits = sorted(arrived[agent] - at for agent, at in acknowledged.items() if agent in arrived)
    figure = "nothing arrived"
    if waits:
        figure = (
            f"median {statistics.median(waits):.1f} s, slowest {waits[-1]:.1f} s"
            f" ({len(waits)} of {CROSSINGS} arrived)"
        )
    note("Acknowledged event that crosses a level, to the delivered webhook", figure, "10 s")


def _away(service: Service, receiver: Receiver, note: Row) -> None:
    before = len(receiver.arrivals)
    for number in range(AWAY_CROSSINGS):
        _cross(service, f"away-{number}")
    time.sleep(15)
    with receiver.up():
        _note_kept(
            receiver,
            before,
            note,
            f"Receiver down for 15 s while {AWAY_CROSSINGS} incidents opened",
        )


def _killed(service: Service, receiver: Receiver, note: Row) -> None:
    before = len(receiver.arrivals)
    with receiver.up():
        for number in range(AWAY_CROSSINGS):
            _cross(service, f"killed-{number}")
            if number % 3 == 0:
                # As a full memory would.
                kill(service.celery_workers())
            time.sleep(0.7)
        _note_kept(receiver, before, note, "Workers killed (SIGKILL) 4 times meanwhile")


def _note_kept(receiver: Receiver, before: int, note: Row, what: str) -> None:
    """Wait for the messages of all incidents, and a little for repeats."""
    receiver.wait_for(before + AWAY_CROSSINGS, seconds=COMES_BACK_WITHIN_SECONDS)
    time.sleep(5)
    arrivals = receiver.arrivals[before:]
    times = Counter(arrival.reference for arrival in arrivals)
    agents = {_agent(arrival) for arrival in arrivals}
    note(
        what,
        f"{len(agents)} of {AWAY_CROSSINGS} incidents told, {len(times) - len(agents)} told under"
        f" two ids, {times.total() - len(times)} repeats under one id",
        "all, no duplicate without its id",
    )


def _cross(service: Service, agent: str) -> None:
    event = {"id": agent, "source": "bench", "agent": agent, "cost_usd": "2"}
    answer = service.call("POST", "/v1/events", event)
    if answer["accepted"] != 1:
        raise SystemExit(f"The event was not accepted: {answer}")


def _agent(arrival: Arrival) -> str:
    return str(arrival.body["data"]["match"]["agent"])
