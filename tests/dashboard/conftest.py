"""People who look at pages."""

from collections.abc import Callable
from itertools import count

import pytest
from django.test import Client

from metering.simulation import preview
from tenants.models import User
from tenants.people import add_member
from tenants.roles import Role
from tests.factories import Account

BACKEND = "django.contrib.auth.backends.ModelBackend"
_numbers = count(1)


def sign_in(email: str) -> Client:
    """A browser in which this person has signed in."""
    client = Client()
    client.force_login(User.objects.get(email=email), backend=BACKEND)
    return client


def make_member(account: Account, role: Role) -> str:
    """Another person of the tenant; answers the address."""
    email = f"{role.value}-member-{next(_numbers)}@example.com"
    with account.scope():
        user = User.objects.create_user(email)
        add_member(tenant=account.tenant, user=user, role=role, actor="tests")
    return email


@pytest.fixture(autouse=True)
def _previews_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine changes no test's outcome."""
    monkeypatch.setattr(preview, "SECONDS_MAX", 600.0)
    monkeypatch.setattr(preview, "STATEMENT_MS", 600_000)


@pytest.fixture
def owner(account: Account) -> Client:
    """The owner of the account, signed in."""
    return sign_in(account.email)


@pytest.fixture
def as_role(account: Account) -> Callable[[Role], Client]:
    """Somebody of that role, signed in."""
    return lambda role: sign_in(make_member(account, role))
