"""What callers want of reservations: to make one, settle it, release it, extend it."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Self
from uuid import UUID

import msgspec
from django.utils import timezone
from prometheus_client import Counter

from common.api.structs import Answer
from common.errors import EventRejected, InvalidRequest, MeteringError, ReservationFinished
from common.idempotency import RequestKey
from common.money import usd_from_nanos
from metering.budgets.index import WindowKey
from metering.calls.ingest_job import IngestJob
from metering.calls.preparation import IncomingReport, prepare_event
from metering.calls.prepared_event import PreparedEvent
from metering.ledger.holds import EXPIRED, RELEASED, SETTLED, STATES, Held, LockedReservation
from metering.models import Route
from metering.reservations.answers import ExtendAnswer, GrantAnswer, ReleaseAnswer, SettleAnswer
from metering.reservations.request import ReservationRequest
from metering.reservations.verdicts import Verdict
from metering.snapshot import Configuration
from metering.usage.decoders.native import EventBody

FINISHED: Final = {
    SETTLED: ("already_settled", "It was settled before."),
    RELEASED: ("already_released", "It was released before."),
    EXPIRED: ("reservation_expired", "It has expired; what it held was given back."),
}
# Without labels of tenants: their names are theirs.
DECISIONS: Final = Counter(
    "spendgate_decisions",
    "Reservations asked for, by what was decided; the code says why one was refused.",
    ["decision", "code"],
)
SETTLES: Final = Counter(
    "spendgate_settles", "Reservations settled, by whether that was late.", ["late"]
)


class Command(ABC):
    """What one caller wants: `answer` when it is done, or `error`."""

    def __init__(self, tenant_id: int) -> None:
        self.tenant_id = tenant_id
        self.answer: Answer | None = None
        self.error: MeteringError | None = None
        # Whether an earlier attempt may have been committed without an answer.
        self.was_attempted = False

    @property
    def weight(self) -> int:
        """How much of a transaction it makes up, in events."""
        return 1

    def pieces(self, weight_max: int) -> Sequence[Self]:
        """A command is one piece."""
        return [self]

    def take_error(self) -> MeteringError | None:
        """Return the error and drop it: the frames of the raising code hold the command."""
        error, self.error = self.error, None
        return error

    def reset(self) -> None:
        """Forget the result of a transaction that was rolled back, before another attempt."""
        self.answer = None
        self.error = None

    @abstractmethod
    def prepare(self, configuration: Configuration, held: Held | None) -> None:
        """Do what needs no lock; nothing if that is done already. Raises MeteringError."""

    def window_keys(self) -> tuple[WindowKey, ...]:
        """Return the windows that must exist before they are locked."""
        return ()

    def count(self) -> None:  # noqa: B027 - most commands are not counted
        """Count the finished command for `/metrics`."""


class Reserve(Command):
    """Ask before spending."""

    def __init__(
        self,
        tenant_id: int,
        request: ReservationRequest,
        *,
        ttl_seconds: int,
        request_key: RequestKey | None = None,
    ) -> None:
        super().__init__(tenant_id)
        self.request = request
        self.ttl_seconds = ttl_seconds
        self.request_key = request_key
        self.id = new_id()
        self._priced_by = -1

    def prepare(self, configuration: Configuration, held: Held | None = None) -> None:
        if self._priced_by != configuration.version:
            self.request.price(configuration)
            self._priced_by = configuration.version

    def window_keys(self) -> tuple[WindowKey, ...]:
        return self.request.window_keys()

    def grant(self, verdict: Verdict, expires_at: datetime) -> None:
        """Answer that the reservation is made."""
        candidate = verdict.granted
        self.answer = GrantAnswer(
            id=self.id,
            status="open",
            decision=verdict.decision,
            model=candidate.model or None,
            provider=candidate.provider or None,
            reserved_usd=usd_from_nanos(candidate.amounts.cost_nanos),
            reserved_tokens=candidate.amounts.tokens,
            estimate=self.request.estimate,
            expires_at=expires_at,
            budgets=verdict.budgets,
            warnings=verdict.warnings,
        )
        if verdict.is_downgrade and self.request.body.model is not None:
            self.answer.requested_model = self.request.body.model

    def count(self) -> None:
        if self.error is not None:
            DECISIONS.labels("refuse", self.error.code).inc()
        elif isinstance(self.answer, GrantAnswer):
            DECISIONS.labels(self.answer.decision, "").inc()


class ReservationCommand(Command):
    """A command about one reservation."""

    def __init__(self, tenant_id: int, reservation_id: UUID) -> None:
        super().__init__(tenant_id)
        self.reservation_id = reservation_id

    def prepare(self, configuration: Configuration, held: Held | None) -> None:
        """Nothing is to be done without the reservation's lock."""

    def refuse_finished(self, reservation: LockedReservation) -> None:
        """Answer that nothing more can be done with a reservation that has ended."""
        code, detail = FINISHED[reservation.state]
        self.error = ReservationFinished(detail, code=code)


class Settle(ReservationCommand):
    """Report what the call cost."""

    def __init__(self, tenant_id: int, reservation_id: UUID, body: EventBody) -> None:
        super().__init__(tenant_id, reservation_id)
        # As an event that is posted with this reservation would be, so that either way is known
        # as the same.
        self.body = msgspec.structs.replace(body, reservation=str(reservation_id))
        self.at = timezone.now()
        # Set by `prepare`.
        self.event: PreparedEvent
        self.job: IngestJob | None = None
        self._prepared_by = -1

    def prepare(self, configuration: Configuration, held: Held | None) -> None:
        if self._prepared_by != configuration.version:
            prepared = prepare_event(
                IncomingReport(0, self.body, held),
                now=self.at,
                route=Route.SETTLE,
                configuration=configuration,
            )
            if isinstance(prepared, EventRejected):
                raise invalid_event(prepared)
            self.event = prepared
            self._prepared_by = configuration.version
        # Of one attempt: it collects what becomes of the event.
        self.job = IngestJob(self.tenant_id, Route.SETTLE, 1, [self.event], configuration)

    def window_keys(self) -> tuple[WindowKey, ...]:
        return self.event.windows

    def confirm(self, reservation: LockedReservation) -> None:
        """Answer that it is settled, by what is stored, so that the answer is always the same."""
        self.answer = SettleAnswer(
            id=reservation.held.id,
            status="settled",
            cost_usd=usd_from_nanos(reservation.cost_nanos or 0),
            released_usd=usd_from_nanos(reservation.released_nanos),
            overrun_usd=usd_from_nanos(reservation.overrun_nanos),
            late=reservation.is_late,
        )

    def count(self) -> None:
        if isinstance(self.answer, SettleAnswer):
            SETTLES.labels("yes" if self.answer.late else "no").inc()


class Release(ReservationCommand):
    """Release the hold: the call was not made."""

    def confirm(self, reservation: LockedReservation) -> None:
        """Answer how the reservation ended."""
        is_released = reservation.state == RELEASED
        nanos = reservation.held.amounts.cost_nanos if is_released else 0
        self.answer = ReleaseAnswer(
            id=reservation.held.id,
            status=STATES[reservation.state],
            released_usd=usd_from_nanos(nanos),
        )


class Extend(ReservationCommand):
    """Hold for longer: the call is still running."""

    def __init__(self, tenant_id: int, reservation_id: UUID, *, ttl_seconds: int) -> None:
        super().__init__(tenant_id, reservation_id)
        self.ttl_seconds = ttl_seconds

    def confirm(self, reservation: LockedReservation) -> None:
        """Answer until when it holds."""
        self.answer = ExtendAnswer(
            id=reservation.held.id,
            status=STATES[reservation.state],
            expires_at=reservation.expires_at,
        )


def invalid_event(error: EventRejected) -> InvalidRequest:
    """Return the refusal of a settle whose event is rejected."""
    problem = error.as_error(0)
    del problem["index"]
    return InvalidRequest(error.detail, errors=[problem])


def new_id() -> UUID:
    """Return a UUID of version 7: it begins with the time, so that new rows stand together in
    indexes.
    """
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value &= ~(0xF << 76 | 0x3 << 62)
    return UUID(int=value | 0x7 << 76 | 0x2 << 62)
