"""The database of a management command: the running service's, or an embedded one of its own."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from config.data_folder import SERVICE, DataFolderInUse, own_data_folder
from config.database_role import prepare_role
from config.embedded_postgres import EmbeddedPostgres, PostgresFailed, running_postgres
from config.environment import Environment

WITHOUT_DATABASE = frozenset(
    {"help", "--help", "-h", "version", "--version", "check", "spectacular"}
)
# These build the schema, so they first make the role that a superuser steps down to.
WITH_ROLE = frozenset({"migrate", "prepare_database"})
READY_SECONDS = 120.0


@contextmanager
def database_for_command(environment: Environment, command: str) -> Iterator[None]:
    """Make the database of this environment reachable while the block runs.

    The embedded server belongs to the owner of DATA_DIR. While the service runs, its server is
    used. Otherwise the command starts the server for itself, after waiting for another command
    that did.
    """
    with ExitStack() as stack:
        if command in WITHOUT_DATABASE:
            pass
        elif environment.database_url is not None:
            if command in WITH_ROLE:
                prepare_role(environment.database_url)
        elif not _own(environment, command, stack):
            _wait_for_service(environment)
        yield


def _own(environment: Environment, command: str, stack: ExitStack) -> bool:
    """Start the embedded server for this command; return False if the service owns the folder."""
    has_said_so = False
    while True:
        try:
            stack.enter_context(
                own_data_folder(environment.data_dir, purpose=f"manage.py {command}")
            )
        except DataFolderInUse as error:
            if error.owner.startswith(SERVICE):
                return False
            if not has_said_so:
                sys.stderr.write(
                    f"Waiting for {error.owner}, which runs the embedded PostgreSQL.\n"
                )
                has_said_so = True
            time.sleep(0.2)
        else:
            stack.enter_context(running_postgres(environment.data_dir))
            return True


def _wait_for_service(environment: Environment) -> None:
    server = EmbeddedPostgres(environment.data_dir)
    end = time.monotonic() + READY_SECONDS
    while not server.is_ready():
        if time.monotonic() > end:
            raise PostgresFailed(
                f"The service owns {environment.data_dir}, but its PostgreSQL takes no "
                f"connections: see {server.log}."
            )
        time.sleep(0.1)
