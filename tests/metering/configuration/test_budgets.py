"""Budgets after the fact: what counts where, since when, and what is said about it once."""

import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import time_machine
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.json_bodies import JsonObject
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import archive_budget, update_budget
from metering.intake.corrections import correct_event
from metering.jobs.tasks import age_rolling_windows, end_what_is_over
from metering.limits.halts import lift_halt, read_halts
from metering.limits.limit_increases import Added, IncreaseAsk, approve_increase, ask_for_increase
from metering.models import (
    BY_LEVEL,
    Budget,
    BudgetWindow,
    Crossing,
    Halt,
    LedgerEntry,
    LimitIncrease,
)
from metering.usage.decoders.native import EventBody
from tenants.models import AuditEntry
from tests.factories import NANOS, Account, make_budget, make_event, send, windows_of

pytestmark = pytest.mark.django_db(transaction=True)


def crossings(account: Account) -> list[tuple[int, str]]:
    with account.scope():
        rows = Crossing.objects.filter(tenant=account.tenant).order_by("id")
        return [(row.percent, row.action) for row in rows]


def spend(account: Account, usd: str, **fields: object) -> None:
    assert send(account, [make_event(cost_usd=usd, **fields)])["accepted"] == 1


def test_a_budget_made_in_mid_period_counts_what_was_spent(account: Account) -> None:
    spend(account, "30", agent="a")
    spend(account, "50", agent="b")
    budget = make_budget(account, per=["agent"], levels=[(25, "none"), (40, "block")])
    assert sorted(window.spent_nanos // NANOS for window in windows_of(account, budget)) == [30, 50]
    assert sorted(crossings(account)) == [(25, "none"), (25, "none"), (40, "block")]


def test_a_limit_on_time_counts_from_the_first_use_also_before_the_budget(account: Account) -> None:
    now = datetime.now(UTC)
    spend(account, "1", agent="a", time=(now - timedelta(hours=2)).isoformat())
    make_budget(account, cost_usd=None, limit_seconds=3600, per=["agent"], period="lifetime")
    assert crossings(account) == [(100, "block")]


def test_match_per_and_empty_values(account: Account) -> None:
    budget = make_budget(account, match={"team": ["x", "y"], "provider": "anthropic"}, per=["user"])
    spend(account, "1", team="x", user="u")
    spend(account, "2", team="y")
    spend(account, "4", team="z", user="u")
    spend(account, "8", team="x", user="u", provider="openai")
    result = {
        window.group_key: window.spent_nanos // NANOS for window in windows_of(account, budget)
    }
    # Leaving out the user escapes nothing: the empty value has a window of its own.
    assert result == {'["u"]': 1, '[""]': 2}


def test_every_kind_of_limit_is_counted(account: Account) -> None:
    budget = make_budget(
        account,
        cost_usd=None,
        limit_tokens=10_000,
        limit_requests=3,
        limit_tool_calls=2,
        levels=[(100, "block")],
    )
    send(account, [make_event(), make_event()])
    assert crossings(account) == []
    send(account, [make_event(tool="search", model=..., input_tokens=..., output_tokens=...)] * 1)
    send(
        account, [make_event(operation="tool", tool="search", input_tokens=..., output_tokens=...)]
    )
    (window,) = windows_of(account, budget)
    assert (window.spent_tokens, window.spent_requests, window.spent_tool_calls) == (2_200, 2, 2)
    assert crossings(account) == [(100, "block")]


def test_a_crossing_is_written_once(account: Account) -> None:
    make_budget(account, levels=[(50, "none"), (100, "block"), (120, "lockout")])
    spend(account, "49.999999999")
    assert crossings(account) == []
    spend(account, "0.000000001")
    assert crossings(account) == [(50, "none")]
    spend(account, "100")
    spend(account, "100")
    assert crossings(account) == [(50, "none"), (100, "block"), (120, "lockout")]


def test_two_batches_at_once_cross_a_level_once_and_lose_nothing(account: Account) -> None:
    budget = make_budget(account, levels=[(50, "none")], per=["agent"])
    spend(account, "0", agent="a")

    def run(number: int) -> None:
        for turn in range(10):
            spend(account, "2", agent="ab"[(number + turn) % 2])
            spend(account, "2", agent="ba"[(number + turn) % 2])
        connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [window.spent_nanos // NANOS for window in windows_of(account, budget)] == [80, 80]
    assert crossings(account) == [(50, "none"), (50, "none")]


def test_changing_a_limit_keeps_the_balance_and_says_what_is_reached_now(account: Account) -> None:
    budget = make_budget(account, levels=[(100, "block")])
    spend(account, "30")
    with account.scope():
        update_budget(budget=budget, actor="tests", changes={"limit_cost_nanos": 20 * NANOS})
    (window,) = windows_of(account, budget)
    assert window.spent_nanos == 30 * NANOS
    assert crossings(account) == [(100, "block")]


def test_changing_what_is_counted_counts_the_period_again(account: Account) -> None:
    budget = make_budget(account, match={"team": "x"})
    spend(account, "1", team="x")
    spend(account, "2", team="y")
    with account.scope():
        update_budget(budget=budget, actor="tests", changes={"match": {"team": "y"}})
    spend(account, "4", team="y")
    assert [window.spent_nanos // NANOS for window in windows_of(account, budget)] == [6]
    with account.scope():
        entry = AuditEntry.objects.filter(object_type="budget", action="update").get()
    assert entry.changes["match"] == [{"team": "x"}, {"team": "y"}]


def test_an_archived_budget_counts_no_more(account: Account) -> None:
    budget = make_budget(account)
    spend(account, "1")
    with account.scope():
        archive_budget(budget=budget, actor="tests")
    spend(account, "2")
    assert [window.spent_nanos // NANOS for window in windows_of(account, budget)] == [1]


def test_a_budget_made_while_batches_arrive_misses_none_and_counts_none_twice(
    account: Account,
) -> None:
    stop = threading.Event()
    sent = [0, 0]

    def run(number: int) -> None:
        while not stop.is_set():
            spend(account, "0.001", agent=f"a{number}")
            sent[number] += 1
        connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    budgets = [make_budget(account, per=["agent"]) for _ in range(5)]
    stop.set()
    for thread in threads:
        thread.join()
    for budget in budgets:
        assert sum(window.spent_requests for window in windows_of(account, budget)) == sum(sent)


def test_what_a_period_leaves_is_carried_over(account: Account) -> None:
    now = datetime.now(UTC).replace(minute=30)
    with time_machine.travel(now - timedelta(hours=2), tick=False):
        budget = make_budget(account, period="hour", has_rollover=True, rollover_max_percent=150)
        spend(account, "40", time=...)
    with time_machine.travel(now - timedelta(hours=1), tick=False):
        spend(account, "10", time=...)
    with time_machine.travel(now, tick=False):
        spend(account, "1", time=...)
        carried = [window.carried_nanos // NANOS for window in windows_of(account, budget)]
        # 100 - 40 = 60; then 100 + 60 - 10 = 150.
        assert carried == [0, 60, 150]
        # Usage that comes late takes from what was carried, all the way.
        late = (now - timedelta(hours=2)).isoformat()
        spend(account, "20", time=late)
        carried = [window.carried_nanos // NANOS for window in windows_of(account, budget)]
        assert carried == [0, 40, 130]


def test_a_rolling_window_lets_go_of_what_is_older_than_its_period(account: Account) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    with time_machine.travel(now - timedelta(minutes=50), tick=False):
        budget = make_budget(account, period="hour", is_rolling=True, levels=[(50, "block")])
        spend(account, "40", time=...)
    with time_machine.travel(now, tick=False):
        spend(account, "20", time=...)
        assert crossings(account) == [(50, "block")]
        age_rolling_windows()
        assert windows_of(account, budget)[0].spent_nanos == 60 * NANOS
    with time_machine.travel(now + timedelta(minutes=11), tick=False):
        age_rolling_windows()
        age_rolling_windows()
        (window,) = windows_of(account, budget)
        assert window.spent_nanos == 20 * NANOS
        spend(account, "100", time=(now - timedelta(minutes=55)).isoformat())
        assert windows_of(account, budget)[0].spent_nanos == 20 * NANOS
        # Below the level again, so that reaching it is news again.
        spend(account, "30", time=...)
        assert crossings(account) == [(50, "block"), (50, "block")]
        call_command("audit_ledger", verbosity=0)


def test_a_budget_on_single_calls_has_windows_for_the_calls_that_reach_a_level(
    account: Account,
) -> None:
    budget = make_budget(
        account, cost_usd=1, per=["request"], levels=[(80, "none"), (100, "block")]
    )
    spend(account, "0.5")
    spend(account, "0.8", id="near")
    spend(account, "3", id="beyond")
    assert sorted(window.spent_nanos for window in windows_of(account, budget)) == [
        800_000_000,
        3 * NANOS,
    ]
    assert sorted(crossings(account)) == [(80, "none"), (80, "none"), (100, "block")]


@pytest.mark.parametrize("part", ["balance", "event", "entry"])
def test_the_audit_finds_drift_of_every_kind(account: Account, part: str) -> None:
    make_budget(account)
    spend(account, "1")
    statements = {
        "balance": "UPDATE budget_window SET spent_nanos = spent_nanos + 1",
        "event": "UPDATE usage_event SET cost_nanos = cost_nanos + 1",
        "entry": "INSERT INTO ledger_entry (tenant_id, id, window_id, kind, cost_nanos,"
        " tokens, requests,"
        " tool_calls) SELECT tenant_id, 0, window_id, kind, 1, 0, 0, 0 FROM ledger_entry",
    }
    with account.scope(), connection.cursor() as cursor:
        cursor.execute(statements[part])
    with pytest.raises(CommandError, match=r"sums drift"):
        call_command("audit_ledger", verbosity=0)
    undo = {
        "balance": "UPDATE budget_window SET spent_nanos = spent_nanos - 1",
        "event": "UPDATE usage_event SET cost_nanos = cost_nanos - 1",
        "entry": "UPDATE budget_window SET spent_nanos = spent_nanos + 1;"
        " UPDATE usage_event SET cost_nanos = cost_nanos + 1",
    }
    with account.scope(), connection.cursor() as cursor:
        cursor.execute(undo[part])


def test_a_window_cannot_hold_less_than_nothing(account: Account) -> None:
    make_budget(account)
    spend(account, "1")
    with account.scope(), pytest.raises(Exception, match="budget_window_spent_not_negative"):
        BudgetWindow.objects.filter(tenant=account.tenant).update(spent_nanos=-1)
    with account.scope():
        assert LedgerEntry.objects.filter(tenant=account.tenant).count() == 1


def test_levels_follow_the_notice_they_were_given(account: Account) -> None:
    budget = make_budget(account)
    with account.scope():
        update_budget(
            budget=budget,
            actor="tests",
            changes={},
            levels=[LevelRule(10, "none", ("team_lead", "finance"))],
        )
    spend(account, "11")
    with account.scope():
        assert Crossing.objects.get().notify == ["team_lead", "finance"]


def levels_of(account: Account, budget: Budget) -> list[int]:
    return [window.level_percent for window in windows_of(account, budget)]


def set_limit(account: Account, budget: Budget, usd: int, **changes: object) -> None:
    with account.scope():
        changes = {"limit_cost_nanos": usd * NANOS, **changes}
        update_budget(budget=budget, actor="tests", changes=changes)


def in_force(account: Account) -> list[tuple[int | None, str]]:
    with account.scope(), connection.cursor() as cursor:
        standing = {halt.id for halt in read_halts(cursor, account.tenant.id)}
        halts = Halt.objects.filter(id__in=standing).order_by("id")
        return [(halt.level_percent, halt.match.get("agent", "")) for halt in halts]


LOCKING = [(70, "none"), (100, "block"), (120, "lockout")]


def test_a_level_falls_with_a_raised_limit_and_is_reached_and_locks_out_again(
    account: Account,
) -> None:
    budget = make_budget(account, cost_usd=1, levels=LOCKING)
    spend(account, "1.25")
    assert (levels_of(account, budget), in_force(account)) == ([120], [(120, "")])
    set_limit(account, budget, 10)
    assert (levels_of(account, budget), in_force(account)) == ([0], [])
    spend(account, "5.8")
    assert crossings(account)[3:] == [(70, "none")]
    spend(account, "5")
    assert crossings(account)[4:] == [(100, "block"), (120, "lockout")]
    assert (levels_of(account, budget), in_force(account)) == ([120], [(120, "")])
    # A lower limit falls below nothing, and a name changes nothing.
    set_limit(account, budget, 9)
    with account.scope():
        update_budget(budget=budget, actor="tests", changes={"name": "other"})
    assert (len(crossings(account)), levels_of(account, budget)) == (6, [120])


@pytest.mark.parametrize(
    "part", ["limit_tokens", "limit_requests", "limit_tool_calls", "limit_seconds"]
)
def test_a_level_falls_and_rises_in_every_part(account: Account, part: str) -> None:
    kind = {"operation": "tool", "tool": "search"} if part == "limit_tool_calls" else {}
    limit: JsonObject = {
        "limit_tokens": 2000,
        "limit_requests": 2,
        "limit_tool_calls": 2,
        "limit_seconds": 60,
    }
    fields: JsonObject = {part: limit[part], "period": "lifetime"}
    budget = make_budget(account, cost_usd=None, **fields)
    now = datetime.now(UTC)
    with time_machine.travel(now, tick=False):
        spend(account, "0", **kind)
        spend(account, "0", **kind)
    with time_machine.travel(now + timedelta(seconds=61), tick=False):
        if part == "limit_seconds":
            spend(account, "0")
        assert levels_of(account, budget) == [100]
        for factor, level in ((10, 0), (1, 100)):
            with account.scope():
                changes = {part: limit[part] * factor}
                update_budget(budget=budget, actor="tests", changes=changes)
            assert levels_of(account, budget) == [level]
    assert crossings(account) == [(100, "block")] * 2


def test_a_rolling_window_that_falls_keeps_the_levels_that_it_still_reaches(
    account: Account,
) -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    levels = [(70, "lockout"), (90, "none"), (100, "block")]
    with time_machine.travel(now - timedelta(minutes=50), tick=False):
        budget = make_budget(account, period="hour", is_rolling=True, levels=levels)
        spend(account, "6", time=...)
    with time_machine.travel(now, tick=False):
        spend(account, "95", time=...)
        with account.scope():
            lift_halt(halt=Halt.objects.get(), actor="ann")
    with time_machine.travel(now + timedelta(minutes=11), tick=False):
        age_rolling_windows()
        assert levels_of(account, budget) == [90]
        spend(account, "1", time=...)
        # 96%: nothing new, and what a person lifted stays lifted.
        assert (len(crossings(account)), in_force(account)) == (3, [])
        spend(account, "4", time=...)
        assert crossings(account)[3:] == [(100, "block")]


def test_a_void_lets_the_level_fall_and_a_like_replacement_does_not(account: Account) -> None:
    budget = make_budget(account, cost_usd=1, levels=LOCKING)
    spend(account, "1.3", id="dear")

    def correct(usd: str | None) -> None:
        event = make_event(id="dear", cost_usd=usd)
        body = None if usd is None else msgspec.convert(event, EventBody)
        correct_event(
            tenant_id=account.tenant.id,
            source="tests",
            sent_id="dear",
            replacement=body,
            reason="wrong",
            actor="ann",
        )

    correct("1.25")
    assert (levels_of(account, budget), in_force(account)) == ([120], [(120, "")])
    correct("0.8")
    assert (levels_of(account, budget), in_force(account)) == ([70], [])
    correct(None)
    assert levels_of(account, budget) == [0]
    spend(account, "1.3")
    assert crossings(account)[3:] == LOCKING
    assert in_force(account) == [(120, "")]


def test_an_increase_lets_the_level_fall_and_its_end_lets_it_rise(account: Account) -> None:
    budget = make_budget(account, cost_usd=1, levels=LOCKING, per=["agent"])
    for agent in "ab":
        spend(account, "1.5", agent=agent)
    until = datetime.now(UTC) + timedelta(hours=1)
    with account.scope():
        ask = IncreaseAsk(Added(cost_nanos=NANOS), "release", until, group_key='["a"]')
        asked = ask_for_increase(budget=budget, actor="agent", ask=ask)
        approve_increase(limit_increase=asked, actor="ann")
    assert (levels_of(account, budget), in_force(account)) == ([70, 120], [(120, "b")])
    spend(account, "0.2", agent="a")
    with account.scope():
        # The crossing's limit is the raised one.
        LimitIncrease.objects.update(ends_at=datetime.now(UTC) - timedelta(seconds=1))
    assert end_what_is_over() == 1
    assert end_what_is_over() == 0
    assert sorted(levels_of(account, budget)) == [120, 120]
    assert in_force(account) == [(120, "b"), (120, "a")]
    with account.scope():
        limits = Crossing.objects.order_by("-id").values_list("percent", "limit_nanos")[:2]
        assert list(limits) == [(120, NANOS), (100, NANOS)]


def test_many_increases_that_ended_are_judged_a_few_a_transaction(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = make_budget(account, cost_usd=1, levels=LOCKING)
    until = datetime.now(UTC) + timedelta(hours=1)
    with account.scope():
        for number in range(5):
            ask = IncreaseAsk(Added(cost_nanos=NANOS), f"release {number}", until)
            asked = ask_for_increase(budget=budget, actor="agent", ask=ask)
            approve_increase(limit_increase=asked, actor="ann")
        LimitIncrease.objects.update(ends_at=datetime.now(UTC) - timedelta(seconds=1))
    monkeypatch.setattr("metering.limits.limit_increases.ENDED_MAX", 2)
    with CaptureQueriesContext(connection) as queries:
        assert end_what_is_over() == 5
    assert end_what_is_over() == 0
    judged = [query["sql"] for query in queries if 'SET "judged_at"' in query["sql"]]
    assert len(judged) == 3  # 2, 2, 1


def test_a_crossing_names_the_limit_with_what_was_raised(account: Account) -> None:
    budget = make_budget(account, cost_usd=50, levels=[(80, "none")])
    with account.scope():
        until = datetime.now(UTC) + timedelta(hours=1)
        ask = IncreaseAsk(Added(cost_nanos=50 * NANOS), "release", until)
        asked = ask_for_increase(budget=budget, actor="agent", ask=ask)
        approve_increase(limit_increase=asked, actor="ann")
    spend(account, "80")
    with account.scope():
        crossing = Crossing.objects.get()
        assert crossing.used_percent == 80
        assert crossing.limit_nanos == 100 * NANOS


def test_a_lockout_ends_with_its_period_its_mode_its_revision_and_its_budget(
    account: Account,
) -> None:
    now = datetime.now(UTC)
    budget = make_budget(account, cost_usd=1, levels=LOCKING, period="day")
    spend(account, "2", time=now.isoformat())
    (window,) = windows_of(account, budget)
    with account.scope():
        assert Halt.objects.get().ends_at == window.ends_at
        # The day is over by the database's clock: nothing is in force any more, and then it is said
        # to be lifted.
        Halt.objects.update(ends_at=now - timedelta(seconds=1))
    assert in_force(account) == []
    assert end_what_is_over() == 1
    with account.scope():
        assert Halt.objects.get().lifted_by == BY_LEVEL
        update_budget(budget=budget, actor="ann", changes={"mode": "warn"})
        assert in_force(account) == []
        update_budget(budget=budget, actor="ann", changes={"mode": "enforce"})
    assert in_force(account) == [(120, "")]
    with account.scope():
        update_budget(budget=budget, actor="ann", changes={"match": {"agent": "b"}})
    assert in_force(account) == []
    spend(account, "2", agent="b")
    assert in_force(account) == [(120, "b")]
    with account.scope():
        archive_budget(budget=Budget.objects.get(), actor="ann")
    assert in_force(account) == []


def test_less_that_is_carried_over_lets_a_level_be_reached(account: Account) -> None:
    now = datetime.now(UTC).replace(minute=30)
    earlier = now - timedelta(hours=1)
    with time_machine.travel(earlier, tick=False):
        budget = make_budget(account, cost_usd=10, period="hour", has_rollover=True)
        spend(account, "0", time=...)
    with time_machine.travel(now, tick=False):
        spend(account, "15", time=...)
        assert levels_of(account, budget) == [0, 0]
        spend(account, "6", id="late", time=earlier.isoformat())
        assert levels_of(account, budget) == [0, 100]
        correct_event(
            tenant_id=account.tenant.id,
            source="tests",
            sent_id="late",
            replacement=None,
            reason="wrong",
            actor="ann",
        )
        assert levels_of(account, budget) == [0, 0]
