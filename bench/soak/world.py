"""What the soak spends on: tenants, their budgets, and where a call counts, as this side sees it.

Pure: it knows what the contract says of budgets and nothing of the service.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from bench.kit.money import NANOS, usd
from bench.kit.wire import JsonObject

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What leaves a rolling hour leaves it by the minute.
ROLLING_GRAIN: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)

# The tidy tenant, the rough one, and one that reports in bulk, without asking first.
# In the tidy tenant all usage is reserved, settled in time and within its tokens, so that nothing
# excuses a window beyond its limit but recorded overrun. In the rough one everything happens.
TIDY: Final = "tidy"
ROUGH: Final = "rough"
BULK: Final = "bulk"
COMPARED: Final = (TIDY, ROUGH, BULK)
AGENTS: Final = tuple(f"agent-{number}" for number in range(8))
HALTED_AGENTS: Final = ("agent-0", "agent-1")
PACED_AGENT: Final = "paced"
PACED_PER_MINUTE: Final = 8
FEATURES: Final = ("draft", "search", "review")
# Nothing is reserved for this one: events name it only when they settle.
LATE_FEATURE: Final = "named-late"
CALL_LIMIT_NANOS: Final = NANOS // 20


class Amounts(NamedTuple):
    """What a call uses, or windows hold."""

    nanos: int = 0
    tokens: int = 0
    requests: int = 0
    tool_calls: int = 0

    def plus(self, other: "Amounts") -> "Amounts":
        """Return the sum, part by part."""
        return Amounts(
            self.nanos + other.nanos,
            self.tokens + other.tokens,
            self.requests + other.requests,
            self.tool_calls + other.tool_calls,
        )


NOTHING: Final = Amounts()


def integers(row: Sequence[Any]) -> Amounts:
    """Return amounts from a row of the database, whose sums are decimals."""
    return Amounts(*map(int, row))


class Limit(NamedTuple):
    """A budget's limits, None for no limit; parts as in Amounts."""

    nanos: int | None = None
    tokens: int | None = None
    requests: int | None = None
    tool_calls: int | None = None

    def body(self) -> JsonObject:
        """Return it as the API takes it."""
        parts: JsonObject = {
            "cost_usd": None if self.nanos is None else usd(self.nanos),
            "tokens": self.tokens,
            "requests": self.requests,
            "tool_calls": self.tool_calls,
        }
        return {name: value for name, value in parts.items() if value is not None}


class WindowKey(NamedTuple):
    """A window within its budget: the values of its group, and its begin."""

    group: tuple[str, ...]
    starts_at: datetime


@dataclass(frozen=True)
class Budget:
    """A budget; `id` once it was made."""

    tenant: str
    name: str
    period: str
    limit: Limit
    per: tuple[str, ...] = ()
    match: Mapping[str, str | None] = field(default_factory=dict)
    timezone: str = "UTC"
    anchor: datetime | None = None
    is_rolling: bool = False
    has_rollover: bool = False
    mode: str = "enforce"
    # What happens to it while calls are made.
    is_hovering: bool = False
    is_revised: bool = False
    is_raised: bool = False
    id: int = 0

    @property
    def blocks(self) -> bool:
        """Whether it refuses calls."""
        return self.mode == "enforce"

    @property
    def is_per_request(self) -> bool:
        """Whether it limits each call by itself; such budgets have no windows of their own."""
        return "request" in self.per

    def body(self) -> JsonObject:
        """Return it as the API takes it."""
        return {
            "name": self.name,
            "match": dict(self.match),
            "per": list(self.per),
            "period": self.period,
            "timezone": self.timezone,
            "anchor": None if self.anchor is None else self.anchor.isoformat(),
            "rolling": self.is_rolling,
            "rollover": self.has_rollover,
            "limit": self.limit.body(),
            "mode": self.mode,
            "levels": [{"percent": 100, "notify": [], "action": "block"}],
        }

    def matches(self, values: Mapping[str, str]) -> bool:
        """Whether a call with these dimensions counts."""
        return all(values.get(name, "") == (value or "") for name, value in self.match.items())

    def window_key(self, values: Mapping[str, str], at: datetime) -> WindowKey | None:
        """Return where a call counts, if it does."""
        if not self.matches(values):
            return None
        return WindowKey(tuple(values.get(name, "") for name in self.per), self.starts_at(at))

    def starts_at(self, at: datetime) -> datetime:
        """Return the start of the period that holds a time."""
        if self.period == "lifetime" or self.is_rolling:
            return EPOCH
        if self.anchor is not None:
            return self.anchor + (at - self.anchor) // HOUR * HOUR
        local = at.astimezone(ZoneInfo(self.timezone))
        if self.period == "hour":
            return local.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
        day = 1 if self.period == "month" else local.day
        return local.replace(day=day, hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)

    def counted_from(self, moment: datetime) -> datetime:
        """Return from when a budget made at this time counts."""
        if not self.is_rolling:
            return self.starts_at(moment)
        return floor_to_minute(moment - HOUR)


def floor_to_minute(at: datetime) -> datetime:
    """Return the last full minute."""
    return at.replace(second=0, microsecond=0)


def group_of(group_key: str) -> tuple[str, ...]:
    """Return a window's group from the text that the database has."""
    return tuple(json.loads(group_key))


def _hovering(
    tenant: str, name: str, period: str, *parts: str, room: int = 1, **more: Any
) -> Budget:
    """Return a budget whose limit follows what is spent, so that calls always meet its edge."""
    first = {
        "nanos": room * 2 * NANOS,
        "tokens": room * 200_000,
        "requests": room * 100,
        "tool_calls": room * 20,
    }
    limit = Limit(**{part: first[part] for part in parts})
    return Budget(tenant, name, period, limit, is_hovering=True, **more)


def budgets_of_the_soak(now: datetime) -> Sequence[Budget]:
    """Return budgets of all kinds; the anchored ones begin a new period at the next minutes."""
    minute = floor_to_minute(now)
    soon, later = minute + ROLLING_GRAIN, minute + 2 * ROLLING_GRAIN
    return (
        _hovering(TIDY, "Everything, without end", "lifetime", "nanos", room=4),
        _hovering(
            TIDY,
            "Each agent, by an hour of its own",
            "hour",
            *("nanos", "tokens", "requests"),
            per=("agent",),
            anchor=soon,
        ),
        Budget(
            TIDY,
            "Each session",
            "lifetime",
            Limit(nanos=NANOS // 4, tokens=40_000, requests=14, tool_calls=4),
            per=("session",),
        ),
        Budget(TIDY, "Each call", "month", Limit(nanos=CALL_LIMIT_NANOS), per=("request",)),
        Budget(TIDY, "In shadow", "month", Limit(nanos=1), per=("user",), mode="shadow"),
        _hovering(
            TIDY, "One team's tools", "day", "tokens", "tool_calls", match={"team": "team-0"}
        ),
        _hovering(ROUGH, "Everything, monthly", "month", "nanos", room=4),
        _hovering(
            ROUGH,
            "Each agent and feature, the last hour",
            "hour",
            "nanos",
            per=("agent", "feature"),
            is_rolling=True,
        ),
        _hovering(
            ROUGH,
            "Each agent, recounted now and then",
            "hour",
            "nanos",
            per=("agent",),
            anchor=soon,
            is_revised=True,
        ),
        _hovering(
            ROUGH, "Calls without a team", "hour", "nanos", match={"team": None}, per=("feature",)
        ),
        _hovering(
            ROUGH,
            "Each team, with what it left",
            "hour",
            "nanos",
            per=("team",),
            anchor=later,
            has_rollover=True,
        ),
        Budget(
            ROUGH,
            "Raised for a while",
            "lifetime",
            Limit(nanos=NANOS // 2),
            match={"feature": FEATURES[0]},
            per=("agent",),
            is_raised=True,
            is_hovering=True,
        ),
        Budget(
            ROUGH,
            "Named when it settles",
            "lifetime",
            Limit(nanos=NANOS),
            match={"feature": LATE_FEATURE},
            mode="warn",
        ),
        Budget(
            ROUGH,
            "Each user in Kathmandu",
            "day",
            Limit(nanos=NANOS),
            per=("user",),
            timezone="Asia/Kathmandu",
            mode="warn",
        ),
        _counting("Each agent, daily", "day", per=("agent",)),
        _counting("Each customer, monthly", "month", per=("customer",)),
        _counting("Each team, daily in Berlin", "day", per=("team",), timezone="Europe/Berlin"),
    )


def _counting(name: str, period: str, **more: Any) -> Budget:
    """Return a budget of the reporting tenant, which stops nothing."""
    return Budget(BULK, name, period, Limit(nanos=1_000_000 * NANOS), mode="warn", **more)


# Made while events arrive, so it must count what came before it and nothing twice.
LATE: Final = _counting(
    "Team 3, by customer and agent", "lifetime", per=("customer", "agent"), match={"team": "team-3"}
)
