"""Parts of the overview: what adds up, what comes first, what is drawn, and what it costs."""

import csv
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from alerts.models import Severity
from common.json_bodies import JsonObject
from dashboard.findings import coverage_words, greatest_change
from dashboard.overview.month import covering_group
from dashboard.overview.moved import moved_by
from dashboard.overview.spenders import curve
from metering.budgets.reading import read_budget_index
from metering.limits.halts import halt
from metering.reporting.change import Used, split_change
from metering.reporting.metrics import coverage_of
from metering.reporting.usage import Measures
from tenants.roles import Role
from tests.alerts.examples import make_incident
from tests.dashboard.conftest import make_member, sign_in
from tests.dashboard.test_team_members import team_client
from tests.factories import Account, make_budget, make_event, send

# Statements of a page may differ by what depends on the hour: edges that cut a bucket.
STATEMENTS_MAX = 95


def ago(**spans: float) -> str:
    return (datetime.now(UTC) - timedelta(**spans)).isoformat()


def section(html: str, name: str) -> str:
    """The part of the page with this id."""
    return re.split(r"</section>|</dl>|</p>", html[html.index(f'id="{name}"') :])[0]


def values(html: str) -> list[Decimal]:
    """The exact values that stand in a piece of a page, in order."""
    return [Decimal(value) for value in re.findall(r'<data value="([^"]+)"', html)]


def page(client: Client, query: str = "") -> str:
    answer = client.get(f"/?{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def two_weeks(account: Account) -> None:
    """Twelve agents, this week and the one before, with costs that divide badly."""
    events = []
    for number in range(12):
        cost = Decimal(number + 1) / 7
        events.append(make_event(agent=f"a{number}", cost_usd=f"{cost * 3:.9f}"))
        events.append(make_event(agent=f"a{number}", cost_usd=f"{cost:.9f}", time=ago(days=8)))
    events.append(make_event(agent="gone", cost_usd="1.000000001", time=ago(days=8)))
    send(account, [*events, make_event(agent="a3", cost_usd="0.333333333")])


def test_what_moved_it_adds_up_on_the_page(account: Account, owner: Client) -> None:
    two_weeks(account)
    html = section(page(owner, "group_by=agent"), "moved")
    head, groups, parts = html.split("<tbody>")
    parts, total = parts.split("<tfoot>")
    (change,) = values(total)
    assert values(head) == [change]
    amounts = [
        value for row in groups.split("<tr>")[1:] for value in values(row.split('class="num"')[1])
    ]
    assert sum(amounts) == sum(values(parts)) == change
    assert len(amounts) == 6, "five groups and the others"
    assert len(values(parts)) == 3


def test_the_table_adds_up_to_the_total_of_the_api(account: Account, owner: Client) -> None:
    two_weeks(account)
    html = page(owner, "group_by=agent")
    body, total = section(html, "spenders").split("<tfoot>")
    spent = [values(row)[0] for row in re.findall(r'<td class="num">.*?</td>', body) if values(row)]
    start = datetime.now(UTC).date() - timedelta(days=6)
    query = f"from={start}T00:00:00Z&interval=none"
    answer = Client().get(f"/v1/usage?{query}", headers=account.headers).json()
    (row,) = answer["data"]
    assert sum(spent) == values(total)[0] == values(html)[0] == Decimal(row["cost_usd"])
    assert len(spent) == 11, "ten spenders and all others"


def test_a_month_is_compared_with_the_month_before(account: Account, owner: Client) -> None:
    now = datetime.now(UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    before = (first - timedelta(days=1)).replace(day=1)
    # As early in that month as an event may be, and so before as much of it was over.
    early = max(before, now - timedelta(days=34))
    send(account, [make_event(cost_usd="1"), make_event(cost_usd="4", time=early.isoformat())])
    assert "$4.00</data>" in section(page(owner, "period=month"), "totals")


def test_incidents_are_those_that_the_navigation_counts(account: Account, owner: Client) -> None:
    send(account, [make_event(team="own")])
    for number, team in enumerate(["own", "foreign", "foreign"]):
        match = {"team": team, "agent": f"a{number}"}
        make_incident(
            account,
            cause=f"c{number}",
            title=f"of {team} {number}",
            match=match,
            severity=Severity.WARNING,
            excess_nanos=(number + 1) * 10**9,
        )
    html = page(owner)
    assert "All <data" in section(html, "attention")
    assert values(section(html, "attention"))[0] == 3
    assert '<span class="sr">3 need attention</span>' in html
    assert html.index("of foreign 2") < html.index("of own 0"), "the more expensive one first"
    limited = page(team_client(account))
    assert "1 open incident<" in section(limited, "attention")
    assert '<span class="sr">1 need attention</span>' in limited
    assert "foreign" not in limited


def test_budgets_that_refuse_come_before_those_that_do_not(account: Account, owner: Client) -> None:
    limits: Sequence[tuple[str, JsonObject]] = (
        ("calm and shadow", {"mode": "shadow", "cost_usd": 50}),
        ("over but warns", {"mode": "warn", "cost_usd": 1}),
        ("over and refuses", {"mode": "enforce", "cost_usd": 2}),
        ("calm", {"mode": "enforce", "cost_usd": 900}),
    )
    for name, fields in limits:
        make_budget(account, name=name, period="lifetime", **fields)
    send(account, [make_event(cost_usd="5")])
    shown = section(page(owner), "attention")
    order = ["over and refuses", "over but warns", "calm<", "calm and shadow"]
    assert [*map(shown.index, order)] == sorted(map(shown.index, order))
    assert "over the limit, calls are refused" in shown
    assert "over the limit, nothing is refused" in shown


@pytest.mark.parametrize(
    ("budget", "filters", "expected"),
    [
        ({}, {}, "[]"),
        ({}, {"team": ["x"]}, None),
        ({"match": {"team": "x"}}, {"team": ["x"]}, "[]"),
        ({"match": {"team": ["x", "y"]}}, {"team": ["y", "x"]}, "[]"),
        ({"match": {"team": ["x", "y"]}}, {"team": ["x"]}, None),
        ({"per": ["team"]}, {"team": ["x"]}, '["x"]'),
        ({"per": ["team"]}, {"team": ["x", "y"]}, None),
        ({"per": ["team"]}, {}, None),
        ({"per": ["team"], "match": {"team": ["x", "y"]}}, {"team": ["x"]}, '["x"]'),
        ({"per": ["team"], "match": {"team": ["y", "z"]}}, {"team": ["x"]}, None),
        ({"match": {"team": None}}, {"team": [""]}, "[]"),
        ({"is_rolling": True}, {}, None),
        ({"cost_usd": None, "limit_requests": 5}, {}, None),
    ],
)
def test_a_budget_covers_what_it_counts_exactly(
    account: Account,
    budget: JsonObject,
    filters: Mapping[str, Sequence[str]],
    expected: str | None,
) -> None:
    stored = make_budget(account, **budget)
    with account.scope():
        rule = read_budget_index(account.tenant.id).rules[stored.id]
    assert covering_group(rule, filters) == expected


def test_the_forecast_is_held_against_the_budget_of_the_month(
    account: Account, owner: Client
) -> None:
    send(account, [make_event(cost_usd="30", team="x"), make_event(cost_usd="5")])
    make_budget(account, name="All of it", cost_usd=100)
    make_budget(account, name="Of x", cost_usd=10, match={"team": "x"})
    assert "of <data" in section(page(owner), "totals")
    assert "35% of" in section(page(owner), "totals")
    of_team = section(page(owner, "filter[team]=x"), "totals")
    assert "300% of" in of_team
    assert 'value="10"' in of_team
    assert "Month to date" in owner.get("/charts/month.html").content.decode()


def test_a_daily_budget_is_a_line_on_the_chart_of_days(account: Account, owner: Client) -> None:
    send(account, [make_event(cost_usd="6")])
    make_budget(account, name="Daily", period="day", cost_usd=10, levels=[(70, "none")])
    shapes = owner.get("/charts/spend.json").json()["layout"]["shapes"]
    lines = {shape["label"]["text"]: shape["y0"] for shape in shapes if "label" in shape}
    assert {"Daily": 10, "70%": 7}.items() <= lines.items()
    narrowed = owner.get("/charts/spend.json?filter[agent]=other").json()["layout"]
    assert "Daily" not in str(narrowed), "the budget counts more than what is shown"


def test_days_without_data_are_named_and_not_zero(account: Account, owner: Client) -> None:
    send(account, [make_event(cost_usd="6", time=ago(days=2))])
    begins = datetime.now(UTC) - timedelta(days=2)
    assert f"data since {begins:%b %-d}" in section(page(owner), "coverage")
    shapes = owner.get("/charts/spend.json").json()["layout"]["shapes"]
    (shade,) = [shape for shape in shapes if shape.get("label", {}).get("text") == "no data"]
    assert (shade["x0"], shade["x1"]) == (-0.5, 3.5)


def test_the_csv_of_the_month_runs_up(account: Account, owner: Client) -> None:
    send(account, [make_event(cost_usd="1.5"), make_event(cost_usd="0.000000001")])
    lines = list(csv.reader(owner.get("/charts/month.csv").content.decode().splitlines()))
    assert lines[0] == ["day", "cost_usd", "month_to_date_usd", "previous_month_to_date_usd"]
    assert lines[-1][:3] == [f"{datetime.now(UTC):%Y-%m-%d}", "1.500000001", "1.500000001"]
    assert len(lines) == 1 + datetime.now(UTC).day
    figure = owner.get("/charts/month.json").json()
    assert figure["data"][0]["name"] == "This month"


@pytest.mark.parametrize(("role", "may_halt"), [(Role.ENGINEER, True), (Role.VIEWER, False)])
def test_a_row_halts_what_is_not_halted(account: Account, role: Role, may_halt: bool) -> None:
    send(account, [make_event(agent="going"), make_event(agent="stopped")])
    with account.scope():
        halt(tenant=account.tenant, match={"agent": "stopped"}, reason="x", actor="tests")
    html = section(page(sign_in(make_member(account, role)), "group_by=agent"), "spenders")
    assert ("value=going" in html) is may_halt
    assert "value=stopped" not in html
    assert html.count(">halted</a>") == 1


def test_more_data_needs_no_more_statements(account: Account, owner: Client) -> None:
    def statements(query: str) -> int:
        with CaptureQueriesContext(connection) as context:
            page(owner, query)
        return len(context)

    send(account, [make_event(agent="a", team="t")])
    make_budget(account)
    page(owner)
    few = statements("group_by=agent")
    send(account, [make_event(agent=f"a{number}", team=f"t{number}") for number in range(40)])
    for number in range(6):
        make_budget(account, per=["agent"])
        make_incident(account, cause=f"c{number}", severity=Severity.WARNING)
    assert statements("group_by=agent") <= few + 2
    assert statements("group_by=agent&filter[team]=t1") <= STATEMENTS_MAX


@pytest.mark.parametrize(
    "query",
    [
        "from=2000-01-01&to=2000-01-02",
        "from=1971-01-01&to=1971-01-02",
        "from=2099-01-01&to=2099-01-02",
        "from=2001-01-01&to=2001-01-02",
    ],
)
def test_days_far_away_have_a_page(account: Account, owner: Client, query: str) -> None:
    send(account, [make_event()])
    page(owner, query)
    assert owner.get(f"/charts/spend.json?{query}").status_code == 200


def test_only_all_of_it_is_a_hundred_percent() -> None:
    assert coverage_words(coverage_of(Measures(requests=100_000, unpriced=1))) == "99.9% priced"
    assert coverage_words(coverage_of(Measures(requests=1))) == "100% priced"
    assert coverage_words(coverage_of(Measures())) == "No calls in this period"


def test_the_headline_names_who_made_the_change() -> None:
    groups = [("a", 80, 60), ("b", 20, 10), ("", 30, 30)]
    assert greatest_change("agent", 100, groups) == ("Agent “a” accounts for 60% of the increase")
    assert greatest_change("team", -40, [("a", 0, -60), ("b", 20, 20)]) == (
        "Team “a” spent $0.00000006 less"
    )
    assert greatest_change("agent", 100, [("a", 100, 100)]) is None, "there is no other"
    assert greatest_change("agent", 1000, groups) is None, "none stands out"


def test_nothing_moved_where_nothing_was_before() -> None:
    assert moved_by(None) is None
    assert moved_by(split_change({}, {"a": Used(5, 1)})) is None
    same = {"a": Used(5, 1)}
    assert moved_by(split_change(same, same)) is None


def test_a_curve_spans_its_box() -> None:
    assert curve([0, 5, 10]) == "M0.0 21.0 L42.0 11.0 L84.0 1.0"
    assert curve([0, 0]) == curve([3]) == curve([]) == ""
