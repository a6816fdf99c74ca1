"""What is measured of a series, and that what was learned comes back as it was."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from alerts import anomaly, series
from alerts.models import SeriesState
from alerts.series import MEASURES, NEVER, TENANT, Learned, SeriesKey, Watch, frames, usage_of
from metering.reporting.series import SERIES_DIMENSIONS, SERIES_MEASURES, QuarterSums
from tests.factories import Account

AT = 1_790_000_100 // 900 * 900


def sums_of(*rows: tuple[SeriesKey, int, dict[str, int]]) -> QuarterSums:
    return QuarterSums(
        np.array([SERIES_DIMENSIONS.index(key.dimension) for key, _, _ in rows]),
        [key.value for key, _, _ in rows],
        np.array([quarter for _, quarter, _ in rows]),
        np.array([[sums.get(name, 0) for name in SERIES_MEASURES] for _, _, sums in rows]),
        np.array([sums.get("cost_nanos", 0) for _, _, sums in rows], object),
    )


def test_what_a_series_cost_is_exact_beyond_what_a_float_holds() -> None:
    key = SeriesKey("agent", "research")
    # Eighteen billion dollars and a nano-dollar.
    rows = [(key, AT, {"cost_nanos": 18 * 10**18 + 1}), (key, AT + 900, {"cost_nanos": 1})]
    usage = usage_of(sums_of(*rows))
    assert usage.cost_nanos(key, since=datetime.fromtimestamp(AT, UTC)) == 18 * 10**18 + 2
    assert usage.cost_nanos(TENANT, since=datetime.fromtimestamp(AT, UTC)) == 0


def test_ratios_are_made_of_sums_and_rest_on_their_denominators() -> None:
    key = SeriesKey("agent", "research")
    usage = usage_of(
        sums_of(
            (
                key,
                AT,
                {
                    "cost_nanos": 600,
                    "requests": 4,
                    "tool_calls": 6,
                    "errors": 5,
                    "input_tokens": 80,
                    "output_tokens": 20,
                    "cache_read_tokens": 60,
                },
            )
        )
    )
    (frame,) = frames(usage, [key], [AT])
    assert frame.values.tolist() == [[600, 100, 4, 150, 0.5, 0.75]]
    assert frame.weights.tolist() == [[10, 4, 4, 4, 10, 4]]


def test_a_quarter_without_usage_is_nothing_for_sums_and_unknown_for_ratios() -> None:
    used, idle = SeriesKey("team", "growth"), SeriesKey("team", "idle")
    usage = usage_of(sums_of((used, AT + 900, {"cost_nanos": 5, "tool_calls": 1})))
    first, second = frames(usage, [idle, used], [AT, AT + 900])
    assert first.values[:, :3].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert np.isnan(first.values[:, 3:]).all()
    assert second.values[0, :3].tolist() == [0, 0, 0]
    assert second.values[1, :3].tolist() == [5, 0, 0]
    # Without a request or input there is no cost per request and no share of the cache.
    assert np.isnan(second.values[1, 3])
    assert second.values[1, 4] == 0
    assert np.isnan(second.values[1, 5])
    assert usage.bounds([idle, used])[0].tolist() == [np.iinfo(np.int64).max, AT + 900]


def learned_of(keys: list[SeriesKey], *, steps: int) -> Learned:
    """States that have seen something."""
    watch = Watch(series.new_records(len(keys)))
    chance = np.random.default_rng(1)
    rows = [
        (key, AT + 900 * step, {"cost_nanos": int(chance.integers(1, 999)), "requests": 20})
        for key in keys
        for step in range(steps)
    ]
    quarters = [AT + 900 * step for step in range(steps)]
    for frame in frames(usage_of(sums_of(*rows)), keys, quarters):
        watch.observe(frame)
    return Learned(keys, watch.records(), [datetime.fromtimestamp(AT, UTC)] * len(keys))


@pytest.mark.django_db(transaction=True)
def test_what_was_learned_comes_back_in_portions_and_by_key(
    account: Account, stranger: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(series, "PORTION_SERIES", 2)
    keys = [TENANT, SeriesKey("agent", ""), SeriesKey("agent", "größe 'x'"), SeriesKey("team", "a")]
    learned = learned_of(keys, steps=4)
    tenant_id = account.tenant.id
    with account.scope():
        series.save(tenant_id=tenant_id, learned=learned)
        portions = list(series.stored_portions(tenant_id=tenant_id))
        assert [portion.keys for portion in portions] == [keys[:2], keys[2:]]
        stored = np.concatenate([portion.records for portion in portions])
        assert stored.tobytes() == learned.records.tobytes()
        other = SeriesKey("agent", "new")
        read = series.read_states(tenant_id=tenant_id, keys=[other, keys[3]])
        assert read.records[1].tobytes() == learned.records[3].tobytes()
        assert read.records[0].tobytes() == series.new_records(1).tobytes()
        assert read.used_at == [NEVER, datetime.fromtimestamp(AT, UTC)]
    with stranger.scope():
        assert list(series.stored_portions(tenant_id=tenant_id)) == []


@pytest.mark.django_db(transaction=True)
def test_records_of_another_version_are_begun_anew(account: Account) -> None:
    learned = learned_of([TENANT], steps=4)
    learned.records["version"][0, 2] += 1
    with account.scope():
        series.save(tenant_id=account.tenant.id, learned=learned)
        read = series.read_states(tenant_id=account.tenant.id, keys=[TENANT])
        assert read.records.tobytes() == series.new_records(1).tobytes()
        SeriesState.objects.update(records=b"too short")
        read = series.read_states(tenant_id=account.tenant.id, keys=[TENANT])
        assert read.records.tobytes() == series.new_records(1).tobytes()


@pytest.mark.django_db(transaction=True)
def test_idle_series_are_forgotten(account: Account) -> None:
    keys = [TENANT, SeriesKey("agent", "gone")]
    learned = learned_of(keys, steps=1)
    used_at = learned.used_at[0]
    learned.used_at[1] = used_at - timedelta(days=1)
    with account.scope():
        series.save(tenant_id=account.tenant.id, learned=learned)
        assert series.forget_idle(tenant_id=account.tenant.id, before=used_at) == 1
        assert series.count_series(tenant_id=account.tenant.id) == 1


def test_there_is_a_record_for_each_measure() -> None:
    assert series.new_records(3).shape == (3, len(MEASURES))
    assert series.new_records(3).nbytes == 3 * len(MEASURES) * anomaly.RECORD.itemsize
