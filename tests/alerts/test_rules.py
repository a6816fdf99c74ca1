"""The plain rules by themselves: exact at their thresholds, silent below their floors."""

import math
import random
from fractions import Fraction

from alerts import rules
from alerts.rules import RuleOverride, Spend
from common.money import NANOS_PER_USD

USD = NANOS_PER_USD
TEN = Fraction(10)


def test_a_tenant_changes_what_it_names_and_nothing_else() -> None:
    active = rules.active_rules(
        {
            rules.COSTLY_REQUEST: {"threshold": 2.5},
            rules.HOURLY_SPEND: {"on": False},
            rules.FEATURE_WEEK: {"severity": "critical"},
        }
    )
    assert set(active) == set(rules.RULES) - {rules.HOURLY_SPEND}
    assert active[rules.COSTLY_REQUEST] == RuleOverride(Fraction(5, 2), "info")
    assert active[rules.FEATURE_WEEK] == RuleOverride(Fraction(50), "critical")
    assert active[rules.USER_DAY_BUDGET] == RuleOverride(Fraction(90), "warning")


def test_a_request_is_costly_above_its_multiple_of_enough_others() -> None:
    usual = Spend(20 * USD // 10, 20)
    assert not rules.is_costly_request(cost_nanos=USD, usual=usual, times=TEN)
    assert rules.is_costly_request(cost_nanos=USD + 1, usual=usual, times=TEN)
    few = Spend(19 * USD // 10, 19)
    assert not rules.is_costly_request(cost_nanos=5 * USD, usual=few, times=TEN)
    cents = Spend(20 * 1_000, 20)
    assert not rules.is_costly_request(cost_nanos=USD // 10 - 1, usual=cents, times=TEN)
    assert rules.is_costly_request(cost_nanos=USD // 10, usual=cents, times=TEN)


def test_a_quarter_is_costly_with_more_than_ten_requests() -> None:
    day = Spend(100 * USD // 100, 100)
    three = Fraction(3)

    def is_costly(cost_nanos: int, requests: int) -> bool:
        return rules.is_costly_quarter(quarter=Spend(cost_nanos, requests), day=day, times=three)

    assert not is_costly(30 * USD, 10)
    assert not is_costly(11 * 3 * USD // 100, 11)
    assert is_costly(11 * 3 * USD // 100 + 1, 11)
    assert not rules.is_costly_quarter(
        quarter=Spend(30 * USD, 11), day=Spend(USD // 100, 10), times=three
    )


def test_an_hour_is_compared_with_its_hour_of_the_week() -> None:
    # Four weeks: a dollar an hour, ten from nine on at Mondays, whose third was an exception.
    hours = [USD] * 4 * 168
    for week, dollars in enumerate((10, 11, 90, 12)):
        hours[week * 168 + 9] = dollars * USD

    def is_high(hour_nanos: int, index: int, times: int = 2) -> bool:
        return rules.is_high_hour(
            hour_nanos=hour_nanos, hours=hours[: 3 * 168 + index], times=Fraction(times)
        )

    assert rules.usual_hour_nanos(hours, 3 * 168 + 9) == 11 * USD
    assert not is_high(22 * USD, 9)
    assert is_high(22 * USD + 1, 9)
    # Seasons are not punctual: ten o'clock may be as busy.
    assert not is_high(22 * USD, 10)
    assert not is_high(2 * USD, 12)
    assert is_high(2 * USD + 1, 12)
    assert not is_high(3 * USD, 12, times=3)


def test_a_young_tenants_hour_is_compared_with_its_days_and_hours_so_far() -> None:
    def usual(*hours: int) -> int | None:
        return rules.usual_hour_nanos(hours)

    assert usual(*[USD] * 5) is None
    assert usual(*range(6)) == 5
    # The second day: the same hour of the first, or the average of a day.
    assert usual(50, 40, *[1] * 22) == 50
    assert usual(1, 1, *[72] * 22) == 66
    assert usual(*[9, 1, 1, *[1] * 21] * 2, *[7, 1, 1, *[1] * 21]) == 9


def test_an_hour_is_high_only_from_a_dollar_on_and_beyond_the_tenants_own_bursts() -> None:
    def is_high(hour_nanos: int, hours: list[int]) -> bool:
        return rules.is_high_hour(hour_nanos=hour_nanos, hours=hours, times=Fraction(2))

    assert not is_high(USD - 1, [0] * 48)
    assert is_high(USD, [0] * 48)
    week = [USD] * 7 * 24
    assert is_high(5 * USD, week)
    # One such day is no habit, two are.
    week[30] = 6 * USD
    assert is_high(5 * USD, week)
    week[100] = 5 * USD
    assert not is_high(5 * USD, week)
    assert is_high(5 * USD + 1, week)


def spending(pick: random.Random, *, swing: float, peak: int) -> list[int]:
    """Four weeks of hours with quiet nights and weekends, noise, and a nightly job."""
    starts = pick.randrange(168)
    job_hours = [pick.choice((2, 2, 3)) for _ in range(7 * 6)]
    hours = []
    for number in range(4 * 168):
        hour, day = (starts + number) % 24, (starts + number) // 24 % 7
        level = swing ** ((math.cos((hour - 15) / 12 * math.pi) - 1) / 2)
        level *= 0.3 if day >= 5 else 1.0
        level += 0.8 if hour == job_hours[(starts + number) // 24] else 0.0
        hours.append(round(peak * level * pick.lognormvariate(0, 0.12)))
    return hours


def test_clean_days_meet_no_rule_and_hours_of_three_to_five_times_do() -> None:
    pick = random.Random(7)
    tenants = [
        spending(pick, swing=swing, peak=usd * USD) for swing in (3, 10) for usd in (15, 100)
    ]

    def is_high(hours: list[int], index: int, factor: int = 1) -> bool:
        return rules.is_high_hour(
            hour_nanos=factor * hours[index], hours=hours[:index], times=Fraction(2)
        )

    cried = {
        (number, index // 24)
        for number, hours in enumerate(tenants)
        for index in range(len(hours))
        if is_high(hours, index)
    }
    assert len(cried) <= 0.02 * 28 * len(tenants)
    places = pick.sample(range(8 * 24, 4 * 168), 60)
    for factor, least in ((3, 0.8), (4, 0.9), (5, 0.9)):
        told = [is_high(hours, index, factor) for hours in tenants for index in places]
        assert sum(told) >= least * len(told)


def test_a_week_has_grown_by_share_and_by_money() -> None:
    def has_grown(before_nanos: int, week_nanos: int) -> bool:
        return rules.is_grown_week(
            week_nanos=week_nanos, before_nanos=before_nanos, percent=Fraction(50)
        )

    assert not has_grown(20 * USD, 30 * USD)
    assert has_grown(20 * USD, 30 * USD + 1)
    assert not has_grown(USD, 6 * USD - 1)
    assert has_grown(USD, 6 * USD)
    assert not has_grown(0, 90 * USD)


def test_a_month_goes_on_like_its_weekdays() -> None:
    # A month of 28 days, of which a weekend and Monday have passed.
    passed = [1.0, 0, 0, 0, 0, 1, 1]
    whole = [4.0] * 7
    uniform = rules.projected_nanos(
        spent_nanos=30 * USD, passed_days=passed, all_days=whole, profile=[0] * 7
    )
    assert uniform == 280 * USD
    quiet_weekends = rules.projected_nanos(
        spent_nanos=12 * USD, passed_days=passed, all_days=whole, profile=[10, 10, 10, 10, 10, 1, 1]
    )
    assert quiet_weekends == 4 * 52 * USD
    assert (
        rules.projected_nanos(
            spent_nanos=USD, passed_days=[0, 0, 0, 0, 0.9, 1, 1], all_days=whole, profile=[1] * 7
        )
        is None
    )
