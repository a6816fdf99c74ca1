"""What has changed that processes remember: PostgreSQL tells those that listen once it commits.

Code that changes a key or a configuration announces it in the same transaction. A process that
listens may then trust what it remembers without asking again, for as long as it hears from the
database.
"""

import secrets
import threading
import time
from collections.abc import Callable
from typing import Final, Literal

import structlog
from django.db import connection
from psycopg import Notify

log = structlog.get_logger(__name__)

CHANNEL: Final = "spendgate_changes"
Kind = Literal["configuration", "key"]
# How often the listener makes sure that it is told, and for how long that counts: a revoked key is
# refused within a second.
CHECK_SECONDS: Final = 0.2
LIVE_SECONDS: Final = 0.95
# While the database is away the log says so this often.
COMPLAINT_SECONDS: Final = 60.0
STOP_SECONDS: Final = 2.0


def tell_change(kind: Kind, subject: str | int) -> None:
    """Tell every process that listens, once this transaction has committed."""
    _notify(f"{kind} {subject}")


def _notify(payload: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])


class ChangeListener:
    """The thread of a process that hears of changes.

    `count` is the number of changes that it has heard of. What was read while `count` stood still
    and `session` has not changed since is as the database has it, as long as `is_live`.
    """

    def __init__(self) -> None:
        self.count = 0
        # Rises whenever something may have been missed.
        self.session = 0
        self._forget: dict[str, Callable[[str], None]] = {}
        # When the last word was sent that came back, and the word that is under way.
        self._heard_at = float("-inf")
        self._word, self._asked_at = "", float("-inf")
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def on_change(self, kind: Kind, forget: Callable[[str], None]) -> None:
        """Call `forget` with the subject of each change of this kind, in the listener's thread."""
        self._forget[kind] = forget

    def is_live(self) -> bool:
        """Whether every change that was committed LIVE_SECONDS ago is known."""
        return self._heard_at > time.monotonic() - LIVE_SECONDS

    def start(self) -> None:
        """Listen from now on."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="change listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        self._heard_at = float("-inf")

    def _run(self) -> None:
        complained_at = float("-inf")
        while not self._stopping.is_set():
            try:
                self._listen()
            except Exception as error:  # the thread continues whatever happened
                if time.monotonic() > complained_at + COMPLAINT_SECONDS:
                    complained_at = time.monotonic()
                    log.warning("changes are not told; they are asked for", error=str(error))
            self._heard_at = float("-inf")
            connection.close()
            self._stopping.wait(CHECK_SECONDS)

    def _listen(self) -> None:
        self.session += 1
        connection.ensure_connection()
        connection.connection.add_notify_handler(self._hear)
        with connection.cursor() as cursor:
            # The word below says nothing that must outlive a crash.
            cursor.execute("SET synchronous_commit = off")
            cursor.execute(f"LISTEN {CHANNEL}")
        while not self._stopping.is_set():
            # A word of its own that comes back proves that nothing told before it was missed: what
            # is between this process and PostgreSQL may not pass notifications on.
            self._word, self._asked_at = f"word {secrets.token_hex(8)}", time.monotonic()
            _notify(self._word)
            self._stopping.wait(CHECK_SECONDS)

    def _hear(self, notify: Notify) -> None:
        if notify.payload == self._word:
            self._heard_at = self._asked_at
            return
        kind, _, subject = notify.payload.partition(" ")
        forget = self._forget.get(kind)
        if forget is not None:
            self.count += 1
            forget(subject)


PROCESS_LISTENER: Final = ChangeListener()
