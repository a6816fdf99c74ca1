"""Database connections of a web process, shared by its threads.

There are many threads, so that many callers can share a transaction, and few of them speak to the
database at any moment: a connection each would be more than a server is set up for.
"""

from typing import Final

from django.db import connections

# Beside those that the threads which combine callers keep to themselves.
CONNECTIONS_MAX: Final = 24
WAIT_SECONDS: Final = 10


def share_between_threads() -> None:
    """Let threads that connect from now on borrow a connection instead of making their own."""
    parameters = connections.settings["default"]
    parameters["CONN_MAX_AGE"] = 0
    parameters["OPTIONS"] = {
        **parameters["OPTIONS"],
        "pool": {"min_size": 2, "max_size": CONNECTIONS_MAX, "timeout": WAIT_SECONDS},
    }
