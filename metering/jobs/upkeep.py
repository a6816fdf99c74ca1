"""What time alone changes: rolling windows let go, holds expire, partitions are made ahead."""

from datetime import datetime
from functools import partial
from typing import Final

from django.conf import settings
from django.db import connection
from django.utils import timezone

from metering.budgets.index import BudgetBook
from metering.budgets.reading import read_book
from metering.intake.job_steps import take_step, tenants_with_jobs
from metering.intake.rerate import start_pricing, tenants_with_other_prices
from metering.ledger.holds import OPEN
from metering.ledger.rolling import age_windows, windows_letting_go
from metering.limits.limit_increases import judge_ended_raises, tenants_with_ended_raises
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

# A run ends after this time; the next beat goes on.
EXPIRE_SECONDS: Final = 30.0
END_SECONDS: Final = 30.0
AGE_SECONDS: Final = 120.0
# So many windows are aged in one transaction.
WINDOWS_AT_ONCE: Final = 50
PRICE_SECONDS: Final = 30.0
# Shorter than the beat's period: else every process of a worker runs jobs, while reservations wait
# to expire.
JOBS_SECONDS: Final = 1.5
PRICING_ACTOR: Final = "prices that changed"


def age_rolling_windows() -> int:
    """Take out of rolling windows what is older than their period; return how many let go."""
    run = TenantRun(AGE_SECONDS)
    work = partial(_age_windows_of, now=timezone.now())
    count = run.each("age_rolling_windows", shuffled(_tenants_with_rolling_budgets), work)
    run.report()
    return count


def _tenants_with_rolling_budgets() -> list[int]:
    rolling = Budget.objects.filter(is_rolling=True, archived_at=None)
    return list(rolling.values_list("tenant_id", flat=True).distinct())


def _age_windows_of(*, tenant_id: int, now: datetime) -> int:
    """Age the windows that have something to let go of; return how many."""
    with tenant_scope(tenant_id):
        book = read_book(tenant_id)
        window_ids = windows_letting_go(book, now)
    aged: set[int] = set()
    for place in range(0, len(window_ids), WINDOWS_AT_ONCE):
        some = window_ids[place : place + WINDOWS_AT_ONCE]
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


def _age(book: BudgetBook, window_ids: list[int], *, now: datetime, waits: bool) -> set[int]:
    aged, changes = age_windows(book=book, window_ids=window_ids, now=now, waits=waits)
    follow_levels(book, changes, now=now)
    return aged


def _book_in_force(book: BudgetBook) -> BudgetBook:
    """Hold the tenant's configuration, and return the book of it."""
    version = lock_configuration_shared(book.tenant_id)
    return book if book.version == version else read_book(book.tenant_id, version=version)


def expire_reservations() -> int:
    """Give back what reservations of all tenants hold whose time is over; return how many."""
    run = TenantRun(EXPIRE_SECONDS)
    count = run.repeat("expire_reservations", shuffled(_tenants_with_due_holds), expire_due)
    run.report()
    return count


def _tenants_with_due_holds() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT tenant_id FROM reservation WHERE state = %s AND expires_at <= now()",
            [OPEN],
        )
        return [row[0] for row in cursor.fetchall()]


def end_what_is_over() -> int:
    """Judge windows without the raises that are over, and lift lockouts that have ended; return how
    many of both there were.
    """
    run = TenantRun(END_SECONDS, steps=2)
    ended = run.repeat("judge_ended_raises", tenants_with_ended_raises, scoped(judge_ended_raises))
    ended += run.repeat(
        "lift_ended_lockouts", _tenants_with_ended_lockouts, scoped(lift_ended_lockouts)
    )
    run.report()
    return ended


def _tenants_with_ended_lockouts() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT tenant_id FROM halt WHERE lifted_at IS NULL AND ends_at <= now()"
        )
        return [row[0] for row in cursor.fetchall()]


def make_partitions_ahead() -> list[str]:
    """Partitions for the months to come."""
    with platform_scope("partitions for the months ahead"):
        return make_due_partitions(now=timezone.now(), max_age_days=settings.EVENT_MAX_AGE.days)


def price_what_was_unpriced() -> int:
    """Begin to rate usage without a price once more where prices have changed since it was last
    tried (an import of the catalogue, another policy); return for how many tenants.
    """
    run = TenantRun(PRICE_SECONDS)
    count = run.each("price_unpriced", shuffled(tenants_with_other_prices), scoped(_start_pricing))
    run.report()
    return count


def _start_pricing(*, tenant_id: int) -> int:
    # Alone, so that no job that waits begins while it is told of other prices.
    hold_configuration(tenant_id)
    return 0 if start_pricing(tenant_id=tenant_id, actor=PRICING_ACTOR) is None else 1


def run_jobs() -> int:
    """Do steps of the jobs of all tenants, in turn; return how many."""
    run = TenantRun(JOBS_SECONDS)
    count = run.repeat("run_jobs", shuffled(tenants_with_jobs), take_step)
    run.report()
    return count
