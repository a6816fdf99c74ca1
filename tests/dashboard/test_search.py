"""Search: what is found, by whom, and what a hit does."""

from collections.abc import Callable

import pytest
from django.test import Client

from tenants.roles import Role
from tests.alerts.scene import make_channel
from tests.dashboard.conftest import sign_in
from tests.dashboard.test_enforcement_pages import HOSTILE, page, words
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_account, make_budget, make_event, send
from tests.metering.api.caller import caller
from tests.metering.rollups.test_batches import roll_everything_up

RESULTS = "/search/results"


@pytest.fixture
def used(account: Account) -> Account:
    send(
        account,
        [
            make_event(agent="market-scout", team="own", customer="Markham", session="mark-1"),
            make_event(agent="writer", team="rest", customer="stockmarket", session="mark-2"),
            make_event(agent="writer", team="rest", trace="7c85ec15", cost_usd="2"),
        ],
    )
    roll_everything_up(account)
    make_budget(account, name="Marketing")
    make_budget(account, name="Market scouts", match={"team": "own"})
    make_budget(account, name="Markups", match={"agent": "x"}, per=["team"])
    return account


def found(client: Client, text: str, **parameters: str) -> str:
    answer = client.get(RESULTS, {"q": text, **parameters})
    assert answer.status_code == 200
    return answer.content.decode()


def test_everything_that_holds_the_text_is_found(used: Account, owner: Client) -> None:
    html = found(owner, "mark")
    for name in (
        "<mark>mark</mark>et-scout",
        "<mark>Mark</mark>ham",
        "stock<mark>mark</mark>et",
        "<mark>mark</mark>-1",
        "<mark>Mark</mark>eting",
        "<mark>Mark</mark>et scouts",
        "per team · agent x · ",
    ):
        assert name in html
    # What begins with the text comes first.
    assert html.index("ham</span>") < html.index("stock<mark>")
    assert "<mark>7c85</mark>ec15" in found(owner, "7c85")
    assert "<mark>Budg</mark>ets" in found(owner, "budg")
    assert "Nothing is called “nothing”" in found(owner, "nothing")
    assert 'role="option"' not in found(owner, "")
    assert 'role="option"' not in found(sign_in(make_account().email), "market")


def test_a_hit_leads_to_its_own_page(used: Account, owner: Client) -> None:
    channel = make_channel(used, name="Markers")
    body = {"name": "Marker", "scopes": ["ingest"]}
    key = caller(used).post("/v1/keys", body).body["id"]
    html = found(owner, "mark")
    for address in (
        "/sessions/mark-1",
        "/explore?group_by=feature&amp;filter[agent]=market-scout",
        f"/incidents/channels#channel-{channel.id}",
        f"/settings/keys#key-{key}",
    ):
        assert f'href="{address}"' in html, address
    assert 'href="/traces/7c85ec15"' in found(owner, "7c85")
    # Where a hit leads is there.
    assert f'id="channel-{channel.id}"' in page(owner, "/incidents/channels")
    assert f'id="key-{key}"' in page(owner, "/settings/keys")
    assert "mark-1" in page(owner, "/sessions/mark-1")


def test_wildcards_mean_themselves(used: Account, owner: Client) -> None:
    for text in ("%", "_", "mark%", "\0"):
        assert "scout" not in found(owner, text)


def test_a_hit_filters_the_present_page_and_halts(used: Account, owner: Client) -> None:
    html = found(owner, "market-s", here="/budgets?period=30d&filter[agent]=other")
    assert 'data-filter="/budgets?period=30d&amp;filter[agent]=market-scout"' in html
    assert "/enforcement/halts/confirm?dimension=agent&amp;value=market-scout" in html
    for elsewhere in ("https://example.com/x", "//example.com", "javascript:alert(1)", ""):
        html = found(owner, "market-s", here=elsewhere)
        assert 'data-filter="/?filter[agent]=market-scout"' in html
        assert "example.com" not in html
        assert "javascript" not in html


def test_a_person_finds_what_the_role_may_see(
    used: Account, as_role: Callable[[Role], Client]
) -> None:
    body = {"name": "Deploy key", "scopes": ["ingest"]}
    assert caller(used).post("/v1/keys", body).status == 201
    for role in Role:
        client = as_role(role)
        is_granting = role in {Role.OWNER, Role.ADMIN}
        assert ("Deploy" in found(client, "deploy k").replace("<mark>", "")) is False or is_granting
        assert ("API keys" in found(client, "deploy k")) is is_granting
        assert ("Halt agent" in found(client, "market-s")) is (role is not Role.VIEWER)
    assert Client().get(RESULTS, {"q": "mark"}).status_code == 302


@pytest.mark.parametrize("role", [Role.ENGINEER, Role.VIEWER])
def test_a_member_of_a_team_finds_nothing_of_another(used: Account, role: Role) -> None:
    client = sign_in(make_team_member(used, role, "own"))
    html = found(client, "mark")
    assert "et-scout" in html
    assert "<mark>mark</mark>-1" in html
    assert "<mark>Mark</mark>et scouts" in html
    # Each team has a window of its own.
    assert "<mark>Mark</mark>ups" in html
    for theirs in ("stock", "<mark>mark</mark>-2", "<mark>Mark</mark>eting"):
        assert theirs not in html
    for text in ("writer", "rest", "7c85"):
        assert 'role="option"' not in found(client, text)


def test_hostile_names_stay_text(account: Account, owner: Client) -> None:
    for text in HOSTILE:
        send(account, [make_event(agent=text, session=text)])
        make_budget(account, name=text)
    roll_everything_up(account)
    for text in HOSTILE:
        html = found(owner, text, here=f"/?{text}")
        assert "<script>alert(1)" not in html
        assert 'onmouseover="alert' not in html


def test_without_script_there_is_a_page(used: Account, owner: Client) -> None:
    text = words(owner, "/search?q=Markham")
    assert "1 match for" in text or "matches for “Markham”" in text
    assert 'action="/search"' in page(owner, "/")
    assert "Search" in words(owner, "/search")
