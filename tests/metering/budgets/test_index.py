"""What a process remembers of windows: an id counts only once the transaction that opened it
committed.

Afterwards the account's fixture proves every balance.
"""

import threading
from typing import Any

import pytest
from django.db import connection

from common.bounded_memory import BoundedMemory
from metering.budgets import index
from metering.budgets.index import WindowKey, forget_windows
from metering.budgets.reading import read_budget_index
from metering.core.periods import EPOCH
from metering.ledger import opening
from metering.ledger.opening import open_windows
from metering.models import BudgetWindow
from tenants.pipeline import Pipeline
from tests.factories import Account, make_budget, make_event, send
from tests.metering.api.caller import caller


def spent_nanos(account: Account) -> list[int]:
    with account.scope():
        return list(BudgetWindow.objects.values_list("spent_nanos", flat=True))


def fail_before_the_commit(*_: object, **__: object) -> None:
    raise ConnectionError("the server ended before the commit")


# Windows that carry something over are opened step by step, others in one round trip.
@pytest.mark.parametrize(
    ("has_rollover", "step"),
    [(True, (opening, "_note_ids")), (False, (Pipeline, "commit"))],
)
def test_a_window_whose_opening_was_rolled_back_is_opened_again(
    account: Account, monkeypatch: pytest.MonkeyPatch, has_rollover: bool, step: tuple[object, str]
) -> None:
    make_budget(account, period="month", has_rollover=has_rollover)
    with monkeypatch.context() as patched:
        patched.setattr(*step, fail_before_the_commit)
        with pytest.raises(ConnectionError):
            send(account, [make_event(cost_usd="1")])
    assert spent_nanos(account) == []

    send(account, [make_event(cost_usd="2")])

    assert spent_nanos(account) == [2_000_000_000]


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_window_that_someone_else_opened_is_found(
    account: Account, monkeypatch: pytest.MonkeyPatch, is_seen: bool
) -> None:
    """Committed before, or while the statement that opens windows ran."""
    make_budget(account, period="month")
    send(account, [make_event(cost_usd="1")])
    forget_windows()
    if not is_seen:
        # As the statement's snapshot would have it, had the other one committed a little later.
        blind = opening._OPEN.replace("ON w.tenant_id = %s", "ON w.tenant_id = %s AND false")
        monkeypatch.setattr(opening, "_OPEN", blind)

    send(account, [make_event(cost_usd="2")])

    assert spent_nanos(account) == [3_000_000_000]


def test_nobody_posts_to_a_window_before_its_opening_is_committed(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, may_commit = threading.Event(), threading.Event()

    def open_and_wait(**arguments: Any) -> None:
        open_windows(**arguments)
        opened.set()
        may_commit.wait(0.5)

    def send_first() -> None:
        send(account, [make_event(cost_usd="1")])
        connection.close()

    make_budget(account, period="month", has_rollover=True)
    monkeypatch.setattr(opening, "open_windows", open_and_wait)
    first = threading.Thread(target=send_first)
    first.start()
    assert opened.wait(10)
    monkeypatch.setattr(opening, "open_windows", open_windows)
    send(account, [make_event(cost_usd="2")])
    may_commit.set()
    first.join()

    assert spent_nanos(account) == [3_000_000_000]


def test_what_a_transaction_asks_for_stays_when_the_process_forgets(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_WINDOW_IDS", BoundedMemory(2))
    with account.scope():
        for per in ([], ["session"], ["agent", "session"]):
            make_budget(account, period="month", per=per, cost_usd=1000)
    api = caller(account)
    for turn in range(2):
        # One batch alone needs more windows than the process remembers.
        events = [make_event(cost_usd="1", session=f"s-{turn}-{number}") for number in range(4)]
        assert send(account, events)["accepted"] == 4
        asked = api.post(
            "/v1/reservations", {"amount_usd": "1", "session": f"r-{turn}", "agent": "a"}
        )
        assert asked.status == 201
        path = f"/v1/reservations/{asked.body['id']}/settle"
        assert api.post(path, {"id": f"settle-{turn}", "cost_usd": "1"}).status == 200
    with account.scope():
        # What is stored needs as many windows when a budget begins to count it.
        make_budget(account, period="month", per=["session"], cost_usd=1000)
        whole, *_ = BudgetWindow.objects.order_by("id")
        assert whole.spent_nanos == 10_000_000_000
        assert BudgetWindow.objects.filter(group_key__startswith='["').count() == 30


def test_a_process_forgets_what_was_not_asked_for_longest() -> None:
    memory = BoundedMemory[int, str](4)
    for key in range(100):
        memory.keep(key, str(key))
        assert memory.get(0) == "0"
        assert len(memory) <= 4
    assert memory.get(50) is None


def test_the_window_of_a_single_call_is_not_remembered(account: Account) -> None:
    """It goes by another key once another report names the call."""
    budget = make_budget(account, per=["request"], period="lifetime")
    with account.scope():
        book = read_budget_index(account.tenant.id)
    key = WindowKey(budget.id, ("0" * 32,), EPOCH)
    book.remember(key, 1)
    assert book.lacking([key]) == {key}
