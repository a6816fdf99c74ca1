"""Work that is too long for a request: 202, a job whose progress can be read, and its result."""

from datetime import UTC, datetime, timedelta

import pytest

from common.json_bodies import JsonObject
from metering.core import event_stretches
from metering.intake import rerate
from metering.intake.job_steps import take_step
from metering.ledger import crossings
from metering.models import BackgroundJob, Crossing
from tests.factories import NANOS, Account, finish_jobs, make_budget, make_event, send, windows_of
from tests.metering.api.caller import Caller, caller
from tests.metering.intake.test_rerate import set_price

pytestmark = pytest.mark.django_db(transaction=True)

OWN = {
    "model": "in-house",
    "rates": {"input_per_mtok_usd": "2000", "output_per_mtok_usd": "10000"},
}


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than two events are many, and a step reads two."""
    monkeypatch.setattr(event_stretches, "AT_ONCE_MAX", 2)
    monkeypatch.setattr(rerate, "CHUNK_EVENTS", 2)


def period(**members: object) -> JsonObject:
    now = datetime.now(UTC)
    day = timedelta(days=1)
    return {"from": (now - day).isoformat(), "to": (now + day).isoformat(), **members}


def test_a_long_period_is_rated_again_by_a_job(account: Account, api: Caller) -> None:
    budget = make_budget(account)
    send(account, [make_event() for _ in range(5)])
    set_price(account, "claude-sonnet-4-5")
    begun = api.post("/v1/prices/rerate", period())
    assert (begun.status, begun.body["state"]) == (202, "waiting")
    assert (begun.body["kind"], begun.body["result"]) == ("rerate", None)
    assert (begun.body["done"], begun.body["total"], begun.body["progress_percent"]) == (0, 5, 0)
    index = f"/v1/jobs/{begun.body['id']}"
    assert take_step(tenant_id=account.tenant.id) == 1
    running = api.get(index).body
    assert (running["state"], running["done"]) == ("running", 2)
    assert (running["progress_percent"], running["result"]) == (40, None)
    send(account, [make_event(cost_usd="1")])
    finish_jobs()
    done = api.get(index).body
    assert (done["state"], done["progress_percent"]) == ("done", 100)
    assert done["finished_at"] is not None
    assert done["result"] == {
        "dry_run": False,
        "examined": 5,
        "changed": 5,
        "newly_priced": 0,
        "still_unpriced": 0,
        "difference_usd": "14.9775",
    }
    assert windows_of(account, budget)[0].spent_nanos == 16 * NANOS
    assert api.get("/v1/jobs").body["data"] == [done]


def test_a_dry_run_by_a_job_changes_nothing(account: Account, api: Caller) -> None:
    budget = make_budget(account)
    send(account, [make_event() for _ in range(3)])
    before = windows_of(account, budget)[0].spent_nanos
    set_price(account, "claude-sonnet-4-5")
    begun = api.post("/v1/prices/rerate", period(dry_run=True))
    finish_jobs()
    result = api.get(f"/v1/jobs/{begun.body['id']}").body["result"]
    assert (result["dry_run"], result["changed"]) == (True, 3)
    assert windows_of(account, budget)[0].spent_nanos == before


def test_a_job_that_dies_half_way_is_gone_on_with(
    account: Account, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = make_budget(account)
    send(account, [make_event() for _ in range(3)])
    set_price(account, "claude-sonnet-4-5")
    begun = api.post("/v1/prices/rerate", period())
    take_step(tenant_id=account.tenant.id)
    with monkeypatch.context() as patch:
        patch.setattr(rerate, "move_on", None)
        with pytest.raises(TypeError):
            take_step(tenant_id=account.tenant.id)
    stalled = api.get(f"/v1/jobs/{begun.body['id']}").body
    assert (stalled["state"], stalled["done"]) == ("running", 2)
    assert "error was logged" in stalled["error"]
    finish_jobs()
    done = api.get(f"/v1/jobs/{begun.body['id']}").body
    assert (done["state"], done["error"], done["result"]["changed"]) == ("done", None, 3)
    assert windows_of(account, budget)[0].spent_nanos == 9 * NANOS


def test_a_job_that_always_fails_ends(
    account: Account, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(account, [make_event() for _ in range(3)])
    begun = api.post("/v1/prices/rerate", period())
    with monkeypatch.context() as patch:
        patch.setattr(rerate, "move_on", None)
        for _ in range(5):
            with pytest.raises(TypeError):
                take_step(tenant_id=account.tenant.id)
    failed = api.get(f"/v1/jobs/{begun.body['id']}").body
    assert (failed["state"], failed["result"]) == ("failed", None)
    assert take_step(tenant_id=account.tenant.id) == 0


def test_jobs_take_turns(account: Account, api: Caller) -> None:
    send(account, [make_event() for _ in range(5)])
    first, second = (api.post("/v1/prices/rerate", period()).body["id"] for _ in range(2))
    for _ in range(2):
        take_step(tenant_id=account.tenant.id)
    done = {job["id"]: job["done"] for job in api.get("/v1/jobs").body["data"]}
    assert done == {first: 2, second: 2}
    finish_jobs()


def test_too_many_jobs_are_refused(
    account: Account, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerate, "RERATES_MAX", 1)
    send(account, [make_event() for _ in range(3)])
    assert api.post("/v1/prices/rerate", period()).status == 202
    assert api.post("/v1/prices/rerate", period()).code == "too_many_jobs"
    finish_jobs()
    assert api.post("/v1/prices/rerate", period()).status == 202


def test_much_usage_without_a_price_is_priced_by_a_job(account: Account, api: Caller) -> None:
    budget = make_budget(account)
    send(account, [make_event(model="in-house") for _ in range(3)])
    since = period()["from"]
    added = api.post("/v1/prices", {**OWN, "effective_from": since})
    assert added.status == 201
    assert added.body["job"]["kind"] == "price_unpriced"
    assert windows_of(account, budget)[0].spent_nanos == 0
    # Another price before it has begun needs no other job.
    other = api.post("/v1/prices", {**OWN, "model": "other", "effective_from": since})
    assert other.body["job"]["id"] == added.body["job"]["id"]
    finish_jobs()
    assert windows_of(account, budget)[0].spent_nanos == 9 * NANOS
    done = api.get(f"/v1/jobs/{added.body['job']['id']}").body
    assert (done["result"]["newly_priced"], done["done"]) == (3, 3)


def test_little_usage_without_a_price_is_priced_at_once(account: Account, api: Caller) -> None:
    budget = make_budget(account)
    send(account, [make_event(model="in-house") for _ in range(2)])
    added = api.post("/v1/prices", {**OWN, "effective_from": period()["from"]})
    assert "job" not in added.body
    assert windows_of(account, budget)[0].spent_nanos == 6 * NANOS
    (job,) = api.get("/v1/jobs").body["data"]
    assert job["state"] == "done"


def test_a_changed_limit_is_held_against_many_windows_by_a_job(
    account: Account, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossings, "JUDGED_MAX", 2)
    monkeypatch.setattr(crossings, "PORTION_WINDOWS", 3)
    budget = make_budget(account, per=["agent"], levels=[(100, "lockout")])
    make_budget(account, per=["agent"])
    send(account, [make_event(agent=f"a{index}", cost_usd="5") for index in range(5)])
    path = f"/v1/budgets/{budget.id}"
    assert api.patch(path, {"limit": {"cost_usd": "1"}}).status == 200
    (job,) = api.get("/v1/jobs").body["data"]
    assert (job["kind"], job["budget_id"], job["state"]) == ("judge_windows", budget.id, "waiting")
    finish_jobs()
    assert [window.level_percent for window in windows_of(account, budget)] == [100] * 5
    with account.scope():
        assert Crossing.objects.filter(budget_id=budget.id).count() == 5
    # Raised again, it frees them all.
    assert api.patch(path, {"limit": {"cost_usd": "10"}}).status == 200
    finish_jobs()
    assert [window.level_percent for window in windows_of(account, budget)] == [0] * 5
    assert api.get("/v1/halts").body["halts"] == []


def test_a_raise_of_one_group_waits_for_no_job(
    account: Account, api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossings, "PORTION_WINDOWS", 1)
    budget = make_budget(account, cost_usd=1, per=["agent"], levels=[(100, "lockout")])
    send(account, [make_event(agent=f"a{index}", cost_usd="5") for index in range(3)])
    path = f"/v1/budgets/{budget.id}/raises"
    wish = {"by": {"cost_usd": "9"}, "duration_seconds": 600, "reason": "r"}
    asked = api.post(path, {**wish, "group": {"agent": "a2"}})
    assert api.post(f"{path}/{asked.body['id']}/approve").status == 200
    levels = {window.group_key: window.level_percent for window in windows_of(account, budget)}
    assert levels == {'["a0"]': 100, '["a1"]': 100, '["a2"]': 0}
    assert api.get("/v1/jobs").body["data"] == []


def test_another_tenants_jobs_are_not_found(
    account: Account, stranger: Account, api: Caller
) -> None:
    send(account, [make_event() for _ in range(3)])
    begun = api.post("/v1/prices/rerate", period()).body
    other = caller(stranger)
    assert other.get(f"/v1/jobs/{begun['id']}").status == 404
    assert other.get("/v1/jobs").body == {"data": [], "next_cursor": None}
    with stranger.scope():
        assert not BackgroundJob.objects.exists()
