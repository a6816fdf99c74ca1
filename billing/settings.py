"""How a tenant bills: who its statements are from, and what happens by itself."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from django.db import transaction

from billing.models import BillingSettings
from metering.core.validation import Problem, require_row
from tenants.audit import audited_change
from tenants.models import Tenant

FINALIZE_AFTER_DAYS_MAX: Final = 60
# Numbers are printed, and are in names of files and headers, in spreadsheets and at Stripe.
PREFIX: Final = re.compile(r"([^\W_][-\w ./#]*)?")


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
        require_row(change.row, _problems(change.row))
    return change.row


def _problems(settings: BillingSettings) -> Iterator[Problem]:
    for name in ("statement_prefix", "credit_note_prefix"):
        if not PREFIX.fullmatch(getattr(settings, name)):
            yield Problem(name, "Begin with a letter or digit; use these, spaces and - _ . / #")
