"""Metrics, comparisons and running sums equal what the events say, in any zone and range."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from functools import partial
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.models import Outcome, Status, UsageEvent
from metering.reporting import (
    InvalidQuestion,
    Measures,
    UsageQuestion,
    UsageReport,
    bounded,
    usage_report,
)
from metering.reporting.comparison import Comparison
from metering.reporting.report import ReportRow
from metering.rollups import long_tail
from metering.rollups.sets import SETS
from metering.usage.outcomes import report_outcome
from tests.factories import Account, make_event, send
from tests.metering.reporting.test_usage import dimension, snapshot, start_of
from tests.metering.rollups.test_batches import make_events, measures_of, roll_everything_up, void
from tests.seed import dice

pytestmark = pytest.mark.django_db(transaction=True)
ZONES = (
    "UTC",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/New_York",
    "Europe/Berlin",
)
DIMENSIONS = ("team", "customer", "agent", "user", "feature", "model", "status", "session")
FILTERS: list[dict[str, tuple[str, ...]]] = [
    {},
    {},
    {"team": ("growth",)},
    {"team": ("", "platform")},
    {"model": ("gpt-4o",), "status": ("success",)},
    {"customer": ("acme", "Größe"), "agent": ("agent-1", "agent-2")},
]
random_examples = partial(
    settings,
    max_examples=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def sessions_of(events: list[dict[str, object]]) -> list[dict[str, object]]:
    chance = dice("reports")
    return [
        {**event, "session": f"s-{chance.randrange(20)}", "task": f"t-{chance.randrange(30)}"}
        for event in events
    ]


@pytest.fixture
def busy(account: Account) -> Account:
    """Events of three days, rolled up in part, one void, and outcomes of some of their work."""
    events = sessions_of(make_events(150))
    send(account, events)
    roll_everything_up(account)
    send(account, sessions_of(make_events(60, seed=2)))
    void(account, events[0])
    with account.scope():
        for number in range(25):
            report_outcome(
                tenant_id=account.tenant.id,
                task="" if number % 2 else f"t-{number}",
                session=f"s-{number}" if number % 2 else "",
                is_success=number % 5 != 0,
                value_nanos=None,
            )
    return account


def events_of(account: Account, question: UsageQuestion | None = None) -> list[UsageEvent]:
    with account.scope():
        events = list(UsageEvent.objects.filter(tenant=account.tenant, is_void=False))
    return events if question is None else matching(events, question)


def matching(events: Iterable[UsageEvent], question: UsageQuestion) -> list[UsageEvent]:
    return [
        event
        for event in events
        if question.starts_at <= event.time < question.ends_at
        and all(dimension(event, name) in values for name, values in question.filters.items())
    ]


def summed(events: Iterable[UsageEvent]) -> Measures:
    sums = [sum(column) for column in zip(*map(measures_of, events), strict=True)]
    return Measures(*sums)


def grouped(
    events: Iterable[UsageEvent], question: UsageQuestion
) -> Mapping[tuple[object, ...], list[UsageEvent]]:
    cells: dict[tuple[object, ...], list[UsageEvent]] = defaultdict(list)
    for event in events:
        key = tuple(dimension(event, name) for name in question.group_by)
        cells[start_of(question, event.time), key].append(event)
    return cells


def read_report(account: Account, question: UsageQuestion, **asked: Any) -> UsageReport:
    """All pages as one."""
    rows: list[ReportRow] = []
    asked = {"limit": 500, **asked}
    cursor = None
    with snapshot(account):
        while True:
            report = usage_report(question, cursor=cursor, **asked)
            rows += report.rows
            cursor = report.next_cursor
            if cursor is None:
                return report._replace(rows=rows)


@st.composite
def questions(draw: st.DrawFn, *, intervals: tuple[str, ...]) -> dict[str, object]:
    now = timezone.now()
    begins = draw(st.integers(0, 5 * 86_400))
    lasts = draw(st.integers(1, 5 * 86_400))
    grain = draw(st.sampled_from([1, 900, 3600]))
    starts_at = now - timedelta(seconds=begins)
    starts_at = starts_at.replace(microsecond=0)
    starts_at -= timedelta(seconds=starts_at.timestamp() % grain)
    return {
        "starts_at": starts_at,
        "ends_at": starts_at + timedelta(seconds=-(-lasts // grain) * grain),
        "interval": draw(st.sampled_from(intervals)),
        "timezone": draw(st.sampled_from(ZONES)),
        "group_by": tuple(draw(st.lists(st.sampled_from(DIMENSIONS), max_size=2, unique=True))),
        "filters": draw(st.sampled_from(FILTERS)),
    }


INTERVALS = ("15min", "hour", "day", "week", "month", "none")


def test_days_groups_and_running_sums_add_up_to_the_range(busy: Account) -> None:
    events = events_of(busy)

    @random_examples()
    @given(fields=questions(intervals=INTERVALS))
    def check(fields: dict[str, Any]) -> None:
        question = UsageQuestion(tenant_id=busy.tenant.id, **fields)
        counted = matching(events, question)
        total = summed(counted) if counted else Measures()
        report = read_report(busy, question, metrics=("successes",))
        assert report.total.measures == total
        assert {(row.row.start, row.row.key): row.figures.measures for row in report.rows} == {
            cell: summed(of_cell) for cell, of_cell in grouped(counted, question).items()
        }
        assert (
            sum(int(row.figures.metrics["successes"] or 0) for row in report.rows)
            == report.total.metrics["successes"]
        )
        last: dict[tuple[str, ...], Measures] = {}
        for row in read_report(busy, question, is_cumulative=True, limit=3).rows:
            earlier = last.get(row.row.key, Measures())
            assert row.figures.measures.cost_nanos >= earlier.cost_nanos
            last[row.row.key] = row.figures.measures
        assert Measures(*map(sum, zip(*last.values(), strict=True))) == total or not counted

    check()


def test_metrics_equal_the_events(busy: Account) -> None:
    events = events_of(busy)
    last = last_calls(busy, events)
    names = ("cost_per_request", "error_rate", "cache_hit_share", "users", "sessions", "customers")

    def wanted(of_cell: list[UsageEvent]) -> dict[str, Any]:
        sums = summed(of_cell)
        successes = sum(last[event.id] for event in of_cell)
        requests = sum(event.operation != 3 for event in of_cell)
        cost = sums.cost_nanos
        errors = sum(event.status == Status.ERROR for event in of_cell)
        return {
            "cost_per_request": half_up(cost, requests),
            "error_rate": rounded_down(errors, len(of_cell)),
            "cache_hit_share": rounded_down(sums.cache_read_tokens, sums.input_tokens),
            "users": len({event.user for event in of_cell} - {""}),
            "sessions": len({event.session for event in of_cell} - {""}),
            "customers": len({event.customer for event in of_cell} - {""}),
            "successes": successes,
            "cost_per_success_usd": half_up(cost, successes),
        }

    @random_examples()
    @given(fields=questions(intervals=INTERVALS))
    def check(fields: dict[str, Any]) -> None:
        question = UsageQuestion(tenant_id=busy.tenant.id, **fields)
        counted = matching(events, question)
        metrics = (*names, "successes", "cost_per_success_usd")
        report = read_report(busy, question, metrics=metrics)
        assert {(row.row.start, row.row.key): row.figures.metrics for row in report.rows} == {
            cell: wanted(of_cell) for cell, of_cell in grouped(counted, question).items()
        }
        if counted:
            assert report.total.metrics == wanted(counted)

    check()


def last_calls(account: Account, events: list[UsageEvent]) -> Mapping[int, int]:
    """By event, how many successful tasks and sessions ended with it."""
    successes: dict[int, int] = defaultdict(int)
    with account.scope():
        outcomes = list(Outcome.objects.filter(tenant=account.tenant, is_success=True))
    for outcome in outcomes:
        calls = [
            event
            for event in events
            if (outcome.task and event.task == outcome.task)
            or (outcome.session and event.session == outcome.session)
        ]
        if calls:
            successes[max(calls, key=lambda event: (event.time, event.id)).id] += 1
    return successes


def half_up(nanos: int, units: int) -> int | None:
    return int(Decimal(nanos) / units + Decimal("0.5")) if units else None


def rounded_down(part: int, whole: int) -> Decimal | None:
    if not whole:
        return None
    return (Decimal(part) / whole).quantize(Decimal("0.000001"), ROUND_DOWN)


def test_percentiles_of_any_group_are_within_five_percent(busy: Account) -> None:
    events = events_of(busy)

    @random_examples(max_examples=25)
    @given(fields=questions(intervals=("day", "week", "none")))
    def check(fields: dict[str, Any]) -> None:
        question = UsageQuestion(tenant_id=busy.tenant.id, **fields)
        names = ("p50_latency_ms", "p95_latency_ms", "p99_cost_usd")
        report = read_report(busy, question, metrics=names)
        cells = grouped(matching(events, question), question)
        for row in report.rows:
            calls = [e for e in cells[row.row.start, row.row.key] if e.operation != 3]
            for name, column, percent in zip(
                names, ("latency_ms", "latency_ms", "cost_nanos"), (50, 95, 99), strict=True
            ):
                values = sorted(
                    value for event in calls if (value := getattr(event, column)) is not None
                )
                result = row.figures.metrics[name]
                if not values:
                    assert result is None
                    continue
                exact = values[-(-len(values) * percent // 100) - 1]
                assert isinstance(result, int)
                assert abs(result - exact) <= max(1, exact * 0.05), (name, result, exact)

    check()


def test_what_was_before_equals_the_events_of_that_time(busy: Account) -> None:
    events = events_of(busy)

    @random_examples()
    @given(fields=questions(intervals=INTERVALS), ahead=st.integers(-3 * 86_400, 86_400))
    def check(fields: dict[str, Any], ahead: int) -> None:
        question = UsageQuestion(tenant_id=busy.tenant.id, **fields)
        now = timezone.now() + timedelta(seconds=ahead)
        comparison = Comparison(question, now=now)
        asked = {"is_compared": True, "now": now, "metrics": ("users", "error_rate")}
        report = read_report(busy, question, **asked)
        running = read_report(busy, question, **asked | {"metrics": (), "is_cumulative": True})
        bucket_of = {bucket.start: bucket for bucket in question.buckets()}
        begins = comparison.starts_at

        def before(row: ReportRow, starts_at: datetime, ends_at: datetime) -> list[UsageEvent]:
            return [
                event
                for event in events
                if starts_at <= event.time < ends_at
                and all(dimension(event, n) in values for n, values in question.filters.items())
                and tuple(dimension(event, n) for n in question.group_by) == row.row.key
            ]

        for row in report.rows:
            _, reads_from, reads_to = comparison.bucket(bucket_of[row.row.start])
            used = before(row, reads_from, reads_to)
            assert row.previous is not None
            assert row.previous.measures == (summed(used) if used else Measures())
            assert row.previous.metrics["users"] == len({event.user for event in used} - {""})
        for row in running.rows:
            _, _, reads_to = comparison.bucket(bucket_of[row.row.start])
            assert row.previous is not None
            if question.interval != "month":
                used = before(row, begins, reads_to)
                assert row.previous.measures == (summed(used) if used else Measures())
        whole = replace(
            question, starts_at=begins, ends_at=max(comparison.ends_at, begins + MOMENT)
        )
        used = matching(events, whole)
        assert report.previous_total is not None
        assert report.previous_total.measures == (summed(used) if used else Measures())

    check()


MOMENT = timedelta(microseconds=1)


def test_distinct_values_of_a_long_tail_are_counted_by_events(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_tail, "SETS", tuple(each._replace(values_max=2) for each in SETS))
    send(account, [make_event(user=f"u-{number}", customer="acme") for number in range(9)])
    roll_everything_up(account)
    now = timezone.now()
    question = UsageQuestion(
        tenant_id=account.tenant.id,
        starts_at=now - timedelta(days=2),
        ends_at=now + timedelta(days=1),
        group_by=("user",),
        interval="none",
    )
    report = read_report(account, question, metrics=("users", "customers"))
    assert report.total.metrics == {"users": 9, "customers": 1}
    by_kind = {row.row.is_other: row.figures.metrics for row in report.rows}
    assert by_kind[True] == {"users": None, "customers": None}
    assert by_kind[False] == {"users": 1, "customers": 1}


def test_too_many_events_are_refused_and_never_read_in_part(
    busy: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timezone.now()
    question = UsageQuestion(
        tenant_id=busy.tenant.id, starts_at=now - timedelta(days=4), ends_at=now, interval="none"
    )
    monkeypatch.setattr(bounded, "EVENTS_MAX", 50)
    for metric in ("sessions", "p95_latency_ms"):
        filtered = replace(question, filters={"team": ("growth",), "provider": ("openai",)})
        with snapshot(busy), pytest.raises(InvalidQuestion) as caught:
            usage_report(filtered, metrics=(metric,))
        assert caught.value.code == "too_much_to_read"
    # Those of one session are found one by one.
    each = replace(question, filters={"session": ("s-1",)})
    assert read_report(busy, each, metrics=("users",)).rows


def test_a_statement_that_takes_too_long_is_refused_and_the_transaction_goes_on(
    busy: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "STATEMENT_MS", 20)
    with snapshot(busy):
        with pytest.raises(InvalidQuestion) as caught:
            bounded.fetch_in_time("SELECT pg_sleep(5)", [], what="Users")
        assert caught.value.code == "too_much_to_read"
        assert bounded.fetch_in_time("SELECT current_setting('statement_timeout')", [], what="")
