"""The routing table: which models do a kind of task, from the cheapest to the best."""

from collections.abc import Iterable
from typing import NamedTuple

from metering.models import ModelRoute


class Tier(NamedTuple):
    """A model, and up to which complexity it is good enough; None for the best one."""

    provider: str
    model: str
    max_complexity: int | None

    @property
    def model_key(self) -> tuple[str, str]:
        """The provider and the model."""
        return self.provider, self.model


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
