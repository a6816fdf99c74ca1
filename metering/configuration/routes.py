"""The routing table as configuration: routes made, changed, removed."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from django.db import transaction

from common.errors import Conflict
from common.json_bodies import JsonObject
from metering.core.dimensions import VALUE_CHARACTERS_MAX
from metering.core.validation import Problem, require, require_row
from metering.limits.routes import Tier
from metering.models import ModelRoute
from tenants.audit import audited_change, create_audited, delete_audited
from tenants.kinds import Kind
from tenants.limits import require_room
from tenants.models import Tenant
from tenants.scope import change_configuration

TIERS_MAX: Final = 20
COMPLEXITY_MAX: Final = 10


class RouteExists(Conflict):
    """Another route has this task type."""

    code = "route_exists"


def validate_tiers(tiers: Sequence[Tier]) -> None:
    """Raise ValidationError for what is no list of models from the cheapest to the best."""
    require(_tier_problems(tiers))


def _tier_problems(tiers: Sequence[Tier]) -> Iterator[Problem]:
    bounds = [tier.max_complexity for tier in tiers[:-1] if tier.max_complexity is not None]
    if not 1 <= len(tiers) <= TIERS_MAX:
        yield Problem("tiers", f"Give 1 to {TIERS_MAX} models.")
    elif any(
        not 1 <= len(name) <= VALUE_CHARACTERS_MAX for tier in tiers for name in tier.model_key
    ):
        yield Problem("tiers", f"Names have 1 to {VALUE_CHARACTERS_MAX} characters.")
    elif len({tier.model_key for tier in tiers}) < len(tiers):
        yield Problem("tiers", "A model is named twice.")
    elif tiers[-1].max_complexity is not None:
        yield Problem("tiers", "The last has no max_complexity: the best one takes everything.")
    elif len(bounds) < len(tiers) - 1 or not all(0 <= bound <= COMPLEXITY_MAX for bound in bounds):
        yield Problem(
            "tiers", f"Each model but the last has a max_complexity from 0 to {COMPLEXITY_MAX}."
        )
    elif any(later <= earlier for earlier, later in pairwise(bounds)):
        yield Problem(
            "tiers",
            "Models go from the cheapest to the best, each with a larger max_complexity.",
        )


def _row_fields(fields: JsonObject) -> JsonObject:
    """Return a route's fields as its columns have them. Raises ValidationError."""
    if "tiers" not in fields:
        return dict(fields)
    validate_tiers(fields["tiers"])
    return {**fields, "tiers": [tier._asdict() for tier in fields["tiers"]]}


@transaction.atomic
def create_route(*, tenant: Tenant, actor: str, **fields: object) -> ModelRoute:
    """Add a route; its `tiers` are a list of Tier. An empty task type means any that no other route
    names. Raises ValidationError and RouteExists.
    """
    route = ModelRoute(tenant=tenant, **_row_fields(fields))
    require_row(route, ())
    change_configuration(tenant.id)
    require_room(tenant.id, "routes", ModelRoute.objects.filter(tenant_id=tenant.id))
    _require_own_task_type(route)
    return create_audited(route, actor=actor)


@transaction.atomic
def update_route(route: ModelRoute, *, actor: str, changes: JsonObject) -> ModelRoute:
    """Change a route's name, task type or tiers. Raises ValidationError and RouteExists."""
    change_configuration(route.tenant_id)
    with audited_change(route, actor=actor, changes=_row_fields(changes)) as change:
        require_row(change.row, ())
        _require_own_task_type(change.row)
    return change.row


@transaction.atomic
def delete_route(route: ModelRoute, *, actor: str) -> None:
    """Remove a route; the next reservation that begins does not know it."""
    change_configuration(route.tenant_id)
    delete_audited(route, actor=actor)


def _require_own_task_type(route: ModelRoute) -> None:
    """The configuration lock is held alone, so no one takes the task type meanwhile."""
    others = ModelRoute.objects.filter(tenant_id=route.tenant_id, task_type=route.task_type)
    if others.exclude(id=route.id).exists():
        kind = f"the task type {route.task_type!r}" if route.task_type else "all other task types"
        raise RouteExists(f"There is a route for {kind} already.")


ROUTES: Final = Kind(create_route, update_route, delete_route)
