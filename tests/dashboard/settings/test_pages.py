"""Settings: keys, prices, channels, alerts, the workspace and the audit log, by role and tenant."""

import csv
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from alerts.models import AlertSettings, Channel, MaintenanceWindow
from alerts.settings import create_maintenance_window
from common.errors import Conflict
from dashboard.settings.changes import changes_of, label_of, value_of
from metering.configuration.attribute_mappings import set_attribute_mappings
from metering.configuration.prices import Validity, add_price, add_tool_price
from metering.models import TenantPrice, ToolPrice, UsageEvent
from metering.usage.decoders.otlp.dimension_keys import AttributeMapping
from tenants.keys import create_api_key, find_key_holder
from tenants.models import ApiKey, AuditEntry, Team, Tenant
from tenants.people import create_team
from tenants.roles import ROLES_THAT_GRANT, SCOPES_BY_ROLE, Role, Scope
from tests.alerts.scene import make_channel
from tests.dashboard.settings.test_members import token_in
from tests.dashboard.test_enforcement_pages import HOSTILE, Handlers, page, words
from tests.factories import NANOS, Account, make_budget, make_event, send

PAGES = (
    "/settings/members",
    "/settings/teams",
    "/settings/keys",
    "/settings/prices",
    "/settings/prices?q=sonnet",
    "/settings/alerts",
    "/settings/sources",
    "/settings/attribute-mappings",
    "/settings/workspace",
    "/settings/audit-log",
    "/settings/audit-log.csv",
    "/incidents/channels",
)
MANAGERS = frozenset(role for role in Role if Scope.MANAGE in SCOPES_BY_ROLE[role])
SLACK = "https://hooks.slack.com/services/T000/B000/secretpart"


def make_price(account: Account, **fields: Any) -> TenantPrice:
    rates = {"input_tokens": {"nanos": str(3 * NANOS), "per": 1_000_000}}
    with account.scope():
        return add_price(
            tenant=account.tenant,
            actor="tests",
            validity=Validity(timezone.now()),
            **{"model": "house-model", "rates": rates, **fields},
        )


def make_window(account: Account) -> MaintenanceWindow:
    now = timezone.now()
    with account.scope():
        return create_maintenance_window(
            tenant=account.tenant,
            actor="tests",
            starts_at=now,
            ends_at=now + timedelta(hours=1),
            match={},
            reason="Load test",
        )


@pytest.mark.parametrize("role", list(Role))
def test_every_role_opens_every_page_and_finds_no_dead_button(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    make_price(account)
    make_channel(account)
    make_window(account)
    client, addresses = as_role(role), set()
    for path in PAGES:
        html = page(client, path)
        assert 'href="/admin' not in html.replace('<a href="/admin/" hx-boost="false">', "")
        addresses |= set(re.findall(r'href="(/(?:settings|incidents)[^"?]*)["?]', html))
        if role is Role.VIEWER:
            forms = re.findall(r'<form method="post"[^>]*>', html)
            assert all("/logout" in form or "/tenant" in form for form in forms), (path, forms)
    for address in addresses:
        assert client.get(address).status_code == 200, address


def test_a_key_is_shown_once_and_revoked(account: Account, owner: Client) -> None:
    form = {"name": "Research", "scopes": ["ingest", "read"]}
    form["form_token"] = token_in(page(owner, "/settings/keys/new"))
    answer = owner.post("/settings/keys/new", form)
    assert "no-store" in answer["Cache-Control"]
    text = re.search(r"sg_[a-z0-9]+_[\w-]{20,}", answer.content.decode())
    assert text is not None
    holder = find_key_holder(text[0])
    assert holder is not None
    assert holder.scopes == {"ingest", "read"}
    again = owner.post("/settings/keys/new", form, follow=True)
    assert "nothing was done twice" in again.content.decode()
    html = page(owner, "/settings/keys")
    assert text[0] not in html
    assert "Research sg_" in words(owner, "/settings/keys")
    assert owner.post(f"/settings/keys/{holder.key_id}/revoke").status_code == 302
    with account.scope():
        assert ApiKey.objects.get(id=holder.key_id).revoked_at is not None
    assert "Revoked and expired" in words(owner, "/settings/keys")


def test_a_key_needs_a_scope_and_a_time_ahead(account: Account, owner: Client) -> None:
    past = {"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T10:00"}
    assert "This time is in the past." in owner.post("/settings/keys/new", past).content.decode()
    answer = owner.post("/settings/keys/new", {"name": "Typed"})
    assert "Choose at least one scope." in answer.content.decode()
    assert 'value="Typed"' in answer.content.decode()
    with account.scope():
        assert ApiKey.objects.count() == 1


def test_times_are_typed_in_the_tenants_zone(account: Account, owner: Client) -> None:
    with account.scope():
        Tenant.objects.filter(id=account.tenant.id).update(timezone="Asia/Kolkata")
    form = {"name": "Until", "scopes": ["read"], "expires_at": "2099-01-01T10:00"}
    owner.post("/settings/keys/new", form)
    with account.scope():
        ends = ApiKey.objects.get(name="Until").expires_at
    assert ends == datetime(2099, 1, 1, 4, 30, tzinfo=UTC)


def price_form(**changes: str) -> dict[str, str]:
    return {
        "model": "house-model",
        "provider": "",
        "rate_input_tokens": "3",
        "rate_output_tokens": "15",
        "effective_from": "2026-01-01T00:00",
        "note": "",
        **changes,
    }


def confirmed(html: str) -> dict[str, str]:
    match = re.search(r'name="_confirmed" value="([^"]*)"', html)
    assert match is not None
    return {"_confirmed": match[1].replace("&#x27;", "'").replace("&amp;", "&")}


def test_a_price_is_previewed_then_saved_and_prices_what_had_none(
    account: Account, owner: Client
) -> None:
    send(account, [make_event(model="house-model", provider="house") for _ in range(3)])
    text = words(owner, "/settings/prices")
    assert "3 calls to 1 model have no price" in text
    address = "/settings/prices/new?provider=house&model=house-model"
    assert address.replace("&", "&amp;") in page(owner, "/settings/prices")
    filled = page(owner, address)
    assert 'value="house-model"' in filled
    early = (timezone.now() - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    form = price_form(effective_from=early, form_token=token_in(filled))
    preview = owner.post(address, form).content.decode()
    assert "Nothing is saved yet." in preview
    assert "3 calls without a price are priced immediately." in preview
    with account.scope():
        assert not TenantPrice.objects.exists()
    # What was confirmed counts for the same price alone.
    other = {**form, "rate_input_tokens": "4", **confirmed(preview)}
    assert owner.post(address, other).status_code == 200
    with account.scope():
        assert not TenantPrice.objects.exists()
    assert owner.post(address, {**form, **confirmed(preview)}).status_code == 302
    with account.scope():
        assert TenantPrice.objects.count() == 1
        costs = set(UsageEvent.objects.values_list("cost_nanos", flat=True))
    assert costs == {1000 * 3000 + 100 * 15000}


def test_what_a_button_wrote_before_it_was_refused_is_undone(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_refuse(**asked: object) -> None:
        create_team(tenant=account.tenant, name="left behind", actor="tests")
        raise Conflict("It cannot end.")

    monkeypatch.setattr("dashboard.settings.prices.end_price", write_and_refuse)
    path = f"/settings/prices/model/{make_price(account).id}/end"
    assert "It cannot end." in owner.post(path, follow=True).content.decode()
    with account.scope():
        assert not Team.objects.exists()


def test_a_rate_a_thousand_times_off_is_doubted(account: Account, owner: Client) -> None:
    form = price_form(model="claude-sonnet-4-5", rate_input_tokens="0.003", rate_output_tokens="")
    preview = owner.post("/settings/prices/new", form).content.decode()
    assert "Rates are in USD per million tokens." in preview
    assert "Add anyway" in preview
    refused = owner.post("/settings/prices/new", price_form(rate_input_tokens="3,50"))
    assert "Write 1200.50" in refused.content.decode()


def test_tool_prices_are_added_and_ended(account: Account, owner: Client) -> None:
    form = {"tool": "search", "call_nanos": "0.01", "effective_from": "2026-01-01T00:00"}
    preview = owner.post("/settings/prices/new-tool", form).content.decode()
    assert "Each call of search costs $0.01." in preview
    owner.post("/settings/prices/new-tool", {**form, **confirmed(preview)})
    with account.scope():
        price = ToolPrice.objects.get()
    assert price.call_nanos == NANOS // 100
    assert owner.post(f"/settings/prices/tool/{price.id}/end").status_code == 302
    with account.scope():
        assert ToolPrice.objects.get().effective_to is not None
    assert owner.post(f"/settings/prices/other/{price.id}/end").status_code == 404


def test_the_catalogue_is_searched(owner: Client) -> None:
    assert "claude-sonnet-4-5" in words(owner, "/settings/prices?q=sonnet+anthropic")
    assert "no model like" in words(owner, "/settings/prices?q=nothing-such")


def test_each_kind_of_channel_has_its_own_fields(account: Account, owner: Client) -> None:
    choices = re.findall(r'href="\?kind=(\w+)"', page(owner, "/incidents/channels/new"))
    assert len(choices) >= 6
    for kind in choices:
        assert 'name="config_' in page(owner, f"/incidents/channels/new?kind={kind}")
    form = {"name": "Ops", "config_url": SLACK, "severities": ["critical"], "digest": "none"}
    answer = owner.post("/incidents/channels/new?kind=slack", form)
    assert answer.status_code == 302, answer.content
    with account.scope():
        channel = Channel.objects.get()
    path = f"/incidents/channels/{channel.id}"
    for shown in ("/incidents/channels", path):
        assert "secretpart" not in page(owner, shown)
    changed = {"name": "Ops 2", "config_url": channel.config["url"], "digest": "daily"}
    assert owner.post(path, changed).status_code == 302
    with account.scope():
        stored = Channel.objects.get()
        assert (stored.name, stored.digest, stored.severities) == ("Ops 2", "daily", [])
        assert bytes(stored.secrets) == bytes(stored.secrets)
    assert owner.post(f"{path}/remove").status_code == 302
    assert owner.get(path).status_code == 404


def test_a_channel_that_is_refused_is_shown_again(account: Account, owner: Client) -> None:
    form = {"name": "Ops", "config_url": "http://127.0.0.1/x", "digest": "none"}
    answer = owner.post("/incidents/channels/new?kind=webhook", form)
    assert answer.status_code == 200
    assert 'class="error"' in answer.content.decode()
    assert 'value="Ops"' in answer.content.decode()
    with account.scope():
        assert not Channel.objects.exists()


def test_a_webhooks_secret_is_shown_once(account: Account, owner: Client) -> None:
    form = {"name": "Hook", "config_url": "https://example.com/hook", "digest": "none"}
    answer = owner.post("/incidents/channels/new?kind=webhook", form)
    first = re.search(r"whsec_[\w+/=]+", answer.content.decode())
    assert first is not None
    with account.scope():
        channel = Channel.objects.get()
    answer = owner.post(f"/incidents/channels/{channel.id}/secret")
    second = re.search(r"whsec_[\w+/=]+", answer.content.decode())
    assert second is not None
    assert second[0] != first[0]
    assert "whsec_" not in page(owner, f"/incidents/channels/{channel.id}")


def alert_form(client: Client) -> dict[str, object]:
    html = page(client, "/settings/alerts")
    form: dict[str, Any] = dict(re.findall(r'name="(\w+_threshold)" value="([^"]*)"', html))
    for name in list(form):
        form[name.replace("_threshold", "_severity")] = "warning"
        form[name.replace("_threshold", "_on")] = "on"
    return form | {"digest_at": "09:30", "cool_down_seconds": "600"}


def test_alert_settings_are_changed(account: Account, owner: Client) -> None:
    form = alert_form(owner)
    answer = owner.post("/settings/alerts", {**form, "quiet_from": "22:00"})
    assert "Set both ends of the quiet hours" in answer.content.decode()
    form |= {"quiet_from": "22:00", "quiet_until": "06:00", "costly_request_threshold": "12"}
    del form["feature_week_on"]
    assert owner.post("/settings/alerts", form).status_code == 302
    with account.scope():
        stored = AlertSettings.objects.get()
    assert stored.cool_down_seconds == 600
    assert stored.rules["costly_request"]["threshold"] == 12
    assert stored.rules["feature_week"]["on"] is False
    assert "5 of 6 rules are on; quiet from 10:00 PM to 6:00 AM" in words(owner, "/settings/alerts")


def test_contacts_say_whom_they_reach(account: Account, owner: Client) -> None:
    with account.scope():
        create_team(tenant=account.tenant, name="growth", actor="tests")
    make_budget(account)
    make_channel(account, name="Finance room", contacts=["finance"])
    text = words(owner, "/settings/alerts")
    assert "finance 0 Finance room" in text
    assert "team_lead 0 no one: this service sends no email to people" in text


def test_maintenance_windows_are_added_and_ended(account: Account, owner: Client) -> None:
    now = timezone.now()
    form = {
        "starts_at": now.strftime("%Y-%m-%dT%H:%M"),
        "ends_at": (now + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M"),
        "reason": "Load test",
    }
    far = {**form, "ends_at": (now + timedelta(days=90)).strftime("%Y-%m-%dT%H:%M")}
    refused = owner.post("/settings/alerts/maintenance/new", far).content.decode()
    assert "Must be at most 31 days" in refused
    assert owner.post("/settings/alerts/maintenance/new", form).status_code == 302
    with account.scope():
        window = MaintenanceWindow.objects.get()
    assert "Load test now" in words(owner, "/settings/alerts")
    owner.post(f"/settings/alerts/maintenance/{window.id}/end")
    assert "Load test" not in words(owner, "/settings/alerts").split("Maintenance windows")[1]


def test_the_workspace_is_changed(account: Account, owner: Client) -> None:
    form = {"timezone": "America/New_York", "unpriced_policy": "assume"}
    refused = owner.post("/settings/workspace", form).content.decode()
    assert "Give both rates to assume them." in refused
    form |= {"assumed_input_nanos_per_mtok": "1.5", "assumed_output_nanos_per_mtok": "6"}
    assert owner.post("/settings/workspace", form).status_code == 302
    with account.scope():
        tenant = Tenant.objects.get(id=account.tenant.id)
    assert (tenant.timezone, tenant.unpriced_policy) == ("America/New_York", "assume")
    assert tenant.assumed_input_nanos_per_mtok == 1_500_000_000
    assert "days begin in America/New_York" in words(owner, "/settings/workspace")


def test_the_audit_log_says_what_changed(account: Account, owner: Client) -> None:
    owner.post(
        "/settings/workspace",
        {
            "timezone": "UTC",
            "unpriced_policy": "assume",
            "assumed_input_nanos_per_mtok": "1.5",
            "assumed_output_nanos_per_mtok": "6",
        },
    )
    text = words(owner, "/settings/audit-log")
    assert f"{account.email} changed workspace settings last" in text
    assert "Models without a price refuse → assume" in text
    assert "Assumed input rate per million tokens none → $1.5" in text
    rows = list(csv.reader(io.StringIO(owner.get("/settings/audit-log.csv").content.decode())))
    assert rows[0][:3] == ["at", "actor", "action"]
    assert ["Models without a price", "refuse", "assume"] in [row[6:] for row in rows]


def test_the_audit_log_is_filtered_by_the_apis_names(account: Account, owner: Client) -> None:
    with account.scope():
        create_team(tenant=account.tenant, name="growth", actor="Ana")
        create_team(tenant=account.tenant, name="research", actor="Ben")
    text = words(owner, "/settings/audit-log?actor=ana&object_type=team")
    assert "Ana created team growth" in text
    assert "created team research" not in text
    assert "No change matches" in words(owner, "/settings/audit-log?action=archive")
    assert owner.get("/settings/audit-log", {"actor": "\0", "before": "x"}).status_code == 200


def test_the_audit_log_has_pages(
    account: Account, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.settings.audit_log.PER_PAGE", 2)
    with account.scope():
        for number in range(5):
            create_team(tenant=account.tenant, name=f"team-{number}", actor="tests")
    seen, path = [], "/settings/audit-log?object_type=team"
    while path:
        html = page(owner, path)
        seen += re.findall(r'title="(team-\d)"', html)
        older = re.search(r'href="([^"]*)" rel="next"', html)
        path = f"/settings/audit-log{older[1].replace('&amp;', '&')}" if older else ""
    assert seen == [f"team-{number}" for number in reversed(range(5))]


def test_hostile_names_stay_text_and_formulas_are_neutralized(
    account: Account, owner: Client
) -> None:
    for index, value in enumerate([*HOSTILE, "=1+1"]):
        make_price(account, model=value, provider=value)
        with account.scope():
            create_team(tenant=account.tenant, name=value, actor=value)
            create_api_key(tenant=account.tenant, name=value, actor=value)
            add_tool_price(
                tenant=account.tenant,
                actor="tests",
                tool=value,
                call_nanos=1,
                validity=Validity(timezone.now(), note=value),
            )
        make_channel(account, name=f"{index} {value.replace(chr(0x202E), '')}"[:200])
    for path in PAGES:
        html = page(owner, path)
        if path.endswith(".csv"):
            assert '"=1+1' not in html
            continue
        parser = Handlers()
        parser.feed(html)
        assert parser.found == [], path
        assert "<script>alert" not in html
        assert "49{" not in html


GRANTED: tuple[tuple[str, dict[str, object]], ...] = (
    ("/settings/keys/new", {"name": "x", "scopes": ["read"]}),
    ("/settings/keys/{key}/revoke", {}),
    ("/settings/workspace", {"timezone": "UTC", "unpriced_policy": "allow"}),
    ("/settings/attribute-mappings", {"attribute": "team.id", "dimension": "team"}),
    ("/settings/attribute-mappings/remove", {"attribute": "secret-name"}),
    ("/settings/attribute-mappings/move", {"attribute": "secret-name", "before": "before-it"}),
)
MANAGED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/settings/prices/new", price_form()),
    ("/settings/prices/new-tool", {"tool": "x", "call_nanos": "1"}),
    ("/settings/prices/model/{price}/end", {}),
    ("/incidents/channels/new?kind=webhook", {"name": "x", "config_url": "https://example.com"}),
    ("/incidents/channels/{channel}", {"name": "x"}),
    ("/incidents/channels/{channel}/remove", {}),
    ("/incidents/channels/{channel}/secret", {}),
    ("/incidents/channels/{channel}/test", {}),
    ("/settings/alerts", {"digest_at": "09:00"}),
    ("/settings/alerts/maintenance/new", {"reason": "x"}),
    ("/settings/alerts/maintenance/{window}/end", {}),
)


def rows_of(account: Account) -> dict[str, int]:
    with account.scope():
        key, _ = create_api_key(tenant=account.tenant, name="secret-name", actor="tests")
        set_attribute_mappings(
            tenant=account.tenant,
            actor="tests",
            mappings=[AttributeMapping(name, "team") for name in ("before-it", "secret-name")],
        )
    return {
        "key": key.id,
        "price": make_price(account, model="secret-name").id,
        "channel": make_channel(account, name="secret-name").id,
        "window": make_window(account).id,
    }


@pytest.mark.parametrize("role", list(Role))
def test_who_may_not_change_something_changes_nothing(
    account: Account, as_role: Callable[[Role], Client], role: Role
) -> None:
    client, rows = as_role(role), rows_of(account)
    refused = [
        *(GRANTED if role not in ROLES_THAT_GRANT else ()),
        *(MANAGED if role not in MANAGERS else ()),
    ]
    with account.scope():
        before = AuditEntry.objects.count()
    for path, form in refused:
        assert client.post(path.format(**rows), form).status_code == 403, path
    with account.scope():
        assert AuditEntry.objects.count() == before


def test_another_tenants_rows_are_not_found(
    account: Account, stranger: Account, owner: Client
) -> None:
    rows = rows_of(stranger)
    with stranger.scope():
        before = AuditEntry.objects.count()
    for path, form in (*GRANTED, *MANAGED):
        if "{" in path:
            assert owner.post(path.format(**rows), form).status_code == 404, path
    for path in PAGES:
        assert "secret-name" not in page(owner, path)
    with stranger.scope():
        assert AuditEntry.objects.count() == before


def test_changes_have_units_and_words() -> None:
    assert value_of("limit_cost_nanos", 50 * NANOS).words == "$50"
    assert value_of("limit_percent", 70).words == "70%"
    assert value_of("cool_down_seconds", 900).words == "900 s"
    assert value_of("is_paused", value=True).words == "yes"
    assert value_of("contacts", ["a", "b"]).words == "a, b"
    assert value_of("levels", [{"percent": 70, "action": "none", "notify": ["finance"]}]).words == (
        "70%: notify finance"
    )
    assert value_of("ends_at", "2026-11-18T16:41:00+00:00").at == datetime(
        2026, 11, 18, 16, 41, tzinfo=UTC
    )
    rates = {"input_tokens": {"nanos": "3000000000", "per": 1000000}}
    assert value_of("rates", rates).words == "input $3 per million"
    assert label_of("limit_tool_calls") == "Limit tool calls"
    assert changes_of("update", {"id": [1, 2], "note": ["", "x"], "match": [{}, None]}) == [
        changes_of("update", {"note": ["", "x"]})[0]
    ]
