"""Voiding and replacing events: balances follow, rows stay."""

import threading
import time
from typing import Any

import pytest
from django.db import connection

from common.errors import InvalidRequest, NotFound
from metering.intake.corrections import AlreadyCorrected, Corrected, correct_event
from metering.models import BudgetWindow, Correction, EntryKind, LedgerEntry, UsageEvent
from metering.rollups import roll_up
from metering.usage.decoders.native import EventBody
from tenants.models import AuditEntry
from tests.factories import NANOS, Account, make_budget, make_event, send, windows_of

pytestmark = pytest.mark.django_db(transaction=True)


def correct(account: Account, sent_id: str, **fields: Any) -> Corrected:
    replacement = EventBody(id=sent_id, source="tests", **fields) if fields else None
    return correct_event(
        tenant_id=account.tenant.id,
        source="tests",
        sent_id=sent_id,
        replacement=replacement,
        reason="it never happened",
        actor="tests",
    )


@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_a_voided_event_leaves_every_balance_and_stays_stored(
    account: Account, is_rolled_up: bool
) -> None:
    budget = make_budget(account)
    send(account, [make_event(id="wrong", cost_usd="30"), make_event(cost_usd="1")])
    if is_rolled_up:
        roll_up(tenant_id=account.tenant.id)
    assert correct(account, "wrong").voided_nanos == 30 * NANOS
    (window,) = windows_of(account, budget)
    assert (window.spent_nanos, window.spent_requests) == (NANOS, 1)
    with account.scope():
        assert UsageEvent.objects.filter(is_void=True).get().cost_nanos == 30 * NANOS
        entries = LedgerEntry.objects.order_by("id").values_list("kind", "cost_nanos")
        assert list(entries) == [(EntryKind.USAGE, 31 * NANOS), (EntryKind.CORRECTION, -30 * NANOS)]


def test_a_replaced_event_counts_as_what_replaces_it(account: Account) -> None:
    budget = make_budget(account, per=["agent"])
    event = make_event(id="wrong", cost_usd="30", agent="a", response_id="msg_1")
    send(account, [event])
    corrected = correct(account, "wrong", cost_usd="2", agent="b", response_id="msg_1")
    assert (corrected.voided_nanos, corrected.replacement_nanos) == (30 * NANOS, 2 * NANOS)
    spent = {window.group_key: window.spent_nanos for window in windows_of(account, budget)}
    assert spent == {'["a"]': 0, '["b"]': 2 * NANOS}
    # What was sent first is history; what is stored now is a duplicate of the replacement.
    assert send(account, [event])["errors"][0]["code"] == "id_conflict"
    assert send(account, [make_event(response_id="msg_1")])["duplicates"] == 1


def test_the_same_correction_twice_counts_once_and_another_is_refused(account: Account) -> None:
    budget = make_budget(account)
    send(account, [make_event(id="wrong", cost_usd="30")])
    first = correct(account, "wrong", cost_usd="2")
    assert correct(account, "wrong", cost_usd="2") == first
    assert windows_of(account, budget)[0].spent_nanos == 2 * NANOS
    # A replacement can be corrected in turn; a voided event cannot.
    correct(account, "wrong")
    with pytest.raises(AlreadyCorrected):
        correct(account, "wrong", cost_usd="3")
    assert windows_of(account, budget)[0].spent_nanos == 0
    with account.scope():
        assert AuditEntry.objects.filter(object_type="correction").count() == 2


def test_two_at_once_take_the_event_back_once(account: Account) -> None:
    budget = make_budget(account)
    send(account, [make_event(id="wrong", cost_usd="30")])
    outcomes: list[Corrected] = []

    def run() -> None:
        outcomes.append(correct(account, "wrong"))
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6
    assert len(set(outcomes)) == 1
    assert windows_of(account, budget)[0].spent_nanos == 0
    with account.scope():
        assert Correction.objects.count() == 1


def test_a_correction_locks_windows_in_the_order_of_all_others(account: Account) -> None:
    make_budget(account, per=["user"])
    send(account, [make_event(cost_usd="1", user="a")])
    send(account, [make_event(id="wrong", cost_usd="2", user="b")])

    def move() -> None:
        correct(account, "wrong", cost_usd="2", user="a")
        connection.close()

    thread = threading.Thread(target=move)
    lock = "SELECT id FROM budget_window WHERE group_key = %s FOR UPDATE"
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND query LIKE '%%budget_window%%'"
    )
    with account.scope(), connection.cursor() as cursor:
        cursor.execute(lock, ['["a"]'])
        thread.start()
        ends_at = time.monotonic() + 10
        count = 0
        while not count and time.monotonic() < ends_at:
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(waiting, [])
            (count,) = cursor.fetchone()
        assert count == 1, "the correction waits for the first window"
        # It holds no later one, so nobody waits for it.
        cursor.execute(f"{lock} NOWAIT", ['["b"]'])
    thread.join()
    with account.scope():
        spent = BudgetWindow.objects.order_by("group_key").values_list("spent_nanos", flat=True)
        assert list(spent) == [3 * NANOS, 0]


def test_what_cannot_be_corrected_changes_nothing(account: Account, stranger: Account) -> None:
    budget = make_budget(account)
    send(account, [make_event(id="right", cost_usd="30")])
    with pytest.raises(NotFound):
        correct(account, "unknown")
    with pytest.raises(NotFound):
        correct(stranger, "right")
    with pytest.raises(InvalidRequest):
        correct(account, "right", usage={"nonsense": 1})
    assert windows_of(account, budget)[0].spent_nanos == 30 * NANOS


def test_voiding_a_single_call_empties_its_window(account: Account) -> None:
    budget = make_budget(account, cost_usd=1, per=["request"])
    send(account, [make_event(id="wrong", cost_usd="3")])
    correct(account, "wrong")
    assert [window.spent_nanos for window in windows_of(account, budget)] == [0]
