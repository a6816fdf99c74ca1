"""Signing in and out, the password, and switching tenants."""

import io
import json
import re
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection
from django.test import Client
from django.utils import timezone
from time_machine import TimeMachineFixture as Clock

from dashboard.tasks import forget_old_links, mail_links
from tenants import sign_in as domain
from tenants.attempts import FORGET_AFTER, TooSoon
from tenants.models import Attempt, PasswordReset, User
from tenants.password_resets import ASKED_BY_ADDRESS, ASKED_FOR_ACCOUNT
from tenants.passwords import hashing
from tenants.people import add_member, create_tenant
from tenants.roles import Role
from tenants.sign_in import BY_ACCOUNT, BY_ADDRESS, WrongPassword
from tests.alerts.receivers import mail_receiver
from tests.dashboard.conftest import sign_in
from tests.factories import Account, make_account, make_event, send


def test_an_address_and_its_password_sign_in(account: Account) -> None:
    client = Client()
    answer = client.post("/login", {"username": account.email, "password": account.password})
    assert (answer.status_code, answer["Location"]) == (302, "/home")
    assert client.get("/").status_code == 200
    assert client.get("/login").status_code == 302


def test_pages_send_strangers_to_the_login_and_back(account: Account) -> None:
    for path in ("/", "/budgets", "/settings/prices", "/charts/spend.json", "/password"):
        answer = Client().get(path)
        assert answer.status_code == 302, path
        assert answer["Location"].startswith("/login?next="), path
    admin = Client().get("/admin/metering/budget/", follow=True)
    assert admin.redirect_chain[-1][0] == "/login?next=%2Fadmin%2Fmetering%2Fbudget%2F"
    query = {"username": account.email, "password": account.password, "next": "/budgets"}
    assert Client().post("/login", query)["Location"] == "/budgets"
    query["next"] = "https://elsewhere.example/"
    assert Client().post("/login", query)["Location"] == "/home"


@pytest.mark.parametrize("following", ["/login", "/login?next=/login", "//testserver/login"])
def test_the_login_leads_to_no_login(account: Account, owner: Client, following: str) -> None:
    assert owner.get("/login", {"next": following})["Location"] == "/home"
    query = {"username": account.email, "password": account.password, "next": following}
    assert Client().post("/login", query)["Location"] == "/home"


WRONG = "not the password"
FREE = 2


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer free tries, so that fewer are made."""
    monkeypatch.setattr("tenants.sign_in.BY_ACCOUNT", BY_ACCOUNT._replace(free=FREE))
    monkeypatch.setattr("tenants.sign_in.BY_ADDRESS", BY_ADDRESS._replace(free=3 * FREE))


@pytest.fixture
def clock(time_machine: Clock) -> Clock:
    """A clock that stands still until it is moved."""
    time_machine.move_to(datetime.now(UTC), tick=False)
    return time_machine


def try_to_sign_in(email: str, password: str, address: str = "192.0.2.7") -> Any:
    return Client().post("/login", {"username": email, "password": password}, REMOTE_ADDR=address)


def test_wrong_passwords_make_the_next_try_wait_and_lock_nobody_out(
    account: Account, clock: Clock
) -> None:
    answers = [try_to_sign_in(account.email, WRONG) for _ in range(FREE)]
    assert {answer.status_code for answer in answers} == {200}
    assert b"Incorrect email or password" in answers[0].content
    waiting = try_to_sign_in(account.email, account.password)
    assert (waiting.status_code, waiting["Retry-After"]) == (429, "1")
    assert b"Wait 1 second, then try again. Nothing was changed." in waiting.content
    assert b"<form" in waiting.content
    # The owner is let in elsewhere at once, and here when the short wait is over.
    assert try_to_sign_in(account.email, account.password, "192.0.2.8").status_code == 302
    clock.shift(1)
    assert try_to_sign_in(account.email, WRONG).status_code == 200
    assert try_to_sign_in(account.email, WRONG)["Retry-After"] == "2"
    clock.shift(2)
    assert try_to_sign_in(account.email, account.password).status_code == 302
    # That made up for all.
    answers = [try_to_sign_in(account.email, WRONG) for _ in range(FREE)]
    assert {answer.status_code for answer in answers} == {200}


def test_waits_double_up_to_a_minute_and_refused_tries_do_not_lengthen_them(
    account: Account, clock: Clock
) -> None:
    try_to_sign_in(account.email, WRONG)
    Attempt.objects.update(failures=900)
    assert try_to_sign_in(account.email, WRONG).status_code == 200
    for _ in range(3):
        assert try_to_sign_in(account.email, account.password)["Retry-After"] == "60"
    clock.shift(60)
    assert try_to_sign_in(account.email, account.password).status_code == 302


def test_invented_accounts_are_hashed_few_times_per_address(
    account: Account, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes: list[str] = []
    monkeypatch.setattr(
        "tenants.passwords.check_password", lambda raw, stored, setter: hashes.append(raw)
    )
    refused = 0
    for number in range(4 * FREE):
        try:
            sign_in_as(f"nobody-{number}@example.com", "2001:db8:0:7::/64")
        except TooSoon:
            refused += 1
    assert (len(hashes), refused) == (3 * FREE, FREE)
    network = "2001:db8:0:7:ffff::1"
    assert try_to_sign_in("nobody@example.com", WRONG, network).status_code == 429
    assert try_to_sign_in(account.email, WRONG, "2001:db8:0:8::1").status_code == 200


def sign_in_as(email: str, address: str) -> None:
    with suppress(WrongPassword):
        domain.sign_in(email=email, password=WRONG, address=address)


@pytest.mark.parametrize("email", ["owner", "nobody@example.com"])
def test_a_hash_keeps_no_connection_and_is_made_for_unknown_accounts_too(
    account: Account, monkeypatch: pytest.MonkeyPatch, email: str
) -> None:
    made: list[bool] = []
    encode = MD5PasswordHasher.encode

    def note(self: MD5PasswordHasher, password: str, salt: str) -> str:
        made.append(connection.connection is None)
        return encode(self, password, salt)

    monkeypatch.setattr(MD5PasswordHasher, "encode", note)
    email = account.email if email == "owner" else email
    assert try_to_sign_in(email, WRONG).status_code == 200
    assert made == [True]


def test_a_full_queue_of_hashes_answers_at_once(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenants.passwords._admitted", threading.BoundedSemaphore(1))
    with hashing():
        for _ in range(FREE + 1):  # costs no try
            answer = try_to_sign_in(account.email, account.password)
            assert (answer.status_code, answer["Retry-After"]) == (503, "3")
    assert try_to_sign_in(account.email, account.password).status_code == 302
    monkeypatch.setattr("tenants.passwords._admitted", threading.BoundedSemaphore(2))
    monkeypatch.setattr("tenants.passwords.WAIT_SECONDS", 0.001)
    with hashing():
        assert try_to_sign_in(account.email, account.password).status_code == 503


def test_attempts_are_forgotten(account: Account, clock: Clock) -> None:
    for number in range(3):
        try_to_sign_in(f"nobody-{number}@example.com", WRONG)
    assert Attempt.objects.count() == 4
    clock.shift(FORGET_AFTER + timedelta(seconds=1))
    try_to_sign_in(account.email, account.password)
    assert Attempt.objects.count() == 1


def test_addresses_are_the_same_in_any_case(account: Account) -> None:
    assert try_to_sign_in(f" {account.email.upper()}", account.password).status_code == 302
    with pytest.raises(IntegrityError, match="user_email_in_any_case"):
        User.objects.create(email=account.email.upper())
    with account.scope():
        again = create_tenant(name="second", owner_email=account.email.upper(), actor="tests")
    assert (again.email, again.password) == (account.email, None)


def test_create_tenant_prints_a_password_for_a_new_account_alone(account: Account) -> None:
    def created(name: str, owner: str) -> Any:
        out = io.StringIO()
        call_command("create_tenant", name, owner=owner, json=True, stdout=out)
        return json.loads(out.getvalue())

    first, second = created("one", "New@example.com"), created("two", "NEW@example.com")
    assert (first["email"], second["email"], second["password"]) == (*2 * ["new@example.com"], None)
    assert try_to_sign_in("new@example.com", first["password"]).status_code == 302


def test_logging_out_is_a_post(owner: Client) -> None:
    assert owner.get("/logout").status_code == 405
    assert owner.get("/").status_code == 200
    assert owner.post("/logout")["Location"] == "/login"
    assert owner.get("/").status_code == 302


def test_forms_need_their_token(account: Account) -> None:
    client = Client(enforce_csrf_checks=True)
    for path in ("/login", "/logout", "/password", "/tenant", "/password/forgotten"):
        assert client.post(path, {}).status_code == 403, path


NEW = "correct horse battery staple"


def test_the_password_is_changed_by_who_knows_it(account: Account, owner: Client) -> None:
    elsewhere = sign_in(account.email)
    wrong = {"old_password": WRONG, "new_password1": NEW, "new_password2": NEW}
    assert b"entered incorrectly" in owner.post("/password", wrong).content
    right = {**wrong, "old_password": account.password}
    for bad, words in (("short", b"too short"), (account.email, b"too similar"), ("", b"required")):
        refused = owner.post("/password", right | {"new_password1": bad, "new_password2": bad})
        assert words in refused.content
    assert b"not the same" in owner.post("/password", right | {"new_password2": WRONG}).content
    assert owner.post("/password", right)["Location"] == "/"
    assert b"Your password was changed." in owner.get("/").content
    assert elsewhere.get("/").status_code == 302
    assert try_to_sign_in(account.email, NEW).status_code == 302


def test_guesses_at_the_old_password_have_to_wait(
    account: Account, owner: Client, clock: Clock
) -> None:
    wrong = {"old_password": WRONG, "new_password1": NEW, "new_password2": NEW}
    for _ in range(FREE):
        assert owner.post("/password", wrong).status_code == 200
    answer = owner.post("/password", wrong | {"old_password": account.password})
    assert (answer.status_code, answer["Retry-After"]) == (429, "1")
    assert try_to_sign_in(account.email, NEW).status_code == 200


def path_of(text: str) -> str:
    match = re.search(r"/(?:password/new|invitations)/[\w-]+", text)
    assert match is not None, text
    return match[0]


def test_a_reset_is_asked_for_by_anyone_and_mailed_to_an_account(
    account: Account, owner: Client, settings: Any
) -> None:
    assert b"set up to send email" in Client().get("/password/forgotten").content
    assert Client().post("/password/forgotten", {"email": account.email}).status_code == 200
    assert not PasswordReset.objects.exists()
    with mail_receiver() as mailbox:
        settings.MAIL_URL = mailbox.url
        pages = [
            Client().post("/password/forgotten", {"email": email}).content.decode()
            for email in (account.email.upper(), "nobody@example.com")
        ]
        mail_links()
        mail_links()
    assert PasswordReset.objects.count() == 1
    assert {re.sub(r"[\w.-]+@example.com", "", page, flags=re.I) for page in pages} == {
        re.sub(r"[\w.-]+@example.com", "", pages[0], flags=re.I)
    }
    assert [mail.recipients for mail in mailbox.received] == [[account.email]]
    path = path_of(mailbox.received[0].message.get_content())
    assert account.email in Client().get(path).content.decode()
    form = {"new_password1": NEW, "new_password2": NEW}
    assert (
        b"too short"
        in Client().post(path, {**form, "new_password1": "a"} | dict.fromkeys(form, "a")).content
    )
    assert Client().post(path, form)["Location"] == "/login"
    assert owner.get("/").status_code == 302, "other sessions end"
    assert try_to_sign_in(account.email, NEW).status_code == 302
    for answer in (Client().post(path, form), Client().get(path), Client().get("/password/new/x")):
        assert answer.status_code == 410
        assert b"This link no longer works" in answer.content


def test_an_operator_makes_a_link_that_expires(account: Account, clock: Clock) -> None:
    out = io.StringIO()
    call_command("password_link", account.email.upper(), stdout=out)
    path = path_of(out.getvalue())
    assert Client().get(path).status_code == 200
    clock.shift(timedelta(hours=1))
    assert Client().get(path).status_code == 410
    with pytest.raises(CommandError, match="has no account"):
        call_command("password_link", "nobody@example.com")
    clock.shift(timedelta(days=2))
    forget_old_links()
    assert not PasswordReset.objects.exists()


def test_asking_for_resets_is_limited(
    account: Account, settings: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_address = ASKED_BY_ADDRESS._replace(free=3)
    for_account = ASKED_FOR_ACCOUNT._replace(free=2)
    monkeypatch.setattr("tenants.password_resets.ASKED_BY_ADDRESS", by_address)
    monkeypatch.setattr("tenants.password_resets.ASKED_FOR_ACCOUNT", for_account)
    settings.MAIL_URL = "smtp://127.0.0.1:1?from=a@b.example"
    for number in range(by_address.free):
        answer = Client().post("/password/forgotten", {"email": account.email})
        assert answer.status_code == 200, number
    answer = Client().post("/password/forgotten", {"email": "other@example.com"})
    assert (answer.status_code, answer["Retry-After"]) == (429, "1")
    assert PasswordReset.objects.count() == for_account.free
    mail_links()
    assert PasswordReset.objects.filter(mail_error__contains="cannot be reached").count() == 2
    assert not PasswordReset.objects.filter(mail_due_at__lte=timezone.now()).exists()


def test_a_person_of_two_tenants_switches_and_sees_one_at_a_time(account: Account) -> None:
    other = make_account("other tenant")
    with other.scope():
        user = User.objects.get(email=account.email)
        add_member(tenant=other.tenant, user=user, role=Role.VIEWER, actor="tests")
    send(account, [make_event(agent="first-agent")])
    send(other, [make_event(agent="second-agent")])
    client = sign_in(account.email)
    assert b"first-agent" in client.get("/?group_by=agent").content
    assert client.post("/tenant", {"tenant": other.tenant.id})["Location"] == "/"
    page = client.get("/?group_by=agent").content
    assert b"second-agent" in page
    assert b"first-agent" not in page
    assert b"Viewer" in page


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
        assert "not a member of any tenant yet" in answer.content.decode()
    assert client.get("/admin/").status_code in {302, 403}
