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

from tenants.scope import TENANT_SETTING


class Pipeline:
    """Sends statements without waiting for their answers; reading a cursor waits for its own."""

    def __init__(self, raw: psycopg.Connection[Any], queue: "_Queue") -> None:
        self._raw = raw
        self._queue = queue

    def enter_tenant(self, tenant_id: int) -> None:
        """Let the transaction see one tenant's rows. The first statement of an outermost one."""
        # Nothing else is set there: what SET LOCAL set ended with the transaction before.
        self._send(f"SET LOCAL {TENANT_SETTING} = '{int(tenant_id)}'", (), is_kept=False)

    def send(self, statement: str, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """Send one statement with placeholders as %s; its cursor is read within the block."""
        return self._send(statement, parameters, is_kept=True)

    def cursor(self) -> "PipelineCursor":
        """What sends like a cursor executes, for statements whose answers no one reads."""
        return PipelineCursor(self)

    def commit(self) -> None:
        """End the transaction with what was sent; Django finds it ended."""
        self._send("COMMIT", (), is_kept=True)

    def _send(
        self, statement: str, parameters: Sequence[Any], *, is_kept: bool
    ) -> psycopg.Cursor[Any]:
        cursor: psycopg.Cursor[Any] = psycopg.Cursor(self._raw)
        self._queue.is_queueing = True
        try:
            cursor.execute(statement, parameters, prepare=is_kept)
        finally:
            self._queue.is_queueing = False
        return cursor


class _Queue(psycopg.Pipeline):
    """psycopg's pipeline, which sends each statement by itself, holding them back until one is
    read: a system call, and a wake-up of the server, for all of them together.
    """

    is_queueing = False

    def _communicate_gen(self) -> PQGen[None]:
        if not self.is_queueing:
            yield from super()._communicate_gen()

    def _fetch_gen(self, *, flush: bool) -> PQGen[None]:
        if self.command_queue:
            yield from super()._communicate_gen()
        yield from super()._fetch_gen(flush=flush)


class PipelineCursor:
    """Takes statements as a cursor does, and answers nothing."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
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
    queue = raw._pipeline = _Queue(raw)
    with connection.wrap_database_errors, raw.pipeline():
        yield Pipeline(raw, queue)
