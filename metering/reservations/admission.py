"""The reservation requests of a batch, decided one after the other: halts, then budgets and rates.

Works on windows and paces that the transaction has locked.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from django.db import transaction
from django.db.backends.utils import CursorWrapper

from common.errors import IdempotencyConflict
from common.idempotency import KeptAnswer, claim_keys, free_keys, keep_answers
from common.queries import TakesStatements
from metering.budgets.levels import WindowBalance
from metering.ledger.held_windows import windows_to_hold
from metering.ledger.holds import Held
from metering.ledger.posting import HoldMove
from metering.ledger.windows import WindowState, balance_of
from metering.limits.breakers import forget_probes, try_probe
from metering.limits.decisions import DecisionRow
from metering.limits.halts import ActiveHalt, ActiveHalts, halts_changed
from metering.limits.limit_reductions import ActiveLimitReduction
from metering.limits.rate_counters import RateCounterKey, RateCounterState
from metering.reservations.answers import GrantAnswer
from metering.reservations.commands import Command, Reserve
from metering.reservations.increase_requests import request_increase
from metering.reservations.judge import Judge, rate_key, throttle_key
from metering.reservations.repository import decision_row, insert_lockout, reservation_row
from metering.reservations.settlement import Settlement, latest_end
from metering.reservations.verdicts import Verdict, decide, halted_by, refuse_by_halt
from metering.snapshot import Configuration


class NotAsExpected(Exception):
    """What a batch assumed does not hold: it must be done in another way."""


class Admission:
    """The reservation requests of a batch, and what is granted."""

    def __init__(self, configuration: Configuration, commands: Sequence[Command]) -> None:
        self.configuration = configuration
        self.tenant_id = configuration.tenant_id
        self.book = configuration.budgets
        self.pending = [command for command in commands if isinstance(command, Reserve)]
        self.is_keyed = any(command.request_key is not None for command in self.pending)
        self.decisions: list[DecisionRow] = []
        # What is granted: rows to be written, and the same as a process remembers it.
        self.rows: list[dict[str, object]] = []
        self.made: list[Held] = []
        # Halts that levels have made in this batch.
        self._lockouts: list[ActiveHalt] = []
        # Requests let through despite a halt; some are probes of its breaker.
        self._probes: set[UUID] = set()
        self._decided: list[Reserve] = []
        # Requests with the key of another one in this batch, which is answered first.
        self._repeats: list[tuple[Reserve, Reserve]] = []

    def answer_again(self, cursor: CursorWrapper) -> None:
        """Answer requests that were answered before; the others stay pending."""
        first: dict[str, Reserve] = {}
        for command in self.pending:
            if command.request_key is not None:
                first.setdefault(command.request_key.key, command)
        keys = [command.request_key for command in first.values() if command.request_key]
        known = claim_keys(cursor, self.tenant_id, keys)
        for command in list(self.pending):
            if command.request_key is None:
                continue
            answer = known.get(command.request_key.key)
            earlier = first[command.request_key.key]
            if isinstance(answer, KeptAnswer):
                command.answer = msgspec.convert(answer.data, GrantAnswer)
            elif answer is not None:
                command.error = answer
            elif earlier is not command:
                self._repeats.append((command, earlier))
            else:
                continue
            self.pending.remove(command)

    def stop_halted(self, cursor: CursorWrapper, halts: ActiveHalts, *, now: datetime) -> None:
        """Refuse what a halt stops; the others stay pending."""
        for command in list(self.pending):
            stopping = [
                halt
                for halt in halts.matching(command.request.candidate.values)
                if halt.is_certain(now)
                or not try_probe(cursor, self.tenant_id, halt.id, command.id, now)
            ]
            self._probes.add(command.id)
            if stopping:
                self._refuse(command, refuse_by_halt(command.request, stopping[0]), now)
                self.pending.remove(command)

    def rate_counter_keys(self) -> set[RateCounterKey]:
        """Return the paces that any of the requests may count in."""
        keys: set[RateCounterKey] = set()
        if not self.configuration.rate_limits and not self.book.has_throttles:
            return keys
        for request in [command.request for command in self.pending]:
            for candidate in filter(None, (request.candidate, request.cheaper)):
                for rate_rule in self.configuration.rate_limits:
                    if (key := rate_key(rate_rule, request, candidate)) is not None:
                        keys.add(key)
                for window in candidate.windows:
                    keys.update(
                        throttle_key(self.book.window_ids[window], level.percent)
                        for level in self.book.rules[window.budget_id].throttles
                    )
        return keys

    def window_ids(self) -> set[int]:
        """Return every window that may be held."""
        return set().union(*{self.book.ids_of(command.window_keys()) for command in self.pending})

    def decide(
        self,
        cursor: CursorWrapper | None,
        *,
        windows: Mapping[int, WindowState],
        settlement: Settlement,
        rate_counters: Mapping[RateCounterKey, RateCounterState],
        limit_reductions: Sequence[ActiveLimitReduction],
        now: datetime,
    ) -> None:
        """Decide every request; what is granted is added to what the settlement moves."""
        judge = Judge(
            configuration=self.configuration,
            windows=windows,
            balances=self._balances(windows, settlement, now),
            rate_counters=rate_counters,
            limit_reductions=limit_reductions,
            now=now,
        )
        for command in self.pending:
            values = command.request.candidate.values
            stopping = [halt for halt in self._lockouts if halt.matches(values)]
            if stopping:
                self._refuse(command, refuse_by_halt(command.request, stopping[0]), now)
                continue
            verdict = decide(judge, command.request)
            if verdict.error is not None:
                self._act(cursor, verdict, now)
                self._refuse(command, verdict, now)
            else:
                self._grant(command, verdict, settlement, now)

    def _balances(
        self, windows: Mapping[int, WindowState], settlement: Settlement, now: datetime
    ) -> dict[int, WindowBalance]:
        """Return the windows as they will be once everything that ends in this batch has ended."""
        balances = {}
        for window_id in self.window_ids():
            window = windows[window_id]
            balances[window_id] = balance_of(self.book.rules[window.budget_id], window, now=now)
        for posting, amounts in settlement.sums.items():
            if posting.window_id in balances:
                balances[posting.window_id].spend(amounts)
        for window_id, hold in settlement.moves.by_window().items():
            if window_id in balances:
                balances[window_id].hold(hold.reserved)
        return balances

    def _grant(
        self, command: Reserve, verdict: Verdict, settlement: Settlement, now: datetime
    ) -> None:
        candidate = verdict.granted
        expires_at = now + timedelta(seconds=command.ttl_seconds)
        latest = latest_end(self.book, candidate.values, now)
        if latest is not None:
            expires_at = min(expires_at, latest)
        held = Held(
            command.id,
            candidate.values,
            candidate.amounts,
            windows_to_hold(self.book, candidate.windows),
            now,
            command.request.top,
        )
        settlement.moves.add(held.windows.ids, HoldMove(candidate.amounts))
        self.rows.append(reservation_row(held, verdict, expires_at))
        self.made.append(held)
        command.grant(verdict, expires_at)
        self._decided.append(command)
        if not verdict.is_plain:
            self.decisions.append(decision_row(command.id, verdict, now=now))

    def _act(self, cursor: CursorWrapper | None, verdict: Verdict, now: datetime) -> None:
        """Do what a refusal sets off: a level's lockout, or its request for an increase."""
        if verdict.lockout is None and verdict.increase is None:
            return
        if cursor is None:
            raise NotAsExpected
        if verdict.lockout is not None:
            made = insert_lockout(cursor, self.tenant_id, verdict.lockout, now=now)
            if made is not None:
                self._lockouts.append(made)
                verdict.error = halted_by(made, now=now, budgets=verdict.budgets)
                transaction.on_commit(halts_changed.set)
        if verdict.increase is not None:
            request_increase(
                tenant_id=self.tenant_id,
                version=self.configuration.version,
                request=verdict.increase,
                now=now,
            )

    def _refuse(self, command: Reserve, verdict: Verdict, now: datetime) -> None:
        command.error = verdict.error
        self._decided.append(command)
        self.decisions.append(decision_row(None, verdict, now=now))

    def end_probes(self, cursor: TakesStatements) -> None:
        """Let another call be the probe of a breaker whose probe was refused after all."""
        if unused := self._probes - {held.id for held in self.made}:
            forget_probes(cursor, self.tenant_id, unused)

    def keep_answers(self, cursor: TakesStatements) -> None:
        """Keep what was granted for a retry with the same key; a refusal frees its key."""
        keyed = [
            (command, command.request_key.key) for command in self._decided if command.request_key
        ]
        answers = {key: KeptAnswer(201, command.answer) for command, key in keyed if command.answer}
        keep_answers(cursor, self.tenant_id, answers)
        refused = [key for command, key in keyed if command.error is not None]
        free_keys(cursor, self.tenant_id, refused)
        for command, earlier in self._repeats:
            command.answer, command.error = earlier.answer, earlier.error
            if command.request_key != earlier.request_key:
                command.answer = None
                command.error = IdempotencyConflict("This key was used for another request.")
