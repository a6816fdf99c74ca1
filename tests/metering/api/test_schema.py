"""The OpenAPI document: it is served as the contract says, it names every address, and it is true.

Schemathesis makes requests out of it, right ones and wrong ones, and holds every answer against it.
"""

import re
from typing import Any

import pytest
import schemathesis
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from hypothesis import HealthCheck, Phase, given, settings, strategies
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from common.json_bodies import JsonObject
from tests.alerts.examples import make_anomaly, make_incident
from tests.alerts.scene import make_channel
from tests.billing.everything import bill
from tests.factories import Account, make_budget, make_event, send
from tests.metering.api.caller import caller
from tests.wsgi import application

EXAMPLES = 10
# Requests as the document has them, and requests that break it somewhere.
MODES = strategies.sampled_from(list(GenerationMode))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture
def document(client: Client) -> JsonObject:
    response = client.get("/v1/schema")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    result: JsonObject = response.json()
    return result


def test_the_document_names_every_address_of_the_api(document: JsonObject) -> None:
    def routes(patterns: list[Any], prefix: str = "/") -> set[str]:
        result: set[str] = set()
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                result |= routes(pattern.url_patterns, route)
            elif isinstance(pattern, URLPattern):
                result.add(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route))
        return result

    ours = {route for route in routes(get_resolver().url_patterns) if route.startswith("/v1/")}
    assert document["paths"].keys() == ours - {"/v1/schema", "/v1/docs"}
    assert document["openapi"] == "3.1.0"


def test_every_operation_wants_a_key_and_may_answer_a_problem(document: JsonObject) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["security"] == [{"apiKey": []}], where
            assert operation["summary"], where
            for status in ("400", "401", "403"):
                content = operation["responses"][status]["content"]
                assert list(content) == ["application/problem+json"], where
            if method == "post":
                assert {"413", "415"} <= operation["responses"].keys(), where


def test_the_document_is_also_yaml(client: Client) -> None:
    response = client.get("/v1/schema", headers={"Accept": "application/vnd.oai.openapi"})
    assert response.content.startswith(b"openapi: 3.1.0")


@pytest.mark.django_db
def test_the_page_loads_nothing_from_elsewhere(client: Client) -> None:
    response = client.get("/v1/docs")
    page = response.content.decode()
    assert response["Content-Type"].startswith("text/html")
    assert "http://" not in page
    assert "https://" not in page
    assert "script-src 'self';" in response["Content-Security-Policy"] + ";"
    assert "<script>" not in page
    script = client.get("/v1/docs", {"script": ""})
    assert script["Content-Type"].startswith("application/javascript")
    assert b"/v1/schema" in script.content
    for address in ("swagger-ui.css", "swagger-ui-bundle.js"):
        served = client.get(f"/static/drf_spectacular_sidecar/swagger-ui-dist/{address}")
        assert served.status_code == 200
        served.close()


SCHEMA = schemathesis.openapi.from_wsgi("/v1/schema", application)
OPERATIONS = {
    result.ok().label: result.ok()
    for result in SCHEMA.get_all_operations()
    if isinstance(result, Ok)
}


ALERTS = (
    "/v1/alert-settings",
    "/v1/channels",
    "/v1/deliveries",
    "/v1/incidents",
    "/v1/maintenance-windows",
)


CREDIT = ("/v1/credit", "/v1/wallets", "/v1/coupons")


def make_objects(account: Account, label: str) -> JsonObject:
    """One object of each kind, by the name of the path parameter that finds it: of those that the
    operation may be about.
    """
    address = label.partition(" ")[2]
    if address.startswith(ALERTS):
        return make_alerts(account)
    return make_credit(account) if address.startswith(CREDIT) else make_configuration(account)


def make_credit(account: Account) -> JsonObject:
    bill(account)
    api = caller(account)
    addresses = ("credits", "wallets", "coupons", "credit-notes")
    return {
        f"{address.removesuffix('s').replace('-', '_')}_id": api.get(f"/v1/{address}").body["data"][
            0
        ]["id"]
        for address in addresses
    }


def make_alerts(account: Account) -> JsonObject:
    channel = make_channel(account)
    incident = make_incident(account)
    make_anomaly(account, incident)
    api = caller(account)
    window = {"reason": "Import", "duration_seconds": 3600}
    return {
        "incident_id": incident.id,
        "channel_id": channel.id,
        "delivery_id": api.get("/v1/deliveries").body["data"][0]["id"],
        "window_id": api.post("/v1/maintenance-windows", window).body["id"],
    }


def make_configuration(account: Account) -> JsonObject:
    send(account, [make_event(team="growth", trace="t", session="s"), make_event(model="m")])
    api = caller(account)
    price = {"model": "m", "rates": {"input_per_mtok_usd": "1"}}
    route = {"name": "All", "tiers": [{"provider": "openai", "model": "gpt-5-nano"}]}
    budget = make_budget(account, per=["team"])
    rate = {"name": "All", "limit": {"requests_per_minute": 600}}
    breaker = {"name": "All", "per": ["agent"], "error_percent": 50}
    higher = {"by": {"cost_usd": "5"}, "duration_seconds": 60, "reason": "An import"}
    return {
        "budget_id": budget.id,
        "raise_id": api.post(f"/v1/budgets/{budget.id}/raises", higher).body["id"],
        "route_id": api.post("/v1/routes", route).body["id"],
        "price_id": api.post("/v1/prices", price).body["id"],
        "key_id": api.post("/v1/keys", {"name": "CI", "scopes": ["read"]}).body["id"],
        "halt_id": api.post("/v1/halts", {"match": {"agent": "a"}, "reason": "r"}).body["id"],
        "rate_limit_id": api.post("/v1/rate-limits", rate).body["id"],
        "breaker_id": api.post("/v1/breakers", breaker).body["id"],
        "annotation_id": api.post("/v1/annotations", {"text": "Deployed"}).body["id"],
        "job_id": api.get("/v1/jobs").body["data"][0]["id"],
        "trace": "t",
        "session": "s",
    }


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_as_the_document_says(account: Account, label: str) -> None:
    known = make_objects(account, label)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=strategies.data())
    def hold(data: Any) -> None:
        case = data.draw(OPERATIONS[label].as_strategy(generation_mode=data.draw(MODES)))
        if data.draw(strategies.booleans()):
            # Made-up ids seldom find anything.
            names = case.path_parameters.keys() & known.keys()
            case.path_parameters.update({name: known[name] for name in names})
        # The client of tests does not unpack what is compressed.
        headers = {**account.headers, "Accept-Encoding": "identity"}
        case.call_and_validate(headers=headers, checks=CHECKS)

    hold()
