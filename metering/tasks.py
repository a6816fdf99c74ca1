"""What the workers do for metering: thin, bounded, safe to run twice. The rows are the queue."""

import time
from datetime import timedelta
from typing import Final

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from metering import rollups
from metering.budgets import read_book
from metering.ledger import age_rolling_window
from metering.models import BudgetWindow
from metering.partitions import make_due_partitions
from tenants.scope import lock_configuration_shared, platform_scope, tenant_scope

# A run ends after this time; the next beat goes on where it stopped.
ROLL_UP_SECONDS: Final = 60.0
# How long old events may wait for more of their kind. Answers are exact all the while.
PATIENCE: Final = timedelta(minutes=1)


@shared_task(ignore_result=True)
def roll_up() -> None:
    """Add every tenant's waiting batches to its roll-ups, the tenants in turn."""
    ends_at = time.monotonic() + ROLL_UP_SECONDS
    with platform_scope("roll up the batches of all tenants"):
        tenants = rollups.tenants_waiting()
    while tenants and time.monotonic() < ends_at:
        tenants = [tenant_id for tenant_id in tenants if _roll_up_once(tenant_id)]


def _roll_up_once(tenant_id: int) -> int:
    with tenant_scope(tenant_id):
        return rollups.roll_up(tenant_id=tenant_id, patience=PATIENCE)


@shared_task(ignore_result=True)
def make_partitions() -> None:
    """See that events of every allowed time have a partition to go to."""
    with platform_scope("make partitions ahead"):
        make_due_partitions(now=timezone.now(), max_age_days=settings.EVENT_MAX_AGE.days)


@shared_task(ignore_result=True)
def age_rolling_windows() -> None:
    """Take out of every rolling window what has become older than its period."""
    with platform_scope("find rolling windows of all tenants"):
        rolling = BudgetWindow.objects.filter(counted_from__isnull=False)
        found = list(rolling.order_by("tenant_id", "id").values_list("tenant_id", "id"))
    for tenant_id, window_id in found:
        _age(tenant_id, window_id)


def _age(tenant_id: int, window_id: int) -> None:
    """One window in one transaction, so that ingest never waits for more than that."""
    with tenant_scope(tenant_id):
        book = read_book(tenant_id, version=lock_configuration_shared(tenant_id))
        window = BudgetWindow.objects.get(tenant_id=tenant_id, id=window_id)
        rule = book.rules.get(window.budget_id)
        if rule is not None and rule.revision == window.revision:
            age_rolling_window(book=book, window_id=window_id, now=timezone.now())
