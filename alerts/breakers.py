"""Turn open breakers into incidents: what is open is compared with the incidents there are.

So nothing has to be claimed, and two simultaneous runs do the same.
"""

from datetime import datetime
from typing import Final

from django.db import connection, transaction

from alerts.incidents import Observation, end, observe
from alerts.models import Incident, IncidentKind, Severity
from metering.core.match import Grouping
from metering.limits.breakers.states import OpenGroup, group_values, match_of, open_groups
from metering.models import Breaker, BreakerState, Mode

GROUP_CHARACTERS_MAX: Final = 500
# One transaction opens or ends this many incidents.
CHANGED_MAX: Final = 100


def tenants_with_breakers() -> list[int]:
    """Return tenants with an open breaker, or an incident of one. Needs a platform scope."""
    opened = BreakerState.objects.exclude(opened_at=None).values_list("tenant_id", flat=True)
    unresolved = Incident.objects.filter(kind=IncidentKind.BREAKER, resolved_at=None)
    return sorted({*opened, *unresolved.values_list("tenant_id", flat=True)})


@transaction.atomic
def compare_breakers(*, tenant_id: int, now: datetime) -> int:
    """Open an incident for each group for which a breaker is newly open; end those of the closed.

    An opening is one cause: it is observed once, and what a person resolved stays resolved. Return
    the number of incidents that were opened or ended; the next run continues.
    """
    breakers = {breaker.id: breaker for breaker in Breaker.objects.filter(tenant_id=tenant_id)}
    with connection.cursor() as cursor:
        open_by_breaker = open_groups(cursor, tenant_id, breakers, now=now)
    opened_groups = {
        _cause(group): (breakers[breaker_id], group)
        for breaker_id, groups in open_by_breaker.items()
        for group in groups
    }
    incidents = Incident.objects.filter(tenant_id=tenant_id, kind=IncidentKind.BREAKER)
    known = set(incidents.filter(cause__in=opened_groups).values_list("cause", flat=True))
    unresolved = set(incidents.filter(resolved_at=None).values_list("cause", flat=True))
    opened = sorted(opened_groups.keys() - known)[:CHANGED_MAX]
    for cause in opened:
        observe(tenant_id=tenant_id, observation=_observation(*opened_groups[cause]))
    closed = sorted(unresolved - opened_groups.keys())[: CHANGED_MAX - len(opened)]
    for cause in closed:
        end(tenant_id=tenant_id, cause=cause, summary="The breaker is closed again.")
    return len(opened) + len(closed)


def _observation(breaker: Breaker, group: OpenGroup) -> Observation:
    grouping = Grouping(breaker.match, breaker.per)
    values = group_values(grouping, group.group_key)
    subject = ", ".join(f"{name} {value!r}" for name, value in values.items() if value)
    is_acting = breaker.mode == Mode.ENFORCE
    return Observation(
        kind=IncidentKind.BREAKER,
        cause=_cause(group),
        severity=Severity.CRITICAL if is_acting else Severity.WARNING,
        title=f"Breaker {breaker.name!r} opened" + (f" for {subject}" if subject else ""),
        summary=f"{group.why} {_consequence(breaker)}",
        match=match_of(grouping, group.group_key),
        facts={
            "breaker_id": breaker.id,
            "breaker": breaker.name,
            "group": values,
            "halt_id": group.halt_id,
            "why": group.why,
            "opened_at": group.opened_at.isoformat(),
        },
    )


def _cause(group: OpenGroup) -> str:
    key = group.group_key[:GROUP_CHARACTERS_MAX]
    return f"breaker:{group.breaker_id}:{group.opened_at.timestamp():.6f}:{key}"


def _consequence(breaker: Breaker) -> str:
    if breaker.mode != Mode.ENFORCE:
        return f"It is in {breaker.mode} mode: nothing was stopped."
    if breaker.limit_percent:
        return f"The limits of its budgets count {breaker.limit_percent}% until it closes."
    return "New calls are refused until it closes."
