"""The busiest endpoints as plain handlers: authenticate, decode, call the domain, answer.

A handler is a generator. It yields what has to be committed, is resumed when that is durable, and
returns the answer, so nothing waits in it: the web process (`config.edge`) waits for many callers
on one thread. `run` drives a handler to its end for those who may block, such as the Django view of
the same address.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from django.core.exceptions import SynchronousOnlyOperation
from django.db import close_old_connections

from common.api.parsing import BODY_BYTES_MAX, LARGE_BODY_BYTES_MAX, BodyTooLarge, decompress
from common.api.problems import CONTENT_TYPE, problem, problem_of, retry_headers
from common.errors import MalformedBody, MeteringError, TooManyEvents, without_frames
from common.json_bodies import JsonObject
from metering.api.counters import count_job, count_refused_body
from metering.calls.ingest_job import IngestJob
from metering.core.committer import Committer
from metering.intake.committer import PROCESS_COMMITTER
from metering.intake.ingest import prepare_export, prepare_job
from metering.models import Route
from metering.snapshot import known_configuration
from metering.usage.decoders import cloudevents, litellm, native, otlp
from metering.usage.decoders.native import Decoded
from metering.usage.decoders.otlp import json_mapping, protobuf
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
    """What a handler needs of a request. Header names are lower-case.

    The body has arrived: `size` says how many bytes, of which at least those are readable that the
    endpoint takes.
    """

    headers: Mapping[str, str]
    read: Callable[[], bytes]
    size: int
    # The most bytes that may become of it here by decompression; beyond them TooLargeHere is
    # raised.
    plain_bytes_max: int | None = None


class TooLargeHere(Exception):
    """The body is within the endpoint's limit, but larger than its caller wants to work on."""


class HotResponse(NamedTuple):
    """A status, headers, and the bytes of the body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Submission(NamedTuple):
    """What a handler wants committed, and who commits it together with that of others."""

    committer: Committer[Any]
    work: Any


Steps = Generator[Submission, None, HotResponse]
Begin = Callable[[HotRequest], Steps]


class Endpoint(NamedTuple):
    """A handler, its address as metrics name it, and the most bytes that it takes."""

    begin: Begin
    route: str
    body_bytes_max: int = BODY_BYTES_MAX


def run(steps: Steps) -> HotResponse:
    """Drive a handler to its answer, waiting in this thread for what is committed."""
    failure: Exception | None = None
    try:
        while True:
            submission = steps.throw(failure) if failure else next(steps)
            # A connection that was borrowed goes back before this thread waits for others, who
            # need one.
            close_old_connections()
            try:
                submission.committer.submit(submission.work)
                failure = None
            except Exception as error:
                failure = without_frames(error)
    except StopIteration as end:
        answer: HotResponse = end.value
        return answer
    finally:
        close_old_connections()


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


def handle_events(request: HotRequest) -> Steps:
    """`POST /v1/events`: one event, an array, NDJSON, or CloudEvents in either mode."""

    def take(holder: KeyHolder, body: bytes) -> Steps:
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
        return _answer((yield from _commit(holder, items, route)))

    return handle(request, take, scope=Scope.INGEST, route=Route.NATIVE)


def handle_litellm(request: HotRequest) -> Steps:
    """`POST /v1/integrations/litellm`: LiteLLM's generic callback."""

    def take(holder: KeyHolder, body: bytes) -> Steps:
        kind = content_type(request.headers)
        if kind != JSON:
            raise UnsupportedMediaType(f"Send {JSON}; this is {kind or 'nothing'!r}.")
        trusts = known_configuration(holder.tenant_id).trusts_given_costs
        items = litellm.decode_litellm(body, trusts_given_costs=trusts)
        return _answer((yield from _commit(holder, items, Route.LITELLM)))

    return handle(
        request,
        take,
        scope=Scope.INGEST,
        body_bytes_max=LARGE_BODY_BYTES_MAX,
        route=Route.LITELLM,
    )


def handle_traces(request: HotRequest) -> Steps:
    """`POST /v1/traces`: OTLP over HTTP. Spans that are no model or tool calls are passed over."""

    def take(holder: KeyHolder, body: bytes) -> Steps:
        kind = content_type(request.headers)
        if kind not in (JSON, PROTOBUF):
            raise UnsupportedMediaType(f"Send {PROTOBUF} or {JSON}; this is {kind or 'nothing'!r}.")
        read = protobuf.read_protobuf if kind == PROTOBUF else json_mapping.read_json
        configuration = known_configuration(holder.tenant_id)
        keys = configuration.dimension_keys
        export = otlp.read_export(
            read(body, keys.mapped), trusts_given_costs=configuration.trusts_given_costs, keys=keys
        )
        foreign = None
        if not export.spans and not export.rejected:
            foreign = (protobuf if kind == PROTOBUF else json_mapping).foreign_export(body)
        if foreign is not None:
            export.passed_over.append(foreign.passed_over())
        job = prepare_export(export, tenant_id=holder.tenant_id)
        yield from _committed(job)
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


FindHolder = Callable[[str], KeyHolder | None]
Take = Callable[[KeyHolder, bytes], Steps]


def handle(
    request: HotRequest,
    take: Take,
    *,
    scope: Scope,
    find_holder: FindHolder = find_key_holder,
    body_bytes_max: int = BODY_BYTES_MAX,
    route: Route | None = None,
) -> Steps:
    """Authenticate and let `take` answer; what it raises becomes a problem.

    `route` is that of bodies of usage, which are counted where they are refused as a whole.
    """
    holder: KeyHolder | None = None
    try:
        holder = find_holder(bearer(request.headers))
        if holder is None or scope.value not in holder.scopes:
            return refuse(holder, scope)
        if request.size > body_bytes_max:
            raise BodyTooLarge(body_bytes_max)
        return (yield from take(holder, _plain(request, body_bytes_max)))
    except (SynchronousOnlyOperation, TooLargeHere):
        # Something must be read on the event loop's thread, which may not wait, or this is too much
        # for the thread it is on: its caller begins again on another. Nothing was committed yet.
        raise
    except Exception as error:
        return _refusal(error, holder, route)


def _plain(request: HotRequest, bytes_max: int) -> bytes:
    """The body as its sender wrote it."""
    encoding = request.headers.get("content-encoding", "")
    here = bytes_max if request.plain_bytes_max is None else request.plain_bytes_max
    try:
        return decompress(request.read(), encoding, bytes_max=min(bytes_max, here))
    except BodyTooLarge:
        if here < bytes_max:
            raise TooLargeHere from None
        raise


REFUSALS_OF_BODIES: Final = (MalformedBody, TooManyEvents, BodyTooLarge, UnsupportedMediaType)


def _refusal(error: Exception, holder: KeyHolder | None, route: Route | None) -> HotResponse:
    """The answer to what was raised. A body of usage that is refused as a whole is counted."""
    if holder is not None and route is not None and isinstance(error, REFUSALS_OF_BODIES):
        count_refused_body(holder.tenant_id, route, error)
    if isinstance(error, UnsupportedMediaType):
        return problem_answer(problem(415, code=error.code, detail=error.detail))
    return problem_answer(problem_of(error))


def refuse(holder: KeyHolder | None, scope: Scope) -> HotResponse:
    """Return the answer to a key that no one holds, or that lacks the scope."""
    if holder is None:
        body = problem(401, detail="Send an API key: Authorization: Bearer sg_<prefix>_<secret>.")
        return problem_answer(body, {"WWW-Authenticate": 'Bearer realm="spendgate"'})
    return problem_answer(problem(403, detail=f"This key lacks the scope {scope.value!r}."))


def bearer(headers: Mapping[str, str]) -> str:
    """The key that a request carries."""
    kind, _, text = headers.get("authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""


def content_type(headers: Mapping[str, str]) -> str:
    """The type of the body, under one of its names."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return _SAME_TYPES.get(kind, kind)


def _commit(
    holder: KeyHolder, items: list[Decoded], route: Route
) -> Generator[Submission, None, IngestJob]:
    job = prepare_job(items, tenant_id=holder.tenant_id, route=route)
    yield from _committed(job)
    count_job(job)
    return job


def _committed(job: IngestJob) -> Generator[Submission, None, None]:
    if job.weight:
        yield Submission(PROCESS_COMMITTER, job)
        job.collect()


def _answer(job: IngestJob) -> HotResponse:
    answer = job.answer()
    if job.event_count and answer.rejected == job.event_count:
        what = "The event was" if job.event_count == 1 else f"All {job.event_count:,} events were"
        reasons = sorted({error.code for _, error in job.errors})
        detail = f"{what} rejected: {', '.join(reasons)}."
        # The sender needs the error of each event, however many there are.
        return problem_answer(
            problem(422, code="all_rejected", detail=detail) | msgspec.to_builtins(answer)
        )
    return HotResponse(200, {"Content-Type": JSON}, msgspec.json.encode(answer))


def problem_answer(body: JsonObject, headers: Mapping[str, str] | None = None) -> HotResponse:
    """A problem as a plain response."""
    return HotResponse(
        body["status"],
        {"Content-Type": CONTENT_TYPE, **retry_headers(body), **(headers or {})},
        msgspec.json.encode(body),
    )
