"""A small HTTP client for the service: one kept connection, an API key, patient retries."""

import gzip
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from threading import Event
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

TIMEOUT_SECONDS = 60
PATIENCE_SECONDS = 120
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
# The service is busy or starting; it has taken nothing that a second try would not recognize.
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class LoadFailed(Exception):
    """The load cannot go on; the message is a sentence for people."""


@dataclass(frozen=True)
class Answer:
    """What the service said: an HTTP status and the JSON of the body, None where it has none."""

    status: int
    body: Any

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def detail(self) -> str:
        detail = self.body.get("detail") if isinstance(self.body, dict) else None
        return str(detail or "no detail given")


class Client:
    """One connection, for one thread. Setting `stopping` ends its pauses immediately."""

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        patience_seconds: float = PATIENCE_SECONDS,
        stopping: Event | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.parts = parse(self.url)
        self.api_key = api_key
        self.patience_seconds = patience_seconds
        self.is_packing = self.parts.hostname not in LOOPBACK  # it costs more than it saves there
        self.stopping = stopping or Event()
        self.connection: HTTPConnection | None = None

    def close(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection = None

    def get(self, path: str) -> Answer:
        return self.ask("GET", path, body=None, headers={})

    def post(self, path: str, value: object, *, idempotency_key: str | None = None) -> Answer:
        """Send JSON. Safe to repeat: events carry ids, and everything else an idempotency key."""
        body = msgspec.json.encode(value)
        headers = {"Content-Type": "application/json"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        if self.is_packing:
            body = gzip.compress(body, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
        return self.ask("POST", path, body=body, headers=headers)

    def ask(self, method: str, path: str, *, body: bytes | None, headers: dict[str, str]) -> Answer:
        """Ask until an answer comes that is worth having, or patience ends: then LoadFailed."""
        give_up_at = time.monotonic() + self.patience_seconds
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            wanted_seconds = 0.0
            try:
                response, content = self.send(method, path, body=body, headers=headers)
                if response.status not in RETRIED_STATUSES:
                    return Answer(response.status, parsed(content))
                trouble = f"it answered {response.status}"
                wanted_seconds = retry_after_seconds(response)
            except (OSError, HTTPException) as error:
                self.close()
                trouble = str(error) or type(error).__name__
            if time.monotonic() >= give_up_at:
                raise LoadFailed(
                    f"The service at {self.url} could not be used for "
                    f"{self.patience_seconds:g} seconds: {trouble}."
                )
            if self.stopping.wait(max(pause_seconds, wanted_seconds)):
                raise LoadFailed("The load was stopped.")
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    def send(
        self, method: str, path: str, *, body: bytes | None, headers: dict[str, str]
    ) -> tuple[HTTPResponse, bytes]:
        if self.connection is None:
            self.connection = connect(self.parts)
        headers = {**headers, "Authorization": f"Bearer {self.api_key}"}
        self.connection.request(method, self.parts.path + path, body=body, headers=headers)
        response = self.connection.getresponse()
        return response, response.read()


def parse(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise LoadFailed(f"{url!r} is not an address like http://127.0.0.1:8000.")
    return parts


def connect(parts: SplitResult) -> HTTPConnection:
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)


def parsed(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        return None


def retry_after_seconds(response: HTTPResponse) -> float:
    """Return what the service asks for, within reason; a date in its place is not worth reading."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_PAUSE_SECONDS) if text.isdecimal() else 0.0
