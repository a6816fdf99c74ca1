"""The routing table: which models do a kind of task, from the cheapest to the best."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from django.db import transaction

from common.errors import Conflict
from metering.models import ModelRoute
from tenants.audit import facts_of, record_change
from tenants.limits import require_room
from tenants.models import Tenant
from tenants.scope import change_configuration

TIERS_MAX: Final = 20
COMPLEXITY_MAX: Final = 10


class RouteExists(Conflict):
    """Another route has this task type."""

    code = "route_exists"


class Tier(NamedTuple):
    """A model, and up to which complexity it is good enough; None for the best one."""

    provider: str
    model: str
    max_complexity: int | None


class RouteRule(NamedTuple):
    """The models of one kind of task, cheapest first."""

    id: int
    task_type: str
    tiers: tuple[Tier, ...]

    @property
    def top(self) -> Tier:
        """The best model, against which savings are measured."""
        return self.tiers[-1]

    def tier_for(self, complexity: int | None) -> Tier:
        """The cheapest model that is good enough for a task.

        Where nobody said how hard the task is, it is the one below the best: cheaper, and not so
        cheap that hard work is likely to fail and be paid for twice.
        """
        if complexity is None:
            return self.tiers[max(0, len(self.tiers) - 2)]
        for tier in self.tiers[:-1]:
            assert tier.max_complexity is not None, "only the best model takes everything"
            if complexity <= tier.max_complexity:
                return tier
        return self.top


class RouteTable:
    """A tenant's routes as of one configuration version."""

    def __init__(self, routes: Iterable[RouteRule] = ()) -> None:
        self._by_task_type = {route.task_type: route for route in routes}

    def __len__(self) -> int:
        return len(self._by_task_type)

    def choose(self, task_type: str | None) -> RouteRule | None:
        """The route of a task type, else the one for tasks that no route names."""
        return self._by_task_type.get(task_type or "") or self._by_task_type.get("")


def read_routes(tenant_id: int) -> RouteTable:
    """The tenant's routes as they are stored."""
    return RouteTable(
        RouteRule(
            id=route.id,
            task_type=route.task_type,
            tiers=tuple(Tier(**tier) for tier in route.tiers),
        )
        for route in ModelRoute.objects.filter(tenant_id=tenant_id).order_by("id")
    )


def tiers_problem(tiers: Sequence[Tier]) -> str | None:
    """Why these are no tiers of a route, as words that follow their name; None where they are."""
    if not 1 <= len(tiers) <= TIERS_MAX:
        return f"must be 1 to {TIERS_MAX} models"
    if len({(tier.provider, tier.model) for tier in tiers}) < len(tiers):
        return "name a model twice"
    if tiers[-1].max_complexity is not None:
        return "must end with a model without a max_complexity: the best one takes everything"
    bounds = [tier.max_complexity for tier in tiers[:-1] if tier.max_complexity is not None]
    if len(bounds) < len(tiers) - 1 or any(not 0 <= bound <= COMPLEXITY_MAX for bound in bounds):
        return f"need a max_complexity from 0 to {COMPLEXITY_MAX} each, but for the last"
    if any(later <= earlier for earlier, later in pairwise(bounds)):
        return "must go from the cheapest to the best, each with a larger max_complexity"
    return None


@transaction.atomic
def create_route(
    *, tenant: Tenant, actor: str, name: str, task_type: str = "", tiers: Sequence[Tier]
) -> ModelRoute:
    """Add a route. An empty task type means any that no other route names. Raises RouteExists."""
    assert tiers_problem(tiers) is None, tiers_problem(tiers)
    change_configuration(tenant.id)
    require_room(tenant.id, "routes", ModelRoute.objects.filter(tenant_id=tenant.id))
    route = ModelRoute(
        tenant=tenant, name=name, task_type=task_type, tiers=[tier._asdict() for tier in tiers]
    )
    _require_own_task_type(route)
    route.save()
    _record(route, actor=actor, action="create", after=facts_of(route))
    return route


@transaction.atomic
def update_route(*, route: ModelRoute, actor: str, changes: Mapping[str, Any]) -> ModelRoute:
    """Change a route's name, task type or tiers. Raises RouteExists."""
    change_configuration(route.tenant_id)
    stored = ModelRoute.objects.select_for_update().get(tenant_id=route.tenant_id, id=route.id)
    before = facts_of(stored)
    for name, value in changes.items():
        setattr(stored, name, value)
    if "tiers" in changes:
        assert tiers_problem(changes["tiers"]) is None, tiers_problem(changes["tiers"])
        stored.tiers = [tier._asdict() for tier in changes["tiers"]]
    _require_own_task_type(stored)
    stored.save()
    _record(stored, actor=actor, action="update", before=before, after=facts_of(stored))
    return stored


@transaction.atomic
def delete_route(*, route: ModelRoute, actor: str) -> None:
    """Remove a route; the next reservation that begins knows it no more."""
    change_configuration(route.tenant_id)
    for stored in ModelRoute.objects.filter(tenant_id=route.tenant_id, id=route.id):
        _record(stored, actor=actor, action="delete", before=facts_of(stored))
        stored.delete()


def _require_own_task_type(route: ModelRoute) -> None:
    """The configuration lock is held alone, so nobody takes the task type meanwhile."""
    others = ModelRoute.objects.filter(tenant_id=route.tenant_id, task_type=route.task_type)
    if others.exclude(id=route.id).exists():
        kind = f"the task type {route.task_type!r}" if route.task_type else "all other task types"
        raise RouteExists(f"There is a route for {kind} already.")


def _record(
    route: ModelRoute,
    *,
    actor: str,
    action: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    record_change(
        tenant_id=route.tenant_id,
        actor=actor,
        action=action,
        subject=route,
        before=before,
        after=after,
    )
