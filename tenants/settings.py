"""A tenant's settings: its time zone, what it does without a price, whose costs it trusts."""

from collections.abc import Mapping

from django.db import transaction

from tenants.audit import audited_change
from tenants.models import Tenant
from tenants.scope import change_configuration


@transaction.atomic
def change_settings(*, tenant: Tenant, actor: str, changes: Mapping[str, object]) -> Tenant:
    """Change a tenant's settings. Usage that arrives after the commit is judged by the new ones."""
    change_configuration(tenant.id)
    with audited_change(tenant, actor=actor, changes=changes) as change:
        return change.row


def bump_all_configurations() -> None:
    """After a change of the catalogue: every tenant reads its prices again. In a platform scope."""
    for tenant_id in Tenant.objects.order_by("id").values_list("id", flat=True):
        change_configuration(tenant_id)
