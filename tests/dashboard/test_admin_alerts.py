"""The admin of alerts: rights by role, forms by kind, secrets never shown again."""

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from alerts.channel_settings import signing_secret
from alerts.models import AlertSettings, Channel, MaintenanceWindow
from alerts.sealing import unseal
from common.json_bodies import JsonObject
from tenants.models import AuditEntry
from tenants.roles import Role
from tests.alerts.scene import make_channel
from tests.dashboard.test_admin import changed, errors_of, saved_form
from tests.factories import Account

CHANNELS = "/admin/alerts/channel"
SETTINGS = "/admin/alerts/alertsettings"
WINDOWS = "/admin/alerts/maintenancewindow"
MANAGERS = {Role.OWNER, Role.ADMIN, Role.FINANCE}
SECRET_URL = "https://hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnopqrstuvwx"


def channel_form(**fields: object) -> JsonObject:
    return {
        "form_token": uuid.uuid4().hex,
        "name": "Chat",
        "config_url": SECRET_URL,
        "contacts": "finance, engineering",
        "severities": ["critical"],
        "digest": "daily",
        **fields,
    }


def window_form(**fields: object) -> JsonObject:
    now = datetime.now(UTC)
    return {
        "form_token": uuid.uuid4().hex,
        "starts_at_0": f"{now:%Y-%m-%d}",
        "starts_at_1": "00:00:00",
        "ends_at_0": f"{now + timedelta(days=2):%Y-%m-%d}",
        "ends_at_1": "00:00:00",
        "match_0": "agent",
        "match_1": "importer",
        "reason": "Import",
        **fields,
    }


def test_a_channel_is_made_by_its_kinds_form_and_its_secret_is_never_shown(
    account: Account, owner: Client
) -> None:
    assert "?kind=pagerduty" in owner.get(f"{CHANNELS}/add/").content.decode()
    path = f"{CHANNELS}/add/?kind=slack"
    assert saved_form(owner, path)["severities"] == ["warning", "critical"]
    assert owner.post(path, channel_form()).status_code == 302
    with account.scope():
        channel = Channel.objects.get()
    assert (channel.kind, channel.contacts) == ("slack", ["finance", "engineering"])
    assert (channel.severities, channel.digest) == (["critical"], "daily")
    page = f"{CHANNELS}/{channel.id}/change/"
    pages = [owner.get(where).content.decode() for where in (f"{CHANNELS}/", page)]
    with account.scope():
        logged = str(list(AuditEntry.objects.values_list("changes", flat=True)))
    for text in (*pages, logged):
        assert "abcdefghijklmnopqrst" not in text
    before = changed(account)
    assert "Remove channel" in pages[1]
    shown = saved_form(owner, page)
    assert shown["config_url"] == ""
    assert owner.post(page, shown).status_code == 302
    assert changed(account) == before
    assert owner.post(page, {**shown, "name": "Other", "is_paused": "on"}).status_code == 302
    with account.scope():
        stored = Channel.objects.get()
        assert (stored.name, stored.is_paused) == ("Other", True)
        assert unseal(stored.secrets)["url"] == SECRET_URL
    gone = owner.post(f"{CHANNELS}/{channel.id}/delete/", {"post": "yes"}, follow=True)
    assert b"Other: removed." in gone.content
    assert owner.get(page).status_code == 302
    assert [each[1:] for each in changed(account)[-3:]] == [
        ("create", "channel"),
        ("update", "channel"),
        ("delete", "channel"),
    ]


def test_a_webhooks_secret_is_shown_once_when_made_and_when_rotated(
    account: Account, owner: Client
) -> None:
    address = "https://hooks.example.com/in?token=hidden"
    form = channel_form(config_url=address, severities=["info"])
    made = owner.post(f"{CHANNELS}/add/?kind=webhook", form)
    with account.scope():
        channel = Channel.objects.get()
        first = signing_secret(channel)
    assert re.findall(r"whsec_[\w+/=]+", made.content.decode()) == [first]
    assert "no-store" in made["Cache-Control"]
    page = f"{CHANNELS}/{channel.id}/change/"
    text = owner.get(page).content.decode()
    assert "whsec_" not in text
    assert "token=hidden" not in text
    # The address that is shown in part stays whole.
    shown = saved_form(owner, page)
    owner.post(page, {**shown, "contacts": ""})
    asked = owner.get(f"{CHANNELS}/{channel.id}/new_secret/").content.decode()
    assert "For 24 hours messages are signed with the old one too" in asked
    rotated = owner.post(f"{CHANNELS}/{channel.id}/new_secret/", {"post": "yes"})
    with account.scope():
        stored = Channel.objects.get()
        assert unseal(stored.secrets)["url"] == address
        second = signing_secret(stored)
    assert second != first
    assert re.findall(r"whsec_[\w+/=]+", rotated.content.decode()) == [second]


def test_a_wrong_channel_is_refused_in_words(account: Account, owner: Client) -> None:
    slack = f"{CHANNELS}/add/?kind=slack"
    for fields, words in (
        ({"name": ""}, "This field is required"),
        ({"config_url": ""}, "This field is required"),
        ({"config_url": "https://127.0.0.1/x"}, "This "),
        ({"severities": ["loud"]}, "Select a valid choice"),
        ({"contacts": "x" * 101}, "at most 100 characters"),
    ):
        assert words in errors_of(owner.post(slack, channel_form(**fields))), fields
    mail = channel_form(config_to="one@example.com\nnobody", config_smtp_url="")
    refused = errors_of(owner.post(f"{CHANNELS}/add/?kind=email", mail))
    assert "is not an email address" in refused
    assert b"Choose a channel type" in owner.post(f"{CHANNELS}/add/?kind=pigeon", mail).content
    with account.scope():
        assert not Channel.objects.exists()
    make_channel(account, "slack", name="Chat")
    twice = owner.post(slack, channel_form(), follow=True)
    assert "There is already a channel named" in errors_of(twice)


def test_settings_have_one_form_with_a_row_for_each_rule(account: Account, owner: Client) -> None:
    page = f"{SETTINGS}/{account.tenant.id}/change/"
    assert owner.get(f"{SETTINGS}/")["Location"] == page
    shown = saved_form(owner, page)
    assert (shown["cool_down_seconds"], shown["feature_week_threshold"]) == ("900", "50")
    changes = {
        "quiet_from": "22:00",
        "quiet_until": "07:00",
        "halts_loops": "on",
        "anomaly_limit_percent": "50",
        "feature_week_threshold": "80",
        "costly_request_severity": "warning",
    }
    form = {**shown, **changes}
    del form["hourly_spend_on"]
    assert owner.post(page, form).status_code == 302
    with account.scope():
        stored = AlertSettings.objects.get()
        assert f"{stored.quiet_from:%H:%M} {stored.quiet_until:%H:%M}" == "22:00 07:00"
        assert (stored.halts_loops, stored.anomaly_limit_percent) == (True, 50)
        assert stored.rules == {
            "costly_request": {"severity": "warning"},
            "hourly_spend": {"on": False},
            "feature_week": {"threshold": 80},
        }
    before = changed(account)
    assert before[-1] == (account.email, "update", "alertsettings")
    assert owner.post(page, saved_form(owner, page)).status_code == 302
    assert changed(account) == before
    for fields, words in (
        ({"quiet_until": ""}, "Set both ends of the quiet hours"),
        ({"quiet_until": "22:00"}, "two ends must differ"),
        ({"cool_down_seconds": "86401"}, "less than or equal to 86400"),
        ({"feature_week_threshold": "0"}, "greater than or equal to 1"),
    ):
        assert words in errors_of(owner.post(page, {**form, **fields})), fields


def test_a_maintenance_window_is_announced_and_ended(account: Account, owner: Client) -> None:
    assert owner.post(f"{WINDOWS}/add/", window_form()).status_code == 302
    with account.scope():
        window = MaintenanceWindow.objects.get()
    assert (window.match, window.created_by) == ({"agent": "importer"}, account.email)
    assert "agent importer" in owner.get(f"{WINDOWS}/").content.decode()
    path = f"{WINDOWS}/{window.id}"
    assert b"Notifications are sent immediately again" in owner.get(f"{path}/delete/").content
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 302
    with account.scope():
        assert MaintenanceWindow.objects.get().ends_at <= datetime.now(UTC)
    assert owner.post(f"{path}/delete/", {"post": "yes"}).status_code == 403
    for fields, words in (
        ({"ends_at_0": "2026-01-01"}, "Must be after the start, and in the future."),
        ({"ends_at_0": "2099-01-01"}, "Must be at most 31 days"),
        ({"reason": ""}, "This field is required"),
    ):
        assert words in errors_of(owner.post(f"{WINDOWS}/add/", window_form(**fields))), fields


@pytest.mark.parametrize("role", list(Role))
def test_managers_change_what_is_configured_and_others_look(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    channel = make_channel(account)
    client = as_role(role)
    settings = f"{SETTINGS}/{account.tenant.id}/change/"
    for path in (f"{CHANNELS}/", f"{CHANNELS}/{channel.id}/change/", f"{WINDOWS}/", settings):
        assert client.get(path).status_code == 200, path
    before = changed(account)
    managed = [
        client.post(f"{CHANNELS}/add/?kind=slack", channel_form()).status_code,
        client.post(f"{WINDOWS}/add/", window_form()).status_code,
        client.post(settings, {"cool_down_seconds": "5"}).status_code,
        client.post(f"{CHANNELS}/{channel.id}/delete/", {"post": "yes"}).status_code,
    ]
    if role in MANAGERS:
        assert managed == [302, 302, 200, 302]
    else:
        assert managed == [403] * 4
        assert changed(account) == before


def test_a_strangers_alerts_are_not_there(
    account: Account, stranger: Account, owner: Client
) -> None:
    channel = make_channel(stranger, name="secret channel")
    for path in (CHANNELS, WINDOWS):
        assert b"secret" not in owner.get(f"{path}/").content, path
    before = changed(stranger)
    for path in (
        f"{CHANNELS}/{channel.id}/change/",
        f"{CHANNELS}/{channel.id}/delete/",
        f"{CHANNELS}/{channel.id}/new_secret/",
        f"{SETTINGS}/{stranger.tenant.id}/change/",
    ):
        answer = owner.post(path, {"post": "yes", **channel_form()})
        assert answer.status_code in {302, 403, 404}, path
        assert b"secret" not in answer.content, path
    assert changed(stranger) == before


def test_the_menu_leads_to_the_pages_of_incidents_and_deliveries(owner: Client) -> None:
    html = owner.get("/admin/").content.decode()
    for path in ("/incidents", "/incidents/deliveries"):
        assert f'href="{path}"' in html, path
        assert owner.get(path).status_code == 200, path
    for path in ("/admin/alerts/incident/", "/admin/alerts/delivery/"):
        assert owner.get(path).status_code == 404, path
