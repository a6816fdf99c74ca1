"""What time alone changes: rolling windows let go, holds expire, partitions are made ahead."""

from datetime import datetime
from functools import partial
from typing import Final

from django.conf import settings
from django.db import connection
from django.utils import timezone

from metering.budget_reading import read_book
from metering.enforcement.holds import OPEN
from metering.enforcement.lockouts import lift_ended_lockouts
from metering.enforcement.raises import judge_ended_raises, tenants_with_ended_raises
from metering.enforcement.turn import expire_due
from metering.models import Budget, BudgetWindow, CostSource
from metering.partitions import make_due_partitions
from metering.rerate import price_unpriced
from metering.rolling import age_rolling_window
from tenants.runs import TenantRun, scoped, shuffled
from tenants.scope import lock_configuration_shared, platform_scope, tenant_scope

# A run ends after this time; the next beat goes on.
EXPIRE_SECONDS: Final = 30.0
END_SECONDS: Final = 30.0
AGE_SECONDS: Final = 120.0
PRICE_SECONDS: Final = 120.0


def age_rolling_windows() -> int:
    """Take out of every rolling window what is older than its period; return how many windows were
    looked at.
    """
    run = TenantRun(AGE_SECONDS)
    work = partial(_age_windows_of, now=timezone.now())
    count = run.each("age_rolling_windows", shuffled(_tenants_with_rolling_budgets), work)
    run.report()
    return count


def _tenants_with_rolling_budgets() -> list[int]:
    rolling = Budget.objects.filter(is_rolling=True, archived_at=None)
    return list(rolling.values_list("tenant_id", flat=True).distinct())


def _age_windows_of(*, tenant_id: int, now: datetime) -> int:
    with tenant_scope(tenant_id):
        book = read_book(tenant_id)
        window_ids = [
            window_id
            for rule in book.rules.values()
            if rule.is_rolling
            for window_id in BudgetWindow.objects.filter(
                tenant_id=tenant_id, budget_id=rule.id, counted_from__lt=rule.counted_from(now)
            ).values_list("id", flat=True)
        ]
    for window_id in window_ids:
        # A transaction each: a window that many wait for is not kept longer than its own turn.
        with tenant_scope(tenant_id):
            version = lock_configuration_shared(tenant_id)
            if book.version != version:
                book = read_book(tenant_id, version=version)
            age_rolling_window(book=book, window_id=window_id, now=now)
    return len(window_ids)


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
    ended = run.each("judge_ended_raises", tenants_with_ended_raises, scoped(judge_ended_raises))
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
    """Rate unpriced events of tenants once more: what a new price missed when a process was
    killed.
    """
    run = TenantRun(PRICE_SECONDS)
    count = run.each("price_unpriced", shuffled(_tenants_with_unpriced_events), price_unpriced)
    run.report()
    return count


def _tenants_with_unpriced_events() -> list[int]:
    with connection.cursor() as cursor:
        # The number is written out, so that the partial index of unpriced events fits.
        cursor.execute(
            "SELECT DISTINCT tenant_id FROM usage_event"  # noqa: S608 - an enum's number
            f" WHERE cost_source = {CostSource.UNPRICED.value}"
        )
        return [row[0] for row in cursor.fetchall()]
