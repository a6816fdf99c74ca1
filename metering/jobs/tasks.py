"""What the workers do for metering: bounded, safe to run twice. The rows are the queue."""

from datetime import datetime, timedelta
from functools import partial
from typing import Final

from celery import shared_task
from django.conf import settings
from django.db import connection
from django.utils import timezone

from metering import rollups, simulation
from metering.budgets.index import BudgetIndex
from metering.budgets.reading import read_budget_index
from metering.intake.job_steps import take_step, tenants_with_jobs
from metering.intake.rerate import start_pricing, tenants_with_other_prices
from metering.jobs import retention
from metering.ledger.holds import OPEN
from metering.ledger.rolling import age_windows, windows_letting_go
from metering.limits.limit_increases import judge_ended_increases, tenants_with_ended_increases
from metering.limits.lockouts import follow_levels, lift_ended_lockouts
from metering.models import Budget
from metering.reservations.transaction import expire_due
from metering.usage.partitions import make_due_partitions
from tenants.runs import TenantRun, scoped, shuffled
from tenants.scope import (
    hold_configuration,
    lock_configuration_shared,
    platform_scope,
    tenant_scope,
)

# A run ends after this time; the next beat continues where it stopped.
ROLL_UP_SECONDS: Final = 60.0
# A single replay may take longer, and ends before the task's own limit.
SIMULATE_SECONDS: Final = 30.0
SEAL_SECONDS: Final = 120.0
REMOVE_SECONDS: Final = 60.0
EXPIRE_SECONDS: Final = 30.0
END_SECONDS: Final = 30.0
AGE_SECONDS: Final = 120.0
PRICE_SECONDS: Final = 30.0
# Shorter than the beat's period: otherwise every process of a worker runs jobs while reservations
# wait to expire.
JOBS_SECONDS: Final = 1.5
# Windows aged in one transaction.
WINDOWS_AT_ONCE: Final = 50
PRICING_ACTOR: Final = "prices that changed"
# How long old events may wait for more of their kind. Answers are exact all the while.
PATIENCE: Final = timedelta(minutes=1)
# How long few events of any time may wait for more, so that many tenants of little use are fewer
# transactions.
FEW_PATIENCE: Final = timedelta(seconds=30)
# Exporters send a call's spans within five seconds of its settle: merging them is cheap before the
# call is rolled up.
GRACE: Final = timedelta(seconds=6)


@shared_task(ignore_result=True)
def roll_up() -> None:
    """Add every tenant's waiting batches to its roll-ups, the tenants in turn."""
    run = TenantRun(ROLL_UP_SECONDS)
    work = partial(rollups.roll_up, patience=PATIENCE, grace=GRACE)
    find = partial(rollups.tenants_waiting, GRACE, FEW_PATIENCE)
    run.repeat("roll_up", shuffled(find), scoped(work))
    run.report()


def _tenants_with(condition: str) -> list[int]:
    """Return the tenants with rows that fit; the condition begins with a table."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT tenant_id FROM {condition}")
        return [row[0] for row in cursor.fetchall()]


@shared_task(ignore_result=True)
def expire_reservations() -> int:
    """Give back what expired reservations of all tenants hold; return their number."""
    run = TenantRun(EXPIRE_SECONDS)
    due = f"reservation WHERE state = {OPEN} AND expires_at <= now()"
    count = run.repeat("expire_reservations", shuffled(partial(_tenants_with, due)), expire_due)
    run.report()
    return count


@shared_task(ignore_result=True)
def end_what_is_over() -> int:
    """Judge windows without the limit increases that are over and lift lockouts that have ended;
    return the number of both.
    """
    run = TenantRun(END_SECONDS, steps=2)
    ended = run.repeat(
        "judge_ended_raises", tenants_with_ended_increases, scoped(judge_ended_increases)
    )
    over = "halt WHERE lifted_at IS NULL AND ends_at <= now()"
    lift = scoped(lift_ended_lockouts)
    ended += run.repeat("lift_ended_lockouts", partial(_tenants_with, over), lift)
    run.report()
    return ended


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
    """Remove rate counters and breaker states that no one asks for any more."""
    retention.remove_idle_groups(seconds=REMOVE_SECONDS)


@shared_task(ignore_result=True)
def remove_old_spans() -> None:
    """Remove the spans of traces that grow no more."""
    retention.remove_old_spans(seconds=REMOVE_SECONDS)


@shared_task(ignore_result=True)
def make_partitions() -> list[str]:
    """Make partitions for events of every allowed time; return their names."""
    with platform_scope("partitions for the months ahead"):
        return make_due_partitions(now=timezone.now(), max_age_days=settings.EVENT_MAX_AGE.days)


@shared_task(ignore_result=True)
def age_rolling_windows() -> int:
    """Let rolling windows go of what is older than their period; return the number that did."""
    run = TenantRun(AGE_SECONDS)
    work = partial(_age_windows_of, now=timezone.now())
    count = run.each("age_rolling_windows", shuffled(_tenants_with_rolling_budgets), work)
    run.report()
    return count


def _tenants_with_rolling_budgets() -> list[int]:
    rolling = Budget.objects.filter(is_rolling=True, archived_at=None)
    return list(rolling.values_list("tenant_id", flat=True).distinct())


def _age_windows_of(*, tenant_id: int, now: datetime) -> int:
    """Age the windows that have something to let go of; return their number."""
    with tenant_scope(tenant_id):
        book = read_budget_index(tenant_id)
        window_ids = windows_letting_go(book, now)
    aged: set[int] = set()
    for first in range(0, len(window_ids), WINDOWS_AT_ONCE):
        some = window_ids[first : first + WINDOWS_AT_ONCE]
        with tenant_scope(tenant_id):
            book = _book_in_force(book)
            aged |= _age(book, some, now=now, waits=False)
    for window_id in window_ids:
        if window_id not in aged:
            # Many want it: it is not kept longer than its own turn, and keeps no other waiting.
            with tenant_scope(tenant_id):
                book = _book_in_force(book)
                _age(book, [window_id], now=now, waits=True)
    return len(window_ids)


def _age(book: BudgetIndex, window_ids: list[int], *, now: datetime, waits: bool) -> set[int]:
    aged, changes = age_windows(book=book, window_ids=window_ids, now=now, waits=waits)
    follow_levels(book, changes, now=now)
    return aged


def _book_in_force(book: BudgetIndex) -> BudgetIndex:
    """Hold the tenant's configuration, and return its budgets."""
    version = lock_configuration_shared(book.tenant_id)
    return book if book.version == version else read_budget_index(book.tenant_id, version=version)


@shared_task(ignore_result=True)
def price_unpriced() -> int:
    """Start to rate usage without a price again if prices have changed since the last try (an
    import of the catalogue, another policy); return the number of tenants.
    """
    run = TenantRun(PRICE_SECONDS)
    count = run.each("price_unpriced", shuffled(tenants_with_other_prices), scoped(_start_pricing))
    run.report()
    return count


def _start_pricing(*, tenant_id: int) -> int:
    # Alone, so that no job that waits begins while it is told of other prices.
    hold_configuration(tenant_id)
    return 0 if start_pricing(tenant_id=tenant_id, actor=PRICING_ACTOR) is None else 1


@shared_task(ignore_result=True)
def run_jobs() -> int:
    """Do steps of the jobs of all tenants, in turn; return their number."""
    run = TenantRun(JOBS_SECONDS)
    count = run.repeat("run_jobs", shuffled(tenants_with_jobs), take_step)
    run.report()
    return count


@shared_task(ignore_result=True)
def run_simulations() -> None:
    """Replay the proposals that wait."""
    simulation.work_off(seconds=SIMULATE_SECONDS)
