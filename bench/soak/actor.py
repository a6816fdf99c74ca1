"""One client: it draws an operation, carries it out, and compares the answer with what it knows."""

import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from bench.soak.caller import Caller, Progress, code_of
from bench.soak.calls import Ask, Calls, Prices
from bench.soak.records import Event, Fate, Grant, Hold, Memory
from bench.soak.world import CALL_LIMIT_NANOS, HALTED_AGENTS, ROUGH, TIDY, nanos_of
from bench.wire import Answer

HOLDS_MAX: Final = 8
KNOWN_MAX: Final = 12
# Nothing of the tidy tenant expires; in the rough one some of it does at once.
TIDY_TTL_SECONDS: Final = 3600
SHORT_TTL_SECONDS: Final = 1
ROUGH_TTL_SECONDS: Final = 20
HUNG_UP_TTL_SECONDS: Final = 3
SHORT_SHARE: Final = 0.12
HANG_UP_SHARE: Final = 0.03
# Clocks of one machine; what is written may be judged a little later.
TOLERANCE: Final = timedelta(seconds=2)
REFUSALS: Final = {
    402: frozenset({"budget_exceeded"}),
    423: frozenset({"halted"}),
    429: frozenset({"throttled"}),
}
ALREADY_SETTLED: Final = "already_settled"
BATCH_MAX: Final = 12


class Seat(NamedTuple):
    """Which client this is, and what it has to do."""

    name: str
    tenant: str
    port: int
    headers: Mapping[str, str]
    seed: str
    operations: int
    # Not sooner than this, counted from `begins_at` on the shared clock.
    seconds: float
    begins_at: float


class Settled(NamedTuple):
    """A hold that was settled, and the answer."""

    hold: Hold
    event: Event
    answer: Any


class Actor:
    """A client with two connections, so that it can race itself."""

    def __init__(self, seat: Seat, *, prices: Prices, progress: Progress) -> None:
        self.seat = seat
        self.memory = Memory()
        self._progress = progress
        self._pick = random.Random(seat.seed)  # noqa: S311 - load, not secrets
        self._calls = Calls(name=seat.name, tenant=seat.tenant, pick=self._pick, prices=prices)
        self._caller, self._other = (
            Caller(
                port=seat.port,
                headers=seat.headers,
                memory=self.memory,
                pick=self._pick,
                progress=progress,
            )
            for _ in range(2)
        )
        self._asks = 0
        self._open: list[tuple[Hold, Ask]] = []
        self._short: deque[tuple[Hold, Ask]] = deque(maxlen=KNOWN_MAX)
        self._released: deque[tuple[Hold, Ask]] = deque(maxlen=KNOWN_MAX)
        self._settled: deque[Settled] = deque(maxlen=KNOWN_MAX)
        self._reported: deque[Event] = deque(maxlen=KNOWN_MAX)
        self._ways = self._weighed_ways()

    def run(self) -> Memory:
        """Carry out all operations, then end what is still held."""
        try:
            for number in range(self.seat.operations):
                self._wait_for_turn(number)
                self._operate()
                self._progress.count(0, 1)
            while self._open:
                self._end_one()
        except Exception as error:
            self._note_wrong(f"{self.seat.tenant} client ended with {error!r}")
        return self.memory

    def _wait_for_turn(self, number: int) -> None:
        due_at = self.seat.begins_at + self.seat.seconds * number / self.seat.operations
        time.sleep(max(0.0, due_at - time.monotonic()))

    def _weighed_ways(self) -> dict[Callable[[], None], int]:
        ways = {
            self._reserve: 34,
            self._reserve_two: 8,
            self._settle: 25,
            self._settle_again: 4,
            self._settle_otherwise: 3,
            self._release: 6,
            self._extend: 5,
            self._race: 7,
            self._look: 3,
            self._ask_otherwise: 1,
        }
        if self.seat.tenant == ROUGH:
            ways |= {self._settle_late: 6, self._report: 7, self._abandon: 2}
        return ways

    def _operate(self) -> None:
        if len(self._open) >= HOLDS_MAX:
            self._end_one()
            return
        (way,) = self._pick.choices(list(self._ways), list(self._ways.values()))
        self.memory.operations[way.__name__.strip("_").replace("_", " ")] += 1
        way()

    def _end_one(self) -> None:
        (self._settle if self._pick.random() < 0.8 else self._release)()

    # Reserving.

    def _reserve(self) -> None:
        ask, hold = self._new_ask()
        request = self._reserve_request(ask, hold)
        began = time.monotonic()
        if self._pick.random() < 0.06:
            first, second = self._caller.ask_both(self._other, request, request)
            ids = {_read(one)["id"] for one in (first, second) if one.status == 201}
            self._check(len(ids) < 2, "one key gave two reservations", first)
            answer = first if first.status == 201 else second
        else:
            answer = self._caller.ask(request)
        self._note_reserved(hold, ask, answer, began)

    def _reserve_two(self) -> None:
        """Two calls at once, which may want the same last dollars."""
        asked = [self._new_ask() for _ in range(2)]
        first, second = (self._reserve_request(ask, hold) for ask, hold in asked)
        began = time.monotonic()
        answers = self._caller.ask_both(self._other, first, second)
        for (ask, hold), answer in zip(asked, answers, strict=True):
            self._note_reserved(hold, ask, answer, began)

    def _new_ask(self) -> tuple[Ask, Hold]:
        self._asks += 1
        ask = self._calls.ask(ttl_seconds=self._ttl_seconds())
        return ask, Hold(
            key=f"{self.seat.name}-{self._asks}",
            tenant=self.seat.tenant,
            values=ask.values,
            amounts=ask.amounts,
            asked_at=datetime.now(UTC),
            answered_at=datetime.now(UTC),
        )

    def _ttl_seconds(self) -> int:
        if self.seat.tenant == TIDY:
            return TIDY_TTL_SECONDS
        is_short = self._pick.random() < SHORT_SHARE
        return SHORT_TTL_SECONDS if is_short else ROUGH_TTL_SECONDS

    def _reserve_request(self, ask: Ask, hold: Hold) -> bytes:
        return self._caller.request("POST", "/v1/reservations", ask.body, key=hold.key)

    def _note_reserved(self, hold: Hold, ask: Ask, answer: Answer, began: float) -> None:
        if answer.status != 201:
            codes = REFUSALS.get(answer.status, frozenset())
            self._check(code_of(answer) in codes, "reserve", answer)
            for name in _refusing(answer):
                self.memory.refusals[name] += 1
            return
        facts = _read(answer)
        hold.id, hold.answered_at = facts["id"], datetime.now(UTC)
        hold.expires_at = _moment(facts["expires_at"])
        held = nanos_of(facts["reserved_usd"])
        self._check(
            held == hold.amounts.nanos, f"{hold.amounts.nanos} nanos are to be held", answer
        )
        is_above = self.seat.tenant == TIDY and held > CALL_LIMIT_NANOS
        self._check(not is_above, "a call above the limit of single calls", answer)
        self.memory.holds.append(hold)
        self._note_grant(hold, began)
        is_short = ask.body["ttl_seconds"] == SHORT_TTL_SECONDS
        (self._short if is_short else self._open).append((hold, ask))

    def _note_grant(self, hold: Hold, began: float) -> None:
        agent = hold.values.get("agent")
        if self.seat.tenant == ROUGH and agent in HALTED_AGENTS:
            self.memory.grants.append(Grant(str(agent), began, time.monotonic()))

    def _ask_otherwise(self) -> None:
        """The key of a reservation, with another body."""
        if not self._open:
            return
        hold, ask = self._open[-1]
        body = {**ask.body, "ttl_seconds": ask.body["ttl_seconds"] - 1}
        request = self._caller.request("POST", "/v1/reservations", body, key=hold.key)
        answer = self._caller.ask(request)
        # A known halt refuses whatever is asked for.
        codes = {"idempotency_conflict", "halted"}
        self._check(code_of(answer) in codes, "another body", answer)

    def _abandon(self) -> None:
        """Hang up on a reservation or on a settle, and leave it at that."""
        if self._open and self._pick.random() < 0.5:
            hold, ask = self._take()
            event = self._calls.event(ask, hold.amounts.nanos)
            self._caller.hang_up_on(self._settle_request(hold, event))
            hold.settles.append((event, Fate.UNKNOWN))
            return
        ask, hold = self._new_ask()
        hold.granted = Fate.UNKNOWN
        body = {**ask.body, "ttl_seconds": HUNG_UP_TTL_SECONDS}
        request = self._caller.request("POST", "/v1/reservations", body, key=hold.key)
        self._caller.hang_up_on(request)
        self.memory.holds.append(hold)

    # Settling.

    def _take(self) -> tuple[Hold, Ask]:
        return self._open.pop(self._pick.randrange(len(self._open)))

    def _settle(self) -> None:
        if not self._open:
            self._reserve()
            return
        self._settle_one(*self._take())

    def _settle_one(self, hold: Hold, ask: Ask) -> None:
        event = self._calls.event(ask, hold.amounts.nanos)
        request = self._settle_request(hold, event)
        asked_at = datetime.now(UTC)
        if self.seat.tenant == ROUGH and self._pick.random() < 0.1:
            # Hang up first, and learn what became of it afterwards.
            self._caller.hang_up_on(request)
        self._note_settled(hold, event, self._caller.ask(request), asked_at)

    def _settle_request(self, hold: Hold, event: Event) -> bytes:
        path = f"/v1/reservations/{hold.id}/settle"
        return self._caller.request("POST", path, event.body())

    def _note_settled(self, hold: Hold, event: Event, answer: Answer, asked_at: datetime) -> None:
        is_done = answer.status == 200
        hold.settles.append((event, Fate.DONE if is_done else Fate.REFUSED))
        if not is_done:
            self._check(code_of(answer) == ALREADY_SETTLED, "settle", answer)
            return
        facts = _read(answer)
        hold.late = facts["late"]
        self._check(nanos_of(facts["cost_usd"]) == event.nanos, f"costs {event.nanos}", answer)
        if not hold.late:
            spared = hold.amounts.nanos - event.nanos
            told = nanos_of(facts["released_usd"]), nanos_of(facts["overrun_usd"])
            self._check(told == (max(0, spared), max(0, -spared)), f"spares {spared}", answer)
        self._check_late(hold, asked_at, answer)
        self._settled.append(Settled(hold, event, facts))

    def _check_late(self, hold: Hold, asked_at: datetime, answer: Answer) -> None:
        """Late is what comes after a release or the expiry, and nothing else."""
        may_be_late = hold.released is not None or hold.is_over(datetime.now(UTC), -TOLERANCE)
        must_be_late = hold.is_over(asked_at, TOLERANCE)
        self._check(may_be_late or not hold.late, "it is not late", answer)
        self._check(hold.late is True or not must_be_late, "it is late", answer)

    def _settle_again(self) -> None:
        """The same settle gives the same answer."""
        if not self._settled:
            return
        known = self._pick.choice(self._settled)
        answer = self._caller.ask(self._settle_request(known.hold, known.event))
        is_same = answer.status == 200 and _read(answer) == known.answer
        self._check(is_same, f"the answer was {known.answer}", answer)

    def _settle_otherwise(self) -> None:
        """A different settle of the same reservation is refused."""
        if not self._settled:
            return
        known = self._pick.choice(self._settled)
        other = known.event._replace(nanos=known.event.nanos + 1, model=None)
        other = other._replace(sent_id=self._pick.choice((other.sent_id, f"{other.sent_id}-other")))
        answer = self._caller.ask(self._settle_request(known.hold, other))
        self._check(code_of(answer) == ALREADY_SETTLED, "another settle", answer)

    def _settle_late(self) -> None:
        """Settle what was released, or what has expired."""
        waiting = self._released if self._pick.random() < 0.4 else self._short
        if not waiting:
            self._reserve()
            return
        hold, ask = waiting.popleft()
        self._settle_one(hold, ask)

    # Releasing and extending.

    def _release(self) -> None:
        if not self._open:
            return
        hold, ask = self._take()
        self._note_released(hold, self._caller.ask(self._release_request(hold)))
        if self._pick.random() < 0.3:
            self._note_released(hold, self._caller.ask(self._release_request(hold)))
        self._released.append((hold, ask))

    def _release_request(self, hold: Hold) -> bytes:
        return self._caller.request("POST", f"/v1/reservations/{hold.id}/release")

    def _note_released(self, hold: Hold, answer: Answer) -> None:
        if answer.status == 200:
            hold.released = Fate.DONE
            return
        self._check(answer.status == 409, "release", answer)
        is_over = hold.is_over(datetime.now(UTC), -TOLERANCE)
        self._check(is_over or bool(hold.settles), "it can be released", answer)

    def _extend(self) -> None:
        if not self._open:
            return
        hold, _ = self._pick.choice(self._open)
        self._note_extended(hold, self._caller, time.monotonic())

    def _note_extended(self, hold: Hold, caller: Caller, began: float) -> None:
        answer = caller.ask(self._extend_request(hold))
        if answer.status == 200:
            hold.expires_at = _moment(_read(answer)["expires_at"])
            self._note_grant(hold, began)
            return
        is_halted = answer.status == 423 and hold.values.get("agent") in HALTED_AGENTS
        is_over = hold.is_over(datetime.now(UTC), -TOLERANCE)
        self._check(is_halted or (answer.status == 409 and is_over), "extend", answer)

    def _extend_request(self, hold: Hold) -> bytes:
        seconds = TIDY_TTL_SECONDS if self.seat.tenant == TIDY else ROUGH_TTL_SECONDS
        path = f"/v1/reservations/{hold.id}/extend"
        return self._caller.request("POST", path, {"ttl_seconds": seconds})

    # Two requests about one reservation at once.

    def _race(self) -> None:
        if not self._open:
            self._reserve()
            return
        hold, ask = self._take()
        races: list[Callable[[Hold, Ask], None]] = [
            self._race_same,
            self._race_different,
            self._race_release,
            self._race_extension,
        ]
        if self.seat.tenant == ROUGH:
            races.append(self._race_event)
        self._pick.choice(races)(hold, ask)

    def _race_same(self, hold: Hold, ask: Ask) -> None:
        event, asked_at = self._calls.event(ask, hold.amounts.nanos), datetime.now(UTC)
        request = self._settle_request(hold, event)
        first, second = self._caller.ask_both(self._other, request, request)
        self._note_settled(hold, event, first, asked_at)
        is_same = second.status == 200 and _read(second) == _read(first)
        self._check(is_same, f"the answer was {first}", second)

    def _race_different(self, hold: Hold, ask: Ask) -> None:
        asked_at = datetime.now(UTC)
        events = [self._calls.event(ask, hold.amounts.nanos) for _ in range(2)]
        first, second = (self._settle_request(hold, event) for event in events)
        answers = self._caller.ask_both(self._other, first, second)
        statuses = sorted(answer.status for answer in answers)
        self._check(statuses == [200, 409], f"two settles: {statuses}", answers[0])
        for event, answer in zip(events, answers, strict=True):
            self._note_settled(hold, event, answer, asked_at)

    def _race_release(self, hold: Hold, ask: Ask) -> None:
        event, asked_at = self._calls.event(ask, hold.amounts.nanos), datetime.now(UTC)
        settle, release = self._caller.ask_both(
            self._other, self._settle_request(hold, event), self._release_request(hold)
        )
        # Where the release is refused it may have been done before all the same: when its answer is
        # lost, and the settle comes before it is asked for again.
        hold.released = Fate.UNKNOWN
        self._note_settled(hold, event, settle, asked_at)
        self._note_released(hold, release)

    def _race_extension(self, hold: Hold, ask: Ask) -> None:
        release, extension = self._caller.ask_both(
            self._other, self._release_request(hold), self._extend_request(hold)
        )
        self._note_released(hold, release)
        self._check(extension.status in (200, 409, 423), "extend and release", extension)
        if extension.status == 200 and release.status != 200:
            hold.expires_at = _moment(_read(extension)["expires_at"])
        self._released.append((hold, ask))

    def _race_event(self, hold: Hold, ask: Ask) -> None:
        """A settle, and an event that names the reservation: both are usage, one settles it."""
        asked_at = datetime.now(UTC)
        settling, reported = (self._calls.event(ask, hold.amounts.nanos) for _ in range(2))
        report = self._report_request([reported.body(reservation=hold.id)])
        answers = self._caller.ask_both(self._other, self._settle_request(hold, settling), report)
        self._note_settled(hold, settling, answers[0], asked_at)
        self._check_report(answers[1], 1)
        hold.settles.append((reported, Fate.DONE))

    # Reporting, and looking.

    def _report(self) -> None:
        """A batch of events, of which some settle reservations and some were sent before."""
        fresh = [self._calls.unreserved() for _ in range(self._pick.randrange(1, BATCH_MAX))]
        bodies = [event.body() for event in fresh]
        bodies += [event.body() for event in self._reported if self._pick.random() < 0.1]
        named = [self._take() for _ in range(min(len(self._open), self._pick.randrange(3)))]
        settling = [(hold, self._calls.event(ask, hold.amounts.nanos)) for hold, ask in named]
        bodies += [event.body(reservation=hold.id) for hold, event in settling]
        self._pick.shuffle(bodies)
        request = self._report_request(bodies)
        fate = Fate.UNKNOWN if self._pick.random() < HANG_UP_SHARE else Fate.DONE
        if fate is Fate.UNKNOWN:
            self._caller.hang_up_on(request)
        else:
            self._check_report(self._caller.ask(request), len(bodies))
            self._reported += fresh
        self.memory.events += [(self.seat.tenant, event, fate) for event in fresh]
        for hold, event in settling:
            hold.settles.append((event, fate))

    def _report_request(self, bodies: list[dict[str, Any]]) -> bytes:
        return self._caller.request("POST", "/v1/events", bodies)

    def _check_report(self, answer: Answer, count: int) -> None:
        self._check(answer.status == 200, "report", answer)
        if answer.status == 200:
            facts = _read(answer)
            taken = facts["accepted"] + facts["duplicates"]
            self._check(taken == count and not facts["unpriced"], f"{count} events", answer)

    def _look(self) -> None:
        """A reservation is what is known of it."""
        if self._settled and self._pick.random() < 0.5:
            known = self._settled[-1]
            facts = self._ask_for(known.hold)
            wanted = ("settled", known.event.nanos, known.hold.late)
            found = (facts["status"], nanos_of(facts["cost_usd"]), facts["late"])
            self._check(found == wanted, f"{wanted} is known", Answer(200, str(facts).encode()))
        elif self._open:
            hold, _ = self._open[-1]
            facts = self._ask_for(hold)
            is_over = hold.is_over(datetime.now(UTC), -TOLERANCE)
            self._check(
                is_over or facts["status"] == "open", "open", Answer(200, str(facts).encode())
            )

    def _ask_for(self, hold: Hold) -> Any:
        answer = self._caller.ask(self._caller.request("GET", f"/v1/reservations/{hold.id}"))
        self._check(answer.status == 200, "look", answer)
        return _read(answer)

    def _check(self, holds: bool, what: str, answer: Answer) -> None:
        if not holds:
            words = answer.body[:300].decode(errors="replace")
            self._note_wrong(f"{self.seat.tenant}: {what}, but {answer.status} {words}")

    def _note_wrong(self, words: str) -> None:
        self.memory.wrong[words] += 1


def _refusing(answer: Answer) -> list[str]:
    """The budgets that refused, or the code of what did."""
    facts = _read(answer)
    names = [one["name"] for one in facts.get("budgets", []) if one["refused"]]
    return names or [facts["code"]]


def _read(answer: Answer) -> Any:
    return msgspec.json.decode(answer.body)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
