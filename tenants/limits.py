"""How much a tenant may configure. What a tenant sets up costs every process that judges its calls
memory and time, so none may set up without end; the operator gives more to who needs it.
"""

from collections.abc import Mapping
from typing import Final

from django.db import connection, models, transaction

from common.errors import LimitReached
from tenants.audit import audited_change
from tenants.models import Tenant

# Budgets, customers and plans that are not archived, manual halts in force, keys that are not
# revoked, members with pending invitations, prices that have not ended, requests that wait.
LIMITS: Final[Mapping[str, int]] = {
    "budgets": 2_000,
    "halts": 1_000,
    "breakers": 100,
    "rate_limits": 100,
    "routes": 100,
    "prices": 1_000,
    "raises": 500,
    "channels": 200,
    "keys": 500,
    "members": 500,
    "teams": 500,
    "saved_views": 1_000,
    "scheduled_reports": 200,
    "customers": 20_000,
    "plans": 500,
    "subscriptions": 50_000,
}
# The most that the operator may allow: beyond it processes would not bear it.
LIMIT_MAX: Final = 100_000
# Two that come simultaneously are counted one after the other.
LIMIT_LOCK: Final = 7306


def allowed(tenant_id: int, name: str) -> int:
    """Return the number of something that a tenant may have."""
    limits = Tenant.objects.values_list("limits", flat=True).get(id=tenant_id)
    return int(limits.get(name, LIMITS[name]))


def require_room(
    tenant_id: int, name: str, *in_use: models.QuerySet[models.Model], is_exact: bool = True
) -> None:
    """See that one more fits beside what the querysets count. Raises LimitReached.

    Within the transaction that adds it, after any other lock that it takes: until that ends, no one
    else adds what is limited. With `is_exact` off it waits for no one, and those that come
    simultaneously may pass the limit by their number.
    """
    if is_exact:
        lock_room(tenant_id)
    most = allowed(tenant_id, name)
    if sum(rows.count() for rows in in_use) >= most:
        raise LimitReached(name, most)


def lock_room(tenant_id: int) -> None:
    """Let no one else add what is limited until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LIMIT_LOCK, tenant_id])


@transaction.atomic
def set_limit(*, tenant: Tenant, name: str, value: int | None, actor: str) -> int:
    """Allow a tenant another number of something; None: as many as everybody. Return the number.

    What a tenant has beyond a lower limit stays.
    """
    if name not in LIMITS:
        raise ValueError(f"{name!r} is not limited; choose one of {', '.join(LIMITS)}")
    if value is not None and not 0 <= value <= LIMIT_MAX:
        raise ValueError(f"a limit must be from 0 to {LIMIT_MAX:,}")
    with audited_change(tenant, actor=actor) as change:
        limits = {other: limit for other, limit in change.row.limits.items() if other != name}
        change.row.limits = limits if value is None else {**limits, name: value}
    return allowed(tenant.id, name)
