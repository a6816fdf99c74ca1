"""Unit economics as a page: figures equal the domain's, hostile names stay text, all roles read."""

import csv
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.test import Client

from dashboard import counted_later
from metering.reporting import bounded
from tenants.roles import Role
from tests.cases import each_case
from tests.dashboard.test_enforcement_pages import HOSTILE, page, words
from tests.factories import Account, make_event, send
from tests.metering.api.caller import caller
from tests.metering.reporting.test_units import chain

TODAY = datetime.now(UTC).date()


def values(html: str) -> list[str]:
    return re.findall(r'<data value="([^"]*)"', html)


def use(account: Account) -> None:
    send(
        account,
        [
            make_event(cost_usd="1.5", customer="a", user="u", session="s"),
            make_event(cost_usd="1.500000001", customer="b", user="u", session="t"),
        ],
    )


def test_counts_are_posted_once_a_day_and_listed(account: Account) -> None:
    api = caller(account)
    body = {"name": "tickets solved", "day": "2026-11-21", "count": 4}
    first = api.post("/v1/unit-counts", body)
    assert first.status == 200
    assert {**first.body, "updated_at": ...} == {**body, "updated_at": ...}
    assert api.post("/v1/unit-counts", {**body, "count": 5}).body["count"] == 5
    api.post("/v1/unit-counts", {**body, "day": "2026-11-22", "count": 0})
    listed = api.get("/v1/unit-counts", name="tickets solved", to="2026-11-21").body["data"]
    assert [(row["day"], row["count"]) for row in listed] == [("2026-11-21", 5)]
    assert api.get("/v1/unit-counts", **{"from": "2026-11-22"}).body["data"][0]["count"] == 0
    assert api.get("/v1/unit-counts", **{"from": "soon"}).code == "invalid_day"


@each_case(
    ("member", "value"),
    [
        ("count", -1),
        ("count", 1.5),
        ("count", "7"),
        ("day", "2026-02-30"),
        ("day", "2026-11-21T00:00:00Z"),
        ("day", "20261121"),
        ("name", ""),
        ("name", "x" * 201),
    ],
)
def test_what_is_no_count_is_refused(account: Account, member: str, value: object) -> None:
    body = {"name": "tickets solved", "day": "2026-11-21", "count": 4, member: value}
    answer = caller(account).post("/v1/unit-counts", body)
    assert (answer.status, answer.pointers) == (400, {f"/{member}"})


def test_the_headline_is_what_one_costs(account: Account, owner: Client) -> None:
    use(account)
    html = page(owner, "/unit-economics")
    assert "One customer costs $1.50" in html
    assert "1.500000001" in values(html)  # half up of 3.000000001 for two
    assert "One user costs $3.00" in words(owner, "/unit-economics?unit=user")
    assert "No successes in this period" in words(owner, "/unit-economics?unit=success")
    for days, count in ((0, 100), (1, 3)):  # today is not over
        day = TODAY - timedelta(days=days)
        body = {"name": "tickets", "day": day.isoformat(), "count": count}
        assert caller(account).post("/v1/unit-counts", body).status == 200
    at = datetime.now(UTC) - timedelta(days=1)
    send(account, [make_event(cost_usd="6", time=at.isoformat())])
    assert "$2.00 per “tickets”" in words(owner, "/unit-economics?posted=tickets")
    assert "No “tickets” in" in words(owner, "/unit-economics?posted=tickets&period=today")
    assert "One customer costs" in words(owner, "/unit-economics?unit=nonsense")


def test_page_csv_and_usage_say_the_same(account: Account, owner: Client) -> None:
    use(account)
    query = f"from={TODAY - timedelta(days=2)}&to={TODAY}&unit=session"
    text = owner.get(f"/unit-economics/units.csv?{query}").content.decode()
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["cost_usd"], row["count"], row["cost_per_unit_usd"]) for row in rows] == [
        ("0", "0", ""),
        ("0", "0", ""),
        ("3.000000001", "2", "1.500000001"),
    ]
    usage = caller(account).get("/v1/usage", interval="none").body
    assert usage["total"]["cost_usd"] == "3.000000001"
    assert "3.000000001" in values(page(owner, f"/unit-economics?{query}"))
    data = owner.get(f"/unit-economics/chart.json?{query}").json()["data"]
    assert data[0]["y"] == [None, None, 1.500000001]


def test_all_units_and_handoffs_are_read_after_the_page(account: Account, owner: Client) -> None:
    use(account)
    html = page(owner, "/unit-economics/all")
    assert [value for value in values(html) if "." in value] == ["1.500000001"] * 2 + [
        "3.000000001"
    ] or "3.000000001" in values(html)
    assert "No agent read what another one wrote" in page(owner, "/unit-economics/agents")
    calls = chain("one", ("lead", 10, 300), ("<script>", 200, 50))
    send(account, [call | {"time": datetime.now(UTC).isoformat()} for call in calls])
    html = page(owner, "/unit-economics/agents")
    assert "57% of the" in html  # 200 of 350
    assert 'aria-label="Most tokens go from “lead” to “&lt;script&gt;”: 200"' in html
    figure = re.search(r'<script id="handoffs-figure"[^>]*>(.*?)</script>', html)
    assert figure is not None
    [trace] = json.loads(figure[1])["data"]
    assert (trace["node"]["label"], trace["link"]["value"]) == (["lead", "&lt;script&gt;"], [200])
    assert "<script>" not in html


def test_what_is_too_much_to_count_is_said(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(account)
    monkeypatch.setattr(bounded, "EVENTS_MAX", 1)
    assert "could not be counted" in page(
        owner, "/unit-economics?unit=session&filter[provider]=anthropic"
    )
    assert "choose other days" in page(owner, "/unit-economics/all")
    assert "shorter range" in page(owner, "/unit-economics/agents")
    assert (
        owner.get("/unit-economics/chart.json?unit=session&filter[provider]=anthropic").status_code
        == 200
    )


@each_case("path", ["", "/all", "/agents", "/chart.json", "/units.csv"])
def test_every_role_reads_and_no_one_else(
    account: Account, as_role: Callable[[Role], Client], path: str
) -> None:
    for role in Role:
        assert as_role(role).get(f"/unit-economics{path}").status_code == 200
    assert Client().get(f"/unit-economics{path}").status_code == 302


def test_hostile_names_stay_text(account: Account, owner: Client) -> None:
    use(account)
    for name in HOSTILE:
        body = {"name": name, "day": TODAY.isoformat(), "count": 1}
        assert caller(account).post("/v1/unit-counts", body).status == 200
        for path in ("/unit-economics", "/unit-economics/all"):
            html = owner.get(path, {"posted": name}).content.decode()
            assert "<script>alert(1)" not in html
            assert 'onmouseover="alert' not in html


def test_a_page_of_much_usage_comes_before_its_figures(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [make_event(user=name, cost_usd="3") for name in "ab"])
    monkeypatch.setattr(counted_later, "COUNTED_AT_ONCE_MAX", 1)
    html = page(owner, "/unit-economics?unit=user")
    assert "Cost per user" in html
    assert "unit-totals" not in html
    (later,) = re.findall(r'hx-get="(/unit-economics/figures.html[^"]*)"', html)
    figures = page(owner, unescape(later))
    assert '<h1 id="headline" hx-swap-oob="true" data-later>One user costs $3.00' in figures
    assert 'id="unit-totals"' in figures
