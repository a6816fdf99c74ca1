"""What customers pay, refuse, dispute and get back sets the state of their accounts."""

import pytest

from billing.collection.credentials import configure_collection
from billing.collection.events import store_events
from billing.models import AccountState, Customer, CustomerLink, Statement, StripeAccount
from common.json_bodies import JsonObject
from metering.limits.halts import lift_halt
from metering.models import Halt
from tests.billing.stripe.scene import Scene, travel

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def customer(scene: Scene) -> Customer:
    return scene.customer()


@pytest.fixture
def statement(scene: Scene, customer: Customer) -> Statement:
    statement = scene.statement(customer, [1000])
    scene.collect()
    return statement


def hear(scene: Scene) -> None:
    """All events arrive, and are acted upon."""
    store_events(tenant_id=scene.tenant_id, is_live=False, events=scene.events())
    scene.collect()


def state(scene: Scene, statement: Statement) -> str:
    return scene.row(statement).account.state


def halted(scene: Scene) -> list[object]:
    with scene.account.scope():
        return list(
            Halt.objects.filter(lifted_at=None).order_by("id").values_list("match", flat=True)
        )


def test_a_payment_is_read_again_when_stripe_says_that_something_changed(
    scene: Scene, statement: Statement
) -> None:
    scene.server.world.pay(scene.row(statement).stripe_id)
    hear(scene)
    row = scene.row(statement)
    assert (row.status, row.amount_paid, row.account.state) == ("paid", 1000, "current")


def test_a_failed_payment_makes_an_account_overdue_until_it_pays(
    scene: Scene, statement: Statement
) -> None:
    scene.server.world.pay(scene.row(statement).stripe_id, succeeds=False)
    hear(scene)
    assert state(scene, statement) == AccountState.OVERDUE
    scene.server.world.pay(scene.row(statement).stripe_id)
    hear(scene)
    assert state(scene, statement) == AccountState.CURRENT


def test_a_dispute_counts_until_it_is_won_and_one_that_is_lost_is_owed(
    scene: Scene, statement: Statement
) -> None:
    world = scene.server.world
    charge = world.pay(scene.row(statement).stripe_id)
    dispute = world.open_dispute(charge["id"])
    hear(scene)
    assert state(scene, statement) == AccountState.DISPUTED
    world.close_dispute(dispute["id"], "won")
    hear(scene)
    assert state(scene, statement) == AccountState.CURRENT
    dispute = world.open_dispute(charge["id"])
    world.close_dispute(dispute["id"], "lost")
    hear(scene)
    row = scene.row(statement)
    assert (row.account.state, row.amount_disputed, row.amount_lost) == ("overdue", 0, 1000)


def test_a_refund_is_seen_until_the_next_invoice_is_paid(
    scene: Scene, customer: Customer, statement: Statement
) -> None:
    charge = scene.server.world.pay(scene.row(statement).stripe_id)
    scene.server.world.refund(charge["id"], 400)
    hear(scene)
    assert (state(scene, statement), scene.row(statement).amount_refunded) == ("refunded", 400)
    following = scene.statement(customer, [2000])
    scene.collect()
    scene.server.world.pay(scene.row(following).stripe_id)
    hear(scene)
    assert state(scene, statement) == AccountState.CURRENT


def test_an_invoice_that_is_not_paid_in_time_is_overdue_without_word_from_stripe(
    scene: Scene, statement: Statement
) -> None:
    assert state(scene, statement) == AccountState.CURRENT
    with travel(days=31):
        scene.collect()
    assert state(scene, statement) == AccountState.OVERDUE


def test_overdue_customers_are_halted_if_the_tenant_wants_it_and_released_when_they_pay(
    scene: Scene, customer: Customer, statement: Statement
) -> None:
    own: JsonObject = {"tenant": scene.account.tenant}
    with scene.account.scope():
        configure_collection(actor="tests", halts_overdue=True, **own)
        links = [("team", "growth"), ("customer", "acme"), ("agent", "gone")]
        for name, value in links:
            CustomerLink.objects.create(customer=customer, dimension=name, value=value, **own)
        CustomerLink.objects.filter(value="gone").update(ends_at=customer.created_at)
    scene.server.world.pay(scene.row(statement).stripe_id, succeeds=False)
    hear(scene)
    assert halted(scene) == [{"customer": "acme"}, {"team": "growth"}]
    # A link that is added later is halted too; what a person has lifted stays lifted.
    with scene.account.scope():
        lift_halt(halt=Halt.objects.get(match={"team": "growth"}), actor="tests")
        CustomerLink.objects.create(customer=customer, dimension="user", value="eve", **own)
        StripeAccount.objects.update(judge_at=customer.created_at)
    scene.collect()
    assert halted(scene) == [{"customer": "acme"}, {"user": "eve"}]
    scene.server.world.pay(scene.row(statement).stripe_id)
    hear(scene)
    assert halted(scene) == []
    with scene.account.scope():
        assert StripeAccount.objects.get().halts == []


def test_halts_end_when_the_tenant_no_longer_wants_them(scene: Scene, statement: Statement) -> None:
    own: JsonObject = {"tenant": scene.account.tenant, "actor": "tests"}
    with scene.account.scope():
        configure_collection(halts_overdue=True, **own)
    scene.server.world.pay(scene.row(statement).stripe_id, succeeds=False)
    hear(scene)
    assert halted(scene) == [{"customer": "acme"}]
    with scene.account.scope():
        configure_collection(halts_overdue=False, **own)
    scene.collect()
    assert halted(scene) == []
