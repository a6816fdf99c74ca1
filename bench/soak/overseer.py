"""People at work while calls are made: limits moved, budgets revised, raises approved, halts."""

import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from bench.kit.caller import Caller
from bench.kit.money import NANOS, nanos_of, usd
from bench.kit.wire import Answer, JsonObject
from bench.soak.caps import Caps
from bench.soak.faults import WEB_SKEW_SECONDS
from bench.soak.records import Memory
from bench.soak.world import HALTED_AGENTS, ROLLING_GRAIN, ROUGH, Budget, Limit, floor_to_minute

EVERY_SECONDS: Final = (0.05, 0.4)
HALT_SECONDS: Final = (2.0, 3.5)
RAISE_SECONDS: Final = (2, 8)
# How much room a window is given beyond what it has used, at first.
ROOMS: Final = Limit(nanos=2 * NANOS, tokens=150_000, requests=60, tool_calls=20)
LEAST_ROOM: Final = -0.05
TIGHT_ROOMS: Final = Limit(nanos=NANOS // 15, tokens=8_000, requests=4, tool_calls=2)
TIGHT_SHARE: Final = 0.5
FULL_PERCENT: Final = 90
FULL_SHARE: Final = 0.3
# The fuller one of this number of budgets is changed.
LOOKED_AT: Final = 2
FACTORS: Final = (0.5, 512.0)
ZONES: Final = ("UTC", "Asia/Kathmandu", "Europe/Berlin")


class HaltSpan(NamedTuple):
    """When a halt was certainly in force, on the shared clock."""

    agent: str
    since: float
    until: float


class Overseer:
    """Changes what calls are judged by, and remembers what it changed."""

    def __init__(
        self,
        *,
        budgets: Sequence[Budget],
        callers: Mapping[str, Caller],
        caps: Caps,
        memory: Memory,
        pick: random.Random,
    ) -> None:
        self.budgets = {budget.id: budget for budget in budgets}
        # Of revised budgets: between which moments the present revision was made.
        self.revised: dict[int, tuple[datetime, datetime]] = {}
        self.halts: list[HaltSpan] = []
        self.memory = memory
        self.callers = callers
        self._caps = caps
        self._pick = pick
        self._factors: dict[int, float] = {}
        self._halt: tuple[str, int, float] | None = None
        self._lift_at = 0.0
        self._keys = 0

    def run(self, stopping: threading.Event) -> None:
        """Work until asked to stop; a halt that stands is lifted at the end."""
        try:
            # Each kind of work at least once, however short the run.
            for way in (self._stop_agent, self._raise, self._hover, self._revise):
                way()
            while not stopping.wait(self._pick.uniform(*EVERY_SECONDS)):
                self._work()
            self._lift()
        except Exception as error:
            self.memory.wrong[f"the overseer ended with {error!r}"] += 1

    def _work(self) -> None:
        if self._halt is not None and time.monotonic() > self._lift_at:
            self._lift()
        ways: dict[Callable[[], None], int] = {
            self._hover: 9,
            self._revise: 1,
            self._raise: 2,
            self._stop_agent: 6,
        }
        (way,) = self._pick.choices(list(ways), list(ways.values()))
        way()

    def _choose(self, is_wanted: Callable[[Budget], bool]) -> Budget:
        return self._pick.choice([budget for budget in self.budgets.values() if is_wanted(budget)])

    # Limits.

    def _hover(self) -> None:
        """Move a limit to where the budget's windows are, so that calls meet its edge."""
        budgets = [self._choose(lambda budget: budget.is_hovering) for _ in range(LOOKED_AT)]
        budget, used = max(
            ((budget, self._used(budget)) for budget in budgets), key=lambda pair: _fullness(*pair)
        )
        if not used:
            return
        self._adapt(budget, used)
        is_tight = self._pick.random() < TIGHT_SHARE
        limit = Limit(
            *(
                None
                if old is None
                else self._next(
                    budget, part, [window[part] or 0 for window in used], is_tight=is_tight
                )
                for part, old in enumerate(budget.limit)
            )
        )
        self._caps.may_become(budget.id, limit, time.monotonic())
        self._change(replace(budget, limit=limit), {"limit": limit.body()})
        self._caps.became(budget.id, time.monotonic())
        self.memory.operations["limit moved"] += 1

    def _used(self, budget: Budget) -> Sequence[Limit]:
        """Return what the windows of the present period have used."""
        path = f"/v1/budgets/{budget.id}/windows?limit=200"
        windows = self._read(budget, "GET", path)["data"]
        return [
            _used(window)
            for window in windows
            if window["window_start"] == windows[0]["window_start"]
        ]

    def _adapt(self, budget: Budget, used: Sequence[Limit]) -> None:
        """Give more room where many windows were full, so that most of the time they are not."""
        factor = self._factors.get(budget.id, 1.0) * (
            2.0 if _fullness(budget, used) > FULL_SHARE else 0.7
        )
        self._factors[budget.id] = min(max(factor, FACTORS[0]), FACTORS[1])

    def _next(self, budget: Budget, part: int, used: Sequence[int], *, is_tight: bool) -> int:
        if is_tight:
            # For a call or two: all who ask now want the same last dollars.
            return max(1, int(max(used) + (TIGHT_ROOMS[part] or 0) * self._pick.random()))
        room = (ROOMS[part] or 0) * self._factors[budget.id] * self._pick.uniform(LEAST_ROOM, 1)
        # Mostly every window gets room, at times only the emptier ones.
        base = max(used) if self._pick.random() < 0.7 else self._pick.choice(used)
        return max(1, int(base + room))

    def _revise(self) -> None:
        """Let a budget start over: from the next minute on, or by the hours of another zone."""
        budget = self._choose(lambda budget: budget.is_revised)
        soon = floor_to_minute(datetime.now(UTC)) + ROLLING_GRAIN
        anchor = soon if self._pick.random() < 0.7 else None
        changed = replace(budget, anchor=anchor, timezone=self._pick.choice(ZONES))
        body = changed.body()
        asked_at = datetime.now(UTC)
        self._change(changed, {"anchor": body["anchor"], "timezone": body["timezone"]})
        if (changed.anchor, changed.timezone) != (budget.anchor, budget.timezone):
            self.revised[budget.id] = asked_at, datetime.now(UTC)
        self.memory.operations["budget revised"] += 1

    def _change(self, budget: Budget, body: object) -> None:
        self._read(budget, "PATCH", f"/v1/budgets/{budget.id}", body)
        self.budgets[budget.id] = budget

    def _raise(self) -> None:
        """Let an agent ask for more and a person approve it; it ends by itself."""
        budget = self._choose(lambda budget: budget.is_raised)
        nanos, seconds = self._pick.randrange(1, NANOS), self._pick.randrange(*RAISE_SECONDS)
        path = f"/v1/budgets/{budget.id}/raises"
        ask = {"by": {"cost_usd": usd(nanos)}, "duration_seconds": seconds, "reason": "soak"}
        asked = self._read(budget, "POST", path, ask, key=self._key())
        left = (datetime.fromisoformat(asked["ends_at"]) - datetime.now(UTC)).total_seconds()
        # The web process that ends it may have another clock than the one that granted it.
        left += 2 * WEB_SKEW_SECONDS
        now = time.monotonic()
        self._caps.may_rise(budget.id, nanos, since=now, until=now + max(0.0, left))
        answer = self.callers[budget.tenant].call("POST", f"{path}/{asked['id']}/approve", {})
        self._check(answer.status == 200 or answer.code == "raise_over", answer)
        self.memory.operations["raise approved"] += 1

    # Halts.

    def _stop_agent(self) -> None:
        if self._halt is not None:
            return
        agent = self._pick.choice(HALTED_AGENTS)
        body = {"match": {"agent": agent}, "reason": "soak"}
        answer = self.callers[ROUGH].call("POST", "/v1/halts", body, key=self._key())
        self._check(answer.status == 201, answer)
        self._halt = agent, answer.json()["id"], time.monotonic()
        self._lift_at = time.monotonic() + self._pick.uniform(*HALT_SECONDS)
        self.memory.operations["halt"] += 1

    def _lift(self) -> None:
        if self._halt is None:
            return
        agent, halt_id, since = self._halt
        self.halts.append(HaltSpan(agent, since, time.monotonic()))
        answer = self.callers[ROUGH].call("DELETE", f"/v1/halts/{halt_id}")
        # Lifted by an attempt whose answer did not come.
        self._check(answer.status in (200, 204, 404), answer)
        self._halt = None

    def _key(self) -> str:
        self._keys += 1
        return f"overseer-{self._keys}"

    def _read(
        self, budget: Budget, method: str, path: str, body: object = None, *, key: str = ""
    ) -> JsonObject:
        answer = self.callers[budget.tenant].call(method, path, body, key=key)
        self._check(answer.status < 300, answer)
        return answer.json()

    def _check(self, holds: bool, answer: Answer) -> None:
        if not holds:
            self.memory.wrong[f"overseer: {answer}"] += 1


def _fullness(budget: Budget, used: Sequence[Limit]) -> float:
    """Return the share of windows that are full, or nearly."""
    full = [
        any(
            limit is not None and (have or 0) * 100 >= limit * FULL_PERCENT
            for have, limit in zip(window, budget.limit, strict=True)
        )
        for window in used
    ]
    return statistics.mean(full) if full else 0.0


def _used(window: JsonObject) -> Limit:
    """Return what a window's parts have used, as the API shows it."""
    return Limit(
        nanos=nanos_of(window["spent_usd"]) + nanos_of(window["reserved_usd"]),
        tokens=window["spent_tokens"] + window["reserved_tokens"],
        requests=window["spent_requests"] + window["reserved_requests"],
        tool_calls=window["spent_tool_calls"] + window["reserved_tool_calls"],
    )
