"""Tenant scope: which tenant's rows a transaction sees.

Row-level security is forced on every table. A transaction sees the tenant it names with `SET LOCAL`
and nothing when it names none. Work that must see all tenants enters `platform_scope` and says why.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from django.db import connection, transaction
from psycopg import sql

from tenants.changes import tell_change

TENANT_SETTING = "spendgate.tenant"
PLATFORM_SETTING = "spendgate.platform"

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")
# What was read in the snapshot that is open; None outside of one.
_read: Final[ContextVar[dict[object, Any] | None]] = ContextVar("read_in_snapshot", default=None)


@contextmanager
def tenant_scope(tenant_id: int, *, is_snapshot: bool = False) -> Iterator[None]:
    """Open a transaction that sees one tenant's rows; with `is_snapshot` all its reads see one
    point in time.

    Inside another scope it narrows or changes what is seen until it ends, in the same transaction.
    """
    with _scope(tenant=str(tenant_id), platform="", is_snapshot=is_snapshot):
        if not is_snapshot or _read.get() is not None:
            yield
            return
        token = _read.set({})
        try:
            yield
        finally:
            _read.reset(token)


def once_a_snapshot(read: Callable[_Asked, _Answer]) -> Callable[_Asked, _Answer]:
    """Read once what the parts of an answer ask for again: within a snapshot it cannot change. The
    arguments say all that the rows depend on, the tenant among it, and no one changes the answer.
    """

    @wraps(read)
    def remembered(*args: _Asked.args, **kwargs: _Asked.kwargs) -> _Answer:
        known = _read.get()
        if known is None:
            return read(*args, **kwargs)
        key = (read, args, tuple(sorted(kwargs.items())))
        if key not in known:
            known[key] = read(*args, **kwargs)
        answer: _Answer = known[key]
        return answer

    return remembered


@contextmanager
def platform_scope(reason: str) -> Iterator[None]:
    """Open a transaction that sees every tenant's rows. `reason` is shown to PostgreSQL's logs."""
    assert reason, "a platform scope says why"
    with _scope(tenant="", platform=reason, is_snapshot=False):
        yield


@contextmanager
def _scope(*, tenant: str, platform: str, is_snapshot: bool) -> Iterator[None]:
    is_outermost = not connection.in_atomic_block
    with transaction.atomic():
        if is_outermost and is_snapshot:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        before = None if is_outermost else _current()
        _set(tenant, platform)
        yield
        # An error rolls the savepoint back, and the settings with it; only success needs this.
        if before is not None:
            _set(*before)


def _set(tenant: str, platform: str) -> None:
    # SET LOCAL, not set_config(): it is what a distributed PostgreSQL passes on to its workers.
    statement = sql.SQL("SET LOCAL {} = {}; SET LOCAL {} = {}").format(
        sql.SQL(TENANT_SETTING),
        sql.Literal(tenant),
        sql.SQL(PLATFORM_SETTING),
        sql.Literal(platform),
    )
    with connection.cursor() as cursor:
        cursor.execute(statement.as_string(cursor.cursor))


def _current() -> tuple[str, str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(current_setting(%s, true), ''), coalesce(current_setting(%s,"
            " true), '')",
            [TENANT_SETTING, PLATFORM_SETTING],
        )
        tenant, platform = cursor.fetchone()
    return tenant, platform


# Every writer of usage holds this lock shared until it commits; a change to what usage is
# judged by (budgets, prices, settings) holds it alone. So no batch is rated or matched by a
# configuration that was replaced before the batch became visible.
CONFIGURATION_LOCK = 7301


def lock_configuration_shared(tenant_id: int) -> int:
    """Keep the tenant's configuration as it is until this transaction ends; return its version."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock_shared(%s, %s)", [CONFIGURATION_LOCK, tenant_id]
        )
        # A second statement, so that its snapshot is younger than the lock.
        cursor.execute("SELECT configuration_version FROM tenant WHERE id = %s", [tenant_id])
        row = cursor.fetchone()
    return int(row[0])


def hold_configuration(tenant_id: int) -> None:
    """Wait for every writer of usage in flight, and keep new ones out until commit."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [CONFIGURATION_LOCK, tenant_id])


def change_configuration(tenant_id: int) -> None:
    """Hold the configuration, and bump its version.

    Versions come from a sequence: one that was rolled back never comes again with other contents.
    """
    hold_configuration(tenant_id)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE tenant SET configuration_version = nextval('configuration_version') WHERE"
            " id = %s",
            [tenant_id],
        )
    tell_change("configuration", tenant_id)
