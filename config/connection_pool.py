"""Database connections of a web process, shared by its threads.

A thread borrows one for as long as its statements take, and there are as many as threads, so nobody
ever waits for another's. Beside them, the threads that combine callers keep one each.
"""

from typing import Final

from django.db import connections

WAIT_SECONDS: Final = 10


def share_between_threads(threads: int) -> None:
    """Let threads that connect from now on borrow a connection instead of making their own."""
    parameters = connections.settings["default"]
    parameters["CONN_MAX_AGE"] = 0
    parameters["OPTIONS"] = {
        **parameters["OPTIONS"],
        "pool": {"min_size": 2, "max_size": threads, "timeout": WAIT_SECONDS},
    }
