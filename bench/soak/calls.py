"""The calls that clients make: what they ask for beforehand, and what they turn out to use."""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP
from typing import Final

from genai_prices import Usage, calc_price

from bench.kit.money import NANOS, usd
from bench.kit.wire import JsonObject
from bench.soak.records import RETOLD, SOURCE, Ask, Event, Model
from bench.soak.world import AGENTS, FEATURES, LATE_FEATURE, PACED_AGENT, ROUGH, TIDY, Amounts

MODELS: Final = (("openai", "gpt-4o-mini"), ("anthropic", "claude-sonnet-4-5"))
# What of its longest output a call writes; tidy ones never more than all of it.
WRITTEN_PERCENTS: Final = (1, 20, 60, 100, 130)
INPUTS: Final = (150, 900, 4_000)
OUTPUTS: Final = (40, 300, 1_200)
SESSION_CALLS: Final = 12
MISSING_SHARE: Final = 0.15
OLDEST_SECONDS: Final = 50 * 60


class Prices:
    """What the models of the soak cost, by the price library, for the tokens that calls use."""

    def __init__(self, now: datetime) -> None:
        self._nanos = {
            (model, given, written, cached): _price(model, given, written, cached, now)
            for model in MODELS
            for given in INPUTS
            for most in OUTPUTS
            for written in {most, *(most * percent // 100 for percent in WRITTEN_PERCENTS)}
            for cached in (0, given // 3)
        }

    def nanos(self, model: Model, given: int, written: int, cached: int = 0) -> int:
        """Return the cost of a call in nano-dollars."""
        return self._nanos[model, given, written, cached]


def _price(model: Model, given: int, written: int, cached: int, now: datetime) -> int:
    usage = Usage(input_tokens=given, output_tokens=written, cache_read_tokens=cached or None)
    price = calc_price(usage, model[1], provider_id=model[0], genai_request_timestamp=now)
    return int((price.total_price * NANOS).to_integral_value(ROUND_HALF_UP))


class Calls:
    """One client's calls, drawn from its own random numbers."""

    def __init__(self, *, name: str, tenant: str, pick: random.Random, prices: Prices) -> None:
        self._name = name
        self._tenant = tenant
        self._pick = pick
        self._prices = prices
        self._count = 0
        self._session = 0

    def ask(self, *, ttl_seconds: int) -> Ask:
        """Draw the next call."""
        pick = self._pick
        named = self._dimensions()
        kind = pick.random()
        given, most = pick.choice(INPUTS), pick.choice(OUTPUTS)
        body: JsonObject = {**named, "ttl_seconds": ttl_seconds, "source": SOURCE}
        values = {**named, "source": SOURCE}
        if kind < 0.15:
            nanos = pick.randrange(1, NANOS // 200)
            body |= {"tool": "web_search", "operation": "tool", "amount_usd": usd(nanos)}
            return Ask(body, values, Amounts(nanos, 0, 0, 1), None, 0, 0)
        body |= {"input_tokens": given, "max_output_tokens": most}
        if kind < 0.6:
            nanos = pick.randrange(1, NANOS // 20 if pick.random() < 0.97 else NANOS // 10)
            body["amount_usd"] = usd(nanos)
            return Ask(body, values, Amounts(nanos, given + most, 1, 0), None, given, most)
        model = pick.choice(MODELS)
        body["provider"], body["model"] = model
        # So that the worst case is the plain price of the tokens, which the model computes.
        body["cache_control"] = "none"
        nanos = self._prices.nanos(model, given, most)
        return Ask(body, values, Amounts(nanos, given + most, 1, 0), model, given, most)

    def event(self, ask: Ask, reserved_nanos: int) -> Event:
        """Draw what the call used in the end: mostly less than was held for it, sometimes more."""
        pick, is_tidy = self._pick, self._tenant == TIDY
        percents = WRITTEN_PERCENTS[:-1] if is_tidy else WRITTEN_PERCENTS
        written = ask.most * pick.choice(percents) // 100
        model = ask.model if pick.random() < 0.7 else None
        if model is not None:
            nanos = self._prices.nanos(model, ask.given, written)
        else:
            share = pick.choice((0.0, 0.3, 0.8, 1.0, 1.0, 1.4))
            nanos = int(reserved_nanos * share)
        named = dict(ask.values) if pick.random() < 0.5 else {}
        if "feature" not in ask.values and pick.random() < 0.5:
            named["feature"] = LATE_FEATURE
        named.pop("source", None)
        tokens = (ask.given, written)
        return self._event(nanos, tokens, model, ask.is_tool, named, {**ask.values, **named})

    def unreserved(self) -> Event:
        """Draw a call that no one asked for beforehand, made within the last hour."""
        pick = self._pick
        named = self._dimensions()
        given, most = pick.choice(INPUTS), pick.choice(OUTPUTS)
        model = pick.choice((*MODELS, None))
        if model is None:
            nanos = pick.randrange(NANOS // 500)
        else:
            nanos = self._prices.nanos(model, given, most)
        values = {**named, "source": SOURCE}
        event = self._event(nanos, (given, most), model, False, named, values)
        ago = pick.choice((0, 0, 60, OLDEST_SECONDS)) * pick.random()
        return event._replace(
            at=event.at - timedelta(seconds=ago),
            response_id=None if model is None else event.sent_id + RETOLD,
        )

    def _event(
        self,
        nanos: int,
        tokens: tuple[int, int],
        model: Model | None,
        is_tool: bool,
        named: Mapping[str, str],
        values: Mapping[str, str],
    ) -> Event:
        self._count += 1
        return Event(
            sent_id=f"{self._name}-{self._count}",
            at=datetime.now(UTC),
            nanos=nanos,
            tokens=tokens,
            model=model,
            is_tool=is_tool,
            named=named,
            values=values,
        )

    def _dimensions(self) -> dict[str, str]:
        """Draw whose call it is. In the rough tenant some of it is left out."""
        pick = self._pick
        if pick.random() < 1 / SESSION_CALLS:
            self._session += 1
        dimensions = {
            "team": f"team-{pick.randrange(3)}",
            "customer": f"customer-{pick.randrange(5)}",
            "agent": pick.choice(self._agents()),
            "user": f"user-{pick.randrange(4)}",
            "feature": pick.choice(FEATURES),
            "session": f"{self._name}-{self._session}",
        }
        if self._tenant == TIDY:
            return dimensions
        return {name: value for name, value in dimensions.items() if pick.random() >= MISSING_SHARE}

    def _agents(self) -> Sequence[str]:
        return (*AGENTS, PACED_AGENT) if self._tenant == ROUGH else AGENTS
