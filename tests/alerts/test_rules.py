"""The plain rules by themselves: exact at their thresholds, silent below their floors."""

from fractions import Fraction

from alerts import rules
from alerts.rules import NANOS_PER_USD, Spend, Wish

USD = NANOS_PER_USD
TEN = Fraction(10)


def test_a_tenant_changes_what_it_names_and_nothing_else() -> None:
    wishes = rules.wishes(
        {
            rules.COSTLY_REQUEST: {"threshold": 2.5},
            rules.HOURLY_SPEND: {"on": False},
            rules.FEATURE_WEEK: {"severity": "critical"},
        }
    )
    assert set(wishes) == set(rules.RULES) - {rules.HOURLY_SPEND}
    assert wishes[rules.COSTLY_REQUEST] == Wish(Fraction(5, 2), "info")
    assert wishes[rules.FEATURE_WEEK] == Wish(Fraction(50), "critical")
    assert wishes[rules.USER_DAY_BUDGET] == Wish(Fraction(90), "warning")


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


def test_an_hour_is_high_above_its_multiple_of_the_hours_before() -> None:
    def is_high(hour_nanos: int, hours: int = 24) -> bool:
        return rules.is_high_hour(
            hour_nanos=hour_nanos, before_nanos=hours * USD, before_hours=hours, times=Fraction(3)
        )

    assert not is_high(3 * USD)
    assert is_high(3 * USD + 1)
    assert is_high(4 * USD, hours=6)
    assert not is_high(4 * USD, hours=5)
    assert not rules.is_high_hour(
        hour_nanos=USD - 1, before_nanos=0, before_hours=24, times=Fraction(3)
    )


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
