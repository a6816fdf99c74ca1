"""Conversations with mail servers that never stop talking: how much is kept in memory."""

import smtplib
from io import BufferedReader
from typing import Final

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


class Conversation(smtplib.SMTP):
    """One that may be encrypted later: replies are read up to a limit, again after that."""

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Replies(self.sock.makefile("rb"))
        return super().getreply()


class EncryptedConversation(Conversation, smtplib.SMTP_SSL):
    """One that is encrypted from its beginning."""
