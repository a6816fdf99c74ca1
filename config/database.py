"""How the service connects to its database: Django's settings, and the embedded server's login."""

import json
from pathlib import Path
from typing import Any, Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from config.environment import Environment

# The embedded server leaves what a client needs to reach it in this file under DATA_DIR.
EMBEDDED_RECORD: Final = "embedded_postgres.json"
EMBEDDED_DATABASE: Final = "spendgate"
EMBEDDED_ROLE: Final = "spendgate"
# psycopg prepares a statement that is sent with prepare=True only if this is a number: the
# executions after which it would prepare any other.
PREPARE_WHAT_IS_MARKED: Final = 1 << 30
LIBPQ_KEYWORDS: Final = {
    "NAME": "dbname",
    "USER": "user",
    "PASSWORD": "password",
    "HOST": "host",
    "PORT": "port",
}


def database_parameters(environment: Environment) -> dict[str, object]:
    """Return Django's DATABASES["default"]. Its backend steps down from a superuser."""
    parts: dict[str, Any]
    if environment.database_url is None:
        parts = embedded_connection(environment.data_dir)
    else:
        parts = conninfo_to_dict(environment.database_url)
    named = {name: str(parts.pop(keyword, "")) for name, keyword in LIBPQ_KEYWORDS.items()}
    return {
        "ENGINE": "config.postgresql",
        **named,
        "OPTIONS": {
            "connect_timeout": "10",
            "application_name": "spendgate",
            "prepare_threshold": PREPARE_WHAT_IS_MARKED,
            **parts,
        },
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
    }


def embedded_connection(data_dir: Path) -> dict[str, str]:
    """Return how a client reaches the embedded server of this DATA_DIR, as libpq's keywords.

    Before its first start there is no record; a connection then fails with the folder's name in it.
    """
    try:
        record = json.loads((data_dir / EMBEDDED_RECORD).read_text())
    except FileNotFoundError:
        record = {"socket_folder": str(data_dir / "postgres_is_not_running"), "password": ""}
    return {
        "host": record["socket_folder"],
        "dbname": EMBEDDED_DATABASE,
        "user": EMBEDDED_ROLE,
        "password": record["password"],
    }


def embedded_conninfo(data_dir: Path) -> str:
    """Return the same as one text, as psycopg.connect takes it."""
    return make_conninfo("", **embedded_connection(data_dir))
