"""How the asks of a turn are decided: halts first, then budgets and rates, one ask after the other.

Works on windows and paces that the turn has locked.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from common.errors import IdempotencyConflict
from common.idempotency import KeptAnswer, claim_keys, free_keys, keep_answers
from metering.budgets.levels import Room
from metering.ledger.holds import Held, HeldWindow
from metering.ledger.posting import HoldMove
from metering.ledger.windows import WindowState, room_of
from metering.limits.breakers import forget_probes, try_probe
from metering.limits.decisions import DecisionRow
from metering.limits.halts import ActiveHalt, ActiveHalts, halts_changed
from metering.limits.rate_counters import PaceKey, PaceState
from metering.limits.throttles import ActiveTightening
from metering.reservations.endings import Endings, last_moment
from metering.reservations.judge import (
    Judge,
    Verdict,
    halted_by,
    rate_key,
    refuse_by_halt,
    throttle_key,
)
from metering.reservations.repository import decision_row, insert_lockout, reservation_row
from metering.reservations.wishes import ask_at_level
from metering.reservations.works import Reserve, Work
from metering.snapshot import Configuration


class Asking:
    """The asks of a turn, and what is granted."""

    def __init__(self, configuration: Configuration, works: Sequence[Work]) -> None:
        self.configuration = configuration
        self.tenant_id = configuration.tenant_id
        self.book = configuration.budgets
        self.asking = [work for work in works if isinstance(work, Reserve)]
        self.is_keyed = any(work.request_key is not None for work in self.asking)
        self.decisions: list[DecisionRow] = []
        # What is granted: rows to be written, and the same as a process remembers it.
        self.rows: list[dict[str, Any]] = []
        self.made: list[Held] = []
        # Halts that levels of this turn have made.
        self._lockouts: list[ActiveHalt] = []
        # Asks that went past a halt: some of them are probes of its breaker.
        self._probes: set[UUID] = set()
        self._decided: list[Reserve] = []
        # Requests with the key of another one in this turn, which is answered first.
        self._repeats: list[tuple[Reserve, Reserve]] = []

    def answer_again(self, cursor: Any) -> None:
        """Answer requests that were answered before; the others go on."""
        first: dict[str, Reserve] = {}
        for work in self.asking:
            if work.request_key is not None:
                first.setdefault(work.request_key.key, work)
        keys = [work.request_key for work in first.values() if work.request_key is not None]
        known = claim_keys(cursor, self.tenant_id, keys)
        for work in list(self.asking):
            if work.request_key is None:
                continue
            answer = known.get(work.request_key.key)
            earlier = first[work.request_key.key]
            if isinstance(answer, KeptAnswer):
                work.answer = answer.data
            elif answer is not None:
                work.error = answer
            elif earlier is not work:
                self._repeats.append((work, earlier))
            else:
                continue
            self.asking.remove(work)

    def stop_halted(self, cursor: Any, halts: ActiveHalts, *, now: datetime) -> None:
        """Refuse what a halt stops; the others go on."""
        for work in list(self.asking):
            stopping = [
                halt
                for halt in halts.matching(work.ask.offer.values)
                if halt.is_certain(now)
                or not try_probe(cursor, self.tenant_id, halt.id, work.id, now)
            ]
            self._probes.add(work.id)
            if stopping:
                self._refuse(work, refuse_by_halt(work.ask, stopping[0]), now)
                self.asking.remove(work)

    def pace_keys(self) -> set[PaceKey]:
        """The paces that any of the asks may go by."""
        keys: set[PaceKey] = set()
        if not self.configuration.rate_limits and not self.book.has_throttles:
            return keys
        for work in self.asking:
            for offer in (work.ask.offer, work.ask.cheaper):
                if offer is None:
                    continue
                for rate_rule in self.configuration.rate_limits:
                    if (key := rate_key(rate_rule, work.ask, offer)) is not None:
                        keys.add(key)
                for window in offer.windows:
                    keys.update(
                        throttle_key(self.book.window_ids[window], level.percent)
                        for level in self.book.rules[window.budget_id].throttles
                    )
        return keys

    def window_ids(self) -> set[int]:
        """Every window that may be held."""
        return {self.book.window_ids[key] for work in self.asking for key in work.ask.window_keys()}

    def decide(
        self,
        cursor: Any,
        *,
        windows: Mapping[int, WindowState],
        endings: Endings,
        paces: Mapping[PaceKey, PaceState],
        tightenings: Sequence[ActiveTightening],
        now: datetime,
    ) -> None:
        """Decide every ask; what is granted is added to what the endings move."""
        judge = Judge(
            configuration=self.configuration,
            windows=windows,
            rooms=self._rooms(windows, endings, now),
            paces=paces,
            tightenings=tightenings,
            now=now,
        )
        for work in self.asking:
            stopping = [one for one in self._lockouts if one.matches(work.ask.offer.values)]
            if stopping:
                self._refuse(work, refuse_by_halt(work.ask, stopping[0]), now)
                continue
            verdict = judge.decide(work.ask)
            if verdict.error is not None:
                self._act(cursor, verdict, now)
                self._refuse(work, verdict, now)
            else:
                self._grant(work, verdict, endings, now)

    def _rooms(
        self, windows: Mapping[int, WindowState], endings: Endings, now: datetime
    ) -> dict[int, Room]:
        """The windows as they will be once what ends in this turn has ended."""
        rooms = {}
        for window_id in self.window_ids():
            window = windows[window_id]
            rooms[window_id] = room_of(self.book.rules[window.budget_id], window, now=now)
        for posting, amounts in endings.sums.items():
            if posting.window_id in rooms:
                rooms[posting.window_id].spend(amounts)
        for window_id, hold in endings.moves.items():
            if window_id in rooms:
                rooms[window_id].hold(hold.reserved)
        return rooms

    def _grant(self, work: Reserve, verdict: Verdict, endings: Endings, now: datetime) -> None:
        offer = verdict.offer
        assert offer is not None, "a grant offers something"
        expires_at = now + timedelta(seconds=work.ttl_seconds)
        last = last_moment(self.book, offer.values, now)
        if last is not None:
            expires_at = min(expires_at, last)
        work.answer = work.granted(verdict, expires_at)
        held = self._held(work, verdict, now)
        hold = HoldMove(offer.amounts)
        endings.moves.add({window.window_id: hold for window in held.windows})
        window_ids = [window.window_id for window in held.windows]
        self.rows.append(
            reservation_row(work.id, verdict, window_ids, now=now, expires_at=expires_at)
        )
        self.made.append(held)
        self._decided.append(work)
        if not verdict.is_plain:
            self.decisions.append(decision_row(work.id, verdict, now=now))

    def _held(self, work: Reserve, verdict: Verdict, now: datetime) -> Held:
        offer = verdict.offer
        assert offer is not None, "a grant offers something"
        windows = [
            HeldWindow(
                self.book.window_ids[key],
                key.budget_id,
                self.book.rules[key.budget_id].revision,
                key.group,
                key.starts_at,
            )
            for key in offer.windows
        ]
        return Held(work.id, offer.values, offer.amounts, tuple(windows), now, work.ask.top)

    def _act(self, cursor: Any, verdict: Verdict, now: datetime) -> None:
        """What a refusal sets off: a halt by a level that locks out, or a wish for a raise."""
        if verdict.lockout is not None:
            made = insert_lockout(cursor, self.tenant_id, verdict.lockout, now=now)
            if made is not None:
                assert verdict.error is not None
                self._lockouts.append(made)
                verdict.error = halted_by(made, now=now, budgets=verdict.budgets)
                transaction.on_commit(halts_changed.set)
        if verdict.wish is not None:
            ask_at_level(
                tenant_id=self.tenant_id,
                version=self.configuration.version,
                wish=verdict.wish,
                now=now,
            )

    def _refuse(self, work: Reserve, verdict: Verdict, now: datetime) -> None:
        work.error = verdict.error
        self._decided.append(work)
        self.decisions.append(decision_row(work.id, verdict, now=now))

    def end_probes(self, cursor: Any) -> None:
        """Let another call be the probe of a breaker whose probe was refused after all."""
        if unused := self._probes - {held.id for held in self.made}:
            forget_probes(cursor, self.tenant_id, unused)

    def keep_answers(self, cursor: Any) -> None:
        """Keep what was granted for a retry with the same key; a refusal frees its key."""
        keyed = [(work, work.request_key.key) for work in self._decided if work.request_key]
        answers = {key: KeptAnswer(201, work.answer) for work, key in keyed if work.answer}
        keep_answers(cursor, self.tenant_id, answers)
        free_keys(cursor, self.tenant_id, [key for work, key in keyed if work.error is not None])
        self._answer_repeats(self._repeats)

    @staticmethod
    def _answer_repeats(repeats: Iterable[tuple[Reserve, Reserve]]) -> None:
        for work, earlier in repeats:
            work.answer, work.error = earlier.answer, earlier.error
            if work.request_key != earlier.request_key:
                work.answer = None
                work.error = IdempotencyConflict("This key was used for another request.")
