"""What a process remembers counts while it hears of changes, and a second otherwise."""

import threading
import time
from collections.abc import Iterator

import pytest
from django.db import connection, transaction

from config.processes import wait_until
from tenants import remembered
from tenants.changes import ChangeListener, tell_change
from tenants.keys import create_api_key, find_key_holder, revoke_api_key
from tenants.remembered import Remembered
from tests.factories import Account

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def listener() -> Iterator[ChangeListener]:
    """One that hears from the database; `wait_until(listener.is_live)` before relying on it."""
    listener = ChangeListener()
    yield listener
    listener.stop()


def values_of(listener: ChangeListener, *, size_max: int = 10) -> Remembered[int, str]:
    return Remembered("configuration", int, size_max=size_max, listener=listener)


def no_read(known: str | None) -> str:
    raise AssertionError(f"read although {known!r} is known")


def test_without_a_listener_a_value_counts_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    values = values_of(ChangeListener())
    assert values.current(1, lambda _: "first") == "first"
    assert values.current(1, no_read) == "first"
    later = time.monotonic() + remembered.UNTOLD_SECONDS + 0.01
    monkeypatch.setattr("tenants.remembered.time.monotonic", lambda: later)
    assert values.current(1, lambda known: f"after {known}") == "after first"


def test_a_value_that_is_told_of_counts_until_it_changes(
    listener: ChangeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "UNTOLD_SECONDS", 0.0)
    values = values_of(listener)
    listener.start()
    assert wait_until(listener.is_live, 10)
    assert values.current(1, lambda _: "first") == "first"
    assert values.current(2, lambda _: "other") == "other"
    assert values.current(1, no_read) == "first"

    with transaction.atomic():
        tell_change("configuration", 1)
    assert wait_until(lambda: listener.count == 1, 10)
    assert values.current(1, lambda _: "second") == "second"
    assert values.current(2, no_read) == "other"


def test_what_changes_while_it_is_read_is_read_again(
    listener: ChangeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "UNTOLD_SECONDS", 0.0)
    values = values_of(listener)
    listener.start()
    assert wait_until(listener.is_live, 10)

    def read_before_a_change(_: str | None) -> str:
        tell_change("configuration", 1)
        assert wait_until(lambda: listener.count == 1, 10)
        return "before the change"

    assert values.current(1, read_before_a_change) == "before the change"
    assert values.current(1, lambda _: "after it") == "after it"


def test_a_lost_connection_is_made_anew_and_what_was_known_is_asked_for(
    listener: ChangeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "UNTOLD_SECONDS", 0.0)
    monkeypatch.setattr("tenants.changes.log.warning", lambda *words, **named: None)
    values = values_of(listener)
    listener.start()
    assert wait_until(listener.is_live, 10)
    assert values.current(1, lambda _: "first") == "first"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE query LIKE '%pg_notify%' AND pid <> pg_backend_pid()"
        )
    assert wait_until(lambda: listener.session == 2 and listener.is_live(), 10)
    assert values.current(1, lambda _: "second") == "second"


def test_one_caller_reads_what_is_out_of_date_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = values_of(ChangeListener())
    values.current(1, lambda _: "first")
    later = time.monotonic() + remembered.UNTOLD_SECONDS + 0.01
    monkeypatch.setattr("tenants.remembered.time.monotonic", lambda: later)
    reading, may_end = threading.Event(), threading.Event()

    def read(_: str | None) -> str:
        reading.set()
        may_end.wait(10)
        return "second"

    thread = threading.Thread(target=values.current, args=[1, read])
    thread.start()
    assert reading.wait(10)
    assert values.current(1, no_read) == "first"
    may_end.set()
    thread.join()
    assert values.current(1, no_read) == "second"


def test_a_reading_that_fails_is_the_next_ones() -> None:
    values = values_of(ChangeListener())

    def fail(_: str | None) -> str:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        values.current(1, fail)
    assert values.current(1, lambda _: "first") == "first"
    assert values.last_known(1) == "first"


def test_those_used_longest_ago_give_way() -> None:
    values = values_of(ChangeListener(), size_max=2)
    for key in (1, 2):
        values.current(key, str)
    values.current(1, no_read)
    values.current(3, str)
    assert [values.last_known(key) for key in (1, 2, 3)] == ["None", None, "None"]


def test_a_revoked_key_is_refused_as_soon_as_that_is_told(
    account: Account, listener: ChangeListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Remembered[str, object]("key", str, size_max=10, listener=listener)
    monkeypatch.setattr("tenants.keys._KNOWN", known)
    # Without a word of the change it would count for ever.
    monkeypatch.setattr(remembered, "UNTOLD_SECONDS", 1e9)
    listener.start()
    assert wait_until(listener.is_live, 10)
    with account.scope():
        key, text = create_api_key(tenant=account.tenant, name="k", actor="tests")
    assert find_key_holder(text) is not None
    with account.scope():
        revoke_api_key(key=key, actor="tests")
    assert wait_until(lambda: find_key_holder(text) is None, 10)
