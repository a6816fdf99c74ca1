"""Breakers and rate limits: their page, and the forms in the frame."""

from collections.abc import Callable
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.configuration.rate_limits import create_rate_limit
from metering.core.match import group_key
from metering.limits.rate_counters import SLOTS
from metering.limits.rate_limits import RateRule
from metering.models import Breaker, RateLimit
from metering.reporting.rate_fill import read_rate_fills
from tenants.roles import Role
from tests.dashboard.test_enforcement_pages import (
    MANAGERS,
    make_breaker,
    make_halt,
    page,
    press,
    text_of,
    words,
)
from tests.factories import NANOS, Account, make_budget, make_event, send

BREAKER: JsonObject = {
    "name": "Runaway",
    "mode": "enforce",
    "per": ["agent"],
    "cost_nanos_per_minute": "2.50",
    "error_min_calls": "10",
    "usual_min_calls": "20",
    "close": "hand",
    "cool_down_seconds": "300",
}
RATE_LIMIT: JsonObject = {
    "name": "Team pace",
    "mode": "enforce",
    "per": ["team"],
    "tokens_per_minute": "5000",
}


def save(client: Client, path: str, fields: JsonObject) -> str:
    """Send a rule's form; answers what the page that follows says."""
    answer = client.post(path, fields, follow=True)
    assert len(answer.redirect_chain) == 1
    return text_of(answer.content.decode())


def test_a_breaker_is_made_changed_and_removed_in_the_frame(
    account: Account, owner: Client
) -> None:
    assert "No breakers yet" in words(owner, "/enforcement/breakers")
    said = save(owner, "/enforcement/breakers/new", BREAKER)
    assert "The breaker “Runaway” is saved." in said
    assert "more than $2.50 within a minute" in said
    with account.scope():
        made = Breaker.objects.get(tenant=account.tenant)
    assert (made.cost_nanos_per_minute, made.per) == (5 * NANOS // 2, ["agent"])
    path = f"/enforcement/breakers/{made.id}/edit"
    assert 'value="2.5"' in page(owner, path)
    save(owner, path, {**BREAKER, "cost_nanos_per_minute": "4"})
    with account.scope():
        assert Breaker.objects.get(id=made.id).cost_nanos_per_minute == 4 * NANOS
    press(owner, f"/enforcement/breakers/{made.id}/remove")
    with account.scope():
        assert not Breaker.objects.filter(tenant=account.tenant).exists()


def test_a_rate_limit_is_made_in_the_frame(account: Account, owner: Client) -> None:
    said = save(owner, "/enforcement/rate-limits/new", RATE_LIMIT)
    assert "5,000 tokens" in said
    with account.scope():
        made = RateLimit.objects.get(tenant=account.tenant)
    assert (made.per, made.tokens_per_minute) == (["team"], 5000)


@pytest.mark.parametrize(
    ("path", "fields", "sentence"),
    [
        ("breakers", {**BREAKER, "cost_nanos_per_minute": ""}, "Give what opens it"),
        ("breakers", {**BREAKER, "cost_nanos_per_minute": "2,50"}, "commas could mean"),
        ("rate-limits", {**RATE_LIMIT, "tokens_per_minute": ""}, "Give at least one rate"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    account: Account, owner: Client, path: str, fields: dict[str, object], sentence: str
) -> None:
    answer = owner.post(f"/enforcement/{path}/new", fields)
    assert sentence in text_of(answer.content.decode())
    with account.scope():
        assert not Breaker.objects.exists()
        assert not RateLimit.objects.exists()


@pytest.mark.parametrize("role", Role)
def test_only_who_manages_changes_rules(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    breaker = make_breaker(account)
    client = as_role(role)
    assert "Runaway" in page(client, "/enforcement/breakers")
    for path in ("breakers/new", "rate-limits/new", f"breakers/{breaker.id}/edit"):
        expected = 200 if role in MANAGERS else 403
        assert client.get(f"/enforcement/{path}").status_code == expected
    answer = client.post("/enforcement/breakers/new", {**BREAKER, "name": "Another"})
    assert answer.status_code == (302 if role in MANAGERS else 403)
    answer = client.post(f"/enforcement/breakers/{breaker.id}/remove")
    assert answer.status_code == (302 if role in MANAGERS else 403)


def test_the_rules_of_another_tenant_are_not_there(
    account: Account, stranger: Account, owner: Client
) -> None:
    theirs = make_breaker(stranger, name="secret-breaker")
    assert "secret-breaker" not in page(owner, "/enforcement/breakers")
    assert owner.get(f"/enforcement/breakers/{theirs.id}/edit").status_code == 404
    assert owner.post(f"/enforcement/breakers/{theirs.id}/remove").status_code == 404


def test_a_rate_limit_shows_its_fullest_group(account: Account) -> None:
    now = timezone.now()
    second = int(now.timestamp())
    with account.scope(), connection.cursor() as cursor:
        limit = create_rate_limit(
            tenant=account.tenant, actor="tests", name="Pace", per=["agent"], tokens_per_minute=1000
        )
        for agent, tokens, age in (("a", 250, 5), ("b", 900, 30), ("c", 5000, 400)):
            slots = [0] * SLOTS
            slots[(second - age) % SLOTS] = tokens
            cursor.execute(
                "INSERT INTO rate_counter (tenant_id, id, subject, group_key, last_second, nanos,"
                " tokens, requests)"
                " VALUES (%s, nextval('rate_counter_id'), %s, %s, %s, %s, %s, %s)",
                [
                    *(account.tenant.id, f"limit:{limit.id}", group_key([agent]), second - age),
                    *([0] * SLOTS, slots, [0] * SLOTS),
                ],
            )
        fills = read_rate_fills(account.tenant.id, [RateRule.of(limit)], now=now)
    assert fills[limit.id].percent == Decimal(90)
    assert fills[limit.id].group_key == group_key(["b"])


def test_top_agents_have_a_halt_button_and_say_what_is_halted(
    account: Account, owner: Client
) -> None:
    send(account, [make_event(agent=agent, cost_usd="3") for agent in ("scout", "writer")])
    stopped = make_halt(account, agent="writer")
    html = page(owner, "/enforcement/halts")
    table = html[html.index('id="top-title"') :]
    assert "Halt agent scout" in table
    assert "Halt agent writer" not in table
    assert "Halted since" in table
    assert f'popovertarget="lift-{stopped.id}"' in table


def test_a_raise_without_a_budget_offers_the_choice(account: Account, owner: Client) -> None:
    budget = make_budget(account, name="Daily", per=["agent"])
    html = page(owner, "/enforcement/requests/new")
    assert f'href="?budget={budget.id}"' in html
    filled = page(owner, f'/enforcement/requests/new?budget={budget.id}&group=["scout"]')
    assert 'value="scout"' in filled
    assert owner.get("/enforcement/requests/new?budget=999999").status_code == 404
