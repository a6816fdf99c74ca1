"""What the workers do for tenants: thin, bounded, safe to run twice."""

from typing import Final

from celery import shared_task

from tenants import retention

# A run ends after this time; the next beat continues.
REMOVE_SECONDS: Final = 30.0


@shared_task(ignore_result=True)
def remove_old_rows() -> None:
    """Remove answers for retries and entries of the audit log that are too old to be kept."""
    retention.remove_old_rows(seconds=REMOVE_SECONDS)
