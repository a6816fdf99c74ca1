"""What a process remembers of windows: an id counts only once the transaction that opened it
committed.

Afterwards the account's fixture proves every balance.
"""

import threading
from typing import Any

import pytest
from django.db import connection

from metering import window_opening
from metering.models import BudgetWindow
from metering.window_opening import open_windows
from tests.factories import Account, make_budget, make_event, send


def spent_nanos(account: Account) -> list[int]:
    with account.scope():
        return list(BudgetWindow.objects.values_list("spent_nanos", flat=True))


def test_a_window_whose_opening_was_rolled_back_is_opened_again(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_and_fail(**arguments: Any) -> None:
        open_windows(**arguments)
        raise ConnectionError("the server ended before the commit")

    with account.scope():
        make_budget(account, period="month")
    monkeypatch.setattr(window_opening, "open_windows", open_and_fail)
    with pytest.raises(ConnectionError):
        send(account, [make_event(cost_usd="1")])
    monkeypatch.setattr(window_opening, "open_windows", open_windows)

    send(account, [make_event(cost_usd="2")])

    assert spent_nanos(account) == [2_000_000_000]


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

    with account.scope():
        make_budget(account, period="month")
    monkeypatch.setattr(window_opening, "open_windows", open_and_wait)
    first = threading.Thread(target=send_first)
    first.start()
    assert opened.wait(10)
    monkeypatch.setattr(window_opening, "open_windows", open_windows)
    send(account, [make_event(cost_usd="2")])
    may_commit.set()
    first.join()

    assert spent_nanos(account) == [3_000_000_000]
