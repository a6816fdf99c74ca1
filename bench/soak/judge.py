"""What answers must be: each is compared with what its client knows, and noted."""

from datetime import UTC, datetime, timedelta
from typing import Final

from bench.kit.money import nanos_of
from bench.kit.wire import Answer, JsonObject
from bench.soak.records import Event, Fate, Grant, Hold, Memory
from bench.soak.world import CALL_LIMIT_NANOS, HALTED_AGENTS, ROUGH, TIDY

# Clocks of one machine; what is written may be judged a little later.
TOLERANCE: Final = timedelta(seconds=2)
REFUSALS: Final = {
    402: frozenset({"budget_exceeded"}),
    423: frozenset({"halted"}),
    429: frozenset({"throttled"}),
}
ALREADY_SETTLED: Final = "already_settled"
# A known halt refuses whatever is asked for, with whichever key.
KEY_REUSED: Final = frozenset({"idempotency_conflict", "halted"})


class Judge:
    """Judges the answers of one client, and remembers what they say."""

    def __init__(self, tenant: str, memory: Memory) -> None:
        self._tenant = tenant
        self._memory = memory

    def require(self, holds: bool, what: str, answer: Answer) -> None:
        """Note an answer that is wrong."""
        if not holds:
            self.note_wrong(f"{what}, but {answer}")

    def _told(self, what: str, answer: Answer) -> JsonObject:
        """Return what an answer says; nothing where it is no success, which is noted."""
        self.require(answer.status == 200, what, answer)
        return answer.json() if answer.status == 200 else {}

    def note_wrong(self, words: str) -> None:
        """Note that something is wrong."""
        self._memory.wrong[f"{self._tenant}: {words}"] += 1

    def choose_reservation(self, first: Answer, second: Answer) -> Answer:
        """Return the one of two answers to one key to go by."""
        ids = {answer.json()["id"] for answer in (first, second) if answer.status == 201}
        self.require(len(ids) < 2, "one key gave two reservations", first)
        return first if first.status == 201 else second

    def check_reused_key(self, answer: Answer) -> None:
        """Check the answer to the key of a reservation with another body."""
        self.require(answer.code in KEY_REUSED, "another body", answer)

    def check_reserve(self, hold: Hold, answer: Answer, began: float, ended: float) -> bool:
        """Check a reservation; return whether it was given."""
        if answer.status != 201:
            codes = REFUSALS.get(answer.status, frozenset())
            self.require(answer.code in codes, "reserve", answer)
            for name in _refusing(answer):
                self._memory.refusals[name] += 1
            return False
        body = answer.json()
        hold.id, hold.answered_at = body["id"], datetime.now(UTC)
        hold.expires_at = datetime.fromisoformat(body["expires_at"])
        held, wanted = nanos_of(body["reserved_usd"]), hold.ask.amounts.nanos
        self.require(held == wanted, f"{wanted} nanos are to be held", answer)
        is_above = self._tenant == TIDY and held > CALL_LIMIT_NANOS
        self.require(not is_above, "a call above the limit of single calls", answer)
        self._memory.holds.append(hold)
        self._note_grant(hold, began, ended)
        return True

    def check_settle(self, hold: Hold, event: Event, answer: Answer, asked_at: datetime) -> bool:
        """Check a settle; return whether it was taken."""
        is_done = answer.status == 200
        hold.settles.append((event, Fate.DONE if is_done else Fate.REFUSED))
        if not is_done:
            self.require(answer.code == ALREADY_SETTLED, "settle", answer)
            return False
        body = answer.json()
        hold.late = body["late"]
        self.require(nanos_of(body["cost_usd"]) == event.nanos, f"costs {event.nanos}", answer)
        if not hold.late:
            spared = hold.ask.amounts.nanos - event.nanos
            told = nanos_of(body["released_usd"]), nanos_of(body["overrun_usd"])
            self.require(told == (max(0, spared), max(0, -spared)), f"spares {spared}", answer)
        # Late is what comes after a release or the expiry, and nothing else.
        may_be_late = hold.released is not None or self._may_be_over(hold)
        self.require(may_be_late or not hold.late, "it is not late", answer)
        must_be_late = hold.is_over(asked_at, TOLERANCE)
        self.require(hold.late is True or not must_be_late, "it is late", answer)
        return True

    def check_repeated_settle(self, known: object, answer: Answer) -> None:
        """Check that the same settle gives the same answer."""
        is_same = answer.status == 200 and answer.json() == known
        self.require(is_same, f"the answer was {known}", answer)

    def check_other_settle(self, answer: Answer) -> None:
        """Check that a different settle of the same reservation is refused."""
        self.require(answer.code == ALREADY_SETTLED, "another settle", answer)

    def check_settle_race(self, first: Answer, second: Answer) -> None:
        """Check that of two different simultaneous settles one is taken."""
        statuses = sorted((first.status, second.status))
        self.require(statuses == [200, 409], f"two settles: {statuses}", first)

    def check_release(self, hold: Hold, answer: Answer) -> None:
        """Check a release."""
        if answer.status == 200:
            # What has expired is answered as that: it holds nothing any more.
            if answer.json()["status"] == "released":
                hold.released = Fate.DONE
            else:
                self.require(self._may_be_over(hold), "it has not expired", answer)
            return
        self.require(answer.status == 409, "release", answer)
        has_ended = self._may_be_over(hold) or bool(hold.settles)
        self.require(has_ended, "it can be released", answer)

    def check_extension(self, hold: Hold, answer: Answer, began: float, ended: float) -> None:
        """Check an extension."""
        if answer.status == 200:
            hold.expires_at = datetime.fromisoformat(answer.json()["expires_at"])
            self._note_grant(hold, began, ended)
            return
        is_halted = answer.status == 423 and hold.ask.values.get("agent") in HALTED_AGENTS
        is_over = answer.status == 409 and self._may_be_over(hold)
        self.require(is_halted or is_over, "extend", answer)

    def check_release_race(self, hold: Hold, release: Answer, extension: Answer) -> None:
        """Check a release and an extension that were sent simultaneously."""
        self.check_release(hold, release)
        self.require(extension.status in (200, 409, 423), "extend and release", extension)
        if extension.status == 200 and release.status != 200:
            hold.expires_at = datetime.fromisoformat(extension.json()["expires_at"])

    def check_report(self, count: int, answer: Answer) -> None:
        """Check a report of events, none of them wrong."""
        if body := self._told("report", answer):
            taken = body["accepted"] + body["merged"] + body["duplicates"]
            self.require(taken == count and not body["unpriced"], f"{count} events", answer)

    def check_callback(self, answer: Answer) -> None:
        """Check that a known call, reported by a callback, counts no second time."""
        if told := self._told("a callback", answer):
            known = told["merged"] + told["duplicates"]
            self.require((told["accepted"], known) == (0, 1), "one known call", answer)

    def check_span(self, answer: Answer) -> None:
        """Check that a known call, reported by a span, is not refused."""
        partial = self._told("a span", answer).get("partialSuccess") or {}
        refused = int(partial.get("rejectedSpans") or 0)
        self.require(refused == 0, "a span that can be read", answer)

    def check_void(self, event: Event, answer: Answer) -> None:
        """Check that a call was voided."""
        if told := self._told("void", answer):
            cost = nanos_of(told["voided_cost_usd"])
            self.require(cost == event.nanos, f"it cost {event.nanos}", answer)
            self._memory.voided.add(event.sent_id)

    def check_settled_view(self, hold: Hold, event: Event, answer: Answer) -> None:
        """Check what is shown of a settled reservation."""
        self.require(answer.status == 200, "look", answer)
        body = answer.json()
        wanted = ("settled", event.nanos, hold.late)
        actual = (body["status"], nanos_of(body["cost_usd"]), body["late"])
        self.require(actual == wanted, f"{wanted} is known", answer)

    def check_open_view(self, hold: Hold, answer: Answer) -> None:
        """Check what is shown of a reservation that no one has ended."""
        self.require(answer.status == 200, "look", answer)
        is_open = answer.json()["status"] == "open" or self._may_be_over(hold)
        self.require(is_open, "it is open", answer)

    def _may_be_over(self, hold: Hold) -> bool:
        return hold.is_over(datetime.now(UTC), -TOLERANCE)

    def _note_grant(self, hold: Hold, began: float, ended: float) -> None:
        agent = hold.ask.values.get("agent")
        if self._tenant == ROUGH and agent in HALTED_AGENTS:
            self._memory.grants.append(Grant(str(agent), began, ended))


def _refusing(answer: Answer) -> list[str]:
    """Return the budgets that refused, or the code of what did."""
    body = answer.json()
    names = [budget["name"] for budget in body.get("budgets", []) if budget["refused"]]
    return names or [body["code"]]
