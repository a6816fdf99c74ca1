"""Signing in and out, the password, and switching tenants."""

import pytest
from django.test import Client

from tenants.members import add_person
from tenants.models import User
from tenants.roles import Role
from tests.dashboard.conftest import sign_in
from tests.factories import Account, make_account, make_event, send


def test_an_address_and_its_password_sign_in(account: Account) -> None:
    client = Client()
    answer = client.post("/login", {"username": account.email, "password": account.password})
    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert client.get("/").status_code == 200
    assert client.get("/login").status_code == 302


def test_pages_send_strangers_to_the_login_and_back(account: Account) -> None:
    for path in ("/", "/budgets", "/unpriced", "/charts/spend.json", "/password"):
        answer = Client().get(path)
        assert answer.status_code == 302, path
        assert answer["Location"].startswith("/login?next="), path
    admin = Client().get("/admin/metering/budget/", follow=True)
    assert admin.redirect_chain[-1][0] == "/login?next=%2Fadmin%2Fmetering%2Fbudget%2F"
    query = {"username": account.email, "password": account.password, "next": "/budgets"}
    assert Client().post("/login", query)["Location"] == "/budgets"
    query["next"] = "https://elsewhere.example/"
    assert Client().post("/login", query)["Location"] == "/"


def test_wrong_passwords_are_refused_in_words_and_lock_out(account: Account) -> None:
    client = Client()
    for attempt in range(5):
        answer = client.post("/login", {"username": account.email, "password": "wrong"})
        expected = 429 if attempt == 4 else 200
        assert answer.status_code == expected
    assert b"Wait 15 minutes" in answer.content
    assert b"<form" in answer.content
    answer = client.post("/login", {"username": account.email, "password": account.password})
    assert answer.status_code == 429
    assert "_auth_user_id" not in client.session


def test_logging_out_is_a_post(owner: Client) -> None:
    assert owner.get("/logout").status_code == 405
    assert owner.get("/").status_code == 200
    assert owner.post("/logout")["Location"] == "/login"
    assert owner.get("/").status_code == 302


def test_forms_need_their_token(account: Account) -> None:
    client = Client(enforce_csrf_checks=True)
    for path in ("/login", "/logout", "/password", "/tenant"):
        assert client.post(path, {}).status_code == 403, path


def test_the_password_is_changed_by_who_knows_it(account: Account, owner: Client) -> None:
    new = "correct horse battery staple"
    wrong = {"old_password": "wrong", "new_password1": new, "new_password2": new}
    assert b"entered incorrectly" in owner.post("/password", wrong).content
    right = {**wrong, "old_password": account.password}
    assert owner.post("/password", right)["Location"] == "/"
    assert b"Your password is changed." in owner.get("/").content
    answer = Client().post("/login", {"username": account.email, "password": new})
    assert answer.status_code == 302


def test_a_person_of_two_tenants_switches_and_sees_one_at_a_time(account: Account) -> None:
    other = make_account("other tenant")
    with other.scope():
        add_person(
            tenant=other.tenant,
            email=account.email,
            role=Role.VIEWER,
            actor="tests",
            actor_role=Role.OWNER,
        )
    send(account, [make_event(agent="first-agent")])
    send(other, [make_event(agent="second-agent")])
    client = sign_in(account.email)
    assert b"first-agent" in client.get("/?by=agent").content
    assert client.post("/tenant", {"tenant": other.tenant.id})["Location"] == "/"
    page = client.get("/?by=agent").content
    assert b"second-agent" in page
    assert b"first-agent" not in page
    assert b"viewer" in page


@pytest.mark.parametrize("chosen", ["", "abc", "999999999", "-1"])
def test_nobody_switches_to_a_tenant_of_others(
    owner: Client, stranger: Account, chosen: str
) -> None:
    assert owner.post("/tenant", {"tenant": chosen}).status_code == 404
    assert owner.post("/tenant", {"tenant": stranger.tenant.id}).status_code == 404
    assert owner.get("/tenant").status_code == 405


def test_a_person_without_a_tenant_is_told_what_to_do(account: Account) -> None:
    User.objects.create_user("lonely@example.com", "password")
    client = sign_in("lonely@example.com")
    for path in ("/", "/budgets", "/charts/spend.csv"):
        answer = client.get(path)
        assert answer.status_code == 403
        assert b"You belong to no tenant yet" in answer.content
    assert client.get("/admin/").status_code in {302, 403}
