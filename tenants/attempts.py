"""How often something may be tried: each try in vain doubles the wait before the next.

Nothing locks. Waits are short, and belong to an address, or to an account as tried from an address:
an attacker who guesses slows down no one elsewhere.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.db import connection, transaction
from django.utils import timezone
from django.utils.crypto import salted_hmac

# After so long without a try everything is forgotten, and the row may go.
FORGET_AFTER: Final = timedelta(hours=1)
# What a try removes of rows that are forgotten: more than it can add.
SWEEP_MAX: Final = 10
FAILURES_MAX: Final = 1000

# The try that is claimed counts as failed until it is forgiven, so that many simultaneous ones are
# as slow as one after the other. If the wait is not over, no row is changed.
_CLAIM: Final = """
    INSERT INTO sign_in_attempt AS a (key, failures, tried_at, free_at)
    VALUES (%(key)s, 1, %(now)s, %(now)s)
    ON CONFLICT (key) DO UPDATE SET (failures, tried_at, free_at) = (
        SELECT n, %(now)s, %(now)s + make_interval(secs => CASE
            WHEN n < %(free)s THEN 0 ELSE least(%(longest)s, power(2, least(n, 99) - %(free)s)) END)
        FROM (SELECT CASE WHEN a.tried_at < %(forgotten)s THEN 1
            ELSE least(a.failures + 1, %(most)s) END AS n) counted
    )
    WHERE a.free_at <= %(now)s
    RETURNING failures
"""
_SWEEP: Final = """
    DELETE FROM sign_in_attempt WHERE key = ANY(ARRAY(
        SELECT key FROM sign_in_attempt WHERE tried_at < %s
        ORDER BY tried_at LIMIT %s FOR UPDATE SKIP LOCKED
    ))
"""


class Limit(NamedTuple):
    """How many tries in vain are free, and the longest wait after that."""

    name: str
    free: int
    longest_seconds: int


class Tried(NamedTuple):
    """What is being tried, and by whom, as far as one limit counts it."""

    limit: Limit
    value: str

    @property
    def key(self) -> bytes:
        text = f"{self.limit.name}\0{self.value}"
        return salted_hmac("sign-in attempts", text, algorithm="sha256").digest()


class TooSoon(Exception):
    """The wait after earlier tries in vain is not over."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Wait {seconds} seconds.")
        self.seconds = seconds


@transaction.atomic
def claim(*tried: Tried) -> None:
    """Count a try under all these limits, or under none and raise TooSoon.

    Always in the order of the widest limit first, in which rows are locked too.
    """
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(_SWEEP, [now - FORGET_AFTER, SWEEP_MAX])
        for attempt in tried:
            cursor.execute(
                _CLAIM,
                {
                    "key": attempt.key,
                    "now": now,
                    "free": attempt.limit.free,
                    "longest": attempt.limit.longest_seconds,
                    "forgotten": now - FORGET_AFTER,
                    "most": FAILURES_MAX,
                },
            )
            if cursor.fetchone() is None:
                raise TooSoon(_seconds_left(attempt.key, now))


@transaction.atomic
def forgive(*tried: Tried, forget: Sequence[Tried] = ()) -> None:
    """Take back a try that was claimed; of those in `forget`, all earlier ones as well."""
    now = timezone.now()
    with connection.cursor() as cursor:
        for attempt in tried:
            cursor.execute(
                "UPDATE sign_in_attempt SET failures = greatest(failures - 1, 0), free_at = %s"
                " WHERE key = %s",
                [now, attempt.key],
            )
        for attempt in forget:
            cursor.execute("DELETE FROM sign_in_attempt WHERE key = %s", [attempt.key])


def format_wait(seconds: int) -> str:
    """A wait for people: "1 second", "40 seconds", "5 minutes"."""
    number, unit = (seconds, "second") if seconds < 120 else (math.ceil(seconds / 60), "minute")
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _seconds_left(key: bytes, now: datetime) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT free_at FROM sign_in_attempt WHERE key = %s", [key])
        row = cursor.fetchone()
    return max(1, math.ceil((row[0] - now).total_seconds())) if row else 1
