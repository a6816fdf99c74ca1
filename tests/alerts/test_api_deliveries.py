"""Deliveries over HTTP: what was told, what could not be, and sending it again."""

from datetime import UTC, datetime

import pytest

from alerts.models import Delivery, DeliveryAttempt, DeliveryState
from tests.alerts.examples import make_incident
from tests.alerts.scene import make_channel
from tests.factories import Account
from tests.metering.api.caller import Caller, caller


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


@pytest.fixture
def dead(account: Account) -> Delivery:
    """A message that was given up after two attempts."""
    make_channel(account)
    make_incident(account)
    with account.scope():
        delivery = Delivery.objects.get()
        for status in (500, None):
            DeliveryAttempt.objects.create(
                tenant=account.tenant,
                delivery=delivery,
                started_at=datetime.now(UTC),
                duration_ms=12,
                is_success=False,
                status=status,
                error="The receiver answered 500." if status else "No answer.",
            )
        delivery.state = DeliveryState.DEAD
        delivery.attempts, delivery.tries, delivery.last_error = 2, 2, "No answer."
        delivery.save()
    return delivery


def test_a_delivery_says_what_became_of_it(api: Caller, dead: Delivery) -> None:
    shown = api.get(f"/v1/deliveries/{dead.id}").body
    assert (shown["state"], shown["due_at"], shown["sent_at"]) == ("dead", None, None)
    assert (shown["event"], shown["severity"], shown["held_by"]) == ("opened", "warning", None)
    assert shown["title"] == "Agent 'researcher' costs 12 times the usual"
    assert (shown["reference"], shown["attempt_count"]) == (str(dead.reference), 2)
    assert [(attempt["status"], attempt["error"]) for attempt in shown["attempts"]] == [
        (None, "No answer."),
        (500, "The receiver answered 500."),
    ]
    listed = api.get("/v1/deliveries").body["data"]
    assert listed == [{name: shown[name] for name in listed[0]}]


def test_deliveries_are_filtered_and_paged(account: Account, api: Caller, dead: Delivery) -> None:
    incident = make_incident(account, cause="another")
    with account.scope():
        second = Delivery.objects.get(incident=incident)

    def found(**parameters: object) -> list[int]:
        return [each["id"] for each in api.get("/v1/deliveries", **parameters).body["data"]]

    assert found() == [second.id, dead.id]
    assert found(state="dead") == [dead.id]
    assert found(state="waiting", channel=dead.channel_id) == [second.id]
    assert found(incident=dead.incident_id) == [dead.id]
    assert found(channel=2**62) == []
    page = api.get("/v1/deliveries", limit=1).body
    assert found(limit=1, cursor=page["next_cursor"]) == [dead.id]
    for wrong in ({"state": "lost"}, {"channel": "x"}, {"incident": "0"}, {"kind": "test"}):
        assert api.get("/v1/deliveries", **wrong).status == 400, wrong


def test_what_was_given_up_is_sent_again_as_it_was(api: Caller, dead: Delivery) -> None:
    path = f"/v1/deliveries/{dead.id}"
    again = api.post(f"{path}/resend", Idempotency_Key="one")
    assert (again.status, again.body["state"]) == (202, "waiting")
    assert (again.body["reference"], again.body["title"]) == (
        str(dead.reference),
        "Agent 'researcher' costs 12 times the usual",
    )
    assert api.post(f"{path}/resend", Idempotency_Key="one").body == again.body
    refused = api.post(f"{path}/resend")
    assert (refused.status, refused.code) == (409, "not_resendable")


def test_another_tenants_delivery_is_not_there_and_scopes_count(
    stranger: Account, api: Caller, dead: Delivery
) -> None:
    path = f"/v1/deliveries/{dead.id}"
    other = caller(stranger)
    assert other.get("/v1/deliveries").body["data"] == []
    assert (other.get(path).status, other.post(f"{path}/resend").status) == (404, 404)
    reader = Caller(api.post("/v1/keys", {"name": "r", "scopes": ["read"]}).body["key"])
    assert (reader.get(path).status, reader.post(f"{path}/resend").status) == (200, 403)
    assert api.get(path).body["state"] == "dead"
