"""A client that reports calls without asking first, in bodies of all sizes, until each is
acknowledged; what must be sent again comes later, after others.

A part of the calls is reported again: in the same body, later, by another client meanwhile, or by a
gateway that knows the provider's response but not the client's id.
"""

import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from bench.kit.caller import PATIENCE_SECONDS, PAUSE_SECONDS, GaveUp, Progress
from bench.kit.money import NANOS
from bench.kit.wire import JsonObject, Requests
from bench.soak.actor import WRITTEN_EVERY
from bench.soak.calls import INPUTS, MODELS, OUTPUTS, Prices
from bench.soak.judge import Judge
from bench.soak.plan import Seat
from bench.soak.records import REPEATED, SOURCE, Event, Fate, Memory

# Bodies by their number of events; as many of one as of another would leave no small ones.
SIZES: Final = (1, 37, 500, 1_000)
SIZE_WEIGHTS: Final = (40, 40, 10, 10)
NDJSON_SIZE: Final = SIZES[1]
TOLD_MAX: Final = 3_000
REPEATED_SHARE: Final = 0.2
GATEWAY_SHARE: Final = 0.25
TOOL_SHARE: Final = 0.1
PRICED_SHARE: Final = 0.2
AGAIN_SHARE: Final = 0.4
HANG_UP_SHARE: Final = 0.02
QUARTERS: Final = 12
QUARTER_SECONDS: Final = 900
OLDEST: Final = timedelta(days=6)
TEAMS: Final = 8
AGENTS_PER_TEAM: Final = 5
CUSTOMERS: Final = 200


class _Body(NamedTuple):
    request: bytes
    fresh: list[Event]
    # All events, those told before included.
    events: int


class Reporter:
    """One client and its connection."""

    def __init__(
        self, seat: Seat, *, prices: Prices, progress: Progress, told: deque[Event]
    ) -> None:
        self.seat = seat
        self.memory = Memory()
        self._judge = Judge(seat.tenant, self.memory)
        self._prices = prices
        self._progress = progress
        self._told = told
        self._pick = seat.pick()
        self._caller = seat.caller(self.memory.tally, self._pick, progress)
        headers = seat.plan.headers[seat.tenant]
        self._lines = Requests({**headers, "Content-Type": "application/x-ndjson"})
        self._quarters = self._times()
        self._count = 0

    def run(self) -> Memory:
        """Report all calls."""
        try:
            self._report_all()
        except Exception as error:
            self._judge.note_wrong(f"a reporter ended with {error!r}")
        self.memory.write(self.seat.records, live=())
        return self.memory

    def _report_all(self) -> None:
        waiting: list[_Body] = []
        answered_at = time.monotonic()
        while waiting or self._count < self.seat.operations:
            is_again = self._count == self.seat.operations or self._pick.random() < AGAIN_SHARE
            if waiting and is_again:
                body = waiting.pop(self._pick.randrange(len(waiting)))
            else:
                self.seat.wait_for_turn(self._count)
                body = self._next_body()
            if self._send(body):
                answered_at = time.monotonic()
                continue
            if time.monotonic() > answered_at + PATIENCE_SECONDS:
                raise GaveUp(f"nothing was acknowledged for {PATIENCE_SECONDS:.0f} s")
            waiting.append(body)
            time.sleep(self._pick.uniform(*PAUSE_SECONDS))

    def _send(self, body: _Body) -> bool:
        """Send a body; False when it must be sent again."""
        if self._pick.random() < HANG_UP_SHARE:
            self._caller.hang_up_on(body.request)
            return False
        answer = self._caller.ask_once(body.request)
        if answer is None:
            return False
        self._judge.check_report(body.events, answer)
        self.memory.events += [(self.seat.tenant, event, Fate.DONE) for event in body.fresh]
        self._progress.count(0, len(body.fresh))
        if len(self.memory.events) > WRITTEN_EVERY:
            self.memory.write(self.seat.records, live=())
        return True

    def _next_body(self) -> _Body:
        (size,) = self._pick.choices(SIZES, SIZE_WEIGHTS)
        events: list[JsonObject] = []
        fresh: list[Event] = []
        while len(events) < size and self._count < self.seat.operations:
            if self._told and self._pick.random() < REPEATED_SHARE / (1 + REPEATED_SHARE):
                events.append(self._told_again())
            else:
                fresh.append(self._call())
                self._told.append(fresh[-1])
                events.append(fresh[-1].body())
        self.memory.operations["bodies of events"] += 1
        self.memory.operations["events in bodies"] += len(events)
        return _Body(self._request(events), fresh, len(events))

    def _request(self, events: list[JsonObject]) -> bytes:
        if len(events) == NDJSON_SIZE:
            return self._lines.make(
                "POST", "/v1/events", b"\n".join(msgspec.json.encode(event) for event in events)
            )
        return self._caller.request("POST", "/v1/events", events[0] if len(events) == 1 else events)

    def _told_again(self) -> JsonObject:
        self.memory.tally.faults[REPEATED] += 1
        event = self._pick.choice(list(self._told))
        if event.response_id is not None and self._pick.random() < GATEWAY_SHARE:
            self.memory.operations["calls told by another source"] += 1
            return event.seen_by_gateway()
        return event.body()

    def _call(self) -> Event:
        pick = self._pick
        self._count += 1
        sent_id = f"{self.seat.name}-{self._count}"
        team, is_tool = pick.randrange(TEAMS), pick.random() < TOOL_SHARE
        values = {
            "team": f"team-{team}",
            "customer": f"customer-{int(CUSTOMERS * pick.random() ** 2)}",
            "agent": f"agent-{team}-{pick.randrange(AGENTS_PER_TEAM)}",
        }
        given, written = pick.choice(INPUTS), pick.choice(OUTPUTS)
        model, cached, nanos = None, 0, pick.randrange(1, NANOS // 5)
        if not is_tool and pick.random() < PRICED_SHARE:
            model, cached = pick.choice(MODELS), given // 3
            nanos = self._prices.nanos(model, given, written, cached)
        return Event(
            sent_id=sent_id,
            at=self._at(),
            nanos=nanos,
            tokens=(given, written),
            model=model,
            is_tool=is_tool,
            named=values,
            values={**values, "source": SOURCE},
            response_id=f"response-{sent_id}" if pick.random() < 0.5 else None,
            cached_tokens=cached,
        )

    def _times(self) -> list[datetime]:
        """Draw when calls were made: at a few times, as agents do, not evenly.

        The first client reports calls of the past week, the others of today: what is scattered
        over days is rolled up later than what belongs together.
        """
        now = datetime.now(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        span = OLDEST if self.seat.name.endswith("r0") else now - midnight
        return [now - self._pick.random() * span for _ in range(QUARTERS)]

    def _at(self) -> datetime:
        """Draw a moment within a quarter of an hour before one of these times."""
        ago = timedelta(seconds=self._pick.uniform(0, QUARTER_SECONDS))
        return self._pick.choice(self._quarters) - ago
