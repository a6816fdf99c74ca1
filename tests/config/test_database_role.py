from collections.abc import Iterator

import psycopg
import pytest
from django.db import connections
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from config.database_role import APPLICATION_ROLE, UnsafeRole, prepare_role, step_down
from config.embedded_postgres import running_postgres

ROLES = (
    "CREATE ROLE chief LOGIN SUPERUSER PASSWORD 'x';",
    "CREATE ROLE sneaky LOGIN BYPASSRLS PASSWORD 'x';",
    "CREATE ROLE plain LOGIN PASSWORD 'x';",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("roles") / "data"
    settings = {"fsync": "off", "shared_buffers": "64MB"}
    with running_postgres(folder, settings=settings, statements=ROLES) as address:
        yield address


@pytest.fixture
def fresh(server: str) -> Iterator[str]:
    """The server without the application role."""
    yield server
    with psycopg.connect(conninfo(server, "chief"), autocommit=True) as connection:
        if connection.execute("SELECT to_regrole('spendgate_app')").fetchone() != (None,):
            connection.execute("DROP OWNED BY spendgate_app")
            connection.execute("DROP ROLE spendgate_app")


def conninfo(server: str, user: str) -> str:
    return make_conninfo(server, user=user, password="x")


def test_a_superuser_steps_down_and_can_still_build_the_schema(fresh: str) -> None:
    prepare_role(conninfo(fresh, "chief"))
    prepare_role(conninfo(fresh, "chief"))
    with psycopg.connect(conninfo(fresh, "chief")) as connection:
        step_down(connection)
        powers = "SELECT rolname, rolsuper, rolbypassrls, rolcreatedb, rolcanlogin FROM pg_roles"
        row = connection.execute(f"{powers} WHERE rolname = current_user").fetchone()
        assert row == (APPLICATION_ROLE, False, False, False, False)
        connection.execute("CREATE TABLE secret (id int)")
        connection.execute("ALTER TABLE secret ENABLE ROW LEVEL SECURITY")
        connection.execute("ALTER TABLE secret FORCE ROW LEVEL SECURITY")
        owner = "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'secret'"
        assert connection.execute(owner).fetchone() == (APPLICATION_ROLE,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO secret VALUES (1)")


def test_a_superuser_that_was_not_prepared_gets_no_connection(fresh: str) -> None:
    with (
        psycopg.connect(conninfo(fresh, "chief")) as connection,
        pytest.raises(UnsafeRole, match=r"run `python manage\.py migrate` first"),
    ):
        step_down(connection)


def test_an_application_role_that_was_given_power_is_refused(fresh: str) -> None:
    with psycopg.connect(conninfo(fresh, "chief"), autocommit=True) as connection:
        connection.execute("CREATE ROLE spendgate_app BYPASSRLS")
        with pytest.raises(UnsafeRole, match="NOSUPERUSER NOBYPASSRLS first"):
            step_down(connection)


def test_a_role_that_bypasses_row_security_is_refused(server: str) -> None:
    with pytest.raises(UnsafeRole, match="logs in as 'sneaky', which bypasses row-level security"):
        prepare_role(conninfo(server, "sneaky"))
    with psycopg.connect(conninfo(server, "sneaky")) as connection, pytest.raises(UnsafeRole):
        step_down(connection)


def test_an_ordinary_role_is_used_as_it_is(server: str) -> None:
    prepare_role(conninfo(server, "plain"))
    with psycopg.connect(conninfo(server, "plain")) as connection:
        step_down(connection)
        assert connection.execute("SELECT current_user").fetchone() == ("plain",)
        missing = connection.execute("SELECT to_regrole('spendgate_app')").fetchone()
        assert missing == (None,)


@pytest.mark.django_db
def test_the_backend_steps_down_on_every_connection(fresh: str) -> None:
    prepare_role(conninfo(fresh, "chief"))
    parts = conninfo_to_dict(fresh)
    settings = {
        **connections["default"].settings_dict,
        "NAME": parts["dbname"],
        "HOST": parts["host"],
        "USER": "chief",
        "PASSWORD": "x",
    }
    wrapper = type(connections["default"])(settings, "default")
    for _ in range(2):
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT session_user, current_user, pg_backend_pid()")
            assert cursor.fetchone()[:2] == ("chief", APPLICATION_ROLE)
        assert wrapper.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        wrapper.close()


def test_the_running_tests_are_bound_too() -> None:
    assert connections["default"].settings_dict["ENGINE"] == "config.postgresql"
