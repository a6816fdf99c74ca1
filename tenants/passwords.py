"""Passwords: hashed few at a time, while no database connection is held.

A hash is made to be slow: it takes a core for a third of a second. So a process works on one, lets
a few wait briefly, and sends the rest away immediately; its other threads and cores stay with the
API.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.contrib.auth.hashers import check_password, make_password
from django.db import connection

HASHES_AT_ONCE: Final = 1
WAITING_MAX: Final = 3
WAIT_SECONDS: Final = 2.0

_running = threading.BoundedSemaphore(HASHES_AT_ONCE)
_admitted = threading.BoundedSemaphore(HASHES_AT_ONCE + WAITING_MAX)


class TooManyHashes(Exception):
    """Other passwords are being checked. Try again in a few seconds."""

    seconds = 3


@contextmanager
def hashing() -> Iterator[None]:
    """Take a turn at hashing, or raise TooManyHashes."""
    assert not connection.in_atomic_block, "a hash must not keep a transaction open"
    connection.close()
    if not _admitted.acquire(blocking=False):
        raise TooManyHashes
    try:
        if not _running.acquire(timeout=WAIT_SECONDS):
            raise TooManyHashes
        try:
            yield
        finally:
            _running.release()
    finally:
        _admitted.release()


def hashed(password: str) -> str:
    """The password as it is stored."""
    with hashing():
        return make_password(password)


def checked(password: str, stored: str | None) -> tuple[bool, str | None]:
    """Return whether a password is the one that is stored, and its new stored form if one is due.

    Without a stored password it takes as long, and is wrong.
    """
    renewed: list[str] = []
    with hashing():
        is_right = check_password(
            password, stored or "", setter=lambda raw: renewed.append(make_password(raw))
        )
    return is_right, (renewed[0] if renewed else None)
