"""A tenant's settings: its time zone, what it does without a price, whose costs it trusts."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from tenants.audit import facts_of, record_change
from tenants.models import Tenant
from tenants.scope import change_configuration


@transaction.atomic
def change_settings(*, tenant: Tenant, actor: str, changes: Mapping[str, Any]) -> Tenant:
    """Change a tenant's settings. Usage that arrives after the commit is judged by the new ones."""
    change_configuration(tenant.id)
    stored = Tenant.objects.select_for_update().get(id=tenant.id)
    before = facts_of(stored)
    for name, value in changes.items():
        setattr(stored, name, value)
    stored.save(update_fields=list(changes) or None)
    record_change(
        tenant_id=stored.id,
        actor=actor,
        action="update",
        subject=stored,
        before=before,
        after=facts_of(stored),
    )
    return stored
