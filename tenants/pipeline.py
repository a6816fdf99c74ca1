"""Statements that are sent together: one round trip instead of one each.

For the few transactions that many callers wait for. The server keeps the statements prepared, which
saves planning them again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection
from psycopg.abc import PQGen
from psycopg.generators import send
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from tenants.scope import TENANT_SETTING


class Pipeline:
    """Sends statements without waiting for their answers; reading a cursor waits for its own."""

    def __init__(self, raw: psycopg.Connection[TupleRow], queue: "_Queue") -> None:
        self._raw = raw
        self._queue = queue

    def enter_tenant(self, tenant_id: int) -> None:
        """Let the transaction see one tenant's rows. The first statement of an outermost one."""
        # Nothing else is set there: what SET LOCAL set ended with the transaction before.
        self._send(f"SET LOCAL {TENANT_SETTING} = '{int(tenant_id)}'", (), is_kept=False)

    def send(self, statement: str, parameters: Sequence[object] = ()) -> psycopg.Cursor[TupleRow]:
        """Send one statement with placeholders as %s; its cursor is read within the block."""
        return self._send(statement, parameters, is_kept=True)

    def cursor(self) -> "PipelineCursor":
        """What sends like a cursor executes, for statements whose answers no one reads."""
        return PipelineCursor(self)

    def commit(self) -> None:
        """End the transaction with what was sent; Django finds it ended."""
        self._send("COMMIT", (), is_kept=True)

    def _send(
        self, statement: str, parameters: Sequence[object], *, is_kept: bool
    ) -> psycopg.Cursor[TupleRow]:
        cursor: psycopg.Cursor[TupleRow] = psycopg.Cursor(self._raw)
        self._queue.is_queueing = True
        try:
            cursor.execute(statement, parameters, prepare=is_kept)
        finally:
            self._queue.is_queueing = False
        return cursor


class _Queue(psycopg.Pipeline):
    """psycopg's pipeline, holding statements back until one is read: they leave in one system call,
    and one round trip answers all of them.

    psycopg waits for the socket and writes to it once a statement; it asks for answers by a flush,
    and once more by a sync at the end of the block. Here what is read ends with the sync, after
    which PostgreSQL also counts the time that a transaction lies idle.
    """

    is_queueing = False

    def _communicate_gen(self) -> PQGen[None]:
        if not self.is_queueing:
            # Each puts its messages into libpq's buffer, which then leaves in full: while answers
            # come that fill the server's buffer, they are read.
            while self.command_queue:
                self.command_queue.popleft()()
            yield from send(self.pgconn)

    def _fetch_gen(self, *, flush: bool) -> PQGen[None]:
        if self.command_queue:
            self._enqueue_sync()
            yield from self._communicate_gen()
        yield from super()._fetch_gen(flush=False)

    def _exit_gen(self) -> PQGen[None]:
        if self.command_queue or self.result_queue:
            yield from self._sync_gen()


class PipelineCursor:
    """Takes statements as a cursor does, and answers nothing."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> None:
        """Send one statement."""
        self._pipeline.send(statement, parameters)


@contextmanager
def pipelined() -> Iterator[Pipeline]:
    """Send what follows together, in the transaction that is open.

    What a statement raises comes out where its cursor is read, or at the end of the block.
    """
    assert connection.in_atomic_block, "statements are pipelined within a transaction"
    connection.ensure_connection()
    raw: Any = connection.connection
    is_first = raw.pgconn.transaction_status == TransactionStatus.IDLE
    if is_first:
        # psycopg would begin with each statement: it learns from an answer that it has begun.
        raw.autocommit = True
    queue = raw._pipeline = _Queue(raw)
    with connection.wrap_database_errors, raw.pipeline():
        pipeline = Pipeline(raw, queue)
        if is_first:
            pipeline.send("BEGIN")
        yield pipeline
