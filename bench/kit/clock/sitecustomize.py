"""Shifts the clock of a web or worker process, as a machine without NTP would.

The file named by BENCH_CLOCKS holds the shift of each part in seconds. A process reads it when it
starts and hands its shift on to its children. PostgreSQL and the monotonic clock keep the true
time.
"""

import ctypes
import gc
import json
import os
import sys
import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

FILE = "BENCH_CLOCKS"
SECONDS = "BENCH_CLOCK_SECONDS"


def shift_of_this_process() -> float:
    """Return the seconds by which this process is to be wrong."""
    if SECONDS in os.environ:
        return float(os.environ[SECONDS])
    file = Path(os.environ.get(FILE, ""))
    shifts = json.loads(file.read_text()) if file.is_file() else {}
    return float(next((shifts[part] for part in shifts if part in sys.orig_argv), 0.0))


def shift_clock(seconds: float) -> None:
    """Shift `time.time` and `datetime.now`; the latter's type is immutable, its dictionary not."""
    true_time, true_now, shift = time.time, datetime.now, timedelta(seconds=seconds)

    def now(_: type[datetime], tz: tzinfo | None = None) -> datetime:
        return true_now(tz) + shift

    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: int((true_time() + seconds) * 1_000_000_000)
    (members,) = gc.get_referents(datetime.__dict__)
    members["now"] = classmethod(now)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))


if shift := shift_of_this_process():
    os.environ[SECONDS] = str(shift)
    shift_clock(shift)
