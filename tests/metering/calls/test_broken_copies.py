"""What PostgreSQL may do to the COPY of a batch, and what becomes of its events."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from metering.calls.prepared_event import PreparedEvent
from metering.models import UsageEvent
from tests.factories import Account, make_event, send


def stored_ids(account: Account) -> set[str]:
    with account.scope():
        return set(UsageEvent.objects.values_list("sent_id", flat=True))


def write_lines_with(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[PreparedEvent, str], str]
) -> None:
    line = PreparedEvent.line
    monkeypatch.setattr(
        PreparedEvent, "line", lambda event, event_id: change(event, line(event, event_id))
    )


def test_a_value_that_postgresql_refuses_costs_no_other_event(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(event: PreparedEvent, line: str) -> str:
        return line.replace("\t", "\tno number", 1) if event.body.id == "bad" else line

    write_lines_with(monkeypatch, spoil)

    answer = send(account, [make_event(id=name) for name in ("good", "bad", "fine")])

    assert (answer["accepted"], answer["rejected"]) == (2, 1)
    assert [(error["id"], error["code"]) for error in answer["errors"]] == [
        ("bad", "invalid_value")
    ]
    assert stored_ids(account) == {"good", "fine"}


def test_a_connection_that_breaks_within_a_batch_is_made_anew(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = iter([True])

    def break_once(event: PreparedEvent, line: str) -> str:
        if next(breaks, False):
            own: Any = connection.connection
            with type(own).connect(own.info.dsn, password=own.info.password) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [own.info.backend_pid])
        return line

    write_lines_with(monkeypatch, break_once)

    answer = send(account, [make_event(id="once")])

    assert (answer["accepted"], answer["duplicates"]) == (1, 0)
    assert stored_ids(account) == {"once"}
