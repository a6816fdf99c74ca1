"""Callers are combined, and nobody's work keeps other tenants from theirs."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import psycopg
import pytest
from django.db import DataError, InternalError, OperationalError

from common.database_errors import is_of_all, is_of_value
from metering.core import committer as committing
from metering.core.committer import (
    BATCH_SECONDS,
    LITTLE_THREADS_MAX,
    TENANTS_TOGETHER_MAX,
    WEIGHT_TOGETHER_MAX,
    Committer,
    _Entry,
    _Waiting,
)


@dataclass(eq=False)
class Portion:
    """Item of so many events; `bad` are those that the database refuses."""

    tenant_id: int
    weight: int = 1
    bad: frozenset[int] = frozenset()
    done: list[int] = field(default_factory=list)

    def pieces(self, weight_max: int) -> list["Portion"]:
        sizes = [weight_max] * (self.weight // weight_max)
        rest = self.weight % weight_max
        return [Portion(self.tenant_id, size) for size in [*sizes, *([rest] if rest else [])]]


Commit = Callable[[int, Sequence[Portion]], Sequence[Portion]]


@pytest.fixture(autouse=True)
def _without_database(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        def close(self) -> None: ...

    monkeypatch.setattr(committing, "connection", Connection())


def submit(committer: Committer[Portion], work: Portion, errors: list[BaseException]) -> None:
    try:
        committer.submit(work)
    except BaseException as error:
        errors.append(error)


def in_threads(
    committer: Committer[Portion], works: Sequence[Portion], errors: list[BaseException]
) -> list[threading.Thread]:
    threads = [
        threading.Thread(target=submit, args=(committer, work, errors), daemon=True)
        for work in works
    ]
    for thread in threads:
        thread.start()
    return threads


def test_a_tenant_whose_turns_never_end_leaves_a_thread_to_the_others() -> None:
    go_on = threading.Event()
    served: list[int] = []

    def commit(tenant_id: int, works: Sequence[Portion]) -> Sequence[Portion]:
        if tenant_id == 1:
            go_on.wait(10)
        served.append(tenant_id)
        return ()

    committer = Committer(commit, name="test", weight_max=1)
    slow = in_threads(committer, [Portion(1) for _ in range(6)], [])
    for _ in range(3):
        committer.submit(Portion(2))
    assert served == [2, 2, 2]
    go_on.set()
    for thread in slow:
        thread.join()
    committer.stop()
    assert sorted(served) == [1] * 6 + [2] * 3


def queued(committer: Committer[Portion], tenant_id: int, *weights: int) -> None:
    entries = [_Entry(Portion(tenant_id, weight), _Waiting(lambda _: None)) for weight in weights]
    with committer._changed:
        committer._queue(tenant_id, entries)


def taken(committer: Committer[Portion]) -> tuple[int, list[int]]:
    batch = committer._take()
    assert batch is not None
    return batch.tenant_id, [entry.item.weight for entry in batch.taken]


def test_while_others_wait_a_turn_is_as_long_as_the_last_one_allows() -> None:
    committer: Committer[Portion] = Committer(
        lambda *_: (), name="test", weight_max=100, weight_min=2
    )
    queued(committer, 1, 10)
    batch = committer._take()
    assert batch is not None
    # Ten events took five times as long as a batch may take.
    committer._end_batch(batch, seconds=5 * BATCH_SECONDS)
    queued(committer, 1, 1, 1, 1)
    assert taken(committer) == (1, [1, 1, 1])
    queued(committer, 1, 7, 1)
    queued(committer, 2, 50)
    # The large one is cut to what two events take, and the tenants take batches.
    assert taken(committer) == (1, [2])
    assert taken(committer) == (2, [50])
    queued(committer, 3, 1)
    with committer._changed:
        committer._running.clear()
        committer._queue(1, [])
    assert taken(committer) == (3, [1])
    assert taken(committer) == (1, [2, 2, 1, 1])


def test_works_that_fail_together_are_committed_apart_and_only_the_bad_one_fails() -> None:
    batches: list[int] = []

    def commit(tenant_id: int, works: Sequence[Portion]) -> Sequence[Portion]:
        batches.append(len(works))
        if any(work.bad for work in works):
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no")
        return ()

    committer = Committer(commit, name="test", threads=1, tenant_threads=1)
    works = [Portion(1, bad=frozenset([1]) if number == 2 else frozenset()) for number in range(5)]
    errors: list[BaseException] = []
    with committer._changed:
        # All have arrived before the first batch begins.
        threads = in_threads(committer, works, errors)
        while sum(thread.is_alive() for thread in threads) < 5:
            pass
    for thread in threads:
        thread.join()
    committer.stop()
    assert [type(error) for error in errors] == [UnicodeEncodeError]
    assert sum(batches) >= 5


def test_where_nobody_could_be_served_everybody_is_told_at_once() -> None:
    def commit(tenant_id: int, works: Sequence[Portion]) -> Sequence[Portion]:
        raise OperationalError("the connection is closed")

    committer = Committer(commit, name="test", threads=1, tenant_threads=1)
    errors: list[BaseException] = []
    for thread in in_threads(committer, [Portion(1) for _ in range(4)], errors):
        thread.join()
    committer.stop()
    assert [type(error) for error in errors] == [OperationalError] * 4


def test_a_caller_waits_for_all_pieces_of_its_work() -> None:
    weights: list[int] = []

    def commit(tenant_id: int, works: Sequence[Portion]) -> Sequence[Portion]:
        weights.append(works[0].weight)
        if works[0].weight > 2:
            return works[0].pieces(2)
        return ()

    committer = Committer(commit, name="test", weight_max=4)
    committer.submit(Portion(1, weight=9))
    committer.stop()
    assert sorted(weights) == [1, 2, 2, 2, 2, 4, 4]


def test_what_little_waits_of_several_tenants_is_taken_together() -> None:
    committer: Committer[Portion] = Committer(
        lambda *_: (), name="test", tenant_threads=1, commit_together=lambda _: ()
    )
    queued(committer, 1, 1, 1)
    queued(committer, 2, *[1] * (WEIGHT_TOGETHER_MAX + 1))
    for tenant_id in range(3, 3 + TENANTS_TOGETHER_MAX):
        queued(committer, tenant_id, 1)

    first = committer._take()
    assert first is not None
    along = committer._take_along(first)
    assert [batch.tenant_id for batch in along] == list(range(3, 2 + TENANTS_TOGETHER_MAX))
    assert [entry.item.weight for entry in first.taken] == [1, 1]
    # Of whom much waits, and who is one too many.
    much = committer._take()
    assert much is not None
    assert (much.tenant_id, committer._take_along(much)) == (2, [])
    assert taken(committer) == (2 + TENANTS_TOGETHER_MAX, [1])


def test_while_enough_threads_work_for_little_only_those_of_whom_much_waits_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(committing, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    committer: Committer[Portion] = Committer(
        lambda *_: (), name="test", tenant_threads=1, commit_together=lambda _: ()
    )
    for number in range(LITTLE_THREADS_MAX):
        queued(committer, 10 + number, 1)
        assert taken(committer) == (10 + number, [1])
    queued(committer, 1, 1)
    assert committer._next_tenant() is None
    queued(committer, 2, *[1] * (WEIGHT_TOGETHER_MAX + 1))
    assert committer._next_tenant() == 2
    # They are held up.
    clock[0] += BATCH_SECONDS
    assert committer._next_tenant() == 1


@pytest.mark.parametrize("is_raising", [False, True])
def test_who_cannot_be_committed_with_others_is_committed_apart(is_raising: bool) -> None:
    served: list[int] = []
    shared: list[set[int]] = []
    has_begun, go_on = threading.Event(), threading.Event()

    def commit(tenant_id: int, works: Sequence[Portion]) -> Sequence[Portion]:
        if tenant_id == 1:
            has_begun.set()
            go_on.wait(10)
        served.append(tenant_id)
        return ()

    def commit_together(work: Mapping[int, Sequence[Portion]]) -> Collection[int]:
        shared.append(set(work))
        if is_raising:
            raise ZeroDivisionError
        return {3}

    committer = Committer(
        commit, name="test", threads=1, tenant_threads=1, commit_together=commit_together
    )
    errors: list[BaseException] = []
    callers = in_threads(committer, [Portion(1)], errors)
    has_begun.wait(10)
    callers += in_threads(committer, [Portion(number) for number in (2, 3, 4)], errors)
    while len(committer._ready) < 3:
        pass
    go_on.set()
    for thread in callers:
        thread.join()
    committer.stop()
    assert (shared, errors) == ([{2, 3, 4}], [])
    assert sorted(served) == ([1, 2, 3, 4] if is_raising else [1, 3])


def test_the_sqlstate_tells_whose_error_it_is() -> None:
    def of(cause: psycopg.Error, kind: type[Exception]) -> Exception:
        error = kind("localised words")
        error.__cause__ = cause
        return error

    for error, of_value, of_all in (
        (of(psycopg.errors.NumericValueOutOfRange(), DataError), True, False),
        (of(psycopg.errors.ProgramLimitExceeded(), OperationalError), True, False),
        (of(psycopg.errors.QueryCanceled(), OperationalError), False, True),
        (of(psycopg.errors.IdleInTransactionSessionTimeout(), InternalError), False, True),
        (psycopg.errors.IdleInTransactionSessionTimeout(), False, True),
        (of(psycopg.errors.InFailedSqlTransaction(), InternalError), False, False),
        (OperationalError("no answer"), False, True),
        (ValueError("no"), False, False),
    ):
        assert (is_of_value(error), is_of_all(error)) == (of_value, of_all)
