"""Which incidents a list shows: conditions on rows, for the API and for pages."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from django.db.models import Q

from alerts.models import Severity


def having_status(status: str, now: datetime) -> Q:
    """Incidents that have this status at that time."""
    if status == "resolved":
        return Q(resolved_at__isnull=False)
    is_snoozed = Q(snoozed_until__isnull=False, snoozed_until__gt=now)
    unresolved = Q(resolved_at__isnull=True)
    if status == "snoozed":
        return unresolved & is_snoozed
    return unresolved & ~is_snoozed & Q(acknowledged_at__isnull=status == "open")


def needing_attention(filters: Mapping[str, Sequence[str]], now: datetime) -> Q:
    """Open incidents that are more than informational, of these dimension values."""
    return having_status("open", now) & ~Q(severity=Severity.INFO) & having_values(filters)


def visible_to(teams: Collection[str] | None) -> Q:
    """Incidents that a person may see who may see the money of these teams alone: those that name
    some of the teams and no other. None: all of the tenant's.
    """
    return Q() if teams is None else Q(match__team__contained_by=list(teams))


def deliveries_visible_to(teams: Collection[str] | None) -> Q:
    """Deliveries about such incidents. Digests and reports may tell of other teams' money."""
    return Q() if teams is None else Q(incident__match__team__contained_by=list(teams))


def having_values(filters: Mapping[str, Sequence[str]]) -> Q:
    """Incidents that name, for each of the dimensions, one of its values; empty: the missing one.

    An incident that does not name a dimension is about none of its values.
    """
    condition = Q()
    for name, values in filters.items():
        # A match holds a value or a list of them, and null or an empty string for the missing one.
        stored = [form for value in values for form in ([value] if value else [value, None])]
        named = (
            Q(match__contains={name: form}) for form in (*stored, *([each] for each in stored))
        )
        condition &= Q(*named, _connector=Q.OR)
    return condition
