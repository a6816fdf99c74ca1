"""Budgets made over a long past: counted by a job, exact at every step, while usage goes on."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.core.management import call_command
from django.db import connection

from metering.configuration.budgets import archive_budget, update_budget
from metering.intake.corrections import correct_event
from metering.intake.job_steps import run_job, take_step
from metering.intake.rerate import rerate
from metering.jobs.tasks import run_jobs
from metering.ledger import counting
from metering.models import BackgroundJob, Budget, BudgetWindow, JobState
from metering.usage.decoders.native import EventBody
from tests.factories import NANOS, Account, finish_jobs, make_budget, make_event, send, windows_of
from tests.metering.api.caller import Caller, caller
from tests.metering.intake.test_rerate import set_price

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A past of more than one event is long, and a step reads two."""
    monkeypatch.setattr(counting, "AT_ONCE_MAX", 1)
    monkeypatch.setattr(counting, "STEP_EVENTS", 2)


@pytest.fixture
def api(account: Account) -> Caller:
    return caller(account)


def at(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()


def spend(account: Account, *usd: str, **fields: object) -> None:
    """The first is the oldest."""
    events = [
        make_event(**{"id": f"e{amount}", "cost_usd": amount, "time": at(9 - index), **fields})
        for index, amount in enumerate(usd)
    ]
    assert send(account, events)["accepted"] == len(events)


def job_of(account: Account) -> BackgroundJob:
    with account.scope():
        return BackgroundJob.objects.latest("id")


def step(account: Account) -> None:
    assert take_step(tenant_id=account.tenant.id) == 1
    call_command("audit_ledger", verbosity=0)


def spent(account: Account, budget: Budget) -> list[int]:
    return [window.spent_nanos // NANOS for window in windows_of(account, budget)]


def is_counting(account: Account) -> bool:
    with account.scope():
        return Budget.objects.get().is_counting


def make_long(account: Account, **fields: Any) -> Budget:
    return make_budget(account, **{"period": "lifetime", **fields})


def test_the_past_is_counted_a_stretch_at_a_time_and_usage_goes_on(account: Account) -> None:
    spend(account, "1", "2", "4", "8", "16")
    budget = make_long(account)
    assert (is_counting(account), spent(account, budget)) == (True, [])
    step(account)
    assert spent(account, budget) == [3]
    assert (job_of(account).state, job_of(account).progress_percent) == (JobState.RUNNING, 40)
    # Older than what was read, in the middle of it, and newer than all.
    for hours, usd in ((20, "32"), (8.5, "64"), (0.5, "128")):
        spend(account, usd, time=at(hours))
    call_command("audit_ledger", verbosity=0)
    assert spent(account, budget) == [3 + 224]
    while is_counting(account):
        step(account)
    assert spent(account, budget) == [255]
    assert job_of(account).result == {"is_complete": True}
    assert (job_of(account).progress_percent, run_jobs()) == (100, 0)


def test_a_short_past_is_counted_at_once(account: Account) -> None:
    spend(account, "1")
    budget = make_long(account)
    assert (is_counting(account), spent(account, budget)) == (False, [1])


def test_a_budget_refuses_by_what_it_has_counted(account: Account, api: Caller) -> None:
    spend(account, "60", "50", "1")
    make_long(account)
    ask = {"amount_usd": "1"}
    assert api.post("/v1/reservations", ask).status == 201
    step(account)
    assert api.post("/v1/reservations", ask).code == "budget_exceeded"
    (result,) = api.get("/v1/budgets").body["data"]
    assert result["counting"] is True
    finish_jobs()
    assert api.get(f"/v1/budgets/{result['id']}").body["counting"] is False


@pytest.mark.parametrize("is_read", [True, False])
def test_an_event_that_changes_meanwhile_counts_once(account: Account, is_read: bool) -> None:
    spend(account, "1", "2", "4", "8")
    budget = make_long(account)
    if is_read:
        step(account)
    for usd in (None, "3"):
        event = make_event(id="e2", cost_usd=usd or "9", time=at(8))
        correct_event(
            tenant_id=account.tenant.id,
            source="tests",
            sent_id="e1" if usd is None else "e2",
            replacement=None if usd is None else msgspec.convert(event, EventBody),
            reason="wrong",
            actor="ann",
        )
        call_command("audit_ledger", verbosity=0)
    while is_counting(account):
        step(account)
    assert spent(account, budget) == [3 + 4 + 8]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_period_is_rated_again_meanwhile(account: Account, steps: int) -> None:
    send(account, [make_event(time=at(9 - index)) for index in range(4)])
    budget = make_long(account)
    for _ in range(steps):
        step(account)
    set_price(account, "claude-sonnet-4-5")
    now = datetime.now(UTC)
    rerate(tenant_id=account.tenant.id, from_=now - timedelta(days=1), to=now)
    call_command("audit_ledger", verbosity=0)
    while is_counting(account):
        step(account)
    assert windows_of(account, budget)[0].spent_nanos == 12 * NANOS


def test_a_call_that_a_reservation_turns_out_to_be_of_counts_where_that_holds(
    account: Account, api: Caller
) -> None:
    response = {"response_id": "msg_1", "agent": "a"}
    send(account, [make_event(cost_usd="2", time=at(0.1), **response), make_event(time=at(0.2))])
    budget = make_long(account, per=["agent"])
    asked = {"amount_usd": "5", "agent": "b"}
    held = api.post("/v1/reservations", asked).body["id"]
    settle = make_event(cost_usd="2", time=at(0.1), **{**response, "agent": "b"})
    assert api.post(f"/v1/reservations/{held}/settle", settle).status == 200
    call_command("audit_ledger", verbosity=0)
    while is_counting(account):
        step(account)
    with account.scope():
        groups = dict(BudgetWindow.objects.values_list("group_key", "spent_nanos"))
    assert groups['["b"]'] == 2 * NANOS
    assert budget.is_counting


def test_a_step_that_dies_leaves_nothing_and_is_done_again(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(account, "1", "2", "4", "8")
    budget = make_long(account)
    step(account)

    def die(*args: object, **kwargs: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(counting, "move_on", die)
        with pytest.raises(RuntimeError):
            take_step(tenant_id=account.tenant.id)
    call_command("audit_ledger", verbosity=0)
    assert (spent(account, budget), job_of(account).failures) == ([3], 1)
    assert run_job(job_of(account)).state == JobState.DONE
    assert spent(account, budget) == [15]


def test_a_change_of_what_is_counted_begins_anew(account: Account) -> None:
    spend(account, "1", "2", "4", "8", agent="a")
    budget = make_long(account)
    step(account)
    with account.scope():
        budget = update_budget(budget=budget, actor="ann", changes={"match": {"agent": "a"}})
    while is_counting(account):
        step(account)
    assert (spent(account, budget), run_jobs()) == ([15], 0)
    with account.scope():
        first = BackgroundJob.objects.earliest("id")
        assert (first.state, first.result) == (JobState.DONE, {"is_complete": False})


def test_an_archived_budget_counts_no_more(account: Account) -> None:
    spend(account, "1", "2", "4", "8")
    budget = make_long(account)
    step(account)
    with account.scope():
        archive_budget(budget=budget, actor="ann")
    assert run_job(job_of(account)).result == {"is_complete": False}


def test_a_rolling_budget_counts_by_grain(account: Account) -> None:
    spend(account, "1", "2", "4", "8")
    budget = make_budget(account, period="day", is_rolling=True, per=["agent"])
    while is_counting(account):
        step(account)
    assert spent(account, budget) == [15]


def test_a_limit_on_time_counts_from_the_first_use(account: Account) -> None:
    spend(account, "1", "2", "4", agent="a")
    budget = make_long(account, cost_usd=None, limit_seconds=3600)
    spend(account, "8", time=at(0.1))
    finish_jobs()
    (window,) = windows_of(account, budget)
    assert window.first_used_at is not None
    assert window.first_used_at < datetime.now(UTC) - timedelta(hours=8.9)
    assert window.level_percent == 100


class SlowStep:
    """A step of a count that has begun, and does not read the past before it is let go on."""

    def __init__(self, account: Account, patch: pytest.MonkeyPatch) -> None:
        self._tenant_id = account.tenant.id
        self._patch = patch
        self._reads, self._go_on = threading.Event(), threading.Event()
        self._read = counting.stored_amounts
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> "SlowStep":
        self._patch.setattr(counting, "stored_amounts", self._slow)
        self._thread.start()
        assert self._reads.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._go_on.set()
        self._thread.join(10)
        self._patch.setattr(counting, "stored_amounts", self._read)

    def _slow(self, *args: Any, **kwargs: Any) -> object:
        self._reads.set()
        assert self._go_on.wait(10)
        return self._read(*args, **kwargs)

    def _work(self) -> None:
        try:
            take_step(tenant_id=self._tenant_id)
        finally:
            connection.close()


def test_usage_is_taken_while_a_step_reads_the_past(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(account, "1", "2", "4", "8")
    budget = make_long(account)
    with SlowStep(account, monkeypatch):
        spend(account, "16", time=at(0.1))
        assert spent(account, budget) == [16]
    assert spent(account, budget) == [19]
    finish_jobs()
    assert spent(account, budget) == [31]


def test_a_correction_waits_for_a_step_that_may_read_what_it_corrects(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(account, "1", "2", "4", "8")
    budget = make_long(account)
    voiding = threading.Thread(target=in_thread, args=(void, account, "e1"))
    with SlowStep(account, monkeypatch):
        voiding.start()
        wait_for_lock(counting.COUNTING_LOCK)
    voiding.join(10)
    call_command("audit_ledger", verbosity=0)
    finish_jobs()
    assert spent(account, budget) == [14]


def void(account: Account, event_id: str) -> None:
    correct_event(
        tenant_id=account.tenant.id,
        source="tests",
        sent_id=event_id,
        replacement=None,
        reason="wrong",
        actor="ann",
    )


def in_thread(work: Callable[..., object], *args: object) -> None:
    try:
        work(*args)
    finally:
        connection.close()


def at_once(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=in_thread, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def wait_for_lock(class_id: int) -> None:
    """Until somebody waits for an advisory lock."""
    ends_at = time.monotonic() + 60
    with connection.cursor() as cursor:
        while time.monotonic() < ends_at:
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND classid = %s", [class_id]
            )
            if cursor.fetchone() != (0,):
                return
            time.sleep(0.01)
    pytest.fail("nobody waits")


def test_everything_at_once_counts_everything_once(account: Account) -> None:
    """Steps, usage, merged reports, corrections and a new rating, side by side."""
    events = [
        make_event(id=f"old{n}", response_id=f"r{n}", time=at(40 - n), agent=f"a{n % 3}")
        for n in range(30)
    ]
    send(account, events)
    budgets = [make_long(account, per=per) for per in (["agent"], [], ["user", "agent"])]
    set_price(account, "claude-sonnet-4-5")
    now = datetime.now(UTC)

    def report() -> None:
        for n in range(30):
            again = make_event(
                response_id=f"r{n}", time=at(40 - n), agent=f"a{n % 3}", user=f"u{n % 2}"
            )
            send(account, [again, make_event(time=at(n), agent="a1")])

    def correct() -> None:
        for n in range(0, 30, 3):
            void(account, f"old{n}")

    def rate() -> None:
        rerate(tenant_id=account.tenant.id, from_=now - timedelta(days=3), to=now)

    at_once(report, correct, rate, finish_jobs, finish_jobs)
    finish_jobs()
    call_command("audit_ledger", verbosity=0)
    with account.scope():
        assert not Budget.objects.filter(is_counting=True).exists()
    for budget in budgets:
        assert sum(window.spent_requests for window in windows_of(account, budget)) == 50


def test_a_long_past_is_not_read_while_usage_is_kept_out(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(account, "1", "2")
    with monkeypatch.context() as patch:
        patch.setattr(counting, "stored_amounts", None)
        budget = make_long(account)
        with account.scope():
            update_budget(budget=budget, actor="ann", changes={"per": ["agent"]})
    finish_jobs()
    assert spent(account, budget) == [3]
