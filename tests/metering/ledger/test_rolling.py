"""Rolling windows let go of what is older than their period, at a cost that follows what leaves."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from metering.jobs import tasks
from metering.jobs.tasks import age_rolling_windows
from metering.ledger import rolling
from metering.models import Budget, BudgetWindow, LedgerEntry
from tests.factories import NANOS, Account, make_budget, make_event, send, windows_of
from tests.metering.api.caller import caller

pytestmark = pytest.mark.django_db(transaction=True)
NOW = datetime.now(UTC).replace(second=0, microsecond=0)


def spend(account: Account, agent: str, at: datetime, usd: str = "1") -> None:
    event = make_event(agent=agent, cost_usd=usd, time=at.isoformat())
    assert send(account, [event])["accepted"] == 1


@pytest.fixture
def hourly(account: Account) -> Budget:
    """100 USD within any hour for each agent; three of them spent a dollar each two hours ago."""
    begun = NOW - timedelta(hours=2)
    with time_machine.travel(begun, tick=False):
        budget = make_budget(account, per=["agent"], period="hour", is_rolling=True)
        for agent in "abc":
            spend(account, agent, begun)
    return budget


def state(account: Account, budget: Budget) -> list[tuple[int, datetime | None]]:
    return [
        (window.spent_nanos // NANOS, window.oldest_grain_at)
        for window in windows_of(account, budget)
    ]


def test_a_window_knows_the_oldest_that_it_counts(account: Account, hourly: Budget) -> None:
    begun = NOW - timedelta(hours=2)
    with time_machine.travel(begun + timedelta(minutes=30), tick=False):
        spend(account, "a", begun + timedelta(minutes=20))
        spend(account, "a", begun + timedelta(minutes=10))
    assert state(account, hourly) == [(3, begun), (1, begun), (1, begun)]
    with time_machine.travel(begun + timedelta(minutes=71), tick=False):
        assert age_rolling_windows() == 3
    later = begun + timedelta(minutes=20)
    assert state(account, hourly) == [(1, later), (0, None), (0, None)]
    with time_machine.travel(begun + timedelta(minutes=82), tick=False):
        assert age_rolling_windows() == 1
    assert state(account, hourly) == [(0, None)] * 3


def test_windows_with_nothing_to_let_go_cost_nothing(account: Account, hourly: Budget) -> None:
    with time_machine.travel(NOW, tick=False):
        assert age_rolling_windows() == 3
    with time_machine.travel(NOW + timedelta(minutes=5), tick=False):
        with CaptureQueriesContext(connection) as queries:
            assert age_rolling_windows() == 0
        assert not any("FOR UPDATE" in query["sql"] for query in queries)
        assert not any("UPDATE budget_window" in query["sql"] for query in queries)


def test_what_a_window_lets_go_is_read_by_its_grains(account: Account, hourly: Budget) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'ledger_entry'")
        definitions = [row[0] for row in cursor.fetchall()]
    assert any("(tenant_id, window_id, grain_at)" in each for each in definitions)
    assert sum("(tenant_id, window_id" in each for each in definitions) == 1


@pytest.mark.parametrize("has_use", [False, True])
def test_what_is_too_late_for_an_idle_window_does_not_count_in_it(
    account: Account, hourly: Budget, has_use: bool
) -> None:
    """Nobody has looked at the window since it became empty."""
    with time_machine.travel(NOW, tick=False):
        age_rolling_windows()
    with time_machine.travel(NOW + timedelta(hours=5), tick=False):
        if has_use:
            spend(account, "a", NOW + timedelta(hours=5))
        spend(account, "a", NOW + timedelta(hours=2))
        assert state(account, hourly)[0][0] == int(has_use)
        call_command("audit_ledger", verbosity=0)


def test_a_settle_that_is_too_late_for_an_idle_window_does_not_count_in_it(
    account: Account, hourly: Budget
) -> None:
    api = caller(account)
    held = api.post("/v1/reservations", {"amount_usd": "2", "agent": "d"})
    assert held.status == 201, held.body
    with time_machine.travel(NOW + timedelta(hours=5), tick=False):
        body = {"id": "late", "cost_usd": "2", "time": NOW.isoformat()}
        answer = api.post(f"/v1/reservations/{held.body['id']}/settle", body)
        assert answer.status == 200, answer.body
        assert state(account, hourly)[3] == (0, None)
        call_command("audit_ledger", verbosity=0)


def test_windows_let_go_together_and_one_that_is_locked_keeps_none_waiting(
    account: Account, hourly: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    with account.scope():
        busy = BudgetWindow.objects.order_by("id")[1].id
    are_others_aged = threading.Event()
    errors: list[BaseException] = []

    def age() -> None:
        try:
            with time_machine.travel(NOW, tick=False):
                assert age_rolling_windows() == 3
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    age_windows = rolling.age_windows

    def noted(*, window_ids: list[int], waits: bool, **others: object) -> object:
        if waits:
            assert window_ids == [busy]
            are_others_aged.set()
        return age_windows(window_ids=window_ids, waits=waits, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(tasks, "age_windows", noted)
    thread = threading.Thread(target=age)
    with account.scope():
        BudgetWindow.objects.select_for_update().get(tenant=account.tenant, id=busy)
        thread.start()
        assert are_others_aged.wait(10)
        assert [spent for spent, _ in state(account, hourly)] == [0, 1, 0]
    thread.join()
    assert errors == []
    assert [spent for spent, _ in state(account, hourly)] == [0, 0, 0]
    with account.scope():
        aged = LedgerEntry.objects.filter(kind=5).order_by("id")
        created = list(aged.values_list("created_at", flat=True))
    # The first two in one transaction.
    assert created[0] == created[1] < created[2]
