"""Tasks of the workers: thin, bounded, safe to run twice. The rows are the queue."""

from typing import Final

from celery import shared_task

from billing.collection import run as collection
from tenants.runs import TenantRun, shuffled

# A run ends after this time; the next beat continues.
COLLECT_SECONDS: Final = 30.0
REMOVE_SECONDS: Final = 30.0


@shared_task(ignore_result=True)
def collect_statements() -> None:
    """Bring final statements to Stripe, and what changed there back."""
    run = TenantRun(COLLECT_SECONDS)
    run.repeat("collect", shuffled(collection.tenants_to_collect), collection.collect)
    run.report()


@shared_task(ignore_result=True)
def remove_old_events() -> None:
    """Remove events of Stripe that were processed long ago."""
    collection.remove_old_events(seconds=REMOVE_SECONDS)
