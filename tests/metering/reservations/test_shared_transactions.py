"""Batches of several tenants in one transaction: each as if it were alone."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import psycopg
import pytest
from django.db import OperationalError, connection
from django.utils import timezone
from psycopg.generators import send

from metering.limits.halt_watch import forget_halts
from metering.models import Decision, Reservation, UsageEvent
from metering.reservations import batch
from metering.reservations.commands import Command, Reserve, Settle
from metering.reservations.committer import PROCESS_ENFORCER
from metering.reservations.request import ReservationRequest, decode_reservation
from metering.reservations.shared_transaction import run_together
from metering.reservations.transaction import run_batch
from metering.usage.decoders.native import EventBody, decode_event
from tests.factories import NANOS, Account, make_account, make_budget, windows_of
from tests.metering.api.caller import caller


def reserve(account: Account, usd: str = "1") -> Reserve:
    body = decode_reservation(msgspec.json.encode({"amount_usd": usd, "agent": "a"}))
    request = ReservationRequest(body, key_prefix="", at=timezone.now())
    return Reserve(account.tenant.id, request, ttl_seconds=60)


def settle(account: Account, reservation: Reserve, **event: object) -> Settle:
    body = msgspec.json.encode({"id": "call", "cost_usd": "1.25", **event})
    decoded = decode_event(body, default_id="")
    assert isinstance(decoded, EventBody)
    return Settle(account.tenant.id, reservation.id, decoded)


def together(*commands: Command) -> set[int]:
    """Run commands of several tenants together; return the tenants that must be run apart."""
    work: dict[int, list[Command]] = {}
    for command in commands:
        work.setdefault(command.tenant_id, []).append(command)
    return set(run_together(work))


def met(account: Account, **budget: Any) -> Account:
    """The account, with a budget of $10, as a process knows it that has served it before."""
    made = make_budget(account, cost_usd=10, **budget)
    first = reserve(account)
    run_batch(account.tenant.id, [first])
    run_batch(account.tenant.id, [settle(account, first, id="first", cost_usd="1")])
    assert [window.spent_nanos for window in windows_of(account, made)] == [NANOS]
    return account


def sums(account: Account) -> list[tuple[int, int]]:
    """What is spent and reserved in the account's windows."""
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("SELECT spent_nanos::bigint, reserved_nanos::bigint FROM budget_window")
        return [tuple(row) for row in cursor.fetchall()]


@pytest.fixture
def pair(account: Account, stranger: Account) -> tuple[Account, Account]:
    """Two tenants that this process has served."""
    return met(account), met(stranger)


def test_tenants_share_two_round_trips_and_nothing_else(
    pair: tuple[Account, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = pair
    sent: list[None] = []

    def counted(raw: object) -> object:
        sent.append(None)
        return send(raw)

    monkeypatch.setattr("tenants.pipeline.send", counted)
    # In the other order than that of their ids.
    asked = [reserve(other, "3"), reserve(first, "2"), reserve(first, "4")]
    assert together(*asked) == set()
    assert len(sent) == 2
    assert [sums(account) for account in pair] == [[(NANOS, 6 * NANOS)], [(NANOS, 3 * NANOS)]]
    for account, ids in ((first, {asked[1].id, asked[2].id}), (other, {asked[0].id})):
        with account.scope():
            assert {each.id for each in Reservation.objects.filter(state=1)} == ids

    settled = [
        settle(first, asked[1]),
        settle(other, asked[0], cost_usd="2.5"),
        reserve(first, "1"),
    ]
    assert together(*settled) == set()
    assert len(sent) == 4
    assert [command.error for command in (*asked, *settled)] == [None] * 6
    assert sums(first) == [(9 * NANOS // 4, 5 * NANOS)]
    assert sums(other) == [(7 * NANOS // 2, 0)]
    for account in pair:
        with account.scope():
            assert UsageEvent.objects.count() == 2


def test_a_refusal_is_its_tenants_own(pair: tuple[Account, Account]) -> None:
    first, other = pair
    asked = [reserve(first, "9.5"), reserve(other, "9")]
    assert together(*asked) == set()
    assert [command.error and command.error.code for command in asked] == ["budget_exceeded", None]
    assert [sums(account) for account in pair] == [[(NANOS, 0)], [(NANOS, 9 * NANOS)]]
    for account, count in ((first, 1), (other, 0)):
        with account.scope():
            assert Decision.objects.count() == count


def halted_elsewhere(account: Account, monkeypatch: pytest.MonkeyPatch) -> Command:
    caller(account).post("/v1/halts", {"match": {"agent": "a"}, "reason": "r"})
    forget_halts()
    # Its watcher may hear of it meanwhile.
    monkeypatch.setattr(batch, "remembered_halts", lambda _: None)
    return reserve(account)


def configured_elsewhere(account: Account, monkeypatch: pytest.MonkeyPatch) -> Command:
    make_budget(account, cost_usd=1)
    return reserve(account)


def settled_before(account: Account, monkeypatch: pytest.MonkeyPatch) -> Command:
    made = reserve(account)
    run_batch(account.tenant.id, [made])
    run_batch(account.tenant.id, [settle(account, made)])
    return settle(account, made)


def reported_before(account: Account, monkeypatch: pytest.MonkeyPatch) -> Command:
    made = reserve(account)
    run_batch(account.tenant.id, [made])
    return settle(account, made, id="first", cost_usd="1")


def reaching_a_level(account: Account, monkeypatch: pytest.MonkeyPatch) -> Command:
    made = reserve(account, "9")
    run_batch(account.tenant.id, [made])
    return settle(account, made, cost_usd="9")


def holding_too_long(account: Account, monkeypatch: pytest.MonkeyPatch) -> Command:
    run_batch(account.tenant.id, [reserve(account)])
    with account.scope():
        Reservation.objects.filter(state=1).update(expires_at="2020-01-01T00:00:00Z")
    return reserve(account)


UNFIT: Sequence[Callable[[Account, pytest.MonkeyPatch], Command]] = (
    halted_elsewhere,
    configured_elsewhere,
    settled_before,
    reported_before,
    reaching_a_level,
    holding_too_long,
)


@pytest.mark.parametrize("prepare", UNFIT)
def test_a_tenant_that_is_not_as_expected_keeps_no_other_from_its_answer(
    pair: tuple[Account, Account],
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Account, pytest.MonkeyPatch], Command],
) -> None:
    first, other = pair
    unfit, plain = prepare(first, monkeypatch), reserve(other)
    before = sums(first)

    assert together(unfit, plain) == {first.tenant.id}
    assert plain.answer is not None
    assert (sums(first), sums(other)) == (before, [(NANOS, NANOS)])

    run_batch(first.tenant.id, [unfit])
    assert (unfit.answer is None) == (unfit.error is not None)


def test_what_is_not_known_of_a_tenant_is_read_by_its_own_transaction(
    account: Account, stranger: Account
) -> None:
    make_budget(account)
    met(stranger)
    assert together(reserve(account), reserve(stranger)) == {account.tenant.id}
    assert (sums(account), sums(stranger)) == ([], [(NANOS, NANOS)])


def test_who_holds_one_tenants_rows_keeps_no_other_waiting(pair: tuple[Account, Account]) -> None:
    first, other = pair
    connection.ensure_connection()
    info = connection.connection.info
    with psycopg.connect(info.dsn, password=info.password) as holder:
        holder.execute(f"SET LOCAL spendgate.tenant = '{first.tenant.id}'")
        holder.execute("SELECT FROM budget_window FOR UPDATE")
        asked = [reserve(first), reserve(other)]
        assert together(*asked) == {first.tenant.id, other.tenant.id}
        # The other's own transaction does not wait for the rows.
        run_batch(other.tenant.id, [asked[1]])
        assert asked[1].answer is not None
    run_batch(first.tenant.id, [asked[0]])
    assert [sums(account) for account in pair] == [[(NANOS, NANOS)]] * 2


def test_what_was_committed_without_an_answer_is_held_once(
    pair: tuple[Account, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than half of the $9 that are left: a second look would refuse what is granted.
    asked = [reserve(account, "6") for account in pair]

    def lose(*_: object) -> None:
        connection.close()
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patched:
        patched.setattr("metering.reservations.shared_transaction.remember_held", lose)
        apart = together(*asked)
    assert apart == {account.tenant.id for account in pair}
    for command in asked:
        run_batch(command.tenant_id, [command])
    assert [command.error for command in asked] == [None, None]
    assert [sums(account) for account in pair] == [[(NANOS, 6 * NANOS)]] * 2


def test_many_tenants_at_once_hold_no_more_than_their_limits(account: Account) -> None:
    accounts = [met(each) for each in (account, *(make_account() for _ in range(5)))]
    waiting: list[Reserve] = []
    done: list[Exception | None] = []
    # $9 are left to each of them, which four of ten callers get.
    for command in [reserve(each, "2") for _ in range(10) for each in accounts]:
        waiting.append(command)
        PROCESS_ENFORCER.enqueue(command, done.append)
    PROCESS_ENFORCER.stop()
    assert done == [None] * len(waiting)
    granted = [command for command in waiting if command.answer is not None]
    assert len(granted) == 4 * len(accounts)
    assert [sums(each) for each in accounts] == [[(NANOS, 8 * NANOS)]] * len(accounts)
