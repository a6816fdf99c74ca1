"""Pages of incidents: what needs somebody, what people do with it, and whether alerts arrive."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db.models import Model
from django.test import Client
from django.utils import timezone

from alerts.incidents import comment, observe, resolve
from alerts.models import (
    Anomaly,
    Channel,
    Delivery,
    DeliveryAttempt,
    DeliveryState,
    Incident,
    IncidentEntry,
    IncidentKind,
    Severity,
)
from dashboard.findings import channels_headline, deliveries_headline, incidents_headline
from dashboard.incidents.course import MEASURES
from dashboard.incidents.figures import Figure, figures_of
from dashboard.incidents.lines import snooze_until
from metering.reporting.usage import Measures
from tenants.models import User
from tenants.roles import Role
from tests.alerts.scene import make_channel, seen
from tests.dashboard.conftest import make_member
from tests.dashboard.test_enforcement_pages import (
    HOSTILE,
    Handlers,
    page,
    press,
    stored,
    text_of,
    words,
)
from tests.factories import NANOS, Account, make_account, make_event, send

HANDLERS = {Role.OWNER, Role.ADMIN, Role.FINANCE, Role.ENGINEER}
MANAGERS = {Role.OWNER, Role.ADMIN, Role.FINANCE}


def make_incident(account: Account, cause: str = "anomaly:agent=a", **fields: object) -> Incident:
    with account.scope():
        return observe(tenant_id=account.tenant.id, observation=seen(cause, **fields))


def again(account: Account, row: Model) -> Any:
    """The row as it is stored now."""
    with account.scope():
        return type(row)._default_manager.get(pk=row.pk)


def delivery_of(account: Account, **changes: object) -> Delivery:
    """The newest delivery, changed as a worker would have."""
    with account.scope():
        deliveries = Delivery.objects.filter(tenant=account.tenant).latest("id")
        Delivery.objects.filter(id=deliveries.id).update(**changes)
        deliveries.refresh_from_db()
        return deliveries


# The list


def test_the_worst_that_waits_comes_first_and_is_the_headline(
    account: Account, owner: Client
) -> None:
    make_incident(account, "a", title="Warning one")
    make_incident(account, "b", title="Critical one", severity=Severity.CRITICAL)
    make_incident(account, "c", title="Info one", severity=Severity.INFO)
    said = words(owner, "/incidents")
    assert "2 incidents need attention. Most urgent: Critical one" in said
    lines = said.split("Needs attention")[-1]
    order = ("Critical one", "Warning one", "For your information", "Info one")
    places = [lines.index(words_of) for words_of in order]
    assert places == sorted(places)
    assert "Incidents 2 2 need attention" in words(owner, "/budgets")


def test_those_of_one_severity_come_by_money_and_unknown_amounts_last(
    account: Account, owner: Client
) -> None:
    send(account, [make_event(cost_usd="1")])
    for name, nanos in (("Five", 5 * NANOS), ("One", NANOS), ("Unknown", None)):
        make_incident(account, name, title=f"{name} of them", excess_nanos=nanos)
    for path in ("/incidents", "/"):
        said = words(owner, path).split("Needs attention")[-1]
        places = [said.index(f"{name} of them") for name in ("Five", "One", "Unknown")]
        assert places == sorted(places), path


def test_a_line_says_what_it_cost_since_when_and_who_has_it(
    account: Account, owner: Client
) -> None:
    made = make_incident(account, excess_nanos=41 * NANOS)
    html = page(owner, "/incidents")
    assert 'title="$41">$41.00' in html
    assert "more than usual" in html
    assert f'<time datetime="{made.opened_at:%Y-%m-%dT%H:%M:%SZ}"' in html
    assert 'href="?filter[agent]=a"' in html
    press(owner, f"/incidents/{made.id}/take")
    assert f"assigned to {account.email}" in words(owner, "/incidents")


def test_filters_narrow_by_status_kind_severity_and_chips(account: Account, owner: Client) -> None:
    make_incident(account, "a", title="The loop", kind=IncidentKind.LOOP, match={"agent": "b"})
    make_incident(account, "b", title="The rule", kind=IncidentKind.RULE, match={"agent": None})
    ended = make_incident(account, "c", title="The end", severity=Severity.CRITICAL)
    with account.scope():
        resolve(incident=ended, actor="Ana")
    shown = {
        "kind=loop": {"The loop"},
        "filter[agent]=": {"The rule"},
        "filter[agent]=b&filter[agent]=": {"The loop", "The rule"},
        "severity=critical": {"The end"},
        "status=resolved": {"The end"},
        "status=open": {"The loop", "The rule"},
        "status=snoozed": set(),
        "from=2026-01-01&to=2026-01-02": {"The loop", "The rule"},
    }
    for query, titles in shown.items():
        html = page(owner, f"/incidents?{query}")
        result = set(re.findall(r'<a class="name strong"[^>]*>(.*?)</a>', html))
        assert result == titles, query
    assert "No incident matches these filters" in words(owner, "/incidents?status=snoozed")
    assert "This kind is not known" in words(owner, "/incidents?kind=dance")


def test_resolved_ones_come_page_by_page(account: Account, owner: Client) -> None:
    with account.scope():
        Incident.objects.bulk_create(
            Incident(
                tenant=account.tenant,
                kind=IncidentKind.RULE,
                cause=str(number),
                severity=Severity.INFO,
                title=f"Rule {number}",
                resolved_at=timezone.now(),
            )
            for number in range(27)
        )
    first = page(owner, "/incidents")
    assert first.count('id="incident-') == 25
    older = re.search(r'href="(\?before=\d+)', first)
    assert older is not None
    second = page(owner, f"/incidents{older[1]}")
    assert re.findall(r"Rule (\d+)</a>", second) == ["1", "0"]


def test_an_empty_list_says_what_is_watched_and_how_to_be_told(
    account: Account, owner: Client
) -> None:
    said = words(owner, "/incidents")
    assert "Nothing needs attention now" in said
    assert "a session repeats the same calls" in said
    assert "curl http://testserver/v1/channels" in said
    assert f"Bearer {account.api_key[:11]}" in said
    make_channel(account)
    assert "curl" not in words(owner, "/incidents")


# What people do


def test_an_acknowledgement_is_written_once_however_often_it_is_pressed(
    account: Account, owner: Client
) -> None:
    made = make_incident(account)
    for _ in range(2):
        said = press(owner, f"/incidents/{made.id}/acknowledge")
        assert "Everyone can see that you are looking into it." in said
    assert "Nothing needs attention; 1 incident is already being handled" in said
    assert f"acknowledged by {account.email}" in said
    assert again(account, made).acknowledged_by == account.email
    kinds = [entry["kind"] for entry in stored(account, IncidentEntry)]
    assert kinds.count("acknowledged") == 1


def test_an_incident_is_taken_and_given_back(account: Account, owner: Client) -> None:
    made = make_incident(account)
    press(owner, f"/incidents/{made.id}/take")
    assert again(account, made).assigned_to.email == account.email
    assert "Unassign" in words(owner, "/incidents")
    press(owner, f"/incidents/{made.id}/give-back")
    assert again(account, made).assigned_to is None


def test_an_incident_is_assigned_to_a_member_and_to_nobody_else(
    account: Account, owner: Client
) -> None:
    made = make_incident(account)
    path = f"/incidents/{made.id}/assign"
    colleague = User.objects.get(email=make_member(account, Role.ENGINEER))
    assert f'<option value="{colleague.id}">' in page(owner, f"/incidents/{made.id}")
    said = press(owner, path, user=str(colleague.id), back=f"/incidents/{made.id}")
    assert f"Assigned to {colleague.email}." in said
    assert again(account, made).assigned_to_id == colleague.id
    stranger = User.objects.get(email=make_account().email)
    for user_id in (str(stranger.id), "", "x", "9" * 30):
        assert "Choose a member. Nothing was changed." in press(owner, path, user=user_id), user_id
    assert again(account, made).assigned_to_id == colleague.id


def test_a_snooze_ends_as_chosen_or_by_hand(account: Account, owner: Client) -> None:
    made = make_incident(account)
    said = press(owner, f"/incidents/{made.id}/snooze", **{"for": "hour"})
    assert "Snoozed: 1 hour." in said
    until = again(account, made).snoozed_until
    assert timedelta(minutes=59) < until - timezone.now() <= timedelta(hours=1)
    assert "End snooze" in said
    press(owner, f"/incidents/{made.id}/wake")
    assert again(account, made).snoozed_until is None
    assert "Nothing was snoozed" in press(owner, f"/incidents/{made.id}/snooze", **{"for": "year"})


def test_tomorrow_begins_at_eight_by_the_clock_of_the_tenant() -> None:
    zone = ZoneInfo("America/New_York")
    now = datetime(2026, 11, 1, 3, 30, tzinfo=UTC)  # still 31 October there, before the clocks turn
    until = snooze_until("tomorrow", now=now, zone=zone)
    assert until.astimezone(UTC) == datetime(2026, 11, 1, 13, tzinfo=UTC)


def test_a_resolved_incident_keeps_its_note_and_cannot_be_acted_on(
    account: Account, owner: Client
) -> None:
    made = make_incident(account)
    said = press(owner, f"/incidents/{made.id}/resolve", text="A test run")
    assert "Resolved. If it happens again after the cool-down" in said
    assert f"resolved by {account.email}" in said
    assert "A test run" in words(owner, f"/incidents/{made.id}")
    before = stored(account, IncidentEntry)
    for action in ("acknowledge", "take", "snooze", "resolve"):
        press(owner, f"/incidents/{made.id}/{action}", **{"for": "hour"})
    assert stored(account, IncidentEntry) == before
    assert "resolved already" in press(owner, f"/incidents/{made.id}/acknowledge")


def test_a_comment_is_in_the_timeline_and_an_empty_one_is_not(
    account: Account, owner: Client
) -> None:
    made = make_incident(account)
    here = f"/incidents/{made.id}"
    said = press(owner, f"{here}/comment", text="It was the import", back=here)
    assert "Your comment was added to the timeline." in said
    assert f"Comment by {account.email} It was the import" in said
    before = stored(account, IncidentEntry)
    assert "it was not added" in press(owner, f"{here}/comment", text=" ")
    for text in ("x" * 4001, "a\0b"):
        assert "Nothing was changed" in press(owner, f"{here}/comment", text=text)
    assert stored(account, IncidentEntry) == before


def test_a_button_leads_back_to_its_page_and_nowhere_else(account: Account, owner: Client) -> None:
    made = make_incident(account)
    path = f"/incidents/{made.id}/acknowledge"
    assert owner.post(path, {"back": "/incidents?kind=rule"})["Location"] == "/incidents?kind=rule"
    for elsewhere in ("https://evil.example", "//evil.example", "/\\evil.example", ""):
        assert owner.post(path, {"back": elsewhere})["Location"] == "/incidents", elsewhere
    assert owner.get(path)["Location"] == "/incidents"


def test_who_may_act_follows_from_the_role(
    account: Account, as_role: Callable[[Role], Client]
) -> None:
    made = make_incident(account)
    channel = make_channel(account)
    for role in Role:
        client = as_role(role)
        html = page(client, f"/incidents/{made.id}")
        assert ("Snooze" in html) is (role in HANDLERS), role
        assert ('name="text"' in html) is (role in HANDLERS), role
        answer = client.post(f"/incidents/{made.id}/comment", {"text": "x"})
        assert answer.status_code == (302 if role in HANDLERS else 403), role
        assert ("Pause" in page(client, "/incidents/channels")) is (role in MANAGERS), role
        answer = client.post(f"/incidents/channels/{channel.id}/resume")
        assert answer.status_code == (302 if role in MANAGERS else 403), role


# One incident


def test_the_page_of_an_incident_tells_figures_timeline_and_what_to_do(
    account: Account, owner: Client
) -> None:
    make_channel(account, name="On call")
    fields = {
        "actual_nanos": 12 * NANOS,
        "findings": [{"words": "It repeats."}],
        "used_percent": 80,
    }
    made = make_incident(account, facts=fields)
    with account.scope():
        comment(incident=made, actor="Ana", text="I look")
    said = words(owner, f"/incidents/{made.id}")
    assert "It cost $12 in a quarter of an hour; $1 was expected." in said
    assert "It repeats. Actual $12.00 Used 80%" in said
    assert "Comment by Ana I look" in said
    assert "Notified On call (Webhook) (opened) Sending" in said
    # The entry that says the same is not repeated beside it.
    assert said.count("On call (Webhook)") == 1
    html = page(owner, f"/incidents/{made.id}")
    assert 'href="/enforcement/halts/confirm?dimension=agent&amp;value=a"' in html
    assert "/enforcement/decisions?" in html


def test_the_timeline_says_what_did_not_arrive_and_lets_it_be_sent_again(
    account: Account, owner: Client
) -> None:
    make_channel(account, name="On call")
    made = make_incident(account)
    dead = delivery_of(account, state=DeliveryState.DEAD, attempts=9, last_error="no answer")
    here = f"/incidents/{made.id}"
    said = words(owner, here)
    told = "Notified On call (Webhook) (opened) Failed 9 attempts no answer Attempts"
    assert f"{told} Send again" in said
    assert "1 failed" in said
    press(owner, f"/incidents/deliveries/{dead.id}/resend", back=here)
    resent = again(account, dead)
    assert (resent.state, resent.reference) == (DeliveryState.WAITING, dead.reference)


def test_the_chart_has_the_usage_around_and_the_table_the_same_numbers(
    account: Account, owner: Client
) -> None:
    now = timezone.now()
    send(account, [make_event(agent="a", cost_usd="3"), make_event(agent="b", cost_usd="9")])
    a_week_ago = (now - timedelta(days=7, hours=1)).isoformat()
    send(account, [make_event(agent="a", cost_usd="1", time=a_week_ago)])
    made = make_incident(account)
    with account.scope():
        Anomaly.objects.create(
            tenant=account.tenant,
            incident=made,
            dimension="agent",
            value="a",
            measure="cost",
            is_above=True,
            began_at=now - timedelta(hours=2),
            seen_at=now,
            score=0.9,
            actual=3 * NANOS,
            expected=NANOS / 2,
        )
    figure = owner.get(f"/incidents/{made.id}/chart.json").json()
    actual, before = figure["data"]
    assert sum(actual["y"]) == 3
    assert sum(before["y"]) == 1
    shade, expected = figure["layout"]["shapes"]
    assert (expected["y0"], shade["x0"], shade["x1"]) == (0.5, expected["x0"], expected["x1"])
    table = words(owner, f"/incidents/{made.id}/chart.html")
    assert table.count("$3.00") == 1
    assert table.count("$1.00") == 1
    said = words(owner, f"/incidents/{made.id}")
    assert "Cost of agent a $3.00 $0.50" in said


def test_spenders_are_the_values_that_the_match_leaves_open(
    account: Account, owner: Client
) -> None:
    send(
        account,
        [
            make_event(agent="a", feature="mail", cost_usd="3"),
            make_event(agent="a", feature="search", cost_usd="1"),
            make_event(agent="b", feature="mail", cost_usd="9"),
        ],
    )
    made = make_incident(account)
    html = page(owner, f"/incidents/{made.id}/spenders")
    said = text_of(html)
    assert "feature mail $3.00 75% new feature search $1.00 25% new model" in said
    assert "agent" not in said
    assert re.search(r'href="/\?from=[^"]*&amp;filter\[agent]=a&amp;filter\[feature]=mail"', html)


def test_incidents_are_marks_on_the_chart_of_spend_that_lead_to_them(
    account: Account, owner: Client
) -> None:
    send(account, [make_event(agent="a"), make_event(agent="b")])
    made = make_incident(account, "a", title="<b>Up")
    assert marks_of(owner, "?filter[agent]=a") == [(f"/incidents/{made.id}", "▲", "&lt;b&gt;Up")]
    make_incident(account, "b", severity=Severity.CRITICAL, title="Worse")
    day = timezone.now().date().isoformat()
    assert marks_of(owner) == [(f"/incidents?from={day}&amp;to={day}", "◆", "Worse and 1 more")]
    assert marks_of(owner, "?filter[agent]=b") == []


def marks_of(client: Client, query: str = "") -> list[tuple[str, str, str]]:
    """Where the marks of the chart lead, their symbols, and what they say."""
    marks = client.get(f"/charts/spend.json{query}").json()["layout"]["annotations"]
    links = [re.fullmatch(r'<a href="([^"]*)"[^>]*>(.)</a>', mark["text"]) for mark in marks]
    return [
        (link[1], link[2], mark["hovertext"])
        for link, mark in zip(links, marks, strict=True)
        if link is not None
    ]


# Channels and deliveries


def test_channels_show_whether_messages_arrive_and_no_secret(
    account: Account, owner: Client
) -> None:
    channel = make_channel(account, "slack", name="Ops", contacts=["finance"])
    make_incident(account)
    with account.scope():
        Channel.objects.filter(id=channel.id).update(
            failed_at=timezone.now(), last_error="answered with 500"
        )
    html = page(owner, "/incidents/channels")
    said = text_of(html)
    assert "Delivery is failing on 1 of 1 channel" in said
    assert "answered with 500" in said
    assert "contact for finance" in said
    assert "1 pending" in said
    assert "abcdefghijklmnopqrstuvwx" not in html


def test_a_channel_is_paused_and_resumed(account: Account, owner: Client) -> None:
    channel = make_channel(account, name="Ops")
    assert "“Ops” is paused." in press(owner, f"/incidents/channels/{channel.id}/pause")
    assert again(account, channel).is_paused
    said = press(owner, f"/incidents/channels/{channel.id}/resume")
    assert "“Ops” sends notifications again." in said
    assert not again(account, channel).is_paused


def test_a_test_is_followed_until_it_arrived_or_failed(account: Account, owner: Client) -> None:
    channel = make_channel(account, name="Ops")
    said = press(owner, f"/incidents/channels/{channel.id}/test")
    assert "The test is on its way" in said
    sent = delivery_of(account)
    state = f"/incidents/deliveries/{sent.id}/test"
    assert f'hx-get="{state}"' in page(owner, state)
    delivery_of(account, attempts=1, last_error="answered with 404")
    html = page(owner, state)
    assert "The test was not delivered: answered with 404" in text_of(html)
    assert "hx-get" not in html
    delivery_of(account, state=DeliveryState.SENT, sent_at=timezone.now())
    assert "Test delivered" in words(owner, state)
    long_ago = timezone.now() - timedelta(minutes=2)
    delivery_of(account, state=DeliveryState.WAITING, attempts=0, created_at=long_ago, sent_at=None)
    html = page(owner, state)
    assert "been sent yet." in text_of(html)
    assert "hx-get" not in html


def test_deliveries_show_what_has_not_arrived(account: Account, owner: Client) -> None:
    make_channel(account, name="Ops")
    make_incident(account, "a", title="First")
    delivery_of(account, state=DeliveryState.SENT, sent_at=timezone.now())
    make_incident(account, "b", title="Second")
    delivery_of(account, state=DeliveryState.DEAD, last_error="no answer")
    make_incident(account, "c", title="Third")
    delivery_of(account, held_by="quiet hours")
    said = words(owner, "/incidents/deliveries")
    assert "1 message failed" in said
    assert "Third opened Ops (Webhook)" in said
    assert "Held quiet hours, not before" in said
    assert "First" not in said
    assert "Second" not in words(owner, "/incidents/deliveries?state=waiting")
    assert "First" in words(owner, "/incidents/deliveries?state=sent&channel=x")


def test_the_attempts_of_a_delivery_are_shown_with_their_reasons(
    account: Account, owner: Client
) -> None:
    make_channel(account, name="Ops")
    make_incident(account, summary="It went up.")
    delivery = delivery_of(account, state=DeliveryState.DEAD, attempts=2)
    now = timezone.now()
    with account.scope():
        for status, error in ((500, "The receiver answered 500."), (None, "No answer.")):
            DeliveryAttempt.objects.create(
                tenant=account.tenant,
                delivery=delivery,
                started_at=now,
                duration_ms=15,
                is_success=False,
                status=status,
                error=error,
            )
    path = f"/incidents/deliveries/{delivery.id}/attempts"
    assert f'data-loads="{path}"' in page(owner, "/incidents/deliveries")
    said = text_of(owner.get(path).content.decode())
    assert "It went up." in said
    assert str(delivery.reference) in said
    newest, oldest = said.index("15 ms No answer."), said.index("15 ms, status 500 The receiver")
    assert newest < oldest


# Who may see what


def test_another_tenant_sees_and_changes_nothing(account: Account, owner: Client) -> None:
    stranger = make_account()
    channel = make_channel(stranger, name="secret-channel")
    made = make_incident(stranger, title="secret-title", match={"agent": "secret"})
    delivery = delivery_of(stranger, state=DeliveryState.DEAD)
    send(account, [make_event()])
    tables = (Incident, IncidentEntry, Channel, Delivery)
    before = [stored(stranger, model) for model in tables]
    for path in ("/incidents", "/incidents/channels", "/incidents/deliveries"):
        assert "secret" not in page(owner, path)
    assert "secret" not in owner.get("/charts/spend.json").content.decode()
    for path in (
        f"/incidents/{made.id}",
        f"/incidents/{made.id}/chart.json",
        f"/incidents/{made.id}/chart.html",
        f"/incidents/{made.id}/spenders",
        f"/incidents/deliveries/{delivery.id}/test",
        f"/incidents/deliveries/{delivery.id}/attempts",
    ):
        assert owner.get(path).status_code == 404, path
    actions = ["acknowledge", "take", "assign", "give-back", "snooze", "wake", "comment", "resolve"]
    for path in (
        *(f"/incidents/{made.id}/{action}" for action in actions),
        *(f"/incidents/channels/{channel.id}/{action}" for action in ("test", "pause", "resume")),
        f"/incidents/deliveries/{delivery.id}/resend",
        f"/incidents/{10**30}/resolve",
    ):
        assert owner.post(path, {"for": "hour", "text": "x"}).status_code == 404, path
    assert [stored(stranger, model) for model in tables] == before


def test_hostile_words_are_shown_and_do_nothing(account: Account, owner: Client) -> None:
    for value in HOSTILE:
        # What cannot be seen is refused in the settings of channels.
        visible = value.replace("\u202e", "")
        make_channel(account, name=visible, contacts=[visible[:90]])
        made = make_incident(
            account,
            value,
            title=value,
            summary=value,
            match={"agent": [value, None]},
            facts={"why": value, value[:20]: value},
        )
        with account.scope():
            comment(incident=made, actor=value, text=value)
        delivery_of(account, state=DeliveryState.DEAD, last_error=value)
        press(owner, f"/incidents/{made.id}/take")
        for path in (
            "/incidents",
            "/incidents/channels",
            "/incidents/deliveries",
            f"/incidents/{made.id}",
            f"/incidents/{made.id}/spenders",
        ):
            html = page(owner, path)
            parser = Handlers()
            parser.feed(html)
            assert parser.found == [], path
            assert "<script>alert" not in html
            assert "49{" not in html


# Words


def test_headlines_say_what_needs_somebody() -> None:
    assert (
        incidents_headline(open_count=1, worst="Up", looked_at=3)
        == "1 incident needs attention: Up"
    )
    assert incidents_headline(open_count=0, worst="", looked_at=2) == (
        "Nothing needs attention; 2 incidents are already being handled"
    )
    assert channels_headline(channels=0, failing=0) == "No notification channels yet"
    assert channels_headline(channels=2, failing=0) == "2 channels are working"
    assert deliveries_headline(dead=0, waiting=2) == "2 pending messages"
    assert deliveries_headline(dead=0, waiting=0) == "All messages delivered"


def test_figures_are_told_in_their_own_units() -> None:
    at = "2026-11-01T12:00:00+00:00"
    fields = {
        "spent_nanos": 5,
        "budget_id": 7,
        "window": 9,
        "budget": "Daily",
        "used_percent": 80.5,
        "wait_seconds": 90,
        "window_start": at,
        "calls": 1200,
        "group": {"agent": "a"},
        "is_new": True,
        "ratio": 1234.5,
    }
    assert figures_of(fields) == [
        Figure("Spent", nanos=5),
        Figure("Budget", "Daily"),
        Figure("Calls", "1,200"),
        Figure("Is new", "yes"),
        Figure("Ratio", "1,234"),
        Figure("Used", "80.5%"),
        Figure("Wait", "0:01:30"),
        Figure("Window start", at=datetime(2026, 11, 1, 12, tzinfo=UTC)),
    ]


def test_a_window_that_never_ends_has_no_start() -> None:
    fields = {"window_start": "1970-01-01T00:00:00+00:00", "window_end": None}
    assert figures_of(fields) == [Figure("Window", "never ends")]


def test_a_budget_below_its_limit_says_how_full_it_is_and_as_of_when(
    account: Account, owner: Client
) -> None:
    fields = {"spent_nanos": 8 * NANOS, "limit_nanos": 10 * NANOS, "used_percent": 80.9}
    made = make_incident(account, kind="crossing", facts=fields, excess_nanos=0)
    said = words(owner, f"/incidents/{made.id}")
    assert "Limit used 80% as of" in said
    assert "Evidence · as of" in said
    assert "80% of the limit used" in words(owner, "/incidents")
    over = make_incident(account, kind="crossing", cause="other", facts=fields, excess_nanos=NANOS)
    assert "Over the limit $1.00 as of" in words(owner, f"/incidents/{over.id}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cost", "$10.00"),
        ("requests", "4"),
        ("tokens", "1.1K"),
        ("cost_per_request", "$2.50"),
        ("error_rate", "25%"),
        ("cache_hit_share", "50%"),
    ],
)
def test_each_measure_comes_from_what_was_counted(name: str, text: str) -> None:
    counted = Measures(
        cost_nanos=10 * NANOS,
        requests=4,
        errors=1,
        input_tokens=1000,
        output_tokens=100,
        cache_read_tokens=500,
    )
    measure = MEASURES[name]
    assert measure.text(measure.of(counted)) == text
    ratios = {"cost_per_request", "error_rate", "cache_hit_share"}
    assert (measure.of(Measures()) is None) is (name in ratios)
