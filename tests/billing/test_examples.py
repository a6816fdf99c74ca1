"""Every example of other billing engines: rated by a plan, or listed with the reason why not."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest

from billing.charge_models import Used
from billing.rating import LineKind, RatedLine
from billing.terms import Terms
from billing.totals import (
    Billed,
    Coupon,
    TaxRate,
    adjust,
    credit_note_amounts,
    settle_totals,
    to_minor,
)
from tests.billing.rating_scene import (
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

Example = dict[str, Any]
EXAMPLES: Final[dict[str, Example]] = {
    example["id"]: example
    for example in map(
        json.loads, (Path(__file__).parent / "examples.jsonl").read_text().splitlines()
    )
}
# Also in docs/billing.md.
NOT_OFFERED: Final = {
    **dict.fromkeys(("bw023", "bw024"), "usage below zero"),
    **dict.fromkeys(("bw039", "bw042"), "packages in tiers"),
    "bw096": "rounding up to a thousand before the tier is chosen",
    "bw121": "commitments by the hour",
    "bw128": "coupons and taxes of single lines",
    "bw130": "rounding each line by itself",
    "bw132": "amounts with more digits than the currency has",
    **dict.fromkeys(("bw164", "bw165"), "savings by caching, which are no charge"),
}


# Of prepaid credit, in `test_credits.py`.
OF_CREDIT: Final = {"bw157", "bw158", "bw159", "bw162"}


def money(text: object) -> Fraction:
    return Fraction(str(text))


def tiers_of(plan: Example) -> list[Example]:
    return [
        {
            "up_to": None if tier["up_to"] is None else str(tier["up_to"]),
            "unit_amount": tier["unit"],
            "flat_amount": tier["flat"],
        }
        for tier in plan["tiers"]
    ]


def tiered(plan: Example) -> Terms:
    bounds = {
        ours: plan[theirs]
        for ours, theirs in (("minimum_amount", "minimum_usd"), ("cap_amount", "maximum_usd"))
        if theirs in plan
    }
    included = {"included_units": str(plan["allowance"])} if "allowance" in plan else {}
    return terms_of(usage_charge(plan["model"], tiers=tiers_of(plan), **included, **bounds))


def per_unit(amount: object, **members: object) -> Terms:
    return terms_of(usage_charge("per_unit", unit_amount=str(amount), **members))


def packages(plan: Example) -> Terms:
    return terms_of(
        usage_charge(
            "package",
            package_size=plan["size"],
            package_amount=plan.get("price") or plan["price_usd"],
            included_units=str(plan["free"]),
        )
    )


def amounts_of(lines: list[RatedLine], kind: LineKind) -> list[Fraction]:
    return [line.amount for line in lines if line.kind == kind]


def differences(terms: Terms, quantities: list[int]) -> list[int]:
    """The cents of adjustments, as the quantity of a period becomes each of these."""
    billed: dict[Any, Billed] = {}
    moved = []
    for quantity in quantities:
        exact = {line.key: line.amount for line in rate_month(terms, units(quantity))}
        changes = adjust(billed, exact, 2)
        moved.append(sum(changes.values()))
        billed = {
            key: Billed(
                exact[key], changes.get(key, 0) + billed.get(key, Billed(money(0), 0)).minor
            )
            for key in exact
        }
    return moved


def check_tiered(plan: Example, usage: Example, expected: Example) -> None:
    lines = rate_month(tiered(plan), units(usage["units"]))
    assert total_of(lines) == money(expected.get("amount") or expected["amount_usd"])
    stretches = [stretch.amount for line in lines for stretch in line.stretches]
    if "lines" in expected:
        assert stretches == [money(amount) for amount in expected["lines"]]
    elif plan["model"] == "graduated" and "lines_usd" in expected:
        # Theirs has lines of their own for flat amounts, and one for a tier that costs nothing.
        assert stretches == [money(amount) for amount in expected["lines_usd"][1:]]


def check_minimum(plan: Example, usage: Example, expected: Example) -> None:
    lines = rate_month(tiered(plan), units(usage["units"]))
    assert amounts_of(lines, LineKind.USAGE) == [money(usage.get("already_billed_usd", 100))]
    wanted = expected.get("minimum_line_usd") or expected["lines_usd"][1]
    assert amounts_of(lines, LineKind.MINIMUM) == [money(wanted)]


def check_cap(plan: Example, usage: Example, expected: Example) -> None:
    terms = tiered(plan)
    before = usage.get("units_before", 0)
    billed = total_of(rate_month(terms, units(before))) if before else Fraction(0)
    lines = rate_month(terms, units(before + usage["units"]))
    assert total_of(lines) - billed == money(expected["amount_usd"])
    discounts = expected.get("cap_discounts_usd") or [expected["cap_discount_usd"]]
    assert amounts_of(lines, LineKind.CAP) == [-sum(map(money, discounts))]


def check_deltas(plan: Example, usage: Example, expected: Example) -> None:
    terms = packages(plan) if plan["model"] == "package" else tiered(plan)
    wanted = [int(amount) * 100 for amount in expected["amount_by_run_usd"]]
    assert differences(terms, usage["cumulative_by_run"]) == wanted


def check_per_unit(plan: Example, usage: Example, expected: Example) -> None:
    amount = total_of(rate_month(per_unit(plan["unit_usd"]), units(usage["units"])))
    if "line_cents" in expected:
        assert to_minor([amount], 2) == [expected["line_cents"]]
    else:
        assert amount == money(expected["precise_amount_usd"])


def check_blocks(plan: Example, usage: Example, expected: Example) -> None:
    """Usage of whole blocks costs what units do, `per` a block."""
    charges = [
        usage_charge(
            "graduated",
            name=name,
            per=meter["block"],
            tiers=[
                {
                    "up_to": tier["up_to"] and str(tier["up_to"] * meter["block"]),
                    "unit_amount": tier["unit"],
                }
                for tier in meter["tiers_in_blocks"]
            ],
        )
        for name, meter in plan["meters"].items()
    ]
    (part,) = parts_of((None, terms_of(*charges)))
    lines = rate_parts([part], {name: units(quantity) for name, quantity in usage.items()})
    assert total_of(lines) == money(expected["amount_eur"])


def check_volume_blocks(plan: Example, usage: Example, expected: Example) -> None:
    bounds = [tier["block"] * tier["max_blocks"] for tier in plan["tiers"]]
    tiers = [
        {
            "up_to": None if index == len(bounds) - 1 else str(sum(bounds[: index + 1])),
            "unit_amount": str(Decimal(tier["per_block"]) * 1000 / tier["block"]),
        }
        for index, tier in enumerate(plan["tiers"])
    ]
    terms = terms_of(usage_charge("volume", tiers=tiers, per=1000))
    assert total_of(rate_month(terms, units(usage["units"]))) == money(expected["amount"])


def check_thousands(plan: Example, usage: Example, expected: Example) -> None:
    tiers = [
        {"up_to": tier["up_to"] and str(tier["up_to"]), "unit_amount": tier["per_billing_unit"]}
        for tier in plan["tiers"]
    ]
    terms = terms_of(usage_charge("volume", tiers=tiers, per=plan["billing_units"]))
    assert total_of(rate_month(terms, units(usage["tokens"]))) == money(expected["amount_usd"])


def check_package(plan: Example, usage: Example, expected: Example) -> None:
    amount = total_of(rate_month(packages(plan), units(usage["units"])))
    assert amount == money(expected["amount"])


def check_split_package(plan: Example, usage: Example, expected: Example) -> None:
    """A period in two parts pays for a package once."""
    terms = packages(plan)
    parts = parts_of((None, terms), (datetime(2026, 11, 16, tzinfo=UTC), terms))
    used = ({"Usage": units(usage["units_before"])}, {"Usage": units(usage["units"])})
    assert rate_parts(parts, *used)[-1].amount == money(expected["amount_usd"])


def check_percentage(plan: Example, usage: Example, expected: Example) -> None:
    charge = usage_charge(
        "percentage",
        metric="cost",
        percent=plan["rate_percent"],
        unit_amount=plan["fixed_per_event"],
    )
    used = Used(quantity=Fraction(usage["sum"]), requests=usage["events"])
    assert total_of(rate_month(terms_of(charge), used)) == money(expected["amount"])


def check_graduated_percentage(plan: Example, usage: Example, expected: Example) -> None:
    """A share of the cost by tiers is an amount for each dollar of it."""
    terms = terms_of(usage_charge("graduated", metric="cost", tiers=tiers_of(plan)))
    spent = before = Fraction(0)
    amounts = []
    for cost in usage.get("amounts_in_order_usd", [usage.get("sum")]):
        spent += money(cost)
        amount = total_of(rate_month(terms, Used(spent)))
        amounts.append(amount - before)
        before = amount
    wanted = expected.get("amounts_usd") or [expected["amount"]]
    assert amounts == [money(amount) for amount in wanted]


def check_given_amounts(plan: Example, usage: Example, expected: Example) -> None:
    terms = terms_of(usage_charge("cost_plus", metric="cost", percent="0"))
    used = Used(sum(map(money, usage["amounts_usd"])) + Fraction(0))
    assert total_of(rate_month(terms, used)) == money(expected["amount_usd"])


def check_markups(plan: Example, usage: Example, expected: Example) -> None:
    percents = plan["markup_percent"]
    provider, model = usage["model"].split("/")
    charge = usage_charge(
        "cost_plus",
        metric="cost",
        percent=str(percents["default"]),
        markups=[
            {"provider": "custom", "percent": str(percents["provider:custom"])},
            {"model": "override-model", "percent": str(percents["model:override-model"])},
        ],
    )
    cost = money(expected["cost_usd"])
    used = Used(quantity=cost, costs={(provider, model): cost})
    assert total_of(rate_month(terms_of(charge), used)) == money(expected["amount_usd"])


def check_true_up(plan: Example, usage: Example, expected: Example) -> None:
    terms = terms_of(usage_charge("per_unit", unit_amount="1"), minimum_amount=plan["minimum_usd"])
    lines = rate_month(terms, units(usage["usage_usd"]))
    assert amounts_of(lines, LineKind.MINIMUM) == [money(expected["true_up_usd"])]
    assert total_of(lines) == money(expected["total_usd"])


def check_commitment(plan: Example, usage: Example, expected: Example) -> None:
    """A commitment is a tier, and a minimum if what is not used is owed."""
    rate = money(plan["unit_usd"])
    dearer = Decimal(plan["unit_usd"]) * Decimal(plan["overage_factor"])
    committed = plan["commitment_units"]
    tiers = [
        {"up_to": str(committed), "unit_amount": plan["unit_usd"]},
        {"up_to": None, "unit_amount": str(dearer)},
    ]
    minimum = {"minimum_amount": str(int(rate * committed))} if plan["true_up"] else {}
    terms = terms_of(usage_charge("graduated", tiers=tiers, **minimum))
    lines = rate_month(terms, units(usage["units"]))
    assert total_of(lines) == money(expected["total_usd"])
    if "true_up_usd" in expected:
        assert amounts_of(lines, LineKind.MINIMUM) == [money(expected["true_up_usd"])]


def check_taxes(plan: Example, usage: Example, expected: Example) -> None:
    rates = [TaxRate(str(percent), Decimal(percent)) for percent in plan["taxes_percent"]]
    totals = settle_totals(int(usage["taxable_usd"]) * 100, tax_rates=rates)
    assert totals.total - totals.taxable == int(expected["tax_usd"]) * 100


def check_tax_rounding(plan: Example, usage: Example, expected: Example) -> None:
    net = int(money(usage["net"]) * 100)
    totals = settle_totals(net, tax_rates=[TaxRate("VAT", Decimal(plan["tax_percent"]))])
    assert [tax.amount for tax in totals.taxes] == [expected["tax_cents"]]


def check_credit(plan: Example, usage: Example, expected: Example) -> None:
    lines = [money(usage["exact_usage_usd"]) / usage["lines"]] * usage["lines"]
    credit = int(plan["included_credit_usd"]) * 100
    totals = settle_totals(sum(to_minor(lines, 2)), credit=credit)
    assert totals.credit_applied == -int(money(expected["credit_line_usd"]) * 100)
    assert totals.amount_due == int(money(expected["overage_usd"]) * 100)


def check_credit_then_invoice(plan: Example, usage: Example, expected: Example) -> None:
    charge, credit = (int(usage[name]) * 100 for name in ("charge_usd", "credit_usd"))
    totals = settle_totals(charge, credit=credit)
    assert totals.credit_applied == int(expected["credits_used_usd"]) * 100
    assert totals.amount_due == int(expected["invoice_usd"]) * 100


def changed_fee(
    old: str, new: str, at: datetime, starts_at: datetime, proration: str = "day", **periods: Any
) -> tuple[int, int]:
    """What is given back of a fee that was paid in advance, and what the new one costs, in cents
    that are rounded each by itself, as theirs are; what a statement is adjusted by is rounded once.
    """
    versions = [terms_of(fee(amount, when="advance", proration=proration)) for amount in (old, new)]
    schedule = schedule_of(starts_at, **periods)
    paid = rate_parts(parts_of((None, versions[0]), schedule=schedule, at=starts_at), {})
    parts = parts_of((None, versions[0]), (at, versions[1]), schedule=schedule, at=starts_at)
    now = rate_parts(parts, {}, {})
    cents = to_minor([line.amount for line in paid], 2)
    billed = {line.key: Billed(line.amount, minor) for line, minor in zip(paid, cents, strict=True)}
    changes = adjust(billed, {line.key: line.amount for line in now}, 2)
    assert sum(changes.values()) == to_minor([total_of(now)], 2)[0] - sum(cents)
    (given_back,) = to_minor([paid[0].amount - now[0].amount], 2)
    (charged,) = to_minor([now[1].amount], 2)
    return given_back, charged


def check_seconds(plan: Example, usage: Example, expected: Example) -> None:
    starts_at = datetime(2026, 11, 1, tzinfo=UTC)
    assert timedelta(seconds=plan["period_seconds"]) == timedelta(days=30)
    at = starts_at + timedelta(seconds=plan["period_seconds"] - usage["remaining_seconds"])
    credit, charge = changed_fee(plan["a_usd"], plan["b_usd"], at, starts_at, "second")
    assert credit == money(expected["credit_usd"]) * 100
    assert charge == money(expected["charge_usd"]) * 100
    assert charge - credit == money(expected["net_usd"]) * 100


def check_proration(plan: Example, usage: Example, expected: Example) -> None:
    old, new = (str(Decimal(plan[name]) / 100) for name in ("old_cents", "new_cents"))
    starts_at, at = (
        datetime.fromisoformat(usage[name]).replace(tzinfo=UTC)
        for name in ("period_start", "changed_at")
    )
    changed = changed_fee(
        old, new, at, starts_at, interval=plan["per"], anchor="subscription", timezone="UTC"
    )
    assert changed == (expected["credit_cents"], expected["charge_cents"])


def check_quarter(plan: Example, usage: Example, expected: Example) -> None:
    first, last = (date.fromisoformat(usage[name]) for name in ("from", "to"))
    starts_at = datetime(first.year, first.month, first.day, tzinfo=UTC)
    ends_at = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    schedule = schedule_of(starts_at, ends_at, interval=plan["per"])
    terms = terms_of(fee(str(Decimal(plan["cents"]) / 100), when="arrears"))
    lines = rate_parts(parts_of((None, terms), schedule=schedule, at=starts_at), {})
    assert to_minor([total_of(lines)], 2) == [expected["amount_cents"]]


def check_notes(plan: Example, usage: Example, expected: Example) -> None:
    net = tax = 0
    notes = []
    for amount in usage["credit_note_nets_cents"]:
        note = credit_note_amounts(net, tax, amount, Decimal(plan["tax_percent"]))
        net, tax = net + note.net, tax + note.tax
        notes.append(note)
    assert [note.tax for note in notes] == expected["taxes_cents"]
    assert [note.total for note in notes] == expected["totals_cents"]
    assert (net, tax) == (plan["invoice_net_cents"], plan["invoice_tax_cents"])


def check_termination(plan: Example, usage: Example, expected: Example) -> None:
    vat = TaxRate("VAT", Decimal(plan["tax_percent"]))
    starts_at = datetime.fromisoformat(usage["start"]).replace(tzinfo=UTC)
    ends_at = datetime.fromisoformat(usage["end"]).replace(tzinfo=UTC) + timedelta(days=1)
    flat = fee(str(plan["flat_cents"] // 100), when="advance")
    terms = terms_of(
        flat, usage_charge("per_unit", unit_amount=str(Decimal(plan["unit_cents"]) / 100))
    )
    running = parts_of((None, terms), schedule=schedule_of(starts_at), at=starts_at)
    first = to_minor([total_of(rate_parts(running, {}))], 2)[0]
    totals = settle_totals(first, tax_rates=[vat])
    assert totals.taxes[0].amount == expected["first_invoice"]["tax_cents"]
    assert totals.total == expected["first_invoice"]["total_cents"]
    ended = parts_of((None, terms), schedule=schedule_of(starts_at, ends_at), at=starts_at)
    lines = rate_parts(ended, {"Usage": units(usage["units"])})
    fee_cents, usage_cents = to_minor([line.amount for line in lines], 2)
    note = credit_note_amounts(0, 0, first - fee_cents, vat.percent)
    assert note.total == expected["credit_note_cents"]
    last = settle_totals(usage_cents, tax_rates=[vat], credit_notes=note.total)
    wanted = expected["last_invoice"]
    assert (last.taxable, last.taxes[0].amount) == (wanted["net_cents"], wanted["tax_cents"])
    assert (last.credit_notes_applied, last.amount_due) == (
        wanted["credit_cents"],
        wanted["total_cents"],
    )


def check_price_change(plan: Example, usage: Example, expected: Example) -> None:
    old, new = (per_unit(Decimal(plan["prices_cents"][name]) / 100) for name in ("old", "new"))
    parts = parts_of((None, old), (datetime(2026, 11, 16, tzinfo=UTC), new))
    used = [{"Usage": units(sum(usage[name]))} for name in ("old_units", "new_units")]
    cents = to_minor([line.amount for line in rate_parts(parts, *used)], 2)
    assert cents == [expected["line_cents"][name] for name in ("old", "new")]


def check_month_end(plan: Example, usage: Example, expected: Example) -> None:
    schedule = schedule_of(datetime.fromisoformat(plan["anniversary"]), anchor="subscription")
    periods = schedule.periods_between(schedule.starts_at, datetime(2024, 4, 1, tzinfo=UTC))
    days = [
        [str(period.starts_at.date()), str((period.ends_at - timedelta(days=1)).date())]
        for period in periods
    ]
    assert days == expected["periods"]


def check_zone(plan: Example, usage: Example, expected: Example) -> None:
    zone = ZoneInfo(plan["timezone"])
    schedule = schedule_of(timezone=plan["timezone"])
    counts: dict[str, int] = {}
    for text in usage["event_times_local"]:
        period = schedule.period_at(datetime.fromisoformat(text).replace(tzinfo=zone))
        assert period is not None
        month = f"{period.starts_at.astimezone(zone):%Y-%m}"
        counts[month] = counts.get(month, 0) + 1
    assert counts == expected["units_by_month"]


CHECKS: Final[dict[str, Callable[[Example, Example, Example], None]]] = {
    "per_unit_subcent": check_per_unit,
    "unit_price_cut": check_per_unit,
    **dict.fromkeys(
        (
            "graduated",
            "graduated_flat",
            "graduated_lines",
            "volume",
            "volume_flat",
            "volume_allowance_as_tier",
        ),
        check_tiered,
    ),
    **dict.fromkeys(("graduated_min_spend", "volume_min_spend"), check_minimum),
    **dict.fromkeys(("graduated_max_spend", "volume_max_spend"), check_cap),
    **dict.fromkeys(("volume_delta_late", "package_delta"), check_deltas),
    "graduated_blocks": check_blocks,
    "volume_blocks": check_volume_blocks,
    "volume_billing_units": check_thousands,
    "package": check_package,
    "package_split_period": check_split_package,
    "percentage": check_percentage,
    **dict.fromkeys(
        ("graduated_percentage", "graduated_percentage_sequence"), check_graduated_percentage
    ),
    "dynamic_sum": check_given_amounts,
    "cost_plus_tokens": check_markups,
    "minimum_true_up": check_true_up,
    "commitment_overage": check_commitment,
    "tax_not_compound": check_taxes,
    "tax_rounding": check_tax_rounding,
    "credit_vs_rounding": check_credit,
    "credit_then_invoice": check_credit_then_invoice,
    "proration_seconds": check_seconds,
    **dict.fromkeys(("proration_month", "proration_year"), check_proration),
    "proration_quarter": check_quarter,
    "credit_notes_sum_to_invoice": check_notes,
    "terminate_advance_with_usage": check_termination,
    "price_change_mid_period": check_price_change,
    "period_month_end": check_month_end,
    "period_zone_dst": check_zone,
}


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - NOT_OFFERED.keys() - OF_CREDIT))
def test_a_published_example_gives_its_published_result(name: str) -> None:
    example = EXAMPLES[name]
    CHECKS[example["kind"]](example["plan"], example["usage"], example["expected"])


def test_what_is_not_offered_is_an_example_and_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "billing.md").read_text()
    assert NOT_OFFERED.keys() | OF_CREDIT <= EXAMPLES.keys()
    credits_tested = (Path(__file__).parent / "test_credits.py").read_text()
    assert all(name in credits_tested for name in OF_CREDIT)
    for reason in set(NOT_OFFERED.values()):
        assert f"| {reason} |" in page


@pytest.mark.parametrize("name", ["bw023", "bw024"])
def test_taking_back_all_usage_takes_back_what_it_cost(name: str) -> None:
    """There is no usage below zero, but a correction of what was billed gives the same."""
    example = EXAMPLES[name]
    count = -example["usage"]["units"]
    billed, taken_back = differences(tiered(example["plan"]), [count, 0])
    assert billed == -taken_back
    assert taken_back == money(example["expected"]["amount_usd"]) * 100


def test_a_coupon_of_the_whole_statement_comes_before_tax() -> None:
    """As in the example of coupons on single lines, of which this is what is offered."""
    totals = settle_totals(
        20_000, coupon=Coupon(amount=3500), tax_rates=[TaxRate("VAT", Decimal(10))]
    )
    assert (totals.taxable, totals.total) == (16_500, 18_150)
