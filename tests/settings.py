"""Settings of the tests: the service's own, on a PostgreSQL that lives as long as the run.

TEST_DATABASE_URL names a server to use instead; its role must be able to create databases.
"""

import atexit
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, urlencode

from config.garbage import collect_seldom

collect_seldom()

from config.database import embedded_connection
from config.database_role import prepare_role
from config.embedded_postgres import running_postgres

# Nothing outlives the run, so nothing need survive a power cut.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "256MB",
    "max_connections": "300",  # several processes of tests share it
}


def _start_postgres(data_dir: Path) -> str:
    stack = ExitStack()
    atexit.register(stack.close)
    stack.enter_context(
        running_postgres(data_dir, settings=FAST, statements=("ALTER ROLE spendgate CREATEDB;",))
    )
    parts = embedded_connection(data_dir)
    # On a busy machine a server may take long to begin a session.
    options = urlencode({"host": parts["host"], "connect_timeout": 60})
    return f"postgresql://{parts['user']}:{quote(parts['password'])}@/{parts['dbname']}?{options}"


def _database_url(data_dir: Path) -> str:
    # Kept in the environment, so that a process started by a test uses the same server.
    if "TEST_DATABASE_URL" not in os.environ:
        os.environ["TEST_DATABASE_URL"] = _start_postgres(data_dir)
    return os.environ["TEST_DATABASE_URL"]


_data_dir = Path(tempfile.mkdtemp(prefix="spendgate-tests-"))
atexit.register(shutil.rmtree, _data_dir, ignore_errors=True)
for _name in (
    "CELERY_BROKER_URL",
    "ALLOWED_HOSTS",
    "PUBLIC_URL",
    "EVENT_MAX_AGE_DAYS",
    "RETENTION_EVENTS_DAYS",
    "RETENTION_DECISIONS_DAYS",
    "RETENTION_INCIDENTS_DAYS",
    "RETENTION_HISTORY_DAYS",
    "MAIL_URL",
    "CHANNEL_NETWORKS",
    "STRIPE_API_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "STRIPE_API_BASE",
    "STRIPE_FAKE",
    "STRIPE_FAKE_BASE",
    "TRUSTED_PROXIES",
):
    os.environ.pop(_name, None)
os.environ.update(
    DATABASE_URL=_database_url(_data_dir),
    DATA_DIR=str(_data_dir),
    SECRET_KEY="a key for the tests alone, never for a service",
    DEMO="0",
)
prepare_role(os.environ["DATABASE_URL"], may_create_databases=True)

from config.settings import *  # noqa: F403 - the environment above must be set first

# A slow hash protects real passwords; the tests hash hundreds that protect nothing.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Else every client of a test looks through all static files before its first request. Where a
# service is started, it does (tests/config/test_edge.py).
WHITENOISE_AUTOREFRESH = True

HAS_STYLEGUIDE = True
