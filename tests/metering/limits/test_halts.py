"""What stops calls: halts by hand, by a breaker, and by a level that locks out."""

import threading
from datetime import timedelta

import pytest
import time_machine
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from common.json_bodies import JsonObject
from metering.core.dimensions import MATCHABLE
from metering.limits.halts import (
    ActiveHalts,
    halt,
    insert_halt,
    is_wide,
    lift_halt,
    match_of_group,
    note_halts,
    read_halts,
    remembered_halts,
)
from metering.models import Breaker, BreakerState, Halt
from tenants.models import AuditEntry
from tenants.scope import change_configuration
from tests.factories import Account


def values(**dimensions: str) -> tuple[str, ...]:
    return tuple(dimensions.get(name, "") for name in MATCHABLE)


def in_force(account: Account) -> ActiveHalts:
    with account.scope(), connection.cursor() as cursor:
        return read_halts(cursor, account.tenant.id)


def make_halt(account: Account, match: JsonObject, reason: str = "it loops") -> Halt:
    with account.scope():
        return halt(tenant=account.tenant, match=match, reason=reason, actor="tests")


def lift(account: Account, made: Halt) -> Halt:
    with account.scope():
        return lift_halt(halt=made, actor="finance")


def test_a_halt_stops_what_matches_and_nothing_else(account: Account) -> None:
    make_halt(account, {"agent": "researcher"})
    make_halt(account, {"team": ["growth", "sales"], "customer": None})
    halts = in_force(account)
    assert [result.code for result in halts.matching(values(agent="researcher"))] == ["halted"]
    assert not halts.matching(values(agent="writer"))
    assert halts.matching(values(team="sales", agent="writer"))
    assert not halts.matching(values(team="sales", customer="acme"))
    assert not halts.matching(values())
    assert len(halts.matching(values(team="growth", agent="researcher"))) == 2


def test_an_empty_match_stops_everything(account: Account) -> None:
    make_halt(account, {})
    halts = in_force(account)
    assert halts.matching(values())
    assert halts.matching(values(agent="researcher", team="growth"))


def test_halts_by_hand_are_told_first_and_then_the_oldest(account: Account) -> None:
    with account.scope(), connection.cursor() as cursor:
        for number in (1, 2):
            lock_out(cursor, account, window_id=number)
    make_halt(account, {"team": "growth"})
    result = in_force(account).matching(values(agent="researcher", team="growth"))
    assert [each.code for each in result] == ["halted", "locked_out", "locked_out"]
    assert result[1].id < result[2].id


def test_a_halt_of_very_many_combinations_stops_them_all(account: Account) -> None:
    agents, teams = [f"a{number}" for number in range(40)], [f"t{number}" for number in range(40)]
    make_halt(account, {"agent": agents, "team": teams})
    halts = in_force(account)
    assert halts.matching(values(agent="a39", team="t39"))
    assert not halts.matching(values(agent="a39", team="t40"))


def test_a_halt_is_gone_once_it_is_lifted_and_lifting_again_changes_nothing(
    account: Account,
) -> None:
    made = make_halt(account, {"agent": "researcher"})
    lifted = lift(account, made)
    assert lifted.version > made.version
    assert lifted.lifted_by == "finance"
    assert in_force(account) == ()
    again = lift(account, made)
    assert (again.version, again.lifted_at) == (lifted.version, lifted.lifted_at)
    with account.scope():
        entries = AuditEntry.objects.filter(object_type="halt").order_by("id")
        assert [(entry.action, entry.actor) for entry in entries] == [
            ("create", "tests"),
            ("update", "finance"),
        ]
        assert entries[0].changes == {
            "kind": [None, "manual"],
            "match": [None, {"agent": "researcher"}],
            "reason": [None, "it loops"],
        }
        assert entries[1].changes["lifted_by"] == ["", "finance"]


def test_halts_of_one_tenant_stop_nobody_elses_calls(account: Account, stranger: Account) -> None:
    make_halt(account, {})
    assert in_force(stranger) == ()
    assert len(in_force(account)) == 1


def lock_out(cursor: CursorWrapper, account: Account, **cause: int) -> int | None:
    cause = {"window_id": 7, "level_percent": 120, "episode": 0, **cause}
    return insert_halt(
        cursor,
        tenant_id=account.tenant.id,
        match={"agent": "researcher"},
        reason="120 % of the budget",
        kind="lockout",
        actor="budget 1",
        window_id=cause["window_id"],
        level_percent=cause["level_percent"],
        episode=cause["episode"],
    )


def test_a_level_locks_out_once_a_window_and_episode_even_after_it_was_lifted(
    account: Account,
) -> None:
    with account.scope(), connection.cursor() as cursor:
        first = lock_out(cursor, account)
        assert first is not None
        assert lock_out(cursor, account) is None
        lift_halt(halt=Halt.objects.get(id=first), actor="finance")
        assert lock_out(cursor, account) is None
        assert lock_out(cursor, account, episode=1) is not None
        assert lock_out(cursor, account, level_percent=150) is not None
        assert lock_out(cursor, account, window_id=8) is not None


def test_a_halt_that_has_ended_stops_nothing_however_long_it_is_remembered(
    account: Account,
) -> None:
    with account.scope(), connection.cursor() as cursor:
        halt_id = insert_halt(
            cursor,
            tenant_id=account.tenant.id,
            match={},
            reason="120% of the budget",
            kind="lockout",
            actor="budget 1",
            ends_at=timezone.now() + timedelta(minutes=1),
        )
        (halt,) = read_halts(cursor, account.tenant.id)
        assert halt.id == halt_id
        remembered = read_halts(cursor, account.tenant.id)
        assert remembered.matching(values(agent="a"))
        with time_machine.travel(timezone.now() + timedelta(minutes=2), tick=False):
            assert not remembered.matching(values(agent="a"))
        # By the mark alone every process finds that it must read again.
        Halt.objects.update(ends_at=timezone.now() - timedelta(seconds=1))
        assert read_halts(cursor, account.tenant.id) == ()
        assert read_halts(cursor, account.tenant.id).mark != remembered.mark


def make_breaker(account: Account, close: str) -> Breaker:
    breaker = Breaker.objects.create(
        tenant=account.tenant,
        name="Too fast",
        cost_nanos_per_minute=1,
        close=close,
        cool_down_seconds=60,
    )
    BreakerState.objects.create(
        tenant=account.tenant,
        id=1,
        breaker_id=breaker.id,
        group_key='["researcher"]',
        nanos=[],
        calls=[],
        errors=[],
        opened_at=timezone.now(),
    )
    return breaker


def open_breaker(cursor: CursorWrapper, account: Account, breaker: Breaker) -> int | None:
    return insert_halt(
        cursor,
        tenant_id=account.tenant.id,
        match={"agent": "researcher"},
        reason="$5 within a minute",
        kind="breaker",
        actor=f"breaker {breaker.id}",
        breaker_id=breaker.id,
        group_key='["researcher"]',
    )


def test_a_breaker_halts_its_group_once_at_a_time(account: Account) -> None:
    with account.scope(), connection.cursor() as cursor:
        breaker = make_breaker(account, "hand")
        first = open_breaker(cursor, account, breaker)
        assert first is not None
        assert open_breaker(cursor, account, breaker) is None
        lift_halt(halt=Halt.objects.get(id=first), actor="finance")
        assert open_breaker(cursor, account, breaker) is not None


@pytest.mark.parametrize(("close", "is_certain_later"), [("hand", True), ("trial", False)])
def test_a_breaker_refuses_without_a_look_until_a_probe_may_be_due(
    account: Account, close: str, is_certain_later: bool
) -> None:
    with account.scope(), connection.cursor() as cursor:
        open_breaker(cursor, account, make_breaker(account, close))
    (halt,) = in_force(account)
    assert halt.code == "breaker_open"
    now = timezone.now()
    assert halt.is_certain(now)
    assert halt.is_certain(now + timedelta(seconds=61)) is is_certain_later


def test_halts_that_have_not_changed_are_not_read_again(account: Account) -> None:
    made = make_halt(account, {"agent": "researcher"})
    first = in_force(account)
    assert in_force(account) is first
    assert remembered_halts(account.tenant.id) is first
    make_halt(account, {"agent": "writer"})
    assert len(in_force(account)) == 2
    lift(account, made)
    assert [each.match for each in in_force(account)] == [{"agent": "writer"}]


def test_a_halt_that_commits_after_a_later_one_is_seen(account: Account) -> None:
    """The version of the first is below what was seen already."""
    is_first_written, may_commit = threading.Event(), threading.Event()

    def halt_slowly() -> None:
        try:
            with account.scope():
                halt(tenant=account.tenant, match={"agent": "slow"}, reason="slow", actor="tests")
                is_first_written.set()
                may_commit.wait(10)
        finally:
            connection.close()

    thread = threading.Thread(target=halt_slowly)
    thread.start()
    is_first_written.wait(10)
    make_halt(account, {"agent": "quick"})
    seen = in_force(account)
    assert [each.match["agent"] for each in seen] == ["quick"]
    may_commit.set()
    thread.join()
    now_seen = in_force(account)
    assert [each.match["agent"] for each in now_seen] == ["slow", "quick"]
    assert now_seen.mark.version == seen.mark.version
    assert now_seen.mark != seen.mark


def test_a_halt_does_not_wait_for_who_writes_usage(account: Account) -> None:
    is_locked, may_go_on = threading.Event(), threading.Event()

    def hold_the_configuration() -> None:
        try:
            with account.scope():
                change_configuration(account.tenant.id)
                is_locked.set()
                may_go_on.wait(10)
        finally:
            connection.close()

    thread = threading.Thread(target=hold_the_configuration)
    thread.start()
    is_locked.wait(10)
    with account.scope(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '1s'")
        halt(tenant=account.tenant, match={}, reason="now", actor="tests")
    assert len(in_force(account)) == 1
    may_go_on.set()
    thread.join()


def test_an_older_reading_never_replaces_a_newer_one(account: Account) -> None:
    tenant_id = account.tenant.id
    old = in_force(account)
    make_halt(account, {"agent": "researcher"})
    new = in_force(account)
    old.read_at = new.read_at - 1
    note_halts(tenant_id, old)
    assert remembered_halts(tenant_id) is new


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, True),
        ({"team": None}, True),
        ({"customer": ["acme", None], "operation": ["llm", "tool"]}, True),
        ({"operation": "llm"}, True),
        ({"agent": "researcher"}, False),
        ({"agent": ["researcher", "writer"], "team": None}, False),
    ],
)
def test_a_match_that_may_be_about_every_call_is_wide(match: JsonObject, expected: bool) -> None:
    assert is_wide(match) is expected


@pytest.mark.parametrize(
    ("match", "per", "group", "expected"),
    [
        ({"team": "growth"}, ["agent"], ["reader"], {"team": "growth", "agent": "reader"}),
        ({"team": ["a", "b"]}, ["team"], ["b"], {"team": "b"}),
        ({}, ["agent", "session"], ["", "s-1"], {"agent": None, "session": "s-1"}),
        ({}, ["request", "agent"], ["reader", "call-7"], {"agent": "reader"}),
        ({"customer": None}, [], [], {"customer": None}),
    ],
)
def test_the_match_of_a_group_names_its_values(
    match: JsonObject, per: list[str], group: list[str], expected: JsonObject
) -> None:
    assert match_of_group(match, per, group) == expected
