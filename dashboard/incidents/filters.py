"""Which incidents a page shows: by status, kind, severity, dimension values and time."""

from dataclasses import dataclass, replace
from typing import Any, Final

from django.db.models import Q, QuerySet

from alerts.incident_lists import having_values, visible_to
from alerts.models import Incident, IncidentKind, Severity
from dashboard.access import PageRequest
from dashboard.filter_bar import FilterBar
from dashboard.frame import filter_bar_of

STATUSES: Final = {
    "open": "Open",
    "acknowledged": "Acknowledged",
    "snoozed": "Snoozed",
    "resolved": "Resolved",
}
KINDS: Final = {
    IncidentKind.CROSSING.value: "Budget level",
    IncidentKind.ANOMALY.value: "Anomaly",
    IncidentKind.RULE.value: "Rule",
    IncidentKind.LOOP.value: "Loop",
    IncidentKind.BREAKER.value: "Breaker",
    IncidentKind.RECONCILIATION.value: "Reconciliation",
}
# The worst first.
SEVERITIES: Final = {
    Severity.CRITICAL.value: "Critical",
    Severity.WARNING.value: "Warning",
    Severity.INFO.value: "Info",
}


@dataclass(frozen=True)
class Filter:
    """What the page was asked to show. Dimension values are chips of the filter bar."""

    bar: FilterBar
    status: str = ""
    kind: str = ""
    severity: str = ""

    @property
    def further(self) -> dict[str, str]:
        """What is asked for besides the filter bar, as an address has it."""
        pairs = {"status": self.status, "kind": self.kind, "severity": self.severity}
        return {name: value for name, value in pairs.items() if value}

    @property
    def is_narrow(self) -> bool:
        return bool(self.further or self.bar.chips)

    def query(self, **changes: Any) -> str:
        """This filter, changed, as a query string."""
        changed = replace(self, **changes)
        return changed.bar.with_further(changed.further).query()


def read_filter(request: PageRequest) -> Filter:
    """The filter of an address. What is not understood is left out and said."""
    bar = filter_bar_of(request)
    notices = list(bar.notices)
    chosen = {}
    for name, known in (("status", STATUSES), ("kind", KINDS), ("severity", SEVERITIES)):
        value = request.GET.get(name, "")
        if value and value not in known:
            notices.append(f"This {name} is not known, so incidents of every {name} are shown.")
            value = ""
        chosen[name] = value
    return Filter(bar=replace(bar, notices=tuple(notices)), **chosen)


def incidents_of(tenant_id: int, bar: FilterBar) -> QuerySet[Incident]:
    """Unresolved incidents, however old, and those of the period; only what the chips name."""
    span = bar.range
    in_period = Q(resolved_at__gte=span.starts_at, opened_at__lt=span.ends_at)
    rows = Incident.objects.filter(
        Q(resolved_at=None) | in_period,
        visible_to(bar.teams),
        having_values(bar.filters),
        tenant_id=tenant_id,
    )
    return rows.select_related("assigned_to")
