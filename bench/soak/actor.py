"""One client: it draws an operation, carries it out, and lets the answer be judged."""

import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from bench.kit.caller import Progress
from bench.kit.wire import Answer, JsonObject
from bench.soak.calls import Calls, Prices
from bench.soak.judge import Judge
from bench.soak.plan import Seat
from bench.soak.records import REPEATED, RETOLD, SOURCE, Event, Fate, Hold, Memory
from bench.soak.world import ROUGH, TIDY

HOLDS_MAX: Final = 8
KNOWN_MAX: Final = 12
# Nothing of the tidy tenant expires; in the rough one some of it does immediately.
TIDY_TTL_SECONDS: Final = 3600
SHORT_TTL_SECONDS: Final = 1
ROUGH_TTL_SECONDS: Final = 20
HUNG_UP_TTL_SECONDS: Final = 3
SHORT_SHARE: Final = 0.12
HANG_UP_SHARE: Final = 0.03
BATCH_MAX: Final = 12
SLOW_SHARE: Final = 0.01
WRITTEN_EVERY: Final = 1_000


class Settled(NamedTuple):
    """A reservation that was settled, and the answer."""

    hold: Hold
    event: Event
    answer: JsonObject


class Actor:
    """A client with two connections, so that it can race itself."""

    def __init__(self, seat: Seat, *, prices: Prices, progress: Progress) -> None:
        self.seat = seat
        self.memory = Memory()
        self.judge = Judge(seat.tenant, self.memory)
        self._progress = progress
        self._pick = seat.pick()
        self._calls = Calls(name=seat.name, tenant=seat.tenant, pick=self._pick, prices=prices)
        self._caller, self._other = (
            seat.caller(self.memory.tally, self._pick, progress) for _ in range(2)
        )
        self._asks = 0
        self._open: list[Hold] = []
        self._short: deque[Hold] = deque(maxlen=KNOWN_MAX)
        self._released: deque[Hold] = deque(maxlen=KNOWN_MAX)
        self._settled: deque[Settled] = deque(maxlen=KNOWN_MAX)
        self._reported: deque[Event] = deque(maxlen=KNOWN_MAX)
        self._ways = self._weighed_ways()

    def run(self) -> Memory:
        """Carry out all operations, then end what is still hold."""
        try:
            for number in range(self.seat.operations):
                self.seat.wait_for_turn(number)
                self._operate()
                self._progress.count(0, 1)
                if number % WRITTEN_EVERY == 0:
                    self.memory.write(self.seat.records, live=self._live())
            while self._open:
                self._end_one()
        except Exception as error:
            self.judge.note_wrong(f"a client ended with {error!r}")
        self.memory.write(self.seat.records, live=())
        return self.memory

    def _live(self) -> list[Hold]:
        """Return the reservations that this client may still do something about."""
        return [
            *self._open,
            *self._short,
            *self._released,
            *(known.hold for known in self._settled),
        ]

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
            ways |= {self._retell: 4, self._void: 2}
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

    def _take(self) -> Hold:
        return self._open.pop(self._pick.randrange(len(self._open)))

    # Reserving.

    def _reserve(self) -> None:
        hold = self._new_ask()
        request, began = self._reserve_request(hold), time.monotonic()
        if self._pick.random() < 0.06:
            answers = self._caller.ask_both(self._other, request, request)
            answer = self.judge.choose_reservation(*answers)
        else:
            answer = self._ask(request)
        self._note_reserved(hold, answer, began)

    def _ask(self, request: bytes) -> Answer:
        """Ask as a client with a good line, or now and then with a very bad one."""
        is_slow = self._pick.random() < SLOW_SHARE
        return (self._caller.ask_slowly if is_slow else self._caller.ask)(request)

    def _reserve_two(self) -> None:
        """Ask for two calls simultaneously, which may want the same last dollars."""
        asked = [self._new_ask() for _ in range(2)]
        began = time.monotonic()
        answers = self._caller.ask_both(self._other, *map(self._reserve_request, asked))
        for hold, answer in zip(asked, answers, strict=True):
            self._note_reserved(hold, answer, began)

    def _new_ask(self) -> Hold:
        self._asks += 1
        ask, now = self._calls.ask(ttl_seconds=self._ttl_seconds()), datetime.now(UTC)
        key = f"{self.seat.name}-{self._asks}"
        return Hold(key, self.seat.tenant, ask, now, now)

    def _ttl_seconds(self) -> int:
        if self.seat.tenant == TIDY:
            return TIDY_TTL_SECONDS
        is_short = self._pick.random() < SHORT_SHARE
        return SHORT_TTL_SECONDS if is_short else ROUGH_TTL_SECONDS

    def _reserve_request(self, hold: Hold, **changes: object) -> bytes:
        body = {**hold.ask.body, **changes}
        return self._caller.request("POST", "/v1/reservations", body, key=hold.key)

    def _note_reserved(self, hold: Hold, answer: Answer, began: float) -> None:
        if self.judge.check_reserve(hold, answer, began, time.monotonic()):
            is_short = hold.ask.body["ttl_seconds"] == SHORT_TTL_SECONDS
            (self._short if is_short else self._open).append(hold)

    def _ask_otherwise(self) -> None:
        """Send the key of a reservation with another body."""
        if self._open:
            hold = self._open[-1]
            seconds = hold.ask.body["ttl_seconds"] - 1
            request = self._reserve_request(hold, ttl_seconds=seconds)
            self.judge.check_reused_key(self._caller.ask(request))

    def _abandon(self) -> None:
        """Hang up on a settle or on a reservation, and leave it at that."""
        if self._open and self._pick.random() < 0.5:
            hold = self._take()
            event = self._event(hold)
            self._caller.hang_up_on(self._settle_request(hold, event))
            hold.settles.append((event, Fate.UNKNOWN))
            return
        hold = self._new_ask()
        hold.granted = Fate.UNKNOWN
        request = self._reserve_request(hold, ttl_seconds=HUNG_UP_TTL_SECONDS)
        self._caller.hang_up_on(request)
        self.memory.holds.append(hold)

    # Settling.

    def _settle(self) -> None:
        if self._open:
            self._settle_one(self._take())
        else:
            self._reserve()

    def _settle_one(self, hold: Hold) -> None:
        event = self._event(hold)
        request, asked_at = self._settle_request(hold, event), datetime.now(UTC)
        if self.seat.tenant == ROUGH and self._pick.random() < 0.1:
            # Hang up first, and learn what became of it afterwards.
            self._caller.hang_up_on(request)
        self._note_settled(hold, event, self._ask(request), asked_at)

    def _event(self, hold: Hold) -> Event:
        return self._calls.event(hold.ask, hold.ask.amounts.nanos)

    def _settle_request(self, hold: Hold, event: Event) -> bytes:
        path = f"/v1/reservations/{hold.id}/settle"
        return self._caller.request("POST", path, event.body())

    def _note_settled(self, hold: Hold, event: Event, answer: Answer, asked_at: datetime) -> None:
        if self.judge.check_settle(hold, event, answer, asked_at):
            self._settled.append(Settled(hold, event, answer.json()))

    def _settle_again(self) -> None:
        if self._settled:
            known = self._pick.choice(self._settled)
            self.memory.tally.faults[REPEATED] += 1
            answer = self._caller.ask(self._settle_request(known.hold, known.event))
            self.judge.check_repeated_settle(known.answer, answer)

    def _settle_otherwise(self) -> None:
        if self._settled:
            known = self._pick.choice(self._settled)
            other = known.event._replace(nanos=known.event.nanos + 1, model=None)
            sent_id = self._pick.choice((other.sent_id, f"{other.sent_id}-other"))
            request = self._settle_request(known.hold, other._replace(sent_id=sent_id))
            self.judge.check_other_settle(self._caller.ask(request))

    def _settle_late(self) -> None:
        """Settle what was released, or what has expired."""
        waiting = self._released if self._pick.random() < 0.4 else self._short
        if waiting:
            self._settle_one(waiting.popleft())
        else:
            self._reserve()

    # Releasing and extending.

    def _release(self) -> None:
        if not self._open:
            return
        hold = self._take()
        for _ in range(self._pick.choice((1, 1, 2))):
            self.judge.check_release(hold, self._caller.ask(self._release_request(hold)))
        self._released.append(hold)

    def _release_request(self, hold: Hold) -> bytes:
        return self._caller.request("POST", f"/v1/reservations/{hold.id}/release")

    def _extend(self) -> None:
        if self._open:
            hold, began = self._pick.choice(self._open), time.monotonic()
            answer = self._caller.ask(self._extend_request(hold))
            self.judge.check_extension(hold, answer, began, time.monotonic())

    def _extend_request(self, hold: Hold) -> bytes:
        seconds = TIDY_TTL_SECONDS if self.seat.tenant == TIDY else ROUGH_TTL_SECONDS
        path = f"/v1/reservations/{hold.id}/extend"
        return self._caller.request("POST", path, {"ttl_seconds": seconds})

    # Two simultaneous requests about one reservation.

    def _race(self) -> None:
        if not self._open:
            self._reserve()
            return
        races: list[Callable[[Hold], None]] = [
            self._race_same,
            self._race_different,
            self._race_extension,
        ]
        if self.seat.tenant == ROUGH:
            # Of these a settle may come late, or twice.
            races += [self._race_release, self._race_event]
        self._pick.choice(races)(self._take())

    def _race_same(self, hold: Hold) -> None:
        event, asked_at = self._event(hold), datetime.now(UTC)
        request = self._settle_request(hold, event)
        first, second = self._caller.ask_both(self._other, request, request)
        self._note_settled(hold, event, first, asked_at)
        self.judge.check_repeated_settle(first.json(), second)

    def _race_different(self, hold: Hold) -> None:
        asked_at = datetime.now(UTC)
        events = [self._event(hold) for _ in range(2)]
        requests = [self._settle_request(hold, event) for event in events]
        answers = self._caller.ask_both(self._other, *requests)
        self.judge.check_settle_race(*answers)
        for event, answer in zip(events, answers, strict=True):
            self._note_settled(hold, event, answer, asked_at)

    def _race_release(self, hold: Hold) -> None:
        event, asked_at = self._event(hold), datetime.now(UTC)
        settle, release = self._caller.ask_both(
            self._other, self._settle_request(hold, event), self._release_request(hold)
        )
        # Where the release is refused it may have been done before all the same: when its answer is
        # lost, and the settle comes before it is asked for again.
        hold.released = Fate.UNKNOWN
        self._note_settled(hold, event, settle, asked_at)
        self.judge.check_release(hold, release)

    def _race_extension(self, hold: Hold) -> None:
        answers = self._caller.ask_both(
            self._other, self._release_request(hold), self._extend_request(hold)
        )
        self.judge.check_release_race(hold, *answers)
        self._released.append(hold)

    def _race_event(self, hold: Hold) -> None:
        """Send a settle, and an event that names the reservation: two reports of one call."""
        asked_at = datetime.now(UTC)
        settling = self._event(hold)
        reported = settling._replace(sent_id=settling.sent_id + RETOLD)
        settle, report = self._caller.ask_both(
            self._other,
            self._settle_request(hold, settling),
            self._report_request([reported.body(reservation=hold.id)]),
        )
        self._note_settled(hold, settling, settle, asked_at)
        self.judge.check_report(1, report)

    # Reporting, and looking.

    def _report(self) -> None:
        """Report a batch, of which some events settle reservations and some were sent before."""
        fresh = [self._calls.unreserved() for _ in range(self._pick.randrange(1, BATCH_MAX))]
        repeated = [event for event in self._reported if self._pick.random() < 0.1]
        named = [self._take() for _ in range(min(len(self._open), self._pick.randrange(3)))]
        settling = [(hold, self._event(hold)) for hold in named]
        bodies = [event.body() for event in (*fresh, *repeated)]
        bodies += [event.body(reservation=hold.id) for hold, event in settling]
        self.memory.tally.faults[REPEATED] += len(repeated)
        self._pick.shuffle(bodies)
        fate = self._send_report(bodies)
        self.memory.events += [(self.seat.tenant, event, fate) for event in fresh]
        for hold, event in settling:
            hold.settles.append((event, fate))
        if fate is Fate.DONE:
            self._reported += fresh

    def _send_report(self, bodies: list[JsonObject]) -> Fate:
        request = self._report_request(bodies)
        if self._pick.random() < HANG_UP_SHARE:
            self._caller.hang_up_on(request)
            return Fate.UNKNOWN
        self.judge.check_report(len(bodies), self._caller.ask(request))
        return Fate.DONE

    def _report_request(self, bodies: list[JsonObject]) -> bytes:
        return self._caller.request("POST", "/v1/events", bodies)

    def _retell(self) -> None:
        """Report a known call again, as a callback or as an instrumentation does."""
        told = [event for event in self._reported if event.response_id is not None]
        if not told:
            self._report()
            return
        event = self._pick.choice(told)
        self.memory.tally.faults[REPEATED] += 1
        if self._pick.random() < 0.5:
            path, body = "/v1/integrations/litellm", [event.callback()]
            self.judge.check_callback(self._caller.call("POST", path, body))
        else:
            trace, span = (f"{self._pick.getrandbits(bits):0{bits // 4}x}" for bits in (128, 64))
            export = event.span(trace, span)
            self.judge.check_span(self._caller.call("POST", "/v1/traces", export))

    def _void(self) -> None:
        """Take a reported call back: it leaves every window it counted in."""
        if not self._reported:
            self._report()
            return
        event = self._pick.choice(self._reported)
        self._reported.remove(event)
        asked = {"id": event.sent_id, "source": SOURCE, "action": "void", "reason": "soak"}
        answer = self._caller.call("POST", "/v1/corrections", asked)
        self.judge.check_void(event, answer)

    def _look(self) -> None:
        """Look at a reservation, which must be what is known of it."""
        if self._settled and self._pick.random() < 0.5:
            known = self._settled[-1]
            self.judge.check_settled_view(known.hold, known.event, self._ask_for(known.hold))
        elif self._open:
            hold = self._open[-1]
            self.judge.check_open_view(hold, self._ask_for(hold))

    def _ask_for(self, hold: Hold) -> Answer:
        return self._caller.call("GET", f"/v1/reservations/{hold.id}")
