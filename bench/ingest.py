"""Ingest and reading, in the order of a growing database."""

import time
from collections.abc import Sequence

from rich.console import Console

from bench import raw_limit, reading
from bench.events import DAYS, Load, budget_bodies
from bench.kit.figures import Row
from bench.kit.load import Sent, send
from bench.kit.service import Service

# A minute of traffic: a thousand events touch some 900 windows of the five budgets.
LIVE_DAYS = 1 / 1440
BATCH_SIZE = 1_000
FILL_BATCHES = 250


class Ingest:
    """The measurements of ingest, and of reading what it stored."""

    def __init__(self, service: Service, row: Row, *, batches: int, connections: int) -> None:
        self.service = service
        self.console = Console(width=140)
        self.row = row
        self.batches = batches
        self.connections = connections
        self.stored = 0

    def measure(self, stored: int) -> None:
        """Measure on an empty database, fill it up to `stored` events, and measure again."""
        self.service.create_tenant()
        for body in budget_bodies():
            self.service.call("POST", "/v1/budgets", body)
        self._send_batches("warm-up", batches=20)
        self._note("Measuring the raw limits ...")
        with self.service.connect() as connection:
            raw = f"{raw_limit.rows_per_second(connection):,.0f} rows/s by COPY, on conflict"
        first = self._rate("empty")
        wanted = "20,000 events/s"
        self.row("Batches of 1,000, 5 budgets, empty", f"{first:,.0f} events/s", wanted, raw)
        self._measure_second_reports(first)
        self._measure_single_events()
        self._fill(stored)
        # What is measured is live traffic with its own roll-ups, not the backlog of the filling.
        self._wait_for_roll_ups()
        full = self._rate("full")
        self.row(
            f"Batches of 1,000 with {self.stored:,} stored",
            f"{full:,.0f} events/s ({full / first:.0%} of empty)",
            "80%",
            raw,
        )
        memory_mib = self.service.web_memory_mib()
        self.row("Largest web process", f"{memory_mib:,.0f} MiB", "under 400 MiB")
        self._measure_reading()

    def _note(self, sentence: str) -> None:
        self.console.print(sentence, style="dim")

    def _load(
        self, name: str, *, days: float = LIVE_DAYS, ago: float = 0, second_reports: float = 0
    ) -> Load:
        return Load(
            seed=self.stored,
            name=f"{name}-{self.stored}",
            days=days,
            until_days_ago=ago,
            told_twice_share=second_reports,
        )

    def _send(self, bodies: Sequence[bytes], connections: int) -> Sent:
        sent = send(
            port=self.service.port,
            headers=self.service.headers,
            bodies=bodies,
            connections=connections,
        )
        self.stored += sent.accepted
        return sent

    def _send_batches(
        self, name: str, *, batches: int, days: float = LIVE_DAYS, ago: float = 0
    ) -> Sent:
        bodies = self._load(name, days=days, ago=ago).bodies(batches=batches, size=BATCH_SIZE)
        sent = self._send(bodies, self.connections)
        if sent.accepted != batches * BATCH_SIZE:
            raise SystemExit(f"Not everything was accepted: {sent}")
        return sent

    def _rate(self, name: str) -> float:
        sent = self._send_batches(name, batches=self.batches)
        self._note(
            f"{name}: 50% of batches within {sent.percentile_ms(50):.0f} ms,"
            f" 99% within {sent.percentile_ms(99):.0f} ms"
        )
        return sent.accepted / sent.seconds

    def _measure_second_reports(self, once: float) -> None:
        """Report a fifth of the calls a second time, by a source that adds nothing."""
        load = self._load("twice", second_reports=0.2)
        sent = self._send(load.bodies(batches=self.batches, size=BATCH_SIZE), self.connections)
        reports = sent.counts.total() - sent.counts["rejected"]
        if reports != self.batches * BATCH_SIZE or sent.accepted == reports:
            raise SystemExit(f"Not every second report was recognized: {sent}")
        rate = reports / sent.seconds
        self.row(
            "The same, 20% of calls told twice",
            f"{rate:,.0f} reports/s ({rate / once:.0%}),"
            f" {sent.accepted / sent.seconds:,.0f} calls/s",
            "70%",
        )

    def _measure_single_events(self) -> None:
        bodies = self._load("single").single_bodies(4_000)
        for connections, part in ((1, bodies[:500]), (32, bodies[500:])):
            sent = self._send(part, connections)
            self.row(
                f"Single events, {connections} connections",
                f"{sent.accepted / sent.seconds:,.0f} events/s,"
                f" half within {sent.percentile_ms(50):.1f} ms",
                "1,500 events/s" if connections > 1 else "",
                f"{raw_limit.inserts_per_second(self.service, connections):,.0f} inserts/s",
            )

    def _fill(self, stored: int) -> None:
        """Store thirty days of events in the order of their time, as they would have come."""
        first = self.stored
        while self.stored < stored:
            batches = min(FILL_BATCHES, -(-(stored - self.stored) // BATCH_SIZE))
            days = DAYS * batches * BATCH_SIZE / (stored - first)
            ago = max(0.0, DAYS * (stored - self.stored) / (stored - first) - days)
            sent = self._send_batches("fill", batches=batches, days=days, ago=ago)
            rate = sent.accepted / sent.seconds
            self._note(f"{self.stored:,} stored, {rate:,.0f} events/s")

    def _wait_for_roll_ups(self) -> None:
        begun = time.perf_counter()
        self._note("Waiting for roll-ups ...")
        with self.service.connect() as connection:
            reading.wait_for_roll_ups(connection)
        self._note(f"rolled up after {time.perf_counter() - begun:.0f} s")

    def _measure_reading(self) -> None:
        self._wait_for_roll_ups()
        with self.service.connect() as connection:
            raw = f"{raw_limit.read_ms(connection):,.0f} ms to add up the largest of the kept sums"
        for grouping, p95_ms, wanted_ms in reading.measure(self.service):
            what = f"/v1/usage by {grouping}, 30 days, p95"
            self.row(what, f"{p95_ms:,.0f} ms", f"{wanted_ms} ms", raw)
