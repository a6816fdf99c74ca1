"""Bodies of requests on the event loop: how slowly one may come, and how much of all is kept."""

import asyncio
import io
import tempfile
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import suppress
from typing import IO, Final

from granian.rsgi import HTTPProtocol

from common.api.parsing import DRAIN_BYTES_MAX, MEMORY_BYTES_MAX

# A body must begin within the grace and then come at this rate at least, without long silences.
GRACE_SECONDS: Final = 10.0
BYTES_PER_SECOND_MIN: Final = 8 * 1024
SILENCE_SECONDS: Final = 10.0
# A body this small comes within the grace, and is read in one piece.
SMALL_BYTES: Final = 16 * 1024
# For a body that no one will read: a client that is still sending should see the answer.
DRAIN_SECONDS: Final = 5.0
DRAIN_SILENCE_SECONDS: Final = 2.0
# All bodies that have arrived and are not answered yet, and those of one tenant.
KEPT_BYTES_MAX: Final = 512 << 20
CALLER_BYTES_MAX: Final = 160 << 20
# The same of requests without a key: forms.
STRANGERS_BYTES_MAX: Final = 64 << 20
STRANGER_BYTES_MAX: Final = 16 << 20


class TooSlow(Exception):
    """The body came slower than it must."""


class Incomplete(Exception):
    """The client went away, or said a wrong length: what has arrived is not the body."""


class QuotaExceeded(Exception):
    """More bodies wait than this process keeps."""


class BodyQuota:
    """Bytes that have arrived and are not answered yet, of all callers and of each."""

    def __init__(self, bytes_max: int, caller_bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._caller_bytes_max = caller_bytes_max
        self._size = 0
        self._by_caller: dict[Hashable, int] = {}

    def take(self, caller: Hashable, size: int) -> None:
        """Raise QuotaExceeded if too little is left."""
        taken = self._by_caller.get(caller, 0) + size
        if self._size + size > self._bytes_max or taken > self._caller_bytes_max:
            raise QuotaExceeded
        self._size += size
        self._by_caller[caller] = taken

    def give_back(self, caller: Hashable, size: int) -> None:
        self._size -= size
        left = self._by_caller.get(caller, 0) - size
        if left > 0:
            self._by_caller[caller] = left
        else:
            self._by_caller.pop(caller, None)


class Body:
    """A body as far as it has arrived: up to one byte beyond the limit, the rest is dropped."""

    def __init__(self, quota: BodyQuota, caller: Hashable, bytes_max: int) -> None:
        self.file: IO[bytes] = io.BytesIO()
        self.size = 0
        self._quota = quota
        self._caller = caller
        self._bytes_max = bytes_max

    @property
    def is_over(self) -> bool:
        """Whether more has come than its address takes."""
        return self.size > self._bytes_max

    def read(self) -> bytes:
        """Return all of it; it can be read again."""
        self.file.seek(0)
        return self.file.read()

    def close(self) -> None:
        self._quota.give_back(self._caller, self.size)
        self.file.close()

    async def receive(self, proto: HTTPProtocol, length: str) -> None:
        """Read it at the pace that it must have. Raises TooSlow, QuotaExceeded, Incomplete."""
        if length.isdecimal() and int(length) <= SMALL_BYTES:
            try:
                async with asyncio.timeout(GRACE_SECONDS):
                    self._add(await proto())
            except TimeoutError:
                raise TooSlow from None
            if self.size < min(int(length), self._bytes_max + 1):
                raise Incomplete
            return
        started_at = time.monotonic()
        arrived = 0
        pieces = aiter(proto)
        while arrived < DRAIN_BYTES_MAX:
            due_at = started_at + GRACE_SECONDS + arrived / BYTES_PER_SECOND_MIN
            try:
                async with asyncio.timeout(min(SILENCE_SECONDS, due_at - time.monotonic())):
                    piece = await _next(pieces)
            except TimeoutError:
                raise TooSlow from None
            if not piece:
                break
            arrived += len(piece)
            self._add(piece)
        if length.isdecimal() and arrived < min(int(length), DRAIN_BYTES_MAX):
            raise Incomplete

    def _add(self, piece: bytes) -> None:
        kept = piece[: max(0, self._bytes_max + 1 - self.size)]
        self._quota.take(self._caller, len(kept))
        self.size += len(kept)
        if self.size > MEMORY_BYTES_MAX and isinstance(self.file, io.BytesIO):
            in_memory = self.file
            self.file = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
            self.file.write(in_memory.getvalue())
        self.file.write(kept)


async def drain(proto: HTTPProtocol) -> None:
    """Read a body and drop it, for a little while."""
    arrived = 0
    pieces = aiter(proto)
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while arrived < DRAIN_BYTES_MAX:
                async with asyncio.timeout(DRAIN_SILENCE_SECONDS):
                    piece = await _next(pieces)
                if not piece:
                    return
                arrived += len(piece)


async def _next(pieces: AsyncIterator[bytes]) -> bytes:
    """Return the next piece, nothing at the end. (`anext` with a default crashes here.)"""
    try:
        return await pieces.__anext__()
    except StopAsyncIteration:
        return b""
