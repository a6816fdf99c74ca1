"""The busiest endpoints as plain handlers: authenticate, decode, call the domain, answer.

`config.wsgi` dispatches to them before Django; the Django view of the same address calls the same
function, so that both answer alike.
"""

import io
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Final, NamedTuple

import msgspec
from django.db import close_old_connections

from metering.api.counters import count_job, count_refused_body
from metering.api.parsing import (
    BODY_BYTES_MAX,
    LARGE_BODY_BYTES_MAX,
    BodyTooLarge,
    decompress,
    drain,
    read_up_to,
    spooled,
)
from metering.api.problems import CONTENT_TYPE, problem, problem_of, retry_headers
from metering.committer import commit
from metering.configuration import known_configuration
from metering.decoders import cloudevents, litellm, native, otlp
from metering.decoders.native import Decoded
from metering.decoders.otlp import json_mapping, protobuf
from metering.errors import EventRejected, MalformedBody, MeteringError, TooManyEvents
from metering.ingest import prepare_export, prepare_job
from metering.job import Job
from metering.models import Route
from tenants.keys import KeyHolder, find_key_holder
from tenants.roles import Scope

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
# Further names of the same.
_SAME_TYPES: Final = {
    "text/json": JSON,
    "application/protobuf": PROTOBUF,
    "application/vnd.google.protobuf": PROTOBUF,
}


class HotRequest(NamedTuple):
    """What a handler needs of a request. Header names are lower-case."""

    headers: Mapping[str, str]
    read: Callable[[int], bytes]


class HotResponse(NamedTuple):
    """A status, headers, and the bytes of the body."""

    status: int
    headers: dict[str, str]
    body: bytes


class UnsupportedMediaType(MeteringError):
    """The content type is not one of the endpoint's."""

    code = "unsupported_media_type"


Decoder = Callable[[Mapping[str, str], bytes], list[Decoded]]

EVENT_DECODERS: Final[dict[str, tuple[Decoder, Route]]] = {
    JSON: (lambda headers, body: native.decode_json(body), Route.NATIVE),
    "application/x-ndjson": (lambda headers, body: native.decode_ndjson(body), Route.NATIVE),
    "application/cloudevents+json": (
        lambda headers, body: cloudevents.decode_structured(body),
        Route.CLOUDEVENTS,
    ),
    "application/cloudevents-batch+json": (
        lambda headers, body: cloudevents.decode_batch(body),
        Route.CLOUDEVENTS,
    ),
}


def handle_events(request: HotRequest) -> HotResponse:
    """`POST /v1/events`: one event, an array, NDJSON, or CloudEvents in either mode."""

    def take(holder: KeyHolder, body: bytes) -> HotResponse:
        kind = content_type(request.headers)
        is_binary = "ce-specversion" in request.headers
        if not kind and is_binary:
            kind = JSON  # an event in binary mode may leave its data's type out
        if kind not in EVENT_DECODERS:
            accepted = ", ".join(EVENT_DECODERS)
            raise UnsupportedMediaType(f"Send one of {accepted}; this is {kind or 'nothing'!r}.")
        decode, route = EVENT_DECODERS[kind]
        if kind == JSON and is_binary:
            items = cloudevents.decode_binary(request.headers, body)
            route = Route.CLOUDEVENTS
        else:
            items = decode(request.headers, body)
        return _answer(_commit(holder, items, route))

    return handle(request, take, scope=Scope.INGEST, route=Route.NATIVE)


def handle_litellm(request: HotRequest) -> HotResponse:
    """`POST /v1/integrations/litellm`: LiteLLM's generic callback."""

    def take(holder: KeyHolder, body: bytes) -> HotResponse:
        kind = content_type(request.headers)
        if kind != JSON:
            raise UnsupportedMediaType(f"Send {JSON}; this is {kind or 'nothing'!r}.")
        trusts = known_configuration(holder.tenant_id).trusts_given_costs
        items = litellm.decode_litellm(body, trusts_given_costs=trusts)
        return _answer(_commit(holder, items, Route.LITELLM))

    return handle(
        request,
        take,
        scope=Scope.INGEST,
        body_bytes_max=LARGE_BODY_BYTES_MAX,
        route=Route.LITELLM,
    )


def handle_traces(request: HotRequest) -> HotResponse:
    """`POST /v1/traces`: OTLP over HTTP. Spans that are no model or tool calls are passed over."""

    def take(holder: KeyHolder, body: bytes) -> HotResponse:
        kind = content_type(request.headers)
        if kind not in (JSON, PROTOBUF):
            raise UnsupportedMediaType(f"Send {PROTOBUF} or {JSON}; this is {kind or 'nothing'!r}.")
        read = otlp.read_otlp_protobuf if kind == PROTOBUF else otlp.read_otlp_json
        trusts = known_configuration(holder.tenant_id).trusts_given_costs
        export = read(body, trusts_given_costs=trusts)
        foreign = None
        if not export.spans and not export.rejected:
            foreign = (protobuf if kind == PROTOBUF else json_mapping).foreign_export(body)
        if foreign is not None:
            export.passed_over.append(foreign.passed_over())
        job = prepare_export(export, tenant_id=holder.tenant_id)
        commit(job)
        count_job(job)
        message = "; ".join(
            f"{error.event_id}: {error.detail}" if error.event_id else error.detail
            for _, error in job.errors[:20]
        )
        if not export.spans and not export.rejected:
            message = "The body holds no spans: nothing was taken."
        if foreign is not None:
            message = foreign.sentence
        return HotResponse(
            200,
            {"Content-Type": kind},
            otlp.encode_otlp_response(kind, len(job.errors), message),
        )

    return handle(
        request,
        take,
        scope=Scope.INGEST,
        body_bytes_max=LARGE_BODY_BYTES_MAX,
        route=Route.OTLP,
    )


# One large body is judged at a time: threads that compute all want Python's lock, and the ones that
# talk to PostgreSQL, which need it for moments only, would wait for each of them in turn.
_TURN: Final = threading.Semaphore(1)
LARGE_BODY_EVENTS: Final = 50
# The number of bodies beyond the usual limit that are in memory at the same time.
_ROOM: Final = threading.Semaphore(2)


Handler = Callable[[HotRequest], HotResponse]
FindHolder = Callable[[str], KeyHolder | None]
Take = Callable[[KeyHolder, bytes], HotResponse]


def handle(
    request: HotRequest,
    take: Take,
    *,
    scope: Scope,
    find_holder: FindHolder = find_key_holder,
    body_bytes_max: int = BODY_BYTES_MAX,
    route: Route | None = None,
) -> HotResponse:
    """Authenticate, read the body, and let `take` answer; what it raises becomes a problem.

    Of a body beyond the usual limit the rest is read once its sender is known. `route` is that of
    bodies of usage, which are counted where they are refused as a whole.
    """
    holder: KeyHolder | None = None
    rest: Callable[[int], bytes] | None = None
    try:
        # The body first, whatever the answer will be: a client that still sends cannot read it.
        body = read_up_to(request.read, BODY_BYTES_MAX + 1)
        if len(body) > BODY_BYTES_MAX:
            rest = request.read
        holder = find_holder(bearer(request.headers))
        # A connection that was borrowed for the look-up goes back before this thread waits for
        # others, who need one.
        close_old_connections()
        if holder is None or scope.value not in holder.scopes:
            return refuse(holder, scope)
        encoding = request.headers.get("content-encoding", "")
        if rest is None:
            return _take(take, holder, body, encoding, body_bytes_max)
        if body_bytes_max == BODY_BYTES_MAX:
            raise BodyTooLarge
        with spooled(rest, body, body_bytes_max) as spool:
            rest = None
            del body
            with _ROOM:
                plain = decompress(spool.read(), encoding, bytes_max=body_bytes_max)
                return take(holder, plain)
    except Exception as error:
        return _refusal(error, holder, route)
    finally:
        close_old_connections()
        if rest is not None:
            drain(rest)


REFUSALS_OF_BODIES: Final = (MalformedBody, TooManyEvents, BodyTooLarge, UnsupportedMediaType)


def _refusal(error: Exception, holder: KeyHolder | None, route: Route | None) -> HotResponse:
    """The answer to what was raised. A body of usage that is refused as a whole is counted."""
    if holder is not None and route is not None and isinstance(error, REFUSALS_OF_BODIES):
        count_refused_body(holder.tenant_id, route, error)
    if isinstance(error, UnsupportedMediaType):
        return problem_answer(problem(415, code=error.code, detail=error.detail))
    return problem_answer(problem_of(error))


def _take(
    take: Take, holder: KeyHolder, body: bytes, encoding: str, body_bytes_max: int
) -> HotResponse:
    try:
        plain = decompress(body, encoding)
    except BodyTooLarge:
        if body_bytes_max == BODY_BYTES_MAX:
            raise
        with _ROOM:
            return take(holder, decompress(body, encoding, bytes_max=body_bytes_max))
    return take(holder, plain)


def refuse(holder: KeyHolder | None, scope: Scope) -> HotResponse:
    """The answer to a key that nobody holds, or that lacks the scope."""
    if holder is None:
        facts = problem(401, detail="Send an API key: Authorization: Bearer sg_<prefix>_<secret>.")
        return problem_answer(facts, {"WWW-Authenticate": 'Bearer realm="spendgate"'})
    return problem_answer(problem(403, detail=f"This key lacks the scope {scope.value!r}."))


def bearer(headers: Mapping[str, str]) -> str:
    """The key that a request carries."""
    kind, _, text = headers.get("authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""


def content_type(headers: Mapping[str, str]) -> str:
    """The type of the body, under one of its names."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return _SAME_TYPES.get(kind, kind)


def _commit(holder: KeyHolder, items: list[Decoded], route: Route) -> Job:
    with _TURN if len(items) > LARGE_BODY_EVENTS else nullcontext():
        job = prepare_job(items, tenant_id=holder.tenant_id, route=route)
    commit(job)
    count_job(job)
    return job


def _answer(job: Job) -> HotResponse:
    answer = job.answer()
    if job.event_count and answer["rejected"] == job.event_count:
        detail = f"All {job.event_count:,} events were rejected: {_reasons(job.errors)}."
        facts = problem(422, code="all_rejected", detail=detail, **answer)
        return problem_answer(facts)
    return HotResponse(200, {"Content-Type": JSON}, msgspec.json.encode(answer))


def _reasons(errors: list[tuple[int, EventRejected]]) -> str:
    return ", ".join(sorted({error.code for _, error in errors}))


def problem_answer(
    facts: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> HotResponse:
    """A problem as a plain response."""
    return HotResponse(
        facts["status"],
        {"Content-Type": CONTENT_TYPE, **retry_headers(facts), **(headers or {})},
        msgspec.json.encode(facts),
    )


def request_of(headers: Mapping[str, str], body: bytes) -> HotRequest:
    """A request whose body is at hand already (Django's, or a test's)."""
    return HotRequest(
        {name.lower(): value for name, value in headers.items()}, io.BytesIO(body).read
    )
