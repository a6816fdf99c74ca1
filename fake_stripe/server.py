"""The HTTP around the stand-in: keys, idempotency, faults, checks of requests and of answers."""

import json
import threading
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from fake_stripe import meter_operations, operations
from fake_stripe.faults import RETRY_AFTER_SECONDS, Fault, Faults
from fake_stripe.forms import Mismatch, read_form, read_values
from fake_stripe.objects import Object
from fake_stripe.routes import ROUTES, Ids, Route
from fake_stripe.world import Refused, World

# Each adds its routes when it is imported.
OPERATIONS: Final = (operations, meter_operations)
KEY_SECONDS: Final = 24 * 3600
# What is kept in memory: answers by idempotency key, and bodies that are read.
KEYS_MAX: Final = 2_000
BODY_BYTES_MAX: Final = 1 << 20
NOT_REAL: Final = "This is a stand-in for Stripe in tests and demos. No money moves here."
FULL: Final = "The fake Stripe is full. Stop it, remove its file, and start it again."


class Contract(Protocol):
    """What requests and answers are held to."""

    @property
    def version(self) -> str | None:
        """The version that requests must ask for; None: any."""

    def read(self, route: Route, text: str) -> Object:
        """Return what a form or query says. Raises Mismatch."""

    def check_answer(self, route: Route, body: Object) -> None:
        """Raise Mismatch if Stripe would not answer so."""

    def check_error(self, body: Object) -> None:
        """Raise Mismatch if Stripe would not answer so."""


class Unchecked:
    """The contract of the demo, which reads values and checks nothing."""

    version = None

    def read(self, route: Route, text: str) -> Object:
        return read_values(read_form(text))

    def check_answer(self, route: Route, body: Object) -> None:
        """Take it as it is."""

    def check_error(self, body: Object) -> None:
        """Take it as it is."""


@dataclass
class Answer:
    """What is sent back."""

    status: int
    body: Object
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Kept:
    """An answer that is given again to the same idempotency key."""

    at: int
    asked: tuple[str, str, str]
    answer: Answer


@dataclass
class Request:
    """One request, as it came."""

    method: str
    path: str
    query: str
    body: str
    headers: Mapping[str, str]


class StripeServer:
    """A stand-in that listens on loopback. `complaints` are breaches of Stripe's document, ours
    or the stand-in's own; a test expects none.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        contract: Contract | None = None,
        world: World | None = None,
        kept_requests: int = 10_000,
        objects_max: int = 1_000_000,
    ) -> None:
        self.world = World() if world is None else world
        self.contract = Unchecked() if contract is None else contract
        self.faults = Faults()
        self.requests: list[Request] = []
        self.kept_requests = kept_requests
        self.complaints: deque[str] = deque(maxlen=100)
        self.objects_max = objects_max
        self.retry_after_seconds = RETRY_AFTER_SECONDS
        self._kept: dict[str, Kept] = {}
        # Held while a request is carried out.
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        poll = {"poll_interval": 0.01}
        threading.Thread(target=self._http.serve_forever, kwargs=poll, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, request: Request) -> Answer | None:
        """Carry out a request. None: its connection breaks."""
        with self.lock:
            self.requests.append(request)
            del self.requests[: -self.kept_requests or None]
            try:
                return self._answer(request)
            except Refused as refusal:
                return self._refuse(refusal)
            except Exception as failure:
                self.complaints.append("".join(traceback.format_exception(failure)))
                return error(500, "The stand-in itself failed; see its complaints.")

    def _answer(self, request: Request) -> Answer | None:
        self._require_key(request)
        fault = self.faults.next(request.method, request.path, request.body)
        if fault is Fault.RESET:
            return None
        if fault is Fault.BUSY:
            busy = error(429, "Too many requests.", code="rate_limit")
            busy.headers = {"Retry-After": str(self.retry_after_seconds)}
            return busy
        key = request.headers.get("idempotency-key")
        asked = (request.method, request.path, request.body)
        if key is not None and (kept := self._kept_answer(key, asked)) is not None:
            return None if fault is Fault.LOST_ANSWER else kept
        answer = self._carry_out(request, fault)
        # What was refused before it began is not kept.
        if key is not None and request.method == "POST":
            self._kept[key] = Kept(self.world.now, asked, answer)
            if len(self._kept) > KEYS_MAX:
                del self._kept[next(iter(self._kept))]
        return None if fault is Fault.LOST_ANSWER else answer

    def _require_key(self, request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not key.startswith(("sk_test_", "rk_test_")):
            raise Refused(401, "Invalid API Key provided. A stand-in takes test keys alone.")
        asked = request.headers.get("stripe-version")
        if self.contract.version not in (None, asked):
            self.complaints.append(f"version {asked}")

    def _kept_answer(self, key: str, asked: tuple[str, str, str]) -> Answer | None:
        kept = self._kept.get(key)
        if kept is None or kept.at + KEY_SECONDS < self.world.now:
            return None
        if kept.asked != asked:
            return error(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were"
                " first used with.",
                kind="idempotency_error",
            )
        return Answer(kept.answer.status, kept.answer.body, {"Idempotent-Replayed": "true"})

    def _carry_out(self, request: Request, fault: Fault | None) -> Answer:
        if fault is Fault.ERROR:
            return error(500, "Something went wrong on Stripe's end.")
        try:
            answer = self._handle(request)
        except Refused as refusal:
            answer = self._refuse(refusal)
        if fault is Fault.ERROR_AFTER_COMMIT:
            return error(500, "Something went wrong on Stripe's end.")
        return answer

    def _handle(self, request: Request) -> Answer:
        route, ids = find_route(request)
        text = request.body if request.method == "POST" else request.query
        if request.method == "POST" and self.world.numbers >= self.objects_max:
            raise Refused(400, FULL)
        try:
            given = self.contract.read(route, text)
        except Mismatch as mismatch:
            self.complaints.append(f"{request.method} {request.path}: {mismatch}")
            raise Refused(400, str(mismatch), code="parameter_unknown") from None
        self.world.changes += request.method != "GET"
        body = route.handle(self.world, ids, given)
        try:
            self.contract.check_answer(route, body)
        except Mismatch as mismatch:
            self.complaints.append(f"answer to {request.method} {request.path}: {mismatch}")
        return Answer(200, json.loads(json.dumps(body)))

    def _refuse(self, refusal: Refused) -> Answer:
        answer = error(refusal.status, str(refusal), code=refusal.code)
        self.contract.check_error(answer.body)
        return answer


def find_route(request: Request) -> tuple[Route, Ids]:
    for route in ROUTES:
        match = route.pattern.fullmatch(request.path)
        if match and route.name[0] == request.method:
            return route, match.groupdict()
    raise Refused(404, f"Unrecognized request URL ({request.method}: {request.path}).")


def error(
    status: int, message: str, *, code: str | None = None, kind: str = "invalid_request_error"
) -> Answer:
    described: dict[str, Any] = {
        "type": "api_error" if status >= 500 else kind,
        "message": f"{message} ({NOT_REAL})",
    }
    if code is not None:
        described["code"] = code
    return Answer(status, {"error": described})


def _handler(server: StripeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body leave together.
        wbufsize = 1 << 16

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > BODY_BYTES_MAX:
                self.send_error(413)
                return
            body = self.rfile.read(length).decode()
            parts = urlsplit(self.path)
            if parts.path == "/":
                self._send(200, page_of(server.world), "text/html; charset=utf-8", {})
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, parts.path, parts.query, body, headers)
            answer = server.answer(request)
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            text = json.dumps(answer.body).encode()
            self._send(answer.status, text, "application/json", answer.headers)

        def _send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            marks = {"Content-Type": kind, "Content-Length": str(len(body))}
            marks["X-Not-Real-Money"] = "true"
            for name, value in {**marks, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Keep no access log."""

    return Handler


def page_of(world: World) -> bytes:
    """Return a page of all invoices, for people who look at a demo."""
    rows = "".join(
        f"<tr><td>{each['number']}<td>{each['status']}<td>{world.shown(each)['total']}"
        f"<td>{each['currency']}"
        for each in world.invoices.values()
    )
    return (
        "<!doctype html><meta charset=utf-8><title>Not real money</title>"
        f"<h1>Not real money</h1><p>{NOT_REAL}"
        f"<table><tr><th>Number<th>Status<th>Total (minor units)<th>Currency{rows}</table>"
    ).encode()
