"""Incidents over HTTP: read by filters, and what people and programs do with them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alerts.incidents import end
from alerts.models import Incident, IncidentEntry, IncidentKind, Severity
from tenants.roles import Role
from tests.alerts.examples import make_anomaly, make_incident
from tests.alerts.scene import make_channel
from tests.dashboard.conftest import make_member
from tests.factories import NANOS, Account
from tests.metering.api.caller import Caller, caller

DEEDS = ("acknowledge", "resolve", "snooze", "comment")
WRONG_FILTERS: list[dict[str, str]] = [
    {"status": "asleep"},
    {"status": "open,"},
    {"kind": "fire"},
    {"severity": ""},
    {"filter[mood]": "bad"},
    {"filter[agent]": "a\x00"},
    {"from": "yesterday"},
    {"agent": "a"},
    {"cursor": "x"},
]
WRONG_DEEDS: list[tuple[str, str, Any, str]] = [
    ("PATCH", "", {"assigned_to": "nobody@example.com"}, "/assigned_to"),
    ("PATCH", "", {}, "/assigned_to"),
    ("PATCH", "", {"assigned_to": None, "status": "resolved"}, "/status"),
    ("POST", "/snooze", {}, "/until"),
    ("POST", "/snooze", {"seconds": 60, "until": None}, "/until"),
    ("POST", "/snooze", {"until": "2026-01-01T00:00:00Z"}, "/until"),
    ("POST", "/snooze", {"seconds": 90 * 86_400 + 1}, "/seconds"),
    ("POST", "/comment", {"text": " "}, "/text"),
    ("POST", "/resolve", {"text": 5}, "/text"),
]
LATE_DEEDS: list[tuple[str, str, Any]] = [
    ("POST", "/acknowledge", None),
    ("POST", "/snooze", {"seconds": 60}),
    ("PATCH", "", {"assigned_to": None}),
]


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def path_of(incident: Incident) -> str:
    return f"/v1/incidents/{incident.id}"


def kinds_of(answer: Any) -> list[str]:
    return [entry["kind"] for entry in answer.body["timeline"]]


def test_an_incident_is_answered_with_money_in_usd_and_what_happened_to_it(
    account: Account, api: Caller
) -> None:
    channel = make_channel(account)
    incident = make_incident(account)
    make_anomaly(account, incident)
    make_anomaly(account, incident, measure="error_rate", actual=0.5, expected=0.01, excess_nanos=0)
    shown = api.get(path_of(incident)).body
    listed = api.get("/v1/incidents").body
    assert listed == {
        "data": [{name: shown[name] for name in listed["data"][0]}],
        "next_cursor": None,
    }
    assert shown["title"] == "Agent 'researcher' costs 12 times the usual"
    assert (shown["kind"], shown["severity"], shown["status"]) == ("anomaly", "warning", "open")
    assert shown["match"] == {"agent": "researcher"}
    assert shown["facts"] == {"cost_usd": "12.5", "usual": {"hour_usd": "1"}, "requests": 40}
    assert shown["excess_usd"] == "11.500000001"
    assert shown["link"].endswith(f"/incidents/{incident.id}")
    assert (shown["observations"], shown["assigned_to"], shown["resolved_by"]) == (1, None, None)
    assert [entry["kind"] for entry in shown["timeline"]] == ["opened", "notified"]
    errors, cost = shown["anomalies"]
    assert (cost["actual"], cost["actual_usd"], cost["expected_usd"]) == (None, "12.5", "1")
    assert (errors["actual"], errors["actual_usd"], errors["excess_usd"]) == (0.5, None, "0")
    (delivery,) = shown["deliveries"]
    assert (delivery["channel"], delivery["event"]) == (channel.id, "opened")
    assert "_nanos" not in str(shown)


def test_lists_are_filtered_and_paged(account: Account, api: Caller) -> None:
    started = datetime.now(UTC)
    first = make_incident(account, cause="a", match={"agent": "a", "team": ["growth", "sales"]})
    second = make_incident(account, cause="b", match={"agent": None}, severity=Severity.CRITICAL)
    third = make_incident(account, cause="c", match={"agent": "c"}, kind=IncidentKind.LOOP)
    api.post(f"{path_of(second)}/acknowledge")
    with account.scope():
        end(tenant_id=account.tenant.id, cause="c")

    def found(**parameters: object) -> list[int]:
        answer = api.get("/v1/incidents", **parameters)
        assert answer.status == 200, answer.body
        return [each["id"] for each in answer.body["data"]]

    assert found() == [third.id, second.id, first.id]
    assert found(status="open") == [first.id]
    assert found(status="acknowledged,resolved") == [third.id, second.id]
    assert found(kind="loop") == [third.id]
    assert found(severity="critical") == [second.id]
    assert found(**{"filter[agent]": ["a", "c"]}) == [third.id, first.id]
    assert found(**{"filter[agent]": ""}) == [second.id]
    assert found(**{"filter[team]": "sales", "filter[agent]": "a"}) == [first.id]
    now = datetime.now(UTC)
    assert found(**{"from": now.isoformat()}) == [second.id, first.id]
    assert found(to=started.isoformat()) == []
    page = api.get("/v1/incidents", limit=2).body
    assert [each["id"] for each in page["data"]] == [third.id, second.id]
    assert found(limit=2, cursor=page["next_cursor"]) == [first.id]


def test_a_wrong_filter_is_refused(api: Caller) -> None:
    codes = {"invalid_request", "unknown_parameter", "unknown_dimension", "invalid_cursor"}
    codes |= {"invalid_value", "invalid_time"}
    for parameters in WRONG_FILTERS:
        refused = api.get("/v1/incidents", **parameters)
        assert refused.status == 400, parameters
        assert refused.code in codes, parameters


@pytest.mark.parametrize("name", ["filter[agent]", "filter[tags.x]", "severity", "limit"])
def test_an_incident_takes_no_parameters_of_the_list(
    account: Account, api: Caller, name: str
) -> None:
    refused = api.get(f"/v1/incidents/{make_incident(account).id}", **{name: "1"})
    assert (refused.status, refused.code) == (400, "unknown_parameter")


def test_it_is_acknowledged_assigned_snoozed_commented_and_resolved_once(
    account: Account, api: Caller
) -> None:
    incident = make_incident(account)
    path = path_of(incident)
    member = make_member(account, Role.ENGINEER)
    for _ in range(2):
        acknowledged = api.post(f"{path}/acknowledge")
        assert (acknowledged.status, acknowledged.body["status"]) == (200, "acknowledged")
        assert acknowledged.body["acknowledged_by"].startswith("API key sg_")
    assert api.patch(path, {"assigned_to": member.upper()}).body["assigned_to"] == member
    assert api.patch(path, {"assigned_to": None}).body["assigned_to"] is None
    snoozed = api.post(f"{path}/snooze", {"seconds": 3600}).body
    assert snoozed["status"] == "snoozed"
    until = datetime.fromisoformat(snoozed["snoozed_until"])
    assert timedelta(minutes=59) < until - datetime.now(UTC) <= timedelta(hours=1)
    assert api.post(f"{path}/snooze", {"until": None}).body["status"] == "acknowledged"
    commented = api.post(f"{path}/comment", {"text": "An import runs."}, Idempotency_Key="one")
    again = api.post(f"{path}/comment", {"text": "An import runs."}, Idempotency_Key="one")
    assert again.body == commented.body
    assert commented.body["timeline"][-1]["text"] == "An import runs."
    for _ in range(2):
        resolved = api.post(f"{path}/resolve", {"text": "It is over."})
        assert (resolved.status, resolved.body["status"]) == (200, "resolved")
    assert resolved.body["resolved_by"].startswith("API key sg_")
    assert kinds_of(resolved) == [
        "opened",
        "not_notified",
        "acknowledged",
        "assigned",
        "assigned",
        "snoozed",
        "snoozed",
        "commented",
        "resolved",
    ]
    assert api.post(f"{path}/comment", {"text": "It came from a test."}).status == 200


def test_nothing_is_done_with_what_is_resolved(account: Account, api: Caller) -> None:
    incident = make_incident(account)
    api.post(f"{path_of(incident)}/resolve")
    for method, deed, body in LATE_DEEDS:
        refused = api.send(method, path_of(incident) + deed, body)
        assert (refused.status, refused.code) == (409, "incident_resolved"), deed
    with account.scope():
        assert IncidentEntry.objects.filter(incident=incident).count() == 3


def test_what_cannot_be_done_is_refused_at_the_member_that_is_wrong(
    account: Account, api: Caller
) -> None:
    incident = make_incident(account)
    for method, deed, body, pointer in WRONG_DEEDS:
        refused = api.send(method, path_of(incident) + deed, body)
        assert (refused.status, refused.code) == (400, "invalid_request"), (deed, body)
        assert refused.pointers == {pointer}, (deed, body)
    assert api.get(path_of(incident)).body["status"] == "open"
    assert len(api.get(path_of(incident)).body["timeline"]) == 2


def test_another_tenants_incident_is_not_there_and_scopes_count(
    account: Account, stranger: Account, api: Caller
) -> None:
    incident = make_incident(account)
    path = path_of(incident)
    other = caller(stranger)
    assert other.get("/v1/incidents").body["data"] == []
    deeds = [("PATCH", path), *(("POST", f"{path}/{deed}") for deed in DEEDS)]
    assert other.get(path).status == 404
    for method, where in deeds:
        assert other.send(method, where, {}).status == 404, where
    # A member of the other tenant alone cannot have it.
    assert api.patch(path, {"assigned_to": stranger.email}).pointers == {"/assigned_to"}
    reader = Caller(api.post("/v1/keys", {"name": "r", "scopes": ["read"]}).body["key"])
    assert reader.get(path).status == 200
    for method, where in deeds:
        assert reader.send(method, where, {}).status == 403, where
    assert api.get(path).body["status"] == "open"


def test_no_excess_is_null_and_a_fall_keeps_its_sign(account: Account, api: Caller) -> None:
    incident = make_incident(account, excess_nanos=None, facts={"saved_nanos": -2 * NANOS})
    shown = api.get(path_of(incident)).body
    assert shown["excess_usd"] is None
    assert shown["facts"] == {"saved_usd": "-2"}
