"""People join by invitation: a link, used once, and a password that nobody else knows."""

import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from time_machine import TimeMachineFixture as Clock

from common.json_bodies import JsonObject
from dashboard.tasks import forget_old_links, mail_links
from tenants.invitations import InvitationEnded, accept_with_new_account, invite
from tenants.keys import create_api_key, find_key_holder
from tenants.members import MembershipRefused, lock_members
from tenants.models import ApiKey, AuditEntry, Invitation, Membership, User
from tenants.people import create_tenant
from tenants.roles import Role
from tests.alerts.receivers import mail_receiver
from tests.dashboard.conftest import make_member, sign_in
from tests.factories import Account
from tests.metering.api.caller import caller

NEW = "correct horse battery staple"
CHOSEN = {"form": "new", "new_password1": NEW, "new_password2": NEW}
ADD = "/admin/tenants/invitation/add/"


def invitation_form(email: str, role: str = "engineer") -> JsonObject:
    return {"form_token": uuid.uuid4().hex, "email": email, "role": role}


def link_in(text: str) -> str:
    match = re.search(r"/invitations/[\w-]+", text)
    assert match is not None, text
    return match[0]


def invited(owner: Client, email: str, role: str = "engineer") -> str:
    """The path of a new invitation's link, as the inviter sees it."""
    answer = owner.post(ADD, invitation_form(email, role))
    assert answer.status_code == 200, answer.get("Location")
    assert "no-store" in answer["Cache-Control"]
    return link_in(answer.content.decode())


def members(account: Account) -> dict[str, str]:
    with account.scope():
        rows = Membership.objects.filter(tenant=account.tenant).select_related("user")
        return {row.user.email: row.role for row in rows}


def deeds(account: Account) -> list[tuple[str, str, str]]:
    with account.scope():
        rows = AuditEntry.objects.filter(tenant=account.tenant).order_by("id")
        return list(rows.values_list("actor", "action", "object_type"))


def invitation_id(account: Account) -> int:
    with account.scope():
        return Invitation.objects.filter(tenant=account.tenant).latest("id").id


def test_who_is_new_chooses_a_password_and_joins(account: Account, owner: Client) -> None:
    path = invited(owner, "New.Person@Example.com")
    assert members(account) == {account.email: "owner"}, "nobody is a member before accepting"
    assert not User.objects.filter(email="new.person@example.com").exists()
    client = Client()
    page = client.get(path).content.decode()
    assert f"Join {account.tenant.name}" in page
    for bad, words in (
        (dict.fromkeys(CHOSEN, "short"), "too short"),
        (CHOSEN | {"new_password2": "x"}, "not the same"),
        (dict.fromkeys(CHOSEN, "new.person@example.com"), "too similar"),
    ):
        assert words in client.post(path, bad | {"form": "new"}).content.decode()
    assert members(account) == {account.email: "owner"}
    assert client.post(path, CHOSEN)["Location"] == "/"
    assert f"You are now a member of {account.tenant.name}." in client.get("/").content.decode()
    assert members(account)["new.person@example.com"] == "engineer"
    login = {"username": "new.person@example.com", "password": NEW}
    assert Client().post("/login", login).status_code == 302
    assert deeds(account)[-3:] == [
        (account.email, "create", "invitation"),
        ("new.person@example.com", "update", "invitation"),
        ("new.person@example.com", "create", "membership"),
    ]
    again = Client().get(path)
    assert again.status_code == 410
    assert b"This invitation was accepted" in again.content
    with account.scope():
        token = path.rpartition("/")[2]
        assert token not in str(list(Invitation.objects.values()))
        assert token not in str(list(AuditEntry.objects.values()))


def test_who_has_an_account_joins_with_its_password_alone(
    account: Account, stranger: Account, owner: Client
) -> None:
    path = invited(owner, stranger.email.upper(), "owner")
    taken = Client().post(path, CHOSEN)
    assert b"already has an account" in taken.content
    wrong = Client().post(path, {"form": "account", "password": NEW})
    assert b"does not match an account" in wrong.content
    assert stranger.email not in members(account)
    client = Client()
    right = {"form": "account", "password": stranger.password}
    assert client.post(path, right)["Location"] == "/"
    assert members(account)[stranger.email] == "owner"
    assert account.tenant.name in client.get("/").content.decode()
    assert Client().post("/login", {"username": stranger.email, "password": NEW}).status_code == 200


def test_the_inviter_cannot_tell_whether_there_is_an_account(
    account: Account, stranger: Account, owner: Client
) -> None:
    """All that can be done without using the invitation up answers alike."""
    seen = []
    for email in (stranger.email, "owner-x@example.com"):
        shown = owner.post(ADD, invitation_form(email)).content.decode()
        path = link_in(shown)
        too_short = {"form": "new", "new_password1": "short", "new_password2": "short"}
        answers = [
            Client().get(path),
            Client().post(path, {"form": "account", "password": "a guess"}),
            Client().post(path, CHOSEN | {"new_password2": "x"}),
            Client().post(path, too_short),
        ]
        texts = [shown, *(answer.content.decode() for answer in answers)]
        own = rf"{email}|{path}|(?:value|nonce)=\"[\w-]{{20,}}\""
        seen.append([re.sub(own, "", text) for text in texts])
    assert seen[0] == seen[1]


def test_two_clicks_at_once_make_one_membership(account: Account, owner: Client) -> None:
    token = invited(owner, "new@example.com").rpartition("/")[2]
    ended: list[str] = []
    barrier = threading.Barrier(2)

    def click() -> None:
        barrier.wait()
        try:
            accept_with_new_account(token=token, stored_password="x")
        except InvitationEnded as error:
            ended.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=click) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == ["accepted"]
    assert members(account) == {account.email: "owner", "new@example.com": "engineer"}


def test_somebody_else_who_is_signed_in_cannot_accept(
    account: Account, stranger: Account, owner: Client
) -> None:
    path = invited(owner, stranger.email)
    page = owner.get(path).content.decode()
    assert f"You are logged in as {account.email}" in page
    assert b"You are logged in as" in owner.post(path).content
    assert stranger.email not in members(account)
    client = sign_in(stranger.email)
    assert stranger.email not in members(account), "signing in alone accepts nothing"
    assert b"Join" in client.get(path).content
    assert client.post(path)["Location"] == "/"
    assert members(account)[stranger.email] == "engineer"


def test_links_expire_are_taken_back_and_sent_again(
    account: Account, owner: Client, time_machine: Clock
) -> None:
    time_machine.move_to(datetime.now(UTC), tick=False)
    first = invited(owner, "new@example.com")
    page = f"/admin/tenants/invitation/{invitation_id(account)}"
    assert b"stops working" in owner.get(f"{page}/send_again/").content
    second = link_in(owner.post(f"{page}/send_again/").content.decode())
    assert b"Invitation not found" in Client().get(first).content
    assert Client().get(second).status_code == 200
    twice = owner.post(ADD, invitation_form("NEW@example.com"), follow=True)
    assert b"is invited already" in twice.content
    time_machine.shift(timedelta(days=7))
    owner = sign_in(account.email)
    expired = Client().post(second, CHOSEN)
    assert (expired.status_code, b"has expired" in expired.content) == (410, True)
    third = link_in(owner.post(f"{page}/send_again/").content.decode())
    assert owner.post(f"{page}/delete/", {"post": "yes"}).status_code == 302
    revoked = Client().post(third, CHOSEN)
    assert (revoked.status_code, b"was revoked" in revoked.content) == (410, True)
    assert owner.get(f"{page}/send_again/").status_code == 403
    assert members(account) == {account.email: "owner"}
    time_machine.shift(timedelta(days=60))
    forget_old_links()
    with account.scope():
        assert not Invitation.objects.exists()


def test_invitations_are_mailed_where_there_is_a_mail_server(
    account: Account, owner: Client, settings: Any
) -> None:
    with mail_receiver() as mailbox:
        settings.MAIL_URL = mailbox.url
        answer = owner.post(ADD, invitation_form("new@example.com"), follow=True)
        assert "/invitations/" not in answer.content.decode()
        assert b"An email to new@example.com is on its way" in answer.content
        assert b"waiting to be sent" in answer.content
        mailbox.refused.add("new@example.com")
        mail_links()
        assert b"not delivered" in owner.get("/admin/tenants/invitation/").content
        mailbox.refused.clear()
        owner.post(f"/admin/tenants/invitation/{invitation_id(account)}/send_again/")
        mail_links()
        mail_links()
    (mail,) = mailbox.received
    assert mail.recipients == ["new@example.com"]
    assert account.tenant.name in mail.message["Subject"]
    text = mail.message.get_content()
    assert (
        f"{account.email} invited you to {account.tenant.name} on Spendgate, with the role" in text
    )
    assert Client().post(link_in(text), CHOSEN)["Location"] == "/"


def test_nobody_is_flooded_with_invitations(account: Account) -> None:
    def ask() -> None:
        with account.scope():
            new = invite(
                tenant=account.tenant,
                email="new@example.com",
                role=Role.VIEWER,
                actor="tests",
                actor_role=Role.OWNER,
            )
            Invitation.objects.filter(id=new.invitation.id).update(revoked_at=datetime.now(UTC))

    for _ in range(5):
        ask()
    with pytest.raises(MembershipRefused, match="Too many invitations were sent"):
        ask()


def test_only_owners_and_admins_invite_and_only_owners_invite_owners(account: Account) -> None:
    for role in (Role.FINANCE, Role.ENGINEER, Role.VIEWER):
        client = sign_in(make_member(account, role))
        assert client.get(ADD).status_code == 403
        assert client.post(ADD, invitation_form("x@example.com")).status_code == 403
    admin = sign_in(make_member(account, Role.ADMIN))
    refused = admin.post(ADD, invitation_form("x@example.com", "owner"))
    assert b"not one of the available choices" in refused.content
    path = invited(sign_in(account.email), "x@example.com", "owner")
    page = f"/admin/tenants/invitation/{invitation_id(account)}"
    for answer in (
        admin.post(f"{page}/send_again/", follow=True),
        admin.post(f"{page}/delete/", {"post": "yes"}, follow=True),
    ):
        assert b"Only an owner" in answer.content
    assert Client().get(path).status_code == 200


def test_removing_a_member_offers_to_revoke_the_keys_they_made(
    account: Account, owner: Client
) -> None:
    email = make_member(account, Role.ADMIN)
    user = User.objects.get(email=email)
    texts = {}
    with account.scope():
        for name in ("own key", "production"):
            _, texts[name] = create_api_key(
                tenant=account.tenant, name=name, actor=email, created_by=user
            )
    # A key that their key made is theirs as well.
    body = {"name": "derived", "scopes": ["read"]}
    made = caller(account).__class__(texts["own key"]).post("/v1/keys", body).body
    with account.scope():
        member = Membership.objects.get(tenant=account.tenant, user=user)
        own_key = ApiKey.objects.get(name="own key")
        other = ApiKey.objects.get(name="First key")
    client, path = sign_in(email), f"/admin/tenants/membership/{member.id}/delete/"
    assert client.get("/budgets").status_code == 200
    page = owner.get(path).content.decode()
    for name in ("own key", "production", "derived"):
        assert name in page
    assert "First key" not in page
    chosen = [own_key.id, made["id"], other.id]
    assert owner.post(path, {"post": "yes", "revoked_keys": chosen}).status_code == 302
    assert client.get("/budgets").status_code == 403
    with account.scope():
        revoked = ApiKey.objects.exclude(revoked_at=None).values_list("name", flat=True)
        assert set(revoked) == {"own key", "derived"}
    assert find_key_holder(account.api_key) is not None
    assert deeds(account)[-3:] == [
        (account.email, "update", "apikey"),
        (account.email, "update", "apikey"),
        (account.email, "delete", "membership"),
    ]


def test_what_the_operator_gives_goes_to_nobody_who_made_an_account_for_the_address(
    account: Account, owner: Client
) -> None:
    """Without mail the inviter sees the link, and could use it."""
    path = invited(owner, "boss@corp.example", "viewer")
    inviter = Client()
    assert inviter.post(path, CHOSEN).status_code == 302
    corp = create_tenant(name="corp", owner_email="boss@corp.example", actor="tests")
    assert corp.password is not None
    assert inviter.get("/").status_code == 302, "sessions of the earlier password end"
    login = {"username": "boss@corp.example", "password": NEW}
    assert Client().post("/login", login).status_code == 200
    assert Client().post("/login", login | {"password": corp.password}).status_code == 302
    again = create_tenant(name="corp 2", owner_email="boss@corp.example", actor="tests")
    assert again.password is None, "it is theirs now"


def test_adding_and_inviting_at_once_wait_for_each_other_without_end(
    account: Account, stranger: Account
) -> None:
    """A row that is added asks for the tenant's; inviting must not keep it."""

    def add_team() -> int:
        try:
            return caller(account).post("/v1/teams", {"name": "growth"}).status
        finally:
            connection.close()

    with account.scope(), ThreadPoolExecutor(1) as other:
        lock_members(account.tenant.id)
        assert other.submit(add_team).result(timeout=20) == 201
