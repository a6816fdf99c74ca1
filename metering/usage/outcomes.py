"""Outcomes: whether the work that usage paid for succeeded."""

from django.db import transaction

from metering.models import Outcome


@transaction.atomic
def report_outcome(
    *, tenant_id: int, task: str, session: str, is_success: bool, value_nanos: int | None
) -> Outcome:
    """Store how a task or a session ended; the latest report of one counts."""
    outcome, _ = Outcome.objects.update_or_create(
        tenant_id=tenant_id,
        task=task,
        session=session,
        defaults={"is_success": is_success, "value_nanos": value_nanos},
    )
    return outcome
