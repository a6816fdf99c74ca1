"""Fixtures for all tests: accounts, and the proof that no test left the ledger unbalanced."""

from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import TransactionTestCase

from metering.committer import PROCESS_COMMITTER
from metering.configuration import forget_configurations
from metering.enforcement.committer import PROCESS_ENFORCER
from metering.enforcement.estimates import forget_estimates
from metering.enforcement.halt_watch import forget_halts, stop_watching
from metering.models import CataloguePrice
from tenants.keys import forget_known_keys
from tests.factories import Account, make_account

# What a test's end leaves: the price catalogue is the same for all, and Django fills the rest once.
KEPT_TABLES = frozenset(
    {"django_migrations", "django_content_type", "auth_permission", "catalogue_price"}
)


def _empty_tables(self: TransactionTestCase) -> None:
    """In place of Django's flush, which fills its own tables again after every test."""
    # Else its reading, which locks some tables in its own order, might meet the locks of all.
    forget_halts()
    with connection.cursor() as cursor:
        # Only the tests empty tables whose rows are never removed.
        cursor.execute(
            "DROP TRIGGER IF EXISTS ledger_entry_no_truncate ON ledger_entry;"
            " DROP TRIGGER IF EXISTS audit_entry_no_truncate ON audit_entry"
        )
        cursor.execute(
            "SELECT string_agg(quote_ident(relname), ', ') FROM pg_class WHERE relkind IN"
            " ('r', 'p')"
            " AND relnamespace = 'public'::regnamespace AND NOT relispartition"
            " AND NOT relname = ANY(%s)",
            [list(KEPT_TABLES)],
        )
        (tables,) = cursor.fetchone()
        cursor.execute(f"TRUNCATE {tables}")


setattr(TransactionTestCase, "_fixture_teardown", _empty_tables)  # noqa: B010 - not in the stubs


@pytest.fixture(scope="session", autouse=True)
def _stop_committer(django_db_setup: None) -> Iterator[None]:
    """Threads keep connections, and a database in use cannot be dropped."""
    yield
    PROCESS_COMMITTER.stop()
    PROCESS_ENFORCER.stop()
    stop_watching()


@pytest.fixture(autouse=True)
def _fresh_process_memory() -> Iterator[None]:
    """Ids come again after a test's rows are gone, so what the process remembers must go too."""
    forget_configurations()
    forget_known_keys()
    forget_estimates()
    yield
    forget_configurations()
    forget_known_keys()
    forget_estimates()


@pytest.fixture
def catalogue(transactional_db: None) -> None:
    """The global price catalogue, as a running service has it."""
    if not CataloguePrice.objects.exists():
        call_command("import_prices", verbosity=0)


@pytest.fixture
def account(catalogue: None) -> Iterator[Account]:
    """A tenant with prices. Afterwards every balance in the database must be provable."""
    yield make_account()
    call_command("audit_ledger", verbosity=0)


@pytest.fixture
def stranger(account: Account) -> Account:
    """Another tenant, who must see nothing of the first."""
    return make_account()
