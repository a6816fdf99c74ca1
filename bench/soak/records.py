"""What the clients remember of what they did, for the proof at the end.

What a client is through with it writes to a file, so that its memory stays small however long the
soak takes.
"""

import pickle
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from bench.kit.caller import Tally
from bench.kit.money import usd
from bench.kit.wire import JsonObject
from bench.soak.world import Amounts

SOURCE: Final = "soak"
# What a second report of a call adds to its id.
RETOLD: Final = "-event"
GATEWAY: Final = "gateway"
REPEATED: Final = "reports repeated"


class Fate(Enum):
    """What the answers say of something that was asked for."""

    DONE = "done"
    REFUSED = "refused"
    # The client hung up and never asked again.
    UNKNOWN = "unknown"


Model = tuple[str, str]


class Ask(NamedTuple):
    """A call before it is made."""

    body: JsonObject
    values: Mapping[str, str]
    # What must be held for it.
    amounts: Amounts
    # Without a model the amount is named.
    model: Model | None
    given: int
    most: int

    @property
    def is_tool(self) -> bool:
        """Whether a tool is called."""
        return self.amounts.tool_calls > 0


class Event(NamedTuple):
    """A call as it is reported."""

    sent_id: str
    at: datetime
    nanos: int
    # The model's tokens: input, output. Without a model the cost is given.
    tokens: tuple[int, int]
    model: Model | None
    is_tool: bool
    # What the event itself names, and all that it counts by.
    named: Mapping[str, str]
    values: Mapping[str, str]
    # The provider's id of the call, by which other reports of it are known.
    response_id: str | None = None
    cached_tokens: int = 0

    @property
    def amounts(self) -> Amounts:
        """What it adds to a window."""
        return Amounts(self.nanos, sum(self.tokens), int(not self.is_tool), int(self.is_tool))

    def body(self, *, reservation: str | None = None) -> JsonObject:
        """Return it as the API takes it."""
        body: JsonObject = {
            "id": self.sent_id,
            "source": SOURCE,
            "time": self.at.isoformat(),
            "input_tokens": self.tokens[0],
            "output_tokens": self.tokens[1],
            **self.named,
        }
        if self.model is None:
            body["cost_usd"] = usd(self.nanos)
        else:
            body["provider"], body["model"] = self.model
        if self.cached_tokens:
            body["cache_read_tokens"] = self.cached_tokens
        if self.response_id is not None:
            body["response_id"] = self.response_id
        if self.is_tool:
            body |= {"tool": "web_search", "operation": "tool"}
        if reservation is not None:
            body["reservation"] = reservation
        return body

    def seen_by_gateway(self) -> JsonObject:
        """Return the call as another source tells of it, which does not know the client's id."""
        return {**self.body(), "id": self.sent_id + RETOLD, "source": GATEWAY}

    def callback(self) -> JsonObject:
        """Return the same call as LiteLLM's callback reports it."""
        provider, model = self.model or ("", "")
        return {
            "id": self.response_id,
            "call_type": "acompletion",
            "status": "success",
            "custom_llm_provider": provider,
            "model": model,
            "prompt_tokens": self.tokens[0],
            "completion_tokens": self.tokens[1],
            "total_tokens": sum(self.tokens),
            "startTime": self.at.timestamp() - 1,
            "endTime": self.at.timestamp(),
        }

    def span(self, trace: str, span: str) -> JsonObject:
        """Return the same call as an instrumentation reports it, in an export of its own."""
        provider, model = self.model or ("", "")
        texts = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            "gen_ai.response.id": self.response_id,
        }
        counts = {"input": self.tokens[0], "output": self.tokens[1]}
        attributes: list[JsonObject] = [
            {"key": name, "value": {"stringValue": value}} for name, value in texts.items()
        ]
        attributes += [
            {"key": f"gen_ai.usage.{name}_tokens", "value": {"intValue": str(count)}}
            for name, count in counts.items()
        ]
        ended_at = int(self.at.timestamp() * 1_000_000) * 1000
        told = {
            "traceId": trace,
            "spanId": span,
            "name": f"chat {model}",
            "startTimeUnixNano": str(ended_at - 1_000_000_000),
            "endTimeUnixNano": str(ended_at),
            "attributes": attributes,
        }
        return {"resourceSpans": [{"scopeSpans": [{"spans": [told]}]}]}


@dataclass(slots=True)
class Hold:
    """A reservation that a client requested."""

    key: str
    tenant: str
    ask: Ask
    asked_at: datetime
    answered_at: datetime
    id: str = ""
    granted: Fate = Fate.DONE
    released: Fate | None = None
    # Of the answers to a settle: whether it was late.
    late: bool | None = None
    expires_at: datetime | None = None
    # Events that were sent to settle it, and what became of each.
    settles: list[tuple[Event, Fate]] = field(default_factory=list)

    def is_over(self, at: datetime, tolerance: timedelta) -> bool:
        """Whether its time was over at a moment, give or take."""
        return self.expires_at is not None and at > self.expires_at + tolerance


class Grant(NamedTuple):
    """A reservation or an extension that an agent was given, between two moments of the clock that
    all processes share.
    """

    agent: str
    began: float
    ended: float


class Frame(NamedTuple):
    """A part of what clients are through with."""

    holds: list[Hold]
    # By tenant: events without a reservation.
    events: list[tuple[str, Event, Fate]]
    # Agents that are halted now and then: what was granted them.
    grants: list[Grant]


@dataclass
class Memory:
    """All that a client remembers; `holds`, `events` and `grants` until they are written down."""

    holds: list[Hold] = field(default_factory=list)
    events: list[tuple[str, Event, Fate]] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    # The ids of events that were taken back afterwards.
    voided: set[str] = field(default_factory=set)
    operations: Counter[str] = field(default_factory=Counter)
    # Reservations that were refused, by the budget or the code.
    refusals: Counter[str] = field(default_factory=Counter)
    # Answers that the contract does not know, or that contradict what is known.
    wrong: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)

    def add(self, other: "Memory") -> None:
        """Take in what another client counted."""
        self.voided |= other.voided
        self.operations += other.operations
        self.refusals += other.refusals
        self.wrong += other.wrong
        self.tally.add(other.tally)

    def write(self, file: Path, *, live: Collection[Hold]) -> None:
        """Append to a file all that can no longer change, and forget it."""
        live_ids = {id(hold) for hold in live}
        done = [hold for hold in self.holds if id(hold) not in live_ids]
        with file.open("ab") as output:
            pickle.dump(Frame(done, self.events, self.grants), output)
        self.holds = [hold for hold in self.holds if id(hold) in live_ids]
        self.events, self.grants = [], []


def read_frames(folder: Path) -> Iterator[Frame]:
    """Yield what was written to the files of a folder."""
    for file in sorted(folder.iterdir()):
        with file.open("rb") as records:
            while records.peek(1):
                yield pickle.load(records)  # noqa: S301 - our own file
