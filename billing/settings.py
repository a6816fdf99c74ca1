"""How a tenant bills: who its statements are from, and what happens by itself."""

from collections.abc import Mapping
from typing import Final

from django.db import transaction

from billing.models import BillingSettings
from metering.core.validation import require_row
from tenants.audit import audited_change
from tenants.models import Tenant

FINALIZE_AFTER_DAYS_MAX: Final = 60


def billing_settings(tenant_id: int) -> BillingSettings:
    """Return how a tenant bills: what it set, or the defaults."""
    stored = BillingSettings.objects.filter(tenant_id=tenant_id).first()
    return stored or BillingSettings(tenant_id=tenant_id)


@transaction.atomic
def change_billing_settings(
    tenant: Tenant, *, actor: str, changes: Mapping[str, object]
) -> BillingSettings:
    """Change what is named, for statements that become final from now on. Raises
    ValidationError.
    """
    BillingSettings.objects.bulk_create([BillingSettings(tenant=tenant)], ignore_conflicts=True)
    with audited_change(billing_settings(tenant.id), actor=actor, changes=changes) as change:
        require_row(change.row, ())
    return change.row
