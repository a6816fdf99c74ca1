"""The bar above every page while a halt stops the whole tenant."""

from typing import Any, NamedTuple

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from metering.models import Halt, HaltKind
from tenants.models import Tenant
from tenants.roles import SCOPES_BY_ROLE, Scope


class Stopped(NamedTuple):
    """The oldest halt of the whole tenant, and how many more there are."""

    halt: Halt
    more: int
    by: str
    may_lift: bool


def stopped(request: HttpRequest) -> dict[str, Any]:
    """For templates: `stopped`, read only where a page shows it."""
    return {"stopped": SimpleLazyObject(lambda: _stopped(request))}


def _stopped(request: HttpRequest) -> Stopped | None:
    tenant: Tenant | None = getattr(request, "tenant", None)
    role = getattr(request, "role", None)
    if tenant is None or role is None:
        return None
    in_force = Halt.objects.filter(tenant=tenant, lifted_at=None, match={})
    halts = list(in_force.order_by("since", "id"))
    if not halts:
        return None
    return Stopped(
        halt=halts[0],
        more=len(halts) - 1,
        by=_by(halts[0]),
        may_lift=Scope.MANAGE in SCOPES_BY_ROLE[role],
    )


def _by(halt: Halt) -> str:
    if halt.kind == HaltKind.BREAKER:
        return "a breaker"
    return "a budget's lockout" if halt.kind == HaltKind.LOCKOUT else halt.actor
