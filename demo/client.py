"""A small HTTP client for the service: one kept connection, an API key, patient retries."""

import gzip
import time
from dataclasses import dataclass
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests

TIMEOUT_SECONDS = 60
PATIENCE_SECONDS = 120
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
# The service is busy or starting; it has taken nothing that a second try would not recognize.
RETRIED_STATUSES = frozenset({429, 502, 503, 504})
JsonObject = dict[str, Any]
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
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise LoadFailed(f"{url!r} is not an address like http://127.0.0.1:8000.")
        self.patience_seconds = patience_seconds
        self.is_packing = parts.hostname not in LOOPBACK  # it costs more than it saves there
        self.stopping = stopping or Event()
        self.session = requests.Session()
        self.session.trust_env = False  # a proxy, or a key, of the caller's is not for this service
        self.session.headers["Authorization"] = f"Bearer {api_key}"

    def close(self) -> None:
        self.session.close()

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
                response = self.session.request(
                    method,
                    self.url + path,
                    data=body,
                    headers=headers,
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
                if response.status_code not in RETRIED_STATUSES:
                    return Answer(response.status_code, parsed(response.content))
                trouble = f"it answered {response.status_code}"
                # A date in its place is not worth reading.
                wanted = response.headers.get("Retry-After", "")
                wanted_seconds = float(wanted) if wanted.isdecimal() else 0.0
            except requests.RequestException as error:
                trouble = str(error) or type(error).__name__
            if time.monotonic() >= give_up_at:
                raise LoadFailed(
                    f"The service at {self.url} could not be used for "
                    f"{self.patience_seconds:g} seconds: {trouble}."
                )
            wanted_seconds = min(wanted_seconds, LONGEST_PAUSE_SECONDS)
            if self.stopping.wait(max(pause_seconds, wanted_seconds)):
                raise LoadFailed("The load was stopped.")
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)


def parsed(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except msgspec.DecodeError:
        return None
