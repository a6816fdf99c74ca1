"""Records what each source sends and what is lost of it, without making any request wait.

Counts add up in this process and are written by a thread of its own within a second, those of many
tenants in one transaction. Reading (`metering.reporting.source_counts`) adds what is not written
yet, so a client sees its own reports immediately. A killed process loses its last second. A failing
database delays the counts and fails no request; what waits is bounded.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from itertools import chain
from multiprocessing.util import Finalize
from typing import Final, NamedTuple

import msgspec
import structlog
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.models import Route, SourceOutcome
from tenants.scope import platform_scope

log = structlog.get_logger(__name__)

# Counted a tenant and day by name. The reports of further sources count under OTHER.
SOURCES_MAX: Final = 200
OTHER: Final = "(other)"
# How much may wait to be written, in different counts.
TENANT_COUNTS_MAX: Final = 500
COUNTS_MAX: Final = 20_000
# One transaction writes the tenants of this many counts, and no tenant's counts in parts.
WRITTEN_TOGETHER: Final = 500
NAME_MAX: Final = 200
CODE_MAX: Final = 100
DETAIL_MAX: Final = 500
SAMPLE_BYTES_MAX: Final = 2048

PAUSE_SECONDS: Final = 0.5
STOP_SECONDS: Final = 3.0
COMPLAINT_SECONDS: Final = 60.0
STATEMENT_TIMEOUT: Final = "5s"
# Longer than a reader's snapshot may be old when it asks what is not written in it.
REMEMBERED_SECONDS: Final = 10.0
# With a tenant's id, keeps two processes from admitting new sources simultaneously.
SOURCES_LOCK: Final = 7302


class Tally(NamedTuple):
    """A number of reports of a source that came by a route and had this outcome.

    `code` is empty where nothing need be said. `sample` is one of them, redacted.
    """

    source: str
    route: Route
    outcome: SourceOutcome
    reports: int
    code: str = ""
    detail: str = ""
    sample: str | None = None


class _Key(NamedTuple):
    day: date
    source: str
    route: int
    outcome: int
    code: str


class _Count:
    """What waits to be added to one row."""

    __slots__ = ("count", "detail", "first_at", "last_at", "sample")

    def __init__(self, at: datetime) -> None:
        self.count = 0
        self.first_at = self.last_at = at
        self.detail = ""
        self.sample: str | None = None

    def add(self, count: int, at: datetime, detail: str, sample: str | None) -> None:
        self.count += count
        self.last_at = max(self.last_at, at)
        self.detail = detail or self.detail
        self.sample = sample if sample is not None else self.sample


class _Batch:
    """The counts of a tenant that one transaction writes.

    `transaction` is its id from before it writes anything, so that a reader can tell by its own
    snapshot whether it sees what was written.
    """

    def __init__(self, tenant_id: int, counts: dict[_Key, _Count]) -> None:
        self.tenant_id = tenant_id
        self.counts = counts
        self.transaction: str | None = None
        self.written_at: float | None = None

    def rows(self) -> list[JsonObject]:
        return [
            {
                "tenant_id": self.tenant_id,
                "day": key.day,
                "source": _clean(key.source),
                "route": key.route,
                "outcome": key.outcome,
                "code": _clean(key.code),
                "count": count.count,
                "first_at": count.first_at,
                "last_at": count.last_at,
                "detail": _clean(count.detail[:DETAIL_MAX]),
                "sample": None if count.sample is None else _clean(_cut(count.sample)),
                "transaction": self.transaction,
            }
            for key, count in self.counts.items()
        ]


class SourceRecorder:
    """The counts of one process, and the thread that writes them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Held while counts are written.
        self._turn = threading.Lock()
        self._waiting: dict[int, dict[_Key, _Count]] = {}
        self._size = 0
        # Being written, or written a moment ago.
        self._batches: list[_Batch] = []
        self._thread: threading.Thread | None = None
        self._recorded = threading.Event()
        self._stopping = threading.Event()
        self._complained_at = -COMPLAINT_SECONDS
        # The process whose end writes what waits.
        self._process_id: int | None = None

    def record(self, tenant_id: int, tallies: Iterable[Tally]) -> None:
        """Count reports. Takes microseconds, and never fails for what the database does."""
        now = timezone.now()
        day = now.astimezone(UTC).date()
        with self._lock:
            for tally in tallies:
                source, code = tally.source[:NAME_MAX], tally.code[:CODE_MAX]
                key = _Key(day, source, tally.route.value, tally.outcome.value, code)
                self._add(tenant_id, key, tally.reports, now, (tally.detail, tally.sample))
        if not self._recorded.is_set():
            self._recorded.set()
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def _add(
        self, tenant_id: int, key: _Key, count: int, at: datetime, latest: tuple[str, str | None]
    ) -> None:
        counts = self._waiting.setdefault(tenant_id, {})
        counted = counts.get(key)
        if counted is None:
            if len(counts) >= TENANT_COUNTS_MAX or self._size >= COUNTS_MAX:
                key = key._replace(source=OTHER)
                latest = (latest[0], None)
            if key not in counts:
                self._size += 1
            counted = counts.setdefault(key, _Count(at))
        counted.add(count, at, *latest)

    def unwritten(self, tenant_id: int) -> list[JsonObject]:
        """Return the counts that a reader's snapshot may lack, as rows.

        Where `transaction` is not null the row counts only if the snapshot does not see it.
        """
        with self._lock:
            batches = [batch for batch in self._batches if batch.tenant_id == tenant_id]
            if waiting := self._waiting.get(tenant_id):
                batches.append(_Batch(tenant_id, waiting))
            return [row for batch in batches for row in batch.rows()]

    def flush(self) -> None:
        """Write what waits. What the database could not take now waits on."""
        with self._turn:
            since = time.monotonic() - REMEMBERED_SECONDS
            with self._lock:
                batches = [_Batch(*item) for item in self._waiting.items()]
                self._waiting = {}
                self._size = 0
                self._batches = [
                    batch
                    for batch in self._batches
                    if batch.written_at is not None and batch.written_at > since
                ]
                self._batches += batches
            # In one order, so that two processes wait for each other's locks in one direction only.
            waiting = _portions(sorted(batches, key=lambda batch: batch.tenant_id))
            while waiting:
                together = waiting.popleft()
                try:
                    _write(together)
                except (OperationalError, InterfaceError) as error:
                    connection.close()
                    self._put_back([*together, *chain.from_iterable(waiting)])
                    self._complain(error)
                    return
                except Exception:  # the thread continues; these counts would fail again
                    if len(together) > 1:
                        waiting.extendleft(_apart(together))
                        continue
                    log.exception("counts of sources cannot be recorded")
                for batch in together:
                    batch.written_at = time.monotonic()

    def _put_back(self, batches: list[_Batch]) -> None:
        with self._lock:
            self._batches = [batch for batch in self._batches if batch not in batches]
            for batch in batches:
                for key, count in batch.counts.items():
                    latest = (count.detail, count.sample)
                    self._add(batch.tenant_id, key, count.count, count.last_at, latest)
        self._recorded.set()

    def _complain(self, error: Exception) -> None:
        if time.monotonic() >= self._complained_at + COMPLAINT_SECONDS:
            self._complained_at = time.monotonic()
            log.warning("counts of sources wait for the database", error=str(error))

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            if self._process_id != os.getpid():
                self._process_id = os.getpid()
                # The end of a web worker, which `multiprocessing` started, calls nothing that was
                # registered with `atexit`.
                Finalize(None, self.stop, exitpriority=1)
            # A thread that was stopped and is still under way keeps the event that stopped it.
            self._stopping = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=[self._stopping], name="source recorder", daemon=True
            )
            self._thread.start()

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            self._recorded.wait()
            # What is recorded meanwhile is written along.
            stopping.wait(PAUSE_SECONDS)
            self._recorded.clear()
            self.flush()
            # Idle for most of the time; a web process borrows one from its pool for each turn.
            connection.close()

    def stop(self) -> None:
        """Write what waits, then end the thread. Recording again starts another."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopping.set()
        self._recorded.set()
        if thread is not None:
            # No longer than that: without a database it may be on its way there for a while.
            thread.join(STOP_SECONDS)

    def forget(self) -> None:
        """Forget everything, after what is being written."""
        with self._turn, self._lock:
            self._waiting = {}
            self._batches = []
            self._size = 0


# New sources are admitted in the order in which they came, as long as there is room.
_WRITE: Final = f"""
    WITH told AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%s::json) AS t (tenant_id int, day date, source text,
            route smallint, outcome smallint, code text, count bigint, first_at timestamptz,
            last_at timestamptz, detail text, sample text)
    ), known AS MATERIALIZED (
        SELECT DISTINCT d.tenant_id, d.day, k.source
        FROM (SELECT DISTINCT tenant_id, day FROM told) d
        CROSS JOIN LATERAL (
            SELECT source FROM source_count
            WHERE tenant_id = d.tenant_id AND day = d.day AND source <> '{OTHER}' OFFSET 0
        ) k
    ), arrived AS (
        SELECT tenant_id, day, source, row_number() OVER (
            PARTITION BY tenant_id, day ORDER BY min(first_at), source) AS place
        FROM told
        WHERE source <> '{OTHER}'
            AND (tenant_id, day, source) NOT IN (SELECT tenant_id, day, source FROM known)
        GROUP BY tenant_id, day, source
    ), room AS (
        SELECT tenant_id, day, {SOURCES_MAX} - count(*) AS sources FROM known
        GROUP BY tenant_id, day
    ), admitted AS (
        SELECT tenant_id, day, source FROM known
        UNION ALL
        SELECT tenant_id, day, source FROM arrived LEFT JOIN room USING (tenant_id, day)
        WHERE place <= coalesce(room.sources, {SOURCES_MAX})
    )
    INSERT INTO source_count AS counted (tenant_id, day, source, route, outcome, code, count,
        first_at, last_at, detail, sample)
    SELECT told.tenant_id, told.day, coalesce(admitted.source, '{OTHER}') AS named, route, outcome,
        code, sum(count), min(first_at), max(last_at),
        (array_agg(detail ORDER BY last_at DESC))[1],
        (array_agg(sample ORDER BY last_at DESC) FILTER (WHERE sample IS NOT NULL))[1]
    FROM told LEFT JOIN admitted ON admitted.tenant_id = told.tenant_id
        AND admitted.day = told.day AND admitted.source = told.source
    GROUP BY told.tenant_id, told.day, named, route, outcome, code
    ON CONFLICT (tenant_id, day, source, route, outcome, code) DO UPDATE SET
        count = counted.count + EXCLUDED.count,
        first_at = least(counted.first_at, EXCLUDED.first_at),
        last_at = greatest(counted.last_at, EXCLUDED.last_at),
        detail = EXCLUDED.detail,
        sample = coalesce(EXCLUDED.sample, counted.sample)
"""


def _portions(batches: Iterable[_Batch]) -> deque[list[_Batch]]:
    """Return what is written together: whole tenants."""
    portions: deque[list[_Batch]] = deque()
    size = WRITTEN_TOGETHER
    for batch in batches:
        size += len(batch.counts)
        if size > WRITTEN_TOGETHER:
            portions.append([])
            size = len(batch.counts)
        portions[-1].append(batch)
    return portions


def _apart(batches: Iterable[_Batch]) -> Iterator[list[_Batch]]:
    """Yield them one by one. What was written of them was rolled back."""
    for batch in batches:
        batch.transaction = None
        yield [batch]


def _write(batches: Sequence[_Batch]) -> None:
    """Write the counts of some tenants in one transaction: with many tenants, one each would take
    as much of the database as what is counted.
    """
    with platform_scope("counts of sources"), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'")
        cursor.execute("SELECT pg_current_xact_id()::text")
        (transaction,) = cursor.fetchone()
        cursor.execute(
            "SELECT pg_advisory_xact_lock(%s, id) FROM unnest(%s::int[]) AS id",
            [SOURCES_LOCK, [batch.tenant_id for batch in batches]],
        )
        for batch in batches:
            batch.transaction = transaction
        rows = list(chain.from_iterable(batch.rows() for batch in batches))
        cursor.execute(_WRITE, [msgspec.json.encode(rows).decode()])


def _cut(sample: str) -> str:
    """At most SAMPLE_BYTES_MAX of UTF-8, in whole characters."""
    raw = sample[:SAMPLE_BYTES_MAX].encode(errors="replace")
    return raw[:SAMPLE_BYTES_MAX].decode(errors="ignore")


def _clean(text: str) -> str:
    """Without what PostgreSQL cannot store: NUL, and halves of surrogate pairs."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


PROCESS_RECORDER: Final = SourceRecorder()


def record_reports(tenant_id: int, tallies: Iterable[Tally]) -> None:
    """Count reports of a tenant's sources, to be written within a second."""
    PROCESS_RECORDER.record(tenant_id, tallies)


def unwritten_counts(tenant_id: int) -> list[JsonObject]:
    """Return what this process has counted and a reader's snapshot may lack."""
    return PROCESS_RECORDER.unwritten(tenant_id)
