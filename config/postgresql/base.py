"""The backend: as Django's own, and every new connection steps down before its first statement."""

from typing import Any

from django.db.backends.postgresql import base
from psycopg import Connection

from config.database_role import step_down


class DatabaseWrapper(base.DatabaseWrapper):
    """Refuses or leaves behind a role that row-level security does not bind.

    Each connection asks for itself: a process that nobody prepared cannot see every tenant's rows.
    """

    def _configure_role(self, connection: Connection[Any]) -> bool:
        step_down(connection)
        return True  # Django then commits, so that no transaction is left open by the question
