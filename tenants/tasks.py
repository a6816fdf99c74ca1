"""What the workers do for tenants: thin, bounded, safe to run twice."""

from typing import Final

from celery import shared_task

from tenants import retention

# A run ends after this time; the next beat continues.
REMOVE_SECONDS: Final = 30.0


@shared_task(ignore_result=True)
def remove_old_rows() -> None:
    """Remove answers for retries, entries of the audit log and login sessions that are too old."""
    retention.remove_old_rows(seconds=REMOVE_SECONDS)
