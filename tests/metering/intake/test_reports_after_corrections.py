"""Reports of calls that were voided or replaced: what a person corrected stays, what was counted
beside it stays counted, and every settled reservation keeps its event.
"""

from typing import Any

import pytest

from metering.ledger.opening import with_windows
from metering.models import Budget, Reservation, UsageEvent
from tests.factories import NANOS, Account, make_budget, make_event, send, windows_of
from tests.metering.api.caller import Caller, caller
from tests.metering.exports import chat_span, export_spans

pytestmark = pytest.mark.django_db(transaction=True)

SPAN = {"trace": "1" * 32, "span": "2" * 16}
IN_SPAN = {"source": "in-span", **SPAN}
BY_RESPONSE = {"source": "by-response", "response_id": "r"}
BRIDGE = {"source": "bridge", "response_id": "r", **SPAN}


def reserve(api: Caller, **fields: object) -> str:
    answer = api.post("/v1/reservations", {"amount_usd": "10", **fields})
    assert answer.status == 201, answer.body
    return str(answer.body["id"])


def settle(api: Caller, held: str, cost_usd: str, **fields: object) -> Any:
    body = {"id": "settle", "source": "settles", "cost_usd": cost_usd, **fields}
    answer = api.post(f"/v1/reservations/{held}/settle", body)
    assert answer.status == 200, answer.body
    return answer.body


def void(api: Caller, id_: str, source: str) -> None:
    body = {"id": id_, "source": source, "action": "void", "reason": "a test"}
    assert api.post("/v1/corrections", body).status == 200


def replace(api: Caller, id_: str, source: str, **fields: object) -> None:
    event = {"id": id_, "source": source, **fields}
    body = {"id": id_, "source": source, "action": "replace", "reason": "a test", "event": event}
    answer = api.post("/v1/corrections", body)
    assert answer.status == 200, answer.body


def dollars(account: Account, budget: Budget) -> dict[str, float]:
    return {
        window.group_key: window.spent_nanos / NANOS
        for window in windows_of(account, budget)
        if window.spent_nanos
    }


def events(account: Account) -> list[UsageEvent]:
    with account.scope():
        return list(UsageEvent.objects.filter(is_void=False).order_by("id"))


def settled_with(account: Account, held: str) -> UsageEvent:
    with account.scope():
        event_id = Reservation.objects.values_list("event_id", flat=True).get(id=held)
        assert event_id is not None
        return UsageEvent.objects.get(id=event_id)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_settled_call_stays_when_a_report_connects_it_with_a_corrected_one(
    account: Account, is_replaced: bool
) -> None:
    """The report names the reservation: it tells of the settled call, and so does the callback."""
    budget = make_budget(account, per=["team"])
    api = caller(account)
    send(account, [make_event(id="wrong", cost_usd="1", **IN_SPAN)])
    if is_replaced:
        replace(api, "wrong", "in-span", cost_usd="0.25")
    else:
        void(api, "wrong", "in-span")
    send(account, [make_event(id="seen", cost_usd="3", **BY_RESPONSE)])
    held = reserve(api, team="a")
    settle(api, held, "4")
    answer = send(account, [make_event(id="b", cost_usd="4", reservation=held, **BRIDGE)])
    assert (answer["accepted"], answer["merged"]) == (0, 1)
    corrected = {'[""]': 0.25} if is_replaced else {}
    assert dollars(account, budget) == {'["a"]': 4, **corrected}
    event = settled_with(account, held)
    assert (str(event.reservation_id), event.is_void, event.is_conflict) == (held, False, True)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_what_was_counted_beside_a_corrected_call_stays_counted(
    account: Account, is_replaced: bool
) -> None:
    """A person who voids one of two events that are the same call wants the other one to count."""
    budget = make_budget(account)
    api = caller(account)
    send(account, [make_event(id="wrong", cost_usd="1", **IN_SPAN)])
    send(account, [make_event(id="right", cost_usd="3", **BY_RESPONSE)])
    if is_replaced:
        replace(api, "wrong", "in-span", cost_usd="0.25")
    else:
        void(api, "wrong", "in-span")
    answer = send(account, [make_event(id="b", cost_usd="3", **BRIDGE)])
    assert answer["accepted"] == 0
    assert dollars(account, budget) == {"[]": 3.25 if is_replaced else 3}
    # The event that stays is found by its id as before.
    void(api, "b", "bridge")
    assert dollars(account, budget) == ({"[]": 0.25} if is_replaced else {})


@pytest.mark.parametrize("is_replaced", [False, True])
def test_the_corrected_call_of_a_reservation_is_counted_by_no_later_report(
    account: Account, is_replaced: bool
) -> None:
    budget = make_budget(account, per=["team"])
    api = caller(account)
    held = reserve(api, team="a")
    first = make_event(id="first", source="one", reservation=held, cost_usd="4")
    assert send(account, [first])["accepted"] == 1
    if is_replaced:
        # It goes to the windows that the reservation holds, as what it replaces did.
        replace(api, "first", "one", cost_usd="2", team="b")
    else:
        void(api, "first", "one")
    expected = {'["a"]': 2} if is_replaced else {}
    assert dollars(account, budget) == expected
    later = make_event(id="later", source="two", reservation=held, cost_usd="5")
    assert send(account, [later])["duplicates"] == 1
    settled = [settle(api, held, "6") for _ in range(2)]
    assert [each["cost_usd"] for each in settled] == (["2", "2"] if is_replaced else ["4", "4"])
    assert dollars(account, budget) == expected


def test_what_replaces_a_settle_counts_where_its_reservation_holds(account: Account) -> None:
    budget = make_budget(account, match={"team": "a"})
    everything = make_budget(account)
    api = caller(account)
    held = reserve(api, team="a")
    settle(api, held, "4")
    # A settle's body names no reservation, nor does the one with the right cost.
    replace(api, "settle", "settles", cost_usd="2")
    assert dollars(account, budget) == dollars(account, everything) == {"[]": 2}
    later = make_event(id="later", source="two", reservation=held, cost_usd="5")
    assert send(account, [later])["duplicates"] == 1
    assert dollars(account, budget) == dollars(account, everything) == {"[]": 2}


def test_a_call_that_is_settled_while_its_replacement_is_prepared_stays_the_reservations(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = make_budget(account, match={"team": "a"})
    api = caller(account)
    held = reserve(api, team="a")
    send(account, [make_event(id="seen", cost_usd="3", **BY_RESPONSE)])

    def settle_meanwhile(*arguments: Any) -> object:
        monkeypatch.undo()
        settle(api, held, "4", response_id="r")
        return with_windows(*arguments)

    monkeypatch.setattr("metering.intake.corrections.with_windows", settle_meanwhile)
    replace(api, "seen", "by-response", cost_usd="2")
    assert dollars(account, budget) == {"[]": 2}


def test_a_reservation_is_settled_apart_from_a_call_that_was_corrected_before(
    account: Account,
) -> None:
    """Once, whatever tells of it later, by whichever name."""
    budget = make_budget(account, match={"team": "a"})
    everything = make_budget(account)
    api = caller(account)
    send(account, [make_event(id="wrong", cost_usd="1", **IN_SPAN)])
    void(api, "wrong", "in-span")
    held = reserve(api, team="a")
    settle(api, held, "4", response_id="r", **SPAN)
    by_span = make_event(id="by-span", source="x", cost_usd="4", **SPAN)
    assert send(account, [by_span])["duplicates"] == 1
    for name in (BY_RESPONSE, BRIDGE, {"source": "y", "reservation": held}):
        answer = send(account, [make_event(id="again", cost_usd="4", **name)])
        assert answer["accepted"] == 0, name
    assert dollars(account, budget) == dollars(account, everything) == {"[]": 4}
    assert len(events(account)) == 1


def test_a_replaced_call_that_contradicts_another_one_is_booked_once(account: Account) -> None:
    budget = make_budget(account)
    api = caller(account)
    named = {"response_id": "r", "input_tokens": 10, "output_tokens": 5}
    send(account, [make_event(id="a", cost_usd="1", **named)])
    send(account, [make_event(id="b", cost_usd="2", **named, model="gpt-4o")])
    replace(api, "a", "tests", cost_usd="0.5")
    send(account, [make_event(id="c", source="z", cost_usd="2", **named, model="gpt-4o")])
    assert dollars(account, budget) == {"[]": 2.5}


def test_a_span_told_anew_stays_the_call_of_the_reservation_that_it_settled(
    account: Account,
) -> None:
    budget = make_budget(account, match={"team": "a"})
    api = caller(account)
    held = reserve(api, team="a")
    export_spans(account, [chat_span(1, response_id="r", reservation=held)])
    spent = dollars(account, budget)
    assert spent["[]"] > 0
    export_spans(account, [chat_span(1, response_id="r", agent="x")])
    assert dollars(account, budget) == spent
    (event,) = events(account)
    assert (str(event.reservation_id), event.agent) == (held, "x")


def test_a_span_that_is_told_anew_and_contradicts_its_settle_leaves_the_reservation_its_event(
    account: Account,
) -> None:
    budget = make_budget(account, match={"team": "a"})
    api = caller(account)
    held = reserve(api, team="a")
    span = chat_span(1, response_id="r-1", reservation=held)
    named = {"response_id": "r-1", "trace": span["traceId"], "span": span["spanId"]}
    settle(api, held, "4", **named)
    event_id = settled_with(account, held).id
    for response_id in ("r-1", "r-2"):
        export_spans(account, [chat_span(1, response_id=response_id, reservation=held)])
        assert settled_with(account, held).id == event_id
    # Two responses are two calls, and both name the reservation.
    assert dollars(account, budget) == {"[]": 4.0045}
