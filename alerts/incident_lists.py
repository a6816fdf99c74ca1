"""Which incidents a list shows: conditions on rows, for the API and for pages."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from django.db.models import Q

STATUSES: Final = ("open", "acknowledged", "snoozed", "resolved")


def having_status(status: str, now: datetime) -> Q:
    """Incidents of which `alerts.incidents.status_of` answers this status at that moment."""
    if status == "resolved":
        return Q(resolved_at__isnull=False)
    is_snoozed = Q(snoozed_until__isnull=False, snoozed_until__gt=now)
    unresolved = Q(resolved_at__isnull=True)
    if status == "snoozed":
        return unresolved & is_snoozed
    return unresolved & ~is_snoozed & Q(acknowledged_at__isnull=status == "open")


def about(filters: Mapping[str, Sequence[str]]) -> Q:
    """Incidents that name, for each of the dimensions, one of its values; empty: the missing one.

    An incident that does not say a dimension is about none of its values.
    """
    found = Q()
    for name, values in filters.items():
        found &= Q(*(_names(name, value) for value in values), _connector=Q.OR)
    return found


def _names(name: str, value: str) -> Q:
    # A match holds a value or a list of them, and null or an empty string for the missing one.
    forms: list[str | None] = [value] if value else [value, None]
    found = Q()
    for form in forms:
        found |= Q(match__contains={name: form}) | Q(match__contains={name: [form]})
    return found
