"""What PostgreSQL's refusals mean, by SQLSTATE: the words of its messages depend on the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    transaction,
)

from common.errors import NameTaken

# Data that is out of range, limits of PostgreSQL itself, and constraints.
_VALUE_CLASSES: Final = frozenset({"22", "54", "23"})


@contextmanager
def name_once(noun: str, name: str) -> Iterator[None]:
    """Write a row whose name must be free. Raises NameTaken."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        raise NameTaken(noun, name) from error


def is_conflict(error: DatabaseError) -> bool:
    """Whether PostgreSQL gave up on a transaction because of another one: to be tried again."""
    return isinstance(
        error.__cause__, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure
    )


def lacks_partition(error: DatabaseError) -> bool:
    """Whether no partition takes a row. Other checks have a name."""
    cause = error.__cause__
    return isinstance(cause, psycopg.errors.CheckViolation) and not cause.diag.constraint_name


def is_of_value(error: BaseException) -> bool:
    """Whether what was to be written cannot be: it fails again however often it is tried."""
    return isinstance(error, DatabaseError) and sqlstate_of(error)[:2] in _VALUE_CLASSES


def is_away(error: BaseException) -> bool:
    """Whether the database cannot be reached, has ended the connection, or is too busy.

    Django wraps what its cursors raise; COPY and pipelines raise psycopg's own.
    """
    if isinstance(error, psycopg.errors.IdleInTransactionSessionTimeout | InternalError):
        # After a pause of PostgreSQL its clocks have run out. psycopg takes that for a fault.
        cause = error if isinstance(error, psycopg.Error) else error.__cause__
        return isinstance(cause, psycopg.errors.IdleInTransactionSessionTimeout)
    return isinstance(
        error,
        InterfaceError | OperationalError | psycopg.InterfaceError | psycopg.OperationalError,
    )


def is_of_all(error: BaseException) -> bool:
    """Whether everybody's work failed with it: the database cannot be reached, or is too busy."""
    return is_away(error) and not is_of_value(error)


def is_cut_short(error: BaseException) -> bool:
    """Whether PostgreSQL ended a statement that took too long, or waited too long for a lock."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    return isinstance(cause, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable)


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE behind an error of Django's; empty where the server did not answer."""
    cause = error.__cause__
    return (cause.sqlstate or "") if isinstance(cause, psycopg.Error) else ""
