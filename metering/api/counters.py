"""What this process has taken in, for `/metrics`."""

from typing import Final

from prometheus_client import Counter

from metering.ingest import Job

EVENTS: Final = Counter(
    "spendgate_events",
    "Usage events by how they came and what became of them; unpriced ones are among the accepted.",
    ["route", "outcome"],
)


def count_job(job: Job) -> None:
    """Add a committed job. It carries no tenant: names of tenants are nobody's but theirs."""
    for outcome, count in (
        ("accepted", job.accepted),
        ("duplicate", job.duplicates),
        ("rejected", len(job.errors)),
        ("unpriced", job.unpriced),
    ):
        if count:
            EVENTS.labels(job.route.label, outcome).inc(count)
