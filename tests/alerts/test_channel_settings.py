"""Channels as configuration: what is shown, what is kept secret, and what changes keep."""

import json

import pytest
from django.core.management import call_command
from django.db import connection
from pytest_django import Settings

from alerts.channel_settings import (
    remove_channel,
    rotate_secret,
    shown_fields,
    signing_secret,
    update_channel,
)
from alerts.errors import ChannelUnavailable, SecretsUnreadable, WrongChannel
from alerts.models import Channel, Delivery, DeliveryState
from alerts.sealing import seal, unseal
from common.errors import LimitReached, NameTaken, NotFound
from common.json_bodies import JsonObject
from tenants.audit import facts_of
from tenants.models import AuditEntry
from tests.alerts.scene import make_channel
from tests.factories import Account, make_account

SLACK_URL = "https://hooks.slack.com/services/T0/B0/s3cret"


@pytest.fixture
def owner(transactional_db: None) -> Account:
    return make_account()


def change(owner: Account, channel: Channel, **changes: object) -> Channel:
    with owner.scope():
        return update_channel(channel=channel, actor="ada@example.com", changes=changes)


def test_a_secret_is_stored_encrypted_and_shown_nowhere(owner: Account) -> None:
    channel = make_channel(owner, "slack", fields={"url": SLACK_URL})
    pager = make_channel(owner, "pagerduty", fields={"routing_key": "K3Y0" * 8})
    hook = make_channel(
        owner, "webhook", fields={"url": "https://u:s3cret@hook.example/in?token=s3cret"}
    )
    assert shown_fields(channel) == {"url": "https://hooks.slack.com/…"}
    assert shown_fields(pager) == {"routing_key": "…", "url": ""}
    assert shown_fields(hook) == {"url": "https://hook.example/in?…"}
    with owner.scope(), connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(c)::text FROM channel c")
        rows = "".join(row[0] for row in cursor.fetchall())
        log = json.dumps(list(AuditEntry.objects.values_list("changes", flat=True)))
    signing = signing_secret(hook)
    assert signing is not None
    for secret in ("s3cret", "K3Y0", signing):
        assert secret not in rows + log
        assert secret.encode().hex() not in rows
    assert bytes(channel.secrets).hex() not in log
    assert unseal(channel.secrets) == {"url": SLACK_URL}


def test_a_kind_s_own_severities_apply_unless_others_are_given(owner: Account) -> None:
    assert make_channel(owner, "webhook").severities == ["info", "warning", "critical"]
    assert make_channel(owner, "pagerduty").severities == ["critical"]
    slack = make_channel(owner, "slack", severities=["critical", "info"], contacts=[" finance "])
    assert (slack.severities, slack.contacts) == (["info", "critical"], ["finance"])


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"name": " "}, "name", "must be 1 to 200 printable characters"),
        ({"severities": ["urgent"]}, "severities", "must be some of info, warning, critical"),
        ({"contacts": ["x" * 101]}, "contacts", "must be at most 50 names"),
        ({"digest": "yearly"}, "digest", "must be one of none, hourly, daily, weekly"),
        ({"digest": "daily"}, "digest", "PagerDuty gets no digests"),
        ({"is_paused": "yes"}, "is_paused", "must be true or false"),
        ({"kind": "slack"}, "kind", "is not a setting of a channel"),
        ({"fields": {"token": "x"}}, "token", "is not a field of PagerDuty"),
        (
            {"fields": {"url": "https://10.0.0.1/", "routing_key": "K" * 32}},
            "url",
            "The address leads into a private",
        ),
        ({"fields": {"url": "https://other.example/"}}, "routing_key", "enter it again: it would"),
        ({"contacts": ["a\x00b"]}, "contacts", "must be at most 50 names"),
    ],
)
def test_a_wrong_change_is_refused_and_changes_nothing(
    owner: Account, changes: JsonObject, field: str, reason: str
) -> None:
    make_channel(owner, "slack")
    channel = make_channel(owner, "pagerduty")
    before = facts_of(channel)
    with pytest.raises(WrongChannel) as refusal:
        change(owner, channel, **changes)
    assert refusal.value.field == field
    assert refusal.value.reason.startswith(reason)
    assert refusal.value.members["errors"][0]["pointer"] == f"/{field}"
    with owner.scope():
        channel.refresh_from_db()
    assert facts_of(channel) == before


def test_a_channel_takes_no_name_that_another_has(owner: Account) -> None:
    make_channel(owner, "slack")
    channel = make_channel(owner, "pagerduty")
    with pytest.raises(NameTaken, match="There is already a channel named 'slack channel'"):
        change(owner, channel, name="slack channel")
    with pytest.raises(NameTaken):
        make_channel(owner, "slack")


def test_a_change_keeps_the_secrets_it_does_not_name(owner: Account) -> None:
    channel = make_channel(owner, "slack", fields={"url": SLACK_URL})
    # As a form sends it back that was filled with what is shown.
    changed = change(owner, channel, name="ops", fields=shown_fields(channel))
    assert changed.name == "ops"
    assert unseal(changed.secrets) == {"url": SLACK_URL}
    changed = change(owner, channel, fields={"url": f"{SLACK_URL}2"})
    assert unseal(changed.secrets) == {"url": f"{SLACK_URL}2"}
    with owner.scope():
        changes = AuditEntry.objects.filter(object_type="channel").order_by("-id")
        assert [each.changes for each in changes[:2]] == [
            {"replaced_secrets": [[], ["url"]]},
            {"name": ["slack channel", "ops"]},
        ]


def test_a_webhook_keeps_its_secret_when_its_address_changes(owner: Account) -> None:
    channel = make_channel(owner, "webhook")
    secret = signing_secret(channel)
    changed = change(owner, channel, fields={"url": "https://new.example/"})
    assert signing_secret(changed) == secret
    assert shown_fields(changed) == {"url": "https://new.example/"}


def test_a_rotated_secret_is_new_and_the_old_one_is_kept_for_a_while(owner: Account) -> None:
    channel = make_channel(owner, "webhook")
    before = signing_secret(channel)
    with owner.scope():
        secret = rotate_secret(channel=channel, actor="ada@example.com")
        channel.refresh_from_db()
        with pytest.raises(WrongChannel, match="only webhooks"):
            rotate_secret(channel=make_channel(owner, "slack"), actor="ada@example.com")
    assert secret.startswith("whsec_")
    assert secret != before
    stored = unseal(channel.secrets)
    assert (stored["secret"], stored["old_secret"]) == (secret, before)


def test_a_channel_whose_secrets_cannot_be_read_takes_new_ones(owner: Account) -> None:
    channel = make_channel(owner, "slack", fields={"url": SLACK_URL})
    with owner.scope():
        Channel.objects.filter(id=channel.id).update(secrets=b"of another key")
    with pytest.raises(WrongChannel, match="url: is required"):
        change(owner, channel, fields=shown_fields(channel))
    changed = change(owner, channel, fields={"url": SLACK_URL})
    assert unseal(changed.secrets) == {"url": SLACK_URL}


def test_secrets_of_another_key_are_refused_with_a_sentence(settings: Settings) -> None:
    sealed = seal({"url": "x"})
    settings.SECRET_KEY = "another key, as long as it has to be for a service"
    with pytest.raises(SecretsUnreadable, match="SECRET_KEY was replaced: enter them again"):
        unseal(sealed)


def test_a_removed_channel_sends_nothing_more_and_frees_its_name(owner: Account) -> None:
    channel = make_channel(owner, "slack", fields={"url": SLACK_URL})
    with owner.scope():
        delivery = Delivery.objects.create(
            tenant=owner.tenant, channel=channel, event="opened", severity="info", message={}
        )
        remove_channel(channel=channel, actor="ada@example.com")
        delivery.refresh_from_db()
        channel.refresh_from_db()
        assert delivery.state == DeliveryState.SUPERSEDED
        assert unseal(channel.secrets) == {}
        with pytest.raises(ChannelUnavailable):
            remove_channel(channel=channel, actor="ada@example.com")
    assert make_channel(owner, "slack").id != channel.id


def test_another_tenant_s_channel_is_not_there(owner: Account) -> None:
    channel = make_channel(owner, "slack")
    stranger = make_account()
    with stranger.scope(), pytest.raises(NotFound):
        update_channel(channel=channel, actor="tests", changes={"name": "mine"})


def test_a_tenant_has_so_many_channels_and_no_more(owner: Account) -> None:
    call_command("set_limit", owner.tenant.name, "channels", "2", verbosity=0)
    first = make_channel(owner, name="first")
    make_channel(owner, name="second")
    with pytest.raises(LimitReached, match="limit of 2 channels"):
        make_channel(owner, name="third")
    with owner.scope():
        remove_channel(channel=first, actor="tests")
    make_channel(owner, name="third")
