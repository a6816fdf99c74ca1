"""Windows as people watch them: the bar that is drawn, and when a window runs out."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine

from dashboard.budgets.bars import bar_of
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule, LevelRule
from metering.configuration.budgets import archive_budget
from metering.jobs.tasks import age_rolling_windows
from metering.ledger.windows import WindowState
from metering.models import Budget
from metering.reporting import budget_windows, fullest_windows
from metering.reporting.budget_windows import Outlook, WatchedWindow, outlook, watched_windows
from tests.factories import NANOS, Account, make_budget, make_event, send

START = datetime(2026, 11, 22, tzinfo=UTC)
LEVELS = [LevelRule(70, "none", ()), LevelRule(100, "block", ()), LevelRule(120, "lockout", ())]


def make_rule(*, is_rolling: bool = False) -> BudgetRule:
    budget = Budget(
        id=1, name="all", period="day", limit_cost_nanos=100 * NANOS, is_rolling=is_rolling
    )
    budget.counts_from = START
    return BudgetRule(budget, LEVELS)


def make_state(*, spent: int, ends_at: datetime | None = START + timedelta(days=1)) -> WindowState:
    return WindowState(
        1, 1, 1, "[]", START, ends_at, spent, 0, 0, 0, 0, 0, 0, 0, carried_nanos=0,
        counted_from=None, first_used_at=START, level_percent=0, episode=0,
    )  # fmt: skip


def judge(percent: int, hours: float, **changes: Any) -> Outlook:
    state = make_state(spent=percent * NANOS, **changes)
    now = START + timedelta(hours=hours)
    return outlook(make_rule(), state, percent=Decimal(percent), now=now)


def test_a_window_that_fills_too_fast_runs_out_at_its_rate() -> None:
    assert judge(50, 6) == Outlook(runs_out_at=START + timedelta(hours=12))


def test_a_window_that_lasts_says_where_it_ends() -> None:
    assert judge(25, 12) == Outlook(end_percent=Decimal(50))


def test_a_full_window_is_over_and_an_empty_or_new_one_says_nothing() -> None:
    assert judge(100, 6) == Outlook(is_over=True)
    assert judge(0, 6) == Outlook()
    assert judge(5, 0.1) == Outlook()


def test_rolling_windows_have_no_estimate_since_usage_leaves_them_too() -> None:
    state = make_state(spent=50 * NANOS)
    now = START + timedelta(hours=6)
    assert outlook(make_rule(is_rolling=True), state, percent=Decimal(50), now=now) == Outlook()


def test_a_lifetime_that_lasts_for_years_says_nothing() -> None:
    assert judge(1, 48, ends_at=None) == Outlook()
    assert judge(50, 48, ends_at=None) == Outlook(runs_out_at=START + timedelta(hours=96))


def watched(percent: int, reserved: int) -> WatchedWindow:
    return WatchedWindow(
        rule=make_rule(),
        state=make_state(spent=percent * NANOS),
        group=(),
        part="cost_nanos",
        spent=percent * NANOS,
        reserved=reserved * NANOS,
        limit=100 * NANOS,
        percent=Decimal(percent),
        reserved_percent=Decimal(reserved),
        windows=1,
        outlook=Outlook(),
    )


@pytest.mark.parametrize(
    ("percent", "reserved", "spent_width", "over_width", "reserved_width", "is_cut"),
    [
        (60, 30, "50", "0", "25", False),
        (110, 0, "83.33", "8.33", "0", False),
        (500, 0, "62.5", "37.5", "0", True),
        (0, 0, "0", "0", "0", False),
    ],
)
def test_the_bar_keeps_spent_reserved_and_beyond_apart(
    percent: int,
    reserved: int,
    spent_width: str,
    over_width: str,
    reserved_width: str,
    is_cut: bool,
) -> None:
    bar = bar_of(watched(percent, reserved))
    assert bar.spent_width == Decimal(spent_width)
    assert bar.over_width == Decimal(over_width)
    assert bar.reserved_width == Decimal(reserved_width)
    assert bar.is_cut is is_cut
    assert bar.spent_width + bar.over_width + bar.reserved_width <= 100


def test_the_fullest_windows_of_each_budget_come_first(account: Account) -> None:
    make_budget(account, name="agents", per=["agent"], cost_usd=1)
    make_budget(account, name="calls", cost_usd=None, limit_requests=2)
    make_budget(account, name="single calls", per=["request"], cost_usd=1)
    gone = make_budget(account, name="gone")
    send(account, [make_event(agent=agent, cost_usd="0.10") for agent in "aab"])
    with account.scope():
        archive_budget(budget=gone, actor="tests")
        watch = watched_windows(
            tenant_id=account.tenant.id,
            book=read_budget_index(account.tenant.id),
            now=datetime.now(UTC),
            per_budget=1,
        )
    windows = watch.windows
    assert [
        (window.rule.name, window.group, window.part, window.percent) for window in windows
    ] == [
        ("calls", (), "requests", Decimal(150)),
        ("agents", (("agent", "a"),), "cost_nanos", Decimal(20)),
    ]
    assert [(window.windows, window.tone) for window in windows] == [(1, "over"), (2, "calm")]
    assert watch.over == 1


def test_all_windows_are_counted_and_not_the_shown_ones_alone(account: Account) -> None:
    make_budget(account, name="agents", per=["agent"], cost_usd=1, period="year")
    spent = {"a": "1.00", "b": "2.5", "c": "0.99", "d": "0.000000001"}
    send(account, [make_event(agent=agent, cost_usd=usd) for agent, usd in spent.items()])
    with account.scope():
        watch = watched_windows(
            tenant_id=account.tenant.id,
            book=read_budget_index(account.tenant.id),
            now=datetime.now(UTC),
            per_budget=1,
        )
    assert [window.percent for window in watch.windows] == [Decimal(250)]
    assert watch.over == 2


def test_of_windows_without_end_the_newest_and_those_at_a_level_are_ranked(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked_max = fullest_windows.RANKED_MAX
    make_budget(account, per=["session"], cost_usd=1, period="lifetime", levels=[(90, "none")])
    for session, usd in [("full", "0.95"), ("old", "0.80"), ("new", "0.10"), ("newer", "0.20")]:
        send(account, [make_event(session=session, cost_usd=usd)])
    statement = fullest_windows._FULLEST.replace(f"LIMIT {ranked_max}", "LIMIT 2")
    assert statement.count("LIMIT 2") == 2
    monkeypatch.setattr(fullest_windows, "_FULLEST", statement)
    monkeypatch.setattr(budget_windows, "RANKED_MAX", 2)
    with account.scope():
        watch = watched_windows(
            tenant_id=account.tenant.id,
            book=read_budget_index(account.tenant.id),
            now=datetime.now(UTC),
            per_budget=9,
        )
    assert [window.group[0][1] for window in watch.windows] == ["full", "newer", "new"]
    assert all(window.has_more for window in watch.windows)


def test_rolling_windows_that_count_nothing_are_not_ranked(account: Account) -> None:
    make_budget(account, per=["agent"], cost_usd=1, period="hour", is_rolling=True)
    now = datetime.now(UTC)
    with time_machine.travel(now - timedelta(hours=3), tick=False):
        send(account, [make_event(agent="a", cost_usd="0.10", time=...)])
    send(account, [make_event(agent="b", cost_usd="0.10")])
    age_rolling_windows()
    with account.scope():
        watch = watched_windows(
            tenant_id=account.tenant.id,
            book=read_budget_index(account.tenant.id),
            now=now,
            per_budget=9,
        )
    assert [window.group[0][1] for window in watch.windows] == ["b"]
    assert not watch.windows[0].has_more
