"""What is sent: calls, the names under which each is reported, by whom and in which order."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, NamedTuple

import msgspec
from genai_prices import Usage, calc_price

TEAMS: Final = 8
AGENTS_PER_TEAM: Final = 5
CUSTOMERS: Final = 200
NANOS: Final = 1_000_000_000
# A fifth of all calls is reported again, one in four of these under another name.
REPEATED_SHARE: Final = 0.2
ALIAS_SHARE: Final = 0.05
PRICED_SHARE: Final = 0.2
TOOL_SHARE: Final = 0.1
QUARTERS: Final = 12
# The first client reports calls of the past week, the others calls of today: what is scattered over
# days is rolled up later than what belongs together.
LATE_CLIENT: Final = 0
OLDEST: Final = timedelta(days=6)
QUARTER: Final = timedelta(minutes=15)
MICROSECOND: Final = timedelta(microseconds=1)
# Bodies by their number of events; as many of one as of another would leave no small ones.
SIZES: Final = (1, 37, 500, 1_000)
SIZE_WEIGHTS: Final = (40, 40, 10, 10)
MODELS: Final = (
    ("openai", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet-4-5"),
    ("google", "gemini-2.5-flash"),
)
SHAPES_PER_MODEL: Final = 20


class Shape(NamedTuple):
    """A model and its tokens, with the price that the price library computes for them."""

    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cost_nanos: int


class Call(NamedTuple):
    """One call that an agent made: a fact, however often and by whichever name it is reported."""

    number: int
    at: datetime
    team: str
    customer: str
    agent: str
    shape: Shape
    given_nanos: int | None
    is_tool: bool
    client: int
    # Also reported by a gateway, which knows the provider's response but not the client's id.
    has_alias: bool

    @property
    def cost_nanos(self) -> int:
        """What the call must cost: as given, else by the catalogue."""
        return self.shape.cost_nanos if self.given_nanos is None else self.given_nanos

    @property
    def tokens(self) -> int:
        """What the call adds to a budget's tokens."""
        return self.shape.input_tokens + self.shape.output_tokens

    @property
    def names(self) -> list[tuple[str, str]]:
        """Source and id of every report of this call."""
        own = (f"client-{self.client}", f"call-{self.number}")
        return [own, ("gateway", f"seen-{self.number}")] if self.has_alias else [own]

    def body(self, *, is_alias: bool) -> dict[str, Any]:
        """The event as it is sent."""
        source, sent_id = self.names[1 if is_alias else 0]
        event: dict[str, Any] = {
            "id": sent_id,
            "source": source,
            "time": self.at.isoformat(),
            "provider": self.shape.provider,
            "model": self.shape.model,
            "input_tokens": self.shape.input_tokens,
            "output_tokens": self.shape.output_tokens,
            "cache_read_tokens": self.shape.cache_read_tokens,
            "team": self.team,
            "customer": self.customer,
            "agent": self.agent,
        }
        if self.given_nanos is not None:
            event["cost_usd"] = f"{Decimal(self.given_nanos).scaleb(-9):f}"
        if self.is_tool:
            event["tool"] = "web_search"
            event["operation"] = "tool"
        if self.has_alias or self.number % 2:
            event["response_id"] = f"response-{self.number}"
        return event


class Report(NamedTuple):
    """A call on its way: `place` orders what a client sends, from 0 to 1."""

    place: float
    call: Call
    is_alias: bool


class Batch(NamedTuple):
    """A body to be sent, not before its place in the whole."""

    place: float
    reports: Sequence[Report]

    @property
    def content_type(self) -> str:
        """Bodies of 37 are NDJSON, the others JSON."""
        return "application/x-ndjson" if len(self.reports) == SIZES[1] else "application/json"

    def body(self) -> bytes:
        """The events, encoded."""
        events = [report.call.body(is_alias=report.is_alias) for report in self.reports]
        if len(events) == SIZES[1]:
            return b"\n".join(msgspec.json.encode(event) for event in events)
        return msgspec.json.encode(events[0] if len(events) == 1 else events)


class Plan(NamedTuple):
    """All calls, and what each client sends."""

    calls: Sequence[Call]
    batches: Sequence[Sequence[Batch]]

    @property
    def reports_count(self) -> int:
        """How many events are sent, those sent again included."""
        return sum(len(batch.reports) for batches in self.batches for batch in batches)


class Quarters(NamedTuple):
    """When calls were made: at a few times, as agents do, not evenly over a week."""

    today: Sequence[datetime]
    earlier: Sequence[datetime]


def make_plan(*, events: int, clients: int, seed: int, now: datetime) -> Plan:
    """Decide everything that is sent; the same seed and time give the same plan."""
    pick = random.Random(seed)  # noqa: S311 - load, not secrets
    shapes, quarters = _shapes(pick, now), _quarters(pick, now)
    calls = [
        _call(pick, number, clients=clients, shapes=shapes, quarters=quarters)
        for number in range(events)
    ]
    reports: list[list[Report]] = [[] for _ in range(clients)]
    for call in calls:
        place = pick.random()
        reports[call.client].append(Report(place, call, False))
        if call.has_alias or pick.random() < _repeated_share(call):
            client, repeat = _repeat(pick, call, place, clients)
            reports[client].append(repeat)
    return Plan(calls, [list(_batches(pick, sorted(one, key=_place))) for one in reports])


def _shapes(pick: random.Random, now: datetime) -> list[Shape]:
    return [
        _shape(provider, model, pick.randrange(200, 90_000), pick.randrange(10, 4_000), now)
        for provider, model in MODELS
        for _ in range(SHAPES_PER_MODEL)
    ]


def _shape(provider: str, model: str, given: int, written: int, now: datetime) -> Shape:
    cached = given // 3
    usage = Usage(input_tokens=given, output_tokens=written, cache_read_tokens=cached)
    price = calc_price(usage, model, provider_id=provider, genai_request_timestamp=now).total_price
    nanos = int((price * NANOS).to_integral_value(ROUND_HALF_UP))
    return Shape(provider, model, given, written, cached, nanos)


def _call(
    pick: random.Random,
    number: int,
    *,
    clients: int,
    shapes: Sequence[Shape],
    quarters: Quarters,
) -> Call:
    team, agent = pick.randrange(TEAMS), pick.randrange(AGENTS_PER_TEAM)
    is_tool = pick.random() < TOOL_SHARE
    client = number % clients
    is_late = client == LATE_CLIENT
    is_priced = not is_tool and pick.random() < PRICED_SHARE
    return Call(
        number=number,
        at=_moment(pick, quarters.earlier if is_late else quarters.today),
        team=f"team-{team}",
        customer=f"customer-{int(CUSTOMERS * pick.random() ** 2)}",
        agent=f"agent-{team}-{agent}",
        shape=pick.choice(shapes),
        given_nanos=None if is_priced else pick.randrange(1, 200_000_000),
        is_tool=is_tool,
        client=client,
        has_alias=not is_late and clients > 2 and pick.random() < ALIAS_SHARE,
    )


def _quarters(pick: random.Random, now: datetime) -> Quarters:
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
    spans = (now - midnight, OLDEST)
    today, earlier = (
        [min(now, now - pick.random() * span + QUARTER) for _ in range(QUARTERS)] for span in spans
    )
    return Quarters(today, earlier)


def _moment(pick: random.Random, quarters: Sequence[datetime]) -> datetime:
    """Within a quarter of an hour before one of these times."""
    return pick.choice(quarters) - timedelta(microseconds=pick.randrange(QUARTER // MICROSECOND))


def _repeated_share(call: Call) -> float:
    """How likely a call without an alias is sent again."""
    if call.client == LATE_CLIENT:
        return REPEATED_SHARE
    return (REPEATED_SHARE - ALIAS_SHARE) / (1 - ALIAS_SHARE)


def _repeat(pick: random.Random, call: Call, place: float, clients: int) -> tuple[int, Report]:
    """Who sends a call again, and when: in the same body, later, at the same time, or before."""
    if call.client == LATE_CLIENT:
        return call.client, Report(pick.uniform(place, 1), call, False)
    other = pick.randrange(LATE_CLIENT + 1, clients)
    if call.has_alias:
        return other, Report(pick.choice([place, pick.random()]), call, True)
    kind = pick.randrange(3)
    if kind == 0:
        return call.client, Report(place, call, False)
    if kind == 1:
        return call.client, Report(pick.uniform(place, 1), call, False)
    return other, Report(pick.choice([place, pick.random()]), call, False)


def _place(report: Report) -> float:
    return report.place


def _batches(pick: random.Random, reports: Sequence[Report]) -> Iterator[Batch]:
    begin = 0
    while begin < len(reports):
        (size,) = pick.choices(SIZES, SIZE_WEIGHTS)
        part = reports[begin : begin + size]
        yield Batch(part[0].place, part)
        begin += size
