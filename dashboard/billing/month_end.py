"""The button that makes all drafts of a past month final."""

import time
from datetime import date, datetime
from typing import Final, NamedTuple

from dateutil.relativedelta import relativedelta
from django.utils import timezone

from billing.month_end import Due, MonthEnd
from common.errors import Conflict
from dashboard.access import PageRequest, may_bill
from dashboard.buttons import button_of
from tenants.admin_site import actor_of
from tenants.scope import tenant_scope

MONTHS_OFFERED: Final = 3
# A person waits for the answer; what is left by then takes another click.
SECONDS_MAX: Final = 10.0
REASONS_SHOWN: Final = 3


class MonthDue(NamedTuple):
    """A past month with drafts."""

    code: str
    words: str
    drafts: int


def months_due(tenant_id: int, now: datetime) -> list[MonthDue]:
    """Return the last months in which periods ended that are drafts still, the newest first."""
    months = [_first(now) - relativedelta(months=back) for back in range(1, MONTHS_OFFERED + 1)]
    due = (
        MonthDue(
            f"{month:%Y-%m}", f"{month:%B %Y}", Due(tenant_id, now, month).statements().count()
        )
        for month in months
    )
    return [each for each in due if each.drafts]


def _first(now: datetime) -> date:
    return now.date().replace(day=1)


@button_of("statements", may=may_bill)
def finalize_month(request: PageRequest) -> str:
    """Make the drafts of a past month final, as many as there is time for."""
    now = timezone.now()
    code = request.POST.get("month", "")
    with tenant_scope(request.tenant.id):
        month = next(
            (each for each in months_due(request.tenant.id, now) if each.code == code), None
        )
    if month is None:
        raise Conflict("No period that ended in this month is a draft.")
    due = Due(request.tenant.id, now, date.fromisoformat(f"{code}-01"))
    run = MonthEnd(due, actor=actor_of(request))
    ends_at = time.monotonic() + SECONDS_MAX
    while time.monotonic() < ends_at and run.step(ends_at=ends_at):
        pass
    with tenant_scope(request.tenant.id):
        left = due.statements().count() - len(run.held)
    return _words(run, left)


def _words(run: MonthEnd, left: int) -> str:
    said = [f"{run.final:,} statement{'s are' if run.final != 1 else ' is'} final."]
    if run.held:
        reasons = [f"{each.statement.customer.name}: {each.reason}" for each in run.held]
        shown = " ".join(reasons[:REASONS_SHOWN])
        said.append(f"{len(run.held):,} stay{'s' * (len(run.held) == 1)} a draft. {shown}")
    if left > 0:
        said.append(f"{left:,} more wait; finalize again to go on.")
    return " ".join(said)
