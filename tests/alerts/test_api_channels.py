"""Channels over HTTP: made and changed, tested, their secrets shown once."""

import pytest

from alerts.channel_settings import signing_secret
from alerts.channels import KINDS
from alerts.models import Channel, ChannelKind, Delivery
from common.json_bodies import JsonObject
from tenants.models import AuditEntry
from tests.factories import Account
from tests.metering.api.caller import Caller, caller

HOOK: JsonObject = {
    "name": "On call",
    "kind": "webhook",
    "config": {"url": "https://hooks.example.com/in?token=hidden"},
    "contacts": ["engineering"],
    "severities": ["warning", "critical"],
    "digest": "daily",
    "is_paused": False,
}
SECRET_URL = "https://hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx"
SLACK: JsonObject = {"name": "Chat", "kind": "slack", "config": {"url": SECRET_URL}}
WRONG: list[tuple[JsonObject, str]] = [
    ({"name": ...}, "/name"),
    ({"name": "  "}, "/name"),
    ({"kind": "pigeon"}, "/kind"),
    ({"kind": ...}, "/kind"),
    ({"config": ...}, "/config"),
    ({"config": "https://hooks.example.com"}, "/config"),
    ({"config": {}}, "/config/url"),
    ({"config": {"url": "https://127.0.0.1/in"}}, "/config/url"),
    ({"config": {"url": 5}}, "/config/url"),
    ({"config": {"url": "https://a.example.com", "secret": "x"}}, "/config/secret"),
    ({"contacts": ["a", 5]}, "/contacts/1"),
    ({"severities": ["loud"]}, "/severities/0"),
    ({"digest": "yearly"}, "/digest"),
    ({"is_paused": "no"}, "/is_paused"),
    ({"url": "https://hooks.example.com"}, "/url"),
    ({"delivered_at": None}, "/delivered_at"),
]


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def change(**members: object) -> JsonObject:
    return {name: value for name, value in {**HOOK, **members}.items() if value is not ...}


def test_a_webhook_shows_its_secret_once_and_then_no_more(account: Account, api: Caller) -> None:
    made = api.post("/v1/channels", change(digest="none"), Idempotency_Key="one")
    assert made.status == 201
    secret = made.body.pop("secret")
    assert secret.startswith("whsec_")
    again = api.post("/v1/channels", change(digest="none"), Idempotency_Key="one")
    assert again.body == {**made.body, "secret": secret}
    channel = made.body
    expected = change(digest="none", config={"url": channel["config"]["url"]})
    assert {name: channel[name] for name in HOOK} == expected
    assert (channel["delivered_at"], channel["failed_at"], channel["last_error"]) == (None,) * 2 + (
        "",
    )
    path = f"/v1/channels/{channel['id']}"
    assert api.get(path).body == channel
    assert api.get("/v1/channels").body == {"data": [channel], "next_cursor": None}
    rotated = api.post(f"{path}/rotate-secret")
    assert rotated.status == 200
    with account.scope():
        assert signing_secret(Channel.objects.get()) == rotated.body["secret"] != secret
        logged = str(list(AuditEntry.objects.values_list("changes", flat=True)))
    for text in (str(channel), logged):
        for hidden in (secret, rotated.body["secret"], "token=hidden"):
            assert hidden not in text


def test_an_address_that_is_a_secret_is_shown_in_part(account: Account, api: Caller) -> None:
    made = api.post("/v1/channels", SLACK).body
    assert (made.pop("secret"), made["contacts"], made["digest"]) == (None, [], "none")
    assert made["severities"] == list(KINDS[ChannelKind.SLACK].severities)
    shown = made["config"]["url"]
    assert "abcdefghijklmnopqrst" not in shown
    path = f"/v1/channels/{made['id']}"
    # Sent back as it is shown, it stays as it is stored.
    changed = api.patch(path, {"config": {"url": shown}, "is_paused": True, "kind": "slack"})
    assert changed.body == {**made, "is_paused": True}
    refused = api.post(f"{path}/rotate-secret")
    assert (refused.status, refused.pointers) == (400, {"/kind"})


def test_a_patch_changes_what_it_names(account: Account, api: Caller) -> None:
    channel = api.post("/v1/channels", change(digest="none")).body
    path = f"/v1/channels/{channel['id']}"
    changes = {"name": "Other", "severities": [], "contacts": ["finance"], "is_paused": True}
    patched = api.patch(path, changes).body
    assert patched == {**{name: channel[name] for name in patched}, **changes}
    moved = api.patch(path, {"config": {"url": "https://other.example.com/in"}}).body
    assert moved["config"]["url"] == "https://other.example.com/in"
    assert api.patch(path, {"kind": "slack"}).pointers == {"/kind"}


def test_a_wrong_channel_is_refused_at_the_member_that_is_wrong(
    account: Account, api: Caller
) -> None:
    for members, pointer in WRONG:
        refused = api.post("/v1/channels", change(**members))
        assert (refused.status, refused.code) == (400, "invalid_request"), members
        assert refused.pointers == {pointer}, members
    with account.scope():
        assert not Channel.objects.exists()


def test_a_name_is_given_once_until_its_channel_is_removed(account: Account, api: Caller) -> None:
    first = api.post("/v1/channels", SLACK).body
    assert api.post("/v1/channels", SLACK).pointers == {"/name"}
    path = f"/v1/channels/{first['id']}"
    assert api.delete(path).status == 204
    assert (api.get(path).status, api.delete(path).status) == (404, 404)
    assert api.post("/v1/channels", SLACK).status == 201


def test_a_test_is_answered_with_its_delivery(account: Account, api: Caller) -> None:
    channel = api.post("/v1/channels", change(digest="none")).body
    tested = api.post(f"/v1/channels/{channel['id']}/test")
    assert tested.status == 202
    delivery = tested.body
    assert (delivery["channel"], delivery["incident"]) == (channel["id"], None)
    assert (delivery["event"], delivery["state"]) == ("test", "waiting")
    assert delivery["attempts"] == []
    assert api.get(f"/v1/deliveries/{delivery['id']}").body == delivery
    with account.scope():
        assert Delivery.objects.count() == 1
    for _ in range(4):
        assert api.post(f"/v1/channels/{channel['id']}/test").status == 202
    refused = api.post(f"/v1/channels/{channel['id']}/test")
    assert (refused.status, refused.code) == (429, "asked_too_often")
    assert refused.body["retry_after_seconds"] == 60


def test_another_tenants_channel_is_not_there_and_scopes_count(
    stranger: Account, api: Caller
) -> None:
    path = f"/v1/channels/{api.post('/v1/channels', SLACK).body['id']}"
    writes = [
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/test"),
        ("POST", f"{path}/rotate-secret"),
    ]
    other = caller(stranger)
    assert other.get("/v1/channels").body["data"] == []
    assert other.get(path).status == 404
    reader = Caller(api.post("/v1/keys", {"name": "r", "scopes": ["read"]}).body["key"])
    assert reader.get(path).status == 200
    assert reader.post("/v1/channels", SLACK).status == 403
    for method, where in writes:
        assert other.send(method, where, {}).status == 404, where
        assert reader.send(method, where, {}).status == 403, where
