"""Fixtures for all tests: accounts, and the proof that no test left the ledger unbalanced."""

import gc
import os
import time
from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import connection
from django.template import Template
from pytest_django import DjangoDbBlocker

from billing.margin_revenue import forget_drafts
from metering.intake.committer import PROCESS_COMMITTER
from metering.limits.estimates import forget_estimates
from metering.limits.halt_watch import stop_watching
from metering.models import CataloguePrice
from metering.reservations.committer import PROCESS_ENFORCER
from metering.reservations.increase_requests import forget_increase_requests
from metering.snapshot import forget_configurations
from metering.usage.sources import PROCESS_RECORDER
from tenants.keys import forget_known_keys
from tenants.runs import forget_pauses
from tenants.scope import platform_scope
from tests.empty_tables import replace_flush
from tests.factories import Account, make_account
from tests.seed import SEED, VARIABLE
from tests.side_by_side import SideBySide, turn_of

replace_flush()

# Before Django's test environment replaces it.
PLAIN_RENDER = vars(Template)["_render"]

# What holds a row as soon as there is a balance, a hold, a roll-up, or something to make them of.
AUDITED_TABLES = (
    "usage_event",
    "event_key",
    "ledger_entry",
    "budget_window",
    "window_seal",
    "reservation",
    "usage_rollup",
    "usage_histogram",
    "usage_combination",
)
# Longer than a test takes in which a period must not end.
BORDER_SECONDS = 10.0


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = SEED


def pytest_report_header() -> str:
    return f"{VARIABLE}={SEED}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> SideBySide:
    return SideBySide(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: turn_of(item.nodeid))


def pytest_collection_finish() -> None:
    gc.freeze()  # what is collected and imported stays


@pytest.fixture(scope="session", autouse=True)
def _plain_templates(django_test_environment: None) -> Iterator[None]:
    """Django's test environment copies the context of every template that is rendered. No test
    reads them, and pages took a fifth longer.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Template, "_render", PLAIN_RENDER)
        yield


@pytest.fixture(scope="session", autouse=True)
def _stop_committer(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Threads keep connections, and a database in use cannot be dropped."""
    yield
    PROCESS_COMMITTER.stop()
    PROCESS_ENFORCER.stop()
    PROCESS_RECORDER.stop()
    stop_watching()
    # A server for Chromium may not have ended its last request.
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            # The server's own processes, autovacuum for instance, give way by themselves.
            " AND backend_type = 'client backend'"
        )


@pytest.fixture(autouse=True)
def _fresh_process_memory() -> Iterator[None]:
    """Ids come again after a test's rows are gone, so what the process remembers must go too."""
    forget_configurations()
    forget_known_keys()
    forget_estimates()
    forget_increase_requests()
    forget_pauses()
    forget_drafts()
    yield
    forget_configurations()
    forget_known_keys()
    forget_estimates()
    forget_increase_requests()


@pytest.fixture
def catalogue(transactional_db: None) -> None:
    """The global price catalogue, as a running service has it."""
    if not CataloguePrice.objects.exists():
        call_command("import_prices", verbosity=0)


@pytest.fixture
def account(catalogue: None) -> Iterator[Account]:
    """A tenant with prices. Afterwards every balance in the database must be provable.

    Just before the hour is full it waits for the next: what a test sends must not fall into
    different hours, days or months.
    """
    seconds_left = 3600 - time.time() % 3600
    if seconds_left < BORDER_SECONDS:
        time.sleep(seconds_left)
    yield make_account()
    if _has_balances():
        call_command("audit_ledger", verbosity=0)


def _has_balances() -> bool:
    """Return whether any tenant has what an audit proves. Most tests of input write none of it."""
    with platform_scope("test"), connection.cursor() as cursor:
        cursor.execute(f"SELECT {' OR '.join(f'EXISTS (SELECT FROM {t})' for t in AUDITED_TABLES)}")
        return bool(cursor.fetchone()[0])


@pytest.fixture
def stranger(account: Account) -> Account:
    """Another tenant, who must see nothing of the first."""
    return make_account()
