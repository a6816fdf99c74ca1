"""The backend: as Django's own, and every new connection steps down before its first statement, and
gets limits of time.
"""

from django.db import DEFAULT_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg import Connection
from psycopg.rows import TupleRow

from config.connections import limit_connection, parameters_of_thread
from config.database_role import step_down


class DatabaseWrapper(base.DatabaseWrapper):
    """Refuses or leaves behind a role that row-level security does not bind.

    Each connection asks for itself: a process that was not prepared cannot see every tenant's rows.
    """

    def __init__(self, settings_dict: dict[str, object], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(parameters_of_thread(settings_dict), alias)

    def _configure_role(self, connection: Connection[TupleRow]) -> bool:
        step_down(connection)
        limit_connection(connection)
        return True  # Django then commits, so that no transaction is left open by the question
