"""Sums by quarter equal what the events say, whatever is rolled up."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from metering.core.periods import floor_seconds
from metering.models import MEASURES, UsageEvent
from metering.reporting.series import (
    COMBINED_DIMENSIONS,
    SERIES_DIMENSIONS,
    SERIES_MEASURES,
    QuarterSums,
    SeriesSince,
    combinations,
    costly_calls,
    first_usage_at,
    newest_batch,
    quarter_sums,
    series_costs,
    value_sums,
)
from metering.rollups import long_tail
from metering.rollups.sets import SETS
from tests.factories import Account, make_event, send
from tests.metering.rollups.test_batches import make_events, measures_of, roll_everything_up, void

pytestmark = pytest.mark.django_db(transaction=True)
DAY = timedelta(days=1)


def as_sums(result: QuarterSums) -> dict[tuple[object, ...], tuple[int, ...]]:
    return {
        (SERIES_DIMENSIONS[index], value, quarter): tuple(measures)
        for index, value, quarter, measures in zip(
            result.dimensions.tolist(),
            result.values,
            result.quarters.tolist(),
            result.measures.tolist(),
            strict=True,
        )
        if any(measures)
    }


def series_measures_of(event: UsageEvent) -> tuple[int, ...]:
    by_name = dict(zip(MEASURES, measures_of(event), strict=True))
    return tuple(by_name[name] for name in SERIES_MEASURES)


def expected(
    account: Account, starts_at: datetime, ends_at: datetime
) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Every series' sums, from nothing but the events."""
    sums: dict[tuple[Any, ...], tuple[int, ...]] = defaultdict(lambda: (0,) * len(SERIES_MEASURES))
    with account.scope():
        events = list(
            UsageEvent.objects.filter(is_void=False, time__gte=starts_at, time__lt=ends_at)
        )
    for event in events:
        quarter = int(floor_seconds(event.time, 900).timestamp())
        for dimension in SERIES_DIMENSIONS:
            key = (dimension, getattr(event, dimension) if dimension else "", quarter)
            sums[key] = tuple(map(sum, zip(sums[key], series_measures_of(event), strict=True)))
    return dict(sums)


def read(account: Account, starts_at: datetime, ends_at: datetime) -> QuarterSums:
    with account.scope():
        return quarter_sums(tenant_id=account.tenant.id, starts_at=starts_at, ends_at=ends_at)


def test_sums_are_those_of_roll_ups_and_of_what_waits(account: Account, stranger: Account) -> None:
    now = datetime.now(UTC)
    starts_at, ends_at = floor_seconds(now - 2 * DAY, 900), floor_seconds(now, 900)
    rolled_up, waiting = make_events(150), make_events(80, seed=2)
    send(account, rolled_up)
    roll_everything_up(account)
    send(account, waiting)
    void(account, rolled_up[3])
    void(account, waiting[3])
    send(stranger, make_events(20, seed=3))
    wanted = expected(account, starts_at, ends_at)
    assert as_sums(read(account, starts_at, ends_at)) == wanted
    assert {key[0] for key in wanted} == set(SERIES_DIMENSIONS)
    roll_everything_up(account)
    assert as_sums(read(account, starts_at, ends_at)) == wanted


def test_the_cost_of_a_series_counts_what_waits(account: Account) -> None:
    now = datetime.now(UTC)
    events = [make_event(agent="a"), make_event(agent="b"), make_event(agent="a")]
    send(account, events[:2])
    roll_everything_up(account)
    send(account, events[2:])
    day_ago, later = floor_seconds(now - DAY, 900), floor_seconds(now + DAY, 900)
    costs = {
        SeriesSince("agent", "a", day_ago): 9_000_000,
        SeriesSince("agent", "b", day_ago): 4_500_000,
        SeriesSince("agent", "c", day_ago): 0,
        SeriesSince("", "", day_ago): 13_500_000,
        SeriesSince("agent", "a", later): 0,
        SeriesSince("", "", later): 0,
    }
    with account.scope(), CaptureQueriesContext(connection) as queries:
        result = series_costs(
            tenant_id=account.tenant.id, series=list(costs), ends_at=now + 2 * DAY
        )
        assert series_costs(tenant_id=account.tenant.id, series=[], ends_at=now) == {}
    assert result == costs
    # However many are asked for, what waits is read once.
    assert sum("usage_event" in query["sql"] for query in queries) == 1


def test_values_are_summed_between_bounds_from_days_or_quarters(account: Account) -> None:
    now = datetime.now(UTC)
    midnight = floor_seconds(now, 86_400)
    tenant_id = account.tenant.id
    for days, agent in [(2, "a"), (2, "a"), (1, "a"), (1, "b")]:
        at = midnight - days * DAY + timedelta(hours=13)
        send(account, [make_event(agent=agent, time=at.isoformat())])
        if days == 2:
            roll_everything_up(account)
    for shift in (timedelta(), timedelta(hours=2)):
        bounds = [midnight - days * DAY + shift for days in (2, 1, 0)]
        with account.scope():
            result = value_sums(tenant_id=tenant_id, dimension="agent", bounds=bounds)
            whole = value_sums(tenant_id=tenant_id, dimension="", bounds=bounds)
        assert result == {
            "a": [(9_000_000, 2), (4_500_000, 1)],
            "b": [(0, 0), (4_500_000, 1)],
        }
        assert whole == {"": [(9_000_000, 2), (9_000_000, 2)]}


def test_the_costliest_new_call_of_each_kind_is_found_with_what_is_usual(
    account: Account,
) -> None:
    send(account, [make_event(agent="a") for _ in range(30)])
    roll_everything_up(account)
    received_from = datetime.now(UTC)
    costly = make_event(agent="a", input_tokens=200_000, session="s")
    send(account, [make_event(agent="a", input_tokens=150_000), costly, make_event(agent="b")])
    with account.scope():
        (result,) = costly_calls(
            tenant_id=account.tenant.id,
            received_from=received_from,
            nanos_min=100_000_000,
            limit=10,
        )
    assert (result.agent, result.model) == ("a", "claude-sonnet-4-5")
    assert (result.session, result.sent_id) == ("s", costly["id"])
    assert result.cost_nanos == 601_500_000
    assert result.usual.requests == 30
    assert result.usual.cost_nanos == pytest.approx(30 * 4_500_000, rel=0.05)


def test_the_long_tail_is_no_series(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_tail, "SETS", [each._replace(values_max=2) for each in SETS])
    now = datetime.now(UTC)
    send(account, [make_event(agent=f"agent-{number}") for number in range(5)])
    roll_everything_up(account)
    result = as_sums(read(account, now - DAY, now + DAY))
    assert sum(1 for dimension, _, _ in result if dimension == "agent") == 2
    assert next(sums for (name, _, _), sums in result.items() if name == "")[1] == 5


def test_combinations_are_the_costly_ones_first(account: Account) -> None:
    now = datetime.now(UTC)
    send(
        account,
        [
            make_event(agent="a", customer="acme", status="error"),
            make_event(agent="a", customer="acme", input_tokens=9_000),
            make_event(agent="b"),
        ],
    )
    with account.scope():
        first, second = combinations(
            tenant_id=account.tenant.id, starts_at=now - DAY, ends_at=now + DAY, limit=5
        )
        only = combinations(
            tenant_id=account.tenant.id, starts_at=now - DAY, ends_at=now + DAY, limit=1
        )
    values = dict(zip(COMBINED_DIMENSIONS, first.values, strict=True))
    assert values == {
        "team": "",
        "agent": "a",
        "feature": "",
        "customer": "acme",
        "model": "claude-sonnet-4-5",
    }
    assert first[1:] == (33_000_000, 2, 1, 10_200)
    assert second[1:] == (4_500_000, 1, 0, 1_100)
    assert only == [first]


def test_first_usage_and_the_newest_batch_are_known_before_any_roll_up(account: Account) -> None:
    now = datetime.now(UTC)
    tenant_id = account.tenant.id
    with account.scope():
        assert first_usage_at(tenant_id=tenant_id, since=now - 9 * DAY) is None
        assert newest_batch(tenant_id=tenant_id) == 0
    send(account, [make_event(time=(now - 3 * DAY).isoformat())])
    with account.scope():
        assert first_usage_at(tenant_id=tenant_id, since=now - 9 * DAY) == now - 3 * DAY
        assert first_usage_at(tenant_id=tenant_id, since=now - DAY) is None
        assert newest_batch(tenant_id=tenant_id) > 0
    roll_everything_up(account)
    with account.scope():
        assert first_usage_at(tenant_id=tenant_id, since=now - 9 * DAY) == floor_seconds(
            now - 3 * DAY, 900
        )


def test_what_follows_sums_of_many_events_is_planned_as_usual(account: Account) -> None:
    with account.scope(), connection.cursor() as cursor:
        now = datetime.now(UTC)
        quarter_sums(tenant_id=account.tenant.id, starts_at=now - DAY, ends_at=now)
        for name in ("enable_sort", "enable_indexscan"):
            cursor.execute(f"SHOW {name}")
            assert cursor.fetchone() == ("on",)
