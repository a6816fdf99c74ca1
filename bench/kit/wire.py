"""HTTP/1.1 as lean as it gets, for clients that share the machine with the service.

Requests are written directly to kept connections, answers are cut by their `Content-Length`. One
thread drives many conversations simultaneously, or a blocking connection serves one caller.
"""

import selectors
import socket
import time
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

READ_BYTES: Final = 65_536
HEAD_END: Final = b"\r\n\r\n"
LENGTH: Final = b"content-length:"
WITHOUT_BODY: Final = frozenset({204, 304})
PATIENCE_SECONDS: Final = 30.0
DRIP_SECONDS: Final = 0.002


JsonObject = dict[str, Any]


class Broken(ConnectionError):
    """The connection ended before an answer was complete."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes

    def json(self) -> JsonObject:
        """Return the body's JSON."""
        value: JsonObject = msgspec.json.decode(self.body)
        return value

    @property
    def code(self) -> str:
        """The code of a problem; empty for any other answer."""
        try:
            return str(self.json()["code"])
        except (msgspec.DecodeError, KeyError, TypeError):
            return ""

    def __str__(self) -> str:
        return f"{self.status} {self.body[:300].decode(errors='replace')}"


# Yields requests, is sent the answer of each.
Conversation = Generator[bytes, Answer, None]


class Requests:
    """Makes requests with the headers that all of them share."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        self._shared = ("Host: 127.0.0.1\r\n" + "".join(lines)).encode()

    def make(self, method: str, path: str, body: bytes = b"", *, key: str = "") -> bytes:
        """Return a request; `key` is its Idempotency-Key."""
        given = f"Idempotency-Key: {key}\r\n" if key else ""
        return b"%b %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (
            method.encode(),
            path.encode(),
            self._shared,
            given.encode(),
            len(body),
            body,
        )


class AnswerReader:
    """Puts an answer together from what a connection hands over."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> Answer | None:
        """Return the answer once it is complete. Raises Broken if the other side has hung up."""
        if not data:
            raise Broken("hung up")
        self._held += data
        head_end = self._held.find(HEAD_END)
        if head_end < 0:
            return None
        body_at = head_end + len(HEAD_END)
        status = int(self._held[9:12])
        length = 0 if status in WITHOUT_BODY else _length(self._held[:body_at])
        if len(self._held) < body_at + length:
            return None
        answer = Answer(status, self._held[body_at : body_at + length])
        self._held = b""
        return answer


def _length(head: bytes) -> int:
    lowered = head.lower()
    index = lowered.find(LENGTH)
    if index < 0:
        raise Broken("an answer without a length")
    return int(lowered[index + len(LENGTH) : lowered.index(b"\r\n", index)])


def dial(port: int) -> socket.socket:
    """Open a connection whose requests leave immediately."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Connection:
    """One kept connection of a caller that waits. What breaks it is raised as an OSError, and the
    next request reopens it.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> Answer:
        """Send a request and wait for its answer."""
        self.send(request)
        return self.receive()

    def send(self, request: bytes) -> None:
        """Send a request whose answer is fetched later, or never."""
        try:
            if self._socket is None:
                self._socket = dial(self._port)
            self._socket.sendall(request)
        except OSError:
            self.close()
            raise

    def drip(self, request: bytes) -> None:
        """Send a request a byte at a time, as over a very bad line."""
        for index in range(len(request)):
            self.send(request[index : index + 1])
            time.sleep(DRIP_SECONDS)

    def receive(self) -> Answer:
        """Wait for the answer of the request sent last."""
        if self._socket is None:
            raise Broken("nothing was sent")
        reader = AnswerReader()
        try:
            while (answer := reader.feed(self._socket.recv(READ_BYTES))) is None:
                pass
        except OSError:
            self.close()
            raise
        return answer

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Side:
    """A conversation and its connection."""

    __slots__ = ("conversation", "reader", "socket")

    def __init__(self, port: int, conversation: Conversation) -> None:
        self.conversation = conversation
        self.reader = AnswerReader()
        self.socket = dial(port)


def converse(port: int, conversations: Iterable[Conversation]) -> None:
    """Hold conversations from this one thread, each over a connection of its own."""
    with selectors.DefaultSelector() as selector:
        for conversation in conversations:
            side = _Side(port, conversation)
            selector.register(side.socket, selectors.EVENT_READ, side)
            _go_on(selector, side, None)
        while selector.get_map():
            for key, _ in selector.select(PATIENCE_SECONDS) or _give_up():
                _listen(selector, key.data)


def _give_up() -> list[tuple[selectors.SelectorKey, int]]:
    raise Broken(f"no answer within {PATIENCE_SECONDS:.0f} seconds")


def _listen(selector: selectors.BaseSelector, side: _Side) -> None:
    answer = side.reader.feed(side.socket.recv(READ_BYTES))
    if answer is not None:
        _go_on(selector, side, answer)


def _go_on(selector: selectors.BaseSelector, side: _Side, answer: Answer | None) -> None:
    """Hand over an answer and send what comes next. A request fits into the socket's buffer."""
    try:
        request = next(side.conversation) if answer is None else side.conversation.send(answer)
    except StopIteration:
        selector.unregister(side.socket)
        side.socket.close()
    else:
        side.socket.sendall(request)
