"""What this process has taken in: for `/metrics`, and by source for the tenant itself."""

from typing import Final

import structlog
from prometheus_client import Counter

from common.errors import MeteringError
from metering.calls.ingest_job import IngestJob
from metering.intake.source_tallies import refused_body, tallies_of
from metering.models import Route
from metering.usage.sources import record_reports

log = structlog.get_logger(__name__)

EVENTS: Final = Counter(
    "spendgate_events",
    "Usage events by how they came and what became of them; unpriced ones and conflicts are among"
    " the accepted.",
    ["route", "outcome"],
)


def count_job(job: IngestJob) -> None:
    """Add a committed job. Metrics carry no tenant, because tenants must not see each other."""
    for outcome, count in (
        *((outcome.label, count) for outcome, count in job.counts.items()),
        ("rejected", len(job.errors)),
        ("passed_over", sum(items.count for items in job.passed_over)),
    ):
        if count:
            EVENTS.labels(job.route.label, outcome).inc(count)
    try:
        record_reports(job.tenant_id, tallies_of(job))
    except Exception:  # what was acknowledged stays so, whatever counting it does
        log.exception("a body's sources cannot be counted")


def count_refused_body(tenant_id: int, route: Route, error: MeteringError) -> None:
    """Add a body that was refused as a whole."""
    record_reports(tenant_id, [refused_body(route, error)])
