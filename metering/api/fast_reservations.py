"""Reservations as plain handlers, which the web process calls before Django."""

import re
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Final
from uuid import UUID

import msgspec
from django.utils import timezone

from common.api.parsing import LARGE_BODY_BYTES_MAX
from common.errors import EventRejected, MeteringError
from common.idempotency import RequestKey, hash_of, require_key
from metering.api.counters import count_job
from metering.api.fast_halts import find_holder, handle_halts
from metering.api.fast_path import (
    JSON,
    Begin,
    Endpoint,
    HotRequest,
    HotResponse,
    Steps,
    Submission,
    UnsupportedMediaType,
    bearer,
    content_type,
    handle,
    handle_events,
    handle_litellm,
    handle_traces,
    refuse,
)
from metering.limits.halt_watch import known_halts, remember_refusal
from metering.reservations.commands import (
    DECISIONS,
    Command,
    Extend,
    Release,
    Reserve,
    Settle,
    invalid_event,
)
from metering.reservations.committer import PROCESS_ENFORCER
from metering.reservations.repository import decision_row
from metering.reservations.request import ReservationRequest, decode_extend, decode_reservation
from metering.reservations.verdicts import refuse_by_halt
from metering.snapshot import known_configuration
from metering.usage.decoders.native import decode_event
from tenants.keys import KeyHolder, find_key_holder
from tenants.roles import Scope

RESERVATIONS: Final = "/v1/reservations"
# Clients that poll must learn of halts also while Django's transaction cannot be opened.
HALTS: Final = "/v1/halts"
_ACTION: Final = re.compile(
    r"/v1/reservations/([0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12})"
    r"/(settle|release|extend)"
)


def find_endpoint(method: str, path: str, query: str = "") -> Endpoint | None:
    """The endpoint of an address that never enters Django."""
    if (method, path, query) == ("GET", HALTS, ""):
        return Endpoint(handle_halts, HALTS)
    if method != "POST":
        return None
    if path in ENDPOINTS:
        return ENDPOINTS[path]
    action = _ACTION.fullmatch(path)
    if action is None:
        return None
    begin: Begin = partial(ACTIONS[action[2]], reservation_id=UUID(action[1]))
    return Endpoint(begin, f"/v1/reservations/{{id}}/{action[2]}")


def handle_reserve(request: HotRequest) -> Steps:
    """`POST /v1/reservations`: ask before spending."""

    def take(holder: KeyHolder, data: bytes) -> Steps:
        _require_json(request.headers)
        body = decode_reservation(data)
        reservation = ReservationRequest(body, key_prefix=holder.prefix, at=timezone.now())
        _raise_if(_halted(holder.tenant_id, reservation))
        # Nothing is granted on what is only remembered of a key.
        if (current := find_key_holder(bearer(request.headers))) is None:
            return refuse(None, Scope.ENFORCE)
        if Scope.ENFORCE.value not in current.scopes:
            return refuse(current, Scope.ENFORCE)
        key = request.headers.get("idempotency-key")
        request_key = None
        if key is not None:
            require_key(key)
            digest = hash_of("POST", RESERVATIONS, msgspec.to_builtins(body))
            request_key = RequestKey(key, digest)
        command = Reserve(
            holder.tenant_id, reservation, ttl_seconds=body.ttl_seconds, request_key=request_key
        )
        if reservation.estimate == "expected":
            # It may read usual sizes, which must not hold up the thread that commits for others.
            command.prepare(known_configuration(holder.tenant_id))
        return (yield from _commit(command, status=201))

    return handle(request, take, scope=Scope.ENFORCE, find_holder=find_holder)


def handle_settle(request: HotRequest, *, reservation_id: UUID) -> Steps:
    """`POST /v1/reservations/{id}/settle`: say what the call has cost."""

    def take(holder: KeyHolder, body: bytes) -> Steps:
        _require_json(request.headers)
        event = decode_event(body, default_id=f"reservation:{reservation_id}")
        if isinstance(event, EventRejected):
            raise invalid_event(event)
        command = Settle(holder.tenant_id, reservation_id, event)
        answer = yield from _commit(command)
        if command.job is not None:
            count_job(command.job)
        return answer

    return handle(request, take, scope=Scope.ENFORCE)


def handle_release(request: HotRequest, *, reservation_id: UUID) -> Steps:
    """`POST /v1/reservations/{id}/release`: the call was not made."""

    def take(holder: KeyHolder, body: bytes) -> Steps:
        return (yield from _commit(Release(holder.tenant_id, reservation_id)))

    return handle(request, take, scope=Scope.ENFORCE)


def handle_extend(request: HotRequest, *, reservation_id: UUID) -> Steps:
    """`POST /v1/reservations/{id}/extend`: the call still runs."""

    def take(holder: KeyHolder, body: bytes) -> Steps:
        ttl_seconds = decode_extend(body).ttl_seconds
        command = Extend(holder.tenant_id, reservation_id, ttl_seconds=ttl_seconds)
        return (yield from _commit(command))

    return handle(request, take, scope=Scope.ENFORCE)


ACTIONS: Final[dict[str, Callable[..., Steps]]] = {
    "settle": handle_settle,
    "release": handle_release,
    "extend": handle_extend,
}
ENDPOINTS: Final[dict[str, Endpoint]] = {
    endpoint.route: endpoint
    for endpoint in (
        Endpoint(handle_events, "/v1/events"),
        # Where OpenMeter's clients post the same.
        Endpoint(handle_events, "/api/v1/events"),
        Endpoint(handle_traces, "/v1/traces", LARGE_BODY_BYTES_MAX),
        Endpoint(handle_litellm, "/v1/integrations/litellm", LARGE_BODY_BYTES_MAX),
        Endpoint(handle_reserve, RESERVATIONS),
    )
}


def _require_json(headers: Mapping[str, str]) -> None:
    kind = content_type(headers)
    if kind not in (JSON, ""):
        raise UnsupportedMediaType(f"Send {JSON}; this is {kind!r}.")


def _halted(tenant_id: int, request: ReservationRequest) -> MeteringError | None:
    """Return the refusal by a halt that this process knows of, without the database."""
    halts = known_halts(tenant_id)
    if not halts:
        return None
    now = timezone.now()
    certain = [halt for halt in halts.matching(request.candidate.values) if halt.is_certain(now)]
    if not certain:
        return None
    verdict = refuse_by_halt(request, certain[0])
    remember_refusal(tenant_id, decision_row(None, verdict, now=now))
    DECISIONS.labels("refuse", certain[0].code).inc()
    return verdict.error


def _commit(command: Command, *, status: int = 200) -> Generator[Submission, None, HotResponse]:
    yield Submission(PROCESS_ENFORCER, command)
    command.count()
    _raise_if(command.take_error())
    return HotResponse(status, {"Content-Type": JSON}, msgspec.json.encode(command.answer))


def _raise_if(error: MeteringError | None) -> None:
    """Raise the error, if any, and let go of it: its traceback holds this frame."""
    if error is not None:
        try:
            raise error
        finally:
            del error
