"""The events that the benchmarks send: skewed as real customers are, 900 windows touched by a
thousand.

200 customers, 10 teams of 5 agents, 20 features, 1,000 users, 8 models. Popularity falls with rank
as among the clients of ServeGen (`demo/data/SOURCES.md`): the first of 200 customers makes a tenth.
"""

import itertools
import json
import random
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

BUDGETS: Final = (
    {"name": "everything", "period": "month"},
    {"name": "per agent", "per": ["agent"], "period": "day"},
    {"name": "per customer", "per": ["customer"], "period": "month"},
    {"name": "per team", "per": ["team"], "period": "day", "timezone": "Europe/Berlin"},
    {"name": "per customer and agent", "per": ["customer", "agent"], "period": "day"},
)


def budget_bodies() -> list[dict[str, object]]:
    """Five budgets that every event matches."""
    levels: list[dict[str, object]] = [
        {"percent": percent, "notify": [], "action": "none"} for percent in (70, 100)
    ]
    return [
        {"match": {}, "limit": {"cost_usd": "1000000"}, "mode": "warn", "levels": levels, **one}
        for one in BUDGETS
    ]


def _weights(count: int, *, exponent: float = 0.7) -> list[float]:
    """Running sums of weights that fall with rank."""
    return list(itertools.accumulate((rank + 1) ** -exponent for rank in range(count)))


class Load:
    """A seeded stream of batches."""

    def __init__(self, *, seed: int, name: str, days: float, until_days_ago: float = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - load, not secrets
        self._name = name
        self._days = days
        self._until_days_ago = until_days_ago
        self._numbers = itertools.count()

    def bodies(self, *, batches: int, size: int) -> list[bytes]:
        """Request bodies of `size` events each."""
        return [("[" + ",".join(self._events(size)) + "]").encode() for _ in range(batches)]

    def single_bodies(self, count: int) -> list[bytes]:
        """Request bodies of one event each."""
        return [event.encode() for event in self._events(count)]

    def _events(self, count: int) -> Iterator[str]:
        pick = self._random
        until = datetime.now(UTC) - timedelta(days=self._until_days_ago)
        customers = _picks(pick, CUSTOMERS, count)
        agents = _picks(pick, AGENTS, count)
        features = _picks(pick, FEATURES, count)
        users = _picks(pick, USERS, count)
        models = _picks(pick, len(MODELS), count)
        for place in range(count):
            number = next(self._numbers)
            provider, model = MODELS[models[place]]
            agent = agents[place]
            at = until - timedelta(seconds=pick.random() * self._days * 86_400)
            event_id = f"{self._name}-{number}"
            yield (
                f'{{"id":"{event_id}","source":"bench","time":"{at.isoformat()}",'
                f'"provider":"{provider}","model":"{model}",'
                f'"usage":{_usage(provider, pick)},'
                f'"team":"team-{agent % TEAMS}","customer":"customer-{customers[place]}",'
                f'"agent":"agent-{agent}","user":"user-{users[place]}",'
                f'"feature":"feature-{features[place]}","session":"{self._name}-s{number // 12}",'
                f'"trace":"{self._name}-t{number // 4}","span":"{event_id}","step":{number % 12},'
                f'"response_id":"r-{event_id}","latency_ms":{pick.randrange(200, 9000)},'
                f'"tags":{{"environment":"prod"}}}}'
            )


def _picks(pick: random.Random, count: int, draws: int) -> Sequence[int]:
    return pick.choices(range(count), cum_weights=_weights(count), k=draws)


def _usage(provider: str, pick: random.Random) -> str:
    tokens, written = pick.randrange(200, 9000), pick.randrange(10, 900)
    usage: dict[str, object]
    if provider == "anthropic":
        usage = {
            "input_tokens": tokens,
            "cache_read_input_tokens": tokens // 2,
            "cache_creation_input_tokens": 0,
            "output_tokens": written,
        }
    elif provider == "openai":
        usage = {
            "prompt_tokens": tokens,
            "completion_tokens": written,
            "total_tokens": tokens + written,
            "prompt_tokens_details": {"cached_tokens": tokens // 3},
            "completion_tokens_details": {"reasoning_tokens": written // 4},
        }
    else:
        usage = {
            "promptTokenCount": tokens,
            "candidatesTokenCount": written,
            "totalTokenCount": tokens + written,
        }
    return json.dumps(usage, separators=(",", ":"))
