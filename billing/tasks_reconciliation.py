"""Tasks of reconciliation: thin, bounded, safe to run twice. The rows are the queue."""

from typing import Final

from celery import shared_task

from billing.reconciliation import runs
from tenants.runs import TenantRun, scoped, shuffled

# A run ends after this time; the next beat continues where it stopped.
STEP_SECONDS: Final = 60.0
START_SECONDS: Final = 60.0


@shared_task(ignore_result=True)
def reconcile() -> int:
    """Do steps of the reconciliations of all tenants, in turn; return their number."""
    run = TenantRun(STEP_SECONDS)
    count = run.repeat("reconcile", shuffled(runs.tenants_with_steps), runs.take_step)
    run.report()
    return count


@shared_task(ignore_result=True)
def start_daily_reconciliations() -> int:
    """Begin those of the bills that were imported since yesterday."""
    run = TenantRun(START_SECONDS)
    count = run.each(
        "start_daily_reconciliations",
        shuffled(runs.tenants_with_bills),
        scoped(runs.start_daily),
    )
    run.report()
    return count
