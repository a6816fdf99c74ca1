"""Settings: members, invitations and teams, by role and tenant."""

import re
from collections.abc import Callable

import pytest
from django.test import Client

from tenants.invitations import accept_invitation
from tenants.models import AuditEntry, Invitation, Membership, Team, TeamMember, User
from tenants.people import FORMER_NAMES_MAX, create_team
from tenants.roles import ROLES_THAT_GRANT, Role
from tests.dashboard.conftest import make_member, sign_in
from tests.dashboard.test_admin import FormReader
from tests.dashboard.test_enforcement_pages import HOSTILE, Handlers, page, text_of, words
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_event, send


def member_of(account: Account, email: str) -> Membership:
    with account.scope():
        return Membership.objects.get(tenant=account.tenant, user__email=email)


def make_team(account: Account, name: str) -> Team:
    with account.scope():
        return create_team(tenant=account.tenant, name=name, actor="tests")


def token_in(html: str) -> str:
    reader = FormReader()
    reader.feed(html)
    token = reader.fields["form_token"]
    assert isinstance(token, str)
    return token


def test_the_headline_counts_people_and_invitations(account: Account, owner: Client) -> None:
    assert "1 person has access" in words(owner, "/settings/members")
    make_member(account, Role.FINANCE)
    invited = owner.post("/settings/members", {"email": "Jun@Example.com", "role": "engineer"})
    link = re.search(r"http://testserver(/invitations/[\w-]+)", invited.content.decode())
    assert link is not None
    assert "no-store" in invited["Cache-Control"]
    text = words(owner, "/settings/members")
    assert "2 people have access; 1 invitation pending" in text
    assert "jun@example.com Engineer" in text
    # The link is shown this once.
    assert link[1] not in page(owner, "/settings/members")
    assert Client().get(link[1]).status_code == 200


def test_many_members_are_searched_by_address(account: Account, owner: Client) -> None:
    assert "Search by email" not in page(owner, "/settings/members")
    emails = [make_member(account, Role.VIEWER) for _ in range(20)]
    assert "Search by email" in page(owner, "/settings/members")
    html = page(owner, f"/settings/members?q={emails[7].upper()}")
    assert emails[7] in html
    assert not [email for email in emails if email != emails[7] and email in html]
    # The headline counts everyone.
    assert "21 people have access" in text_of(html)
    assert "address contains “%zq”" in words(owner, "/settings/members?q=%25zq")


def test_an_invitation_brings_the_teams_that_still_exist(account: Account, owner: Client) -> None:
    growth, gone = make_team(account, "growth"), make_team(account, "gone")
    form = {"email": "jun@example.com", "role": "viewer", "teams": [growth.id, gone.id]}
    answer = owner.post("/settings/members", form)
    token = re.search(r"/invitations/([\w-]+)", answer.content.decode())
    assert token is not None
    with account.scope():
        gone.delete()
        user = User.objects.create_user("jun@example.com")
    accept_invitation(token=token[1], user=user)
    with account.scope():
        joined = TeamMember.objects.get(user=user)
        assert (joined.team_id, joined.is_lead) == (growth.id, False)


def test_a_form_that_was_sent_twice_invites_once(account: Account, owner: Client) -> None:
    form = {"email": "jun@example.com", "role": "viewer"}
    form["form_token"] = token_in(page(owner, "/settings/members"))
    assert owner.post("/settings/members", form).status_code == 200
    again = owner.post("/settings/members", form, follow=True)
    assert "This form was sent already; nothing was done twice." in again.content.decode()
    with account.scope():
        assert Invitation.objects.count() == 1


def test_a_refused_form_keeps_what_was_typed(account: Account, owner: Client) -> None:
    answer = owner.post("/settings/members", {"email": "jun@example", "role": "finance"})
    html = answer.content.decode()
    assert "Enter a complete address, like jun@example.com." in html
    assert 'value="jun@example"' in html
    assert '<option value="finance" selected>' in html
    answer = owner.post("/settings/members", {"email": account.email, "role": "viewer"})
    assert f"{account.email} is a member already." in answer.content.decode()
    with account.scope():
        assert not Invitation.objects.exists()


def test_a_members_role_and_teams_change_together(account: Account, owner: Client) -> None:
    growth, research = make_team(account, "growth"), make_team(account, "research")
    email = make_member(account, Role.VIEWER)
    member = member_of(account, email)
    form = {"role": "engineer", "teams": [growth.id], "leads": [research.id]}
    assert owner.post(f"/settings/members/{member.id}", form).status_code == 302
    with account.scope():
        assert member_of(account, email).role == "engineer"
        teams = dict(TeamMember.objects.values_list("team__name", "is_lead"))
    assert teams == {"growth": False, "research": True}
    text = words(owner, "/settings/members")
    assert f"{email} Engineer growth, research lead" in text
    owner.post(f"/settings/members/{member.id}", {"role": "engineer"})
    with account.scope():
        assert not TeamMember.objects.exists()


def test_the_only_owner_stays(account: Account, owner: Client) -> None:
    me = member_of(account, account.email)
    answer = owner.post(f"/settings/members/{me.id}", {"role": "viewer"})
    assert "This is the only owner." in answer.content.decode()
    answer = owner.post(f"/settings/members/{me.id}/remove", follow=True)
    assert "This is the only owner." in answer.content.decode()
    assert member_of(account, account.email).role == "owner"


def test_an_admin_neither_makes_nor_changes_owners(
    account: Account, as_role: Callable[[Role], Client]
) -> None:
    admin = as_role(Role.ADMIN)
    me = member_of(account, account.email)
    assert '<option value="owner"' not in page(admin, "/settings/members")
    admin.post("/settings/members", {"email": "a@example.com", "role": "owner"})
    admin.post(f"/settings/members/{me.id}", {"role": "viewer"})
    admin.post(f"/settings/members/{me.id}/remove")
    with account.scope():
        assert not Invitation.objects.exists()
        assert member_of(account, account.email).role == "owner"


def test_removing_a_member_revokes_the_keys_that_are_chosen(
    account: Account, owner: Client
) -> None:
    email = make_member(account, Role.ADMIN)
    member = member_of(account, email)
    text = words(owner, f"/settings/members/{member.id}")
    assert "Remove member" in text
    assert owner.post(f"/settings/members/{member.id}/remove").status_code == 302
    with account.scope():
        assert not Membership.objects.filter(user__email=email).exists()


def test_teams_are_created_and_filled(account: Account, owner: Client) -> None:
    answer = owner.post("/settings/teams", {"name": "growth"})
    with account.scope():
        team = Team.objects.get(name="growth")
        me = User.objects.get(email=account.email)
    assert answer["Location"] == f"/settings/teams/{team.id}"
    assert "1 team without a lead" in words(owner, "/settings/teams")
    owner.post(f"/settings/teams/{team.id}", {"name": "growth", "leads": [me.id]})
    text = words(owner, "/settings/teams")
    assert "1 team, each with a lead" in text
    assert f"growth {account.email}" in text
    taken = owner.post("/settings/teams", {"name": "growth"})
    assert 'value="growth"' in taken.content.decode()
    with account.scope():
        assert Team.objects.count() == 1


def test_a_renamed_team_keeps_its_members_and_its_old_usage(
    account: Account, owner: Client
) -> None:
    send(account, [make_event(team=team, cost_usd="1") for team in ("growth", "other")])
    email = make_team_member(account, Role.ENGINEER, "growth")
    user = User.objects.get(email=email)
    with account.scope():
        team = Team.objects.get(name="growth")
    path = f"/settings/teams/{team.id}"
    assert "Calls until now" in words(owner, path)
    form = {"name": "growth-eu", "members": [user.id], "form_token": token_in(page(owner, path))}
    answer = owner.post(path, form, follow=True)
    assert "“growth” is “growth-eu” now." in text_of(answer.content.decode())
    assert f"growth-eu no lead {email}" in words(owner, "/settings/teams")
    assert "Known before as growth." in words(owner, path)
    # What comes under the new name is seen beside what came under the old one; no other team's is.
    send(account, [make_event(team="growth-eu", cost_usd="2")])
    assert "$3.00" in words(sign_in(email), "/")
    with account.scope():
        entry = AuditEntry.objects.filter(object_type="team", action="update").latest("id")
    assert entry.changes == {"name": ["growth", "growth-eu"], "former_names": [[], ["growth"]]}


def test_a_team_is_named_as_its_usage_is(account: Account, owner: Client) -> None:
    # A letter and its accent apart, an invisible joiner, two spaces.
    typed = "Cafe\u0301\u200d  team"
    location = owner.post("/settings/teams", {"name": typed})["Location"]
    send(account, [make_event(team=typed, cost_usd="3")])
    email = make_member(account, Role.ENGINEER)
    user = User.objects.get(email=email)
    answer = owner.post(location, {"name": typed, "members": [user.id]}, follow=True)
    assert "“Café team” was changed." in text_of(answer.content.decode())
    assert "$3.00" in words(sign_in(email), "/")
    for path in ("/settings/teams", location):
        refused = owner.post(path, {"name": "\u200b\u2060"})
        assert "needs a character that can be seen" in text_of(refused.content.decode())


def test_a_former_name_is_no_other_teams(account: Account, owner: Client) -> None:
    growth, other = make_team(account, "growth"), make_team(account, "other")
    assert owner.post(f"/settings/teams/{growth.id}", {"name": "growth-eu"}).status_code == 302
    for path in ("/settings/teams", f"/settings/teams/{other.id}"):
        for taken in ("growth", "growth-eu"):
            answer = owner.post(path, {"name": taken})
            assert f"There is already a team named &#x27;{taken}&#x27;." in answer.content.decode()
            assert f'value="{taken}"' in answer.content.decode()
    # Back again: a former name of its own is free.
    assert owner.post(f"/settings/teams/{growth.id}", {"name": "growth"}).status_code == 302
    with account.scope():
        names = {team.name: team.former_names for team in Team.objects.all()}
    assert names == {"growth": ["growth-eu"], "other": []}


def test_a_team_is_not_renamed_without_end(account: Account, owner: Client) -> None:
    team = make_team(account, "name 0")
    for number in range(1, FORMER_NAMES_MAX + 2):
        answer = owner.post(f"/settings/teams/{team.id}", {"name": f"name {number}"})
    assert f"A team has at most {FORMER_NAMES_MAX} former names." in answer.content.decode()
    with account.scope():
        assert Team.objects.get().name == f"name {FORMER_NAMES_MAX}"


WRITES: tuple[tuple[str, dict[str, object]], ...] = (
    ("/settings/members", {"email": "a@example.com", "role": "viewer"}),
    ("/settings/members/{member}", {"role": "viewer"}),
    ("/settings/members/{member}/remove", {}),
    ("/settings/invitations/{invitation}/again", {}),
    ("/settings/invitations/{invitation}/revoke", {}),
    ("/settings/teams", {"name": "new"}),
    ("/settings/teams/{team}", {}),
)


@pytest.mark.parametrize("role", [role for role in Role if role not in ROLES_THAT_GRANT])
def test_others_read_and_change_nothing(
    account: Account, owner: Client, as_role: Callable[[Role], Client], role: Role
) -> None:
    team = make_team(account, "growth")
    owner.post("/settings/members", {"email": "jun@example.com", "role": "viewer"})
    client = as_role(role)
    me = member_of(account, account.email)
    with account.scope():
        invitation = Invitation.objects.get()
        before = AuditEntry.objects.count()
    for path, form in WRITES:
        full = path.format(member=me.id, invitation=invitation.id, team=team.id)
        assert client.post(full, form).status_code == 403, path
    with account.scope():
        assert AuditEntry.objects.count() == before
    for path in ("/settings/members", "/settings/teams"):
        html = page(client, path)
        assert '<form method="post" hx-boost' not in html
        assert ">Change</a>" not in html
    assert client.get(f"/settings/members/{me.id}").status_code == 403


def test_another_tenants_rows_are_not_found(
    account: Account, stranger: Account, owner: Client
) -> None:
    team = make_team(stranger, "secret-team")
    member = member_of(stranger, stranger.email)
    with stranger.scope():
        before = AuditEntry.objects.count()
    for path, form in WRITES:
        if "{" in path:
            full = path.format(member=member.id, invitation=10**6, team=team.id)
            assert owner.post(full, form).status_code == 404, path
    with stranger.scope():
        assert AuditEntry.objects.count() == before
    for path in ("/settings/members", "/settings/teams"):
        assert "secret-team" not in page(owner, path)
        assert stranger.email not in page(owner, path)


def test_hostile_names_stay_text(account: Account, owner: Client) -> None:
    for value in HOSTILE:
        make_team(account, value)
    for path in ("/settings/members", "/settings/teams"):
        parser = Handlers()
        html = page(owner, path)
        parser.feed(html)
        assert parser.found == []
        assert "<script>alert" not in html
    assert HOSTILE[0] in text_of(page(owner, "/settings/teams")) or "&lt;script" in html
