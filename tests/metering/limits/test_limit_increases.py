"""Temporary raises: asked for, decided once, in force until their end."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from common.errors import Conflict
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import LimitIncreaseRule
from metering.configuration.budgets import archive_budget
from metering.core.periods import EPOCH
from metering.limits import limit_increases
from metering.limits.limit_increases import (
    Added,
    AlreadyDecided,
    IncreaseAsk,
    LimitIncreaseOver,
    NotApproved,
    TooManyRequests,
    approve_increase,
    ask_for_increase,
    end_increase,
    end_increases_of_groups,
    refuse_increase,
)
from metering.models import Budget, LimitIncrease
from tenants.models import AuditEntry, Tenant
from tests.factories import NANOS, Account, make_budget

HOUR = timedelta(hours=1)


def ask(
    budget: Budget, *, ends_in: timedelta = HOUR, group_key: str = "", window_id: int | None = None
) -> LimitIncrease:
    """Five dollars more for an hour, unless told otherwise."""
    wanted = IncreaseAsk(
        add=Added(cost_nanos=5 * NANOS),
        reason="A large import",
        ends_at=timezone.now() + abs(ends_in),
        group_key=group_key,
        window_id=window_id,
        level_percent=None if window_id is None else 100,
    )
    asked = ask_for_increase(budget=budget, actor="an agent", ask=wanted)
    if ends_in < timedelta():
        LimitIncrease.objects.filter(id=asked.id).update(ends_at=timezone.now() + ends_in)
    return asked


def raises_in_force(account: Account, budget: Budget) -> tuple[LimitIncreaseRule, ...]:
    return read_budget_index(account.tenant.id).rules[budget.id].raises


def version(account: Account) -> int:
    return Tenant.objects.values_list("configuration_version", flat=True).get(id=account.tenant.id)


def facts(row: LimitIncrease) -> dict[str, object]:
    return dict(LimitIncrease.objects.filter(id=row.id).values().get())


def test_a_request_moves_nothing_and_an_approval_counts_at_once(account: Account) -> None:
    budget = make_budget(account, per=["agent"])
    with account.scope():
        before = version(account)
        asked = ask(budget, group_key='["a"]')
        assert (asked.status, asked.starts_at, asked.asked_by) == ("asked", None, "an agent")
        assert raises_in_force(account, budget) == ()
        assert version(account) == before
        approved = approve_increase(limit_increase=asked, actor="finance", note="Until noon")
        assert version(account) > before
        (rule,) = raises_in_force(account, budget)
        assert rule == LimitIncreaseRule(
            budget_id=budget.id,
            group_key='["a"]',
            starts_at=approved.starts_at or EPOCH,
            ends_at=asked.ends_at,
            cost_nanos=5 * NANOS,
            tokens=0,
            requests=0,
            tool_calls=0,
            seconds=0,
        )
        assert (approved.decided_by, approved.note) == ("finance", "Until noon")
        assert approved.starts_at == approved.decided_at
        entries = AuditEntry.objects.filter(object_type="limitincrease").order_by("id")
        assert [(entry.actor, entry.action) for entry in entries] == [
            ("an agent", "create"),
            ("finance", "approve"),
        ]


def test_a_decision_is_made_once(account: Account) -> None:
    budget = make_budget(account)
    with account.scope():
        approved = approve_increase(limit_increase=ask(budget), actor="one")
        refused = refuse_increase(limit_increase=ask(budget), actor="one", note="no")
        before = [facts(approved), facts(refused)]
        assert approve_increase(limit_increase=approved, actor="two").decided_by == "one"
        assert refuse_increase(limit_increase=refused, actor="two").decided_by == "one"
        with pytest.raises(AlreadyDecided, match="approved by one"):
            refuse_increase(limit_increase=approved, actor="two")
        with pytest.raises(AlreadyDecided, match="refused by one"):
            approve_increase(limit_increase=refused, actor="two")
        assert [facts(approved), facts(refused)] == before
        assert len(raises_in_force(account, budget)) == 1
        entries = AuditEntry.objects.filter(object_type="limitincrease")
        assert entries.count() == 4


def test_of_two_who_decide_at_once_one_decides(account: Account) -> None:
    budget = make_budget(account)
    with account.scope():
        rows = [ask(budget) for _ in range(6)]
    outcomes: list[str] = []

    def decide(row: LimitIncrease, actor: str, decision: Callable[..., LimitIncrease]) -> None:
        with account.scope():
            try:
                outcomes.append(decision(limit_increase=row, actor=actor).decided_by)
            except AlreadyDecided:
                outcomes.append("too late")
        connection.close()

    for row in rows:
        threads = [
            threading.Thread(target=decide, args=(row, actor, decision))
            for actor, decision in (("one", approve_increase), ("two", refuse_increase))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes.count("too late") == 6
    with account.scope():
        decided = LimitIncrease.objects.order_by("id")
        words = [(each.status, each.decided_by) for each in decided]
        assert set(words) <= {("approved", "one"), ("refused", "two")}
        approved = sum(status == "approved" for status, _ in words)
        assert len(raises_in_force(account, budget)) == approved
        entries = AuditEntry.objects.filter(object_type="limitincrease").exclude(action="create")
        assert entries.count() == 6


def test_what_is_over_or_limits_nothing_is_not_approved(account: Account) -> None:
    budget = make_budget(account)
    with account.scope():
        late = ask(budget, ends_in=-HOUR)
        with pytest.raises(LimitIncreaseOver):
            approve_increase(limit_increase=late, actor="one")
        waiting = ask(budget)
        budget = archive_budget(budget=budget, actor="one")
        with pytest.raises(Conflict, match="archived"):
            approve_increase(limit_increase=waiting, actor="one")
        with pytest.raises(Conflict, match="archived"):
            ask(budget)
        assert {facts(each)["status"] for each in (late, waiting)} == {"asked"}
        assert LimitIncrease.objects.count() == 2


def test_an_approved_raise_can_be_ended_before_its_time(account: Account) -> None:
    budget = make_budget(account)
    with account.scope():
        asked = ask(budget)
        with pytest.raises(NotApproved):
            end_increase(limit_increase=asked, actor="one")
        approve_increase(limit_increase=asked, actor="one")
        ended = end_increase(limit_increase=asked, actor="one")
        assert ended.ends_at <= timezone.now()
        assert raises_in_force(account, budget)[0].ends_at == ended.ends_at
        assert end_increase(limit_increase=asked, actor="one").ends_at == ended.ends_at


def test_a_level_that_holds_asks_once_for_its_window(account: Account) -> None:
    budget = make_budget(account)
    with account.scope():
        first = ask(budget, window_id=7)
        assert ask(budget, window_id=7).id == first.id
        assert ask(budget, window_id=8).id != first.id
        refuse_increase(limit_increase=first, actor="one")
        assert ask(budget, window_id=7).id == first.id, "a refusal stands"
        LimitIncrease.objects.filter(id=first.id).update(ends_at=timezone.now() - HOUR)
        second = ask(budget, window_id=7)
        assert (second.id != first.id, second.status) == (True, "asked")
        approve_increase(limit_increase=second, actor="one")
        third = ask(budget, window_id=7)
        assert (third.id != second.id, third.status) == (True, "asked"), "what was raised is used"


def test_a_request_that_nobody_decided_in_time_asks_for_the_time_to_come(account: Account) -> None:
    budget = make_budget(account)
    with account.scope():
        stale = ask(budget, window_id=7, ends_in=-HOUR)
        again = ask(budget, window_id=7)
        assert (again.id, again.status) == (stale.id, "asked")
        assert again.ends_at > timezone.now()
        assert LimitIncrease.objects.count() == 1


def test_an_agent_cannot_bury_people_in_requests(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit_increases, "OPEN_REQUESTS_MAX", 2)
    budget, other = make_budget(account), make_budget(account)
    with account.scope():
        first = ask(budget)
        ask(budget)
        with pytest.raises(TooManyRequests):
            ask(budget)
        assert LimitIncrease.objects.count() == 2
        ask(other)
        refuse_increase(limit_increase=first, actor="one")
        assert ask(budget).status == "asked"


def test_groups_that_are_no_more_are_raised_no_more(account: Account) -> None:
    budget = make_budget(account, per=["agent"])
    with account.scope():
        approved = approve_increase(limit_increase=ask(budget, group_key='["a"]'), actor="one")
        waiting = ask(budget, group_key='["b"]')
        for_all = approve_increase(limit_increase=ask(budget), actor="one")
        end_increases_of_groups(budget=budget, actor="one")
        for row in (approved, waiting, for_all):
            row.refresh_from_db()
        assert approved.ends_at <= timezone.now() < for_all.ends_at
        assert (waiting.status, waiting.note) == ("refused", "The budget's groups were changed.")
