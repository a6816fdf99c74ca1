"""`make bench`: the service's own figures beside the raw limit of its PostgreSQL, in one run."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import alerting, anomalies, attacks, billing, enforcement, loops, pages, scans
from bench.ingest import Ingest
from bench.kit.figures import Row
from bench.kit.service import Service, running_service

# In the order in which they are measured.
PARTS: dict[str, Callable[[Service, Row, argparse.Namespace], None]] = {
    "enforcement": lambda service, row, options: enforcement.measure(
        service, row, seconds=options.seconds
    ),
    "ingest": lambda service, row, options: Ingest(
        service, row, batches=options.batches, connections=options.connections
    ).measure(options.stored),
    "alerting": lambda service, row, options: alerting.measure(service, row),
    "attacks": lambda service, row, options: attacks.measure(
        service, row, memory_seconds=options.memory_seconds
    ),
    "scans": lambda service, row, options: scans.measure(
        service, row, batches=options.waiting_batches, events=options.waiting_events
    ),
    "billing": lambda service, row, options: billing.measure(
        service, row, customers=options.customers, events=options.billed_events
    ),
    "pages": lambda service, row, options: pages.measure(service, row, stored=options.stored),
}
# Detectors are measured as what they are, without a service.
DETECTORS: dict[str, Callable[[Row], None]] = {
    "anomalies": anomalies.measure,
    "loops": loops.measure,
}
# Variables of the service that a part needs.
ENVIRONMENTS = {"alerting": alerting.LOOPBACK_ALLOWED, "pages": pages.ENVIRONMENT}


def main() -> None:
    """Run the benchmarks and print their figures."""
    options = parse_options()
    console = Console(width=140)
    title = "Spendgate with its background work, client and PostgreSQL on one machine"
    table = Table("What", "Figure", "Wanted", "PostgreSQL alone", title=title)

    def row(what: str, figure: str, wanted: str, raw: str = "") -> None:
        """Show a figure immediately, and again in the table."""
        console.print(f"{what}: {figure}")
        table.add_row(what, figure, wanted, raw)

    for part in [options.only] if options.only else [*PARTS, *DETECTORS]:
        if part in DETECTORS:
            DETECTORS[part](row)
            continue
        # Each on an empty database of its own, as none may be slowed by what another left.
        folder = options.folder if part == "pages" else None
        with running_service(ENVIRONMENTS.get(part, {}), folder=folder) as service:
            PARTS[part](service, row, options)
    console.print(table)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, default, meaning in (
        ("--stored", 5_000_000, "events to fill up to"),
        ("--batches", 200, "batches of 1,000 in each measurement"),
        ("--connections", 8, "connections that send batches"),
        ("--waiting-batches", 2_000, "small batches that a scan meets"),
        ("--waiting-events", 100_000, "the events of these batches"),
        ("--customers", 10_000, "customers of a month end"),
        ("--billed-events", 1_000_000, "the calls that it charges for"),
        ("--memory-seconds", 60.0, "for how long refused bodies are sent"),
        ("--seconds", 15.0, "for how long each figure of enforcement is measured"),
    ):
        parser.add_argument(name, type=type(default), default=default, help=meaning)
    parser.add_argument("--folder", type=Path, help="where pages keeps what it has stored")
    parser.add_argument("--only", choices=[*PARTS, *DETECTORS], help="one part of the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
