"""Which PostgreSQL role the service acts as: one that row-level security binds, always.

A login role that is neither superuser nor BYPASSRLS is used as it is. A superuser steps down to
`spendgate_app` on every connection. A role that bypasses row-level security otherwise is refused.
"""

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg import Connection, sql
from psycopg.rows import TupleRow, tuple_row

APPLICATION_ROLE = "spendgate_app"

# Serializes processes that prepare the same cluster; the number is the service's own.
PREPARE_LOCK = 7302


class UnsafeRole(ImproperlyConfigured):
    """The login role of DATABASE_URL would see every tenant's rows."""


def step_down(connection: Connection[TupleRow]) -> None:
    """Give up superuser rights on a new connection, or refuse it.

    Invariant: a connection that leaves here is bound by row-level security.
    """
    login, is_superuser, is_bypassing = _login_role(connection)
    if is_superuser:
        _assume_application_role(connection, login)
    elif is_bypassing:
        raise UnsafeRole(
            f"DATABASE_URL logs in as '{login}', which bypasses row-level security: every tenant's "
            f"rows would be visible. Use a role without BYPASSRLS."
        )


def prepare_role(conninfo: str, *, may_create_databases: bool = False) -> None:
    """Make `spendgate_app` and let it build the schema, when `conninfo` logs in as a superuser.

    Safe to run again, and by several processes. Only tests let the role create databases.
    """
    with psycopg.connect(conninfo, autocommit=True) as connection:
        _, is_superuser, _ = _login_role(connection)
        if not is_superuser:
            step_down(connection)  # raises for a role that bypasses row-level security
            return
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [PREPARE_LOCK])
            _create_application_role(connection)
            if may_create_databases:
                connection.execute(_with_role("ALTER ROLE {role} CREATEDB"))
            connection.execute(
                _with_role(
                    "GRANT CREATE, CONNECT, TEMPORARY ON DATABASE {database} TO {role}",
                    database=connection.info.dbname,
                )
            )
            connection.execute(_with_role("GRANT USAGE, CREATE ON SCHEMA public TO {role}"))


def _login_role(connection: Connection[TupleRow]) -> tuple[str, bool, bool]:
    cursor = connection.cursor(row_factory=tuple_row)
    row = cursor.execute(
        "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = session_user"
    ).fetchone()
    assert row is not None, "the role that is logged in exists"
    return str(row[0]), bool(row[1]), bool(row[2])


def _assume_application_role(connection: Connection[TupleRow], login: str) -> None:
    row = (
        connection.cursor(row_factory=tuple_row)
        .execute(
            "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = %s", [APPLICATION_ROLE]
        )
        .fetchone()
    )
    if row is None:
        raise UnsafeRole(
            f"DATABASE_URL logs in as the superuser '{login}', and the role {APPLICATION_ROLE} it "
            f"steps down to is missing: run `python manage.py migrate` first."
        )
    if row[0]:
        raise UnsafeRole(
            f"The role {APPLICATION_ROLE} is a superuser or bypasses row-level security: "
            f"ALTER ROLE {APPLICATION_ROLE} NOSUPERUSER NOBYPASSRLS first."
        )
    connection.execute(_with_role("SET ROLE {role}"))


def _create_application_role(connection: Connection[TupleRow]) -> None:
    cursor = connection.cursor(row_factory=tuple_row)
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [APPLICATION_ROLE])
    if cursor.fetchone() is None:
        connection.execute(_with_role("CREATE ROLE {role} NOLOGIN NOSUPERUSER NOBYPASSRLS"))


def _with_role(statement: str, **names: str) -> sql.Composed:
    identifiers = {name: sql.Identifier(value) for name, value in names.items()}
    return sql.SQL(statement).format(role=sql.Identifier(APPLICATION_ROLE), **identifiers)
