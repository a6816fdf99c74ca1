"""A provider on loopback: it answers as OpenAI and Anthropic did when they were recorded.

Each answer has an id of its own and counts of its own, and the server keeps what it charged for.
"""

import copy
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from common.json_bodies import JsonObject

RECORDINGS: Final = Path(__file__).parent / "data" / "recordings.jsonl"
WIRES: Final = {
    "/v1/chat/completions": "chat-completions",
    "/v1/responses": "responses",
    "/v1/messages": "anthropic",
}
# Nano-dollars for a token of input and of output.
RATES: Final[Mapping[str, tuple[int, int]]] = {
    "gpt-4o": (2_500, 10_000),
    "claude-sonnet-4-5": (3_000, 15_000),
}


class Charge(NamedTuple):
    """What one answer cost. Nothing is cached here."""

    response_id: str
    model: str
    input_tokens: int
    output_tokens: int

    @property
    def cost_nanos(self) -> int:
        input_rate, output_rate = RATES[self.model]
        return self.input_tokens * input_rate + self.output_tokens * output_rate


class Provider:
    """What the server has charged so far, and the answers that it gives."""

    def __init__(self) -> None:
        self.charges: list[Charge] = []
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str], Any] = {}
        for line in RECORDINGS.read_text().splitlines():
            recording = json.loads(line)
            for kind in ("response", "stream"):
                if kind in recording:
                    self._answers[(recording["wire"], kind)] = recording[kind]
        self.url = ""

    @property
    def cost_nanos(self) -> int:
        return sum(charge.cost_nanos for charge in self.charges)

    def charge(self, wire: str, model: str) -> Charge:
        """Charge for one more answer."""
        prefix = {"anthropic": "msg_01", "responses": "resp_"}.get(wire, "chatcmpl-")
        with self._lock:
            number = len(self.charges)
            # Few of them use alike, and some do.
            made = Charge(f"{prefix}{uuid4().hex}", model, 1000 + number % 7, 150 + number % 11)
            self.charges.append(made)
        return made

    def response(self, wire: str, charge: Charge) -> JsonObject:
        """The recorded answer, as that of this charge."""
        answer: JsonObject = copy.deepcopy(self._answers[(wire, "response")])
        answer |= {"id": charge.response_id, "model": charge.model}
        answer["usage"] = usage_of(wire, charge)
        return answer

    def events(self, wire: str, charge: Charge, *, has_usage: bool) -> Iterator[JsonObject]:
        """The recorded stream, as that of this charge."""
        for recorded in self._answers[(wire, "stream")]:
            event: JsonObject = copy.deepcopy(recorded)
            if wire == "chat-completions":
                event |= {"id": charge.response_id, "model": charge.model}
            for name in ("message", "response"):
                if name in event:
                    event[name] |= {"id": charge.response_id, "model": charge.model}
                    if event[name].get("usage"):
                        event[name]["usage"] = usage_of(wire, charge, is_final=name == "response")
            if wire == "anthropic" and "usage" in event:
                event["usage"] = usage_of(wire, charge)
            yield event
        if wire == "chat-completions" and has_usage:
            yield {**event, "choices": [], "usage": usage_of(wire, charge)}


def usage_of(wire: str, charge: Charge, *, is_final: bool | None = None) -> JsonObject:
    """The usage object of a wire. A stream of Anthropic's begins with one token of output."""
    both = {"input_tokens": charge.input_tokens, "output_tokens": charge.output_tokens}
    total = charge.input_tokens + charge.output_tokens
    if wire == "anthropic":
        both |= {"output_tokens": 1} if is_final is False else {}
        return {**both, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    if wire == "responses":
        details = {"input_tokens_details": {"cached_tokens": 0}}
        return {
            **both,
            **details,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": total,
        }
    return {
        "prompt_tokens": charge.input_tokens,
        "completion_tokens": charge.output_tokens,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def frames(wire: str, events: Iterator[JsonObject]) -> Iterator[bytes]:
    """Events as server-sent events: chat names none and says when it is done."""
    for event in events:
        named = "" if wire == "chat-completions" else f"event: {event['type']}\n"
        yield f"{named}data: {json.dumps(event)}\n\n".encode()
    if wire == "chat-completions":
        yield b"data: [DONE]\n\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wire = WIRES.get(self.path.partition("?")[0])
        if wire is None:
            self.send_error(404)
            return
        provider, charge = self.server.provider, self.server.provider.charge(wire, asked["model"])
        if asked.get("stream"):
            has_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
            self._stream(frames(wire, provider.events(wire, charge, has_usage=has_usage)))
        else:
            self._answer(json.dumps(provider.response(wire, charge)).encode())

    def _answer(self, content: bytes) -> None:
        self._begin("application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, chunks: Iterator[bytes]) -> None:
        self._begin("text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in (*chunks, b""):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    def _begin(self, content_type: str) -> None:
        request_id = f"req_{uuid4().hex}"
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("x-request-id", request_id)
        self.send_header("request-id", request_id)

    def log_message(self, *_: object) -> None:
        """Tests need no access log."""


@contextmanager
def replaying() -> Iterator[Provider]:
    """A provider that answers at `url`."""
    provider = Provider()
    server = _Server(provider)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
