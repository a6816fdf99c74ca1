"""Simulations over HTTP: what a proposal would have refused and saved, and who may ask."""

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.json_bodies import JsonObject
from common.money import usd_from_nanos
from config.celery import application
from metering.configuration.budgets import archive_budget
from metering.core import event_stretches
from metering.jobs.tasks import age_rolling_windows, run_simulations
from metering.models import Budget, BudgetWindow, Crossing, Decision, Halt, Simulation
from metering.simulation import store
from tenants.keys import forget_known_keys
from tests.cases import each_case
from tests.factories import NANOS, Account, make_account, make_budget, make_event, send
from tests.metering.api.caller import Caller, caller

# Yesterday at noon, so that nothing of it depends on the time of day.
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
DAILY: JsonObject = {"name": "Daily", "period": "day", "limit": {"cost_usd": "10"}}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def spend(account: Account, *calls: tuple[float, str], **fields: object) -> None:
    """Report calls as (minutes after noon, dollars)."""
    events = [
        make_event(
            **{"time": (NOON + timedelta(minutes=minutes)).isoformat(), "cost_usd": usd, **fields}
        )
        for minutes, usd in calls
    ]
    assert send(account, events)["accepted"] == len(events)


def simulate(api: Caller, **members: object) -> JsonObject:
    answer = api.post("/v1/simulations", {"from": moment(-720), "to": moment(720), **members})
    assert answer.status == 201, answer.body
    result: JsonObject = answer.body
    return result


def moment(minutes: float) -> str:
    return (NOON + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def test_a_budget_that_is_proposed_is_replayed_and_nothing_is_changed(
    account: Account, api: Caller
) -> None:
    spend(account, (0, "6"), (1, "5"), (2, "3"), agent="a")
    spend(account, (3, "9"), agent="b")
    body = {"budget": {**DAILY, "per": ["agent"]}, "from": moment(-720), "to": moment(720)}
    answer = api.post("/v1/simulations", body)
    assert answer.status == 201
    shown = answer.body
    assert (shown["status"], shown["from"], shown["to"]) == ("done", moment(-720), moment(720))
    assert shown["proposal"] == {"budget": body["budget"]}
    result = shown["result"]
    assert {name: result[name] for name in ("calls", "cost_usd", "would_have_cost_usd")} == {
        "calls": 4,
        "cost_usd": "23",
        "would_have_cost_usd": "18",
    }
    assert result["refused"] == {"calls": 1, "cost_usd": "5", "tokens": 1100}
    assert (result["saved_usd"], result["first_refusal_at"]) == ("5", moment(1))
    assert result["groups"] == [
        {
            "group": {"agent": "a"},
            "calls": 3,
            "refused": 1,
            "saved_usd": "5",
            "first_refused_at": moment(1),
            "lockout_at": None,
        }
    ]
    assert result["levels"] == [{"percent": 100, "action": "block", "crossed": 0}]
    assert "A refused call is not made again" in " ".join(result["assumptions"])
    assert "compared_with" not in result
    assert api.get(f"/v1/simulations/{shown['id']}").body == shown
    with account.scope():
        for model in (Budget, BudgetWindow, Crossing, Decision, Halt):
            assert not model._default_manager.exists()


def test_a_change_is_compared_with_the_budget_in_force(account: Account, api: Caller) -> None:
    budget = make_budget(account, cost_usd=10, period="day", levels=[(50, "none"), (100, "block")])
    spend(account, (0, "6"), (1, "5"), (2, "3"))
    changes = {"limit": {"cost_usd": "12"}}
    shown = simulate(api, budget_id=budget.id, changes=changes)
    assert shown["proposal"] == {"budget_id": budget.id, "changes": changes}
    result = shown["result"]
    assert (result["refused"]["calls"], result["saved_usd"]) == (1, "3")
    assert [level["crossed"] for level in result["levels"]] == [1, 0]
    present = result["compared_with"]
    assert (present["budget_id"], present["name"]) == (budget.id, budget.name)
    assert (present["refused"]["calls"], present["saved_usd"]) == (1, "5")
    as_it_is = simulate(api, budget_id=budget.id)["result"]
    assert as_it_is["saved_usd"] == "5"
    with account.scope():
        assert Budget.objects.get().limit_cost_nanos == 10 * NANOS


def test_a_budget_in_shadow_is_shown_as_it_would_act_beside_what_it_does(
    account: Account, api: Caller
) -> None:
    budget = make_budget(account, cost_usd=1, period="day", mode="shadow")
    spend(account, (0, "1"), (1, "2"))
    result = simulate(api, budget_id=budget.id, changes={"mode": "enforce"})["result"]
    assert result["saved_usd"] == "2"
    assert result["compared_with"]["mode"] == "shadow"
    assert result["compared_with"]["saved_usd"] == "0"
    proposed = simulate(api, budget={**DAILY, "limit": {"cost_usd": "1"}, "mode": "shadow"})
    assert proposed["result"]["saved_usd"] == "2"
    assert "It is in mode 'shadow'" in " ".join(proposed["result"]["assumptions"])


def test_a_window_that_began_before_the_period_has_spent_what_it_had(
    account: Account, api: Caller
) -> None:
    spend(account, (0, "6"), (60, "3"), (61, "2"), (62, "1"))
    result = simulate(api, budget=DAILY, **{"from": moment(30)})["result"]
    assert (result["calls"], result["cost_usd"], result["saved_usd"]) == (3, "6", "2")
    # Before, it counts but is not judged: all of the limit is gone by then.
    result = simulate(api, budget={**DAILY, "limit": {"cost_usd": "5"}}, **{"from": moment(30)})
    assert (result["result"]["refused"]["calls"], result["result"]["saved_usd"]) == (3, "6")


def test_a_rolling_window_counts_what_is_still_in_it_when_the_period_begins(
    account: Account, api: Caller
) -> None:
    spend(account, (-61, "4"), (-30, "5"), (0, "6"), (31, "5"))
    budget = {**DAILY, "period": "hour", "rolling": True}
    result = simulate(api, budget=budget, **{"from": moment(0)})["result"]
    assert (result["refused"]["calls"], result["saved_usd"]) == (1, "6")


def test_a_session_that_began_before_the_period_is_as_old_as_it_is(
    account: Account, api: Caller
) -> None:
    spend(account, (0, "0.1"), (1, "0.1"), (3, "0.1"), session="s")
    result = simulate(api, budget={"preset": "session"}, **{"from": moment(0.5)})["result"]
    assert (result["calls"], result["first_refusal_at"]) == (2, moment(3))
    assert result["groups"][0]["group"] == {"session": "s"}


def test_what_a_budget_has_carried_over_is_there(account: Account, api: Caller) -> None:
    with time_machine.travel(NOON - timedelta(days=1)):
        budget = make_budget(account, cost_usd=10, period="day", has_rollover=True)
    spend(account, (-24 * 60, "2"), (0, "15"))
    kept = simulate(api, budget_id=budget.id)["result"]
    assert (kept["calls"], kept["saved_usd"]) == (1, "0")
    # Another revision begins anew, as a new budget does.
    changed = simulate(api, budget_id=budget.id, changes={"per": ["agent"]})["result"]
    assert (changed["saved_usd"], changed["compared_with"]["saved_usd"]) == ("15", "0")


def test_a_route_names_the_cheaper_model_and_its_price_the_saving(
    account: Account, api: Caller
) -> None:
    cheap, best = ("anthropic", "claude-haiku-4-5"), ("anthropic", "claude-sonnet-4-5")
    tiers = [
        {"provider": cheap[0], "model": cheap[1], "max_complexity": 5},
        {"provider": best[0], "model": best[1], "max_complexity": None},
    ]
    assert api.post("/v1/routes", {"name": "All", "tiers": tiers}).status == 201
    spend(account, (0, "5"), (1, "0.05"), (2, ...), input_tokens=100_000, output_tokens=0)  # type: ignore[arg-type]
    levels = [{"percent": 50, "action": "downgrade"}]
    result = simulate(api, budget={**DAILY, "levels": levels})["result"]
    # These tokens cost 0.1 with the cheaper model, and by the catalogue 0.3 with the other.
    assert (result["downgraded"], result["saved_usd"]) == (2, "0.2")
    assert (result["cost_usd"], result["would_have_cost_usd"]) == ("5.35", "5.15")
    assert "1 of 2 have no such model" in " ".join(result["assumptions"])


def test_a_breaker_is_replayed(account: Account, api: Caller) -> None:
    spend(account, (0, "6"), (0.2, "5"), (0.4, "3"), agent="a")
    breaker = {"name": "Fast", "per": ["agent"], "cost_usd_per_minute": "10"}
    result = simulate(api, breaker=breaker)["result"]
    assert (result["opened"], result["saved_usd"], result["levels"]) == (1, "3", [])
    assert result["openings"] == [
        {
            "at": moment(0.2),
            "group": {"agent": "a"},
            "why": "spent $11.00 in 60 s, limit $10.00 a minute",
        }
    ]


def test_void_events_and_other_tenants_count_nothing(
    account: Account, api: Caller, stranger: Account
) -> None:
    spend(account, (0, "6"))
    spend(account, (1, "6"), id="wrong")
    spend(stranger, (2, "6"))
    void = {"id": "wrong", "source": "tests", "action": "void", "reason": "sent twice"}
    assert api.post("/v1/corrections", void).status in (200, 201)
    result = simulate(api, budget=DAILY)["result"]
    assert (result["calls"], result["saved_usd"]) == (1, "0")


def test_a_call_without_a_price_follows_the_policy(account: Account, api: Caller) -> None:
    spend(account, (0, ...), (1, "1"), model="nobody-knows")  # type: ignore[arg-type]
    refused = simulate(api, budget=DAILY)["result"]
    assert (refused["unpriced"], refused["refused"]["calls"], refused["saved_usd"]) == (1, 1, "0")
    assert api.patch("/v1/settings", {"unpriced_policy": "allow"}).status == 200
    allowed = simulate(api, budget=DAILY)["result"]
    assert (allowed["unpriced"], allowed["refused"]["calls"]) == (1, 0)


def test_the_last_thirty_days_are_replayed_unless_told_otherwise(
    account: Account, api: Caller
) -> None:
    spend(account, (0, "11"))
    spend(account, (-31 * 24 * 60, "11"))
    before = timezone.now()
    answer = api.post("/v1/simulations", {"budget": DAILY})
    assert answer.body["result"]["refused"]["calls"] == 1
    ends_at = datetime.fromisoformat(answer.body["to"])
    assert before <= ends_at <= timezone.now()
    assert ends_at - datetime.fromisoformat(answer.body["from"]) == timedelta(days=30)


@each_case(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"budget": DAILY, "breaker": {"name": "b", "error_percent": 5}}, ""),
        ({"budget": DAILY, "changes": {}}, "/changes"),
        ({"budget": "much"}, "/budget"),
        ({"budget": {**DAILY, "limit": {}}}, "/budget/limit"),
        ({"budget": {**DAILY, "period": "age"}}, "/budget/period"),
        ({"budget": {**DAILY, "levels": [{"percent": 0}]}}, "/budget/levels/0/percent"),
        ({"budget": {"preset": "nobody"}}, "/budget/preset"),
        ({"breaker": {"name": "b"}}, "/breaker/cost_usd_per_minute"),
        ({"budget_id": 0}, "/budget_id"),
        ({"budget": DAILY, "from": "yesterday"}, "/from"),
        ({"budget": DAILY, "from": moment(0), "to": moment(0)}, "/to"),
        ({"budget": DAILY, "from": moment(-401 * 1440), "to": moment(0)}, "/from"),
        ({"budget": DAILY, "name": "n"}, "/name"),
    ],
)
def test_what_is_no_proposal_is_refused_and_kept_nowhere(
    account: Account, api: Caller, body: JsonObject, pointer: str
) -> None:
    answer = api.post("/v1/simulations", body)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert answer.pointers == {pointer}
    with account.scope():
        assert not Simulation.objects.exists()


def test_changes_are_validated_as_those_of_a_budget(account: Account, api: Caller) -> None:
    budget = make_budget(account)
    answer = api.post(
        "/v1/simulations", {"budget_id": budget.id, "changes": {"limit": {"cost_usd": None}}}
    )
    assert (answer.status, answer.pointers) == (400, {"/changes/limit"})
    with account.scope():
        archive_budget(budget=budget, actor="tests")
    assert api.post("/v1/simulations", {"budget_id": budget.id}).code == "conflict"


def test_another_tenants_budgets_and_simulations_are_not_found(
    account: Account, api: Caller, stranger: Account
) -> None:
    budget = make_budget(account)
    result = simulate(api, budget=DAILY)
    other = caller(stranger)
    assert other.get(f"/v1/simulations/{result['id']}").status == 404
    assert other.get("/v1/simulations").body == {"data": [], "next_cursor": None}
    assert other.post("/v1/simulations", {"budget_id": budget.id}).status == 404


def test_a_key_without_the_scope_is_refused(api: Caller) -> None:
    made = api.post("/v1/keys", {"name": "reader", "scopes": ["read", "enforce"]}).body
    reader = Caller(made["key"])
    assert reader.post("/v1/simulations", {"budget": DAILY}).status == 403
    assert reader.get("/v1/simulations").status == 200
    asking = Caller(api.post("/v1/keys", {"name": "agent", "scopes": ["enforce"]}).body["key"])
    assert asking.get("/v1/simulations").status == 403
    assert asking.get("/v1/simulations/1").status == 403


def test_the_list_is_newest_first_and_leaves_results_out(account: Account, api: Caller) -> None:
    ids = [simulate(api, budget={**DAILY, "name": name})["id"] for name in ("a", "b", "c")]
    page = api.get("/v1/simulations", limit=2).body
    assert [row["id"] for row in page["data"]] == [ids[2], ids[1]]
    assert "result" not in page["data"][0]
    rest = api.get("/v1/simulations", limit=2, cursor=page["next_cursor"]).body
    assert ([row["id"] for row in rest["data"]], rest["next_cursor"]) == ([ids[0]], None)


def test_the_same_request_again_is_answered_alike(account: Account, api: Caller) -> None:
    body = {"budget": DAILY}
    first = api.post("/v1/simulations", body, Idempotency_Key="k")
    assert api.post("/v1/simulations", body, Idempotency_Key="k").body == first.body
    other = api.post("/v1/simulations", {"budget": {"preset": "session"}}, Idempotency_Key="k")
    assert other.code == "idempotency_conflict"
    with account.scope():
        assert Simulation.objects.count() == 1


@pytest.fixture
def at_most_one(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Periods of more than one event are left to a worker; answers which tasks were sent."""
    sent: list[str] = []
    monkeypatch.setattr(event_stretches, "AT_ONCE_MAX", 1)
    monkeypatch.setattr(
        "metering.api.simulations.current_app.send_task",
        lambda name, **_: sent.append(name),
    )
    return sent


def test_a_long_period_is_left_to_a_worker(
    account: Account, api: Caller, at_most_one: list[str]
) -> None:
    spend(account, (0, "6"), (1, "5"))
    body = {"budget": DAILY, "from": moment(-720), "to": moment(720)}
    waiting = api.post("/v1/simulations", body)
    assert (waiting.status, waiting.body["status"], waiting.body["result"]) == (
        202,
        "waiting",
        None,
    )
    assert at_most_one == ["metering.jobs.tasks.run_simulations"]
    run_simulations()
    result = api.get(f"/v1/simulations/{waiting.body['id']}").body
    assert (result["status"], result["result"]["saved_usd"]) == ("done", "5")
    assert result["finished_at"] is not None
    run_simulations()
    assert api.get(f"/v1/simulations/{waiting.body['id']}").body == result


def test_a_long_replay_does_not_wait_in_front_of_ingest() -> None:
    route = application.amqp.router.route({}, run_simulations.name)
    assert route["queue"].name == "default"
    assert (
        application.amqp.router.route({}, "metering.jobs.tasks.roll_up")["queue"].name == "ingest"
    )


def test_a_waiting_change_is_replayed_as_it_was_proposed(
    account: Account, api: Caller, at_most_one: list[str]
) -> None:
    budget = make_budget(account, cost_usd=10, period="day")
    spend(account, (0, "6"), (1, "5"), (2, "3"))
    body = {"budget_id": budget.id, "changes": {"anchor": moment(-720), "per": ["agent"]}}
    answer = api.post("/v1/simulations", {**body, "from": moment(-720), "to": moment(720)})
    api.patch(f"/v1/budgets/{budget.id}", {"limit": {"cost_usd": "1"}})
    run_simulations()
    result = api.get(f"/v1/simulations/{answer.body['id']}").body["result"]
    assert (result["saved_usd"], result["compared_with"]["saved_usd"]) == ("5", "5")


def test_no_tenant_makes_all_others_wait(
    account: Account, api: Caller, at_most_one: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(account, (0, "6"), (1, "5"))
    monkeypatch.setattr(store, "WAITING_MAX", 2)
    statuses = [api.post("/v1/simulations", {"budget": DAILY}).status for _ in range(2)]
    assert statuses == [202, 202]
    assert api.post("/v1/simulations", {"budget": DAILY}).code == "too_many_simulations"
    run_simulations()
    assert api.post("/v1/simulations", {"budget": DAILY}).status == 202


def claimed(account: Account, **fields: object) -> Simulation:
    """A simulation that a worker began."""
    with account.scope():
        simulation = Simulation.objects.get()
        Simulation.objects.update(**{"status": "running", **fields})
        simulation.refresh_from_db()
    return simulation


def test_a_worker_that_died_is_followed_by_another_once_its_lease_is_over(
    account: Account, api: Caller, at_most_one: list[str]
) -> None:
    spend(account, (0, "6"), (1, "5"))
    api.post("/v1/simulations", {"budget": DAILY})
    now = timezone.now()
    claimed(account, claimed_until=now + timedelta(minutes=1))
    run_simulations()
    assert claimed(account).result is None
    claimed(account, claimed_until=now - timedelta(seconds=1))
    run_simulations()
    with account.scope():
        assert Simulation.objects.get().status == "done"


def test_what_never_ends_is_given_up(account: Account, api: Caller, at_most_one: list[str]) -> None:
    spend(account, (0, "6"), (1, "5"))
    answer = api.post("/v1/simulations", {"budget": DAILY})
    now = timezone.now()
    claimed(account, claimed_until=now, created_at=now - timedelta(hours=2))
    run_simulations()
    result = api.get(f"/v1/simulations/{answer.body['id']}").body
    assert (result["status"], result["result"]) == ("failed", None)
    assert "Try a shorter period" in result["detail"]


def test_a_replay_that_takes_too_long_says_so(
    account: Account, api: Caller, at_most_one: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(account, (0, "6"), (1, "5"))
    answer = api.post("/v1/simulations", {"budget": DAILY})
    monkeypatch.setattr(store, "REPLAY_SECONDS", -1.0)
    run_simulations()
    result = api.get(f"/v1/simulations/{answer.body['id']}").body
    assert (result["status"], result["detail"]) == (
        "failed",
        "The period holds more calls than are replayed in -1 s. Choose a shorter one.",
    )


def test_a_failure_of_one_fails_no_other(
    account: Account, api: Caller, at_most_one: list[str]
) -> None:
    spend(account, (0, "6"), (1, "5"))
    broken, whole = (api.post("/v1/simulations", {"budget": DAILY}).body["id"] for _ in range(2))
    with account.scope():
        Simulation.objects.filter(id=broken).update(proposal={"asked": {}, "rules": {}})
    run_simulations()
    assert api.get(f"/v1/simulations/{broken}").body["status"] == "failed"
    assert api.get(f"/v1/simulations/{whole}").body["status"] == "done"


@given(
    asks=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 4000), st.integers(0, 100)),
        min_size=1,
        max_size=12,
    ),
    action=st.sampled_from(["block", "hold"]),
    is_rolling=st.booleans(),
)
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_calls_that_real_reservations_let_through_are_let_through_again(
    account: Account, asks: Sequence[tuple[str, int, int]], action: str, is_rolling: bool
) -> None:
    """Each asks for thousandths of a dollar, and costs so many percent of it."""
    each = make_account()
    api = caller(each)
    levels = [(100, action)]
    make_budget(each, cost_usd=5, period="day", per=["agent"], is_rolling=is_rolling, levels=levels)
    made = 0
    for number, (agent, thousandths, percent) in enumerate(asks):
        amount = thousandths / 1000
        held = api.post("/v1/reservations", {"agent": agent, "amount_usd": amount})
        if held.status == 201:
            made += 1
            cost = thousandths * percent / 100_000
            event = {"id": f"call-{number}", "cost_usd": f"{cost:.6f}"}
            assert api.post(f"/v1/reservations/{held.body['id']}/settle", event).status == 200
    (budget,) = api.get("/v1/budgets").body["data"]
    soon = (timezone.now() + timedelta(minutes=1)).isoformat()
    result = api.post("/v1/simulations", {"budget_id": budget["id"], "to": soon}).body["result"]
    for outcome in (result, result["compared_with"]):
        assert outcome["calls"] == made
        assert (outcome["refused"]["calls"], outcome["saved_usd"]) == (0, "0")


# Of these, and of a limit of 5 dollars, a proposal is made.
PERIODS = st.sampled_from(
    [
        {"period": "day"},
        {"period": "hour"},
        {"period": "hour", "rolling": True},
        {"period": "hour", "rollover": True, "rollover_max_percent": 40},
        {"period": "day", "per": ["request"]},
    ]
)
LEVELS = st.sampled_from(
    [
        [{"percent": 100, "action": "block"}],
        [{"percent": 70, "action": "downgrade"}, {"percent": 110, "action": "hold"}],
        [{"percent": 50, "action": "throttle"}, {"percent": 100, "action": "block"}],
        [
            {"percent": 20, "action": "throttle", "throttle": {"cost_usd_per_minute": "0.7"}},
            {"percent": 120, "action": "block"},
        ],
    ]
)
LOCKOUT = st.just([{"percent": 40, "action": "none"}, {"percent": 100, "action": "lockout"}])
LIMITS = st.fixed_dictionaries({"cost_usd": st.just("5")}, optional={"seconds": st.just(1800)})


@given(
    # By whom, how many seconds after the one before, and thousandths of a dollar.
    asks=st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 2000), st.integers(1, 3000)),
        min_size=4,
        max_size=14,
    ),
    # A lockout ends with its period by the database's clock, which does not travel.
    shape=st.one_of(
        st.tuples(PERIODS, LEVELS), st.tuples(st.just({"period": "lifetime"}), LOCKOUT)
    ),
    limit=LIMITS,
)
@example(
    asks=[("a", 1, 1), ("a", 1, 2000), ("a", 1, 3000), ("a", 1, 1)],
    shape=({"period": "lifetime"}, [{"percent": 100, "action": "lockout"}]),
    limit={"cost_usd": "5"},
)
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_replay_decides_as_reservations_do(
    account: Account,
    asks: Sequence[tuple[str, int, int]],
    shape: tuple[JsonObject, list[JsonObject]],
    limit: JsonObject,
) -> None:
    """The same calls, asked for in force and settled at once, and reported and replayed."""
    asking, reporting = make_account(), make_account()
    period, levels = shape
    budget = {"name": "b", "per": ["agent"], **period, "limit": limit, "levels": levels}
    api = caller(asking)
    with time_machine.travel(NOON, tick=False):
        assert api.post("/v1/budgets", budget).status == 201
    refused: list[tuple[float, int, int]] = []
    reported: list[JsonObject] = []
    seconds = 0
    for agent, step, thousandths in asks:
        seconds += step
        usd = f"{thousandths / 1000:.3f}"
        time = (NOON + timedelta(seconds=seconds)).isoformat()
        reported.append(make_event(time=time, cost_usd=usd, agent=agent))
        with time_machine.travel(NOON + timedelta(seconds=seconds), tick=False):
            forget_known_keys()
            age_rolling_windows()
            held = api.post("/v1/reservations", {"agent": agent, "amount_usd": usd})
            if held.status == 201:
                event = {"id": f"call-{seconds}", "cost_usd": usd}
                path = f"/v1/reservations/{held.body['id']}/settle"
                assert api.post(path, event).status == 200
            else:
                refused.append((seconds, held.status, thousandths))
    assert send(reporting, reported)["accepted"] == len(asks)
    result = simulate(caller(reporting), budget=budget, **{"from": moment(0)})["result"]
    assert result["calls"] == len(asks)
    assert result["throttled"] == sum(status == 429 for _, status, _ in refused)
    assert result["refused"]["calls"] == len(refused)
    assert result["saved_usd"] == usd_from_nanos(sum(each for *_, each in refused) * 10**6)
    first = moment(refused[0][0] / 60) if refused else None
    assert result["first_refusal_at"] == first


def run(account: Account, *options: str) -> str:
    out = io.StringIO()
    call_command("simulate_budget", "--tenant", account.tenant.name, *options, stdout=out)
    return out.getvalue()


def test_the_command_holds_the_past_against_another_limit(account: Account) -> None:
    budget = make_budget(account, cost_usd=100, period="day", per=["agent"])
    spend(account, (0, "6"), (1, "5"), agent="a")
    period = ("--from", f"{NOON:%Y-%m-%d}", "--to", moment(720))
    result = json.loads(run(account, "--budget-id", str(budget.id), "--limit-usd", "10", *period))
    assert (result["saved_usd"], result["refused"]["calls"]) == ("5", 1)
    assert result["compared_with"]["saved_usd"] == "0"
    assert [group["group"] for group in result["groups"]] == [{"agent": "a"}]
    with account.scope():
        assert not Simulation.objects.exists()


def test_the_command_reads_a_proposal(account: Account, tmp_path: Path) -> None:
    spend(account, (0, "6"), (1, "5"))
    path = tmp_path / "proposal.json"
    path.write_text(json.dumps({"budget": DAILY, "from": moment(-1)}))
    result = json.loads(run(account, "--json", str(path)))
    assert (result["saved_usd"], result["calls"]) == ("5", 2)


def test_the_command_says_what_is_wrong(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "proposal.json"
    path.write_text(json.dumps({"budget": {**DAILY, "period": "age"}}))
    with pytest.raises(CommandError, match="/budget/period: must be one of hour, day"):
        run(account, "--json", str(path))
    with pytest.raises(CommandError, match="No budget has the id '99'"):
        run(account, "--budget-id", "99")
    with pytest.raises(CommandError, match="must be RFC 3339"):
        run(account, "--budget-id", "1", "--from", "yesterday")
    path.write_text("[]")
    with pytest.raises(CommandError, match="holds no object"):
        run(account, "--json", str(path))
    with pytest.raises(CommandError, match="no tenant named"):
        call_command("simulate_budget", "--tenant", "nobody", "--budget-id", "1")
