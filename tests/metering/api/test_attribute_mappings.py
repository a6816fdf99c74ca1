"""Attribute mappings over HTTP, and what they do to the spans that arrive next."""

import pytest
from django.test import Client

from common.json_bodies import JsonObject
from metering.configuration.attribute_mappings import MAPPINGS_MAX
from metering.models import AttributeMappings, UsageEvent
from metering.snapshot import forget_configurations
from tenants.models import AuditEntry, Tenant
from tests.factories import Account
from tests.metering.api.caller import Caller, caller
from tests.metering.usage.decoders.spans import CHAT, Export

PATH = "/v1/attribute-mappings"
TEAM = {"attribute": "team.id", "dimension": "team"}
CENTER = {"attribute": "cost.center", "dimension": "team"}
CUSTOMER = {"attribute": "app.tenant", "dimension": "customer"}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def put(api: Caller, *mappings: object) -> list[JsonObject]:
    answer = api.send("PUT", PATH, list(mappings))
    assert answer.status == 200, answer.body
    body: list[JsonObject] = answer.body
    return body


def changes_in(account: Account) -> list[JsonObject]:
    with account.scope():
        rows = AuditEntry.objects.filter(object_type="attributemappings").order_by("id")
        return list(rows.values_list("changes", flat=True))


def version_of(account: Account) -> int:
    with account.scope():
        return Tenant.objects.get(id=account.tenant.id).configuration_version


def test_the_list_is_answered_as_it_was_put_and_replaced_as_a_whole(api: Caller) -> None:
    assert api.get(PATH).body == []
    assert put(api, TEAM, CUSTOMER, CENTER) == [TEAM, CUSTOMER, CENTER]
    assert api.get(PATH).body == [TEAM, CUSTOMER, CENTER]
    assert put(api, CENTER) == [CENTER]
    assert api.get(PATH).body == [CENTER]
    assert put(api) == []
    assert api.get(PATH).body == []


def test_a_change_is_in_the_audit_log_by_dimension_and_a_repetition_is_none(
    account: Account, api: Caller
) -> None:
    put(api)
    assert changes_in(account) == []
    put(api, TEAM, CUSTOMER, CENTER)
    version = version_of(account)
    put(api, TEAM, CUSTOMER, CENTER)
    assert version_of(account) == version
    put(api, CENTER, TEAM, CUSTOMER)
    assert version_of(account) > version
    put(api, CENTER, TEAM)
    assert changes_in(account) == [
        {"team": [None, ["team.id", "cost.center"]], "customer": [None, ["app.tenant"]]},
        {"team": [["team.id", "cost.center"], ["cost.center", "team.id"]]},
        {"customer": [["app.tenant"], None]},
    ]
    entry = api.get("/v1/audit-log", limit=1).body["data"][0]
    assert entry["actor"].startswith("API key sg_")


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"attribute": "a", "dimension": "team"}, {("", "not_a_list")}),
        ("team.id", {("", "not_a_list")}),
        (None, {("", "null")}),
        ([TEAM, "team.id"], {("/1", "invalid")}),
        ([TEAM, {}], {("/1/attribute", "required"), ("/1/dimension", "required")}),
        ([{**TEAM, "attribute": 5}], {("/0/attribute", "invalid")}),
        ([{**TEAM, "attribute": None}], {("/0/attribute", "null")}),
        ([{**TEAM, "attribute": ""}], {("/0/attribute", "blank")}),
        ([{**TEAM, "dimension": ["team"]}], {("/0/dimension", "invalid")}),
        ([{**TEAM, "priority": 1}], {("/0/priority", "unknown_field")}),
        ([{**TEAM, "attribute": "a" * 201}], {("/0/attribute", "max_length")}),
        (
            [TEAM, {"attribute": "x", "dimension": "teem"}, TEAM],
            {("/1/dimension", "unknown_dimension"), ("/2/attribute", "duplicate")},
        ),
        ([{**TEAM, "dimension": "model"}], {("/0/dimension", "unknown_dimension")}),
        ([{**TEAM, "attribute": "a\nb"}], {("/0/attribute", "invalid")}),
        ([{**TEAM, "attribute": "a\u202eb"}], {("/0/attribute", "invalid")}),
        ([{**TEAM, "attribute": " team.id"}], {("/0/attribute", "invalid")}),
        ([{**TEAM, "attribute": "spendgate.team"}], {("/0/attribute", "invalid")}),
        ([{**TEAM, "attribute": "gen_ai.input.messages"}], {("/0/attribute", "invalid")}),
        (
            [{"attribute": f"a{n}", "dimension": "team"} for n in range(MAPPINGS_MAX + 1)],
            {("", "max_length")},
        ),
    ],
)
def test_what_is_no_list_of_mappings_is_refused_and_changes_nothing(
    account: Account, api: Caller, body: object, errors: set[tuple[str, str]]
) -> None:
    put(api, CUSTOMER)
    refused = api.send("PUT", PATH, body)
    assert (refused.status, refused.code) == (400, "invalid_request")
    assert {(error["pointer"], error["code"]) for error in refused.body["errors"]} == errors
    assert api.get(PATH).body == [CUSTOMER]
    assert len(changes_in(account)) == 1


def test_errors_name_what_may_be_meant(api: Caller) -> None:
    refused = api.send("PUT", PATH, [TEAM, {"attribute": "x", "dimension": "teem"}, TEAM])
    assert refused.body["detail"] == (
        "/1/dimension: Unknown dimension 'teem'. Did you mean 'team'? Choose one of team, customer,"
        " agent, user, feature, session, task; /2/attribute: This attribute is mapped already, to"
        " team."
    )


def test_mappings_are_managed_with_the_scope_for_it_and_by_their_tenant(
    account: Account, stranger: Account, api: Caller
) -> None:
    put(api, TEAM)
    theirs = caller(stranger)
    put(theirs, CUSTOMER)
    assert api.get(PATH).body == [TEAM]
    assert theirs.get(PATH).body == [CUSTOMER]
    for scopes, reads, writes in (
        (["read"], 200, 403),
        (["manage"], 200, 200),
        (["ingest", "enforce"], 403, 403),
    ):
        text = api.post("/v1/keys", {"name": "k", "scopes": scopes}).body.get("key")
        assert text is not None
        key = Caller(text)
        assert (key.get(PATH).status, key.send("PUT", PATH, [TEAM]).status) == (reads, writes)
    assert Caller(None).send("PUT", PATH, []).status == 401
    assert api.post(PATH, []).status == 405


def trace(account: Account, export: Export, *, is_json: bool = False) -> None:
    kind = "application/json" if is_json else "application/x-protobuf"
    answer = Client().post(
        "/v1/traces",
        export.json() if is_json else export.protobuf(),
        content_type=kind,
        headers={"Authorization": f"Bearer {account.api_key}"},
    )
    assert answer.status_code == 200, answer.content


def teams_of(account: Account) -> list[str]:
    with account.scope():
        return list(UsageEvent.objects.order_by("id").values_list("team", flat=True))


@pytest.mark.parametrize("is_json", [False, True])
def test_spans_that_arrive_after_a_change_are_read_by_it(
    account: Account, stranger: Account, api: Caller, is_json: bool
) -> None:
    for number, (mappings, team) in enumerate(
        [([], ""), ([TEAM], "growth"), ([CENTER, TEAM], "4711"), ([], "")]
    ):
        put(api, *mappings)
        forget_configurations()  # as a process does that is told of the change
        made = Export(team__id="growth", cost__center=4711)
        made.add({**CHAT, "gen_ai.response.id": f"msg_{number}"}, trace=f"{number + 1:032x}")
        trace(account, made, is_json=is_json)
        trace(stranger, made, is_json=is_json)
        assert teams_of(account)[-1] == team
    assert teams_of(account) == ["", "growth", "4711", ""]
    assert set(teams_of(stranger)) == {""}


def test_one_tenants_row_is_invisible_to_another(
    account: Account, stranger: Account, api: Caller
) -> None:
    put(api, TEAM)
    with stranger.scope():
        assert not AttributeMappings.objects.exists()
    with account.scope():
        assert AttributeMappings.objects.get().mappings == [TEAM]
