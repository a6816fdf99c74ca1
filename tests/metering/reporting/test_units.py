"""What one unit cost: exact, by bucket and whole, beside the time before; and coordination."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from metering.models import UnitCount
from metering.reporting import UsageQuestion
from metering.reporting.coordination import Handoffs, coordination
from metering.reporting.units import (
    BUILT_IN,
    Unit,
    UnitFigures,
    UnitReport,
    posted_units,
    unit_report,
)
from metering.usage.outcomes import report_outcome
from metering.usage.unit_counts import report_unit_count
from tests.factories import Account, make_account, make_event, send
from tests.metering.reporting.test_usage import snapshot

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
TICKETS = Unit("tickets solved", is_posted=True)


def question(account: Account, days: int = 0, **fields: Any) -> UsageQuestion:
    """The two days that end so many days before tomorrow."""
    ends_at = TODAY + timedelta(days=1 - days)
    fields = {"starts_at": ends_at - timedelta(days=2), "ends_at": ends_at} | fields
    return UsageQuestion(tenant_id=account.tenant.id, **fields)


def report(account: Account, unit: Unit, **fields: Any) -> UnitReport:
    with snapshot(account):
        before = question(account, days=2, **fields)
        return unit_report(question(account, **fields), unit, previous=before)


def call(days: int, cost_usd: str, **fields: object) -> dict[str, Any]:
    """A call so many days before today, an hour into the day."""
    at = TODAY + timedelta(days=-days, hours=1)
    return make_event(time=at.isoformat(), cost_usd=cost_usd, **fields)


def post(account: Account, day: date, count: int, name: str = TICKETS.name) -> None:
    with account.scope():
        report_unit_count(tenant_id=account.tenant.id, name=name, day=day, count=count)


def test_costs_are_divided_by_how_many_there_were(account: Account) -> None:
    send(
        account,
        [
            call(0, "1", customer="a", user="u", session="s", feature="f"),
            call(0, "1", customer="b", user="u", session="t", feature="f"),
            call(1, "1.000000001", customer="a", user="v", session="s"),
            call(2, "5", customer="c", user="u", session="z", feature="g"),
            call(3, "6", customer="c", user="w", session="y", feature="f"),
        ],
    )
    customers = report(account, Unit("customer"))
    assert [row.start for row in customers.rows] == [TODAY - timedelta(days=1), TODAY]
    assert [row.figures for row in customers.rows] == [
        UnitFigures(1_000_000_001, 1),
        UnitFigures(2_000_000_000, 2),
    ]
    assert [row.previous for row in customers.rows] == [
        UnitFigures(6_000_000_000, 1),
        UnitFigures(5_000_000_000, 1),
    ]
    assert customers.total == UnitFigures(3_000_000_001, 2)
    assert customers.total.each_nanos == 1_500_000_001
    assert customers.previous_total == UnitFigures(11_000_000_000, 1)
    assert report(account, Unit("user")).total.units == 2
    assert report(account, Unit("session")).total.units == 2
    assert report(account, Unit("feature")).total.units == 1
    only_a = report(account, Unit("user"), filters={"customer": ("a",)})
    assert only_a.total == UnitFigures(2_000_000_001, 2)


def test_a_success_counts_at_the_last_call_of_its_work(account: Account) -> None:
    send(account, [call(1, "1", session="s"), call(0, "2", session="s"), call(0, "4", session="t")])
    with account.scope():
        for session, is_success in (("s", True), ("t", False)):
            report_outcome(
                tenant_id=account.tenant.id,
                task="",
                session=session,
                is_success=is_success,
                value_nanos=None,
            )
    successes = report(account, Unit("success"))
    assert [row.figures.units for row in successes.rows] == [0, 1]
    assert successes.rows[0].figures.each_nanos is None
    assert successes.total == UnitFigures(7_000_000_000, 1)


def test_the_last_count_of_a_day_counts_and_days_are_the_tenants(account: Account) -> None:
    send(account, [call(0, "3"), call(1, "5")])
    post(account, TODAY.date(), 1)
    post(account, TODAY.date(), 2)
    post(account, TODAY.date() - timedelta(days=1), 5)
    post(account, TODAY.date() - timedelta(days=2), 7)
    post(account, TODAY.date(), 100, name="other")
    post(make_account(), TODAY.date(), 100)
    tickets = report(account, TICKETS)
    assert [row.figures.units for row in tickets.rows] == [5, 2]
    assert [row.previous and row.previous.units for row in tickets.rows] == [0, 7]
    assert tickets.total.each_nanos == 1_142_857_143
    with account.scope():
        assert posted_units(account.tenant.id) == [Unit("other", True), TICKETS]
        assert UnitCount.objects.count() == 4


def test_nothing_used_costs_nothing_per_unit(account: Account) -> None:
    for name in BUILT_IN:
        empty = report(account, Unit(name))
        assert empty.total == UnitFigures(0, 0)
        assert empty.total.each_nanos is None


def chain(trace: str, *calls: tuple[str, int, int], **fields: object) -> list[dict[str, object]]:
    """Calls by these agents, each the child of the one before: input and output tokens."""
    return [
        call(
            0,
            "1",
            trace=trace,
            span=f"{trace}-{index}",
            parent_span=f"{trace}-{index - 1}" if index else None,
            agent=agent,
            input_tokens=given,
            output_tokens=written,
            **fields,
        )
        for index, (agent, given, written) in enumerate(calls)
    ]


def test_a_handoff_passes_on_no_more_than_was_written_or_read(account: Account) -> None:
    send(
        account,
        [
            *chain("one", ("lead", 10, 300), ("writer", 200, 50), ("writer", 900, 60)),
            *chain("two", ("lead", 10, 100), ("writer", 800, 40), team="growth"),
            *chain("three", ("writer", 10, 30), ("lead", 500, 20)),
            # No parent that anyone told of, and none with an agent.
            *chain("four", ("", 10, 100), ("writer", 800, 40)),
        ],
    )
    send(make_account(), chain("one", ("lead", 10, 300), ("writer", 200, 50)))
    with snapshot(account):
        result = coordination(question(account))
    assert result.pairs == [
        Handoffs("lead", "writer", 2, 300, 2_000_000_000),
        Handoffs("writer", "lead", 1, 30, 1_000_000_000),
    ]
    assert (result.handoffs, result.passed_on_tokens, result.cost_nanos) == (3, 330, 3_000_000_000)
    assert result.produced_tokens == 300 + 50 + 60 + 100 + 40 + 30 + 20 + 40
    assert result.overhead_percent == Decimal("51.5625")
    with snapshot(account):
        growth = coordination(question(account, filters={"team": ("growth",)}))
    assert (growth.handoffs, growth.passed_on_tokens, growth.produced_tokens) == (1, 100, 140)


@pytest.mark.parametrize("filters", [{}, {"session": ("s",)}])
def test_without_agents_there_is_no_coordination(account: Account, filters: object) -> None:
    send(account, [call(0, "1", session="s")])
    with snapshot(account):
        result = coordination(question(account, filters=filters))
    assert (result.pairs, result.handoffs, result.overhead_percent) == ([], 0, None)
