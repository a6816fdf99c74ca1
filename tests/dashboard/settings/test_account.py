"""A person's own account: zone, and sessions."""

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.hashers import make_password
from django.test import Client

from dashboard.settings.account import browser_words
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


FIREFOX = "Mozilla/5.0 (Windows NT 10.0; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def _has_password(account: Account) -> None:
    User.objects.filter(email=account.email).update(password=make_password("correct horse"))


def logged_in(account: Account, user_agent: str) -> Client:
    client = Client(headers={"user-agent": user_agent})
    form = {"username": account.email, "password": "correct horse"}
    assert client.post("/login", form).status_code == 302
    return client


def ends(client: Client) -> list[str]:
    return re.findall(r'action="(/account/sessions/\w+/end)"', page(client, "/account"))


@pytest.mark.usefixtures("_has_password")
def test_a_person_sees_their_sessions_and_ends_one(account: Account, stranger: Account) -> None:
    here, there = logged_in(account, FIREFOX), logged_in(account, "curl/8 <script>alert(1)")
    text = words(here, "/account")
    assert "Firefox on Windows This browser 127.0.0.1" in text
    assert "Unknown browser 127.0.0.1" in text
    assert "<script>alert" not in page(here, "/account")
    for client in (here, there):
        assert str(client.session.session_key) not in page(here, "/account")
    [end] = ends(here)
    # It is no one else's to end.
    assert sign_in(stranger.email).post(end).status_code == 302
    assert there.get("/budgets").status_code == 200
    answer = here.post(end, follow=True)
    assert "That browser was logged out." in answer.content.decode()
    assert there.get("/budgets").status_code == 302
    assert here.get("/budgets").status_code == 200
    again = here.post(end, follow=True)
    assert "logged out already" in again.content.decode()
    assert ends(here) == []


@pytest.mark.usefixtures("_has_password")
def test_sessions_that_no_longer_work_are_not_shown(account: Account) -> None:
    here = logged_in(account, FIREFOX)
    sign_in(account.email)
    assert len(ends(here)) == 1
    here.post("/account/sessions/end")
    assert ends(here) == []
    assert "Firefox on Windows This browser" in words(here, "/account")


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (FIREFOX, "Firefox on Windows"),
        ("Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0 Safari/537.36", "Chrome on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (Linux; Android 15) Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1",
            "Safari on iPhone",
        ),
        ("curl/8.0", "Unknown browser"),
    ],
)
def test_browsers_are_named(user_agent: str, expected: str) -> None:
    assert browser_words(user_agent) == expected


def test_a_stranger_has_to_log_in(account: Account) -> None:
    client = Client()
    assert client.get("/account")["Location"] == "/login?next=/account"
    assert client.post("/account/sessions/end").status_code == 302
