"""What the workers do for billing: bounded, safe to run twice. The rows are the queue."""

from typing import Final

from celery import shared_task

from billing.collection import run as collection
from billing.credit_expiry import move_due_credit, tenants_with_due_credit
from tenants.runs import TenantRun, scoped, shuffled

# A run ends after this time; the next beat continues where it stopped.
RUN_SECONDS: Final = 30.0


@shared_task(ignore_result=True)
def move_credit() -> int:
    """Let credit begin, expire and roll over; return the number of grants."""
    run = TenantRun(RUN_SECONDS)
    count = run.repeat("move_credit", shuffled(tenants_with_due_credit), scoped(move_due_credit))
    run.report()
    return count


@shared_task(ignore_result=True)
def collect_statements() -> None:
    """Bring final statements to Stripe, and what changed there back."""
    run = TenantRun(RUN_SECONDS)
    run.repeat("collect", shuffled(collection.tenants_to_collect), collection.collect)
    run.report()


@shared_task(ignore_result=True)
def remove_old_events() -> None:
    """Remove events of Stripe that were processed long ago."""
    collection.remove_old_events(seconds=RUN_SECONDS)
