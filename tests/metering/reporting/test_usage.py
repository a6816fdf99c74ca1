"""Answers equal what the events say, whatever is rolled up, and are found within one tenant."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.cursors import InvalidCursor
from common.errors import NotFound
from common.json_bodies import JsonObject
from metering import reporting
from metering.core.periods import PeriodClock, floor_seconds
from metering.models import MEASURES, Operation, Status, UsageEvent
from metering.reporting import InvalidQuestion, Measures, UsageQuestion, UsageRow
from metering.reporting.intervals import Bucket, buckets
from metering.reporting.sources import sets_for, stretches
from metering.reporting.traces import DEPTH_MAX, CallNode, build_tree
from metering.rollups import long_tail
from metering.rollups.sets import SETS
from tenants.scope import tenant_scope
from tests.factories import Account, make_event, send
from tests.metering.rollups.test_batches import make_events, measures_of, roll_everything_up, void
from tests.seed import dice

NANOS = 10**9


@contextmanager
def snapshot(account: Account) -> Iterator[None]:
    with tenant_scope(account.tenant.id, is_snapshot=True):
        yield


def ask(account: Account, **fields: Any) -> UsageQuestion:
    now = datetime.now(UTC)
    fields = {"starts_at": now - timedelta(days=4), "ends_at": now + timedelta(minutes=5), **fields}
    return UsageQuestion(tenant_id=account.tenant.id, **fields)


def read_all(account: Account, question: UsageQuestion, *, limit: int = 500) -> list[UsageRow]:
    rows: list[UsageRow] = []
    cursor = None
    with snapshot(account):
        while True:
            page = reporting.usage(question, limit=limit, cursor=cursor)
            assert len(page.rows) <= limit
            assert page.total == reporting.total_usage(question)
            rows += page.rows
            cursor = page.next_cursor
            if cursor is None:
                return rows


def expected(account: Account, question: UsageQuestion) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """The rows of an answer, from nothing but the events."""
    sums: dict[tuple[Any, ...], tuple[int, ...]] = defaultdict(lambda: (0,) * len(MEASURES))
    with account.scope():
        events = list(UsageEvent.objects.filter(tenant=account.tenant, is_void=False))
    for event in events:
        is_inside = question.starts_at <= event.time < question.ends_at
        if is_inside and all(
            dimension(event, name) in values for name, values in question.filters.items()
        ):
            key = (
                start_of(question, event.time),
                *(dimension(event, n) for n in question.group_by),
            )
            sums[key] = tuple(map(sum, zip(sums[key], measures_of(event), strict=True)))
    return dict(sums)


def dimension(event: UsageEvent, name: str) -> str:
    if name == "operation":
        return Operation(event.operation).label
    if name == "status":
        return Status(event.status).label
    return str(getattr(event, name))


def start_of(question: UsageQuestion, at: datetime) -> datetime:
    if question.interval == "none":
        return question.starts_at
    if question.interval == "15min":
        return floor_seconds(at, 900)
    clock = PeriodClock(period=question.interval, timezone=question.timezone)
    return clock.span(at).starts_at


def as_sums(rows: Sequence[UsageRow]) -> dict[tuple[object, ...], tuple[int, ...]]:
    return {(row.start, *row.key): tuple(row.measures) for row in rows}


QUESTIONS: list[JsonObject] = [
    {},
    {"interval": "none"},
    {"interval": "15min", "group_by": ("customer",)},
    {"interval": "hour", "group_by": ("team",)},
    {"interval": "hour", "group_by": ("team", "model")},
    {"group_by": ("team",)},
    {"group_by": ("user",)},
    {"group_by": ("tool",)},
    {"group_by": ("customer", "team")},
    {"group_by": ("agent", "user")},
    {"group_by": ("team", "customer", "agent")},
    {"group_by": ("operation", "status")},
    {"group_by": ("customer", "agent"), "interval": "none"},
    {"group_by": ("team",), "timezone": "Europe/Berlin"},
    {"group_by": ("team", "model"), "timezone": "Asia/Kathmandu"},
    {"group_by": ("model",), "interval": "month", "timezone": "America/New_York"},
    {"group_by": ("model",), "interval": "week"},
    {"filters": {"customer": ("acme",)}},
    {"group_by": ("team",), "filters": {"customer": ("acme", "Größe")}},
    {"group_by": ("team",), "filters": {"team": ("",)}},
    {"group_by": ("team",), "filters": {"user": ("user-3", "user-4"), "status": ("error",)}},
    {"group_by": ("feature", "provider"), "filters": {"operation": ("tool",)}},
]


@pytest.fixture
def busy(account: Account) -> Account:
    """An account whose events are rolled up in part."""
    send(account, make_events(120))
    roll_everything_up(account)
    send(account, make_events(60, seed=2))
    return account


@pytest.mark.parametrize("fields", QUESTIONS, ids=str)
def test_an_answer_equals_the_events(busy: Account, fields: JsonObject) -> None:
    question = ask(busy, **fields)
    wanted = expected(busy, question)
    assert wanted
    rows = read_all(busy, question)
    assert as_sums(rows) == wanted
    assert as_sums(read_all(busy, question, limit=7)) == wanted
    if question.interval == "none":
        assert rows == sorted(rows, key=lambda row: (-row.measures.cost_nanos, row.key))
    else:
        assert rows == sorted(rows, key=lambda row: (row.start, *map(str.encode, row.key)))
    with snapshot(busy):
        total = reporting.total_usage(question)
    assert total == tuple(map(sum, zip(*wanted.values(), strict=True)))


def test_any_edges_are_exact(busy: Account) -> None:
    chance = dice("usage", 3)
    now = datetime.now(UTC)
    for _ in range(25):
        starts_at = now - timedelta(seconds=chance.uniform(3600, 4 * 86_400))
        ends_at = starts_at + timedelta(seconds=chance.uniform(1, 2 * 86_400))
        question = ask(
            busy,
            starts_at=starts_at,
            ends_at=ends_at,
            interval=chance.choice(["hour", "day", "none"]),
            group_by=chance.choice([(), ("team",), ("team", "agent")]),
            timezone=chance.choice(["UTC", "Europe/Berlin"]),
        )
        assert as_sums(read_all(busy, question, limit=3)) == expected(busy, question)


def test_what_was_acknowledged_is_in_the_next_answer(busy: Account) -> None:
    with snapshot(busy):
        before = reporting.total_usage(ask(busy))
    ahead = (datetime.now(UTC) + timedelta(minutes=4)).isoformat()
    send(busy, [make_event(time=ahead, cost_usd="0.000000001", input_tokens=7, output_tokens=0)])
    with snapshot(busy):
        after = reporting.total_usage(ask(busy))
    change = Measures(*(new - old for new, old in zip(after, before, strict=True)))
    assert change == Measures(cost_nanos=1, requests=1, input_tokens=7, given_nanos=1)


def test_void_events_count_nowhere(busy: Account) -> None:
    events = [make_event(team="wrong") for _ in range(2)]
    send(busy, events[:1])
    roll_everything_up(busy)
    send(busy, events[1:])
    for event in events:
        void(busy, event)
    question = ask(busy, group_by=("team",), interval="none")
    assert "wrong" not in {row.key[0] for row in read_all(busy, question)}
    assert as_sums(read_all(busy, question)) == expected(busy, question)


def test_another_tenant_sees_nothing(busy: Account, stranger: Account) -> None:
    question = ask(busy, interval="none")
    with snapshot(stranger):
        assert reporting.usage(question).rows == []
        assert reporting.total_usage(question) == Measures()


def test_the_long_tail_is_one_row_and_its_values_are_found_by_name(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_tail, "SETS", tuple(each._replace(values_max=2) for each in SETS))
    time = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    events = [make_event(time=time, customer=f"c-{n}", cost_usd=f"{n}") for n in range(5)]
    send(account, events)
    roll_everything_up(account)
    whole_day = floor_seconds(datetime.fromisoformat(time), 86_400)
    fields = {"starts_at": whole_day, "ends_at": whole_day + timedelta(days=1), "interval": "none"}
    rows = read_all(account, ask(account, group_by=("customer",), **fields))
    assert [(row.group, row.is_other, row.measures.cost_nanos) for row in rows] == [
        ({"customer": "c-4"}, False, 4 * NANOS),
        ({"customer": "(other)"}, True, 3 * NANOS),
        ({"customer": "c-3"}, False, 3 * NANOS),
    ]
    pairs = read_all(account, ask(account, group_by=("team", "customer"), **fields))
    assert {row.group["team"] for row in pairs if row.is_other} == {"(other)"}
    named = ask(account, group_by=("customer",), filters={"customer": ("c-1",)}, **fields)
    assert as_sums(read_all(account, named)) == expected(account, named)


def test_a_long_tail_at_the_edge_of_a_range_is_read_from_events(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_tail, "SETS", tuple(each._replace(values_max=2) for each in SETS))
    day = floor_seconds(datetime.now(UTC) - timedelta(days=1), 86_400)
    events = [
        make_event(time=(day + timedelta(hours=hour)).isoformat(), customer=f"c-{hour}")
        for hour in (1, 8, 12, 20)
    ]
    send(account, events)
    roll_everything_up(account)
    fields: JsonObject = {
        "starts_at": day + timedelta(hours=2),
        "ends_at": day + timedelta(hours=23),
        "group_by": ("team", "customer"),
    }
    for interval in ("none", "day"):
        question = ask(account, interval=interval, **fields)
        assert as_sums(read_all(account, question)) == expected(account, question)


def test_a_page_reads_only_the_buckets_it_needs(busy: Account) -> None:
    starts_at = floor_seconds(datetime.now(UTC) - timedelta(days=2), 86_400)
    question = ask(busy, starts_at=starts_at, group_by=("user", "agent"))
    with snapshot(busy), CaptureQueriesContext(connection) as context:
        page = reporting.usage(question, limit=2)
    assert page.next_cursor is not None
    assert sum("group_1" in query["sql"] for query in context.captured_queries) == 1


def test_a_list_and_its_total_read_once_and_only_batches_of_their_time(account: Account) -> None:
    now = datetime.now(UTC)
    send(account, [make_event(agent=f"a{n}", time=now.isoformat()) for n in range(3)])
    today = floor_seconds(now, 86_400)
    for ends_at, calls in ((today, 0), (now + timedelta(minutes=5), 3)):
        question = ask(
            account, starts_at=today - timedelta(days=2), ends_at=ends_at, group_by=("agent",)
        )
        question = replace(question, interval="none")
        with snapshot(account), CaptureQueriesContext(connection) as context:
            page = reporting.usage(question, limit=2)
            assert (len(page.rows), page.total.requests) == (min(calls, 2), calls)
        read = [query["sql"] for query in context.captured_queries if "sum(" in query["sql"]]
        assert len(read) == 1
        assert ("usage_event" in read[0]) is bool(calls)


def test_a_cursor_is_for_its_own_question(busy: Account) -> None:
    question = ask(busy, group_by=("user",))
    with snapshot(busy):
        cursor = reporting.usage(question, limit=2).next_cursor
        assert cursor is not None
        assert reporting.range_of_cursor(cursor) == (question.starts_at, question.ends_at)
        for wrong in (cursor[:-3], "x", "W10", cursor + "AAAA", "é"):
            with pytest.raises(InvalidCursor) as caught:
                reporting.usage(question, cursor=wrong)
            assert caught.value.code == "invalid_cursor"
        with pytest.raises(InvalidCursor):
            reporting.usage(ask(busy, group_by=("agent",)), cursor=cursor)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"group_by": ("colour",)}, "unknown_dimension"),
        ({"group_by": ("team", "team")}, "invalid_group_by"),
        ({"filters": {"colour": ("red",)}}, "unknown_dimension"),
        ({"filters": {"status": ("fine",)}}, "unknown_value"),
        ({"filters": {"team": ("a\x00b",)}}, "invalid_value"),
        ({"interval": "minute"}, "unknown_interval"),
        ({"timezone": "Berlin"}, "unknown_timezone"),
        ({"timezone": "../etc/passwd"}, "unknown_timezone"),
        ({"ends_at": datetime(2001, 1, 1, tzinfo=UTC)}, "invalid_range"),
        ({"starts_at": datetime(1999, 1, 1, tzinfo=UTC)}, "time_out_of_range"),
        (
            {"interval": "15min", "starts_at": datetime(2026, 1, 1, tzinfo=UTC)},
            "range_too_long",
        ),
    ],
)
def test_a_question_without_sense_is_refused(fields: JsonObject, code: str) -> None:
    fields = {
        "starts_at": datetime(2026, 11, 1, tzinfo=UTC),
        "ends_at": datetime(2026, 11, 2, tzinfo=UTC),
        **fields,
    }
    with pytest.raises(InvalidQuestion) as caught:
        UsageQuestion(tenant_id=1, **fields)
    assert caught.value.code == code


def test_a_day_of_clock_change_is_read_from_quarters() -> None:
    starts_at = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)  # midnight in Berlin, CEST
    result = list(
        buckets(
            interval="day",
            timezone="Europe/Berlin",
            starts_at=starts_at,
            ends_at=datetime(2026, 10, 26, 12, 7, tzinfo=UTC),
        )
    )
    assert [bucket.reads_to - bucket.reads_from for bucket in result] == [
        timedelta(hours=25),
        timedelta(hours=13, minutes=7),
    ]
    parts = stretches(result, sets_for(frozenset({"team"})))
    assert [(part.source and part.source.number, part.ends_at) for part in parts] == [
        (2, datetime(2026, 10, 26, 12, 0, tzinfo=UTC)),
        (None, datetime(2026, 10, 26, 12, 7, tzinfo=UTC)),
    ]


def test_whole_days_inside_a_bucket_come_from_days() -> None:
    starts_at = datetime(2026, 11, 1, 23, 50, tzinfo=UTC)
    ends_at = datetime(2026, 11, 5, 0, 20, tzinfo=UTC)
    parts = stretches([Bucket(starts_at, starts_at, ends_at)], sets_for(frozenset({"team"})))
    assert [(part.source and part.source.number, part.starts_at.minute) for part in parts] == [
        (None, 50),
        (22, 0),
        (2, 0),
        (None, 15),
    ]
    pair = stretches([Bucket(starts_at, starts_at, ends_at)], sets_for(frozenset({"team", "user"})))
    assert [part.source for part in pair] == [None]


def test_an_edge_is_a_roll_up_less_the_events_outside_where_these_are_fewer() -> None:
    days = [datetime(2026, 11, day, tzinfo=UTC) for day in range(1, 6)]
    early, late = days[0] + timedelta(hours=9), days[3] + timedelta(hours=13)
    pair = sets_for(frozenset({"team", "agent"}))

    def parts(*portion: tuple[datetime, datetime], now: datetime) -> list[tuple[Any, ...]]:
        result = stretches([Bucket(start, start, end) for start, end in portion], pair, now=now)
        return [(part.source is not None, *part[1:]) for part in result]

    assert parts((early, late), now=days[4]) == [
        (True, days[0], days[1], None, True),
        (False, days[0], early, None, True),
        (True, days[1], days[3], None, False),
        (True, days[3], days[4], None, True),
        (False, late, days[4], None, True),
    ]
    # Nearly nothing is stored of what is still to come, and less than half of a day is read as it
    # is.
    morning = days[3] + timedelta(hours=2)
    assert parts((days[2], morning), now=days[4])[1:] == [(False, days[3], morning, None, False)]
    assert parts((days[2], morning), now=morning)[1:] == [
        (True, days[3], days[4], None, True),
        (False, morning, days[4], None, True),
    ]
    # Days of another zone: each counts what it reads, wherever that lies.
    zone = timedelta(hours=1)
    assert parts(*((days[at] - zone, days[at + 1] - zone) for at in (1, 2)), now=days[4]) == [
        (False, days[1] - zone, days[1], None, False),
        (True, days[1], days[2], 1, True),
        (False, days[2] - zone, days[2], 1, True),
        (False, days[2] - zone, days[2], None, False),
        (True, days[2], days[3], 2, True),
        (False, days[3] - zone, days[3], 2, True),
    ]


@pytest.mark.parametrize("fields", [{}, {"interval": "none"}, {"group_by": ("model",)}])
def test_percentiles_are_within_five_percent(account: Account, fields: JsonObject) -> None:
    chance = dice("usage", 5)
    time = datetime.now(UTC) - timedelta(days=1)
    values = [round(chance.lognormvariate(6, 1.5)) for _ in range(200)]
    sent = [
        make_event(time=time.isoformat(), latency_ms=value, cost_usd=f"{value / 1000:.9f}")
        for value in values
    ]
    send(account, sent[:150])
    roll_everything_up(account)
    send(account, sent[150:])
    send(
        account, [make_event(operation="tool", tool="sh", latency_ms=10**7, time=time.isoformat())]
    )
    question = ask(account, **fields)
    with snapshot(account):
        (row,) = [row for row in reporting.usage(question).rows if row.measures.requests]
        (result,) = reporting.percentiles_of(question, [row])
    values.sort()
    for percent, rank in ((50, 100), (95, 190), (99, 198)):
        exact = values[rank - 1]
        latency_ms, cost_nanos = result.latency_ms[percent], result.cost_nanos[percent]
        assert latency_ms is not None
        assert cost_nanos is not None
        assert abs(latency_ms - exact) <= max(1, exact * 0.05)
        assert abs(cost_nanos - exact * NANOS // 1000) <= exact * NANOS // 1000 * 0.05
    assert result.time_to_first_token_ms == {50: None, 95: None, 99: None}


def test_percentiles_of_other_groupings_are_refused(busy: Account) -> None:
    question = ask(busy, group_by=("user",))
    with snapshot(busy), pytest.raises(InvalidQuestion) as caught:
        reporting.percentiles_of(question, reporting.usage(question).rows)
    assert caught.value.code == "percentiles_unavailable"


def test_unpriced_models_are_listed(busy: Account) -> None:
    now = datetime.now(UTC)
    with snapshot(busy):
        result = reporting.unpriced_models(
            tenant_id=busy.tenant.id, starts_at=now - timedelta(days=4), ends_at=now
        )
        total = reporting.total_usage(ask(busy))
    assert {each.model for each in result} == {"a model nobody knows"}
    assert sum(each.event_count for each in result) == total.unpriced


def span_event(span: str | None, parent: str | None, cost: int, **fields: object) -> UsageEvent:
    return UsageEvent(span=span, parent_span=parent, cost_nanos=cost, **fields)


def shape(nodes: Sequence[CallNode[UsageEvent]]) -> list[object]:
    return [[node.event.span, node.subtree_cost_nanos, *shape(node.children)] for node in nodes]


def test_a_trace_is_a_tree_with_costs_below() -> None:
    events = [
        span_event("a", None, 1),
        span_event("b", "a", 2),
        span_event("c", "b", 4),
        span_event("d", "a", 8),
        span_event("e", "gone", 16),
        span_event(None, None, 32),
        span_event("f", "b", 64, is_void=True),
    ]
    assert shape(build_tree(events)) == [
        ["a", 15, ["b", 6, ["c", 4], ["f", 0]], ["d", 8]],
        ["e", 16],
        [None, 32],
    ]


def test_spans_that_are_their_own_parents_do_not_hang() -> None:
    events = [span_event("a", "b", 1), span_event("b", "a", 2), span_event("c", "c", 4)]
    assert shape(build_tree(events)) == [["c", 4], ["a", 3, ["b", 2]]]


def test_a_very_deep_trace_is_cut_to_a_depth_that_can_be_shown() -> None:
    events = [span_event(f"{n}", f"{n - 1}", 1) for n in range(5_000)]
    (root,) = build_tree(events)
    assert root.subtree_cost_nanos == 5_000
    depth = 0
    node = root
    while node.children:
        depth, node = depth + 1, node.children[0]
    assert depth == DEPTH_MAX


def test_a_trace_that_is_not_there_is_not_found(busy: Account, stranger: Account) -> None:
    send(busy, [make_event(trace="t-1", span="1")])
    with busy.scope():
        assert reporting.call_tree(tenant_id=busy.tenant.id, trace="t-1").event_count == 1
        for trace in ("t-2", "", "a\x00b"):
            with pytest.raises(NotFound):
                reporting.call_tree(tenant_id=busy.tenant.id, trace=trace)
    with stranger.scope(), pytest.raises(NotFound):
        reporting.call_tree(tenant_id=stranger.tenant.id, trace="t-1")


def test_a_session_adds_up_in_order(account: Account) -> None:
    start = datetime.now(UTC) - timedelta(minutes=10)
    sent = [
        make_event(
            session="s-1",
            agent="a",
            cost_usd=f"{number}",
            time=(start + timedelta(seconds=number)).isoformat(),
        )
        for number in (3, 1, 2)
    ]
    send(account, [*sent, make_event(session="s-2", cost_usd="50")])
    void(account, sent[2])
    with snapshot(account):
        session = reporting.read_session(tenant_id=account.tenant.id, session="s-1")
    assert [step.running_cost_nanos // NANOS for step in session.steps] == [1, 1, 4]
    assert session.totals.total.cost_nanos == 4 * NANOS
    assert [row.measures.cost_nanos for row in session.totals.by_dimension["agent"]] == [4 * NANOS]
    assert session.totals.outcome is None


def test_events_are_listed_newest_first_by_page(busy: Account) -> None:
    question = reporting.EventQuestion(
        tenant_id=busy.tenant.id, filters={"customer": ("acme",), "status": ("success",)}
    )
    with busy.scope():
        wanted = [
            event.id
            for event in UsageEvent.objects.order_by("-time", "-id")
            if event.customer == "acme" and event.status == Status.SUCCESS
        ]
        result: list[int] = []
        cursor = None
        while True:
            page = reporting.list_events(question, limit=4, cursor=cursor)
            result += [event.id for event in page.rows]
            cursor = page.next_cursor
            if cursor is None:
                break
    assert result == wanted
