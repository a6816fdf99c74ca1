"""Reservations over the API: what is held, settled, given back, refused."""

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.db import connection

from common.json_bodies import JsonObject
from metering.api import fast_path, fast_reservations
from metering.jobs.tasks import expire_reservations
from metering.ledger import holds
from metering.limits import halts
from metering.models import (
    Budget,
    BudgetWindow,
    Decision,
    Halt,
    LedgerEntry,
    LimitIncrease,
    Reservation,
    UsageEvent,
)
from metering.reservations import increase_requests, transaction
from metering.reservations.commands import Reserve
from metering.reservations.committer import PROCESS_ENFORCER
from metering.reservations.request import ReservationBody, ReservationRequest
from metering.reservations.transaction import expire_due
from tenants import keys
from tenants.scope import change_configuration
from tests.cases import each_case
from tests.factories import Account, make_account, make_budget, make_event, send, windows_of
from tests.metering.api.caller import Answer, Caller, caller
from tests.metering.requests import request_of

MODEL = {"provider": "anthropic", "model": "claude-sonnet-4-5"}


def ask(api: Caller, amount_usd: str = "1", **fields: object) -> Answer:
    return api.post("/v1/reservations", {"amount_usd": amount_usd, **fields})


def settle(api: Caller, answer: Answer, cost_usd: str, **fields: object) -> Answer:
    path = f"/v1/reservations/{answer.body['id']}/settle"
    return api.post(path, {"id": f"call-{answer.body['id']}", "cost_usd": cost_usd, **fields})


def balances(account: Account, budget: Budget) -> list[tuple[int, int, int]]:
    """What is spent, reserved and overrun in a budget's windows, in thousandths of a dollar."""
    return [
        (window.spent_nanos // 10**6, window.reserved_nanos // 10**6, window.overrun_nanos // 10**6)
        for window in windows_of(account, budget)
    ]


def expire(account: Account, answer: Answer) -> None:
    """Let a reservation's time be over."""
    with account.scope():
        past = datetime.now(UTC) - timedelta(seconds=1)
        assert Reservation.objects.filter(id=answer.body["id"]).update(expires_at=past) == 1


def rows(account: Account) -> dict[str, list[Any]]:
    """Every row that a refusal must not touch."""
    with account.scope(), connection.cursor() as cursor:
        result = {}
        for table in (
            "budget_window",
            "ledger_entry",
            "reservation",
            "usage_event",
            "rate_counter",
        ):
            cursor.execute(f"SELECT * FROM {table} ORDER BY id")
            result[table] = cursor.fetchall()
        return result


def test_a_reservation_holds_in_every_window_that_the_call_counts_in(account: Account) -> None:
    tenant = make_budget(account, cost_usd=100)
    agent = make_budget(account, cost_usd=10, per=["agent"])
    other = make_budget(account, cost_usd=1, match={"agent": "other"})
    answer = ask(caller(account), "2.5", agent="a")
    assert answer.status == 201
    assert answer.body["decision"] == "allow"
    assert answer.body["reserved_usd"] == "2.5"
    assert [(budget["budget"], budget["remaining_usd"]) for budget in answer.body["budgets"]] == [
        (tenant.id, "97.5"),
        (agent.id, "7.5"),
    ]
    assert balances(account, tenant) == balances(account, agent) == [(0, 2500, 0)]
    assert balances(account, other) == []


def test_the_worst_case_of_the_tokens_is_held(account: Account) -> None:
    make_budget(account)
    tokens = {"input_tokens": 1000, "max_output_tokens": 1000}
    api = caller(account)
    # Without a word of the cache: all of the input may be kept for an hour, at twice its price.
    answer = api.post("/v1/reservations", {**MODEL, **tokens})
    assert (answer.body["reserved_usd"], answer.body["reserved_tokens"]) == ("0.021", 2000)
    plain = api.post("/v1/reservations", {**MODEL, **tokens, "cache_control": "none"})
    assert plain.body["reserved_usd"] == "0.018"
    asked = {"cache_control": {"type": "ephemeral", "ttl": "1h"}, "web_searches": 20, "choices": 2}
    more = api.post("/v1/reservations", {**MODEL, **tokens, **asked})
    assert (more.body["reserved_usd"], more.body["reserved_tokens"]) == ("0.236", 3000)


def test_a_settle_books_the_true_cost_and_gives_the_rest_back(account: Account) -> None:
    budget = make_budget(account)
    api = caller(account)
    answer = ask(api, "1", agent="a", session="s")
    settled = settle(api, answer, "0.25")
    assert settled.status == 200
    expected = {"cost_usd": "0.25", "released_usd": "0.75", "overrun_usd": "0", "late": False}
    assert expected.items() <= settled.body.items()
    assert balances(account, budget) == [(250, 0, 0)]
    with account.scope():
        event = UsageEvent.objects.get()
        # What the event leaves out is taken from the reservation.
        assert (event.agent, event.session) == ("a", "s")
        assert str(event.reservation_id) == answer.body["id"]


def test_the_same_settle_twice_is_answered_alike_and_another_is_refused(account: Account) -> None:
    budget = make_budget(account)
    api = caller(account)
    answer = ask(api)
    first = settle(api, answer, "0.25")
    assert settle(api, answer, "0.25").body == first.body
    assert settle(api, answer, "0.26").code == "already_settled"
    assert settle(api, answer, "0.25", id="another").code == "already_settled"
    assert balances(account, budget) == [(250, 0, 0)]
    with account.scope():
        assert UsageEvent.objects.count() == 1


def test_a_cost_above_the_hold_is_booked_as_overrun(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    settled = settle(api, ask(api, "1"), "1.5")
    assert (settled.body["cost_usd"], settled.body["overrun_usd"]) == ("1.5", "0.5")
    assert settled.body["released_usd"] == "0"
    assert balances(account, budget) == [(1500, 0, 500)]
    assert ask(api, "0.000000001").code == "budget_exceeded"


def test_what_does_not_fit_is_refused_and_moves_nothing(account: Account) -> None:
    tight = make_budget(account, cost_usd=1, per=["agent"])
    make_budget(account, cost_usd=100)
    api = caller(account)
    assert ask(api, "0.75", agent="a").status == 201
    before = rows(account)
    refused = ask(api, "0.26", agent="a")
    assert (refused.status, refused.code) == (402, "budget_exceeded")
    assert [budget["refused"] for budget in refused.body["budgets"]] == [True, False]
    assert rows(account) == before
    with account.scope():
        decision = Decision.objects.get()
    assert (decision.decision, decision.code, decision.asked_nanos) == (
        "refuse",
        "budget_exceeded",
        260_000_000,
    )
    (reason,) = decision.reasons
    assert (reason["budget"], reason["reserved_usd"], reason["asked_usd"]) == (
        tight.id,
        "0.75",
        "0.26",
    )
    assert ask(api, "0.25", agent="a").status == 201


def test_parallel_calls_never_pass_the_limit_together(account: Account) -> None:
    """Calls that read the balance before any of them has held would all pass."""
    budget = make_budget(account, cost_usd=30)
    answers: list[int] = []

    def call() -> None:
        answers.append(ask(caller(account), "1").status)
        connection.close()

    threads = [threading.Thread(target=call) for _ in range(99)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(answers) == {201: 30, 402: 69}
    assert balances(account, budget) == [(0, 30_000, 0)]


def test_two_processes_never_pass_the_limit_together(account: Account) -> None:
    """Batches of different processes meet in the database alone; here each call is a batch."""
    budget = make_budget(account, cost_usd=10)
    batches = [_own_batch(account) for _ in range(40)]
    threads = [threading.Thread(target=run) for run, _ in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [command.error for _, command in batches]
    assert sum(error is None for error in errors) == 10
    assert balances(account, budget) == [(0, 10_000, 0)]


def _own_batch(account: Account) -> tuple[Any, Any]:
    body = ReservationBody(amount_usd="1")
    request = ReservationRequest(body, key_prefix="", at=datetime.now(UTC))
    command = Reserve(account.tenant.id, request, ttl_seconds=60)

    def run() -> None:
        transaction.run_batch(account.tenant.id, [command])
        connection.close()

    return run, command


def test_the_first_call_of_a_new_user_meets_its_limit(account: Account) -> None:
    make_budget(account, cost_usd=1, per=["user"])
    api = caller(account)
    assert ask(api, "1.01", user="new").code == "budget_exceeded"
    assert ask(api, "1", user="new").status == 201


def test_leaving_out_a_dimension_escapes_nothing(account: Account) -> None:
    budget = make_budget(account, cost_usd=1, per=["session"])
    api = caller(account)
    assert ask(api, "0.6").status == 201
    assert ask(api, "0.6").code == "budget_exceeded"
    assert [window.group_key for window in windows_of(account, budget)] == ['[""]']


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({"limit_tokens": 100}, {**MODEL, "input_tokens": 60, "max_output_tokens": 41}),
        ({"limit_cost_nanos": 10**6}, {"amount_usd": "0.0011"}),
    ],
)
def test_each_single_call_has_limits_of_its_own(
    account: Account, limits: JsonObject, asked: JsonObject
) -> None:
    make_budget(account, cost_usd=None, per=["request"], period="lifetime", **limits)
    api = caller(account)
    refused = api.post("/v1/reservations", asked)
    assert refused.code == "budget_exceeded"
    smaller = {"amount_usd": "0.0009"}
    assert api.post("/v1/reservations", smaller).status == 201
    assert api.post("/v1/reservations", smaller).status == 201


def test_a_single_call_lasts_no_longer_than_its_budget_allows(account: Account) -> None:
    make_budget(account, cost_usd=None, per=["request"], period="lifetime", limit_seconds=60)
    api = caller(account)
    answer = ask(api, "1", ttl_seconds=3600)
    with account.scope():
        row = Reservation.objects.get()
        assert (row.expires_at - row.created_at).total_seconds() == 60
        Reservation.objects.update(created_at=row.created_at - timedelta(seconds=61))
    holds.forget_held()
    path = f"/v1/reservations/{answer.body['id']}/extend"
    assert api.post(path, {"ttl_seconds": 60}).code == "budget_exceeded"


def test_a_session_is_limited_in_requests_tool_calls_and_seconds(account: Account) -> None:
    make_budget(
        account,
        cost_usd=None,
        per=["session"],
        period="lifetime",
        limit_requests=2,
        limit_tool_calls=1,
        limit_seconds=60,
    )
    api = caller(account)
    assert ask(api, "0", session="s").status == 201
    assert ask(api, "0", session="s").status == 201
    assert ask(api, "0", session="s").code == "budget_exceeded"
    assert api.post("/v1/reservations", {"tool": "search", "session": "t"}).status == 201
    assert api.post("/v1/reservations", {"tool": "search", "session": "t"}).status == 402
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("UPDATE budget_window SET first_used_at = now() - interval '61 s'")
    late = ask(api, "0", session="t")
    assert late.code == "budget_exceeded"
    assert "61 s" in late.body["detail"]


def test_a_released_hold_is_free_again_and_only_once(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    answer = ask(api, "1")
    path = f"/v1/reservations/{answer.body['id']}/release"
    released = api.post(path)
    assert (released.body["status"], released.body["released_usd"]) == ("released", "1")
    assert api.post(path).body == released.body
    assert balances(account, budget) == [(0, 0, 0)]
    assert ask(api, "1").status == 201


def test_what_was_settled_cannot_be_released_or_extended(account: Account) -> None:
    make_budget(account)
    api = caller(account)
    answer = ask(api)
    settle(api, answer, "0.5")
    path = f"/v1/reservations/{answer.body['id']}"
    assert api.post(f"{path}/release").code == "already_settled"
    assert api.post(f"{path}/extend", {"ttl_seconds": 10}).code == "already_settled"


def test_an_expired_hold_blocks_nobody(account: Account) -> None:
    """A cancelled stream leaves a hold behind; it must not keep others out."""
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    lost = ask(api, "1", ttl_seconds=1)
    expire(account, lost)
    assert api.get("/v1/balances").body["budgets"][0]["remaining_usd"] == "1"
    assert api.get(f"/v1/reservations/{lost.body['id']}").body["status"] == "expired"
    assert ask(api, "1").status == 201
    assert balances(account, budget) == [(0, 1000, 0)]
    with account.scope():
        assert Reservation.objects.get(id=lost.body["id"]).get_state_display() == "expired"


def test_holds_expire_without_anybody_asking(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    expire(account, ask(caller(account), "1"))
    assert expire_reservations() == 1
    assert expire_due(account.tenant.id) == 0
    assert balances(account, budget) == [(0, 0, 0)]


@pytest.mark.parametrize("is_swept", [True, False])
def test_a_settle_after_expiry_is_booked_as_late(account: Account, is_swept: bool) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    answer = ask(api, "1")
    expire(account, answer)
    if is_swept:
        assert expire_due(account.tenant.id) == 1
    late = settle(api, answer, "0.75")
    expected = {"cost_usd": "0.75", "late": True, "overrun_usd": "0", "released_usd": "0"}
    assert expected.items() <= late.body.items()
    assert settle(api, answer, "0.75").body == late.body
    # Nothing was held for it any more, so all of it may be beyond the limit.
    assert balances(account, budget) == [(750, 0, 750)]


def test_a_settle_after_a_release_is_booked_as_late(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    answer = ask(api, "1")
    api.post(f"/v1/reservations/{answer.body['id']}/release")
    assert settle(api, answer, "0.75").body["late"] is True
    assert balances(account, budget) == [(750, 0, 750)]


def test_an_extension_keeps_the_hold_and_what_has_expired_stays_so(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    answer = ask(api, "1", ttl_seconds=1)
    path = f"/v1/reservations/{answer.body['id']}/extend"
    extended = api.post(path, {"ttl_seconds": 3600})
    assert extended.status == 200
    assert extended.body["expires_at"] > answer.body["expires_at"]
    assert balances(account, budget) == [(0, 1000, 0)]
    expire(account, answer)
    assert api.post(path, {"ttl_seconds": 10}).code == "reservation_expired"


def test_an_event_with_a_reservation_settles_it(account: Account) -> None:
    budget = make_budget(account, cost_usd=1, per=["agent"])
    api = caller(account)
    answer = ask(api, "1", agent="a")
    event = {"id": "e", "cost_usd": "0.25", "reservation": answer.body["id"]}
    assert api.post("/v1/events", event).body["accepted"] == 1
    assert balances(account, budget) == [(250, 0, 0)]
    assert api.get(f"/v1/reservations/{answer.body['id']}").body["cost_usd"] == "0.25"
    # The same event by the other way is the same settle.
    again = settle(api, answer, "0.25", id="e")
    assert again.body["cost_usd"] == "0.25"
    assert balances(account, budget) == [(250, 0, 0)]


def test_a_second_event_of_a_reservation_is_usage_beyond_the_hold(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    answer = ask(api, "0.5")
    for name in ("one", "two"):
        event = {"id": name, "cost_usd": "0.5", "reservation": answer.body["id"]}
        assert api.post("/v1/events", event).body["accepted"] == 1
    assert balances(account, budget) == [(1000, 0, 500)]


def test_a_call_that_was_reported_before_settles_without_counting_twice(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    answer = ask(api, "0.5")
    call = {"cost_usd": "0.25", "response_id": "r", **MODEL}
    assert api.post("/v1/events", {"id": "seen", **call}).body["accepted"] == 1
    assert settle(api, answer, **call).body["cost_usd"] == "0.25"
    assert balances(account, budget) == [(250, 0, 0)]


def test_the_cost_goes_to_the_windows_that_are_held_whatever_the_event_says(
    account: Account,
) -> None:
    budget = make_budget(account, per=["agent"])
    late = make_budget(account, per=["model"])
    api = caller(account)
    answer = ask(api, "1", agent="a", model="m-1", provider="p")
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    made_since = make_budget(account, per=["agent"], period="lifetime")
    settle(api, answer, "0.5", agent="b", model="m-2", time=yesterday)
    assert [window.group_key for window in windows_of(account, budget)] == ['["a"]']
    assert [window.group_key for window in windows_of(account, late)] == ['["m-1"]']
    # A budget that the reservation knows nothing of goes by the event.
    assert [window.group_key for window in windows_of(account, made_since)] == ['["b"]']
    assert balances(account, budget) == balances(account, late) == [(500, 0, 0)]
    # Nothing was held there, so what is booked may be beyond its limit.
    assert balances(account, made_since) == [(500, 0, 500)]


def test_a_budget_that_changes_meanwhile_counts_what_is_settled(account: Account) -> None:
    budget = make_budget(account, per=["agent"])
    api = caller(account)
    answer = ask(api, "1", agent="a")
    assert api.patch(f"/v1/budgets/{budget.id}", {"per": ["agent", "user"]}).status == 200
    settle(api, answer, "0.5", user="u")
    (window,) = windows_of(account, budget)
    assert (window.group_key, window.spent_nanos) == ('["a","u"]', 500_000_000)


def test_a_settled_event_can_be_corrected_where_it_counts(account: Account) -> None:
    budget = make_budget(account, per=["agent"])
    api = caller(account)
    answer = ask(api, "1", agent="a")
    settle(api, answer, "0.5", agent="b", id="wrong", source="s")
    voided = {"id": "wrong", "source": "s", "action": "void", "reason": "a test"}
    assert api.post("/v1/corrections", voided).status == 200
    assert balances(account, budget) == [(0, 0, 0)]


def test_a_model_without_a_price_follows_the_policy(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    body = {"model": "nobody-knows", "input_tokens": 1_000_000, "max_output_tokens": 0}
    assert api.post("/v1/reservations", body).code == "unpriced"
    rates = {"input_per_mtok_usd": "0.4", "output_per_mtok_usd": "1"}
    changed = api.patch("/v1/settings", {"unpriced_policy": "assume", "assumed_rates": rates})
    assert changed.status == 200
    answer = api.post("/v1/reservations", body)
    assert answer.body["reserved_usd"] == "0.4"
    path = f"/v1/reservations/{answer.body['id']}/settle"
    tokens = {"input_tokens": 2_000_000, "output_tokens": 0}
    assert api.post(path, {"id": "e", **tokens}).body["cost_usd"] == "0.8"
    assert api.post("/v1/reservations", body).code == "budget_exceeded"
    assert api.patch("/v1/settings", {"unpriced_policy": "allow"}).status == 200
    assert api.post("/v1/reservations", body).status == 201
    assert balances(account, budget) == [(800, 0, 400)]


def test_without_a_budget_on_cost_no_price_is_needed(account: Account) -> None:
    make_budget(account, cost_usd=None, limit_requests=1)
    body = {"model": "nobody-knows", "input_tokens": 10, "max_output_tokens": 10}
    assert caller(account).post("/v1/reservations", body).status == 201


def test_a_call_that_a_price_has_no_rate_for_follows_the_policy(account: Account) -> None:
    budget = make_budget(account, cost_usd=None, limit_cost_nanos=10_000_000)
    api = caller(account)
    body = {"provider": "openai", "model": "tts-1"}
    tokens = {"input_tokens": 50_000_000, "max_output_tokens": 0}
    refused = api.post("/v1/reservations", {**body, **tokens})
    assert refused.code == "unpriced"
    assert "'tts-1' has no rate for input_tokens" in refused.body["detail"]
    whole = api.post("/v1/reservations", {**body, "units": {"input_characters": 50_000_000}})
    assert whole.code == "budget_exceeded"
    some = api.post("/v1/reservations", {**body, "units": {"input_characters": 500}})
    assert some.body["reserved_usd"] == "0.0075"
    path = f"/v1/reservations/{some.body['id']}/settle"
    settled = api.post(path, {"id": "e", "usage": {"input_characters": 400}})
    assert settled.body["cost_usd"] == "0.006"
    assert balances(account, budget) == [(6, 0, 0)]


def test_an_amount_of_nothing_is_no_way_past_a_limit(account: Account) -> None:
    budget = make_budget(account, cost_usd=None, limit_cost_nanos=30_000_000)
    api = caller(account)
    tokens = {"input_tokens": 1000, "max_output_tokens": 1000}
    # What the call says of its size is held, whatever amount stands beside it.
    for amount in ("0", "0.000000001"):
        held = ask(api, amount, **MODEL, **tokens)
        assert held.body["reserved_usd"] == "0.021"
        assert ask(api, amount, **MODEL, **tokens).code == "budget_exceeded"
        api.post(f"/v1/reservations/{held.body['id']}/release", {})
    # Without a size nobody knows what it costs.
    unknown = ask(api, "0", **MODEL)
    assert unknown.code == "unpriced"
    assert "an amount of $0 holds nothing" in unknown.body["detail"]
    assert ask(api, "0").code == "unpriced"
    assert ask(api, "0", **MODEL, units={"web_searches": 0}).code == "unpriced"
    # A tool is free, until the window is full.
    assert ask(api, "0", tool="search").status == 201
    settle(api, ask(api, "0.03"), "0.03")
    for fields in ({"tool": "search"}, {**MODEL, "input_tokens": 0, "max_output_tokens": 0}):
        assert ask(api, "0", **fields).code == "budget_exceeded"
    empty = {**MODEL, "input_tokens": 0, "max_output_tokens": 0}
    assert api.post("/v1/reservations", empty).code == "budget_exceeded"
    assert balances(account, budget) == [(30, 0, 0)]


@pytest.mark.parametrize("mode", ["shadow", "warn"])
def test_a_budget_that_does_not_act_records_what_it_would_have_done(
    account: Account, mode: str
) -> None:
    budget = make_budget(account, cost_usd=1, mode=mode)
    api = caller(account)
    answer = ask(api, "2")
    assert (answer.status, answer.body["decision"]) == (201, "allow")
    assert [each["code"] for each in answer.body["warnings"]] == (
        ["block"] if mode == "warn" else []
    )
    assert balances(account, budget) == [(0, 2000, 0)]
    with account.scope():
        decision = Decision.objects.get()
    assert (decision.decision, str(decision.reservation_id)) == ("allow", answer.body["id"])
    assert [each["mode"] for each in decision.reasons] == [mode]


def test_a_level_that_locks_out_halts_the_group_until_somebody_lifts_it(account: Account) -> None:
    make_budget(account, cost_usd=1, per=["agent"], levels=[(100, "block"), (120, "lockout")])
    api = caller(account)
    assert ask(api, "1.1", agent="a").code == "budget_exceeded"
    refused = ask(api, "1.3", agent="a")
    assert (refused.status, refused.code) == (423, "locked_out")
    assert ask(api, "0.1", agent="a").code == "locked_out"
    assert ask(api, "0.1", agent="b").status == 201
    with account.scope():
        halt = Halt.objects.get()
    assert (halt.kind, halt.match) == ("lockout", {"agent": "a"})
    assert api.delete(f"/v1/halts/{halt.id}").status == 204
    # Lifted is lifted: the level locks the window no second time, but still blocks.
    assert ask(api, "1.3", agent="a").code == "budget_exceeded"
    assert ask(api, "0.1", agent="a").status == 201


def test_a_lockout_by_a_call_that_asked_too_much_ends_with_a_higher_limit(account: Account) -> None:
    levels = [(100, "block"), (120, "lockout")]
    budget = make_budget(account, cost_usd=1, per=["agent"], levels=levels)
    api = caller(account)
    assert ask(api, "1.3", agent="a").code == "locked_out"
    for usd, code in (("0.9", "locked_out"), ("2", "allow")):
        assert api.patch(f"/v1/budgets/{budget.id}", {"limit": {"cost_usd": usd}}).status == 200
        answer = ask(api, "0.1", agent="a")
        assert (answer.code if answer.status != 201 else "allow") == code
    # Its cause was gone, so the level may lock out again.
    assert ask(api, "2.4", agent="a").code == "locked_out"
    with account.scope():
        first, second = Halt.objects.order_by("id")
        assert (first.lifted_by, second.lifted_at) == ("a budget's level", None)
        assert second.ends_at == windows_of(account, budget)[0].ends_at


def test_what_is_used_includes_the_time_everywhere(account: Account) -> None:
    limits: JsonObject = {"cost_usd": 10, "limit_seconds": 100, "levels": [(400, "block")]}
    budget = make_budget(account, per=["session"], period="lifetime", **limits)
    api = caller(account)
    first = ask(api, "1", session="s")
    assert first.body["budgets"][0]["used_percent"] == 0
    with account.scope():
        BudgetWindow.objects.update(first_used_at=datetime.now(UTC) - timedelta(seconds=150))
    asked = ask(api, "1", session="s")
    balance = api.get("/v1/balances", session="s")
    window = api.get(f"/v1/budgets/{budget.id}/windows").body["data"][0]
    used = [
        asked.body["budgets"][0]["used_percent"],
        balance.body["budgets"][0]["used_percent"],
        window["used_percent"],
    ]
    assert all(150 <= percent < 170 for percent in used), used


def test_what_is_due_goes_by_the_clock_of_the_database_alone(account: Account) -> None:
    budget = make_budget(account, cost_usd=10)
    api = caller(account)
    ask(api, "1")
    with account.scope():
        Reservation.objects.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    # An application whose clock is behind gives back what is due, once.
    with time_machine.travel(datetime.now(UTC) - timedelta(minutes=1), tick=False):
        assert expire_due(account.tenant.id) == 1
        assert expire_due(account.tenant.id) == 0
    assert balances(account, budget) == [(0, 0, 0)]


def test_a_level_that_holds_asks_the_database_once(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = make_budget(account, cost_usd=1, levels=[(100, "hold")])
    api = caller(account)
    assert ask(api, "2").code == "approval_needed"
    with monkeypatch.context() as watched:
        watched.setattr(increase_requests, "ask_for_increase", None)
        assert ask(api, "2").code == "approval_needed"
    (raised,) = api.get(f"/v1/budgets/{budget.id}/raises").body["data"]
    api.post(f"/v1/budgets/{budget.id}/raises/{raised['id']}/approve")
    assert ask(api, "2").status == 201
    # What was approved is used: the level asks anew.
    assert ask(api, "2").code == "approval_needed"
    result = api.get(f"/v1/budgets/{budget.id}/raises").body["data"]
    assert [row["status"] for row in result] == ["asked", "approved"]


def test_usage_that_reaches_a_lockout_halts_as_well(account: Account) -> None:
    make_budget(account, cost_usd=1, per=["agent"], levels=[(120, "lockout")])
    send(account, [make_event(agent="a", cost_usd="1.2")])
    assert ask(caller(account), "0", agent="a").code == "locked_out"


def test_a_level_that_throttles_lets_a_minutes_worth_through(account: Account) -> None:
    budget = {
        "name": "throttled",
        "period": "month",
        "limit": {"cost_usd": "10"},
        "levels": [
            {
                "percent": 50,
                "action": "throttle",
                "throttle": {"cost_usd_per_minute": "1"},
            },
            {"percent": 100, "action": "block"},
        ],
    }
    api = caller(account)
    assert api.post("/v1/budgets", budget).status == 201
    assert ask(api, "5").status == 201
    assert ask(api, "0.6").status == 201
    before = rows(account)
    refused = ask(api, "0.6")
    assert (refused.status, refused.code) == (429, "throttled")
    assert 1 <= refused.body["retry_after_seconds"] <= 61
    assert rows(account) == before
    assert ask(api, "0.4").status == 201


def test_a_level_that_downgrades_names_the_cheaper_model(account: Account) -> None:
    budget = make_budget(
        account, cost_usd=1, levels=[(50, "downgrade"), (100, "block")], per=["agent"]
    )
    api = caller(account)
    tiers = [
        {"provider": "anthropic", "model": "claude-haiku-4-5", "max_complexity": 4},
        {"provider": "anthropic", "model": "claude-opus-4-1", "max_complexity": None},
    ]
    assert api.post("/v1/routes", {"name": "all", "tiers": tiers}).status == 201
    body = {
        "provider": "anthropic",
        "model": "claude-opus-4-1",
        "agent": "a",
        "complexity": 2,
        "input_tokens": 10_000,
        "max_output_tokens": 6_000,
        "cache_control": "none",
    }
    first = api.post("/v1/reservations", body)
    assert (first.body["decision"], first.body["reserved_usd"]) == ("downgrade", "0.04")
    assert first.body["model"] == "claude-haiku-4-5"
    assert first.body["requested_model"] == "claude-opus-4-1"
    tokens = {"input_tokens": 10_000, "output_tokens": 6_000}
    api.post(f"/v1/reservations/{first.body['id']}/settle", {"id": "e", **tokens})
    with account.scope():
        event = UsageEvent.objects.get()
        decision = Decision.objects.get()
    # 0.6 USD with the best model of the route.
    assert (event.model, event.cost_nanos, event.saved_nanos) == (
        "claude-haiku-4-5",
        40_000_000,
        560_000_000,
    )
    assert (decision.decision, decision.saved_nanos) == ("downgrade", 560_000_000)
    assert balances(account, budget) == [(40, 0, 0)]


def test_a_level_that_holds_asks_a_person_once(account: Account) -> None:
    budget = make_budget(account, cost_usd=1, levels=[(100, "hold")])
    api = caller(account)
    assert ask(api, "2").code == "approval_needed"
    assert ask(api, "2").code == "approval_needed"
    raises = api.get(f"/v1/budgets/{budget.id}/raises").body["data"]
    assert [(increase["status"], increase["by"]["cost_usd"]) for increase in raises] == [
        ("asked", "2")
    ]
    path = f"/v1/budgets/{budget.id}/raises/{raises[0]['id']}/approve"
    assert api.post(path).status == 200
    assert ask(api, "2").status == 201
    assert balances(account, budget) == [(0, 2000, 0)]


def test_a_raise_counts_until_it_ends(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    wish = {"by": {"cost_usd": "1"}, "duration_seconds": 60, "reason": "release day"}
    asked = api.post(f"/v1/budgets/{budget.id}/raises", wish)
    assert ask(api, "1.5").status == 402
    assert api.post(f"/v1/budgets/{budget.id}/raises/{asked.body['id']}/approve").status == 200
    granted = ask(api, "1.5")
    assert granted.body["budgets"][0]["limit_usd"] == "2"
    with account.scope():
        LimitIncrease.objects.update(ends_at=datetime.now(UTC))
        change_configuration(account.tenant.id)
    assert ask(api, "0.1").status == 402


def test_a_halt_stops_asking_and_extending_but_never_settling(account: Account) -> None:
    budget = make_budget(account)
    api = caller(account)
    running = ask(api, "1", agent="a")
    halt = api.post("/v1/halts", {"match": {"agent": "a"}, "reason": "runs away"})
    assert halt.status == 201
    before = rows(account)
    refused = ask(api, "1", agent="a")
    assert (refused.status, refused.code) == (423, "halted")
    path = f"/v1/reservations/{running.body['id']}"
    assert api.post(f"{path}/extend", {"ttl_seconds": 60}).code == "halted"
    assert rows(account) == before
    assert ask(api, "1", agent="b").status == 201
    assert settle(api, running, "0.5").status == 200
    assert balances(account, budget) == [(500, 1000, 0)]
    assert api.delete(f"/v1/halts/{halt.body['id']}").status == 204


def test_a_rate_limit_holds_and_a_refusal_takes_nothing_of_it(account: Account) -> None:
    make_budget(account, cost_usd=1, per=["agent"])
    api = caller(account)
    limit = {"name": "slow", "per": ["agent"], "limit": {"requests_per_minute": 2}}
    assert api.post("/v1/rate-limits", limit).status == 201
    assert ask(api, "2", agent="a").status == 402
    assert ask(api, "0.1", agent="a").status == 201
    assert ask(api, "0.1", agent="a").status == 201
    refused = ask(api, "0.1", agent="a")
    assert (refused.status, refused.code) == (429, "throttled")
    assert ask(api, "0.1", agent="b").status == 201


def test_an_idempotency_key_gets_the_same_answer_and_holds_once(account: Account) -> None:
    budget = make_budget(account)
    api = caller(account)
    body = {"amount_usd": "1", "agent": "a"}
    first = api.post("/v1/reservations", body, Idempotency_Key="k")
    again = api.post("/v1/reservations", body, Idempotency_Key="k")
    assert (again.status, again.body) == (201, first.body)
    other = api.post("/v1/reservations", {**body, "amount_usd": "2"}, Idempotency_Key="k")
    assert other.code == "idempotency_conflict"
    assert balances(account, budget) == [(0, 1000, 0)]


def test_a_refusal_leaves_its_key_free(account: Account) -> None:
    budget = make_budget(account, cost_usd=1)
    api = caller(account)
    holding = ask(api, "1")
    body = {"amount_usd": "1"}
    assert api.post("/v1/reservations", body, Idempotency_Key="k").status == 402
    api.post(f"/v1/reservations/{holding.body['id']}/release")
    assert api.post("/v1/reservations", body, Idempotency_Key="k").status == 201
    assert balances(account, budget) == [(0, 1000, 0)]


def test_an_error_of_one_caller_fails_no_other(account: Account) -> None:
    """Callers that arrive together share a transaction, whatever becomes of each."""
    make_budget(account, cost_usd=5)
    api = caller(account)
    open_ = ask(api, "1")
    answers: dict[str, Answer] = {}
    calls = {
        "fits": lambda: ask(caller(account), "1"),
        "too much": lambda: ask(caller(account), "9"),
        "unknown": lambda: caller(account).post(f"/v1/reservations/{uuid4()}/release"),
        "settles": lambda: settle(caller(account), open_, "0.5"),
        "wrong": lambda: settle(caller(account), open_, "-1"),
    }

    def run(name: str) -> None:
        answers[name] = calls[name]()
        connection.close()

    threads = [threading.Thread(target=run, args=(name,)) for name in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: answer.status for name, answer in answers.items()} == {
        "fits": 201,
        "too much": 402,
        "unknown": 404,
        "settles": 200,
        "wrong": 400,
    }


def test_a_known_halt_refuses_without_asking_the_database(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = caller(account)
    assert ask(api, "0", agent="a").status == 201
    halt = api.post("/v1/halts", {"match": {"agent": "a"}, "reason": "runs away"})
    assert halt.status == 201
    with account.scope(), connection.cursor() as cursor:
        halts.read_halts(cursor, account.tenant.id)

    def hang(*arguments: object) -> None:
        raise AssertionError("the database is asked")

    monkeypatch.setattr(keys, "_read_key", hang)
    monkeypatch.setattr(PROCESS_ENFORCER, "enqueue", hang)
    forget = {"authorization": account.headers["Authorization"], "content-type": "application/json"}
    request = request_of(forget, b'{"amount_usd": "1", "agent": "a"}')
    assert fast_path.run(fast_reservations.handle_reserve(request)).status == 423


def test_another_tenant_sees_no_reservation(account: Account, stranger: Account) -> None:
    budget = make_budget(account)
    answer = ask(caller(account))
    api = caller(stranger)
    path = f"/v1/reservations/{answer.body['id']}"
    assert api.get(path).status == 404
    for action in ("settle", "release", "extend"):
        body = {"id": "x", "cost_usd": "1"} if action == "settle" else {}
        assert api.post(f"{path}/{action}", body).status == 404
    event = {"id": "x", "cost_usd": "1", "reservation": answer.body["id"]}
    assert api.post("/v1/events", event).body["accepted"] == 1
    assert balances(account, budget) == [(0, 1000, 0)]


@each_case(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_request"),
        ({"input_tokens": 5, "model": "m"}, 400, "invalid_request"),
        ({"input_tokens": 5, "max_output_tokens": 5}, 400, "invalid_request"),
        ({"amount_usd": "-1"}, 400, "invalid_request"),
        ({"amount_usd": "1e99"}, 400, "invalid_request"),
        ({"amount_usd": "1", "ttl_seconds": 0}, 400, "invalid_request"),
        ({"amount_usd": "1", "ttl_seconds": 3601}, 400, "invalid_request"),
        ({"amount_usd": "1", "agent": ""}, 400, "invalid_request"),
        ({"amount_usd": "1", "agent": "a\x00b"}, 400, "invalid_request"),
        ({"amount_usd": "1", "colour": "red"}, 400, "invalid_request"),
        ({"amount_usd": "1_0"}, 400, "invalid_request"),
        ({"amount_usd": "\uff11"}, 400, "invalid_request"),
        ({"units": {"input_characters": 5}}, 400, "invalid_request"),
        ({"units": {"dreams": 5}, "model": "m"}, 400, "invalid_request"),
        ({"units": {"output_images": -1}, "model": "m"}, 400, "invalid_request"),
        ({"amount_usd": "1", "cache_control": "forever"}, 400, "invalid_request"),
        ({"amount_usd": "1", "modalities": ["smell"]}, 400, "invalid_request"),
        ([], 400, "invalid_request"),
    ],
)
def test_what_is_no_ask_is_refused_clearly(
    account: Account, body: object, status: int, code: str
) -> None:
    answer = caller(account).post("/v1/reservations", body)
    assert (answer.status, answer.code) == (status, code)
    with account.scope():
        assert not Reservation.objects.exists()
        assert not LedgerEntry.objects.exists()


def test_a_key_without_the_scope_asks_for_nothing(account: Account) -> None:
    made = caller(account).post("/v1/keys", {"name": "reader", "scopes": ["read"]})
    api = Caller(made.body["key"])
    assert ask(api).status == 403
    assert api.get("/v1/balances").status == 200
    assert Caller(None).post("/v1/reservations", {"amount_usd": "1"}).status == 401


def test_balances_show_windows_that_nobody_used_yet(account: Account) -> None:
    budget = make_budget(account, cost_usd=5, per=["session"])
    answer = caller(account).get("/v1/balances", session="new")
    (room,) = answer.body["budgets"]
    assert (room["remaining_usd"], room["group"]) == ("5", {"session": "new"})
    assert windows_of(account, budget) == []


def test_tenants_do_not_share_batches(account: Account) -> None:
    other = make_account()
    make_budget(account, cost_usd=1)
    assert ask(caller(account), "2").status == 402
    assert ask(caller(other), "2").status == 201
