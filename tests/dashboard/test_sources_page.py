"""The page of sources, and the page of calls whose outcome is unknown."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from common.json_bodies import JsonObject
from dashboard.findings import sources_headline, unknown_headline
from dashboard.settings.sources import SEVERITIES
from metering.jobs.tasks import expire_reservations
from metering.models import Reservation, Route, SourceOutcome
from metering.usage.sources import PROCESS_RECORDER, Tally, record_reports
from tenants.roles import Role
from tests.dashboard.conftest import sign_in
from tests.dashboard.test_enforcement_pages import HOSTILE, Handlers, page, words
from tests.dashboard.test_team_members import make_team_member
from tests.factories import NANOS, Account, make_budget, make_event, send
from tests.metering.api.caller import Answer, caller
from tests.metering.reservations.test_reservations import ask, expire, settle

PAGES = ("/settings/sources", "/enforcement/unknown")
OTLP = Route.OTLP
CUMULATIVE = "Set OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta where the sender runs."


def tally(source: str, outcome: SourceOutcome, reports: int = 1, **fields: Any) -> Tally:
    return Tally(source, OTLP, outcome, reports, **fields)


def record(account: Account, *tallies: Tally) -> None:
    record_reports(account.tenant.id, tallies)
    PROCESS_RECORDER.flush()


def killed(account: Account, amount_usd: str = "1", **fields: object) -> Answer:
    """A reservation whose agent was killed."""
    asked = ask(caller(account), amount_usd, **fields)
    expire(account, asked)
    expire_reservations()
    return asked


def test_sources_are_listed_with_what_is_lost_and_what_to_set(
    account: Account, owner: Client
) -> None:
    record(
        account,
        tally("codex", SourceOutcome.REJECTED, 1204, code="cumulative_metric", sample='{"a": 1}'),
        tally("app", SourceOutcome.ACCEPTED, 46120),
        tally("app", SourceOutcome.MERGED, 84),
        tally("app", SourceOutcome.PASSED_OVER, 7, code="around_calls"),
        tally("twins", SourceOutcome.ACCEPTED, 3),
        tally("twins", SourceOutcome.CONFLICT, 2, code="conflict"),
    )
    text = words(owner, "/settings/sources")
    assert "2 of 3 sources need attention: 1,204 reports of “codex” were rejected" in text
    assert CUMULATIVE in text
    assert "2 in conflict with known calls" in text
    assert "Nothing lost; 7 aren" in text
    assert "46.1K calls counted once, 84 repeated reports merged, 1.2K rejected" in text
    assert "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta Copy" in text
    html = page(owner, "/settings/sources")
    assert "{&quot;a&quot;: 1}" in html
    assert "/v1/events?conflicts=true&amp;filter[source]=twins" in html
    places = [html.index(f'title="{name}"') for name in ("codex", "twins", "app")]
    assert places == sorted(places)
    link = r'<a href="/settings/sources[^"]*"{}>'
    assert re.search(link.format(' aria-current="page"'), html)
    assert re.search(link.format(""), page(owner, "/settings/prices"))


def test_it_says_whose_the_calls_of_each_source_are(account: Account, owner: Client) -> None:
    send(account, [make_event(source="app", agent=None, user="u")])
    send(account, [make_event(source="app", team="a", agent="b", customer="c", user="d")] * 1)
    send(account, [make_event(source="ci", agent="b")])
    html = page(owner, "/settings/sources/attribution")
    assert "Of 3 calls, 67% have no team, 33% have no agent, 67% have no customer" in html
    rows = re.findall(r'<tr><th scope="row" title="(\w+)">(.*?)</tr>', html, re.S)
    shares = {name: re.findall(r">\s*(\d+%)", row) for name, row in rows}
    assert shares == {"app": ["50%", "50%", "50%", "100%"], "ci": ["0%", "100%", "0%", "0%"]}
    member = sign_in(make_team_member(account, Role.VIEWER, "a"))
    assert member.get("/settings/sources/attribution").status_code == 403


def test_calls_without_a_price_lead_to_the_prices(
    account: Account, as_role: Callable[[Role], Client]
) -> None:
    record(account, tally("app", SourceOutcome.UNPRICED, 206, code="no_price"))
    for role, words_ in ((Role.OWNER, "Add price"), (Role.VIEWER, "Open prices")):
        html = page(as_role(role), "/settings/sources")
        assert f'href="/settings/prices">{words_}</a>' in html


def test_without_reports_the_page_says_how_to_send_one(account: Account, owner: Client) -> None:
    text = words(owner, "/settings/sources")
    assert "No source has reported in this period" in text
    assert f"sg_{account.api_key.split('_')[1]}_YOUR_SECRET" in text
    assert "/v1/events" in text


def test_a_period_chooses_the_days(account: Account, owner: Client) -> None:
    record(account, tally("app", SourceOutcome.ACCEPTED))
    assert "Nothing is lost from 1 source" in words(owner, "/settings/sources?period=today")
    assert "No source has reported" in words(owner, "/settings/sources?period=last_month")
    path = "/settings/sources?from=2024-01-01&to=2024-01-02"
    assert "No source has reported" in words(owner, path)
    assert owner.get("/settings/sources?from=1900-01-01&to=1900-01-02").status_code == 200


def test_an_unknown_outcome_is_listed_until_it_is_settled(account: Account, owner: Client) -> None:
    budget = make_budget(account, name="All agents")
    asked = killed(account, "1.5", agent="researcher", team="growth", model="m-1")
    killed(account, "0.25")
    text = words(owner, "/enforcement/unknown")
    assert "2 calls may have run, for which $1.75 was held" in text
    assert "researcher team growth m-1 $1.50" in text
    assert "no agent not named $0.25" in text
    assert asked.body["id"] in text
    assert "$1.75 outcome unknown" in words(owner, "/budgets")
    settle(caller(account), asked, "0.75")
    text = words(owner, "/enforcement/unknown")
    assert "1 call may have run, for which $0.25 was held" in text
    assert asked.body["id"] not in text
    assert "$0.25 outcome unknown" in words(owner, "/budgets")
    assert budget.name in words(owner, "/budgets")


def test_holds_that_wait_are_found_by_pages(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.enforcement.unknown.SHOWN_MAX", 2)
    for number in range(3):
        killed(account, f"0.0{number + 1}")
    with account.scope():
        Reservation.objects.update(expires_at=timezone.now())
    first = page(owner, "/enforcement/unknown")
    link = first.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    second = page(owner, f"/enforcement/unknown{link}")
    both = first + second
    assert [both.count(f'title="$0.0{number}"') for number in (1, 2, 3)] == [1, 1, 1]
    assert "</svg> Newest</a>" in second
    assert "No holds expired" in words(owner, "/enforcement/unknown?period=last_month")
    for wrong in ("x", "2026-01-01T00:00:00~x", "~", "2026-13-01T00:00:00Z~" + "0" * 32):
        assert owner.get("/enforcement/unknown", {"before": wrong}).status_code == 200


@pytest.mark.parametrize("role", list(Role))
def test_every_role_reads(account: Account, as_role: Callable[[Role], Client], role: Role) -> None:
    record(account, tally("app", SourceOutcome.ACCEPTED))
    killed(account)
    client = as_role(role)
    for path in PAGES:
        assert client.get(path).status_code == 200, path


def test_others_see_nothing(account: Account, stranger: Account, owner: Client) -> None:
    record(stranger, tally("secret", SourceOutcome.REJECTED, code="secret", detail="secret"))
    killed(stranger, agent="secret")
    for path in PAGES:
        assert "secret" not in page(owner, path)
        answer = Client().get(path)
        assert (answer.status_code, answer["Location"][:12]) == (302, "/login?next=")


def test_hostile_words_are_shown_and_do_nothing(account: Account, owner: Client) -> None:
    for value in HOSTILE:
        fields: JsonObject = {"code": value[:100], "detail": value, "sample": value}
        record(account, *(tally(value, each, **fields) for each in SEVERITIES))
        killed(account, agent=value, model=value, user=value)
    for path in PAGES:
        html = page(owner, path)
        parser = Handlers()
        parser.feed(html)
        assert parser.found == []
        assert "<script>alert" not in html
        assert "49{" not in html


def test_headlines_say_what_matters_most() -> None:
    rejected = ("“a”", SourceOutcome.REJECTED, 1)
    assert sources_headline(sources=1, losing=1, worst=rejected) == (
        "1 of 1 source needs attention: 1 report of “a” was rejected"
    )
    assert sources_headline(sources=3, losing=0, worst=None) == "Nothing is lost from 3 sources"
    assert unknown_headline(holds=0, nanos=0, is_capped=False) == (
        "Every call was settled or released in time"
    )
    assert unknown_headline(holds=10_000, nanos=5 * NANOS, is_capped=True) == (
        "At least 10,000 calls may have run, for which $5.00 was held"
    )
