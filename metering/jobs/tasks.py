"""What the workers do for metering: thin, bounded, safe to run twice. The rows are the queue."""

from datetime import timedelta
from functools import partial
from typing import Final

from celery import shared_task

from metering import rollups, simulation
from metering.jobs import retention, upkeep
from tenants.runs import TenantRun, scoped, shuffled

# A run ends after this time; the next beat goes on where it stopped.
ROLL_UP_SECONDS: Final = 60.0
# As above. A single replay may take longer than this, and ends before the task's own limit.
SIMULATE_SECONDS: Final = 30.0
# As above, for what removes old rows.
SEAL_SECONDS: Final = 120.0
REMOVE_SECONDS: Final = 60.0
# How long old events may wait for more of their kind. Answers are exact all the while.
PATIENCE: Final = timedelta(minutes=1)
# Exporters send a call's spans within five seconds of its settle: merging them is cheap before the
# call is rolled up.
GRACE: Final = timedelta(seconds=6)


@shared_task(ignore_result=True)
def roll_up() -> None:
    """Add every tenant's waiting batches to its roll-ups, the tenants in turn."""
    run = TenantRun(ROLL_UP_SECONDS)
    work = partial(rollups.roll_up, patience=PATIENCE, grace=GRACE)
    run.repeat("roll_up", shuffled(rollups.tenants_waiting), scoped(work))
    run.report()


@shared_task(ignore_result=True)
def expire_reservations() -> None:
    """Give back what reservations hold whose time is over."""
    upkeep.expire_reservations()


@shared_task(ignore_result=True)
def end_what_is_over() -> None:
    """Judge windows without the raises that are over, and lift lockouts that have ended."""
    upkeep.end_what_is_over()


@shared_task(ignore_result=True)
def seal_old_usage() -> None:
    """Seal usage that is too old to be kept, and remove it."""
    retention.seal_old_usage(seconds=SEAL_SECONDS)


@shared_task(ignore_result=True)
def remove_old_rows() -> None:
    """Remove other rows that are too old to be kept."""
    retention.remove_old_rows(seconds=REMOVE_SECONDS)


@shared_task(ignore_result=True)
def remove_idle_groups() -> None:
    """Remove paces and breaker states that nobody asks for any more."""
    retention.remove_idle_groups(seconds=REMOVE_SECONDS)


@shared_task(ignore_result=True)
def remove_old_spans() -> None:
    """Remove the spans of traces that grow no more."""
    retention.remove_old_spans(seconds=REMOVE_SECONDS)


@shared_task(ignore_result=True)
def make_partitions() -> None:
    """See that events of every allowed time have a partition to go to."""
    upkeep.make_partitions_ahead()


@shared_task(ignore_result=True)
def age_rolling_windows() -> None:
    """Take out of every rolling window what has become older than its period."""
    upkeep.age_rolling_windows()


@shared_task(ignore_result=True)
def price_unpriced() -> None:
    """Have what has no price rated once more where prices have changed since the last try."""
    upkeep.price_what_was_unpriced()


@shared_task(ignore_result=True)
def run_jobs() -> None:
    """Go on with the work that was too long for a request."""
    upkeep.run_jobs()


@shared_task(ignore_result=True)
def run_simulations() -> None:
    """Replay the proposals that wait."""
    simulation.work_off(seconds=SIMULATE_SECONDS)
