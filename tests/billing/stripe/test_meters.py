"""Plans that Stripe's meters can express are metered there, by absolute hourly values."""

from datetime import timedelta
from decimal import Decimal
from typing import Final

import msgspec
import pytest

from billing.collection.meter_offers import price_of, refusals
from billing.collection.meters import meter_plan
from billing.models import Interval, Plan, StripeMeter, StripeMeterValue
from billing.terms import Terms, UsageCharge
from common.errors import Conflict
from common.json_bodies import JsonObject
from fake_stripe.faults import Fault
from metering.rollups import roll_up
from tests.billing.scene import PER_REQUEST, Billed, month_start
from tests.billing.stripe.scene import Scene, travel
from tests.stripe_server.specification import check, operation

TIERS: Final = [
    {"up_to": "1000", "unit_amount": "0.05", "flat_amount": "0"},
    {"up_to": None, "unit_amount": "0.025", "flat_amount": "0"},
]
FLAT: Final = {"name": "Fee", "kind": "flat", "amount": "10"}


def usage(**fields: object) -> JsonObject:
    return {**PER_REQUEST, **fields}


def terms(*charges: JsonObject, **bounds: object) -> Terms:
    return msgspec.convert({"charges": list(charges), **bounds}, Terms)


@pytest.mark.parametrize(
    ("charge", "price"),
    [
        (usage(), {"unit_amount_decimal": "100"}),
        (
            usage(metric="input_tokens", unit_amount="1.60", per=1_000_000),
            {"unit_amount_decimal": "0.00016"},
        ),
        (
            usage(included_units="500"),
            {
                "billing_scheme": "tiered",
                "tiers_mode": "graduated",
                "tiers": [
                    {"up_to": 500, "unit_amount_decimal": "0"},
                    {"up_to": "inf", "unit_amount_decimal": "100"},
                ],
            },
        ),
        (
            usage(model="volume", tiers=TIERS, included_units="500"),
            {
                "billing_scheme": "tiered",
                "tiers_mode": "volume",
                "tiers": [
                    {"up_to": 500, "unit_amount_decimal": "0"},
                    {"up_to": 1000, "unit_amount_decimal": "5"},
                    {"up_to": "inf", "unit_amount_decimal": "2.5"},
                ],
            },
        ),
        (
            usage(model="package", package_size=100, package_amount="7"),
            {
                "unit_amount_decimal": "700",
                "transform_quantity": {"divide_by": 100, "round": "up"},
            },
        ),
    ],
)
def test_a_charge_becomes_a_price_that_stripe_knows(charge: JsonObject, price: JsonObject) -> None:
    assert refusals(terms(charge)) == []
    made = price_of(
        msgspec.convert(charge, UsageCharge),
        meter="mtr_1",
        currency="USD",
        interval=Interval.QUARTER,
    )
    check(made, operation("POST", "/v1/prices").parameters, is_form=True)
    recurring = {"interval": "month", "interval_count": 3, "usage_type": "metered"}
    assert made["recurring"] == {**recurring, "meter": "mtr_1"}
    named = ("currency", "nickname", "product_data", "recurring")
    assert {name: value for name, value in made.items() if name not in named} == price


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        (terms(FLAT), "Fee: a flat fee is not metered"),
        (
            terms(usage(metric="cost", model="cost_plus", percent="20")),
            "Requests: Stripe's meters know no provider's cost",
        ),
        (
            terms(usage(metric="cost", model="percentage", percent="20")),
            "Requests: Stripe's meters know no provider's cost",
        ),
        (terms(usage(metric="cost")), "Requests: Stripe's meters take whole numbers"),
        (terms(usage(minimum_amount="5")), "Requests: Stripe has no minimum and no cap"),
        (terms(usage(cap_amount="5")), "Requests: Stripe has no minimum and no cap"),
        (terms(usage(), minimum_amount="5"), "Stripe has no minimum and no cap of a plan."),
        (terms(*[usage(name=f"C{n}") for n in range(21)]), "at most 20 charges"),
        (
            terms(usage(model="package", package_size=10, package_amount="1", included_units="5")),
            "no included units with packages",
        ),
        (
            terms(
                usage(
                    model="graduated",
                    included_units="5",
                    tiers=[{"up_to": None, "unit_amount": "1", "flat_amount": "2"}],
                )
            ),
            "no included units with flat amounts",
        ),
        (terms(usage(unit_amount="0.000000001", per=1_000_000)), "at most 12 decimals"),
        (terms(usage(included_units="0.5")), "end at whole numbers"),
    ],
)
def test_what_stripe_cannot_express_is_refused_with_the_reason(of: Terms, reason: str) -> None:
    (said,) = refusals(of)
    assert reason in said


def test_every_reason_is_said() -> None:
    assert len(refusals(terms(FLAT, usage(minimum_amount="5"), cap_amount="1"))) == 3


@pytest.fixture
def billed(scene: Scene) -> Billed:
    """A customer whose plan is metered by Stripe, and who has a customer there."""
    billed = Billed.on(scene.account, usage(filter={"feature": "chat"}), since=month_start(1))
    made = {"id": "cus_1", "email": None, "balance": 0, "created": scene.server.world.now}
    scene.server.world.customers["cus_1"] = made
    with scene.account.scope():
        type(billed.customer).objects.update(stripe_customer="cus_1")
        meter_plan(plan=Plan.objects.get(), actor="tests", is_live=False)
    return billed


def metered(scene: Scene) -> list[int]:
    """What Stripe would bill, hour by hour."""
    return [value for _, value in sorted(scene.server.world.meter_values.items())]


def use(scene: Scene, billed: Billed, count: int, *, hours_ago: int, feature: str = "chat") -> None:
    at = scene.now - timedelta(hours=hours_ago)
    billed.use(count, at=at, feature=feature)
    with scene.account.scope():
        roll_up(tenant_id=scene.tenant_id)


def read_again(scene: Scene) -> None:
    with scene.account.scope():
        StripeMeter.objects.update(next_read_at=scene.now - timedelta(days=1))
    scene.collect()


@pytest.mark.django_db(transaction=True)
def test_hours_are_sent_once_and_replaced_when_usage_comes_late(
    scene: Scene, billed: Billed
) -> None:
    use(scene, billed, 3, hours_ago=30)
    use(scene, billed, 2, hours_ago=5)
    use(scene, billed, 7, hours_ago=5, feature="other")
    use(scene, billed, 9, hours_ago=0)  # the hour is not over
    read_again(scene)
    (meter,) = scene.server.world.meters.values()
    assert (meter["event_time_window"], meter["default_aggregation"]) == (
        "hour",
        {"formula": "sum"},
    )
    (price,) = scene.server.world.prices.values()
    assert price["recurring"]["meter"] == meter["id"]
    assert metered(scene) == [3, 2]
    # Nothing changed, nothing is sent.
    asked = len(scene.server.requests)
    read_again(scene)
    assert len(scene.server.requests) == asked
    # The value of the hour is absolute: what comes late replaces it.
    use(scene, billed, 4, hours_ago=30)
    read_again(scene)
    assert metered(scene) == [7, 2]
    assert len(scene.server.world.meters) == len(scene.server.world.prices) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fault", list(Fault))
def test_a_value_is_counted_once_whatever_fails(scene: Scene, billed: Billed, fault: Fault) -> None:
    use(scene, billed, 3, hours_ago=5)
    scene.server.faults.broken.add("meter_events")
    read_again(scene)
    scene.server.faults.broken.clear()
    scene.server.faults.coming.append(fault)
    scene.send_values_later()
    scene.server.world.clock_offset_seconds += 25 * 3600
    scene.send_values_later()
    scene.server.world.clock_offset_seconds = 0
    assert metered(scene) == [3]
    with scene.account.scope():
        (row,) = StripeMeterValue.objects.all()
    assert (row.sent_value, row.problem, row.claimed_until) == (3, "", None)


@pytest.mark.django_db(transaction=True)
def test_what_stripe_does_not_take_is_said(scene: Scene, billed: Billed) -> None:
    use(scene, billed, 3, hours_ago=5)
    with scene.account.scope():
        type(billed.customer).objects.update(stripe_customer="")
    read_again(scene)
    with scene.account.scope():
        (row,) = StripeMeterValue.objects.all()
        assert row.problem == "The customer has no customer at Stripe: enter its id (cus_…)."
        StripeMeterValue.objects.update(value=10**15)
        type(billed.customer).objects.update(stripe_customer="cus_1")
    scene.send_values_later()
    with scene.account.scope():
        (row,) = StripeMeterValue.objects.all()
        assert row.problem == "Stripe takes values of at most 15 digits."
    assert metered(scene) == []
    # What is too old is not sent: Stripe would refuse it.
    asked = len(scene.server.requests)
    with travel(days=36):
        scene.send_values_later()
    assert not [r for r in scene.server.requests[asked:] if r.path.endswith("meter_events")]


@pytest.mark.django_db(transaction=True)
def test_a_plan_that_is_refused_stays_with_statements(scene: Scene) -> None:
    Billed.on(scene.account, FLAT, since=month_start(1))
    with scene.account.scope(), pytest.raises(Conflict, match="a flat fee is not metered"):
        meter_plan(plan=Plan.objects.get(), actor="tests", is_live=False)
    with scene.account.scope():
        assert not StripeMeter.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_what_stripe_bills_by_meter_has_no_invoice_of_a_statement(
    scene: Scene, billed: Billed
) -> None:
    statement = scene.statement(billed.customer)
    with scene.account.scope():
        plan = Plan.objects.get(name="Plan USD")
        StripeMeter.objects.create(
            tenant=scene.account.tenant, plan=plan, is_live=False, charge="Line 1"
        )
    scene.collect()
    assert scene.invoices() == []
    assert statement.amount_due == Decimal(1000)
