"""Fixtures for all tests: accounts, and the proof that no test left the ledger unbalanced."""

from collections.abc import Iterator

import pytest
from django.core.management import call_command

from metering.configuration import forget_configurations
from metering.models import CataloguePrice
from tenants.keys import forget_known_keys
from tests.factories import Account, make_account


@pytest.fixture(autouse=True)
def _fresh_process_memory() -> Iterator[None]:
    """Ids come again after a test's rows are gone, so what the process remembers must go too."""
    forget_configurations()
    forget_known_keys()
    yield
    forget_configurations()
    forget_known_keys()


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
