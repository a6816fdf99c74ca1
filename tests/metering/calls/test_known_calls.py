"""Reports of calls that are known, in the database: what was escaped before, and the edges."""

from typing import Any

import pytest

from common.json_bodies import JsonObject
from metering.models import CallReport, Crossing, EventKey, Reservation, UsageEvent
from metering.rollups import roll_up
from tests.factories import Account, make_budget, make_event, send, windows_of
from tests.metering.api.caller import Caller
from tests.metering.exports import chat_span, export_spans

pytestmark = pytest.mark.django_db(transaction=True)


def events(account: Account) -> list[UsageEvent]:
    with account.scope():
        return list(UsageEvent.objects.filter(tenant=account.tenant).order_by("id"))


def spent(account: Account, budget: Any) -> dict[str, int]:
    return {
        window.group_key: window.spent_nanos
        for window in windows_of(account, budget)
        if window.spent_nanos
    }


def test_a_span_before_the_settle_escapes_no_budget_that_it_does_not_name(account: Account) -> None:
    budget = make_budget(account, cost_usd=1, match={"team": "growth"})
    everything = make_budget(account, cost_usd=100)
    api = Caller(account.api_key)
    ask = {"team": "growth", "amount_usd": "0.06", "provider": "openai", "model": "gpt-4o"}
    granted = 0
    for number in range(31):
        answer = api.post("/v1/reservations", ask)
        if answer.status == 402:
            break
        granted += 1
        told = {"response_id": f"r-{number}", "cost_usd": "0.055"}
        send(account, [make_event(id=f"span-{number}", source="otel", **told)])
        settled = api.post(
            f"/v1/reservations/{answer.body['id']}/settle", {"id": f"settle-{number}", **told}
        )
        assert settled.status == 200, settled.body
        assert (settled.body["cost_usd"], settled.body["released_usd"]) == ("0.055", "0.005")
    assert granted == 18
    assert spent(account, budget) == {"[]": granted * 55_000_000}
    assert spent(account, everything) == {"[]": granted * 55_000_000}
    with account.scope():
        assert not Reservation.objects.filter(tenant=account.tenant, state=1).exists()


@pytest.mark.parametrize("used", [{"cost_usd": "3.5"}, {"output_tokens": 350_000}])
@pytest.mark.parametrize(
    "given",
    [
        {"cost_usd": "0.000156"},
        {"cost_usd": "0.000156", "input_tokens": ..., "output_tokens": ...},
        {"input_tokens": 1, "output_tokens": 1},
    ],
)
def test_a_used_response_is_no_way_past_a_budget(
    account: Account, used: JsonObject, given: JsonObject
) -> None:
    budget = make_budget(account, cost_usd=10)
    api = Caller(account.api_key)
    model = {"provider": "openai", "model": "gpt-4o"}
    send(account, [make_event(id="small", response_id="r", agent="other", **model, **given)])
    for number in range(2):
        held = api.post("/v1/reservations", {"amount_usd": "3.5"}).body["id"]
        told = {"id": f"s-{number}", "response_id": "r", **model, **used}
        assert api.post(f"/v1/reservations/{held}/settle", told).status == 200
    assert sum(spent(account, budget).values()) >= 7_000_000_000
    assert api.post("/v1/reservations", {"amount_usd": "3.5"}).status == 402


def test_an_event_that_settled_is_completed_by_the_settle(account: Account) -> None:
    api = Caller(account.api_key)
    held = api.post("/v1/reservations", {"amount_usd": "1", "agent": "a"}).body["id"]
    send(account, [make_event(id="event", source="sdk", reservation=held)])
    settle = {
        "id": "settle",
        "model": "claude-sonnet-4-5",
        "input_tokens": 1000,
        "output_tokens": 100,
        "cache_read_tokens": 900,
        "user": "u",
    }
    first = api.post(f"/v1/reservations/{held}/settle", settle)
    assert first.status == 200
    assert api.post(f"/v1/reservations/{held}/settle", settle).body == first.body
    other = api.post(f"/v1/reservations/{held}/settle", settle | {"output_tokens": 7})
    assert (other.status, other.code) == (409, "already_settled")
    (event,) = events(account)
    assert (event.agent, event.user, event.cache_read_tokens) == ("a", "u", 900)


def test_an_event_and_a_settle_of_one_id_are_one_call(account: Account) -> None:
    api = Caller(account.api_key)
    budget = make_budget(account)
    held = api.post("/v1/reservations", {"amount_usd": "1", "agent": "a"}).body["id"]
    call = {
        "id": "call-1",
        "model": "claude-sonnet-4-5",
        "input_tokens": 1000,
        "output_tokens": 100,
    }
    assert api.post("/v1/events", call).body["accepted"] == 1
    for _ in range(2):
        assert api.post(f"/v1/reservations/{held}/settle", call).status == 200
    (event,) = events(account)
    assert (event.agent, str(event.reservation_id)) == ("a", held)
    assert spent(account, budget) == {"[]": event.cost_nanos}


@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_a_merged_call_moves_in_what_was_rolled_up(account: Account, is_rolled_up: bool) -> None:
    send(account, [make_event(id="a", response_id="r", team="x", output_tokens=1)])
    if is_rolled_up:
        with account.scope():
            assert roll_up(tenant_id=account.tenant.id) == 1
    answer = send(account, [make_event(id="b", source="other", response_id="r", agent="y")])
    assert (answer["merged"], answer["accepted"]) == (1, 0)
    with account.scope():
        while roll_up(tenant_id=account.tenant.id):
            pass
    api = Caller(account.api_key)
    usage = api.get("/v1/usage", group_by="team,agent", interval="none").body["data"]
    assert [(each["group"], each["requests"], each["output_tokens"]) for each in usage] == [
        ({"team": "x", "agent": "y"}, 1, 100)
    ]


def test_more_contradictions_than_a_group_takes_are_all_counted(account: Account) -> None:
    budget = make_budget(account)
    models = ["claude-sonnet-4-5", "gpt-4o", "gemini-2.5-pro"]
    reports = [
        make_event(id=f"e-{number}", response_id="same", model=models[number % 3], cost_usd="0.01")
        for number in range(200)
    ]
    for event in reports:
        event["provider"] = "litellm"
        event["input_tokens"] = 1_000 + int(event["id"][2:])
        event["output_tokens"] = 1_000 - int(event["id"][2:])
    answer = send(account, reports)
    assert answer["accepted"] + answer["merged"] + answer["duplicates"] == 200
    assert len(events(account)) == answer["accepted"]
    assert spent(account, budget) == {"[]": answer["accepted"] * 10_000_000}


def test_a_corrected_call_is_changed_by_no_later_report(account: Account) -> None:
    budget = make_budget(account)
    api = Caller(account.api_key)
    send(account, [make_event(id="a", response_id="r")])
    void = {"id": "a", "source": "tests", "action": "void", "reason": "a test"}
    assert api.post("/v1/corrections", void).status == 200
    answer = send(account, [make_event(id="b", response_id="r", output_tokens=900)])
    assert (answer["accepted"], answer["merged"], answer["duplicates"]) == (0, 0, 1)
    assert spent(account, budget) == {}


def test_an_alias_without_a_price_is_priced_by_the_model_that_another_report_names(
    account: Account,
) -> None:
    send(account, [make_event(id="a", response_id="r", provider=..., model="our-deployment")])
    assert events(account)[0].cost_nanos is None
    export_spans(account, [chat_span(1, response_id="r")])
    (event,) = events(account)
    assert event.cost_nanos == 4_500_000


def test_an_empty_word_is_no_identity(account: Account) -> None:
    answer = send(
        account, [make_event(response_id=name) for name in ("None", "none", "null", "0", "unknown")]
    )
    assert answer["accepted"] == 5


def test_two_identities_lead_to_one_call_that_had_been_two(account: Account) -> None:
    budget = make_budget(account, per=["agent"])
    send(account, [make_event(id="a", response_id="r", agent="x")])
    send(account, [make_event(id="b", source="b", trace="t", span="s")])
    assert len(events(account)) == 2
    answer = send(account, [make_event(id="c", source="c", response_id="r", trace="t", span="s")])
    assert answer["merged"] == 1
    (event,) = events(account)
    assert spent(account, budget) == {'["x"]': event.cost_nanos}


def test_a_call_without_usage_gets_no_price_when_a_price_comes(account: Account) -> None:
    api = Caller(account.api_key)
    export_spans(account, [chat_span(1, tokens=None)])
    assert (
        api.post(
            "/v1/prices/rerate", {"from": "2026-01-01T00:00:00Z", "to": "2030-01-01T00:00:00Z"}
        ).status
        == 200
    )
    (event,) = events(account)
    assert (event.cost_nanos, event.cost_source) == (None, 4)
    shown = api.get("/v1/events").body["data"][0]
    assert (shown["cost_usd"], shown["unpriced_reason"]) == (None, "usage_missing")


def test_a_call_on_its_own_budget_is_told_once(account: Account) -> None:
    budget = make_budget(account, cost_usd=None, limit_tokens=100, per=["request"])
    send(account, [make_event(id="a", source="z", response_id="r")])
    export_spans(account, [chat_span(1, response_id="r", agent="x")])
    api = Caller(account.api_key)
    held = api.post("/v1/reservations", {"amount_usd": "0.1"}).body["id"]
    settle = {
        "id": "s",
        "response_id": "r",
        "model": "claude-sonnet-4-5",
        "usage": {"input_tokens": 1_000, "output_tokens": 100},
    }
    assert api.post(f"/v1/reservations/{held}/settle", settle).status == 200
    (window,) = [each for each in windows_of(account, budget) if each.spent_requests]
    assert (window.spent_tokens, window.spent_requests) == (1_100, 1)
    with account.scope():
        assert Crossing.objects.filter(tenant=account.tenant).count() == 1


@pytest.mark.parametrize("is_span_first", [True, False])
def test_what_a_reservation_names_is_believed_before_what_a_span_names(
    account: Account, is_span_first: bool
) -> None:
    api = Caller(account.api_key)
    held = api.post("/v1/reservations", {"amount_usd": "1", "team": "growth"}).body["id"]
    settle = {"id": "s", "response_id": "r-1", "input_tokens": 1_000, "output_tokens": 100}

    def send_settle() -> None:
        assert api.post(f"/v1/reservations/{held}/settle", settle).status == 200

    steps = [
        lambda: export_spans(account, [chat_span(1, team="platform", agent="b")]),
        send_settle,
    ]
    for step in steps if is_span_first else reversed(steps):
        step()
    (event,) = events(account)
    assert (event.team, event.agent) == ("growth", "b")


def test_a_span_replaces_no_report_of_a_client(account: Account) -> None:
    budget = make_budget(account)
    api = Caller(account.api_key)
    held = api.post("/v1/reservations", {"amount_usd": "7"}).body["id"]
    span = chat_span(1, response_id=None, tokens=(1, 1))
    settle = {"id": f"{span['traceId']}-{span['spanId']}", "source": "otlp:tests", "cost_usd": "6"}
    assert api.post(f"/v1/reservations/{held}/settle", settle).status == 200
    export_spans(account, [span])
    assert spent(account, budget)["[]"] >= 6_000_000_000


def test_settles_of_one_id_are_all_booked(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    api = Caller(account.api_key)
    for number in range(4):
        held = api.post("/v1/reservations", {"amount_usd": "0.2"}).body["id"]
        settle = {"id": "same", "response_id": f"r-{number}", "cost_usd": "0.2"}
        assert api.post(f"/v1/reservations/{held}/settle", settle).status == 200
    assert spent(account, budget) == {"[]": 800_000_000}


def test_a_void_forgets_no_other_call_of_that_response(account: Account) -> None:
    budget = make_budget(account)
    api = Caller(account.api_key)
    send(account, [make_event(id="a", response_id="r")])
    void = {"id": "a", "source": "tests", "action": "void", "reason": "a test"}
    assert api.post("/v1/corrections", void).status == 200
    other = make_event(id="b", response_id="r", provider="openai", model="gpt-4o", cost_usd="1")
    assert send(account, [other])["accepted"] == 1
    assert spent(account, budget) == {"[]": 1_000_000_000}


def test_a_large_group_does_not_depend_on_the_split(account: Account, stranger: Account) -> None:
    reports = [make_event(id=f"e-{number:02}", response_id="r") for number in range(70)]
    send(account, reports)
    for event in reports:
        send(stranger, [event])
    assert len(events(account)) == len(events(stranger)) == 7


def test_what_never_was_reserved_connects_nothing(account: Account) -> None:
    nowhere = "00000000-0000-7000-8000-000000000000"
    send(
        account,
        [
            make_event(id="a", reservation=nowhere),
            make_event(id="b", source="b", reservation=nowhere),
        ],
    )
    send(account, [make_event(id="c", source="c", reservation=nowhere)])
    assert len(events(account)) == 3


def test_an_identity_that_a_later_report_took_is_found_again(account: Account) -> None:
    """A report in conflict holds no identity in its row; when the row that does is forgotten, a
    later report takes it.
    """
    old = {"provider": "openai", "model": "gpt-4o"}
    send(account, [make_event(id="h", response_id="r", **old)])
    send(account, [make_event(id="m", response_id="r", request_id="q")])
    with account.scope():
        EventKey.objects.filter(tenant=account.tenant, response_key__isnull=False).delete()
        CallReport.objects.filter(tenant=account.tenant, report__contains='"id":"h"').delete()
    send(account, [make_event(id="n", response_id="r", source="n", **old)])
    answer = send(account, [make_event(id="y", source="y", request_id="q", user="u")])
    assert answer["merged"] == 1
