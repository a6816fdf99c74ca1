"""Alert settings and maintenance windows over HTTP."""

from datetime import UTC, datetime, timedelta

import pytest

from alerts.models import AlertSettings, MaintenanceWindow
from alerts.rules import RULES
from common.json_bodies import JsonObject
from tenants.models import AuditEntry
from tests.factories import Account
from tests.metering.api.caller import Caller, caller

SETTINGS = "/v1/alert-settings"
WINDOWS = "/v1/maintenance-windows"
NOW = datetime.now(UTC).replace(microsecond=0)


def from_now(**ahead: int) -> str:
    return (NOW + timedelta(**ahead)).isoformat().replace("+00:00", "Z")


WRONG_SETTINGS: list[tuple[JsonObject, str]] = [
    ({"quiet_hours": {"from": "22:00"}}, "/quiet_hours/until"),
    ({"quiet_hours": {"from": "25:00", "until": "07:00"}}, "/quiet_hours/from"),
    ({"quiet_hours": {"from": "07:00", "until": "07:00"}}, "/quiet_hours"),
    ({"quiet_hours": "night"}, "/quiet_hours"),
    ({"cool_down_seconds": -1}, "/cool_down_seconds"),
    ({"cool_down_seconds": 86_401}, "/cool_down_seconds"),
    ({"digest_at": "8:00"}, "/digest_at"),
    ({"digest_at": None}, "/digest_at"),
    ({"halts_loops": "yes"}, "/halts_loops"),
    ({"anomaly_limit_percent": 100}, "/anomaly_limit_percent"),
    ({"rules": {"weather": {"on": True}}}, "/rules/weather"),
    ({"rules": {"feature_week": {"threshold": 0}}}, "/rules/feature_week/threshold"),
    ({"rules": {"feature_week": {"threshold": 1.5}}}, "/rules/feature_week/threshold"),
    ({"rules": {"feature_week": {"severity": "bad"}}}, "/rules/feature_week/severity"),
    ({"rules": {"feature_week": {"words": "x"}}}, "/rules/feature_week/words"),
    ({"rules": {"feature_week": 5}}, "/rules/feature_week"),
    ({"rules": None}, "/rules"),
    ({"tenant": 1}, "/tenant"),
]
NO_WINDOWS: list[tuple[JsonObject, str]] = [
    ({"reason": "r"}, "/ends_at"),
    ({"reason": "r", "duration_seconds": 5, "ends_at": from_now(days=1)}, "/ends_at"),
    ({"reason": "r", "ends_at": from_now(hours=-1)}, "/ends_at"),
    (
        {"reason": "r", "starts_at": from_now(days=2), "ends_at": from_now(days=1)},
        "/ends_at",
    ),
    ({"reason": "r", "ends_at": from_now(days=32)}, "/ends_at"),
    ({"reason": "r", "duration_seconds": 31 * 86_400 + 1}, "/duration_seconds"),
    ({"reason": " ", "duration_seconds": 5}, "/reason"),
    ({"duration_seconds": 5}, "/reason"),
    ({"reason": "r", "duration_seconds": 5, "match": {"mood": "x"}}, "/match/mood"),
    ({"reason": "r", "duration_seconds": 5, "created_by": "me"}, "/created_by"),
]


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def audited(account: Account, object_type: str) -> list[str]:
    with account.scope():
        entries = AuditEntry.objects.filter(object_type=object_type).order_by("id")
        return [entry.action for entry in entries]


def test_settings_are_the_defaults_until_they_are_changed(account: Account, api: Caller) -> None:
    shown = api.get(SETTINGS).body
    assert shown.pop("rules").keys() == RULES.keys()
    assert shown == {
        "quiet_hours": None,
        "cool_down_seconds": 900,
        "digest_at": "08:00",
        "halts_loops": False,
        "anomaly_limit_percent": None,
    }
    rule = api.get(SETTINGS).body["rules"]["costly_request"]
    default = {"threshold": 10, "severity": "info", "on": True}
    words = RULES["costly_request"].description
    assert rule == {"words": words, "unit": "times", **default, "default": default}
    with account.scope():
        assert not AlertSettings.objects.exists()


def test_a_patch_changes_what_it_names_and_is_audited_once(account: Account, api: Caller) -> None:
    before = api.get(SETTINGS).body
    changes = {
        "quiet_hours": {"from": "22:00", "until": "07:30"},
        "cool_down_seconds": 0,
        "digest_at": "09:15",
        "halts_loops": True,
        "anomaly_limit_percent": 50,
    }
    assert api.patch(SETTINGS, changes).body == {**before, **changes}
    assert api.patch(SETTINGS, {}).body == {**before, **changes}
    assert api.patch(SETTINGS, {"quiet_hours": None}).body["quiet_hours"] is None
    assert audited(account, "alertsettings") == ["update", "update"]


def test_rules_keep_what_differs_from_their_defaults(account: Account, api: Caller) -> None:
    def stored() -> JsonObject:
        with account.scope():
            return dict(AlertSettings.objects.get().rules)

    api.patch(SETTINGS, {"rules": {"costly_request": {"threshold": 5, "severity": "info"}}})
    changed = api.patch(SETTINGS, {"rules": {"feature_week": {"on": False}}}).body["rules"]
    assert stored() == {"costly_request": {"threshold": 5}, "feature_week": {"on": False}}
    assert (changed["costly_request"]["threshold"], changed["feature_week"]["on"]) == (5, False)
    assert changed["costly_request"]["default"]["threshold"] == 10
    api.patch(SETTINGS, {"rules": {"costly_request": {"severity": "critical"}}})
    assert stored()["costly_request"] == {"threshold": 5, "severity": "critical"}
    api.patch(SETTINGS, {"rules": {"costly_request": None, "feature_week": {"on": True}}})
    assert stored() == {}


def test_wrong_settings_are_refused_at_the_member_that_is_wrong(
    account: Account, api: Caller
) -> None:
    for body, pointer in WRONG_SETTINGS:
        refused = api.patch(SETTINGS, body)
        assert (refused.status, refused.code) == (400, "invalid_request"), body
        assert refused.pointers == {pointer}, body
    (unknown,) = api.patch(SETTINGS, {"rules": {"weather": None}}).body["errors"]
    assert unknown["code"] == "unknown_rule"
    with account.scope():
        assert not AlertSettings.objects.exists()


def test_everything_that_is_wrong_with_settings_is_named_at_once(api: Caller) -> None:
    hours = {"from": "07:00", "until": "07:00"}
    wrong = {"quiet_hours": hours, "digest_at": "8", "rules": {"weather": {}}, "colour": "red"}
    refused = api.patch(SETTINGS, wrong)
    assert refused.pointers == {"/quiet_hours", "/digest_at", "/rules/weather", "/colour"}


def test_a_window_is_announced_listed_and_ended(account: Account, api: Caller) -> None:
    body = {"match": {"agent": "importer"}, "reason": "Import", "duration_seconds": 3600}
    made = api.post(WINDOWS, body, Idempotency_Key="one")
    assert made.status == 201
    window = made.body
    assert api.post(WINDOWS, body, Idempotency_Key="one").body == window
    assert (window["match"], window["reason"]) == ({"agent": "importer"}, "Import")
    starts_at, ends_at = (datetime.fromisoformat(window[name]) for name in ("starts_at", "ends_at"))
    assert ends_at - starts_at == timedelta(hours=1)
    assert window["created_by"].startswith("API key sg_")
    later = api.post(
        WINDOWS,
        {"starts_at": from_now(days=1), "ends_at": from_now(days=2), "reason": "Load test"},
    ).body
    assert later["match"] == {}
    assert api.get(WINDOWS).body == {"data": [later, window], "next_cursor": None}
    assert api.delete(f"{WINDOWS}/{window['id']}").status == 204
    ended = api.get(f"{WINDOWS}/{window['id']}").body
    assert datetime.fromisoformat(ended["ends_at"]) < ends_at
    # Over already: nothing changes.
    assert api.delete(f"{WINDOWS}/{window['id']}").status == 204
    assert api.get(f"{WINDOWS}/{window['id']}").body == ended
    # Not begun: it is taken back.
    assert api.delete(f"{WINDOWS}/{later['id']}").status == 204
    assert api.get(f"{WINDOWS}/{later['id']}").status == 404
    assert audited(account, "maintenancewindow") == ["create", "create", "update", "delete"]


def test_what_is_no_window_is_refused_at_the_member_that_is_wrong(
    account: Account, api: Caller
) -> None:
    for body, pointer in NO_WINDOWS:
        refused = api.post(WINDOWS, body)
        assert (refused.status, refused.code) == (400, "invalid_request"), body
        assert refused.pointers == {pointer}, body
    with account.scope():
        assert not MaintenanceWindow.objects.exists()


def test_others_windows_and_settings_are_not_there_and_scopes_count(
    account: Account, stranger: Account, api: Caller
) -> None:
    window = api.post(WINDOWS, {"reason": "Import", "duration_seconds": 60}).body
    api.patch(SETTINGS, {"cool_down_seconds": 5})
    path = f"{WINDOWS}/{window['id']}"
    other = caller(stranger)
    assert other.get(WINDOWS).body["data"] == []
    assert other.get(SETTINGS).body["cool_down_seconds"] == 900
    assert (other.get(path).status, other.delete(path).status) == (404, 404)
    reader = Caller(api.post("/v1/keys", {"name": "r", "scopes": ["read"]}).body["key"])
    assert (reader.get(path).status, reader.get(SETTINGS).status) == (200, 200)
    assert reader.delete(path).status == 403
    assert reader.post(WINDOWS, {}).status == 403
    assert reader.patch(SETTINGS, {}).status == 403
    assert api.get(path).body == window
