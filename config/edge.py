"""The edge of the web process: one event loop that waits for clients, so that no thread has to.

Bodies are read and answers are sent here. Threads (`config.lanes`) get complete requests and give
back complete answers, so neither a thread nor a database connection ever waits for a client. A
small request to a busy endpoint is handled right here while all that it needs is in memory; what is
committed for it is awaited.
"""

import asyncio
import json
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final

import structlog
from django.conf import settings
from django.core.exceptions import SynchronousOnlyOperation
from granian.rsgi import HTTPProtocol, ProtocolClosed, Scope  # type: ignore[attr-defined]

from common.api.parsing import BODY_BYTES_MAX
from common.api.problems import CONTENT_TYPE, problem
from config.bodies import (
    KEPT_BYTES_MAX,
    OWNER_KEPT_BYTES_MAX,
    SMALL_BYTES,
    STRANGER_BYTES_MAX,
    STRANGERS_BYTES_MAX,
    Body,
    Incomplete,
    Room,
    TooMuch,
    TooSlow,
    drain,
)
from config.connections import borrow_from_pool
from config.django_answers import Answer, Headers, address_of, answer_of_django, environ_of
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

# Forms; nobody uploads files here.
PAGE_BODY_BYTES_MAX: Final = 1 << 20
# What a small body may become by decompression and still be judged on the loop.
SMALL_PLAIN_BYTES: Final = 4 * SMALL_BYTES
# Bodies that are larger are judged one at a time.
LARGE_BYTES: Final = 2 << 20
# An answer that is larger waits for its reader in a file instead of memory.
ANSWER_MEMORY_BYTES_MAX: Final = 256 * 1024
# How long the server has to open an answer's file.
ANSWER_FILE_SECONDS: Final = 60.0
# Those who run the service look at it also when its users keep it busy.
OPERATOR_PATHS: Final = ("/readyz", "/metrics")
HEALTH_BODY: Final = json.dumps({"status": "ok"}).encode()
HEALTH_HEADERS: Final[Headers] = [
    ("content-type", "application/json"),
    ("cache-control", "no-store"),
]


class Completions:
    """Brings what other threads have committed to the loop: many at once cost one wake-up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[tuple[asyncio.Future[Exception | None], Exception | None]] = deque()
        self._is_woken = False
        self._lock = threading.Lock()

    def wait_for(self, submission: Submission) -> "asyncio.Future[Exception | None]":
        """A future of what the commit raised, or of None once the work is durable."""
        future: asyncio.Future[Exception | None] = self._loop.create_future()

        def done(error: Exception | None) -> None:
            with self._lock:
                self._done.append((future, error))
                if self._is_woken:
                    return
                self._is_woken = True
            self._loop.call_soon_threadsafe(self._tell)

        submission.committer.enqueue(submission.work, done)
        return future

    def _tell(self) -> None:
        with self._lock:
            completed, self._done = self._done, deque()
            self._is_woken = False
        for future, error in completed:
            if not future.done():
                future.set_result(error)


class KeyUnread(Exception):
    """Nobody can say whose key a request carries."""


class Edge:
    """The application that the server calls (RSGI)."""

    def __init__(self, *, threads: int) -> None:
        # Django's views and pages. One caller may have half of them, which leaves room for others.
        self._views = Lane("views", threads=threads, owner_share=0.5, prepare=borrow_from_pool)
        # Busy endpoints that must read something first, keys, and what the operator asks.
        self._reads = Lane("reads", threads=4, owner_share=0.5)
        # Judging bodies is work for Python alone: more threads would not be faster.
        self._batches = Lane("batches", threads=2, owner_share=0.5)
        self._large_batches = Lane("large batches", threads=1)
        self._lanes = (self._views, self._reads, self._batches, self._large_batches)
        self._room = Room(KEPT_BYTES_MAX, OWNER_KEPT_BYTES_MAX)
        # What comes without a key has a room of its own, and takes none from who has one.
        self._strangers_room = Room(STRANGERS_BYTES_MAX, STRANGER_BYTES_MAX)
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
            await self._answer(scope, proto)
        except ProtocolClosed:
            pass  # the client has gone away
        except TooSlow:
            _refuse(proto, scope, 408, "The body came too slowly; send it again.")
        except Incomplete:
            # Whoever reads this has sent all of it: the connection, or this process, is ending.
            _refuse(proto, scope, 503, "The body did not arrive in full; send it again.")
        except KeyUnread:
            # Its body is not read: the handler would take an empty one for what was sent.
            _refuse(proto, scope, 503, "The database cannot be reached; send the request again.")
        except (TooMuch, Overloaded):
            _refuse(proto, scope, 503, "Too many requests are waiting; send this one again.")
        except Exception:
            log.exception("a request failed at the edge", method=scope.method)
            with suppress(Exception):
                _refuse(proto, scope, 500, "The error was logged. Sending it again is safe.")

    async def _answer(self, scope: Scope, proto: HTTPProtocol) -> None:
        headers = _headers(scope)
        if _is_in_the_clear(scope, headers):
            _refuse(proto, scope, 403, "Use https: this request came over plain http.")
            return
        endpoint = find_endpoint(scope.method, scope.path, scope.query_string)
        tenant_id = await self._tenant_id(scope, headers)
        # Whose turn this takes. Nothing that a client may make up tells strangers apart.
        forwarded = headers.get("x-forwarded-for", "")
        owner: Hashable = tenant_id or believed_address(
            address_of(scope), forwarded, trusted=settings.TRUSTED_PROXIES
        )
        room = self._strangers_room if tenant_id is None else self._room
        body = Body(room, owner, _bytes_max(scope, endpoint))
        try:
            if _has_body(headers):
                if _is_api(scope.path) and tenant_id is None:
                    await drain(proto)
                else:
                    await body.receive(proto, headers.get("content-length", ""))
            if endpoint is not None:
                request = HotRequest(headers, body.read, body.size)
                answer = await self._hot(scope, endpoint, request, owner)
            elif body.is_over and not _is_api(scope.path):
                _refuse(proto, scope, 413, "A form holds 1 MiB at most.")
                return
            else:
                answer = await self._django(scope, headers, body, owner)
            _send(proto, answer)
        finally:
            body.close()

    async def _tenant_id(self, scope: Scope, headers: Mapping[str, str]) -> int | None:
        """Whose key a request of the API carries, before its body is read; None where nobody's.

        The handler judges the key; one that was known lately is enough to read a body.
        """
        text = bearer(headers) if _is_api(scope.path) else ""
        if not text:
            return None
        holder = remembered_key_holder(text)
        if holder is None:
            try:
                holder = await self._reads.run(address_of(scope), lambda: find_key_holder(text))
            except Overloaded:
                raise
            except Exception as error:
                raise KeyUnread from error
        return None if holder is None else holder.tenant_id

    async def _hot(
        self, scope: Scope, endpoint: Endpoint, request: HotRequest, owner: Hashable
    ) -> Answer:
        """Drive a handler to its answer: from here, unless that takes reading or is much work."""
        started_at = time.perf_counter()
        steps, reached = await self._first_step(endpoint, request, owner)
        while not isinstance(reached, HotResponse):
            failure = await self._completions.wait_for(reached)
            reached = _step(steps, failure)
        status, headers, body = reached
        seconds = time.perf_counter() - started_at
        note_answer(method=scope.method, route=endpoint.route, status=status, seconds=seconds)
        return Answer(status, list(headers.items()), body)

    async def _first_step(
        self, endpoint: Endpoint, request: HotRequest, owner: Hashable
    ) -> tuple[Steps, Submission | HotResponse]:
        """Begin a handler where its body fits, which is known once it is decompressed."""
        small = request._replace(plain_bytes_max=SMALL_PLAIN_BYTES)
        lane = self._reads
        if request.size <= SMALL_BYTES:
            steps = endpoint.begin(small)
            try:
                return steps, _step(steps, None)
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
                return steps, await lane.run(owner, partial(_step, steps, None))
            except TooLargeHere:
                lane = self._batches if lane is self._reads else self._large_batches

    async def _django(
        self, scope: Scope, headers: Mapping[str, str], body: Body, owner: Hashable
    ) -> Answer:
        environ = environ_of(scope, headers, body)
        if scope.path in OPERATOR_PATHS:
            return await self._reads.run("operator", lambda: answer_of_django(environ))
        return await self._views.run(owner, lambda: answer_of_django(environ))


def _is_api(path: str) -> bool:
    return path.startswith(("/v1/", "/api/"))


def _bytes_max(scope: Scope, endpoint: Endpoint | None) -> int:
    if not _is_api(scope.path):
        return PAGE_BODY_BYTES_MAX
    return endpoint.body_bytes_max if endpoint else BODY_BYTES_MAX


def _is_in_the_clear(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether a proxy says that a request of the API came without https where there is https."""
    is_http = headers.get("x-forwarded-proto") == "http"
    return is_http and settings.SECURE_SSL_REDIRECT and _is_api(scope.path)


def _has_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in scope.headers.items():
        before = headers.get(name)
        glue = "; " if name == "cookie" else ","
        headers[name] = value if before is None else before + glue + value
    return headers


def _step(steps: Steps, failure: Exception | None) -> Submission | HotResponse:
    """Let a handler go on to what it wants committed next, or to its answer."""
    try:
        return next(steps) if failure is None else steps.throw(failure)
    except StopIteration as end:
        answer: HotResponse = end.value
        return answer


def _send(proto: HTTPProtocol, answer: Answer) -> None:
    status, headers, body, file = answer
    if status == HTTPStatus.NOT_MODIFIED:
        proto.response_empty(status, headers)
        return
    if file is None and len(body) > ANSWER_MEMORY_BYTES_MAX:
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed below, once it was opened
        file.write(body)
        file.flush()
        if not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("content-length", str(len(body))))
    if file is None:
        proto.response_bytes(status, headers, body)
        return
    proto.response_file(status, headers, file.name)
    if isinstance(file, tempfile._TemporaryFileWrapper):
        # The server opens it by its name, soon; what is open stays readable without the name.
        asyncio.get_running_loop().call_later(ANSWER_FILE_SECONDS, file.close)
    else:
        file.close()


def _refuse(proto: HTTPProtocol, scope: Scope, status: int, sentence: str) -> None:
    """Refuse what is not handled, and close the connection: the rest of a body may still come."""
    headers: Headers = [("connection", "close")]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("retry-after", "1"))
    if _is_api(scope.path):
        headers.append(("content-type", CONTENT_TYPE))
        body = json.dumps(problem(status, detail=sentence)).encode()
    else:
        headers.append(("content-type", "text/plain; charset=utf-8"))
        body = sentence.encode()
    proto.response_bytes(status, headers, body)
