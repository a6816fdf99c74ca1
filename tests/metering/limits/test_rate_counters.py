"""A sliding minute: never more than the limit within any 60 seconds, in any process, and no
deadlock.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from metering.jobs import retention
from metering.limits.rate_counters import (
    SLOTS,
    RateCounterKey,
    SlidingMinute,
    forget_idle_rate_counters,
    lock_rate_counters,
    write_rate_counters,
)
from metering.models import RateCounter
from tests.factories import Account

NOW = 1_800_000_000


def minute_at(second: int) -> SlidingMinute:
    minute = SlidingMinute.empty(("calls",))
    minute.advance(second)
    return minute


def test_what_was_counted_leaves_after_a_whole_minute_and_not_before() -> None:
    minute = minute_at(NOW)
    minute.add(calls=5)
    minute.advance(NOW + 60)
    assert minute.sum("calls") == 5
    minute.advance(NOW + 61)
    assert minute.sum("calls") == 0
    assert minute.amounts["calls"] == [0] * SLOTS


def test_the_wait_is_the_first_second_at_which_the_amount_fits() -> None:
    minute = minute_at(NOW)
    minute.add(calls=6)
    minute.advance(NOW + 10)
    minute.add(calls=4)
    assert minute.seconds_until("calls", 0, 10) == 0
    assert minute.seconds_until("calls", 6, 10) == 51
    assert minute.seconds_until("calls", 7, 10) == 61
    minute.advance(NOW + 61)
    assert minute.seconds_until("calls", 6, 10) == 0


def test_an_amount_above_the_limit_gets_an_empty_minute_and_nothing_follows_within_it() -> None:
    minute = minute_at(NOW)
    minute.add(calls=1)
    assert minute.seconds_until("calls", 50, 10) == 61
    minute.advance(NOW + 61)
    assert minute.seconds_until("calls", 50, 10) == 0
    minute.add(calls=50)
    assert minute.seconds_until("calls", 1, 10) == 61
    # What asks for nothing of a measure does not wait for it.
    assert minute.seconds_until("calls", 0, 10) == 0


def test_a_clock_behind_counts_with_the_one_ahead_and_a_wrong_one_heals() -> None:
    minute = minute_at(NOW)
    minute.add(calls=3)
    minute.advance(NOW - 60)
    assert (minute.last_second, minute.sum("calls")) == (NOW, 3)
    minute.advance(NOW - 3600)
    assert (minute.last_second, minute.sum("calls")) == (NOW - 3600, 3)
    minute.advance(NOW - 3600 + 61)
    assert minute.sum("calls") == 0


@pytest.mark.parametrize("seed", range(3))
def test_within_any_sixty_seconds_no_more_than_the_limit_is_granted(seed: int) -> None:
    random, limit = Random(seed), 20
    minute = SlidingMinute.empty(("calls",))
    granted: list[tuple[float, int]] = []
    at = float(NOW)
    for _ in range(3000):
        at += random.choice((0.0, 0.3, 1.0, 7.5, 70.0)) * random.random()
        amount = random.randint(1, 8)
        minute.advance(int(at))
        wait_seconds = minute.seconds_until("calls", amount, limit)
        if wait_seconds == 0:
            minute.add(calls=amount)
            granted.append((at, amount))
            continue
        # The wait is exact: a second less would not do.
        early, on_time = minute_of(granted), minute_of(granted)
        early.advance(int(at) + wait_seconds - 1)
        assert early.sum("calls") + amount > limit
        on_time.advance(int(at) + wait_seconds)
        assert on_time.sum("calls") + amount <= limit
    for index, (end, _) in enumerate(granted):
        recent = granted[max(0, index - limit) : index + 1]
        assert sum(amount for at, amount in recent if at > end - 60) <= limit


def minute_of(granted: list[tuple[float, int]]) -> SlidingMinute:
    minute = SlidingMinute.empty(("calls",))
    for at, amount in granted[-100:]:
        minute.advance(int(at))
        minute.add(calls=amount)
    return minute


def in_threads(count: int, run: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            run(number)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def grant(account: Account, keys: list[tuple[str, str]], *, limit: int, now: int) -> bool:
    """One request of every subject, or of none."""
    with account.scope(), connection.cursor() as cursor:
        states = lock_rate_counters(cursor, account.tenant.id, keys)
        for state in states.values():
            state.minute.advance(now)
        if any(state.minute.seconds_until("requests", 1, limit) for state in states.values()):
            return False
        for state in states.values():
            state.add(nanos=10, tokens=5, requests=1)
        write_rate_counters(cursor, account.tenant.id, states.values())
        return True


@pytest.mark.django_db(transaction=True)
def test_many_at_once_get_the_limit_and_not_one_more(account: Account) -> None:
    granted: list[bool] = []

    def run(number: int) -> None:
        for _ in range(20):
            granted.append(grant(account, [("limit:1", '["a"]')], limit=30, now=NOW))

    in_threads(4, run)
    assert granted.count(True) == 30
    with account.scope():
        pace = RateCounter.objects.get(tenant=account.tenant)
        assert (sum(pace.requests), sum(pace.tokens), sum(pace.nanos)) == (30, 150, 300)
        assert pace.requests[NOW % SLOTS] == 30
        assert pace.last_second == NOW


@pytest.mark.django_db(transaction=True)
def test_rate_counters_opened_and_locked_at_once_in_any_order_never_block_each_other(
    account: Account,
) -> None:
    def run(number: int) -> None:
        random = Random(number)
        for turn in range(40):
            # New ones in every turn, among those that others have opened meanwhile.
            keys = [("limit:1", str(turn + index)) for index in range(4)]
            random.shuffle(keys)
            assert grant(account, keys, limit=1000, now=NOW)

    in_threads(4, run)
    with account.scope():
        assert sum(
            sum(pace.requests) for pace in RateCounter.objects.filter(tenant=account.tenant)
        ) == (4 * 40 * 4)


@pytest.mark.django_db(transaction=True)
def test_a_rate_counter_is_its_own_for_each_subject_group_and_tenant(
    account: Account, stranger: Account
) -> None:
    assert grant(account, [("limit:1", '["a"]'), ("limit:2", '["a"]')], limit=1, now=NOW)
    assert grant(account, [("limit:1", '["b"]')], limit=1, now=NOW)
    assert grant(stranger, [("limit:1", '["a"]')], limit=1, now=NOW)
    assert not grant(account, [("limit:1", '["a"]'), ("limit:3", '["a"]')], limit=1, now=NOW)
    with account.scope(), connection.cursor() as cursor:
        assert lock_rate_counters(cursor, account.tenant.id, []) == {}
        states = lock_rate_counters(cursor, account.tenant.id, [("limit:1", '["a"]')])
        assert states[RateCounterKey("limit:1", '["a"]')].minute.sums == {
            "nanos": 10,
            "tokens": 5,
            "requests": 1,
        }


@pytest.mark.django_db(transaction=True)
def test_rate_counters_of_which_nothing_counts_are_forgotten(account: Account) -> None:
    grant(account, [("limit:1", '["old"]')], limit=1, now=NOW - 3600)
    grant(account, [("limit:1", '["new"]')], limit=1, now=NOW)
    with account.scope(), connection.cursor() as cursor:
        assert forget_idle_rate_counters(cursor, before_second=NOW - SLOTS, limit=10) == 1
    with account.scope():
        assert [pace.group_key for pace in RateCounter.objects.filter(tenant=account.tenant)] == [
            '["new"]'
        ]


@pytest.mark.django_db(transaction=True)
def test_idle_groups_go_by_index_a_chunk_a_transaction(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        grant(account, [("limit:1", f'["{number}"]')], limit=1, now=NOW - number)
    monkeypatch.setattr(retention, "ROWS_A_CHUNK", 2)
    idle_from = datetime.fromtimestamp(NOW + retention.IDLE_RATE_COUNTER_SECONDS, tz=UTC)
    with time_machine.travel(idle_from, tick=False), CaptureQueriesContext(connection) as queries:
        assert retention.remove_idle_groups(seconds=10) == 4
    deletes = [query["sql"] for query in queries if "DELETE FROM" in query["sql"]]
    # 2, 2, none; and no breaker's.
    assert ["rate_counter" in statement for statement in deletes] == [True, True, True, False]
    assert sum(query["sql"] == "COMMIT" for query in queries) == 4
    with account.scope(), connection.cursor() as cursor:
        assert [pace.last_second for pace in RateCounter.objects.all()] == [NOW]
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        for statement, index in (
            (deletes[0], "rate_counter_idle"),
            (deletes[3], "breaker_state_idle"),
        ):
            cursor.execute(f"EXPLAIN {statement}")
            assert index in "\n".join(row[0] for row in cursor.fetchall())
