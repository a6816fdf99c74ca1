"""What a plan may not say: each fault at its member, all of them together."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from rest_framework import serializers

from billing.api.plans_body import PlanBody, VersionBody
from billing.plan_rules import terms_problems
from billing.terms import (
    ChargeModel,
    FlatCharge,
    Markup,
    Metric,
    Proration,
    Terms,
    Tier,
    UsageCharge,
    When,
)
from common.json_bodies import JsonObject
from tests.billing.rating_scene import fee, terms_of, usage_charge

TIERS: list[JsonObject] = [{"up_to": "10", "unit_amount": "1"}, {"up_to": None, "unit_amount": "2"}]
PER_UNIT = usage_charge("per_unit", unit_amount="1")
COST_PLUS = usage_charge("cost_plus", metric="cost", percent="20")


def faults_in(detail: Any, path: str = "") -> dict[str, str]:
    """Errors by the path of their member."""
    if isinstance(detail, str):
        return {path: detail}
    if isinstance(detail, list) and not any(isinstance(each, dict | list) for each in detail):
        return {path: " ".join(map(str, detail))}
    inner: dict[Any, Any] = detail if isinstance(detail, dict) else dict(enumerate(detail))
    result: dict[str, str] = {}
    for name, each in inner.items():
        result |= faults_in(each, f"{path}.{name}" if path else str(name))
    return result


def faults_of(*charges: JsonObject, **members: object) -> dict[str, str]:
    body = PlanBody(data={"name": "Plan", "charges": list(charges), **members})
    with pytest.raises(serializers.ValidationError) as refused:
        body.is_valid(raise_exception=True)
    return faults_in(refused.value.detail)


def without(charge: JsonObject, *names: str) -> JsonObject:
    return {name: value for name, value in charge.items() if name not in names}


def test_a_plan_is_read_exactly() -> None:
    terms = terms_of(
        fee("1200", when="advance", proration="second"),
        usage_charge(
            "graduated", name="In", tiers=TIERS, per=1_000_000, filter={"model": ["a", "b"]}
        ),
        usage_charge("package", name="Out", package_size=10, package_amount="0.000000000001"),
        {**COST_PLUS, "name": "Cost", "markups": [{"model": "m", "percent": 12.5}]},
        minimum_amount="5",
        cap_amount=None,
    )
    assert list(terms_problems(terms, currency="USD")) == []
    assert terms == Terms(
        charges=[
            FlatCharge(
                name="Fee",
                amount=Decimal(1200),
                when=When.ADVANCE,
                proration=Proration.SECOND,
            ),
            UsageCharge(
                name="In",
                metric=Metric.INPUT_TOKENS,
                model=ChargeModel.GRADUATED,
                tiers=[
                    Tier(up_to=Decimal(10), unit_amount=Decimal(1)),
                    Tier(up_to=None, unit_amount=Decimal(2)),
                ],
                per=1_000_000,
                filter={"model": ["a", "b"]},
            ),
            UsageCharge(
                name="Out",
                metric=Metric.INPUT_TOKENS,
                model=ChargeModel.PACKAGE,
                package_size=10,
                package_amount=Decimal("0.000000000001"),
            ),
            UsageCharge(
                name="Cost",
                metric=Metric.COST,
                model=ChargeModel.COST_PLUS,
                percent=Decimal(20),
                markups=[Markup(model="m", percent=Decimal("12.5"))],
            ),
        ],
        minimum_amount=Decimal(5),
    )
    # As they are stored.
    assert msgspec.convert(msgspec.to_builtins(terms), Terms) == terms


@pytest.mark.parametrize(
    ("charge", "member", "words"),
    [
        # What a model needs, and what it takes not.
        (without(PER_UNIT, "unit_amount"), "unit_amount", "needs 'unit_amount'"),
        (usage_charge("volume"), "tiers", "needs 'tiers'"),
        (usage_charge("package", package_size=1), "package_amount", "needs 'package_amount'"),
        (without(COST_PLUS, "percent"), "percent", "needs 'percent'"),
        ({**PER_UNIT, "tiers": TIERS}, "tiers", "Only graduated and volume"),
        ({**PER_UNIT, "package_size": 5}, "package_size", "Only package"),
        ({**PER_UNIT, "percent": "5"}, "percent", "Only percentage and cost_plus"),
        ({**PER_UNIT, "markups": [{"model": "m", "percent": "1"}]}, "markups", "Only cost_plus"),
        (usage_charge("volume", tiers=TIERS, unit_amount="1"), "unit_amount", "of the tiers"),
        ({**COST_PLUS, "included_units": "5"}, "included_units", "Which model's cost"),
        ({**COST_PLUS, "per": 1000}, "per", "for a number of them"),
        (fee("5", metric="cost"), "metric", "A flat fee takes no"),
        ({**PER_UNIT, "amount": "5"}, "amount", "Only a flat fee"),
        (without(fee("5"), "amount"), "amount", "is required"),
        (without(PER_UNIT, "metric"), "metric", "is required"),
        # On what a percentage is.
        ({**COST_PLUS, "metric": "requests"}, "metric", "use 'cost'"),
        # Numbers.
        (fee("-1"), "amount", "must be a decimal number"),
        (fee("1e3"), "amount", "must be a decimal number"),
        (fee("NaN"), "amount", "must be a decimal number"),
        (fee("0.0000000000001"), "amount", "at most 12 decimals"),
        (fee("1000000000.01"), "amount", "Give 0 to 1,000,000,000."),
        ({**PER_UNIT, "unit_amount": "0.1234567890123"}, "unit_amount", "at most 12 decimals"),
        ({**PER_UNIT, "per": 0}, "per", "at least 1"),
        ({**PER_UNIT, "per": 1_000_000_001}, "per", "at most 1000000000"),
        ({**COST_PLUS, "percent": "1000.1"}, "percent", "Give 0 to 1,000."),
        ({**COST_PLUS, "percent": "0.1234567"}, "percent", "at most 6 decimals"),
        ({**PER_UNIT, "included_units": "1000000000000001"}, "included_units", "Give 0 to"),
        ({**PER_UNIT, "minimum_amount": "5", "cap_amount": "4.99"}, "cap_amount", "less than"),
        # Names and filters.
        ({**PER_UNIT, "name": ""}, "name", "must"),
        ({**PER_UNIT, "name": " "}, "name", "blank"),
        ({**PER_UNIT, "name": "x" * 201}, "name", "at most 200"),
        ({**PER_UNIT, "filter": {"colour": "red"}}, "filter.colour", "Unknown dimension"),
        ({**PER_UNIT, "filter": {"model": None}}, "filter.model", "a list of values"),
        ({**PER_UNIT, "filter": {"model": ["a", None]}}, "filter.model", "a list of values"),
        # Tiers.
        (usage_charge("volume", tiers=TIERS[:1]), "tiers.0.up_to", "last tier must be open"),
        (usage_charge("volume", tiers=[TIERS[1], TIERS[1]]), "tiers.0.up_to", "Only the last"),
        (usage_charge("volume", tiers=[TIERS[0], *TIERS]), "tiers.1.up_to", "more than 10"),
        (usage_charge("volume", tiers=[{"up_to": "0"}, TIERS[1]]), "tiers.0.up_to", "more than 0"),
        (
            usage_charge("volume", tiers=[{**TIERS[0], "flat_amount": "2000000000"}, TIERS[1]]),
            "tiers.0.flat_amount",
            "Give 0 to",
        ),
        # Markups.
        ({**COST_PLUS, "markups": [{"percent": "5"}]}, "markups.0", "Name a model"),
        (
            {**COST_PLUS, "markups": [{"percent": "5", "model": "m"}] * 2},
            "markups.1",
            "Another markup",
        ),
        (
            {**COST_PLUS, "markups": [{"percent": "1001", "model": "m"}]},
            "markups.0.percent",
            "Give 0 to 1,000.",
        ),
    ],
)
def test_a_fault_of_a_charge_is_named_at_its_member(
    charge: JsonObject, member: str, words: str
) -> None:
    faults = faults_of(charge)
    assert list(faults) == [f"charges.0.{member}"]
    assert words in faults[f"charges.0.{member}"]


def test_all_faults_of_a_plan_are_named_together() -> None:
    faults = faults_of(
        {**PER_UNIT, "unit_amount": "x", "per": 0, "percent": "5"},
        {**PER_UNIT, "name": "usage "},
        {**COST_PLUS, "name": "Cost", "cap_amount": "1", "minimum_amount": "2"},
        {**COST_PLUS, "name": "Cost 2", "percent": "1001"},
        fee("1", color="red"),
        currency="EUR",
        interval="week",
        trial_days=-1,
        minimum_amount="5",
        cap_amount="4",
    )
    assert set(faults) == {
        "charges.0.unit_amount",
        "charges.0.per",
        "charges.0.percent",
        # The same name but for case and spaces.
        "charges.0.name",
        "charges.1.name",
        "charges.2.cap_amount",
        "charges.2.metric",
        "charges.3.percent",
        "charges.3.metric",
        "charges.4.color",
        "interval",
        "trial_days",
        "cap_amount",
    }


def test_costs_are_charged_in_dollars_alone() -> None:
    assert list(faults_of(COST_PLUS, currency="EUR")) == ["charges.0.metric"]
    assert terms_of(COST_PLUS, currency="USD").charges


def test_there_are_limits() -> None:
    assert "charges" in faults_of()
    many = [fee("1", name=str(number)) for number in range(201)]
    assert list(faults_of(*many)) == ["charges"]
    assert len(terms_of(*many[:200]).charges) == 200
    tiers = [{"up_to": str(number)} for number in range(1, 101)]
    faults = faults_of(usage_charge("volume", tiers=[*tiers, {"up_to": None}]))
    assert list(faults) == ["charges.0.tiers"]
    (charge,) = terms_of(usage_charge("volume", tiers=[*tiers[:99], {"up_to": None}])).charges
    assert isinstance(charge, UsageCharge)
    assert len(charge.tiers) == 100


def test_terms_that_no_body_was_read_from_are_judged_alike() -> None:
    """As a form has them."""
    charges = terms_of(PER_UNIT, fee("1")).charges
    terms = Terms(charges=[charges[0], charges[0]] * 101)
    fields = {problem.field for problem in terms_problems(terms, currency="USD")}
    assert {"charges", "charges.0.name", "charges.201.name"} <= fields
    assert [each.field for each in terms_problems(Terms(charges=[]), currency="USD")] == ["charges"]


@pytest.mark.parametrize("currency", ["usd", "US", "XYZ", "DOLLARS", 5, None])
def test_a_currency_is_a_known_code(currency: object) -> None:
    assert list(faults_of(PER_UNIT, currency=currency)) == ["currency"]


def test_a_version_has_terms_in_the_currency_of_its_plan() -> None:
    data = {"charges": [COST_PLUS], "from": "2026-12-01T00:00:00Z"}
    body = VersionBody(data=data, context={"currency": "USD"})
    body.is_valid(raise_exception=True)
    assert body.validated_data["from"].month == 12
    body = VersionBody(data=data, context={"currency": "EUR"})
    assert not body.is_valid()
    assert list(faults_in(body.errors)) == ["charges.0.metric"]
