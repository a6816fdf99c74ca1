"""The budgets of the proof, and what their windows must hold, computed here from what was sent."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from bench.exactly_once.calls import Call

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Sums(NamedTuple):
    """What calls add up to."""

    nanos: int = 0
    tokens: int = 0
    requests: int = 0
    tool_calls: int = 0

    def plus(self, call: Call) -> "Sums":
        """With one more call."""
        return Sums(
            self.nanos + call.cost_nanos,
            self.tokens + call.tokens,
            self.requests + (not call.is_tool),
            self.tool_calls + call.is_tool,
        )


class Place(NamedTuple):
    """One window: the values of its group, and its begin in UTC."""

    group: tuple[str, ...]
    starts_at: datetime


@dataclass(frozen=True)
class Budget:
    """A budget to be made over HTTP; `id` and `made_at` once it was."""

    name: str
    period: str
    per: tuple[str, ...] = ()
    match: Mapping[str, str] = field(default_factory=dict)
    timezone: str = "UTC"
    id: int = 0
    made_at: datetime = EPOCH

    def body(self) -> dict[str, Any]:
        """The budget as the API takes it."""
        return {
            "name": self.name,
            "match": dict(self.match),
            "per": list(self.per),
            "period": self.period,
            "timezone": self.timezone,
            "limit": {"cost_usd": "1000000"},
            "mode": "warn",
            "levels": [{"percent": 1, "notify": [], "action": "none"}],
        }

    def starts_at(self, at: datetime) -> datetime:
        """The begin of the period that holds a moment."""
        if self.period == "lifetime":
            return EPOCH
        local = at.astimezone(ZoneInfo(self.timezone))
        day = 1 if self.period == "month" else local.day
        return local.replace(day=day, hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)

    def windows(self, calls: Iterable[Call]) -> dict[Place, Sums]:
        """What every window must hold. A budget counts from the begin of its first period."""
        counts_from = self.starts_at(self.made_at)
        sums: dict[Place, Sums] = {}
        for call in calls:
            is_matched = all(getattr(call, name) == value for name, value in self.match.items())
            if not is_matched or call.at < counts_from:
                continue
            place = Place(tuple(getattr(call, name) for name in self.per), self.starts_at(call.at))
            sums[place] = sums.get(place, Sums()).plus(call)
        return sums


TENANT: Final = Budget("Everything, monthly", "month")
AGENTS: Final = Budget("Each agent, daily", "day", per=("agent",))
CUSTOMERS: Final = Budget("Each customer, monthly", "month", per=("customer",))
TEAMS: Final = Budget("Each team, daily in Berlin", "day", per=("team",), timezone="Europe/Berlin")
# Made while events arrive, so it must count what came before it and nothing twice.
LATE: Final = Budget(
    "Team 3, by customer and agent", "lifetime", per=("customer", "agent"), match={"team": "team-3"}
)
