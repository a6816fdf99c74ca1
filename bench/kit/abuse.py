"""Requests that no client should send."""

import gzip
import socket
from contextlib import suppress
from typing import Final

from bench.kit.wire import JsonObject

GZIP: Final = {"Content-Encoding": "gzip"}
CONNECT_SECONDS: Final = 2.0
# The most that one event may cost.
FORTUNE_USD: Final = 10_000_000


def left_open(port: int, request: bytes) -> socket.socket:
    """Send a request, or a part of it, over a connection of which little is ever read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(CONNECT_SECONDS)
    with suppress(OSError):  # the service may be down just now
        client.connect(("127.0.0.1", port))
        client.sendall(request)
    return client


def empty_members(count: int) -> bytes:
    """Return a gzip body of many members without content."""
    return gzip.compress(b"") * count


def fortunes(name: str, count: int) -> list[JsonObject]:
    """Return events whose costs together are more than 64 bits of nano-dollars hold."""
    return [{"id": f"{name}-{n}", "cost_usd": str(FORTUNE_USD)} for n in range(count)]


def wrong_events(count: int) -> list[JsonObject]:
    """Return events that are all refused, each with a field of its own."""
    return [{"id": 1, f"field-{n}": "x" * 150} for n in range(count)]
