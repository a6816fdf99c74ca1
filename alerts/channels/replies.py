"""Conversations with mail servers that never stop talking: how much is kept in memory."""

import smtplib
from io import BufferedReader
from typing import Any, Final

# All that a mail server has to say, many times over.
REPLIES_MAX_BYTES: Final = 1_000_000


class _Replies:
    """Replies of a mail server, up to a limit. The library keeps a reply until its last line."""

    def __init__(self, lines: BufferedReader) -> None:
        self._lines = lines
        self._left_bytes = REPLIES_MAX_BYTES

    def readline(self, size: int) -> bytes:
        line = self._lines.readline(size)
        self._left_bytes -= len(line)
        if self._left_bytes < 0:
            raise OSError("The mail server says too much.")
        return line

    def close(self) -> None:
        self._lines.close()


class _Short:
    """Makes the library read replies up to a limit, again after encryption has begun."""

    file: Any
    sock: Any

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None:
            self.file = _Replies(self.sock.makefile("rb"))
        reply: tuple[int, bytes] = super().getreply()  # type: ignore[misc]
        return reply


class Conversation(_Short, smtplib.SMTP):
    """One that may be encrypted later."""


class EncryptedConversation(_Short, smtplib.SMTP_SSL):
    """One that is encrypted from its beginning."""
