"""A person whose rights change while their pages are open, and marks of pages that others hold."""

import pytest
from django.test import Client

from metering.models import Halt
from tenants.members import change_role, change_team_members, remove_member
from tenants.models import Membership, Team, User
from tenants.roles import Role
from tests.dashboard.conftest import make_member, sign_in
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_event, send

PAGES = ("/", "/explore", "/budgets", "/calls", "/sessions", "/charts/spend.csv", "/savings")
HALT = {"calls": "agent=scout", "reason": "It loops"}


@pytest.fixture
def engineer(account: Account) -> str:
    """The address of an engineer of no team, who sees all usage."""
    send(account, [make_event(team="own", cost_usd="1"), make_event(team="foreign", cost_usd="7")])
    with account.scope():
        Team.objects.create(tenant=account.tenant, name="own")
    return make_member(account, Role.ENGINEER)


def marks_of(client: Client) -> dict[str, str]:
    return {path: client.get(path)["ETag"] for path in PAGES}


def statuses(client: Client, marks: dict[str, str]) -> set[int]:
    """What the pages answer to a browser that holds them."""
    return {
        client.get(path, headers={"If-None-Match": mark}).status_code
        for path, mark in marks.items()
    }


def test_a_member_who_is_removed_reads_and_does_nothing_more(
    account: Account, engineer: str
) -> None:
    client = sign_in(engineer)
    client.get("/")
    marks = marks_of(client)
    assert statuses(client, marks) == {304}
    with account.scope():
        membership = Membership.objects.get(user__email=engineer)
        remove_member(membership=membership, actor="tests", actor_role=Role.OWNER)
    assert statuses(client, marks) == {403}
    assert client.post("/enforcement/halts/make", HALT).status_code == 403
    with account.scope():
        assert not Halt.objects.exists()


def test_a_member_who_is_made_a_viewer_does_nothing_more(account: Account, engineer: str) -> None:
    client = sign_in(engineer)
    client.get("/")
    marks = marks_of(client)
    with account.scope():
        change_role(
            membership=Membership.objects.get(user__email=engineer),
            role=Role.VIEWER,
            actor="tests",
            actor_role=Role.OWNER,
        )
    assert statuses(client, marks) == {200}
    assert client.post("/enforcement/halts/make", HALT).status_code == 403


def test_a_member_who_joins_a_team_holds_no_page_of_all_teams(
    account: Account, engineer: str
) -> None:
    client = sign_in(engineer)
    client.get("/")
    marks = marks_of(client)
    with account.scope():
        user = User.objects.get(email=engineer)
        own = Team.objects.get(name="own")
        change_team_members(team=own, leads_by_user={user.id: False}, actor="tests")
    assert statuses(client, marks) == {200}
    assert b"foreign" not in client.get("/charts/spend.csv?group_by=team").content


def test_the_mark_of_a_page_is_of_one_person(account: Account, owner: Client) -> None:
    send(account, [make_event(team="foreign", cost_usd="7")])
    owner.get("/")
    marks = marks_of(owner)
    assert statuses(owner, marks) == {304}
    member = sign_in(make_team_member(account, Role.VIEWER, "own"))
    member.cookies["csrftoken"] = owner.cookies["csrftoken"].value
    assert statuses(member, marks) == {200}
    assert statuses(owner, marks) == {200}  # a member came, as the audit log says
