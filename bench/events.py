"""The events that the benchmarks send: skewed as real customers are, 900 windows touched by a
thousand.

200 customers, 10 teams of 5 agents, 20 features, 1,000 users, 8 models. Popularity falls with rank
as among the clients of ServeGen (`demo/data/SOURCES.md`): the first of 200 customers makes a tenth.
"""

import itertools
import json
import random
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

CUSTOMERS: Final = 200
TEAMS: Final = 10
AGENTS: Final = 50
FEATURES: Final = 20
USERS: Final = 1_000
MODELS: Final = (
    ("anthropic", "claude-sonnet-4-5"),
    ("openai", "gpt-5-mini"),
    ("anthropic", "claude-haiku-4-5"),
    ("openai", "gpt-5"),
    ("google", "gemini-2.5-flash"),
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-opus-4-1"),
    ("google", "gemini-2.5-pro"),
)
DAYS: Final = 30
# Of steady sessions.
CALLS_A_SESSION: Final = 12
CALL_SECONDS: Final = 20
HELPER_SHARE: Final = 0.2
ERROR_SHARE: Final = 0.01

BUDGETS: Final = (
    {"name": "everything", "period": "month"},
    {"name": "per agent", "per": ["agent"], "period": "day"},
    {"name": "per customer", "per": ["customer"], "period": "month"},
    {"name": "per team", "per": ["team"], "period": "day", "timezone": "Europe/Berlin"},
    {"name": "per customer and agent", "per": ["customer", "agent"], "period": "day"},
)


def budget_bodies() -> list[dict[str, object]]:
    """Return five budgets that every event matches."""
    levels: list[dict[str, object]] = [
        {"percent": percent, "notify": [], "action": "none"} for percent in (70, 100)
    ]
    return [
        {"match": {}, "limit": {"cost_usd": "1000000"}, "mode": "warn", "levels": levels, **budget}
        for budget in BUDGETS
    ]


class Load:
    """A seeded stream of batches. A share of the calls is reported a second time, a batch later, by
    a source that knows neither team nor customer.

    Dimensions are drawn for each call by itself, which makes as many combinations as there can be.
    With steady sessions the calls of one have the same user, customer, team and feature, follow
    each other within minutes, and are mostly made by one agent with one model.
    """

    def __init__(
        self,
        *,
        seed: int,
        name: str,
        days: float,
        until_days_ago: float = 0,
        told_twice_share: float = 0,
        has_steady_sessions: bool = False,
    ) -> None:
        self._random = random.Random(seed)
        self._name = name
        self._days = days
        self._until_days_ago = until_days_ago
        self._numbers = itertools.count()
        self._told_twice_share = told_twice_share
        self._has_steady_sessions = has_steady_sessions
        self._second_reports: deque[str] = deque()

    def bodies(self, *, batches: int, size: int) -> list[bytes]:
        """Return request bodies of `size` events each."""
        return [("[" + ",".join(self._reports(size)) + "]").encode() for _ in range(batches)]

    def single_bodies(self, count: int) -> list[bytes]:
        """Return request bodies of one event each."""
        return [event.encode() for event in self._events(count)]

    def _reports(self, count: int) -> list[str]:
        """Return reports: second ones of calls of the batch before, then calls."""
        again = [self._second_reports.popleft() for _ in range(len(self._second_reports))]
        return [*again, *self._events(count - len(again))]

    def _events(self, count: int) -> Iterator[str]:
        if self._has_steady_sessions:
            yield from self._steady_events(count)
            return
        pick = self._random
        until = datetime.now(UTC) - timedelta(days=self._until_days_ago)
        customers = _picks(pick, CUSTOMERS, count)
        agents = _picks(pick, AGENTS, count)
        features = _picks(pick, FEATURES, count)
        users = _picks(pick, USERS, count)
        models = _picks(pick, len(MODELS), count)
        for index in range(count):
            number = next(self._numbers)
            provider, model = MODELS[models[index]]
            agent = agents[index]
            at = until - timedelta(seconds=pick.random() * self._days * 86_400)
            event_id = f"{self._name}-{number}"
            call = (
                f'"time":"{at.isoformat()}","provider":"{provider}","model":"{model}",'
                f'"response_id":"r-{event_id}"'
            )
            usage, flat = _usage(provider, pick)
            if self._told_twice_share and pick.random() < self._told_twice_share:
                self._second_reports.append(
                    f'{{"id":"{event_id}","source":"span",{call},{flat},'
                    f'"session":"{self._name}-s{number // 12}"}}'
                )
            yield (
                f'{{"id":"{event_id}","source":"bench",{call},"usage":{usage},'
                f'"team":"team-{agent % TEAMS}","customer":"customer-{customers[index]}",'
                f'"agent":"agent-{agent}","user":"user-{users[index]}",'
                f'"feature":"feature-{features[index]}","session":"{self._name}-s{number // 12}",'
                f'"trace":"{self._name}-t{number // 4}","span":"{event_id}","step":{number % 12},'
                f'"latency_ms":{pick.randrange(200, 9000)},'
                f'"tags":{{"environment":"prod"}}}}'
            )

    def _steady_events(self, count: int) -> Iterator[str]:
        pick = self._random
        until = datetime.now(UTC) - timedelta(days=self._until_days_ago)
        sessions = -(-count // CALLS_A_SESSION)
        users, agents = _picks(pick, USERS, sessions), _picks(pick, AGENTS, sessions)
        features, models = _picks(pick, FEATURES, sessions), _picks(pick, len(MODELS), sessions)
        for index in range(count):
            session_number, step = divmod(index, CALLS_A_SESSION)
            if step == 0:
                first = next(self._numbers)
                length = timedelta(seconds=CALLS_A_SESSION * CALL_SECONDS)
                ends_at = until - timedelta(seconds=pick.random() * self._days * 86_400)
            agent, model = agents[session_number], models[session_number]
            if pick.random() < HELPER_SHARE:
                agent, model = (agent + TEAMS) % AGENTS, (model + 2) % len(MODELS)
            provider, name = MODELS[model]
            at = ends_at - length + timedelta(seconds=step * CALL_SECONDS + pick.random())
            session, event_id = f"{self._name}-s{first}", f"{self._name}-{first}-{step}"
            user = users[session_number]
            yield (
                f'{{"id":"{event_id}","source":"bench","time":"{at.isoformat()}",'
                f'"provider":"{provider}","model":"{name}","response_id":"r-{event_id}",'
                f'"usage":{_usage(provider, pick)[0]},"team":"team-{agent % TEAMS}",'
                f'"customer":"customer-{user % CUSTOMERS}","agent":"agent-{agent}",'
                f'"user":"user-{user}","feature":"feature-{features[session_number]}",'
                f'"session":"{session}","trace":"{session}-t{step // 4}","span":"{event_id}",'
                f'"step":{step},"latency_ms":{pick.randrange(200, 9000)},'
                f'"status":"{"error" if pick.random() < ERROR_SHARE else "success"}",'
                f'"tags":{{"environment":"prod"}}}}'
            )


def _picks(pick: random.Random, count: int, draws: int) -> Sequence[int]:
    """Draw numbers below a count, the lower ones more often."""
    return pick.choices(range(count), [(rank + 1) ** -0.7 for rank in range(count)], k=draws)


def _usage(provider: str, pick: random.Random) -> tuple[str, str]:
    """Return a provider's usage object, and the same as flat fields, as a span reports it."""
    tokens, written = pick.randrange(200, 9000), pick.randrange(10, 900)
    flat = {"input_tokens": tokens, "output_tokens": written}
    usage: dict[str, object]
    if provider == "anthropic":
        usage = {
            "input_tokens": tokens,
            "cache_read_input_tokens": tokens // 2,
            "cache_creation_input_tokens": 0,
            "output_tokens": written,
        }
        flat |= {"input_tokens": tokens + tokens // 2, "cache_read_tokens": tokens // 2}
    elif provider == "openai":
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": written,
            "total_tokens": tokens + written,
            "prompt_tokens_details": {"cached_tokens": tokens // 3},
            "completion_tokens_details": {"reasoning_tokens": written // 4},
        }
        flat |= {"cache_read_tokens": tokens // 3, "reasoning_tokens": written // 4}
    else:
        usage = {
            "promptTokenCount": tokens,
            "candidatesTokenCount": written,
            "totalTokenCount": tokens + written,
        }
    return json.dumps(usage, separators=(",", ":")), json.dumps(flat, separators=(",", ":"))[1:-1]
