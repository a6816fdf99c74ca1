"""The admin: rights by role, one tenant, writes through the domain, secrets shown once."""

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.ledger import counting
from metering.models import Budget, Crossing, TenantPrice, ToolPrice
from tenants.keys import find_key_holder
from tenants.models import ApiKey, AuditEntry, Membership, Team, TeamMember, Tenant
from tenants.people import create_team
from tenants.roles import Role
from tests.cases import each_case
from tests.dashboard.conftest import make_member, sign_in
from tests.factories import NANOS, Account, finish_jobs, make_budget, make_event, send, windows_of

LISTS = (
    "metering/budget",
    "metering/tenantprice",
    "metering/toolprice",
    "metering/catalogueprice",
    "metering/backgroundjob",
    "tenants/membership",
    "tenants/invitation",
    "tenants/team",
    "tenants/apikey",
    "tenants/auditentry",
)
MONEY_FORMS = ("metering/budget", "metering/tenantprice", "metering/toolprice")
ACCESS_FORMS = ("tenants/invitation", "tenants/team", "tenants/apikey")


def levels(*rows: tuple[int | str, str, str]) -> JsonObject:
    """The level rows of a form that had none."""
    fields: JsonObject = {
        "levels-TOTAL_FORMS": len(rows),
        "levels-INITIAL_FORMS": 0,
        "levels-MIN_NUM_FORMS": 0,
        "levels-MAX_NUM_FORMS": 1000,
    }
    for index, (percent, action, notify) in enumerate(rows):
        fields |= {
            f"levels-{index}-percent": percent,
            f"levels-{index}-action": action,
            f"levels-{index}-notify": notify,
        }
    return fields


def budget_form(*rows: tuple[int | str, str, str], **changes: object) -> JsonObject:
    return {
        "form_token": uuid.uuid4().hex,
        "name": "Research agents",
        "mode": "enforce",
        "limit_cost_nanos": "12.50",
        "limit_tokens": "",
        "limit_requests": "",
        "limit_tool_calls": "",
        "limit_seconds": "",
        "match_0": "team",
        "match_1": "growth\nresearch, inc",
        "per": ["agent"],
        "period": "month",
        "timezone": "Europe/Berlin",
        "anchor_at_0": "",
        "anchor_at_1": "",
        "rollover_max_percent": "100",
        **levels(*rows),
        **changes,
    }


def price_form(**changes: object) -> JsonObject:
    return {
        "form_token": uuid.uuid4().hex,
        "model": "house-model",
        "provider": "",
        "rate_input_tokens": "0.125",
        "rate_output_tokens": "$1000",
        "effective_from_0": "2026-01-01",
        "effective_from_1": "00:00:00",
        "effective_to_0": "",
        "effective_to_1": "",
        "note": "contract",
        **changes,
    }


def changed(account: Account) -> list[tuple[str, str, str]]:
    with account.scope():
        return [
            (audit_entry.actor, audit_entry.action, audit_entry.object_type)
            for audit_entry in AuditEntry.objects.filter(tenant=account.tenant).order_by("id")
        ]


def errors_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.get("Location")
    return re.sub(r"\s+", " ", answer.content.decode())


@pytest.mark.parametrize("role", list(Role))
def test_every_member_reads_the_lists_and_forms_are_by_role(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    budget = make_budget(account)
    client = as_role(role)
    for path in (*LISTS, f"metering/budget/{budget.id}/change"):
        assert client.get(f"/admin/{path}/", follow=True).status_code == 200, path
    assert client.get("/admin/tenants/tenant/", follow=True).status_code == 200
    may_money = role in {Role.OWNER, Role.ADMIN, Role.FINANCE}
    may_access = role in {Role.OWNER, Role.ADMIN}
    for path in MONEY_FORMS:
        expected = 200 if may_money else 403
        assert client.get(f"/admin/{path}/add/").status_code == expected, path
    for path in ACCESS_FORMS:
        expected = 200 if may_access else 403
        assert client.get(f"/admin/{path}/add/").status_code == expected, path


@pytest.mark.parametrize("role", [Role.ENGINEER, Role.VIEWER])
def test_who_may_not_write_changes_nothing_by_post(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    budget = make_budget(account, name="as it was")
    client = as_role(role)
    before = changed(account)
    for path, form in (
        (f"metering/budget/{budget.id}/change", budget_form(name="other")),
        (f"metering/budget/{budget.id}/delete", {"post": "yes"}),
        ("metering/budget/add", budget_form()),
        ("metering/tenantprice/add", price_form()),
        ("tenants/apikey/add", {"name": "x", "scopes": ["manage"]}),
        ("tenants/membership/add", {"email": "x@example.com", "role": "owner"}),
        ("tenants/invitation/add", {"email": "x@example.com", "role": "owner"}),
        (f"tenants/tenant/{account.tenant.id}/change", {"timezone": "Asia/Tokyo"}),
    ):
        assert client.post(f"/admin/{path}/", form).status_code == 403, path
    assert changed(account) == before


def test_finance_gives_no_access(account: Account, as_role: Callable[[Role], Client]) -> None:
    client = as_role(Role.FINANCE)
    form = {"name": "x", "scopes": ["manage"], "expires_at_0": "", "expires_at_1": ""}
    assert client.post("/admin/tenants/apikey/add/", form).status_code == 403
    answer = client.post("/admin/metering/budget/add/", budget_form((100, "block", "")))
    assert answer.status_code == 302


def test_a_budget_is_made_with_its_levels_and_counts_what_was_spent(
    account: Account, owner: Client
) -> None:
    send(account, [make_event(team="growth", agent="a", cost_usd="10")])
    form = budget_form(
        (100, "block", "finance, engineering"), (70, "none", "team_lead"), ("", "none", "")
    )
    assert owner.post("/admin/metering/budget/add/", form)["Location"].endswith("/metering/budget/")
    with account.scope():
        budget = Budget.objects.get(tenant=account.tenant)
        assert budget.match == {"team": ["growth", "research, inc"]}
        assert (budget.per, budget.timezone) == (["agent"], "Europe/Berlin")
        assert budget.limit_cost_nanos == 12_500_000_000
        result = [(level.percent, level.action, level.notify) for level in budget.levels.all()]
        assert Crossing.objects.filter(budget=budget).values_list("percent", flat=True)[0] == 70
    assert result == [(70, "none", ["team_lead"]), (100, "block", ["finance", "engineering"])]
    assert windows_of(account, budget)[0].spent_nanos == 10 * NANOS
    assert changed(account)[-1] == (account.email, "create", "budget")


def test_a_budget_over_a_long_past_says_that_it_still_counts(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "AT_ONCE_MAX", 1)
    send(account, [make_event(team="growth", cost_usd="1") for _ in range(2)])
    form = budget_form((100, "block", ""))
    answer = owner.post("/admin/metering/budget/add/", form, follow=True)
    html = answer.content.decode()
    assert "enforces what it has counted so far" in html
    for path in ("/admin/metering/budget/", "/budgets"):
        assert "still counting" in owner.get(path).content.decode(), path
    jobs = owner.get("/admin/metering/backgroundjob/").content.decode()
    assert "Research agents" in jobs
    assert "0%" in jobs
    finish_jobs()
    for path in ("/admin/metering/budget/", "/budgets"):
        assert "still counting" not in owner.get(path).content.decode(), path


def test_a_second_click_makes_no_second_budget(account: Account, owner: Client) -> None:
    form = budget_form((100, "block", ""))
    assert owner.post("/admin/metering/budget/add/", form).status_code == 302
    answer = owner.post("/admin/metering/budget/add/", form, follow=True)
    assert b"nothing was done twice" in answer.content
    with account.scope():
        assert Budget.objects.filter(tenant=account.tenant).count() == 1


class FormReader(HTMLParser):
    """Collects the fields of a page's forms as a browser would send them back."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: JsonObject = {}
        self.name: str | None = None
        self.is_text = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        result = dict(attrs)
        name = result.get("name")
        if tag == "option" and "selected" in result and self.name is not None:
            self.fields[self.name] = result.get("value")
        elif tag in {"select", "textarea"}:
            self.name, self.is_text = name, tag == "textarea"
            self.fields[str(name)] = ""
        elif tag == "input" and result.get("type") == "checkbox":
            if "checked" in result:
                self.fields.setdefault(str(name), []).append(result.get("value") or "on")
        elif tag == "input" and name:
            self.fields[name] = result.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag in {"select", "textarea"}:
            self.name, self.is_text = None, False

    def handle_data(self, data: str) -> None:
        if self.is_text and self.name is not None:
            self.fields[self.name] += data.removeprefix("\n")


def saved_form(client: Client, path: str) -> JsonObject:
    """A change form's fields, unchanged."""
    reader = FormReader()
    reader.feed(client.get(path).content.decode())
    return {name: value for name, value in reader.fields.items() if "__prefix__" not in name}


def test_saving_a_budget_unchanged_changes_nothing(account: Account, owner: Client) -> None:
    budget = make_budget(
        account,
        match={"team": ["b", "a"], "customer": None},
        per=["customer", "agent"],
        levels=[(70, "none"), (100, "block")],
        has_rollover=True,
    )
    path = f"/admin/metering/budget/{budget.id}/change/"
    before = changed(account)
    assert owner.post(path, saved_form(owner, path)).status_code == 302
    with account.scope():
        stored = Budget.objects.get(id=budget.id)
        assert (stored.revision, stored.match) == (1, {"team": ["b", "a"], "customer": None})
        assert stored.per == ["customer", "agent"]
        assert [level.percent for level in stored.levels.all()] == [70, 100]
    assert changed(account) == before


def test_a_match_that_no_form_would_make_survives_being_saved(
    account: Account, owner: Client
) -> None:
    match = {
        "team": ["a", "a\\nb", "Zo\u00eb", "\\"],
        "customer": "c",
        "agent": "d",
        "user": "e",
        "feature": ["f", None],
        "status": "error",
    }
    budget = make_budget(account, match=match)
    path = f"/admin/metering/budget/{budget.id}/change/"
    assert owner.post(path, saved_form(owner, path)).status_code == 302
    with account.scope():
        stored = Budget.objects.get(id=budget.id)
    assert (stored.match, stored.revision) == (match, 1)


def test_a_change_of_levels_and_limit_is_made_and_logged(account: Account, owner: Client) -> None:
    budget = make_budget(account, cost_usd=100, levels=[(70, "none"), (100, "block")])
    send(account, [make_event(cost_usd="45")])
    path = f"/admin/metering/budget/{budget.id}/change/"
    form = saved_form(owner, path)
    form |= {"limit_cost_nanos": "80", "levels-0-percent": "50", "levels-1-DELETE": "on"}
    assert "This budget stops refusing calls" in errors_of(owner.post(path, form))
    assert owner.post(path, {**form, "_confirmed": "yes"}).status_code == 302
    with account.scope():
        stored = Budget.objects.get(id=budget.id)
        assert (stored.limit_cost_nanos, stored.revision) == (80 * NANOS, 1)
        assert [level.percent for level in stored.levels.all()] == [50]
        assert Crossing.objects.get(budget=stored).percent == 50
    assert changed(account)[-1] == (account.email, "update", "budget")


@each_case(
    ("changes", "words"),
    [
        ({"limit_cost_nanos": ""}, "Give at least one limit: cost, tokens"),
        ({"limit_cost_nanos": "a lot"}, "Write 1200.50: digits alone"),
        ({"limit_cost_nanos": "-5"}, "Write an amount that is not below 0"),
        ({"limit_cost_nanos": "1e400"}, "Write 1200.50: digits alone"),
        ({"match_1": ""}, "Give at least one value of team"),
        ({"match_0": "", "match_1": "x"}, "Choose the dimension"),
        ({"match_3": "team", "match_4": "x"}, "chosen twice"),
        ({"match_0": "status", "match_1": "odd"}, "Status: A value must be one of"),
        ({"match_1": "x" * 201}, "a string of 1 to 200 characters"),
        ({"period": "lifetime", "is_rolling": "on"}, "no periods that follow"),
        ({"has_rollover": "on", "is_rolling": "on"}, "no periods that end"),
        ({"per": ["shoe_size"]}, "not one of the available choices"),
        ({"timezone": "Mars/Base"}, "not one of the available choices"),
        ({"anchor_at_0": "2026-01-01", "anchor_at_1": "00:00:30"}, "whole minutes"),
        (levels((70, "none", ""), (70, "block", "")), "at the same percentage"),
        (levels((0, "none", "")), "greater than or equal to 1"),
    ],
)
def test_what_is_no_budget_is_refused_in_words(
    account: Account, owner: Client, changes: JsonObject, words: str
) -> None:
    answer = owner.post("/admin/metering/budget/add/", budget_form(**changes))
    assert words in errors_of(answer)
    with account.scope():
        assert not Budget.objects.filter(tenant=account.tenant).exists()


def test_an_archived_budget_can_be_seen_and_not_changed(account: Account, owner: Client) -> None:
    budget = make_budget(account, name="old one")
    path = f"/admin/metering/budget/{budget.id}"
    assert (
        b"From the next call on, it stops counting and blocking"
        in owner.get(f"{path}/delete/").content
    )
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        assert Budget.objects.get(id=budget.id).archived_at is not None
    assert b"old one: archived." in owner.get("/admin/metering/budget/").content
    assert b"old one" not in owner.get("/admin/metering/budget/").content
    assert b"old one" in owner.get("/admin/metering/budget/?archived=yes").content
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 403
    assert changed(account)[-1] == (account.email, "archive", "budget")


def test_a_price_in_usd_prices_what_had_none(account: Account, owner: Client) -> None:
    send(account, [make_event(model="house-model", provider="house")])
    form_page = owner.get("/admin/metering/tenantprice/add/?model=house-model&provider=house")
    assert b'value="house-model"' in form_page.content
    answer = owner.post("/admin/metering/tenantprice/add/", price_form())
    assert answer.status_code == 302
    with account.scope():
        price = TenantPrice.objects.get(tenant=account.tenant)
        assert price.rates["input_tokens"] == {"nanos": "125000000", "per": 1_000_000}
        assert price.rates["output_tokens"]["nanos"] == "1000000000000"
    # 1,000 input tokens at $0.125 and 100 output tokens at $1,000 a million.
    assert b'title="$0.100125"' in owner.get("/").content
    assert (
        b"input $0.125, output $1000 per million"
        in owner.get("/admin/metering/tenantprice/").content
    )
    assert (account.email, "create", "tenantprice") in changed(account)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate_input_tokens": "", "rate_output_tokens": ""}, "Give at least one rate."),
        ({"rate_input_tokens": "free"}, "Write 1200.50: digits alone"),
        ({"effective_to_0": "2025-01-01", "effective_to_1": "00:00"}, "later than the start"),
        (
            {"rate_input_tokens": "", "rate_output_tokens": "", "rate_cache_read_tokens": "1"},
            "rror",
        ),
    ],
)
def test_what_is_no_price_is_refused_in_words(
    account: Account, owner: Client, changes: JsonObject, words: str
) -> None:
    answer = owner.post("/admin/metering/tenantprice/add/", price_form(**changes))
    assert words in errors_of(answer)
    with account.scope():
        assert not TenantPrice.objects.filter(tenant=account.tenant).exists()


def test_prices_are_ended_and_stay(account: Account, owner: Client) -> None:
    tool = {
        "form_token": uuid.uuid4().hex,
        "tool": "web_search",
        "call_nanos": "0.01",
        "effective_from_0": "2026-01-01",
        "effective_from_1": "00:00",
        "effective_to_0": "",
        "effective_to_1": "",
        "note": "",
    }
    assert owner.post("/admin/metering/toolprice/add/", tool).status_code == 302
    with account.scope():
        price = ToolPrice.objects.get(tenant=account.tenant)
    assert price.call_nanos == 10_000_000
    path = f"/admin/metering/toolprice/{price.id}"
    assert owner.post(f"{path}/change/", tool).status_code == 403
    assert b"End price" in owner.get(f"{path}/change/").content
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        price.refresh_from_db()
    assert price.effective_to is not None
    assert price.effective_to <= timezone.now()


def key_form(**changes: object) -> JsonObject:
    return {
        "form_token": uuid.uuid4().hex,
        "name": "production",
        "scopes": ["ingest", "read"],
        "expires_at_0": "",
        "expires_at_1": "",
        **changes,
    }


def test_a_key_is_shown_once_works_and_is_revoked(account: Account, owner: Client) -> None:
    form = key_form()
    answer = owner.post("/admin/tenants/apikey/add/", form)
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    (text,) = set(re.findall(r"sg_[a-z0-9]{12}_[\w-]+", answer.content.decode()))
    holder = find_key_holder(text)
    assert holder is not None
    assert (holder.tenant_id, holder.scopes) == (account.tenant.id, frozenset({"ingest", "read"}))
    again = owner.post("/admin/tenants/apikey/add/", form, follow=True)
    assert b"nothing was done twice" in again.content
    secret = text.split("_", 2)[2].encode()
    for path in ("apikey", f"apikey/{holder.key_id}/change", "auditentry"):
        assert secret not in owner.get(f"/admin/tenants/{path}/").content
    with account.scope():
        key = ApiKey.objects.get(name="production")
        assert key.created_by is not None
        assert key.created_by.email == account.email
    path = f"/admin/tenants/apikey/{key.id}"
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        key.refresh_from_db()
    assert key.revoked_at is not None
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 403
    assert [each[1:] for each in changed(account)[-2:]] == [
        ("create", "apikey"),
        ("update", "apikey"),
    ]


def test_a_key_that_is_over_already_is_refused(account: Account, owner: Client) -> None:
    yesterday = timezone.now() - timedelta(days=1)
    form = key_form(expires_at_0=f"{yesterday:%Y-%m-%d}", expires_at_1="00:00")
    assert "This time is in the past" in errors_of(owner.post("/admin/tenants/apikey/add/", form))
    nothing = key_form(scopes=[])
    assert "Choose at least one scope." in errors_of(
        owner.post("/admin/tenants/apikey/add/", nothing)
    )
    with account.scope():
        assert ApiKey.objects.filter(tenant=account.tenant).count() == 1


def member_form(email: str, role: str) -> JsonObject:
    return {"form_token": uuid.uuid4().hex, "email": email, "role": role}


def test_members_are_added_by_invitation_and_once(account: Account, owner: Client) -> None:
    answer = owner.get("/admin/tenants/membership/add/")
    assert answer["Location"] == "/admin/tenants/invitation/add/"
    repeated = owner.post(
        "/admin/tenants/invitation/add/", member_form(account.email.upper(), "viewer"), follow=True
    )
    assert b"is a member already" in repeated.content


def test_only_owners_make_owners_and_one_always_stays(account: Account, owner: Client) -> None:
    with account.scope():
        own = Membership.objects.get(tenant=account.tenant)
    path = f"/admin/tenants/membership/{own.id}"
    answer = owner.post(f"{path}/change/", {"role": "viewer"}, follow=True)
    assert b"This is the only owner" in answer.content
    answer = owner.post(f"{path}/delete/", {"post": "yes"}, follow=True)
    assert b"This is the only owner" in answer.content
    admin = sign_in(make_member(account, Role.ADMIN))
    refused = admin.post("/admin/tenants/invitation/add/", member_form("a@example.com", "owner"))
    assert "not one of the available choices" in errors_of(refused)
    answer = admin.post(f"{path}/delete/", {"post": "yes"}, follow=True)
    assert b"Only an owner" in answer.content
    with account.scope():
        assert Membership.objects.get(id=own.id).role == "owner"


def test_a_removed_member_is_out_at_once(account: Account, owner: Client) -> None:
    email = make_member(account, Role.ENGINEER)
    client = sign_in(email)
    assert client.get("/budgets").status_code == 200
    with account.scope():
        membership = Membership.objects.get(tenant=account.tenant, user__email=email)
    answer = owner.post(f"/admin/tenants/membership/{membership.id}/delete/", {"post": "yes"})
    assert answer.status_code == 302
    assert client.get("/budgets").status_code == 403
    assert changed(account)[-1] == (account.email, "delete", "membership")


def test_teams_have_members_of_the_tenant_alone(
    account: Account, stranger: Account, owner: Client
) -> None:
    with account.scope():
        person = Membership.objects.get(tenant=account.tenant).user
    with stranger.scope():
        foreign = Membership.objects.get(tenant=stranger.tenant).user
    form = {
        "form_token": uuid.uuid4().hex,
        "name": "growth",
        "members-TOTAL_FORMS": 1,
        "members-INITIAL_FORMS": 0,
        "members-0-user": foreign.id,
        "members-0-is_lead": "on",
    }
    assert "not one of the available choices" in errors_of(
        owner.post("/admin/tenants/team/add/", form)
    )
    assert stranger.email not in owner.get("/admin/tenants/team/add/").content.decode()
    form["members-0-user"] = person.id
    assert owner.post("/admin/tenants/team/add/", form).status_code == 302
    with account.scope():
        member = TeamMember.objects.get(team__name="growth")
        assert (member.user_id, member.is_lead) == (person.id, True)
        team = Team.objects.get(name="growth")
    path = f"/admin/tenants/team/{team.id}/change/"
    kept = saved_form(owner, path)
    assert owner.post(path, {**kept, "members-0-DELETE": "on"}).status_code == 302
    with account.scope():
        assert not TeamMember.objects.filter(team=team).exists()
    repeated = {**form, "form_token": uuid.uuid4().hex}
    assert "There is already a team with this name." in errors_of(
        owner.post("/admin/tenants/team/add/", repeated)
    )


def test_a_team_is_renamed_by_the_rule_of_its_page(account: Account, owner: Client) -> None:
    with account.scope():
        team = create_team(tenant=account.tenant, name="growth", actor="tests")
        other = create_team(tenant=account.tenant, name="other", actor="tests")
    path = f"/admin/tenants/team/{team.id}/change/"
    assert "that name “growth”, keep that name" in owner.get(path).content.decode()
    assert owner.post(path, {**saved_form(owner, path), "name": "growth-eu"}).status_code == 302
    path = f"/admin/tenants/team/{other.id}/change/"
    kept = saved_form(owner, path)
    taken = owner.post(path, {**kept, "name": "growth-eu"})
    assert "There is already a team with this name." in errors_of(taken)
    former = owner.post(path, {**kept, "name": "growth"}, follow=True).content.decode()
    assert "There is already a team named &#x27;growth&#x27;." in former
    with account.scope():
        names = {team.name: team.former_names for team in Team.objects.all()}
    assert names == {"growth-eu": ["growth"], "other": []}


def test_settings_are_the_tenants_own(account: Account, stranger: Account, owner: Client) -> None:
    path = f"/admin/tenants/tenant/{account.tenant.id}/change/"
    form = {
        "timezone": "Asia/Tokyo",
        "unpriced_policy": "assume",
        "assumed_input_nanos_per_mtok": "3.5",
        "assumed_output_nanos_per_mtok": "",
    }
    assert "Give both rates to assume them." in errors_of(owner.post(path, form))
    form["assumed_output_nanos_per_mtok"] = "15"
    assert owner.post(path, form).status_code == 302
    with account.scope():
        tenant = Tenant.objects.get(id=account.tenant.id)
    assert (tenant.timezone, tenant.assumed_input_nanos_per_mtok) == ("Asia/Tokyo", 3_500_000_000)
    assert b'value="3.5"' in owner.get(path).content
    foreign = owner.post(f"/admin/tenants/tenant/{stranger.tenant.id}/change/", form)
    assert foreign.status_code == 302
    assert "/tenants/tenant/" not in foreign["Location"]
    with stranger.scope():
        assert Tenant.objects.get(id=stranger.tenant.id).timezone == "UTC"


def test_a_strangers_rows_are_not_there(account: Account, stranger: Account, owner: Client) -> None:
    budget = make_budget(stranger, name="secret-budget")
    with stranger.scope():
        key = ApiKey.objects.get(tenant=stranger.tenant)
        member = Membership.objects.get(tenant=stranger.tenant)
        entry = AuditEntry.objects.filter(tenant=stranger.tenant).latest("id")
    for path in LISTS:
        html = owner.get(f"/admin/{path}/").content.decode()
        assert "secret-budget" not in html, path
        assert stranger.email not in html, path
    for path in (
        f"metering/budget/{budget.id}",
        f"tenants/apikey/{key.id}",
        f"tenants/membership/{member.id}",
        f"tenants/auditentry/{entry.id}",
    ):
        for page in ("change", "delete"):
            answer = owner.post(f"/admin/{path}/{page}/", {"post": "yes"})
            assert answer.status_code in {302, 403, 404}, path
            assert owner.get(f"/admin/{path}/{page}/").status_code in {302, 403, 404}, path
    with stranger.scope():
        assert Budget.objects.get(id=budget.id).archived_at is None
        assert ApiKey.objects.get(id=key.id).revoked_at is None
        assert Membership.objects.filter(id=member.id).exists()


def test_the_audit_log_is_read_only(account: Account, owner: Client) -> None:
    budget = make_budget(account)
    with account.scope():
        entry = AuditEntry.objects.filter(tenant=account.tenant).latest("id")
    path = f"/admin/tenants/auditentry/{entry.id}"
    assert owner.get(f"{path}/change/").status_code == 200
    assert owner.post(f"{path}/change/", {}).status_code == 403
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 403
    history = owner.get(f"/admin/metering/budget/{budget.id}/history/", follow=True)
    assert history.status_code == 200
    assert budget.name not in {"", None}


def test_evaluation_is_allowed_under_the_admin_alone(account: Account, owner: Client) -> None:
    answer = owner.get("/admin/metering/budget/add/")
    assert "script-src 'self' 'unsafe-eval';" in answer["Content-Security-Policy"] + ";"
    assert "unsafe-eval" not in owner.get("/")["Content-Security-Policy"]
    assert "unsafe-eval" not in owner.get("/budgets")["Content-Security-Policy"]
    html = answer.content.decode()
    assert [tag for tag in re.findall(r"<script[^>]*>", html) if "src=" not in tag] == []


def test_hostile_names_are_escaped_in_the_admin(account: Account, owner: Client) -> None:
    name = "<script>alert(1)</script>"
    budget = make_budget(account, name=name, match={"team": name})
    for path in ("", f"{budget.id}/change/", f"{budget.id}/delete/"):
        html = owner.get(f"/admin/metering/budget/{path}").content.decode()
        assert "<script>alert" not in html
        assert "&lt;script&gt;" in html


def test_old_addresses_of_the_admins_own_accounts_lead_to_the_pages(owner: Client) -> None:
    assert owner.get("/admin/password_change/")["Location"] == "/password"
    assert owner.post("/admin/logout/")["Location"] == "/logout"


@pytest.mark.parametrize(
    ("address", "fields"),
    [
        ("/admin/tenants/invitation/add/", {"email": "new@example.com", "role": "viewer"}),
        ("/admin/tenants/team/add/", {"name": "growth"}),
        ("/admin/metering/budget/add/", budget_form()),
    ],
)
def test_a_form_is_saved_as_it_was_shown(
    account: Account, client: Client, address: str, fields: JsonObject
) -> None:
    """With the token that the page holds, as a browser sends it."""
    client.login(username=account.email, password=account.password)
    shown = client.get(address).content.decode()
    token = re.search(r'name="form_token" value="([^"]+)"', shown)
    assert token is not None
    rows = dict(re.findall(r'name="([a-z_-]+-(?:TOTAL|INITIAL)_FORMS)" value="(\d+)"', shown))
    answer = client.post(address, {**rows, **fields, "form_token": token[1]})
    assert answer.status_code in (200, 302), answer.content.decode()[:300]
    assert "cannot be read" not in answer.content.decode()


def test_a_team_whose_name_cannot_be_seen_is_refused(owner: Client) -> None:
    form = saved_form(owner, "/admin/tenants/team/add/")
    answer = owner.post("/admin/tenants/team/add/", {**form, "name": "\u200b\u2060"})
    assert "This field cannot be blank." in answer.content.decode()
