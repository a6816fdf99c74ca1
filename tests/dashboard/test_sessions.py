"""Pages of sessions, traces and calls: figures, order, what a team sees, and hostile names."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from alerts.incidents import observe
from dashboard import counted_later
from metering.limits.decisions import DecisionRow, insert_decisions
from metering.reporting import session_list
from tenants.roles import Role
from tests.alerts.scene import seen
from tests.dashboard.conftest import sign_in
from tests.dashboard.test_enforcement_pages import page, words
from tests.dashboard.test_team_members import make_team_member
from tests.factories import Account, make_budget, make_event, send

HOSTILE = [
    "a/b/c",
    "..",
    "a%2Fb?c#d&e",
    "~",
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "=1+1\n{{ 7 * 7 }}",
    "名前 \u202e reversed",
    "x" * 200,
]
START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)


def call(second: int, **fields: object) -> dict[str, object]:
    """A call so many seconds into the session `run`."""
    at = START + timedelta(seconds=second)
    return make_event(**{"session": "run", "time": at.isoformat(), "latency_ms": 500, **fields})


def costs_in(html: str) -> list[Decimal]:
    """The exact amounts behind the dollars of a piece of a page."""
    return [Decimal(value) for value, _ in re.findall(r'<data value="([\d.]+)"[^>]*>([$&])', html)]


def part(html: str, begin: str, end: str) -> str:
    return html[html.index(begin) : html.index(end, html.index(begin))]


def exact_cost(html: str) -> Decimal:
    """The cost in the first tile."""
    return costs_in(part(html, "<dt>Cost</dt>", "</dd>"))[0]


@pytest.mark.parametrize("role", list(Role))
def test_every_member_may_read_sessions(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    send(account, [call(0, id="c-1", trace="t-1", span="s-1")])
    client = as_role(role)
    for path in ("/sessions", "/sessions/run", "/traces/t-1", "/calls/tests/c-1"):
        assert client.get(path).status_code == 200, path
        assert client.post(path).status_code == 405
        assert Client().get(path).status_code == 302


def test_sessions_of_another_tenant_are_not_there(owner: Client, stranger: Account) -> None:
    send(stranger, [call(0, id="c-1", trace="t-1", span="s-1")])
    for path in ("/sessions/run", "/traces/t-1", "/calls/tests/c-1"):
        assert owner.get(path).status_code == 404
    assert "No sessions in this period" in words(owner, "/sessions")


def test_the_list_orders_by_cost_by_time_and_by_what_is_usual(
    account: Account, owner: Client
) -> None:
    for number in range(6):
        send(account, [call(number, session=f"small-{number}", agent="a", cost_usd="0.5")])
    send(account, [call(10, session="odd", agent="a", cost_usd="50.12")])
    send(account, [call(5, session="dear", agent="b", cost_usd="100", status="error")])
    order = re.compile(r'href="/sessions/([a-z0-9-]+)"')
    assert order.findall(page(owner, "/sessions"))[:2] == ["dear", "odd"]
    assert order.findall(page(owner, "/sessions?order=newest"))[0] == "odd"
    unusual = page(owner, "/sessions?order=unusual")
    assert order.findall(unusual)[0] == "odd"
    assert "100\u00d7" in unescape(unusual)
    assert order.findall(page(owner, "/sessions?session=small-3")) == ["small-3", "small-3"]
    assert "This order is not known" in words(owner, "/sessions?order=sideways")
    assert "Session odd cost $50.12, 100\u00d7 the usual of a" in words(
        owner, "/sessions?order=unusual"
    )


def test_the_list_shows_how_many_sessions_cost_how_much(account: Account, owner: Client) -> None:
    costs = [*["1"] * 10, *["2"] * 9, "28"]
    send(
        account,
        [call(0, session=f"s{at}", agent="a", cost_usd=cost) for at, cost in enumerate(costs)],
    )
    send(account, [call(0, session="other", agent="b", cost_usd="90")])
    assert "/charts/session-costs.html?" in page(owner, "/sessions?filter[agent]=a")
    path = "/charts/session-costs.html?filter[agent]=a"
    told = "Half of 20 sessions cost $1.00 or less; the costliest one made 50% of their spend"
    assert told in words(owner, path)
    html = page(owner, path)
    numbers = [int(number) for number in re.findall(r'<td class="num"><data value="(\d+)"', html)]
    assert sum(numbers) == 20
    assert (numbers[0], numbers[-1]) == (10, 1)
    few = page(owner, "/charts/session-costs.html?filter[agent]=b")
    assert "too few to show what is usual" in few


def test_pages_of_the_list_repeat_no_session(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.sessions.lists.PER_PAGE", 3)
    send(account, [call(n, session=f"run-{n}", cost_usd="1") for n in range(7)])
    result: list[str] = []
    path: str | None = "/sessions"
    while path:
        html = page(owner, path)
        result += re.findall(r'<a class="name mono" href="/sessions/([\w-]+)"', html)
        older = re.search(r'href="(\?[^"]*cursor=[^"]*)"', html)
        path = "/sessions" + unescape(older[1]) if older else None
    assert sorted(result) == [f"run-{n}" for n in range(7)]
    assert "This page is not known" in words(owner, "/sessions?cursor=x")


def test_a_list_that_does_not_read_all_calls_says_so(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [call(n, session=f"run-{n}") for n in range(4)])
    assert "more calls than one list reads" not in words(owner, "/sessions")
    monkeypatch.setattr(session_list, "CALLS_READ_MAX", 3)
    html = page(owner, "/sessions")
    assert "more calls than one list reads" in html
    assert "run-0" not in html
    # A session that the list does not reach is found by its whole id.
    assert 'href="/sessions/run-0"' in page(owner, "/sessions?session=run-0")


def test_many_calls_are_read_after_the_page(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        send(account, [call(-60, session=f"usual-{number}", agent="a", cost_usd="0.5")])
    send(account, [call(n, agent="a", cost_usd="5") for n in range(2)])
    monkeypatch.setattr(counted_later, "READ_AT_ONCE_MAX", 1)
    for path, part_path, told in (
        ("/sessions?order=unusual&session=ru", "/sessions.html", "Session run cost $10.00, 20"),
        ("/sessions/run", "/usual-of-session/run", "This session cost $10.00, 20"),
    ):
        shell = page(owner, path)
        assert "20\u00d7" not in unescape(shell)
        (later,) = re.findall(rf'hx-get="({part_path}[^"]*)"', shell)
        found = unescape(page(owner, unescape(later)))
        assert f'<h1 id="headline" hx-swap-oob="true" data-later>{told}\u00d7 the usual' in found
    listed = page(owner, "/sessions.html?order=unusual&session=ru")
    assert re.findall(r'href="/sessions/([a-z0-9-]+)"', listed) == ["run"]
    assert "None of <data" in page(owner, "/usual-of-session/run")
    assert owner.get("/usual-of-session/none").status_code == 404


def test_a_session_says_what_it_cost_and_why(account: Account, owner: Client) -> None:
    for number in range(6):
        send(account, [call(-60, session=f"usual-{number}", agent="a", cost_usd="0.5")])
    calls = [call(-60, session="usual-x", agent="a", cost_usd="0.5")]
    for number in range(10):
        calls.append(call(number * 2, agent="a", cost_usd="5", input_tokens=1000 * (number + 1)))
        calls.append(
            call(
                number * 2 + 1,
                agent="a",
                tool="search",
                tool_arguments_hash="same",
                model=...,
                provider=...,
                input_tokens=...,
                output_tokens=...,
            )
        )
    send(account, calls)
    said = words(owner, "/sessions/run")
    assert "This session cost $50.00, 100\u00d7 the usual $0.50 of a." in said
    assert (
        "18 repeated calls, mostly of search, made 90% of it while its context grew from"
        " 3.0K to 10.0K tokens." in said
    )
    assert "repeat 10" in said
    assert "None of 7 earlier sessions cost more" in said


def test_the_page_shows_what_the_api_answers(account: Account, owner: Client) -> None:
    send(account, [call(n, cost_usd=f"0.00000000{n}", agent=f"a-{n % 2}") for n in range(1, 6)])
    html = page(owner, "/sessions/run")
    assert exact_cost(html) == Decimal("0.000000015")
    rows = part(html, 'id="calls"', "<tfoot")
    running = [Decimal(f"0.0000000{total:02}") for total in (1, 3, 6, 10, 15)]
    assert [each for each in running if each in costs_in(rows)] == running
    by_agent = costs_in(part(html, "By agent", "</section>"))
    assert sum(by_agent) == exact_cost(html)
    assert exact_cost(html) == sum(costs_in(part(page(owner, "/sessions"), "<tbody>", "</td>")))


def test_a_team_sees_its_own_calls_of_a_shared_session(account: Account) -> None:
    shared = {"trace": "t-1", "agent": "a"}
    send(
        account,
        [
            call(0, id="own-1", team="own", cost_usd="1", span="s-1", **shared),
            call(
                1,
                id="rest-1",
                team="rest",
                cost_usd="7",
                span="s-2",
                parent_span="s-1",
                customer="secret",
                **shared,
            ),
            call(2, id="own-2", team="own", cost_usd="2", span="s-3", parent_span="s-2", **shared),
            call(3, id="rest-2", team="rest", cost_usd="9", session="theirs", trace="t-2"),
        ],
    )
    make_budget(account, name="whole tenant", period="lifetime", cost_usd=40)
    make_budget(account, name="own alone", period="lifetime", match={"team": "own"}, cost_usd=20)
    with account.scope(), connection.cursor() as cursor:
        insert_decisions(
            cursor,
            account.tenant.id,
            [
                DecisionRow(
                    START,
                    "refuse",
                    "halted",
                    {"session": "run", "team": team},
                    [{"detail": f"Stopped for {team}."}],
                )
                for team in ("own", "rest")
            ],
        )
        observe(
            tenant_id=account.tenant.id,
            observation=seen(cause="loop:run", match={"session": "run"}),
        )
    client = sign_in(make_team_member(account, Role.ENGINEER, "own"))
    html = page(client, "/sessions/run")
    assert exact_cost(html) == 3
    assert "Stopped for own." in html
    assert "own alone" in html
    for hidden in ("Stopped for rest.", "secret", "rest-1", "whole tenant", "looping", "$10"):
        assert hidden not in html, hidden
    tree = page(client, "/traces/t-1")
    assert costs_in(part(tree, "In all", "</b>")) == [3]
    assert "rest-1" not in tree
    listed = page(client, "/sessions")
    assert "theirs" not in listed
    assert sum(costs_in(part(listed, "<tbody>", "</td>"))) == 3
    for path in (
        "/sessions/theirs",
        "/traces/t-2",
        "/calls/tests/rest-1",
        "/calls/tests/rest-1/facts",
    ):
        assert client.get(path).status_code == 404, path
    assert "Open session" not in page(client, "/sessions?session=theirs")
    whole = page(sign_in(account.email), "/sessions/run")
    assert exact_cost(whole) == 10
    assert "looping" in whole


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text_and_have_pages(account: Account, owner: Client, name: str) -> None:
    send(
        account,
        [
            call(
                0,
                id=name,
                source=name,
                session=name,
                trace=name,
                span="s",
                agent=name,
                feature=name,
                tool_arguments_hash=name,
                error_type=name,
                status="error",
                tags={name[:40]: name},
            )
        ],
    )
    paths = [
        "/sessions",
        reverse("dashboard:session", args=[name]),
        reverse("dashboard:trace", args=[name]),
        reverse("dashboard:call", args=[name, name]),
        reverse("dashboard:call_facts", args=[name, name]),
    ]
    for path in paths:
        html = page(owner, path)
        assert "<script>alert" not in html
        assert 'onmouseover="alert' not in html
        assert "49" not in re.findall(r">\s*(=1\+1\n49)", html)
    address = re.search(r'href="(/calls/[^"]+)"', page(owner, paths[1]))
    assert address is not None
    assert owner.get(unescape(address[1])).status_code == 200


def test_a_call_without_a_source_has_a_page(account: Account, owner: Client) -> None:
    send(account, [call(0, id="c-1", source=..., cost_usd="0.25")])
    html = page(owner, "/sessions/run")
    address = re.search(r'href="(/calls/[^"]+)"', html)
    assert address is not None
    assert "This call of claude-sonnet-4-5 cost $0.25" in words(owner, address[1])


def test_a_call_is_found_by_each_of_its_reports(account: Account, owner: Client) -> None:
    send(account, [call(0, id="c-1", response_id="msg-1", cost_usd="1")])
    send(account, [call(0, id="c-2", source="proxy", response_id="msg-1", user="u-1")])
    for path in ("/calls/tests/c-1", "/calls/proxy/c-2"):
        said = words(owner, path)
        assert "tests native c-1" in said
        assert "proxy native c-2" in said
        assert "sent with the call" in said


def test_long_sessions_and_traces_are_cut_into_pages(account: Account, owner: Client) -> None:
    send(
        account,
        [
            call(
                n,
                trace="t-1",
                span=f"s-{n}",
                parent_span="s-0" if n else ...,
                cost_usd="9" if n == 230 else "0.01",
            )
            for n in range(250)
        ],
    )
    html = page(owner, "/sessions/run")
    assert html.count('id="call-') == 210  # two hundred, and the ten costliest
    assert "The 10 costliest calls" in html
    assert 'id="call-231"' in html
    further = page(owner, "/sessions/run?call=201")
    assert "Calls 201\u2013250 of" in further
    assert exact_cost(further) == exact_cost(html) == Decimal("11.49")
    tree = page(owner, "/traces/t-1")
    assert tree.count('class="branch"') == 200
    assert page(owner, "/traces/t-1?part=2").count('class="branch"') == 50
    assert page(owner, "/traces/t-1?part=9999").count('class="branch"') == 50


def test_decisions_of_a_session_stand_on_its_page(account: Account, owner: Client) -> None:
    send(account, [call(0)])
    reason = {"detail": "The budget is used up."}
    with account.scope(), connection.cursor() as cursor:
        insert_decisions(
            cursor,
            account.tenant.id,
            [
                DecisionRow(START, "refuse", "budget_exceeded", {"session": "run"}, [reason]),
                DecisionRow(START, "refuse", "budget_exceeded", {"session": "else"}, [reason]),
            ],
        )
    said = words(owner, "/sessions/run")
    assert said.count("The budget is used up.") == 1
    assert "1 refused" in words(owner, "/sessions")


def test_what_was_taken_back_costs_nothing_and_is_marked(account: Account, owner: Client) -> None:
    send(account, [call(0, id="c-1", cost_usd="1"), call(1, id="c-2", cost_usd="2")])
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("UPDATE usage_event SET is_void = true WHERE sent_id = 'c-1'")
    html = page(owner, "/sessions/run")
    assert "taken back" in html
    assert costs_in(part(html, 'id="call-2"', "</tr>"))[-1] == 2
    assert "was taken back" in words(owner, "/calls/tests/c-1")
