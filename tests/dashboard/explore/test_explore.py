"""The explore page: exact figures that add up, drill-down to the call, rights, hostile names."""

import csv
import io
import json
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.json_bodies import JsonObject
from dashboard import counted_later
from dashboard.explore import exports
from dashboard.explore.metrics import METRICS
from metering.reporting import bounded
from tenants.roles import Role
from tests.dashboard.conftest import sign_in
from tests.dashboard.test_overview import HOSTILE
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_event, send

TODAY = "period=today&compare=off"


def page(client: Client, query: str = "") -> str:
    answer = client.get(f"/explore?{query}")
    assert answer.status_code == 200, query
    return answer.content.decode()


def table_of(html: str) -> str:
    return html[html.index('id="ranking"') :]


def exact_money(html: str) -> list[Decimal]:
    """The amounts of a table, row by row and the total last."""
    return [
        Decimal(result) for result in re.findall(r'<data value="(-?[0-9.]+)" title="\D?\$', html)
    ]


def row_amounts(html: str, name: str) -> Decimal:
    """What the row of a value has spent."""
    row = re.search(rf">{re.escape(name)}</a>\s*</th>(.*?)</tr>", table_of(html), re.S)
    assert row is not None, name
    return exact_money(row[1])[0]


def total_of(html: str) -> Decimal:
    return exact_money(table_of(html).split("<tfoot>")[1])[0]


def body_amounts(html: str) -> list[Decimal]:
    """The first amount of each row of the first dimension, the row of all others included."""
    body = table_of(html).split("<tbody>")[1].split("</tbody>")[0]
    rows = [row for row in body.split("<tr")[1:] if 'class="nest"' not in row.split(">")[0]]
    return [exact_money(row)[0] for row in rows]


def usage(client: Client, account: Account, **asked: str) -> JsonObject:
    answer: JsonObject = client.get(f"/v1/usage?{urlencode(asked)}", headers=account.headers).json()
    return answer


def csv_of(client: Client, address: str) -> list[dict[str, str]]:
    answer = client.get(address)
    assert answer.status_code == 200
    text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
    return list(csv.DictReader(io.StringIO(text)))


def start_of_today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def spread(account: Account) -> None:
    """Usage of two teams, of agents in them, of customers and of nobody."""
    events = [
        make_event(
            team=team,
            agent=f"{team}-{agent}",
            customer=customer or ...,
            cost_usd=str(Decimal(index + 1) / 7 * 1)[:11],
            feature=f"f{index % 3}",
        )
        for index, (team, agent, customer) in enumerate(
            (team, agent, customer)
            for team in ("red", "blue")
            for agent in range(4)
            for customer in ("acme", "zeta", "")
        )
    ]
    send(account, events)


def test_page_api_csv_and_focus_agree_to_the_nano_dollar(account: Account, owner: Client) -> None:
    spread(account)
    html = page(owner, f"{TODAY}&group_by=customer,agent")
    answer = usage(
        owner,
        account,
        **{"from": start_of_today().isoformat(), "interval": "none", "group_by": "customer"},
    )
    total = Decimal(answer["total"]["cost_usd"])
    assert total_of(html) == total
    assert sum(body_amounts(html)) == total
    names = {"acme": "acme", "zeta": "zeta", "": "no customer"}
    for row in answer["data"]:
        shown = row_amounts(html, names[row["group"]["customer"]])
        assert shown == Decimal(row["cost_usd"])
    rows = csv_of(owner, f"/explore/usage.csv?{TODAY}&group_by=customer,agent")
    assert sum(Decimal(row["cost_usd"]) for row in rows) == total
    assert sum(int(row["requests"]) for row in rows) == answer["total"]["requests"]
    focus = csv_of(owner, f"/explore/focus.csv?{TODAY}&group_by=customer")
    assert sum(Decimal(row["BilledCost"]) for row in focus) == total


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    groups=st.sampled_from(["team", "agent", "customer,team", "feature,agent", "session"]),
    filters=st.dictionaries(
        st.sampled_from(["team", "customer", "feature"]),
        st.sampled_from(["red", "blue", "acme", "", "f1"]),
        max_size=2,
    ),
    metric=st.sampled_from(["cost", "requests", "input_tokens"]),
    days=st.integers(0, 2),
)
def test_every_view_adds_up(
    account: Account,
    owner: Client,
    groups: str,
    filters: dict[str, str],
    metric: str,
    days: int,
) -> None:
    if "No usage yet" in page(owner, TODAY):
        spread(account)
    first = (datetime.now(UTC) - timedelta(days=days)).date().isoformat()
    pairs = {"from": first, "to": datetime.now(UTC).date().isoformat(), "group_by": groups}
    pairs |= {f"filter[{name}]": value for name, value in filters.items()}
    query = urlencode(pairs | {"metric": metric, "compare": "off"})
    html = page(owner, query)
    rows = csv_of(owner, f"/explore/usage.csv?{query}")
    spent = sum(Decimal(row["cost_usd"]) for row in rows)
    focus = csv_of(owner, f"/explore/focus.csv?{query}")
    assert sum(Decimal(row["BilledCost"]) for row in focus) == spent
    if "<tfoot>" in html:
        assert total_of(html) == sum(body_amounts(html)) == spent
    else:
        assert spent == 0


def test_what_is_not_shown_is_a_row_of_its_own(account: Account, owner: Client) -> None:
    send(account, [make_event(agent=f"a{n:02}", cost_usd=f"0.{n + 10}") for n in range(25)])
    html = page(owner, f"{TODAY}&group_by=agent")
    assert "15 others" in table_of(html)
    assert sum(body_amounts(html)) == total_of(html)
    assert "1\u201310 of" in table_of(html)
    third = page(owner, f"{TODAY}&group_by=agent&page=3")
    assert sum(body_amounts(third)) == total_of(third) == total_of(html)
    assert "20 others" in table_of(third)
    searched = table_of(page(owner, f"{TODAY}&group_by=agent&search=A07"))
    assert ">a07</a>" in searched
    assert ">a08</a>" not in searched


@pytest.mark.parametrize("metric", list(METRICS))
def test_every_metric_is_shown_and_drawn(account: Account, owner: Client, metric: str) -> None:
    send(
        account,
        [
            make_event(agent="a", user="u", cost_usd="1", latency_ms=100),
            make_event(agent="b", user="v", cost_usd="3", status="error"),
        ],
    )
    query = f"{TODAY}&group_by=agent&metric={metric}"
    html = page(owner, query)
    assert METRICS[metric].words in html
    assert ("not additive" in table_of(html)) == (not METRICS[metric].is_additive)
    assert owner.get(f"/explore/chart.json?{query}").json()["data"]
    assert owner.get(f"/explore/chart.html?{query}").status_code == 200
    assert len(csv_of(owner, f"/explore/usage.csv?{query}")) == 2


def test_metrics_are_those_of_the_api(account: Account, owner: Client) -> None:
    send(
        account,
        [make_event(agent="a", user=f"u{n % 2}", cost_usd="0.3") for n in range(4)]
        + [make_event(agent="b", cost_usd="0.5", status="error")],
    )
    answer = usage(
        owner,
        account,
        **{
            "from": start_of_today().isoformat(),
            "interval": "none",
            "group_by": "agent",
            "metrics": "cost_per_request",
        },
    )
    html = page(owner, f"{TODAY}&group_by=agent&metric=cost_per_request")
    for row in answer["data"]:
        assert row_amounts(html, row["group"]["agent"]) == Decimal(row["cost_per_request"])
    per_user = page(owner, f"{TODAY}&group_by=agent&metric=cost_per_user")
    assert row_amounts(per_user, "a") == Decimal("0.6")
    assert "no users" in table_of(per_user)


def test_a_dollar_can_be_followed_down_to_its_call(account: Account, owner: Client) -> None:
    send(
        account,
        [
            make_event(
                team="red", agent="r", feature="f", session="s/1", trace="t1", cost_usd="0.25"
            ),
            make_event(team="blue", agent="b", feature="g", cost_usd="5"),
        ],
    )
    address = "/explore?group_by=team&compare=off"
    for value in ("red", "r", "f"):
        html = owner.get(address).content.decode()
        link = re.search(rf'<a class="name" href="([^"]+)"[^>]*>{value}</a>', table_of(html))
        assert link is not None, value
        address = f"/explore{unescape(link[1])}"
    html = owner.get(address).content.decode()
    assert 'href="/sessions/s/1"' in html
    calls = re.findall(r'href="(/calls[^"]+)"', table_of(html))
    listed = owner.get(unescape(calls[-1])).content.decode()
    assert "1 call, $0.25 in total" in listed
    assert 'href="/traces/t1"' in listed
    call = re.search(r'<a class="name" href="(/calls/[^"]+)"', listed)
    assert call is not None
    assert "cost $0.25" in owner.get(unescape(call[1])).content.decode()


def test_calls_are_listed_by_time_and_by_cost(account: Account, owner: Client) -> None:
    send(account, [make_event(agent=f"agent-{n}", cost_usd=f"0.{n}") for n in (3, 9, 1)])
    by_cost = owner.get("/calls?order=cost").content.decode()
    places = [by_cost.index(f">agent-{n}</a>") for n in (9, 3, 1)]
    assert places == sorted(places)
    assert "agent-3" not in owner.get("/calls?filter[agent]=agent-9").content.decode()
    assert "No calls match" in owner.get("/calls?filter[agent]=nobody").content.decode()


def test_calls_that_are_looked_for_are_listed_after_the_page(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [make_event(user=f"user-{n}", cost_usd=f"0.{n}") for n in (3, 9)])
    monkeypatch.setattr(counted_later, "READ_AT_ONCE_MAX", 1)
    shell = owner.get("/calls?order=cost&filter[user]=user-9").content.decode()
    assert "$0.90" not in shell
    assert 'aria-label="Remove user user-9"' in shell
    (later,) = re.findall(r'hx-get="(/calls.html[^"]*)"', shell)
    listed = owner.get(unescape(later)).content.decode()
    assert re.search(r'<h1 id="headline" hx-swap-oob="true" data-later>1 call, \$0.90', listed)
    assert "Costliest calls" in listed
    assert "$0.30" not in listed
    # An index finds these without looking.
    for query in ("", "filter[session]=s", "filter[customer]=c"):
        assert "hx-get" not in owner.get(f"/calls?{query}").content.decode().split("<main")[1]


def test_a_member_of_a_team_sees_no_other_teams_money(account: Account) -> None:
    send(
        account,
        [
            make_event(team="own", agent="mine", customer="acme", cost_usd="1"),
            make_event(team="rest", agent="theirs", customer="acme", cost_usd="7"),
            make_event(agent="nobodys", cost_usd="30"),
        ],
    )
    client = sign_in(make_team_member(account, Role.ENGINEER, "own"))
    for query in ("group_by=customer,agent", "group_by=team", "group_by=agent&filter[team]=rest"):
        html = page(client, f"{TODAY}&{query}")
        assert total_of(html) == 1
        for hidden in ("theirs", "nobodys", "$7", "$8", "$38"):
            assert hidden not in html
        rows = csv_of(client, f"/explore/usage.csv?{TODAY}&{query}")
        assert sum(Decimal(row["cost_usd"]) for row in rows) == 1
        focus = csv_of(client, f"/explore/focus.csv?{TODAY}&{query}")
        assert sum(Decimal(row["BilledCost"]) for row in focus) == 1
        for figure in ("chart.json?", "composition.json?", "composition.json?shape=flow&"):
            drawn = client.get(f"/explore/{figure}{TODAY}&{query}").content.decode()
            assert "theirs" not in drawn
            assert "$7" not in drawn
            assert "$8" not in drawn
    listed = client.get("/calls?filter[team]=rest").content.decode()
    assert "theirs" not in listed
    assert "1 call, $1.00 in total" in listed


def test_streams_go_from_the_first_dimension_to_the_second_and_sum_to_the_total(
    account: Account, owner: Client
) -> None:
    send(
        account,
        [
            make_event(team=team, agent=agent, cost_usd=cost)
            for team, agent, cost in [
                ("a", "shared", "3"),
                ("b", "shared", "5"),
                ("b", "own", "2"),
                *(("c", f"of c {number}", "0.5") for number in range(8)),
            ]
        ],
    )
    query = f"{TODAY}&group_by=team,agent&shape=flow"
    [trace] = owner.get(f"/explore/composition.json?{query}").json()["data"]
    labels, link = trace["node"]["label"], trace["link"]
    result = {
        (labels[source], labels[target]): value
        for source, target, value in zip(link["source"], link["target"], link["value"], strict=True)
    }
    assert (result["a", "shared"], result["b", "shared"], result["b", "own"]) == (3, 5, 2)
    # Five of the agents of `c` are read by themselves; the others go on together.
    assert result["c", "other"] == 1.5
    assert sum(link["value"]) == total_of(page(owner, query)) == 14
    # Links of the page keep the shape, and one dimension alone has none.
    assert "shape=flow" in page(owner, query).split('aria-label="Metric"')[1].split("</div>")[0]
    alone = owner.get(f"/explore/composition.json?{TODAY}&group_by=team&shape=flow").json()
    assert alone["data"][0]["type"] == "treemap"
    assert 'aria-label="Shape"' not in page(owner, f"{TODAY}&group_by=team&shape=flow")


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_stay_text(account: Account, owner: Client, value: str) -> None:
    send(account, [make_event(agent=value, customer=value, session=value, cost_usd="1")])
    html = page(owner, f"{TODAY}&group_by=agent,customer")
    assert "<script>alert" not in html
    assert 'onmouseover="alert' not in html
    answer = owner.get(f"/explore/composition.json?{TODAY}&group_by=agent,customer")
    [trace] = json.loads(answer.content)["data"]
    assert all("<" not in label for label in trace["labels"])
    answer = owner.get(f"/explore/composition.json?{TODAY}&group_by=agent,customer&shape=flow")
    [trace] = json.loads(answer.content)["data"]
    assert all("<" not in label for label in trace["node"]["label"])
    assert "<script>alert" not in owner.get("/calls").content.decode()
    filtered = page(owner, f"{TODAY}&{urlencode({'filter[agent]': value})}&group_by=customer")
    assert total_of(filtered) == 1
    text = b"".join(
        owner.get(f"/explore/usage.csv?{TODAY}&group_by=agent").streaming_content  # type: ignore[attr-defined]
    ).decode()
    [_, row] = csv.reader(io.StringIO(text))
    assert not row[1].startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("value", ["it's", "$(touch /tmp/x)", "a`b`", 'q"uote', "a b&c=d;e"])
def test_the_curl_line_asks_for_the_same_and_runs_nothing(
    account: Account, owner: Client, value: str
) -> None:
    send(account, [make_event(agent=value, customer="acme", cost_usd="1.25")])
    send(account, [make_event(agent="other", cost_usd="5")])
    html = page(
        owner, f"{TODAY}&group_by=customer&{urlencode({'filter[agent]': value})}&metric=users"
    )
    line = re.search(r'<pre class="code" id="curl"[^>]*><code>(.*?)</code>', html, re.S)
    assert line is not None
    words = shlex.split(unescape(line[1]).replace("\\\n", ""))
    assert words[:3] == ["curl", "-s", "-g"]
    assert words[4:] == ["-H", "Authorization: Bearer YOUR_KEY"]
    address = urlsplit(words[3])
    assert parse_qs(address.query)["filter[agent]"] == [value]
    answer = owner.get(f"{address.path}?{address.query}", headers=account.headers)
    assert answer.status_code == 200, answer.content
    assert answer.json()["total"]["cost_usd"] == "1.25"


def test_what_an_address_cannot_mean_is_said(account: Account, owner: Client) -> None:
    send(account, [make_event(cost_usd="1")])
    html = page(owner, "metric=nonsense&interval=nonsense&group_by=a,b&page=x")
    assert "This metric is not known" in html
    assert "This interval is not known" in html
    hours = page(owner, "period=30d&interval=hour")
    assert "The chart shows hours" not in hours
    long = page(owner, "from=2026-01-01&to=2026-11-30&interval=hour")
    assert "The chart shows hours for at most 32 days" in long


def test_no_usage_leads_on(owner: Client) -> None:
    assert "Send your first event" in page(owner)
    assert "No calls" in owner.get("/calls").content.decode()
    assert owner.get("/explore/chart.json").status_code == 200
    assert owner.get("/explore/composition.json").status_code == 200


def test_a_period_is_compared_and_added_up(account: Account, owner: Client) -> None:
    now = datetime.now(UTC)
    send(account, [make_event(agent="a", cost_usd="3", time=now.isoformat())])
    send(
        account,
        [make_event(agent="a", cost_usd="2", time=(now - timedelta(days=7, hours=1)).isoformat())],
    )
    assert "+50%" in table_of(page(owner, "group_by=agent"))
    figure = owner.get("/explore/chart.json?group_by=agent&cumulative=true").json()
    lines = {each["name"]: [y for y in each["y"] if y is not None] for each in figure["data"]}
    assert lines["a"][-1] == 3
    assert lines["Previous period"][-1] == 2


@pytest.mark.parametrize("path", ["/explore", "/calls", "/reports", "/explore/chart.html"])
def test_who_may_open_the_pages(
    account: Account, as_role: Callable[[Role], Client], path: str
) -> None:
    send(account, [make_event(cost_usd="1")])
    for role in Role:
        assert as_role(role).get(path).status_code == 200
    assert Client().get(path).status_code == 302


def test_the_address_is_the_view(account: Account, owner: Client) -> None:
    send(account, [make_event(team="red", agent="a", cost_usd="1")])
    query = "group_by=team,agent&interval=week&metric=requests&compare=off&filter[team]=red"
    html = page(owner, query)
    download = re.search(r'href="/explore/usage.csv\?([^"]*)"', html)
    assert download is not None
    assert sorted(parse_qsl(unescape(download[1]))) == sorted(parse_qsl(query))


def test_a_page_of_much_usage_comes_before_figures_that_are_no_sums(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [make_event(agent="a", user=f"u{n}", cost_usd="0.5") for n in range(2)])
    monkeypatch.setattr(counted_later, "COUNTED_AT_ONCE_MAX", 1)
    html = page(owner, f"{TODAY}&group_by=agent&metric=users&search=a")
    assert "Users by agent" in html
    assert 'id="ranking"' not in html
    (later,) = re.findall(r'hx-get="(/explore/ranking.html[^"]*)"', html)
    figures = owner.get(unescape(later)).content.decode()
    assert re.search(r'<h1 id="headline" hx-swap-oob="true" data-later>Users: 2', figures)
    assert row_shows(figures, "a", "2")
    assert 'value="a"' in figures
    # Sums are read as fast as the page.
    assert 'id="ranking"' in page(owner, f"{TODAY}&group_by=agent&metric=error_rate")
    # Of pairs, and of users, there are sums of days alone.
    for query in ("group_by=agent,model", "group_by=user", "group_by=agent&filter[model]=x"):
        assert 'id="ranking"' not in page(owner, f"{TODAY}&{query}")
    monkeypatch.setattr(bounded, "EVENTS_MAX", -1)
    refused = owner.get("/explore/ranking.html?group_by=user&metric=p95_cost_usd").content.decode()
    assert "This cannot be shown together" in refused
    assert "Show spend instead" in refused


def row_shows(html: str, name: str, text: str) -> bool:
    """Whether a cell of the row of a value has exactly this text."""
    row = re.search(rf">{re.escape(name)}</a>\s*</th>(.*?)</tr>", table_of(html), re.S)
    assert row is not None, name
    return text in re.findall(r">\s*([^<>]+?)\s*<", row[1])


def test_what_would_read_too_much_is_refused_in_words(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [make_event(agent="a", feature="f", cost_usd="1", latency_ms=5)])
    monkeypatch.setattr(bounded, "EVENTS_MAX", -1)
    query = f"{TODAY}&group_by=user&metric=p95_latency_ms"
    html = page(owner, query)
    assert "one by one: ask for a shorter range" in html
    assert "Show spend instead" in html
    drawn = owner.get(f"/explore/chart.json?{query}").json()
    assert "shorter range" in drawn["layout"]["annotations"][0]["text"].replace("<br>", " ")
    assert b"shorter range" in owner.get(f"/explore/chart.html?{query}").content
    refused = owner.get(f"/explore/usage.csv?{query}")
    assert refused.status_code == 422
    assert b"Nothing was exported" in refused.content


def test_an_export_ends_where_a_file_is_full(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [make_event(agent=name, cost_usd="1") for name in "abc"])
    monkeypatch.setattr(exports, "ROWS_MAX", 2)
    refused = owner.get(f"/explore/usage.csv?{TODAY}&group_by=agent")
    assert refused.status_code == 422
    assert b"more than 2 rows" in refused.content


def test_a_value_within_another_leads_to_both(account: Account, owner: Client) -> None:
    send(account, [make_event(team=team, agent="a", cost_usd="1") for team in ("red", "blue")])
    query = f"{TODAY}&group_by=team,agent&filter[customer]="
    html = table_of(page(owner, query))
    links = {unescape(each) for each in re.findall(r'href="([^"]+)"[^>]*>a</a>', html)}
    assert len(links) == 2
    for link in links:
        answer = page(owner, link.removeprefix("?"))
        assert total_of(answer) == 1
