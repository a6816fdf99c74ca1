"""Tasks of the workers: thin, bounded, safe to run twice. The rows are the queue.

`notify`, `deliver` and `end_incidents` are short, and have a queue of their own; what may take
longer (`scan_*`, `check_*`, `remove_*`) never stands before them.
"""

from functools import partial
from typing import Final

from celery import shared_task
from django.utils import timezone

from alerts import (
    breakers,
    crossings,
    delivery,
    digests,
    incidents,
    reconciliations,
    retention,
    rule_checks,
    scans,
    session_checks,
)
from tenants.runs import TenantRun, scoped, shuffled

# A run ends after this time; the next beat continues where it stopped.
SHORT_SECONDS: Final = 10.0
LONG_SECONDS: Final = 90.0
REMOVE_SECONDS: Final = 60.0
# A message to send now is of no use later: the beat has sent another meanwhile.
DELIVER_EXPIRES_SECONDS: Final = 10


@shared_task(ignore_result=True)
def notify() -> None:
    """Make incidents of what other apps left as rows, and send what was held back."""
    now = timezone.now()
    run = TenantRun(SHORT_SECONDS, steps=4)
    written = run.repeat(
        "take_crossings",
        shuffled(crossings.tenants_with_crossings),
        scoped(crossings.take_crossings),
    )
    written += run.repeat(
        "compare_breakers",
        shuffled(breakers.tenants_with_breakers),
        scoped(partial(breakers.compare_breakers, now=now)),
    )
    written += run.repeat(
        "take_reconciliations",
        shuffled(reconciliations.tenants_with_reconciliations),
        scoped(reconciliations.take_reconciliations),
    )
    written += run.each(
        "gather_held",
        shuffled(partial(digests.tenants_with_held, now)),
        scoped(partial(digests.gather_held, now=now)),
    )
    if written:
        deliver.apply_async(expires=DELIVER_EXPIRES_SECONDS)
    run.report()


@shared_task(ignore_result=True)
def deliver() -> None:
    """Send what is due."""
    delivery.deliver_due(seconds=SHORT_SECONDS)


@shared_task(ignore_result=True)
def end_incidents() -> None:
    """Resolve what is over, notify again of what was snoozed until now, and write due digests."""
    now = timezone.now()
    run = TenantRun(SHORT_SECONDS, steps=4)
    run.each(
        "end_crossings",
        shuffled(crossings.tenants_with_incidents),
        partial(crossings.end_crossings, now=now),
    )
    run.repeat(
        "end_loops",
        shuffled(session_checks.tenants_with_loops),
        scoped(partial(session_checks.end_loops, now=now)),
    )
    run.repeat(
        "end_snoozes",
        shuffled(partial(incidents.tenants_with_ended_snoozes, now)),
        scoped(partial(incidents.end_snoozes, now=now)),
    )
    run.repeat(
        "write_digests",
        shuffled(digests.tenants_with_digests),
        scoped(partial(digests.write_digests, now=now)),
    )
    run.report()


@shared_task(ignore_result=True)
def check_sessions() -> None:
    """Look for loops in the sessions that had new calls."""
    run = TenantRun(LONG_SECONDS)
    now = timezone.now()
    run.repeat(
        "check_sessions",
        shuffled(session_checks.tenants_to_check),
        partial(session_checks.check_sessions, now=now),
    )
    run.report()


@shared_task(ignore_result=True)
def scan_anomalies() -> None:
    """Judge every tenant's series up to now."""
    run = TenantRun(LONG_SECONDS)
    now = timezone.now()
    run.each("scan", scans.tenants_to_scan, partial(scans.scan_tenant, now=now))
    run.report()


@shared_task(ignore_result=True)
def check_rules() -> None:
    """Judge every tenant's figures by the plain rules."""
    run = TenantRun(LONG_SECONDS)
    now = timezone.now()
    run.each(
        "judge_rules",
        rule_checks.tenants_to_judge,
        partial(rule_checks.judge_rules, now=now),
    )
    run.report()


@shared_task(ignore_result=True)
def remove_old_rows() -> None:
    """Remove incidents, anomalies and deliveries that are too old to be kept."""
    retention.remove_old_rows(seconds=REMOVE_SECONDS)
