"""The rules of rating, one by one: parts, versions, trial, minimum and cap, fees."""

from datetime import UTC, datetime
from fractions import Fraction

import pytest

from billing.charge_models import Used
from billing.periods import Part
from billing.rating import LineKind, RatedLine
from billing.terms import Terms
from common.json_bodies import JsonObject
from tests.billing.rating_scene import (
    DECEMBER,
    NOVEMBER,
    fee,
    parts_of,
    rate_month,
    rate_parts,
    schedule_of,
    terms_of,
    total_of,
    units,
    usage_charge,
)

MIDDLE = datetime(2026, 11, 16, tzinfo=UTC)
TIERS: list[JsonObject] = [
    {"up_to": "100", "unit_amount": "1", "flat_amount": "7"},
    {"up_to": "200", "unit_amount": "0.5", "flat_amount": "3"},
    {"up_to": None, "unit_amount": "0.25", "flat_amount": "2"},
]
DEARER = [{**tier, "unit_amount": "2", "flat_amount": "20"} for tier in TIERS]


def used(*quantities: object) -> list[dict[str, Used]]:
    return [{"Usage": units(quantity)} for quantity in quantities]


def amounts(lines: list[RatedLine]) -> list[Fraction]:
    return [line.amount for line in lines]


def kinds(lines: list[RatedLine]) -> list[str]:
    return [line.kind.value for line in lines]


def halves(first: JsonObject, second: JsonObject) -> list[Part]:
    """The parts of a month in whose middle another version begins."""
    return parts_of((None, terms_of(first)), (MIDDLE, terms_of(second)))


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        ("0", "7"),
        ("1", "8"),
        ("100", "107"),
        ("100.5", "110.25"),
        ("101", "110.5"),
        ("200", "160"),
        ("201", "162.25"),
    ],
)
def test_a_graduated_tier_includes_its_bound(quantity: str, amount: str) -> None:
    lines = rate_month(terms_of(usage_charge("graduated", tiers=TIERS)), units(quantity))
    assert total_of(lines) == Fraction(amount)


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [("0", "7"), ("100", "107"), ("100.5", "53.25"), ("200", "103"), ("201", "52.25")],
)
def test_a_volume_tier_includes_its_bound(quantity: str, amount: str) -> None:
    lines = rate_month(terms_of(usage_charge("volume", tiers=TIERS)), units(quantity))
    assert total_of(lines) == Fraction(amount)


@pytest.mark.parametrize(
    ("model", "quantity", "amount"),
    [
        # A free tier of 50 lies below the first, which then reaches to 150.
        ("graduated", "0", "0"),
        ("graduated", "50", "0"),
        ("graduated", "51", "8"),
        ("graduated", "150", "107"),
        ("graduated", "151", "110.5"),
        # Above it, all units are charged.
        ("volume", "0", "0"),
        ("volume", "50", "0"),
        ("volume", "51", "58"),
        ("volume", "150", "157"),
        ("volume", "151", "78.5"),
    ],
)
def test_included_units_are_a_free_tier_below_the_others(
    model: str, quantity: str, amount: str
) -> None:
    charge = usage_charge(model, tiers=TIERS, included_units="50")
    assert total_of(rate_month(terms_of(charge), units(quantity))) == Fraction(amount)


@pytest.mark.parametrize(("quantity", "packages"), [("0", 0), ("1", 1), ("10", 1), ("10.1", 2)])
def test_a_package_that_is_begun_counts_whole(quantity: str, packages: int) -> None:
    charge = usage_charge("package", package_size=10, package_amount="3")
    assert total_of(rate_month(terms_of(charge), units(quantity))) == 3 * packages


def test_units_have_an_amount_per_so_many() -> None:
    charge = usage_charge("per_unit", unit_amount="1.60", per=1_000_000, included_units="500000")
    (line,) = rate_month(terms_of(charge), units(1_500_001))
    assert line.amount == Fraction("1.6000016")
    assert line.quantity == 1_500_001
    tiers = [{"up_to": None, "unit_amount": "2"}]
    for model in ("graduated", "volume"):
        terms = terms_of(usage_charge(model, tiers=tiers, per=1000))
        assert total_of(rate_month(terms, units(1500))) == 3


def test_a_percentage_has_an_amount_for_each_call_and_included_cost() -> None:
    charge = usage_charge(
        "percentage", metric="cost", percent="10", unit_amount="0.5", included_units="20"
    )
    assert total_of(rate_month(terms_of(charge), Used(Fraction(100), requests=3))) == Fraction(
        "9.5"
    )
    assert total_of(rate_month(terms_of(charge), Used(Fraction(5), requests=3))) == Fraction("1.5")


def test_the_most_specific_markup_wins_and_the_rest_has_the_charges() -> None:
    charge = usage_charge(
        "cost_plus",
        metric="cost",
        percent="10",
        markups=[
            {"provider": "a", "percent": "20"},
            {"model": "m", "percent": "50"},
            {"provider": "a", "model": "m", "percent": "100"},
        ],
    )
    costs = {("a", "m"): 1, ("b", "m"): 10, ("a", "n"): 100, ("b", "n"): 1000}
    exact = {whose: Fraction(cost) for whose, cost in costs.items()}
    (line,) = rate_month(terms_of(charge), Used(Fraction(11_111), costs=exact, unpriced=4))
    assert line.amount == 2 + 15 + 120 + 1100 + 11_000
    assert line.unpriced == 4
    assert sum(stretch.quantity for stretch in line.stretches) == 11_111


@pytest.mark.parametrize("model", ["per_unit", "graduated", "package", "percentage"])
def test_a_quantity_counts_on_from_version_to_version(model: str) -> None:
    """Two versions that say the same cost what one does, wherever the usage falls."""
    members_by_model: dict[str, JsonObject] = {
        "per_unit": {"unit_amount": "1", "included_units": "50"},
        "graduated": {"tiers": TIERS},
        "package": {"package_size": 30, "package_amount": "9"},
        "percentage": {"metric": "cost", "percent": "5", "included_units": "50"},
    }
    charge = usage_charge(model, **members_by_model[model])
    for before in range(0, 260, 13):
        parts = halves(charge, charge)
        lines = rate_parts(parts, *used(before, 260 - before))
        assert total_of(lines) == total_of(rate_month(terms_of(charge), units(260)))


def test_each_part_has_the_prices_of_its_version() -> None:
    parts = halves(usage_charge("graduated", tiers=TIERS), usage_charge("graduated", tiers=DEARER))
    # 70 at $1 and the first tier's flat $7; then 30 in that tier and 20 in the second, at $2, and
    # the second's flat $20.
    assert amounts(rate_parts(parts, *used(70, 50))) == [77, 120]
    assert amounts(rate_parts(parts, *used(0, 50))) == [7, 100]
    # A package that was begun is paid.
    small = usage_charge("package", package_size=10, package_amount="1")
    dear = usage_charge("package", package_size=10, package_amount="5")
    assert amounts(rate_parts(halves(small, dear), *used(15, 10))) == [2, 5]


def test_in_volume_pricing_the_whole_quantity_chooses_each_versions_tier() -> None:
    parts = halves(usage_charge("volume", tiers=TIERS), usage_charge("volume", tiers=DEARER))
    # 150 end in the second tier: 100 at $0.50, and 50 at $2 with the flat $20 of the last version.
    assert amounts(rate_parts(parts, *used(100, 50))) == [50, 120]


def test_a_charge_that_changes_its_model_counts_on_with_its_own_rules() -> None:
    parts = halves(
        usage_charge("per_unit", unit_amount="1"), usage_charge("graduated", tiers=TIERS)
    )
    # Of the second part's 100, 50 are in the first tier and 50 in the second; both are reached.
    assert amounts(rate_parts(parts, *used(50, 100))) == [50, 50 + 25 + 10]


def test_another_metric_under_the_same_name_is_counted_from_zero() -> None:
    charge = usage_charge("graduated", tiers=TIERS)
    parts = halves(charge, {**charge, "metric": "requests"})
    assert amounts(rate_parts(parts, *used(100, 100))) == [107, 107]


def test_a_charge_that_a_version_drops_or_adds_is_rated_in_its_own_part() -> None:
    old, new = (usage_charge("per_unit", unit_amount="1", name=name) for name in ("Old", "New"))
    parts = parts_of((None, terms_of(old)), (MIDDLE, terms_of(new)))
    both = {"Old": units(3), "New": units(4)}
    lines = rate_parts(parts, both, both)
    assert [(line.name, line.version) for line in lines] == [("New", 2), ("Old", 1)]
    assert amounts(lines) == [4, 3]


def test_a_trial_is_shown_and_costs_nothing() -> None:
    terms = terms_of(
        fee("300", when="advance"), usage_charge("graduated", tiers=TIERS), minimum_amount="600"
    )
    trial_ends_at = datetime(2026, 11, 11, tzinfo=UTC)
    parts = parts_of((None, terms), trial_ends_at=trial_ends_at)
    lines = rate_parts(parts, *used(5000, 100))
    assert kinds(lines) == ["flat", "flat", "usage", "usage", "minimum"]
    assert [line.is_trial for line in lines] == [True, False, True, False, False]
    assert [line.quantity for line in lines[:4]] == [Fraction(1, 3), Fraction(2, 3), 5000, 100]
    # What was used in the trial takes nothing from the tiers.
    assert amounts(lines) == [0, 200, 0, 107, 400 - 307]


def test_a_period_that_is_all_trial_costs_nothing() -> None:
    terms = terms_of(
        fee("300", proration="none"),
        usage_charge("volume", tiers=TIERS, minimum_amount="10"),
        minimum_amount="600",
    )
    lines = rate_parts(parts_of((None, terms), trial_ends_at=DECEMBER), *used(5000))
    assert kinds(lines) == ["flat", "usage"]
    assert total_of(lines) == 0


def test_a_volume_flat_amount_is_that_of_the_last_part_after_the_trial() -> None:
    charge = usage_charge("volume", tiers=TIERS)
    parts = parts_of((None, terms_of(charge)), (MIDDLE, terms_of(charge)), trial_ends_at=DECEMBER)
    assert total_of(rate_parts(parts, *used(10, 10))) == 0
    parts = parts_of((None, terms_of(charge)), trial_ends_at=MIDDLE)
    assert amounts(rate_parts(parts, *used(500, 10))) == [0, 17]


def test_bounds_of_a_charge_come_before_those_of_the_plan() -> None:
    charge = usage_charge("per_unit", unit_amount="1", minimum_amount="50", cap_amount="80")
    terms = terms_of(fee("10"), charge, minimum_amount="70", cap_amount="85")
    for quantity, expected in [
        (0, {"minimum": [50, 10]}),
        (50, {"minimum": [10]}),
        (60, {}),
        (75, {}),
        (80, {"cap": [-5]}),
        (1000, {"cap": [-920, -5]}),
    ]:
        lines = rate_month(terms, units(quantity))
        bounds: dict[str, list[Fraction]] = {}
        for line in lines:
            if line.kind in (LineKind.MINIMUM, LineKind.CAP):
                bounds.setdefault(line.kind.value, []).append(line.amount)
        assert bounds == expected, quantity


def test_bounds_count_all_parts_and_are_those_of_the_last_version() -> None:
    low = usage_charge("per_unit", unit_amount="1", cap_amount="100")
    high = usage_charge("per_unit", unit_amount="1", cap_amount="60", minimum_amount="40")
    assert amounts(rate_parts(halves(low, high), *used(90, 20))) == [90, 20, -50]
    assert amounts(rate_parts(halves(low, high), *used(1, 2))) == [1, 2, 37]


def test_the_plans_bounds_are_those_of_its_last_version() -> None:
    charge = usage_charge("per_unit", unit_amount="1")
    old, new = (terms_of(charge, minimum_amount=amount) for amount in ("500", "90"))
    parts = parts_of((None, old), (MIDDLE, new))
    assert amounts(rate_parts(parts, *used(10, 20))) == [10, 20, 60]


def test_bounds_of_a_part_of_a_period_are_by_the_day() -> None:
    charge = usage_charge("per_unit", unit_amount="1")
    terms = terms_of(charge, minimum_amount="60", cap_amount="90")
    schedule = schedule_of(datetime(2026, 11, 11, 15, tzinfo=UTC))
    parts = parts_of((None, terms), schedule=schedule, at=MIDDLE)
    assert total_of(rate_parts(parts, *used(1))) == 40
    assert total_of(rate_parts(parts, *used(1000))) == 60


def test_less_than_a_day_has_no_minimum_and_a_whole_cap() -> None:
    terms = terms_of(
        usage_charge("per_unit", unit_amount="1"), fee("30"), minimum_amount="30", cap_amount="60"
    )
    schedule = schedule_of(MIDDLE, MIDDLE.replace(hour=20))
    parts = parts_of((None, terms), schedule=schedule, at=MIDDLE)
    assert amounts(rate_parts(parts, *used(50))) == [50]
    assert amounts(rate_parts(parts, *used(70))) == [70, -10]


@pytest.mark.parametrize(
    ("proration", "amount"),
    [("day", Fraction(200)), ("second", Fraction(300 * 39, 60)), ("none", Fraction(300))],
)
def test_a_fee_counts_for_a_part_of_a_period(proration: str, amount: Fraction) -> None:
    terms = terms_of(fee("300", proration=proration))
    schedule = schedule_of(datetime(2026, 11, 11, 12, tzinfo=UTC))
    parts = parts_of((None, terms), schedule=schedule, at=MIDDLE)
    assert amounts(rate_parts(parts, {})) == [amount]


@pytest.mark.parametrize(("when", "amount"), [("advance", 100), ("arrears", 500)])
def test_a_whole_fee_is_charged_once(when: str, amount: int) -> None:
    old, new = (fee(each, when=when, proration="none") for each in ("100", "500"))
    lines = rate_parts(halves(old, new), {}, {})
    assert amounts(lines) == [amount]
    assert lines[0].version == (1 if when == "advance" else 2)
    # After a trial, the first part that is paid is the first.
    parts = parts_of((None, terms_of(old)), (MIDDLE, terms_of(new)), trial_ends_at=MIDDLE)
    assert amounts(rate_parts(parts, {}, {})) == [500]


def test_if_the_deciding_version_prorates_a_fee_all_do() -> None:
    whole, daily = fee("100", proration="none"), fee("500", proration="day")
    assert amounts(rate_parts(halves(whole, daily), {}, {})) == [50, 250]
    assert amounts(rate_parts(halves(daily, whole), {}, {})) == [100]


def test_a_line_is_found_again_by_its_key() -> None:
    terms = terms_of(fee("5"), usage_charge("volume", tiers=TIERS, cap_amount="8"), cap_amount="10")
    again: Terms = terms_of(
        fee("5"), usage_charge("volume", tiers=TIERS, cap_amount="8"), cap_amount="10"
    )
    keys = [line.key for line in rate_month(terms, units(50))]
    assert len(set(keys)) == len(keys) == 4
    assert keys == [line.key for line in rate_month(again, units(60))]
    assert keys[0] == ("flat", "Fee", NOVEMBER)
