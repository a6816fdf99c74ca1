"""Turn reconciliations that found too much of a difference into incidents: one for each kind of
comparison, until one that covers the same days finds that all agrees.
"""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Final

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Abs
from django.utils import timezone

from alerts.incidents import Observation, end, observe
from alerts.models import Incident, IncidentKind, Severity
from billing.models import Drift, Reconciliation, ReconciliationKind, ReconciliationState
from billing.reconciliation.results import USD, KindResult, decimal_string
from billing.reconciliation.runs import threshold_of
from common.money import NANOS_PER_USD
from tenants.runs import tenants_of

# One transaction takes this many.
TAKEN_MAX: Final = 10
TITLES: Final[Mapping[str, str]] = {
    ReconciliationKind.PROVIDERS: "Providers' bills differ from the cost of usage",
    ReconciliationKind.STATEMENTS: "Final statements differ from usage",
    ReconciliationKind.STRIPE: "Invoices in Stripe differ from statements",
}
AGREES: Final = "A later reconciliation of the same days found that they agree."


def tenants_with_reconciliations() -> list[int]:
    """Return tenants with reconciliations that were not looked at. Needs a platform scope."""
    return tenants_of(_finished())


def _finished() -> QuerySet[Reconciliation]:
    return Reconciliation.objects.filter(state=ReconciliationState.DONE, judged_at=None)


@transaction.atomic
def take_reconciliations(*, tenant_id: int) -> int:
    """Claim finished reconciliations, and open, update or end the incidents of their kinds; return
    their number. A claim and its incidents are one transaction.
    """
    rows = _finished().select_for_update(skip_locked=True).filter(tenant_id=tenant_id)
    taken = list(rows.order_by("id")[:TAKEN_MAX])
    for row in taken:
        for kind in row.kinds:
            _judge(row, kind, KindResult.read(row.results[kind]))
    Reconciliation.objects.filter(id__in=[row.id for row in taken]).update(judged_at=timezone.now())
    return len(taken)


def _judge(row: Reconciliation, kind: str, result: KindResult) -> None:
    if not result.is_connected:
        return
    cause = f"reconciliation:{kind}"
    unresolved = Incident.objects.filter(tenant_id=row.tenant_id, cause=cause, resolved_at=None)
    incident = unresolved.first()
    first, last = row.first_day, row.last_day
    if incident is not None:
        first = min(first, date.fromisoformat(incident.facts["first_day"]))
        last = max(last, date.fromisoformat(incident.facts["last_day"]))
    if result.exceeds(threshold_of(row, kind)):
        observation = _observation(row, kind, result, days=(first, last))
        observe(tenant_id=row.tenant_id, observation=observation)
    elif incident is not None and (first, last) == (row.first_day, row.last_day):
        end(tenant_id=row.tenant_id, cause=cause, summary=AGREES)


def _observation(
    row: Reconciliation, kind: str, result: KindResult, *, days: tuple[date, date]
) -> Observation:
    usd = result.sums.get(USD)
    beyond = _nanos(usd.found - usd.expected) if usd is not None else 0
    return Observation(
        kind=IncidentKind.RECONCILIATION,
        cause=f"reconciliation:{kind}",
        severity=Severity.WARNING,
        title=TITLES[kind],
        summary=(summary := _summary(row, kind, result)),
        match={},
        facts={
            "reconciliation_id": row.id,
            "compared": kind,
            "first_day": days[0].isoformat(),
            "last_day": days[1].isoformat(),
            "drifts": result.drifts,
            "difference_nanos": beyond,
            "absolute_nanos": _nanos(usd.absolute) if usd is not None else 0,
        },
        excess_nanos=beyond if beyond > 0 else None,
        entry=summary,
    )


def _summary(row: Reconciliation, kind: str, result: KindResult) -> str:
    together = " and ".join(
        f"{decimal_string(sums.absolute)} {currency}"
        for currency, sums in sorted(result.sums.items())
        if sums.absolute
    )
    return (
        f"{result.drifts:,} of {result.compared:,} figures from {row.first_day} to {row.last_day}"
        f" differ, by {together} together.{_largest(row, kind)}"
        f" See /v1/reconciliations/{row.id}/drifts."
    )


def _largest(row: Reconciliation, kind: str) -> str:
    """Return a sentence about the largest difference in dollars, with a space before it."""
    drifts = Drift.objects.filter(reconciliation=row, kind=kind, unit=USD)
    largest = drifts.order_by(Abs("difference").desc(), "id").first()
    if largest is None:
        return ""
    what = largest.model or largest.line_item or largest.line or "everything"
    of_day = f" on {largest.day}" if largest.day is not None else ""
    whose = f" of {largest.provider}" if largest.provider else ""
    more = "more" if largest.difference > 0 else "less"
    amount = decimal_string(abs(largest.difference))
    return f" The largest: {what}{whose}{of_day}, {amount} USD {more} than expected."


def _nanos(usd: Decimal) -> int:
    return int(usd * NANOS_PER_USD)
