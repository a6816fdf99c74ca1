"""A person's own account: zone, and sessions."""

from collections.abc import Callable

import pytest
from django.test import Client

from tenants.models import User
from tenants.roles import Role
from tests.dashboard.conftest import sign_in
from tests.dashboard.test_enforcement_pages import page, words
from tests.factories import Account


@pytest.mark.parametrize("role", list(Role))
def test_everyone_has_an_account(as_role: Callable[[Role], Client], role: Role) -> None:
    client = as_role(role)
    assert "Your account" in words(client, "/account")
    assert client.post("/account", {"timezone": "Asia/Kolkata"}).status_code == 302
    assert 'data-zone="Asia/Kolkata"' in page(client, "/budgets")


def test_a_zone_must_exist(account: Account, owner: Client) -> None:
    answer = owner.post("/account", {"timezone": "Mars/Olympus"})
    assert "Select a valid choice" in answer.content.decode()
    assert User.objects.get(email=account.email).timezone == ""
    assert "data-zone" not in page(owner, "/budgets")


def test_other_sessions_end_and_this_one_stays(account: Account, owner: Client) -> None:
    other = sign_in(account.email)
    assert other.get("/budgets").status_code == 200
    assert owner.post("/account/sessions/end").status_code == 302
    assert other.get("/budgets").status_code == 302
    assert owner.get("/budgets").status_code == 200


def test_a_stranger_has_to_log_in(account: Account) -> None:
    client = Client()
    assert client.get("/account")["Location"] == "/login?next=/account"
    assert client.post("/account/sessions/end").status_code == 302
