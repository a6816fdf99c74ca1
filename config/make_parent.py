"""The `make` that started the supervisor: asked to stop, it must not leave the supervisor behind.

From a terminal, Ctrl-C reaches both. An interrupt sent to make alone is not passed on: make stops
catching it and waits for its child indefinitely. And a make that is killed cannot say anything.
"""

import os
import signal
from pathlib import Path


class MakeParent:
    """The parent process, as it was when the supervisor started."""

    def __init__(self) -> None:
        self._pid = os.getppid()
        self._did_catch_interrupts = self._catches_interrupts()

    def wants_to_stop(self) -> bool:
        if os.getppid() != self._pid:
            return True
        return self._did_catch_interrupts and not self._catches_interrupts()

    def _catches_interrupts(self) -> bool:
        try:
            lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        except OSError:
            return False
        caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
        return bool(int(caught, 16) >> (signal.SIGINT - 1) & 1)
