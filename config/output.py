"""What the service prints: the supervisor's lines, those of its children, and logs."""

import os
import select
import sys
from contextlib import suppress

LINE_MAX_BYTES = 4000  # less than a pipe takes in one write, so that a write never waits


def say(sentence: str, *, speaker: str = "spendgate") -> None:
    """Print a line, unless no one reads: a full pipe must not stop the supervisor."""
    line = f"{speaker:<9} | {sentence}".encode(errors="replace")[:LINE_MAX_BYTES] + b"\n"
    try:
        descriptor = sys.stdout.fileno()
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, line)
    except (OSError, ValueError):
        pass  # the terminal is gone; the service keeps running


class LogOutput:
    """Standard output for logs. Once its reader is gone, lines are lost and requests are not."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return sys.stdout.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError):
            sys.stdout.flush()


class LineSplitter:
    """Cuts a child's output into lines as it comes."""

    def __init__(self, speaker: str) -> None:
        self.speaker = speaker
        self._rest = b""

    def feed(self, output: bytes) -> None:
        *lines, self._rest = (self._rest + output).split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._rest) > LINE_MAX_BYTES:
            self.finish()

    def finish(self) -> None:
        self._say(self._rest)
        self._rest = b""

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            say(text, speaker=self.speaker)
