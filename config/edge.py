"""The edge of the web process: one event loop that waits for clients, so that no thread has to.

Bodies are read and answers are sent here. Threads (`config.lanes`) get complete requests and give
back complete answers, so neither a thread nor a database connection ever waits for a client. A
small request to a busy endpoint is handled right here while all that it needs is in memory; what is
committed for it is awaited.

`Edge._handle` is the path of every request.
"""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from contextlib import closing, suppress
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
from django.conf import settings
from django.core.exceptions import SynchronousOnlyOperation
from granian.rsgi import HTTPProtocol, ProtocolClosed, Scope

from common.api.parsing import BODY_BYTES_MAX
from config.answers import Answer, Headers, is_api_path, send_answer, send_refusal
from config.bodies import (
    CALLER_BYTES_MAX,
    KEPT_BYTES_MAX,
    SMALL_BYTES,
    STRANGER_BYTES_MAX,
    STRANGERS_BYTES_MAX,
    Body,
    BodyQuota,
    Incomplete,
    QuotaExceeded,
    TooSlow,
    drain,
)
from config.connections import borrow_from_pool
from config.django_answers import address_of, answer_of_django, environ_of
from config.lanes import Lane, Overloaded
from config.metrics import note_answer
from metering.api.fast_path import (
    Endpoint,
    HotRequest,
    HotResponse,
    Steps,
    Submission,
    TooLargeHere,
    bearer,
)
from metering.api.fast_reservations import find_endpoint
from tenants.client_address import believed_address
from tenants.keys import find_key_holder, remembered_key_holder

log = structlog.get_logger(__name__)

# Forms without a file.
FORM_BYTES_MAX: Final = 1 << 20
# Pages whose form takes a file.
UPLOADS: Final = frozenset({"/customers/reconciliation/bills/new"})
# What a small body may become by decompression and still be judged on the loop.
SMALL_PLAIN_BYTES: Final = 4 * SMALL_BYTES
# Larger bodies are judged one at a time.
LARGE_BYTES: Final = 2 << 20
# Operators look at the service also when its users keep it busy.
OPERATOR_PATHS: Final = ("/readyz", "/metrics")
HEALTH_BODY: Final = json.dumps({"status": "ok"}).encode()
HEALTH_HEADERS: Final[Headers] = [
    ("content-type", "application/json"),
    ("cache-control", "no-store"),
]


class PlainHttp(Exception):
    """A program sent its key in the clear where there is https."""


class KeyUnread(Exception):
    """The key of a request cannot be looked up."""


class FormTooLarge(Exception):
    """The body of a page is larger than any form."""


REFUSALS: Final[Mapping[type[Exception], tuple[int, str]]] = {
    PlainHttp: (403, "Use https: this request came over plain http."),
    TooSlow: (408, "The body came too slowly; send it again."),
    FormTooLarge: (413, "A form holds 1 MiB at most, and a file 10 MiB."),
    # A client that reads this has sent all: the connection, or this process, is ending.
    Incomplete: (503, "The body did not arrive in full; send it again."),
    # Its body is not read: the handler would take an empty one for what was sent.
    KeyUnread: (503, "The database cannot be reached; send the request again."),
    QuotaExceeded: (503, "Too many requests are waiting; send this one again."),
    Overloaded: (503, "Too many requests are waiting; send this one again."),
}


class Completions:
    """Brings commits of other threads to the loop; simultaneous ones cost one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[tuple[asyncio.Future[Exception | None], Exception | None]] = deque()
        self._is_woken = False
        self._lock = threading.Lock()

    def wait_for(self, submission: Submission) -> "asyncio.Future[Exception | None]":
        """Return a future of what the commit raised, or of None once the work is durable."""
        future: asyncio.Future[Exception | None] = self._loop.create_future()

        def done(error: Exception | None) -> None:
            with self._lock:
                self._done.append((future, error))
                if self._is_woken:
                    return
                self._is_woken = True
            self._loop.call_soon_threadsafe(self._resolve)

        submission.committer.enqueue(submission.work, done)
        return future

    def _resolve(self) -> None:
        with self._lock:
            completed, self._done = self._done, deque()
            self._is_woken = False
        for future, error in completed:
            if not future.done():
                future.set_result(error)


class Edge:
    """The application that the server calls (RSGI)."""

    def __init__(self, *, threads: int) -> None:
        # Django's views and pages. One caller may have half of them, which leaves room for others.
        self._views = Lane("views", threads=threads, caller_share=0.5, prepare=borrow_from_pool)
        # Busy endpoints that must read something first, keys, and what operators ask for.
        self._reads = Lane("reads", threads=4, caller_share=0.5)
        # Judging bodies is work for Python alone: more threads would not be faster.
        self._batches = Lane("batches", threads=2, caller_share=0.5)
        self._large_batches = Lane("large batches", threads=1)
        # What is left to do for a body of many events once it is committed: to count them, and to
        # release them, takes milliseconds in which the loop would answer no one.
        self._endings = Lane("endings", threads=1)
        self._lanes = (
            self._views,
            self._reads,
            self._batches,
            self._large_batches,
            self._endings,
        )
        self._quota = BodyQuota(KEPT_BYTES_MAX, CALLER_BYTES_MAX)
        # Requests without a key have a quota of their own, and take none from those with one.
        self._strangers_quota = BodyQuota(STRANGERS_BYTES_MAX, STRANGER_BYTES_MAX)
        self._completions: Completions
        self._on_stop: list[Callable[[], None]] = []

    def on_stop(self, *actions: Callable[[], None]) -> None:
        """Do this, in order, once the last request is answered."""
        self._on_stop += actions

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._completions = Completions(loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        for lane in self._lanes:
            lane.stop()
        for action in self._on_stop:
            action()

    async def __rsgi__(self, scope: Scope, proto: HTTPProtocol) -> None:
        if scope.path == "/healthz" and scope.method in ("GET", "HEAD"):
            proto.response_bytes(HTTPStatus.OK, HEALTH_HEADERS, HEALTH_BODY)
            return
        try:
            await self._handle(scope, proto)
        except ProtocolClosed:
            pass  # the client has gone away
        except tuple(REFUSALS) as error:
            send_refusal(proto, scope, *REFUSALS[type(error)])
        except Exception:
            log.exception("a request failed at the edge", method=scope.method)
            with suppress(Exception):
                sentence = "The error was logged. Sending it again is safe."
                send_refusal(proto, scope, 500, sentence)

    async def _handle(self, scope: Scope, proto: HTTPProtocol) -> None:
        """Find whose request it is, read its body, have it answered, and send the answer."""
        headers = headers_of(scope)
        is_api = is_api_path(scope.path)
        if is_api and is_in_the_clear(headers):
            raise PlainHttp
        endpoint = find_endpoint(scope.method, scope.path, scope.query_string)
        tenant_id = await self._find_tenant(scope, headers) if is_api else None
        caller = tenant_id or client_address(scope, headers)
        quota = self._strangers_quota if tenant_id is None else self._quota
        with closing(Body(quota, caller, body_bytes_max(endpoint, scope.path))) as body:
            if has_body(headers):
                if is_api and tenant_id is None:
                    await drain(proto)  # its handler refuses it, whatever it holds
                else:
                    await body.receive(proto, headers.get("content-length", ""))
            if body.is_over and not is_api:
                raise FormTooLarge
            if endpoint is not None:
                request = HotRequest(headers, body.read, body.size)
                answer = await self._answer_directly(scope, endpoint, request, caller)
            else:
                answer = await self._answer_by_django(scope, headers, body, caller)
            send_answer(proto, answer)

    async def _find_tenant(self, scope: Scope, headers: Mapping[str, str]) -> int | None:
        """Return whose key a request of the API carries, before its body is read.

        The handler judges the key; one that was known lately is enough to read a body.
        """
        if not (key := bearer(headers)):
            return None
        holder = remembered_key_holder(key)
        if holder is None:
            try:
                holder = await self._reads.run(address_of(scope), lambda: find_key_holder(key))
            except Overloaded:
                raise
            except Exception as error:
                raise KeyUnread from error
        return None if holder is None else holder.tenant_id

    async def _answer_directly(
        self, scope: Scope, endpoint: Endpoint, request: HotRequest, caller: Hashable
    ) -> Answer:
        """Drive a handler to its answer: from here, unless that takes reading or is much work."""
        started_at = time.perf_counter()
        steps, reached, is_large = await self._first_step(endpoint, request, caller)
        while not isinstance(reached, HotResponse):
            committed = self._completions.wait_for(reached)
            del reached  # the work goes with the last step that has it
            failure = await committed
            if is_large:
                reached = await self._endings.run(caller, partial(next_step, steps, failure))
            else:
                reached = next_step(steps, failure)
        status, headers, body = reached
        seconds = time.perf_counter() - started_at
        note_answer(method=scope.method, route=endpoint.route, status=status, seconds=seconds)
        return Answer(status, list(headers.items()), body)

    async def _first_step(
        self, endpoint: Endpoint, request: HotRequest, caller: Hashable
    ) -> tuple[Steps, Submission | HotResponse, bool]:
        """Begin a handler where its body fits, which is known once it is decompressed; return also
        whether it is one of many events.
        """
        small = request._replace(plain_bytes_max=SMALL_PLAIN_BYTES)
        lane = self._reads
        if request.size <= SMALL_BYTES:
            steps = endpoint.begin(small)
            try:
                return steps, next_step(steps, None), False
            except SynchronousOnlyOperation:
                pass
            except TooLargeHere:
                lane = self._batches
        else:
            lane = self._batches if request.size <= LARGE_BYTES else self._large_batches
        sized = {self._reads: small, self._batches: request._replace(plain_bytes_max=LARGE_BYTES)}
        while True:
            steps = endpoint.begin(sized.get(lane, request))
            try:
                reached = await lane.run(caller, partial(next_step, steps, None))
                return steps, reached, lane is not self._reads
            except TooLargeHere:
                lane = self._batches if lane is self._reads else self._large_batches

    async def _answer_by_django(
        self, scope: Scope, headers: Mapping[str, str], body: Body, caller: Hashable
    ) -> Answer:
        environ = environ_of(scope, headers, body)
        if scope.path in OPERATOR_PATHS:
            return await self._reads.run("operator", lambda: answer_of_django(environ))
        return await self._views.run(caller, lambda: answer_of_django(environ))


def headers_of(scope: Scope) -> dict[str, str]:
    """Return a request's headers, those of the same name joined."""
    headers: dict[str, str] = {}
    for name, value in scope.headers.items():
        before = headers.get(name)
        glue = "; " if name == "cookie" else ","
        headers[name] = value if before is None else before + glue + value
    return headers


def is_in_the_clear(headers: Mapping[str, str]) -> bool:
    """Whether a proxy says that a request came without https where there is https."""
    return bool(settings.SECURE_SSL_REDIRECT) and headers.get("x-forwarded-proto") == "http"


def client_address(scope: Scope, headers: Mapping[str, str]) -> str:
    """Return what tells strangers apart, of which a client can make up nothing."""
    forwarded = headers.get("x-forwarded-for", "")
    return believed_address(address_of(scope), forwarded, trusted=settings.TRUSTED_PROXIES)


def body_bytes_max(endpoint: Endpoint | None, path: str) -> int:
    """Return the largest body that a path takes. That of a file's form has its fields besides."""
    if not is_api_path(path):
        return BODY_BYTES_MAX + FORM_BYTES_MAX if path in UPLOADS else FORM_BYTES_MAX
    return endpoint.body_bytes_max if endpoint else BODY_BYTES_MAX


def has_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def next_step(steps: Steps, failure: Exception | None) -> Submission | HotResponse:
    """Let a handler go on to what it wants committed next, or to its answer."""
    try:
        return next(steps) if failure is None else steps.throw(failure)
    except StopIteration as end:
        answer: HotResponse = end.value
        return answer
