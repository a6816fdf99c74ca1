"""Counts of finished work that a tenant posts, such as solved tickets, to divide costs by."""

from datetime import date

from django.db import transaction

from metering.models import UnitCount


@transaction.atomic
def report_unit_count(*, tenant_id: int, name: str, day: date, count: int) -> UnitCount:
    """Store how many units were finished on a day of the tenant's zone; the last report counts."""
    row, _ = UnitCount.objects.update_or_create(
        tenant_id=tenant_id, name=name, day=day, defaults={"count": count}
    )
    return row
