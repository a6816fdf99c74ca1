"""What the workers do for billing: bounded, safe to run twice. The rows are the queue."""

from functools import partial
from typing import Final

from celery import shared_task

from billing.collection import run as collection
from billing.credit_expiry import move_due_credit, tenants_with_due_credit
from billing.month_end import finalize_due, tenants_with_due_statements
from billing.statement_periods import open_due_drafts, tenants_with_due_drafts
from tenants.runs import TenantRun, scoped, shuffled

# A run ends after this time; the next beat continues where it stopped.
RUN_SECONDS: Final = 30.0
# A tenant with thousands of statements does some, then it is the next tenant's turn.
TURN_SECONDS: Final = 5.0


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


@shared_task(ignore_result=True)
def open_drafts() -> None:
    """Open the drafts of periods that have begun."""
    run = TenantRun(RUN_SECONDS)
    run.repeat("open_drafts", shuffled(tenants_with_due_drafts), scoped(open_due_drafts))
    run.report()


@shared_task(ignore_result=True)
def finalize_statements() -> None:
    """Make statements final of tenants that let that happen by itself."""
    run = TenantRun(RUN_SECONDS)
    finalize = partial(finalize_due, seconds=TURN_SECONDS)
    run.repeat("finalize", shuffled(tenants_with_due_statements), finalize)
    run.report()
