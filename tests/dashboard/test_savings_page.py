"""Savings as a page and by API: the same figures, with the calls that make them."""

import re
from collections.abc import Callable

import pytest
from django.test import Client

from tenants.roles import Role
from tests.dashboard.test_enforcement_pages import HOSTILE, page, words
from tests.factories import Account, make_account, make_event, send
from tests.metering.api.caller import Caller, caller
from tests.metering.reporting.test_savings import CHEAP, DEAR, NEXT


def use(account: Account) -> None:
    tokens = {"input_tokens": 10_000, "cache_read_tokens": 8_000, "output_tokens": 1_000}
    send(account, [make_event(**DEAR, **tokens), make_event(**NEXT, input_tokens=10)])
    send(account, [make_event(**DEAR, cost_usd="0.5", status="error", input_tokens=1)])


def test_page_and_api_find_the_same(account: Account, owner: Client) -> None:
    use(account)
    answer = caller(account).get("/v1/savings").body
    assert {finding["kind"] for finding in answer["data"]} == {
        "caching",
        "failed",
        "cheaper_model",
    }
    html = page(owner, "/savings/findings")
    shown = set(re.findall(r'<data value="([^"]*)"', html))
    assert {finding["amount_usd"] for finding in answer["data"]} <= shown
    assert {answer["saved_usd"], answer["wasted_usd"]} <= shown
    assert answer["wasted_usd"] == "0.5"
    assert "Caching saved $0.0216; “" in words(owner, "/savings")
    assert "/calls?filter[model]=claude-sonnet-4-5&amp;filter[status]=error" in html
    assert caller(make_account()).get("/v1/savings").body["data"] == []


def test_what_if_is_rated_to_the_nano_dollar(account: Account, owner: Client) -> None:
    use(account)
    body = {"model": CHEAP["model"], "filter": {"model": DEAR["model"], "status": "success"}}
    answer = caller(account).post("/v1/what-if", body)
    assert answer.status == 200
    # 2,000 and 8,000 cached input tokens, 1,000 of output: $3, $0.30, $15; $0.05, $0.005, $0.40.
    assert (answer.body["calls"], answer.body["cost_usd"]) == (1, "0.0234")
    assert answer.body["other_cost_usd"] == "0.00054"
    assert answer.body["saved_usd"] == "0.02286"
    query = f"model={DEAR['model']}&filter[status]=success&instead={CHEAP['model']}"
    assert "$0.0229 less : 1 call cost $0.0234" in words(owner, f"/savings?{query}")
    query = f"model={NEXT['model']}&instead={DEAR['model']}"
    assert " more : 1 call cost" in words(owner, f"/savings?{query}")


def test_what_cannot_be_rated_is_refused(account: Account, owner: Client) -> None:
    api = caller(account)
    assert api.post("/v1/what-if", {"model": "nobody-knows"}).code == "no_price"
    backwards = {"model": "m", "from": "2026-11-21T00:00:00Z", "to": "2026-11-20T00:00:00Z"}
    assert api.post("/v1/what-if", backwards).pointers == {"/to"}
    assert api.post("/v1/what-if", {}).pointers == {"/model"}
    send(account, [make_event(cost_usd="1")])
    assert "There is no price for the model" in words(owner, "/savings?instead=nobody-knows")
    ingest = api.post("/v1/keys", {"name": "i", "scopes": ["ingest"]}).body["key"]
    assert Caller(ingest).post("/v1/what-if", {"model": "m"}).status == 403
    assert Caller(ingest).get("/v1/savings").status == 403


def test_every_role_reads_and_no_one_else(
    account: Account, as_role: Callable[[Role], Client]
) -> None:
    assert "Send your first event" in page(as_role(Role.VIEWER), "/savings")
    send(account, [make_event(cost_usd="1")])
    for role in Role:
        assert "Neither caching nor a cheaper model" in page(as_role(role), "/savings")
    assert Client().get("/savings").status_code == 302


@pytest.mark.parametrize("text", [*HOSTILE, "\0"])
def test_hostile_names_stay_text(account: Account, owner: Client, text: str) -> None:
    if "\0" not in text:
        send(account, [make_event(model=text, agent=text, cost_usd="1", status="error")])
    for path, name in (("", "model"), ("", "instead"), ("/findings", "filter[agent]")):
        html = owner.get(f"/savings{path}", {name: text}).content.decode()
        assert "<script>alert(1)" not in html
        assert 'onmouseover="alert' not in html
