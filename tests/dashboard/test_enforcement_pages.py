"""Pages of enforcement: decide requests, halt and lift, read decisions; by role, one tenant."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from common.json_bodies import JsonObject
from dashboard.amounts import listed
from dashboard.enforcement.matches import calls_of
from dashboard.findings import decisions_headline
from metering.budgets.reading import read_budget_index
from metering.configuration.breakers import create_breaker
from metering.configuration.budgets import archive_budget
from metering.core.amounts import format_amount
from metering.core.match import group_key
from metering.limits.breakers.states import open_groups
from metering.limits.decisions import DecisionRow, insert_decisions
from metering.limits.halts import halt, lift_halt
from metering.limits.limit_increases import (
    Added,
    IncreaseAsk,
    approve_increase,
    ask_for_increase,
    refuse_increase,
)
from metering.models import Breaker, Budget, Decision, Halt, LimitIncrease
from metering.reporting.budget_windows import full_parts, watched_windows
from tenants.keys import create_api_key
from tenants.limits import set_limit
from tenants.models import AuditEntry
from tenants.roles import Role
from tenants.settings import change_settings
from tests.factories import NANOS, Account, make_budget, make_event, send
from tests.metering.api.caller import Caller, caller

PAGES = (
    "/enforcement/requests",
    "/enforcement/halts",
    "/enforcement/halts/confirm?dimension=agent&value=a",
    "/enforcement/decisions",
    "/enforcement/estimates",
)
HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "{{ 7 * 7 }}{% csrf_token %}",
    "名前 \u202e reversed",
    "a&b=c#d",
    "x" * 200,
]
MODEL = {"provider": "anthropic", "model": "claude-sonnet-4-5"}
MANAGERS = {Role.OWNER, Role.ADMIN, Role.FINANCE}


def page(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return answer.content.decode()


def text_of(html: str) -> str:
    """What a page says, without its tags, every white space as one space."""
    return (
        re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html)))
        .replace(" .", ".")
        .replace(" ,", ",")
    )


def words(client: Client, path: str) -> str:
    return text_of(page(client, path))


def press(client: Client, path: str, **fields: str) -> str:
    """Press a button of a page; answers what the page that follows says."""
    answer = client.post(path, fields, follow=True)
    assert answer.status_code == 200, path
    assert len(answer.redirect_chain) == 1
    return text_of(answer.content.decode())


def make_raise(
    account: Account, budget: Budget, *, usd: int = 50, agent: str | None = "a", **fields: Any
) -> LimitIncrease:
    """A request for 50 dollars more for an hour."""
    ask = IncreaseAsk(
        add=Added(cost_nanos=usd * NANOS),
        reason=fields.pop("reason", "A large import"),
        ends_at=timezone.now() + timedelta(hours=1),
        group_key="" if agent is None else group_key([agent]),
        **fields,
    )
    with account.scope():
        return ask_for_increase(budget=budget, actor="API key sg_abc", ask=ask)


def make_halt(account: Account, **match: object) -> Halt:
    with account.scope():
        return halt(tenant=account.tenant, match=match, reason="It loops", actor="Ana")


def make_breaker(account: Account, **fields: object) -> Breaker:
    with account.scope():
        return create_breaker(
            tenant=account.tenant,
            actor="tests",
            **{"name": "Runaway", "cost_nanos_per_minute": NANOS, "per": ["agent"], **fields},
        )


def record(account: Account, *rows: JsonObject) -> None:
    """Decisions, a minute apart, the newest first."""
    now = timezone.now()
    decided = [
        DecisionRow(
            **{
                "decided_at": now - timedelta(minutes=index),
                "decision": "refuse",
                "code": "budget_exceeded",
                "dimensions": {"agent": "a"},
                "reasons": [
                    {"budget": 1, "name": "Daily", "mode": "enforce", "detail": "No room."}
                ],
                **row,
            }
        )
        for index, row in enumerate(rows)
    ]
    with account.scope(), connection.cursor() as cursor:
        insert_decisions(cursor, account.tenant.id, decided)


def stored(account: Account, model: Any) -> list[JsonObject]:
    with account.scope():
        return list(model.objects.order_by("id").values())


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


# Requests


def test_a_request_is_shown_with_what_an_approval_means(account: Account, owner: Client) -> None:
    budget = make_budget(account, name="Daily", per=["agent"])
    send(account, [make_event(agent="a", cost_usd="40")])
    make_raise(account, budget)
    said = words(owner, "/enforcement/requests")
    assert "1 pending request" in said
    assert "$50.00 more for agent “a” of Daily" in said
    assert "A large import" in said
    assert "API key sg_abc asked" in said
    assert "40% now · $40.00 of $100.00" in said
    assert re.search(
        r"Approve: the limit is \$50\.00 higher for agent “a” until [^.]*\."
        r" New calls go through immediately\.",
        said,
    )
    assert "Refuse: the limit stays as it is. It can be requested again." in said


def test_an_approval_that_would_not_help_says_so(account: Account, owner: Client) -> None:
    budget = make_budget(account, per=["agent"])
    send(account, [make_event(agent="a", cost_usd="160")])
    make_raise(account, budget)
    said = words(owner, "/enforcement/requests")
    assert "not enough: its cost would still be used up" in said
    assert "New calls go through immediately" not in said


def test_an_approval_counts_by_the_lowest_level_that_refuses(
    account: Account, owner: Client
) -> None:
    levels = [(20, "none"), (50, "hold"), (100, "block")]
    budget = make_budget(account, per=["agent"], levels=levels)
    send(account, [make_event(agent="a", cost_usd="76")])
    make_raise(account, budget)
    assert "not enough: its cost" in words(owner, "/enforcement/requests")
    make_raise(account, budget, usd=53, agent=None)
    assert "It applies to new calls immediately." in words(owner, "/enforcement/requests")


def test_a_budget_that_refuses_nothing_says_that_no_call_depends_on_it(
    account: Account, owner: Client
) -> None:
    make_raise(account, make_budget(account, per=["agent"], mode="shadow"))
    said = words(owner, "/enforcement/requests")
    assert "Shadow: monitors only" in said
    assert "enforced, so no calls are affected." in said


def test_an_approval_is_in_force_at_once_with_its_note(
    account: Account, owner: Client, api: Caller
) -> None:
    budget = make_budget(account, per=["agent"], cost_usd=1)
    asked = make_raise(account, budget)
    ask = {"amount_usd": "20", "agent": "a"}
    assert api.post("/v1/reservations", ask).code == "budget_exceeded"
    said = press(owner, f"/enforcement/requests/{asked.id}/approve", note="Until noon")
    assert "was raised. It applies to new calls immediately." in said
    assert "No pending requests" in said
    assert "Active increases" in said
    assert "“Until noon”" in said
    assert api.post("/v1/reservations", ask).status == 201
    with account.scope():
        approved = LimitIncrease.objects.get()
        assert (approved.status, approved.decided_by) == ("approved", account.email)
        entry = AuditEntry.objects.latest("id")
        assert (entry.actor, entry.action) == (account.email, "approve")


def test_an_approval_says_what_else_stops_the_calls_and_offers_to_lift_it(
    account: Account, owner: Client, api: Caller
) -> None:
    asked = make_raise(account, make_budget(account, per=["agent"], cost_usd=1))
    halt = api.post("/v1/halts", {"match": {}, "reason": "A leak of keys."}).body["id"]
    said = press(owner, f"/enforcement/requests/{asked.id}/approve")
    assert "was raised, but such calls are still stopped: A leak of keys." in said
    assert "still stopped A leak of keys. Lift…" in said
    press(owner, f"/enforcement/halts/{halt}/lift")
    assert "still stopped" not in words(owner, "/enforcement/requests")


def test_a_refusal_leaves_the_limit_and_can_be_read_below(account: Account, owner: Client) -> None:
    budget = make_budget(account, per=["agent"])
    asked = make_raise(account, budget)
    said = press(owner, f"/enforcement/requests/{asked.id}/refuse", note="Use the smaller model")
    assert "The request was refused." in said
    assert "refused" in said.split("Past requests")[1]
    assert "“Use the smaller model”" in said
    with account.scope():
        assert read_budget_index(account.tenant.id).rules[budget.id].raises == ()


def test_a_raise_is_ended_before_its_time(account: Account, owner: Client) -> None:
    budget = make_budget(account, per=["agent"])
    asked = make_raise(account, budget, agent=None)
    with account.scope():
        approve_increase(limit_increase=asked, actor="tests")
    said = words(owner, "/enforcement/requests")
    assert "$50.00 more for every agent" in said
    assert "End this increase now?" in said
    said = press(owner, f"/enforcement/requests/{asked.id}/end")
    assert "The increase has ended." in said
    assert "approved, ended" in said
    assert "Active increases" not in said


def test_what_somebody_else_decided_stays_decided(account: Account, owner: Client) -> None:
    asked = make_raise(account, make_budget(account, per=["agent"]))
    with account.scope():
        refuse_increase(limit_increase=asked, actor="Ben")
    before = stored(account, LimitIncrease)
    said = press(owner, f"/enforcement/requests/{asked.id}/approve")
    assert "This raise was refused by Ben." in said
    assert stored(account, LimitIncrease) == before


def test_a_note_that_cannot_be_stored_decides_nothing(account: Account, owner: Client) -> None:
    asked = make_raise(account, make_budget(account, per=["agent"]))
    before = stored(account, LimitIncrease)
    for note in ("x" * 1001, "a\0b"):
        said = press(owner, f"/enforcement/requests/{asked.id}/approve", note=note)
        assert "nothing was decided" in said
        assert stored(account, LimitIncrease) == before


def test_a_request_of_an_archived_budget_cannot_be_approved(
    account: Account, owner: Client
) -> None:
    budget = make_budget(account, per=["agent"])
    asked = make_raise(account, budget)
    with account.scope():
        archive_budget(budget=budget, actor="tests")
    assert "archived" in words(owner, "/enforcement/requests")
    said = press(owner, f"/enforcement/requests/{asked.id}/approve")
    assert "The budget is archived" in said
    assert stored(account, LimitIncrease)[0]["status"] == "asked"


def test_a_request_that_a_level_made_says_so(account: Account, owner: Client, api: Caller) -> None:
    make_budget(account, per=["agent"], cost_usd=10, levels=[(80, "hold"), (100, "block")])
    answer = api.post("/v1/reservations", {"amount_usd": "9", "agent": "a"})
    assert answer.code == "approval_needed"
    said = words(owner, "/enforcement/requests")
    assert "$9.00 more for agent “a”" in said
    assert "A budget's level asked" in said
    assert "held at 80%" in said
    assert "ask again in this period." in said


def test_decided_requests_come_page_by_page(account: Account, owner: Client) -> None:
    budget = make_budget(account, per=["agent"])
    for number in range(27):
        asked = make_raise(account, budget, agent=f"a{number}")
        with account.scope():
            refuse_increase(limit_increase=asked, actor="tests")
    first = page(owner, "/enforcement/requests")
    assert first.count(">refused<") == 25
    older = re.search(r'href="(\?before=\d+)', first)
    assert older is not None
    second = page(owner, f"/enforcement/requests{older[1]}")
    assert second.count(">refused<") == 2
    assert "agent “a1”" in second
    assert "agent “a26”" not in second


def raise_form(**changes: object) -> JsonObject:
    ends_at = timezone.now() + timedelta(hours=1)
    return {
        "cost_nanos": "12.50",
        "ends_at": f"{ends_at:%Y-%m-%dT%H:%M}",
        "reason": "Launch day",
        **changes,
    }


def test_a_raise_made_by_hand_is_in_force_at_once(account: Account, owner: Client) -> None:
    budget = make_budget(account, name="Daily", per=["team", "agent"])
    path = f"/enforcement/requests/new?budget={budget.id}"
    assert f'<option value="{budget.id}">Daily' in page(owner, "/enforcement/requests")
    assert "Raise the limit of “Daily”" in words(owner, path)
    said = press(owner, path, **raise_form(group_team="growth", group_agent="reader "))
    assert "The limit of “Daily” was raised." in said
    assert "$12.50 more for team “growth” and agent “reader”" in said
    press(owner, path, **raise_form(is_for_one="on"))
    press(owner, path, **raise_form())
    with account.scope():
        rules = read_budget_index(account.tenant.id).rules[budget.id].raises
        assert [(rule.group_key, rule.cost_nanos) for rule in rules] == [
            ('["growth","reader"]', 12_500_000_000),
            ('["",""]', 12_500_000_000),
            ("", 12_500_000_000),
        ]
        entries = AuditEntry.objects.filter(object_type="limitincrease").order_by("id")
        assert [(entry.actor, entry.action) for entry in entries[:2]] == [
            (account.email, "create"),
            (account.email, "approve"),
        ]


def test_a_raise_is_made_once_and_ends_by_the_tenants_clock(
    account: Account, owner: Client
) -> None:
    with account.scope():
        change_settings(tenant=account.tenant, changes={"timezone": "Asia/Kolkata"}, actor="tests")
    path = f"/enforcement/requests/new?budget={make_budget(account).id}"
    html = page(owner, path)
    assert "Time in Asia/Kolkata." in text_of(html)
    token = re.search(r'name="form_token" value="([^"]+)"', html)
    assert token is not None
    form = raise_form(ends_at="2199-01-31T10:00", form_token=token[1])
    press(owner, path, **form)
    assert "This form was sent already" in press(owner, path, **form)
    (row,) = stored(account, LimitIncrease)
    assert row["ends_at"] == datetime(2199, 1, 31, 4, 30, tzinfo=UTC)


def test_a_raise_with_a_digit_too_many_is_asked_about(account: Account, owner: Client) -> None:
    path = f"/enforcement/requests/new?budget={make_budget(account).id}"
    form = raise_form(cost_nanos="900")
    warning = "The limit goes from $100.00 to $1,000.00: 10 times as much."
    for fields in (form, {**raise_form(cost_nanos="9900"), "_confirmed": warning}):
        answer = owner.post(path, fields)
        assert "times as much. Nothing is saved yet." in text_of(answer.content.decode())
        assert stored(account, LimitIncrease) == []
    press(owner, path, **form, _confirmed=warning)
    assert [each["add_cost_nanos"] for each in stored(account, LimitIncrease)] == [900 * NANOS]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cost_nanos": ""}, "Raise at least one part."),
        ({"cost_nanos": "a lot"}, "Write 1200.50: digits alone"),
        ({"ends_at": "2020-01-01T00:00"}, "Must lie in the future."),
        ({"ends_at": ""}, "This field is required"),
        ({"reason": ""}, "This field is required"),
        ({"reason": "x" * 1001}, "at most 1000 characters"),
    ],
)
def test_what_is_no_raise_is_refused_in_words(
    account: Account, owner: Client, changes: JsonObject, words: str
) -> None:
    path = f"/enforcement/requests/new?budget={make_budget(account).id}"
    answer = owner.post(path, raise_form(**changes))
    assert words in text_of(answer.content.decode())
    assert stored(account, LimitIncrease) == []


def test_a_raise_beyond_what_a_tenant_may_have_is_refused_in_words(
    account: Account, owner: Client
) -> None:
    with account.scope():
        set_limit(tenant=account.tenant, name="raises", value=0, actor="tests")
    path = f"/enforcement/requests/new?budget={make_budget(account).id}"
    answer = owner.post(path, raise_form())
    assert "You have reached the limit of 0 raises." in text_of(answer.content.decode())


@pytest.mark.parametrize("role", list(Role))
def test_who_may_change_budgets_may_raise_them(
    account: Account, stranger: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    client, theirs = as_role(role), make_budget(stranger, name="secret-budget")
    path = f"/enforcement/requests/new?budget={make_budget(account).id}"
    may_manage = role in MANAGERS
    assert client.get(path).status_code == (200 if may_manage else 403)
    assert client.post(path, raise_form()).status_code == (302 if may_manage else 403)
    assert len(stored(account, LimitIncrease)) == may_manage
    other = f"/enforcement/requests/new?budget={theirs.id}"
    assert client.post(other, raise_form()).status_code == (404 if may_manage else 403)
    assert stored(stranger, LimitIncrease) == []
    assert "secret-budget" not in page(client, "/enforcement/requests")


# Halts


def test_a_halt_is_confirmed_with_its_consequence_first(
    account: Account, owner: Client, api: Caller
) -> None:
    make_budget(account)
    send(account, [make_event(agent="research", cost_usd="3")])
    assert api.post("/v1/reservations", {"amount_usd": "1", "agent": "research"}).status == 201
    said = words(owner, "/enforcement/halts/confirm?dimension=agent&value=research")
    assert "New calls by agent “research” are refused within a second." in said
    assert "Calls in progress will finish (1 holds a reservation now)." in said
    assert "In the last 24 hours these were 1 requests for $3.00." in said
    assert stored(account, Halt) == []


def test_a_halt_refuses_from_then_on_and_names_who_made_it(
    account: Account, owner: Client, api: Caller
) -> None:
    said = press(
        owner, "/enforcement/halts/make", dimension="agent", value="research", reason="It loops"
    )
    assert "Halted. New calls by agent “research” are refused within a second." in said
    assert "1 halt is in force" in said
    (row,) = stored(account, Halt)
    assert (row["match"], row["reason"], row["kind"], row["actor"]) == (
        {"agent": "research"},
        "It loops",
        "manual",
        account.email,
    )
    answer = api.post("/v1/reservations", {"amount_usd": "1", "agent": "research"})
    assert answer.code == "halted"


def test_a_name_that_nobody_uses_is_pointed_out(account: Account, owner: Client) -> None:
    said = words(owner, "/enforcement/halts/confirm?dimension=agent&value=reserch")
    assert "No such calls were reported in the last 24 hours. Check the spelling" in said


def test_what_is_halted_already_is_said(account: Account, owner: Client) -> None:
    make_halt(account, agent="research")
    said = words(owner, "/enforcement/halts/confirm?dimension=agent&value=research")
    assert "Already halted" in said


INCOMPLETE: list[tuple[dict[str, str], str]] = [
    ({"dimension": "agent", "value": "a", "reason": " "}, "Give a reason"),
    ({"dimension": "agent", "value": "a", "reason": "x" * 1001}, "Give a reason"),
    ({"dimension": "agent", "value": "", "reason": "x"}, "Name what to halt"),
    ({"dimension": "agent", "value": "a\0", "reason": "x"}, "Name what to halt"),
    ({"dimension": "agent", "value": "a" * 201, "reason": "x"}, "Name what to halt"),
    ({"dimension": "status", "value": "error", "reason": "x"}, "Name what to halt"),
    ({"dimension": "operation", "value": "dance", "reason": "x"}, "Name what to halt"),
    ({"value": "a", "reason": "x"}, "Name what to halt"),
]


def test_a_halt_that_is_not_complete_halts_nothing(account: Account, owner: Client) -> None:
    for fields, said in INCOMPLETE:
        assert said in press(owner, "/enforcement/halts/make", **fields), fields
    assert stored(account, Halt) == []


def test_a_halt_of_several_values_is_put_together_before_it_is_made(
    account: Account, owner: Client, api: Caller
) -> None:
    make_budget(account)
    for agent, team in (("a", "growth"), ("b", None), ("c", "growth"), ("a", "sales")):
        ask = {"amount_usd": "1", "agent": agent, **({"team": team} if team else {})}
        assert api.post("/v1/reservations", ask).status == 201
    path = "/enforcement/halts/confirm?"
    each = page(owner, f"{path}calls=agent%3Da&dimension=agent&value=b")
    assert "New calls by agent “a” or “b” are refused" in text_of(each)
    chosen = re.findall(r'type="hidden" name="calls" value="([^"]*)"', each)
    assert chosen[:2] == ["agent=a", "agent=b"]
    query = urlencode(
        {"calls": ["agent=a", "agent=b"], "dimension": "team", "value": "growth"}, True
    )
    assert "1 holds a reservation now" in words(owner, f"{path}{query}")
    query = urlencode({"calls": [*chosen[:2], "team=growth"], "dimension": "team"}, doseq=True)
    assert "Name what to halt" in text_of(owner.get(f"{path}{query}", follow=True).content.decode())
    said = words(owner, f"{path}{query}&without=yes")
    assert "by agent “a” or “b” by team “growth” or without a team" in said
    assert "2 hold a reservation now" in said
    fields = {"calls": ["agent=a", "agent=b", "team=", "team=growth"], "reason": "It loops"}
    assert owner.post("/enforcement/halts/make", fields).status_code == 302
    (row,) = stored(account, Halt)
    assert row["match"] == {"agent": ["a", "b"], "team": [None, "growth"]}
    assert api.post("/v1/reservations", {"amount_usd": "1", "agent": "b"}).code == "halted"
    assert api.post("/v1/reservations", {"amount_usd": "1", "agent": "c"}).status == 201


def test_the_whole_tenant_is_halted(account: Account, owner: Client, api: Caller) -> None:
    asked = words(owner, "/enforcement/halts/confirm?dimension=everything&value=left-over")
    assert "New calls of the whole tenant are refused within a second." in asked
    fields = {"dimension": "everything", "value": "left-over", "reason": "Stop"}
    said = press(owner, "/enforcement/halts/make", **fields)
    assert "The whole tenant" in said
    assert stored(account, Halt)[0]["match"] == {}
    assert api.post("/v1/reservations", {"amount_usd": "1", "agent": "x"}).code == "halted"


def test_a_halt_is_lifted_and_stays_readable(account: Account, owner: Client, api: Caller) -> None:
    made = make_halt(account, agent="research")
    assert "by Ana" in words(owner, "/enforcement/halts")
    said = press(owner, f"/enforcement/halts/{made.id}/lift")
    assert "Lifted. New calls by agent “research” are allowed again within a second." in said
    assert "Nothing is halted" in said
    assert "It loops" in said.split("Lifted")[-1]
    assert stored(account, Halt)[0]["lifted_by"] == account.email
    assert api.post("/v1/reservations", {"amount_usd": "1", "agent": "research"}).status == 201


def test_lifting_the_halt_of_a_breaker_closes_the_breaker(account: Account, owner: Client) -> None:
    breaker = make_breaker(account)
    send(account, [make_event(agent="fast", cost_usd="3")])
    said = words(owner, "/enforcement/halts")
    assert "Open breakers" in said
    assert "spent $3.00 in 60 s, limit $1.00 a minute" in said
    assert "This also closes the breaker “Runaway” for them" in said
    (made,) = stored(account, Halt)
    press(owner, f"/enforcement/halts/{made['id']}/lift")
    with account.scope(), connection.cursor() as cursor:
        assert open_groups(cursor, account.tenant.id, [breaker.id], now=timezone.now()) == {}


def test_a_breaker_is_closed_for_every_group(account: Account, owner: Client) -> None:
    breaker = make_breaker(account)
    send(account, [make_event(agent=agent, cost_usd="3") for agent in ("fast", "faster")])
    path = f"/enforcement/breakers/{breaker.id}/close"
    said = press(owner, path, group=group_key(["fast"]), every="yes")
    assert "The breaker “Runaway” is closed." in said
    assert "Nothing is halted" in said


def test_a_breaker_is_closed_for_one_group(account: Account, owner: Client) -> None:
    breaker = make_breaker(account)
    send(account, [make_event(agent=agent, cost_usd="3") for agent in ("fast", "faster")])
    said = press(owner, f"/enforcement/breakers/{breaker.id}/close", group=group_key(["fast"]))
    assert "The breaker “Runaway” is closed." in said
    assert "1 halt is in force" in said
    with account.scope(), connection.cursor() as cursor:
        (left,) = open_groups(cursor, account.tenant.id, [breaker.id], now=timezone.now())[
            breaker.id
        ]
    assert left.group_key == group_key(["faster"])
    for group in (group_key(["fast"]), "nonsense", ""):
        said = press(owner, f"/enforcement/breakers/{breaker.id}/close", group=group)
        assert "was already closed" in said
    assert "Nothing was closed" in press(
        owner, f"/enforcement/breakers/{breaker.id}/close", group="\0"
    )


def test_a_breaker_that_only_watches_is_shown_as_such(account: Account, owner: Client) -> None:
    make_breaker(account, mode="shadow")
    make_breaker(account, name="Tight", limit_percent=50)
    send(account, [make_event(agent="fast", cost_usd="3")])
    said = words(owner, "/enforcement/halts")
    assert "Nothing is halted" in said
    assert "monitors only" in said
    assert "reduces limits to 50%" in said
    said = words(owner, "/enforcement/decisions?decision=open")
    assert "2 times a breaker opened" in said
    assert "Breaker “Tight”: spent $3.00 in 60 s, limit $1.00 a minute" in said


# Decisions


def test_decisions_say_who_asked_what_was_decided_and_why(account: Account, owner: Client) -> None:
    reasons = [
        {"budget": 8, "name": "Watching", "mode": "shadow", "action": "block", "detail": "Soft."},
        {
            "budget": 7,
            "name": "Daily",
            "group": {"agent": "a"},
            "mode": "enforce",
            "action": "block",
            "level_percent": 100,
            "part": "cost_usd",
            "limit_usd": "50",
            "spent_usd": "49.5",
            "reserved_usd": "0",
            "asked_usd": "0.75",
            "window_start": "2026-11-21T00:00:00Z",
            "detail": "The budget 'Daily' has no room.",
        },
    ]
    record(
        account,
        {
            "asked_nanos": 750_000_000,
            "asked_tokens": 1100,
            "dimensions": {"agent": "a", "team": "growth", "operation": "llm"},
            "reasons": reasons,
        },
    )
    said = words(owner, "/enforcement/decisions")
    assert "1 call was refused" in said
    # What refused comes before what only objects.
    reason = (
        "$49.50 is spent of the $50.00 that the budget “Daily” allows for calls by agent “a” at"
        " its level of 100%; $0.00 reserved, and this call asks for $0.75."
    )
    assert f"Refused budget_exceeded {reason} 2 reasons" in said
    assert "a team growth $0.75 1.1K tokens" in said
    assert "Limit at this level $50.00 Spent $49.50 Reserved $0.00 Requested $0.75" in said
    assert said.index("Budget “Daily”") < said.index("Budget “Watching”")


def test_a_cheaper_model_is_named_with_what_it_saved(
    account: Account, owner: Client, api: Caller
) -> None:
    make_budget(account, cost_usd=1, levels=[(10, "downgrade"), (100, "block")])
    route = {
        "name": "triage",
        "task_type": "triage",
        "tiers": [
            {"provider": "anthropic", "model": "claude-haiku-4-5", "max_complexity": 4},
            {"provider": "anthropic", "model": "claude-sonnet-4-5"},
        ],
    }
    assert api.post("/v1/routes", route).status == 201
    ask = {
        **MODEL,
        "input_tokens": 20_000,
        "max_output_tokens": 10_000,
        "agent": "a",
        "cache_control": "none",
    }
    answer = api.post("/v1/reservations", {**ask, "task_type": "triage", "complexity": 3})
    assert (answer.status, answer.body["decision"]) == (201, "downgrade")
    said = words(owner, "/enforcement/decisions?decision=downgrade")
    assert "1 call was sent to a cheaper model" in said
    assert "claude-haiku-4-5 instead of claude-sonnet-4-5, $0.14 less than the best model." in said


def test_decisions_are_filtered_by_agent_decision_code_and_budget(
    account: Account, owner: Client
) -> None:
    budget = make_budget(account, name="Own")
    record(
        account,
        {"dimensions": {"agent": "alpha"}, "reasons": [{"budget": budget.id, "detail": "One."}]},
        {"dimensions": {"agent": "beta"}, "code": "halted", "reasons": [{"detail": "Two."}]},
        {"dimensions": {}, "decision": "allow", "code": "", "reasons": [{"detail": "Three."}]},
    )
    shown = {
        "": {"One.", "Two.", "Three."},
        "filter[agent]=alpha": {"One."},
        "filter[agent]=": {"Three."},
        "decision=allow": {"Three."},
        "code=halted": {"Two."},
        f"budget={budget.id}": {"One."},
        "decision=refuse&filter[agent]=beta": {"Two."},
        "decision=allow&filter[agent]=beta": set(),
    }
    for query, details in shown.items():
        said = words(owner, f"/enforcement/decisions?{query}")
        result = {detail for detail in ("One.", "Two.", "Three.") if detail in said}
        assert result == details, query
    assert "No decision matches these filters" in said
    html = page(owner, "/enforcement/decisions?filter[agent]=beta&code=halted")
    assert "?filter[agent]=beta&amp;decision=refuse&amp;code=halted" in html


def test_decisions_come_page_by_page_newest_first(account: Account, owner: Client) -> None:
    rows = [{"reasons": [{"detail": f"Number {number}."}]} for number in range(52)]
    record(account, *rows)
    first = page(owner, "/enforcement/decisions?code=budget_exceeded")
    assert re.findall(r"Number (\d+)\.", first) == [str(number) for number in range(50)]
    older = re.search(r'href="([^"]*cursor=[^"]*)"', first)
    assert older is not None
    assert "code=budget_exceeded" in older[1]
    second = page(owner, f"/enforcement/decisions{unescape(older[1])}")
    assert re.findall(r"Number (\d+)\.", second) == ["50", "51"]
    assert "Newest" in second


def test_without_decisions_a_line_is_ready_with_the_tenants_own_key(
    account: Account, owner: Client, as_role: Callable[[Role], Client]
) -> None:
    with account.scope():
        create_api_key(tenant=account.tenant, name="ingest", actor="tests", scopes=["ingest"])
    prefix = account.api_key.split("_")[1]
    said = words(owner, "/enforcement/decisions")
    assert "No call was refused" in said
    assert "curl http://testserver/v1/reservations" in said
    assert f"Authorization: Bearer sg_{prefix}_YOUR_SECRET" in said
    assert account.api_key not in page(as_role(Role.VIEWER), "/enforcement/decisions")


def test_nonsense_in_the_address_is_said_and_no_error(account: Account, owner: Client) -> None:
    record(account, {})
    huge = "9" * 22
    for query in (
        *("cursor=x", "decision=dance", "code=%00", "budget=-1", f"budget={huge}", "budget=x"),
        *("filter[agent]=%00", "filter[agent]=a&filter[agent]=b", "filter[team]=x"),
        *("period=x", "group=x", "before=x"),
        f"before={huge}",
    ):
        for path in PAGES:
            join = "&" if "?" in path else "?"
            assert owner.get(f"{path}{join}{query}").status_code == 200, query
    said = words(owner, "/enforcement/decisions?cursor=x&decision=dance&filter[team]=x")
    for notice in ("the newest are shown", "so all are shown", "filtered by one agent only"):
        assert notice in said


# Estimates


def test_estimates_are_held_against_what_calls_cost(
    account: Account, owner: Client, api: Caller
) -> None:
    make_budget(account)
    for cost_usd in ("0.5", "1.5"):
        made = api.post("/v1/reservations", {"amount_usd": "1", "agent": "a"})
        event = {"id": f"e-{cost_usd}", "cost_usd": cost_usd}
        path = f"/v1/reservations/{made.body['id']}/settle"
        assert api.post(path, event).status == 200
    api.post("/v1/reservations", {"amount_usd": "1", "agent": "b"})
    said = words(owner, "/enforcement/estimates")
    assert "Calls cost 100% of what was reserved for them" in said
    assert "a set by the caller 2 $2.00 $2.00 100% 50% · 150% 1 call, $0.50 more none" in said
    assert "b set by the caller 0 $0 $0 \u2013 \u2013 none 1 open" in said
    assert "No reservation was settled" in words(owner, "/enforcement/estimates?period=last_month")
    page(owner, "/enforcement/estimates?group=model")


# Budgets


def test_a_window_shows_its_raise_and_the_requests_that_wait(
    account: Account, owner: Client
) -> None:
    budget = make_budget(account, name="Daily", per=["agent"])
    send(account, [make_event(agent=agent, cost_usd="120") for agent in "ab"])
    approved = make_raise(account, budget)
    with account.scope():
        approve_increase(limit_increase=approved, actor="tests")
    make_raise(account, budget, usd=7)
    make_raise(account, budget, usd=9, agent="other")
    said = words(owner, f"/budgets?open={budget.id}")
    assert "$120.00 of $150.00" in said
    assert "Raised by $50.00 until" in said
    assert said.count("1 pending request to raise it") == 1
    assert "1 budget refuses calls now: Daily" in said
    assert "$120.00 of $100.00" in said
    assert "over the limit" in said


def test_raises_of_every_group_count_in_all_windows_and_all_parts(account: Account) -> None:
    # A window that does not end before the raise does.
    budget = make_budget(account, per=["agent"], limit_requests=1, period="lifetime")
    send(account, [make_event(agent=agent, cost_usd="1") for agent in "aab"])
    ask = IncreaseAsk(
        add=Added(requests=2),
        reason="More",
        ends_at=timezone.now() + timedelta(hours=1),
    )
    with account.scope():
        asked = ask_for_increase(budget=budget, actor="tests", ask=ask)
        approve_increase(limit_increase=asked, actor="tests")
        now = timezone.now()
        watch = watched_windows(
            tenant_id=account.tenant.id,
            book=read_budget_index(account.tenant.id),
            now=now,
            per_budget=5,
        )
    assert [(window.part, window.spent, window.limit) for window in watch.windows] == [
        ("requests", 2, 3),
        ("requests", 1, 3),
    ]
    assert watch.over == 0
    first = watch.windows[0]
    assert full_parts(first, Added(), now=now) == []
    with account.scope():
        over = watched_windows(
            tenant_id=account.tenant.id,
            book=read_budget_index(account.tenant.id),
            now=asked.ends_at,
            per_budget=5,
        )
    assert over.over == 2
    assert full_parts(over.windows[0], Added(requests=1), now=asked.ends_at) == ["requests"]
    assert full_parts(over.windows[0], Added(requests=2), now=asked.ends_at) == []


def test_the_api_answers_windows_with_their_raises(account: Account, api: Caller) -> None:
    budget = make_budget(account, per=["agent"], limit_seconds=60, limit_tokens=10_000)
    send(account, [make_event(agent=agent, cost_usd="60") for agent in "ab"])
    ask = IncreaseAsk(
        add=Added(cost_nanos=20 * NANOS, tokens=5, seconds=30),
        reason="More",
        ends_at=timezone.now() + timedelta(hours=1),
        group_key=group_key(["a"]),
    )
    with account.scope():
        approve_increase(
            limit_increase=ask_for_increase(budget=budget, actor="tests", ask=ask), actor="tests"
        )
    answer = api.get(f"/v1/budgets/{budget.id}/windows")
    result = {
        each["group"]["agent"]: (each["limit_usd"], each["remaining_usd"], each["limit_tokens"],
                                each["limit_seconds"])
        for each in answer.body["data"]
    }  # fmt: skip
    assert result == {"a": ("120", "60", 10_005, 90), "b": ("100", "40", 10_000, 60)}


def test_budgets_say_what_they_refuse_and_what_is_reserved(
    account: Account, owner: Client, api: Caller
) -> None:
    make_budget(account, name="Enforced", cost_usd=10)
    make_budget(account, name="Watching", mode="shadow", cost_usd=10)
    make_budget(account, name="Warning", mode="warn", cost_usd=10)
    assert api.post("/v1/reservations", {"amount_usd": "4", "agent": "a"}).status == 201
    html = page(owner, "/budgets")
    assert html.count("Shadow: measured, never acts") == 1
    assert html.count("Warns only") == 1
    assert html.count('class="reserved"') == 3
    assert "40% reserved" in html
    assert text_of(html).count("$0.00 of $10.00 · $4.00 reserved") == 3


def test_what_is_held_is_in_the_next_page(account: Account, owner: Client, api: Caller) -> None:
    make_budget(account)
    owner.get("/budgets")
    first = owner.get("/budgets")
    assert owner.get("/budgets", headers={"If-None-Match": first["ETag"]}).status_code == 304
    made = api.post("/v1/reservations", {"amount_usd": "4", "agent": "a"})
    second = owner.get("/budgets", headers={"If-None-Match": first["ETag"]})
    assert second.status_code == 200
    assert b"4% reserved" in second.content
    api.post(f"/v1/reservations/{made.body['id']}/release")
    third = owner.get("/budgets", headers={"If-None-Match": second["ETag"]})
    assert third.status_code == 200
    assert b"% reserved" not in third.content


def test_agents_are_one_click_away_from_a_halt_for_who_may(
    account: Account, as_role: Callable[[Role], Client]
) -> None:
    budget = make_budget(account, per=["agent"])
    send(account, [make_event(agent="a b&c", cost_usd="1")])
    link = "/enforcement/halts/confirm?dimension=agent&amp;value=a+b%26c"
    for role in Role:
        client = as_role(role)
        for path in ("/?group_by=agent", f"/budgets?open={budget.id}"):
            assert (f'href="{link}"' in page(client, path)) is (role != Role.VIEWER), path


# Who may do what


@pytest.mark.parametrize("role", list(Role))
def test_every_role_reads_and_some_decide(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    asked = make_raise(account, make_budget(account, per=["agent"]))
    breaker = make_breaker(account)
    send(account, [make_event(agent="fast", cost_usd="3")])
    (made,) = stored(account, Halt)
    record(account, {})
    client = as_role(role)
    may_manage = role in MANAGERS
    for path in PAGES:
        is_confirm = "confirm" in path
        expected = 403 if is_confirm and role == Role.VIEWER else 200
        assert client.get(path).status_code == expected, path
    assert (">Approve<" in page(client, "/enforcement/requests")) is may_manage
    assert ("Owners, admins and finance decide" in page(client, PAGES[0])) is not may_manage
    assert ("Lift halt" in page(client, "/enforcement/halts")) is may_manage
    assert ("Close breaker" in page(client, "/enforcement/halts")) is may_manage
    before = [stored(account, model) for model in (LimitIncrease, Halt)]
    for path in (
        f"/enforcement/requests/{asked.id}/approve",
        f"/enforcement/halts/{made['id']}/lift",
        f"/enforcement/breakers/{breaker.id}/close",
    ):
        assert client.post(path).status_code == (302 if may_manage else 403), path
    after = [stored(account, model) for model in (LimitIncrease, Halt)]
    assert (before != after) is may_manage


def test_engineers_halt_agents_and_managers_halt_everything(
    account: Account, as_role: Callable[[Role], Client]
) -> None:
    values = {"agent": "a", "everything": "", "operation": "llm"}
    for role in Role:
        client = as_role(role)
        for dimension, value in values.items():
            before = len(stored(account, Halt))
            fields = {"dimension": dimension, "value": value, "reason": "Stop"}
            answer = client.post("/enforcement/halts/make", fields)
            may_halt = role in MANAGERS or (role == Role.ENGINEER and dimension == "agent")
            assert answer.status_code == (302 if may_halt else 403), (role, dimension)
            assert len(stored(account, Halt)) == before + may_halt
            asked = client.get(f"/enforcement/halts/confirm?{urlencode(fields)}")
            assert (b'name="reason"' in asked.content) is may_halt


def test_another_tenant_sees_and_changes_nothing(
    account: Account, stranger: Account, owner: Client
) -> None:
    budget = make_budget(stranger, name="secret-budget", per=["agent"])
    asked = make_raise(stranger, budget, agent="secret-agent")
    breaker = make_breaker(stranger, name="secret-breaker")
    send(stranger, [make_event(agent="secret-agent", cost_usd="3")])
    made = make_halt(stranger, agent="secret-agent")
    record(stranger, {"dimensions": {"agent": "secret-agent"}})
    before = [stored(stranger, model) for model in (LimitIncrease, Halt, Decision)]
    for path in (*PAGES, "/budgets", f"/enforcement/decisions?budget={budget.id}"):
        assert "secret" not in page(owner, path)
    for path in (
        f"/enforcement/requests/{asked.id}/approve",
        f"/enforcement/requests/{asked.id}/refuse",
        f"/enforcement/requests/{asked.id}/end",
        f"/enforcement/halts/{made.id}/lift",
        f"/enforcement/breakers/{breaker.id}/close",
        f"/enforcement/halts/{10**30}/lift",
    ):
        assert owner.post(path, {"group": group_key(["secret-agent"])}).status_code == 404, path
    assert [stored(stranger, model) for model in (LimitIncrease, Halt, Decision)] == before


def test_only_members_come_in_and_a_button_followed_as_a_link_does_nothing(
    account: Account, owner: Client
) -> None:
    made = make_halt(account, agent="a")
    assert owner.get("/enforcement")["Location"] == "/enforcement/requests"
    for path in (*PAGES, f"/enforcement/halts/{made.id}/lift"):
        answer = Client().get(path)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/login?next=")
    answer = owner.get(f"/enforcement/halts/{made.id}/lift")
    assert (answer.status_code, answer["Location"]) == (302, "/enforcement/halts")
    assert stored(account, Halt)[0]["lifted_at"] is None
    strict = Client(enforce_csrf_checks=True, headers={"Cookie": owner.cookies.output(header="")})
    strict.cookies = owner.cookies
    assert strict.post(f"/enforcement/halts/{made.id}/lift").status_code == 403
    assert stored(account, Halt)[0]["lifted_at"] is None


class Handlers(HTMLParser):
    """Finds what would run: handlers in attributes, and scripts within the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        self.found += [name for name in names if name.startswith("on")]
        if tag == "script" and "src" not in names:
            self.found.append(tag)


def write_everywhere(account: Account, value: str) -> None:
    """Let these words be in everything that the pages show."""
    budget = make_budget(account, name=value, per=["agent"])
    asked, refused, _ = [make_raise(account, budget, agent=value, reason=value) for _ in "123"]
    with account.scope():
        approve_increase(limit_increase=asked, actor=value, note=value)
        refuse_increase(limit_increase=refused, actor=value, note=value)
        halt(tenant=account.tenant, match={"agent": value}, reason=value, actor=value)
        lift_halt(
            halt=halt(tenant=account.tenant, match={"agent": value}, reason=value, actor=value),
            actor=value,
        )
    make_breaker(account, name=value, per=["agent"], mode="shadow", match={"agent": value})
    send(account, [make_event(agent=value, cost_usd="3")])
    reason = {"budget": budget.id, "name": value, "group": {"agent": value}, "detail": value}
    halted = {"halt": 1, "kind": "manual", "match": {"agent": [value, None]}, "detail": value}
    row = {"dimensions": {"agent": value, "user": value}, "code": value[:40]}
    record(account, {**row, "reasons": [reason, halted]})


def test_hostile_words_are_shown_and_do_nothing(account: Account, owner: Client) -> None:
    for value in HOSTILE:
        write_everywhere(account, value)
    for value in HOSTILE:
        query = urlencode({"dimension": "agent", "value": value, "agent": value})
        for path in (*(path.partition("?")[0] for path in PAGES), "/budgets"):
            html = page(owner, f"{path}?{query}")
            parser = Handlers()
            parser.feed(html)
            assert parser.found == []
            assert "<script>alert" not in html
            assert "49{" not in html


# Words


def test_what_is_decided_about_is_named_exactly() -> None:
    assert format_amount("cost_nanos", 50 * NANOS) == "$50.00"
    assert format_amount("cost_nanos", 12_345_678_901_234) == "$12,345.678901234"
    assert format_amount("tool_calls", 1) == "1 tool call"
    assert format_amount("tokens", 20_000) == "20,000 tokens"
    assert [listed(list(words)) for words in ("", "a", "ab", "abc")] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


@pytest.mark.parametrize(
    ("match", "said"),
    [
        ({}, "calls of the whole tenant"),
        ({"agent": "a"}, "calls by agent “a”"),
        ({"feature": "f", "agent": "a"}, "calls by agent “a” for feature “f”"),
        ({"agent": None}, "calls without an agent"),
        ({"user": None, "model": "m"}, "calls without a user of model “m”"),
        ({"team": ["b", "a", None]}, "calls by team “a” or “b” or without a team"),
    ],
)
def test_matches_are_told_as_calls(match: JsonObject, said: str) -> None:
    assert calls_of(match) == said


def test_the_headline_of_decisions_names_who_made_most() -> None:
    assert decisions_headline("refuse", {}, is_capped=False) == "No call was refused"
    assert decisions_headline("refuse", {"a": 1}, is_capped=False) == "1 call was refused"
    assert (
        decisions_headline("refuse", {"a": 8, "b": 2}, is_capped=False)
        == "10 calls were refused; “a” made 80% of them"
    )
    assert (
        decisions_headline("allow", {"": 9000, "b": 1000}, is_capped=True)
        == "At least 10,000 calls were allowed with a warning"
    )
