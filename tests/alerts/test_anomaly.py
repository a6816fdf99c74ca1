"""The detector on series made up here: seasons, spikes, shifts, gaps and handfuls of requests.

Steps are quarters of an hour unless said otherwise; random numbers are seeded.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from alerts.anomaly import RECORD, THRESHOLD, Verdicts, judge, new_states, observe

STEP: Final = 900
DAY: Final = 96
START: Final = 1_704_067_200  # Monday, 2024-01-01 00:00 UTC

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Story(NamedTuple):
    """What happened to the series, an array of steps by series each."""

    is_open: Bools
    is_above: Bools
    score: Floats

    def openings(self) -> list[int]:
        """How often each series' anomalies opened."""
        before = np.vstack([np.zeros_like(self.is_open[:1]), self.is_open[:-1]])
        return [int(count) for count in (self.is_open & ~before).sum(0)]

    def open_steps(self, series: int = 0) -> list[int]:
        return [int(step) for step in np.flatnonzero(self.is_open[:, series])]


def told(values: Floats, weights: Floats, *, is_ratio: bool, step_seconds: int = 3600) -> Floats:
    """What was called expected of each step of the series, a column each."""
    states = new_states(values.shape[1])
    return np.array(
        [
            observe(
                states,
                at=START + number * step_seconds,
                step_seconds=step_seconds,
                values=row,
                weights=weights[number],
                is_ratio=is_ratio,
            ).expected
            for number, row in enumerate(values)
        ]
    )


def watch(
    values: Floats,
    weights: Floats | None = None,
    *,
    is_ratio: bool = False,
    step_seconds: int = STEP,
    states: npt.NDArray[np.void] | None = None,
    first: int = 0,
) -> Story:
    """Show the detector series, a column each, from the step `first` after a Monday's midnight."""
    columns = values.reshape(len(values), -1)
    states = new_states(columns.shape[1]) if states is None else states
    seen = []
    for number, row in enumerate(columns):
        resting = None if weights is None else weights.reshape(columns.shape)[number]
        at = START + (first + number) * step_seconds
        seen.append(
            observe(
                states,
                at=at,
                step_seconds=step_seconds,
                values=row,
                weights=resting,
                is_ratio=is_ratio,
            )
        )
    return Story(
        np.array([each.is_open for each in seen]),
        np.array([each.is_above for each in seen]),
        np.array([each.score for each in seen]),
    )


def days(count: float, *, seed: int = 1, level: float = 200.0, series: int = 1) -> Floats:
    """Sums with a season of a day, three times as much at noon as at midnight, and noise."""
    steps = np.arange(round(count * DAY))
    season = 2 - np.cos(2 * np.pi * steps / DAY)
    noise = np.random.default_rng(seed).lognormal(0, 0.1, (len(steps), series))
    return np.asarray(level * season[:, None] * noise)


def test_a_spike_of_six_hours_is_one_anomaly_that_opens_at_once_and_ends_within_an_hour() -> None:
    values = days(6, series=3)
    begins, ends = 4 * DAY + 40, 4 * DAY + 64
    values[begins:ends] *= [5, 10, 20]
    story = watch(values, values / 2)
    assert story.openings() == [1, 1, 1]
    assert story.is_open[begins:ends].all()
    assert not story.is_open[ends + 4 :].any()
    assert story.is_above[begins:ends].all()


def test_a_spike_is_found_in_a_series_that_is_hours_old() -> None:
    values = days(0.5)
    values[40:44] *= 8
    assert watch(values).open_steps()[0] == 40


def test_the_first_hours_are_never_anomalous() -> None:
    values = days(1)
    values[20] *= 100
    assert watch(values[:24]).openings() == [0]


def test_a_spike_in_a_sparse_series_is_one_anomaly() -> None:
    pick = np.random.default_rng(5)
    busy = pick.random(8 * DAY) < 0.3
    requests = np.where(busy, pick.poisson(30, 8 * DAY), 0).astype(np.float64)
    begins, ends = 6 * DAY + 30, 6 * DAY + 54
    requests[begins:ends] = np.where(pick.random(24) < 0.5, 600, 0)
    requests[begins] = 600
    story = watch(requests * 2.5e9, requests)
    assert story.openings() == [1]
    assert story.open_steps()[0] == begins
    assert story.open_steps()[-1] < ends + 3 * 4


def test_a_lasting_shift_is_one_anomaly_that_is_accepted_within_a_day() -> None:
    values = days(6, series=2)
    values[4 * DAY :] *= [6, 1 / 6]
    story = watch(values)
    assert story.openings() == [1, 1]
    assert not story.is_open[5 * DAY :].any()


def office_hours(weeks: int, *, night: float) -> Floats:
    """Hourly sums of people who work from nine to six, less at weekends, with noise."""
    hours = np.arange(weeks * 168)
    is_office = (hours % 24 >= 9) & (hours % 24 < 18)
    levels = np.where(is_office, np.where(hours // 24 % 7 >= 5, 2 * night, 3_000.0), night)
    return np.asarray(levels * np.random.default_rng(2).lognormal(0, 0.1, len(hours)))


def test_seasons_of_a_day_and_a_week_are_no_anomalies_once_seen() -> None:
    values = office_hours(3, night=100.0)
    story = watch(values, values, step_seconds=3600)
    assert not story.is_open[48:].any()


def test_a_handful_of_requests_proves_nothing() -> None:
    pick = np.random.default_rng(3)
    weights = np.full(4 * DAY, 500.0)
    errors = pick.binomial(500, 0.01, 4 * DAY).astype(np.float64)
    weights[3 * DAY], errors[3 * DAY] = 2, 2
    weights[3 * DAY + 20], errors[3 * DAY + 20] = 500, 150
    story = watch(errors / weights, weights, is_ratio=True)
    assert story.open_steps()[0] == 3 * DAY + 20

    few = np.zeros(4 * DAY)
    few[::7] = 3
    few[3 * DAY + 1] = 9
    assert watch(few * 1e9, few).openings() == [0]


def test_a_ratio_over_no_requests_is_unknown() -> None:
    pick = np.random.default_rng(4)
    weights = np.where(pick.random(5 * DAY) < 0.5, 200.0, 0.0)
    share = np.clip(pick.normal(0.7, 0.03, 5 * DAY), 0, 1)
    share = np.where(weights > 0, share, 0.0)
    begins = 4 * DAY
    weights[begins], share[begins] = 200, 0.0
    story = watch(share, weights, is_ratio=True)
    assert story.open_steps()[0] == begins
    assert not story.is_above[begins, 0]


@pytest.mark.parametrize("is_reported", [True, False])
def test_a_gap_teaches_nothing_and_raises_no_alarm(is_reported: bool) -> None:
    before, after = days(3, seed=1), days(1, seed=2)
    after[40] *= 10
    states = new_states(1)
    assert watch(before, states=states).openings() == [0]
    if is_reported:
        unknown = np.full((4 * DAY, 1), np.nan)
        assert watch(unknown, states=states, first=3 * DAY).openings() == [0]
    assert watch(after, states=states, first=7 * DAY).open_steps()[0] == 40


def test_a_constant_series_is_calm_and_its_change_is_found() -> None:
    values = np.full((4 * DAY, 3), [45.0, 0.0, 1e-9])
    values[3 * DAY :, 0] = 450.0
    story = watch(values)
    assert story.openings() == [1, 0, 0]
    assert story.open_steps()[0] == 3 * DAY


def test_extreme_values_neither_warn_nor_break_the_numbers() -> None:
    pick = np.random.default_rng(6)
    values = pick.choice([0, -1e15, 1e15, 1e-15, 3, np.inf, -np.inf, np.nan, 1e300], (90, 20))
    for weights in (None, pick.choice([0, 1, 1e15, np.nan], (90, 20))):
        for is_ratio in (False, True):
            states = new_states(20)
            story = watch(values, weights, is_ratio=is_ratio, states=states)
            assert np.isfinite(story.score).all()
            states["day"] = states["week"] = 0  # hours not seen yet are NaN
            assert all(np.isfinite(states[field]).all() for field in RECORD.names or ())


def test_negative_values_are_series_too() -> None:
    values = -days(3)
    values[2 * DAY] *= 8
    story = watch(values)
    assert story.openings() == [1]
    assert not story.is_above[2 * DAY, 0]


def test_a_record_kept_as_bytes_gives_the_same_verdicts() -> None:
    values = days(4, series=2)
    values[3 * DAY + 5 :] *= 9
    whole = watch(values)
    states = new_states(2)
    cut = 3 * DAY + 9
    first = watch(values[:cut], states=states)
    kept = [record.tobytes() for record in states]
    assert {len(each) for each in kept} == {RECORD.itemsize}
    assert RECORD.itemsize <= 2048
    restored = np.frombuffer(b"".join(kept), RECORD).copy()
    second = watch(values[cut:], states=restored, first=cut)
    np.testing.assert_array_equal(whole.score, np.vstack([first.score, second.score]))
    np.testing.assert_array_equal(whole.is_open, np.vstack([first.is_open, second.is_open]))


def test_series_do_not_influence_each_other() -> None:
    values = np.hstack([days(3), days(3, seed=2, level=1e9), np.zeros((3 * DAY, 1))])
    values[2 * DAY :, 1] *= 7
    together = watch(values, values)
    for series in range(3):
        alone = watch(values[:, series], values[:, series])
        np.testing.assert_array_equal(alone.score[:, 0], together.score[:, series])


def test_units_do_not_matter() -> None:
    values = days(4)
    values[3 * DAY] *= 5
    np.testing.assert_allclose(watch(values).score, watch(values * 1e9).score, atol=1e-6)


def off_by(told_values: Floats, true_values: Floats, hours: Bools) -> Floats:
    """By what factor the hours of the third week were told too high or too low, of each series."""
    third = np.arange(len(hours)) >= 14 * 24
    ratio = np.log(told_values[third & hours] / true_values[third & hours])
    return np.asarray(np.exp(np.abs(ratio).mean(axis=0)))


def test_what_is_told_as_expected_is_the_true_middle_by_night_and_by_day() -> None:
    pick = np.random.default_rng(11)
    hours = np.arange(21 * 24)
    night = hours % 24 < 6
    quiet = np.where(night, 1.0, 10.0)
    waves = 10 ** ((1 - np.cos(hours / 24 * 2 * np.pi)) / 2)
    weekly = np.where(hours // 24 % 7 >= 5, 0.3, 1.0) * waves
    levels = 200 * np.column_stack((quiet, 11 - quiet, waves, weekly))
    noise = pick.lognormal(0, 0.1, levels.shape)
    sums = told(levels * noise, levels * noise, is_ratio=False)
    for part in (night, ~night):
        assert (off_by(sums, levels, part) < [1.15, 1.15, 1.3, 1.35]).all()
    # The same as ratios: what a request costs where nights are of another kind than days.
    each = told(levels * noise, np.full(levels.shape, 300.0), is_ratio=True)
    for part in (night, ~night):
        assert (off_by(each, levels, part) < [1.15, 1.15, 1.3, 1.35]).all()


def test_rates_of_rare_things_are_not_told_too_low() -> None:
    pick = np.random.default_rng(12)
    requests = np.full((21 * 24, 3), [500, 100, 50])
    rates = np.array([0.02, 0.02, 0.1])
    shares = pick.binomial(requests, rates) / requests
    means = told(shares, requests.astype(np.float64), is_ratio=True)[14 * 24 :].mean(axis=0)
    np.testing.assert_allclose(means / rates, 1, atol=0.1)
    # A sum of few requests as well.
    few = pick.poisson(2, (21 * 24, 2)).astype(np.float64)
    sums = told(few * 5e8, few, is_ratio=False)[14 * 24 :].mean(axis=0)
    np.testing.assert_allclose(sums / 1e9, 1, atol=0.15)


def test_a_lasting_shift_is_what_is_told_as_expected_two_days_later() -> None:
    pick = np.random.default_rng(13)
    values = 1_000 * pick.lognormal(0, 0.1, (18 * 24, 1))
    values[14 * 24 :] *= 3
    expected = told(values, values, is_ratio=False)
    assert 2_500 < expected[-24:].mean() < 4_000
    assert 900 < expected[13 * 24 : 14 * 24].mean() < 1_100


def verdicts(states: npt.NDArray[np.void], value: float) -> Verdicts:
    at = START + 4 * DAY * STEP
    return judge(states, at=at, step_seconds=STEP, values=np.array([value]))


def test_judging_a_running_step_leaves_the_state_alone_and_alarms_upwards_only() -> None:
    states = new_states(1)
    watch(days(4), states=states)
    before = states.tobytes()
    assert verdicts(states, 8_000.0).is_open.tolist() == [True]
    assert verdicts(states, 0.0).is_open.tolist() == [False]
    assert states.tobytes() == before


def test_an_anomaly_opens_at_the_limits_told_and_the_score_is_the_threshold_there() -> None:
    states = new_states(1)
    watch(days(4), states=states)
    usual = verdicts(states, 200.0)
    high = float(usual.high[0])
    assert usual.low[0] < 200 * 0.8 < usual.expected[0] < 200 * 1.5 < high < 5 * 200
    assert verdicts(states, high * 1.001).is_open.tolist() == [True]
    assert verdicts(states, high * 0.999).is_open.tolist() == [False]
    assert verdicts(states, high).score[0] == pytest.approx(THRESHOLD)


def steady(days: int, *, seed: int, level: float = 100.0) -> Floats:
    pick = np.random.default_rng(seed)
    return level * np.exp(0.1 * pick.standard_normal(days * DAY))


def test_a_pattern_never_seen_opens_once_and_says_that_no_value_is_far_off() -> None:
    values = steady(20, seed=3)
    # Two thirds above the usual for three hours, twice: not far off, and the second time not new.
    for begins in (15 * DAY, 18 * DAY):
        values[begins : begins + 12] = 165.0
    states, novel = new_states(1), []
    for step, value in enumerate(values):
        at = START + step * STEP
        result = observe(states, at=at, step_seconds=STEP, values=np.array([value]))
        if result.is_novel[0]:
            assert result.is_open[0]
            assert result.score[0] == THRESHOLD
            novel.append(step)
    assert novel[0] == 15 * DAY
    assert novel[-1] <= 15 * DAY + 12


def test_a_spike_while_a_new_pattern_is_open_is_a_spike() -> None:
    values = steady(16, seed=3)[: 15 * DAY + 2]
    values[15 * DAY :] = 165.0, 10_000.0
    states = new_states(1)
    for step, value in enumerate(values):
        at = START + step * STEP
        result = observe(states, at=at, step_seconds=STEP, values=np.array([value]))
    assert result.is_open[0]
    assert result.is_above[0]
    assert not result.is_novel[0]


def test_a_weekend_as_busy_as_a_weekday_is_found() -> None:
    hours = np.arange(20 * DAY) * STEP // 3600
    weekday = 100 * (1.2 + np.sin(hours % 24 / 24 * 2 * np.pi))
    values = np.where(hours // 24 % 7 >= 5, 0.1 * weekday, weekday)
    pick = np.random.default_rng(7)
    values = values * np.exp(0.1 * pick.standard_normal(len(values)))
    saturday = 19 * DAY + 6 * 4
    values[saturday : saturday + 8] *= 10
    assert watch(values, values * 10).is_open[saturday, 0]
    assert watch(values, values * 10).is_above[saturday, 0]
