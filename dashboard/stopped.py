"""The bar above every page while a halt stops the whole tenant."""

from typing import NamedTuple, cast

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from dashboard.access import PageRequest
from metering.models import Halt, HaltKind
from tenants.members import visible_teams
from tenants.models import Tenant
from tenants.roles import SCOPES_BY_ROLE, Scope


class Stopped(NamedTuple):
    """The oldest halt of the whole tenant, and how many more there are. `reason` is empty where it
    speaks of money that the person may not see.
    """

    halt: Halt
    reason: str
    more: int
    by: str
    may_lift: bool


def stopped(request: HttpRequest) -> dict[str, object]:
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
        reason=halts[0].reason if _is_told(request, halts[0]) else "",
        more=len(halts) - 1,
        by=_by(halts[0]),
        may_lift=Scope.MANAGE in SCOPES_BY_ROLE[role],
    )


def _is_told(request: HttpRequest, halt: Halt) -> bool:
    """Whether the person may read why. A rule that stops everything names all teams' spend."""
    member = cast(PageRequest, request)
    teams = visible_teams(tenant_id=member.tenant.id, user_id=member.user.pk, role=member.role)
    return teams is None or halt.kind == HaltKind.MANUAL


def _by(halt: Halt) -> str:
    if halt.kind == HaltKind.BREAKER:
        return "a breaker"
    return "a budget's lockout" if halt.kind == HaltKind.LOCKOUT else halt.actor
