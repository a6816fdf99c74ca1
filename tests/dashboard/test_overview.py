"""The overview and its parts: right numbers, escaped values, one tenant, cheap answers."""

import csv
import gzip
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.test import Client

from common.json_bodies import JsonObject
from tenants.roles import Role
from tests.cases import each_case
from tests.factories import Account, make_budget, make_event, send

HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "'; DROP TABLE usage_event; --",
    "{{ 7 * 7 }}{% csrf_token %}",
    "=HYPERLINK(1)",
    "x" * 200,
    "名前 אב reversed",
    "a&b=c#d",
]


def page(client: Client, path: str = "/") -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return answer.content.decode()


def figure(client: Client, query: str = "") -> JsonObject:
    result: JsonObject = client.get(f"/charts/spend.json?{query}").json()
    return result


def policy(answer: Any) -> dict[str, list[str]]:
    parts = (part.split() for part in answer["Content-Security-Policy"].split(";"))
    return {name: sources for name, *sources in parts}


def test_an_empty_tenant_is_told_how_to_begin(owner: Client) -> None:
    html = page(owner)
    assert "Send your first event" in html
    assert "curl http://testserver/v1/events" in html
    assert re.search(r"Bearer sg_\w+_YOUR_SECRET", html)
    assert "/settings/keys/new" in html
    assert "No budget is in use" in page(owner, "/budgets")
    assert "Every call has a price" in page(owner, "/settings/prices")
    assert figure(owner)["data"] == []


def test_the_numbers_are_those_of_the_events(account: Account, owner: Client) -> None:
    send(
        account,
        [
            make_event(agent="a", cost_usd="1.5", cache_read_tokens=250),
            make_event(agent="b", cost_usd="0.25", status="error"),
            make_event(agent="b", model="nobody-knows", provider="nobody"),
        ],
    )
    html = page(owner, "/?group_by=agent")
    assert 'title="$1.75">$1.75<' in html
    assert "accounts for 86%" in html
    assert "1</data> failed" in html
    assert "8.3% of input from cache" in html
    assert "66.6% priced" in html
    assert "1</data> unpriced call</a>" in html
    bars = {each["name"]: each["y"] for each in figure(owner, "group_by=agent")["data"]}
    assert (bars["a"][-1], bars["b"][-1]) == (1.5, 0.25)


def test_what_was_acknowledged_is_in_the_next_page(account: Account, owner: Client) -> None:
    send(account, [make_event(cost_usd="1")])
    owner.get("/")  # the first page sets the cookie that its forms need
    first = owner.get("/")
    assert b"$1.00" in first.content
    assert owner.get("/", headers={"If-None-Match": first["ETag"]}).status_code == 304
    send(account, [make_event(cost_usd="1")])
    second = owner.get("/", headers={"If-None-Match": first["ETag"]})
    assert second.status_code == 200
    assert b"$2.00" in second.content


def test_a_period_is_compared_with_the_one_before(account: Account, owner: Client) -> None:
    now = datetime.now(UTC)
    send(
        account,
        [
            make_event(cost_usd="3", agent="a"),
            make_event(cost_usd="2", agent="a", time=(now - timedelta(days=8)).isoformat()),
        ],
    )
    html = page(owner, "/?group_by=agent")
    assert "Spend is up 50% from the previous 7 days" in html
    assert "+50%" in html
    assert any(each["name"] == "Previous period" for each in figure(owner)["data"])
    alone = page(owner, "/?group_by=agent&compare=off")
    assert "$3.00 spent" in alone
    assert "+50" not in alone
    assert all(each["name"] != "previous period" for each in figure(owner, "compare=off")["data"])


def test_filters_narrow_everything_and_can_be_removed(account: Account, owner: Client) -> None:
    send(account, [make_event(team="x", cost_usd="1"), make_event(team="y", cost_usd="10")])
    html = page(owner, "/?filter[team]=x&group_by=team")
    assert "$1.00" in html
    assert "$10.00" not in html
    assert 'aria-label="Remove team x"' in html
    nothing = page(owner, "/?filter[team]=z")
    assert "No usage matches these filters" in nothing
    assert "Nothing was spent in this period" in nothing


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_values_are_shown_and_do_nothing(
    account: Account, owner: Client, value: str
) -> None:
    event = make_event(agent=value, customer=value, model=value, cost_usd="1")
    send(account, [event, make_event(agent="tame", cost_usd="0.5")])
    make_budget(account, name=value, per=["customer"])
    for path in ("/", "/budgets", "/settings/prices", "/charts/spend.html"):
        html = page(owner, f"{path}?{urlencode({'group_by': 'agent', 'filter[agent]': value})}")
        assert "<script>alert" not in html
        assert 'onmouseover="alert' not in html
        assert "49{" not in html
        scripts = re.findall(r"<script[^>]*>", html)
        assert all("src=" in script for script in scripts), "no script stands in the page"
    query = urlencode({"group_by": "agent", "filter[agent]": value})
    answer = owner.get(f"/charts/spend.json?{query}")
    assert answer["Content-Type"] == "application/json"
    result = [each for each in answer.json()["data"] if "meta" in each]
    assert [each["meta"]["value"] for each in result] == [value]
    assert "<" not in result[0]["name"]


def test_the_table_and_the_download_hold_the_exact_numbers(account: Account, owner: Client) -> None:
    events = [
        make_event(agent="=1+1", cost_usd="0.000000001"),
        make_event(agent="b", cost_usd="2.5"),
    ]
    send(account, events)
    answer = owner.get("/charts/spend.csv?group_by=agent")
    assert answer["Content-Disposition"] == 'attachment; filename="spend-by-agent.csv"'
    head, *lines = csv.reader(answer.content.decode().splitlines())
    assert head[:4] == ["start", "agent", "cost_usd", "requests"]
    assert sorted(line[1:3] for line in lines) == [["'=1+1", "0.000000001"], ["b", "2.5"]]
    assert 'title="$2.500000001"' in page(owner, "/charts/spend.html?group_by=agent")


def test_more_values_than_colours_end_in_other(account: Account, owner: Client) -> None:
    send(account, [make_event(agent=f"a{number}", cost_usd="1") for number in range(12)])
    bars = [each for each in figure(owner, "group_by=agent")["data"] if each["type"] == "bar"]
    assert len(bars) == 9
    assert bars[-1]["name"] == "other"
    assert bars[-1]["y"][-1] == 4
    assert len({each["marker"]["color"] for each in bars}) == 9
    html = page(owner, "/?group_by=agent")
    assert "2</data> others" in html
    assert "All <data" in html


@pytest.mark.parametrize("period", ["today", "7d", "30d", "month", "last_month"])
@pytest.mark.parametrize("split", ["model", "team", "user"])
def test_every_period_and_split_has_a_page(
    account: Account, owner: Client, period: str, split: str
) -> None:
    send(account, [make_event(cost_usd="1")])
    query = f"period={period}&group_by={split}"
    page(owner, f"/?{query}")
    page(owner, f"/charts/spend.html?{query}")
    assert owner.get(f"/charts/spend.json?{query}&theme=dark").status_code == 200


@each_case(
    "query",
    [
        "period=%00",
        "from=1&to=2",
        "group_by=%27",
        "theme=%3Cb%3E",
        "operation=x",
        "filter[team]=%00",
    ],
)
def test_nonsense_in_the_address_is_no_server_error(
    account: Account, owner: Client, query: str
) -> None:
    send(account, [make_event()])
    assert owner.get(f"/?{query}").status_code == 200
    assert owner.get(f"/charts/spend.json?{query}").status_code in {200, 404}


def test_a_stranger_sees_nothing_of_the_tenant(
    account: Account, stranger: Account, owner: Client
) -> None:
    send(stranger, [make_event(agent="secret-agent", model="secret-model", provider="secret")])
    make_budget(stranger, name="secret-budget")
    send(account, [make_event(agent="own-agent")])
    for path in (
        "/?group_by=agent",
        "/?filter[agent]=secret-agent&group_by=agent",
        "/budgets",
        "/settings/prices",
    ):
        html = page(owner, path).replace("filter[agent]=secret-agent", "")
        assert "secret-budget" not in html
        assert "secret-model" not in html
    assert all(
        each["name"] != "secret-agent"
        for each in figure(owner, "group_by=agent&filter[agent]=secret-agent")["data"]
    )
    assert "secret-agent" not in page(owner, "/?group_by=agent")


@pytest.mark.parametrize("role", list(Role))
def test_every_role_looks_and_some_edit(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    send(account, [make_event(model="nobody-knows", provider="nobody")])
    make_budget(account, name="shown to all")
    client = as_role(role)
    may_edit = role in {Role.OWNER, Role.ADMIN, Role.FINANCE}
    assert "shown to all" in page(client, "/budgets")
    assert ("Create budget" in page(client, "/budgets")) is may_edit
    assert ("Add a price of nobody-knows" in page(client, "/settings/prices")) is may_edit
    page(client)


def test_unpriced_models_are_listed_with_the_next_step(account: Account, owner: Client) -> None:
    send(account, [make_event(model="a b&c", provider="p") for _ in range(3)])
    html = page(owner, "/settings/prices")
    assert "3 calls to 1 model have no price" in html
    assert "/settings/prices/new?provider=p&amp;model=a+b%26c" in html


def test_budget_windows_say_how_full_they_are(account: Account, owner: Client) -> None:
    make_budget(account, name="full", cost_usd=1, levels=[(70, "none"), (100, "block")])
    send(account, [make_event(cost_usd="1.5")])
    html = page(owner, "/budgets")
    assert "1 budget refuses calls now: full" in html
    assert "150%" in html
    assert "levels at 70%, 100%" in html
    assert html.count('class="tick') == 2
    assert "full" in page(owner)


def test_no_page_allows_inline_scripts_or_evaluation(account: Account, owner: Client) -> None:
    send(account, [make_event()])
    for path in (
        "/",
        "/budgets",
        "/settings/prices",
        "/login",
        "/charts/spend.html",
        "/password",
        "/nope",
    ):
        sources = policy(owner.get(path))
        assert sources["script-src"] == ["'self'"], path
        assert sources["default-src"] == ["'none'"], path
        assert sources["frame-ancestors"] == ["'none'"], path
    assert "script-src 'self';" in Client().get("/login")["Content-Security-Policy"] + ";"


def test_pages_are_private_and_compressed(account: Account, owner: Client) -> None:
    answer = owner.get("/")
    assert "private" in answer["Cache-Control"]
    assert "Cookie" in answer["Vary"]
    packed = owner.get("/", headers={"Accept-Encoding": "gzip"})
    assert packed["Content-Encoding"] == "gzip"
    assert b"<h1>" in gzip.decompress(packed.content)


def test_nothing_is_loaded_from_elsewhere(account: Account, owner: Client) -> None:
    send(account, [make_event()])
    for path in ("/", "/budgets", "/login"):
        result = re.findall(
            r'(?:src|href|action)="(https?:)?//',
            page(owner, path) if path != "/login" else Client().get(path).content.decode(),
        )
        assert result == []
    assert settings.DEBUG is False
    assert json.loads(owner.get("/charts/spend.json").content)["data"]


def test_usage_without_a_price_is_not_called_nothing(account: Account, owner: Client) -> None:
    send(account, [make_event(model="nobody-knows-this", provider="nobody") for _ in range(2)])
    assert "2 calls have no price yet, so spend is unknown" in page(owner)
