"""What callers want of reservations: to make one, settle it, release it, extend it."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

import msgspec
from django.utils import timezone

from common.errors import EventRejected, InvalidRequest, MeteringError, ReservationFinished
from common.formats import moment
from common.idempotency import RequestKey
from common.money import usd_from_nanos
from metering.budgets.index import WindowKey
from metering.calls.ingest_job import IngestJob
from metering.calls.preparation import IncomingReport, prepare_event
from metering.calls.prepared_event import PreparedEvent
from metering.ledger.holds import EXPIRED, RELEASED, SETTLED, STATES, Held, Standing
from metering.models import Route
from metering.reservations.judge import Verdict
from metering.reservations.request import Ask
from metering.snapshot import Configuration
from metering.usage.decoders.native import EventBody

FINISHED: Final = {
    SETTLED: ("already_settled", "It was settled before."),
    RELEASED: ("already_released", "It was released before."),
    EXPIRED: ("reservation_expired", "It has expired; what it held was given back."),
}


class Work(ABC):
    """One caller's request: `answer` when it is done, or `error`."""

    def __init__(self, tenant_id: int) -> None:
        self.tenant_id = tenant_id
        self.answer: dict[str, Any] | None = None
        self.error: MeteringError | None = None
        # Whether an earlier attempt may have been committed without an answer.
        self.was_attempted = False

    @property
    def weight(self) -> int:
        """How much of a transaction it makes up, in events."""
        return 1

    def pieces(self, weight_max: int) -> Sequence[Self]:
        """A request is one piece."""
        return [self]

    def take_error(self) -> MeteringError | None:
        """The error, which the work then holds no more: whoever raises it has frames that hold the
        work.
        """
        error, self.error = self.error, None
        return error

    def reset(self) -> None:
        """Before another attempt: forget what a transaction that was rolled back had found."""
        self.answer = None
        self.error = None

    @abstractmethod
    def judge(self, configuration: Configuration, held: Held | None) -> None:
        """Find what can be found without the database. Raises MeteringError."""

    @property
    def named_id(self) -> UUID | None:
        """The reservation that the request names, where it names one."""
        return None

    def window_keys(self) -> Collection[WindowKey]:
        """Windows that must be there before they are locked."""
        return ()


class Reserve(Work):
    """Ask before spending."""

    def __init__(
        self,
        tenant_id: int,
        ask: Ask,
        *,
        ttl_seconds: int,
        request_key: RequestKey | None = None,
    ) -> None:
        super().__init__(tenant_id)
        self.ask = ask
        self.ttl_seconds = ttl_seconds
        self.request_key = request_key
        self.id = new_id()
        self._judged_by = -1

    def judge(self, configuration: Configuration, held: Held | None) -> None:
        if self._judged_by != configuration.version:
            self.ask.judge(configuration)
            self._judged_by = configuration.version

    def window_keys(self) -> Collection[WindowKey]:
        return self.ask.window_keys()

    def granted(self, verdict: Verdict, expires_at: datetime) -> dict[str, Any]:
        """The answer to a grant."""
        offer = verdict.offer
        assert offer is not None, "only a grant is answered so"
        answer: dict[str, Any] = {
            "id": str(self.id),
            "status": "open",
            "decision": verdict.decision,
            "model": offer.model or None,
            "provider": offer.provider or None,
            "reserved_usd": usd_from_nanos(offer.amounts.cost_nanos),
            "reserved_tokens": offer.amounts.tokens,
            "estimate": self.ask.estimate,
            "expires_at": moment(expires_at),
            "budgets": verdict.budgets,
            "warnings": verdict.warnings,
        }
        if verdict.is_downgrade:
            answer["requested_model"] = self.ask.body.model
        return answer


class Named(Work):
    """A request about one reservation."""

    def __init__(self, tenant_id: int, reservation_id: UUID) -> None:
        super().__init__(tenant_id)
        self.reservation_id = reservation_id

    @property
    def named_id(self) -> UUID:
        return self.reservation_id

    def judge(self, configuration: Configuration, held: Held | None) -> None:
        """Nothing to be found beforehand."""


class Settle(Named):
    """Say what the call has cost."""

    def __init__(self, tenant_id: int, reservation_id: UUID, body: EventBody) -> None:
        super().__init__(tenant_id, reservation_id)
        # As an event that is posted with this reservation would be, so that either way is known
        # as the same.
        self.body = msgspec.structs.replace(body, reservation=str(reservation_id))
        self.at = timezone.now()
        self.event: PreparedEvent | None = None
        self.job: IngestJob | None = None
        self._judged_by = -1

    def judge(self, configuration: Configuration, held: Held | None) -> None:
        if self._judged_by == configuration.version and self.event is not None:
            self._new_job(configuration)
            return
        prepared = prepare_event(
            IncomingReport(0, self.body, held),
            now=self.at,
            route=Route.SETTLE,
            configuration=configuration,
        )
        if isinstance(prepared, EventRejected):
            raise InvalidRequest(prepared.detail, errors=[_without_index(prepared)])
        self.event = prepared
        self._judged_by = configuration.version
        self._new_job(configuration)

    def _new_job(self, configuration: Configuration) -> None:
        assert self.event is not None
        self.job = IngestJob(self.tenant_id, Route.SETTLE, 1, [self.event], configuration)

    def window_keys(self) -> Collection[WindowKey]:
        return self.event.windows if self.event is not None else ()

    def settled(self, standing: Standing) -> dict[str, Any]:
        """The answer, out of what is stored, so that it is the same every time."""
        return {
            "id": str(standing.held.id),
            "status": "settled",
            "cost_usd": usd_from_nanos(standing.cost_nanos or 0),
            "released_usd": usd_from_nanos(standing.released_nanos),
            "overrun_usd": usd_from_nanos(standing.overrun_nanos),
            "late": standing.is_late,
        }


class Release(Named):
    """Give back what is held: the call was not made."""

    def released(self, standing: Standing) -> dict[str, Any]:
        """The answer."""
        is_released = standing.state == RELEASED
        nanos = standing.held.amounts.cost_nanos if is_released else 0
        return {
            "id": str(standing.held.id),
            "status": STATES[standing.state],
            "released_usd": usd_from_nanos(nanos),
        }


class Extend(Named):
    """Hold on for longer: the call still runs."""

    def __init__(self, tenant_id: int, reservation_id: UUID, *, ttl_seconds: int) -> None:
        super().__init__(tenant_id, reservation_id)
        self.ttl_seconds = ttl_seconds

    def extended(self, standing: Standing) -> dict[str, Any]:
        """The answer."""
        return {
            "id": str(standing.held.id),
            "status": STATES[standing.state],
            "expires_at": moment(standing.expires_at),
        }


def finished(standing: Standing) -> ReservationFinished:
    """Why nothing more can be done with a reservation that has ended."""
    code, detail = FINISHED[standing.state]
    return ReservationFinished(detail, code=code)


def _without_index(error: EventRejected) -> dict[str, Any]:
    facts = error.as_error(0)
    del facts["index"]
    return facts


def new_id() -> UUID:
    """A UUID of version 7: it begins with the time, so that new rows stand together in indexes."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value &= ~(0xF << 76 | 0x3 << 62)
    return UUID(int=value | 0x7 << 76 | 0x2 << 62)
