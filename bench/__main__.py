"""`make bench`: the service's own figures beside the raw limit of its PostgreSQL, in one run."""

import argparse
import time

from rich.console import Console
from rich.table import Table

from bench import alerting, anomalies, attacks, enforcement, loops, raw_limit, reading, scans
from bench.events import DAYS, Load, budget_bodies
from bench.kit.figures import Row
from bench.kit.load import Sent, send
from bench.kit.service import Service, running_service

CONNECTIONS = 8
# A minute of traffic: a thousand events touch some 900 windows of the five budgets.
LIVE_DAYS = 1 / 1440
FILL_BATCHES = 250
# Variables of the service that a part needs.
FURTHER = {"alerting": alerting.LOOPBACK_ALLOWED}
# Detectors are measured as what they are, without a service.
DETECTORS = {"anomalies": anomalies.measure, "loops": loops.measure}
PARTS = ("enforcement", "ingest", "alerting", "attacks", "scans", *DETECTORS)


def main() -> None:
    """Run the benchmarks and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--stored", type=int, default=5_000_000, help="events to fill up to")
    parser.add_argument("--batches", type=int, default=200, help="batches of 1,000 a measurement")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument(
        "--memory-seconds", type=float, default=60, help="how long refused bodies are sent"
    )
    parser.add_argument(
        "--waiting-batches", type=int, default=2_000, help="small batches that a scan meets"
    )
    parser.add_argument(
        "--waiting-events", type=int, default=100_000, help="the events of these batches"
    )
    parser.add_argument("--seconds", type=float, default=15, help="each figure of enforcement")
    parser.add_argument("--only", choices=PARTS, help="one part of the figures; all otherwise")
    options = parser.parse_args()
    console = Console(width=140)
    title = "Spendgate with its background work, client and PostgreSQL on one machine"
    table = Table("What", "Figure", "Wanted", "PostgreSQL alone", title=title)

    def row(what: str, figure: str, wanted: str, raw: str = "") -> None:
        """One line of the result, shown at once and again in the table."""
        console.print(f"{what}: {figure}")
        table.add_row(what, figure, wanted, raw)

    for part in [options.only] if options.only else PARTS:
        if part in DETECTORS:
            DETECTORS[part](row)
            continue
        # Each on an empty database of its own, as none may be slowed by what another left.
        with running_service(FURTHER.get(part, {})) as service:
            if part == "enforcement":
                enforcement.measure(service, row, seconds=options.seconds)
            elif part == "alerting":
                alerting.measure(service, row)
            elif part == "attacks":
                attacks.measure(service, row, memory_seconds=options.memory_seconds)
            elif part == "scans":
                scans.measure(
                    service, row, batches=options.waiting_batches, events=options.waiting_events
                )
            else:
                bench = _Bench(service, console, row, options.batches, options.connections)
                bench.run(options.stored)
    console.print(table)


class _Bench:
    def __init__(
        self,
        service: Service,
        console: Console,
        row: Row,
        batches: int,
        connections: int,
    ) -> None:
        self.service = service
        self.console = console
        self.row = row
        self.batches = batches
        self.connections = connections
        self.stored = 0

    def run(self, stored: int) -> None:
        """All measurements of ingest and reading, in the order of a growing database."""
        self.service.create_tenant()
        for body in budget_bodies():
            self.service.call("POST", "/v1/budgets", body)
        self._send("warm-up", batches=20)
        self.console.print("Measuring the raw limits ...", style="dim")
        with self.service.connect() as connection:
            raw = f"{raw_limit.rows_per_second(connection):,.0f} rows/s by COPY, on conflict"
        first = self._rate("empty")
        wanted = "20,000 events/s"
        self.row("Batches of 1,000, 5 budgets, empty", f"{first:,.0f} events/s", wanted, raw)
        self._told_twice(first)
        self._singles()
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
        self.row(
            "Largest web process", f"{self.service.web_memory_mib():,.0f} MiB", "under 400 MiB"
        )
        self._read()

    def _send(
        self, name: str, *, batches: int, days: float = LIVE_DAYS, until_days_ago: float = 0
    ) -> Sent:
        load = Load(
            seed=self.stored,
            name=f"{name}-{self.stored}",
            days=days,
            until_days_ago=until_days_ago,
        )
        sent = send(
            port=self.service.port,
            headers=self.service.headers,
            bodies=load.bodies(batches=batches, size=1_000),
            connections=self.connections,
        )
        if sent.accepted != batches * 1_000:
            raise SystemExit(f"Not everything was accepted: {sent}")
        self.stored += sent.accepted
        return sent

    def _rate(self, name: str) -> float:
        sent = self._send(name, batches=self.batches)
        self.console.print(
            f"{name}: 50 % of batches within {sent.percentile_ms(50):.0f} ms,"
            f" 99 % within {sent.percentile_ms(99):.0f} ms",
            style="dim",
        )
        return sent.accepted / sent.seconds

    def _told_twice(self, once: float) -> None:
        """A fifth of the calls told a second time, by a source that adds nothing."""
        load = Load(
            seed=self.stored, name=f"twice-{self.stored}", days=LIVE_DAYS, told_twice_share=0.2
        )
        sent = send(
            port=self.service.port,
            headers=self.service.headers,
            bodies=load.bodies(batches=self.batches, size=1_000),
            connections=self.connections,
        )
        reports = sent.counts.total() - sent.counts["rejected"]
        if sent.counts["rejected"] or reports != self.batches * 1_000 or sent.accepted == reports:
            raise SystemExit(f"Not every second report was recognized: {sent}")
        self.stored += sent.accepted
        rate = reports / sent.seconds
        self.row(
            "The same, 20% of calls told twice",
            f"{rate:,.0f} reports/s ({rate / once:.0%}),"
            f" {sent.accepted / sent.seconds:,.0f} calls/s",
            "70%",
        )

    def _singles(self) -> None:
        bodies = Load(seed=1, name=f"single-{self.stored}", days=LIVE_DAYS).single_bodies(4_000)
        for connections in (1, 32):
            part = bodies[:500] if connections == 1 else bodies[500:]
            sent = send(
                port=self.service.port,
                headers=self.service.headers,
                bodies=part,
                connections=connections,
            )
            self.stored += sent.accepted
            self.row(
                f"Single events, {connections} connections",
                f"{sent.accepted / sent.seconds:,.0f} events/s,"
                f" half within {sent.percentile_ms(50):.1f} ms",
                "1,500 events/s" if connections > 1 else "",
                f"{raw_limit.inserts_per_second(self.service, connections):,.0f} inserts/s",
            )

    def _fill(self, stored: int) -> None:
        """Thirty days of events in the order of their time, as they would have come."""
        first = self.stored
        while self.stored < stored:
            batches = min(FILL_BATCHES, (stored - self.stored + 999) // 1_000)
            days = DAYS * batches * 1_000 / (stored - first)
            sent = self._send(
                "fill",
                batches=batches,
                days=days,
                until_days_ago=max(0.0, DAYS * (stored - self.stored) / (stored - first) - days),
            )
            self.console.print(
                f"{self.stored:,} stored, {sent.accepted / sent.seconds:,.0f} events/s", style="dim"
            )

    def _wait_for_roll_ups(self) -> None:
        begun = time.perf_counter()
        self.console.print("Waiting for roll-ups ...", style="dim")
        with self.service.connect() as connection:
            reading.wait_for_roll_ups(connection)
        self.console.print(f"rolled up after {time.perf_counter() - begun:.0f} s", style="dim")

    def _read(self) -> None:
        self._wait_for_roll_ups()
        with self.service.connect() as connection:
            raw = f"{raw_limit.read_ms(connection):,.0f} ms to add up the largest of the kept sums"
        for what, p95_ms, wanted_ms in reading.measure(self.service):
            asked = f"/v1/usage by {what}, 30 days, p95"
            self.row(asked, f"{p95_ms:,.0f} ms", f"{wanted_ms} ms", raw)


if __name__ == "__main__":
    main()
