"""Webhooks are verified, stored before anything is done, and only say what to read again."""

import itertools
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
import pytest
from django.test import Client

from billing.collection.events import subject_of, sweep
from billing.collection.payment_state import PaymentFacts, state_of
from billing.models import AccountState, Statement, StripeEvent, StripeSettings
from billing.stripe_gateway import Credentials, Event, StripeGateway
from fake_stripe.objects import Object
from fake_stripe.webhooks import signature
from tests.billing.stripe.scene import API_KEY, SECRET, Scene, travel
from tests.seed import dice

pytestmark = pytest.mark.django_db(transaction=True)
NOW: Final = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture
def statement(scene: Scene) -> Statement:
    statement = scene.statement(scene.customer(), [1000])
    scene.collect()
    return statement


def post(scene: Scene, event: Object, *, secret: str = SECRET, age_seconds: int = 0) -> int:
    body = json.dumps(event).encode()
    return (
        Client()
        .post(
            f"/webhooks/stripe/{scene.tenant_id}",
            body,
            content_type="application/json",
            headers={
                "Stripe-Signature": signature(
                    body, secret=secret, at=int(time.time()) - age_seconds
                )
            },
        )
        .status_code
    )


def stored(scene: Scene) -> list[str]:
    with scene.account.scope():
        return list(StripeEvent.objects.order_by("id").values_list("event_id", flat=True))


def test_an_event_is_stored_once_and_processed_later(scene: Scene, statement: Statement) -> None:
    scene.server.world.pay(scene.row(statement).stripe_id)
    event = scene.server.world.events[-1]
    asked = len(scene.server.requests)
    assert [post(scene, event), post(scene, event)] == [200, 200]
    assert stored(scene) == [event["id"]]
    assert scene.row(statement).status == "open"
    assert len(scene.server.requests) == asked, "Stripe waits for no request of ours"
    scene.collect()
    assert scene.row(statement).status == "paid"


def test_what_an_event_says_of_its_object_is_not_believed(
    scene: Scene, statement: Statement
) -> None:
    scene.server.world.pay(scene.row(statement).stripe_id, succeeds=False)
    event = json.loads(json.dumps(scene.server.world.events[-1]))
    event["data"]["object"] |= {"status": "paid", "amount_paid": 1000}
    assert post(scene, event) == 200
    scene.collect()
    assert (scene.row(statement).status, scene.row(statement).amount_paid) == ("open", 0)


@pytest.mark.parametrize(
    ("secret", "age_seconds", "status"),
    [(SECRET, 0, 200), (SECRET, 290, 200), (SECRET, 310, 400), ("whsec_other", 0, 400)],
)
def test_a_signature_must_be_the_tenants_and_young(
    scene: Scene, statement: Statement, secret: str, age_seconds: int, status: int
) -> None:
    event = scene.server.world.events[-2]
    assert post(scene, event, secret=secret, age_seconds=age_seconds) == status
    assert len(stored(scene)) == (1 if status == 200 else 0)


@pytest.mark.parametrize("tenant_id", [0, 2**31 - 1, 2**31, 2**80])
def test_a_tenant_that_is_not_there_is_refused_like_a_wrong_signature(
    scene: Scene, tenant_id: int
) -> None:
    answer = Client().post(f"/webhooks/stripe/{tenant_id}", b"{}", content_type="application/json")
    assert (answer.status_code, answer.content) == (400, b"The signature does not fit.")


def test_what_is_signed_but_no_event_is_refused(scene: Scene) -> None:
    for body in (b"[]", b"{}", b"\xff", b'{"id": 1}'):
        headers = {"Stripe-Signature": signature(body, secret=SECRET, at=int(time.time()))}
        path = f"/webhooks/stripe/{scene.tenant_id}"
        answer = Client().post(path, body, content_type="application/json", headers=headers)
        assert answer.status_code == 400
    assert Client().get(f"/webhooks/stripe/{scene.tenant_id}").status_code == 405


def test_an_event_of_live_mode_is_left_alone_by_a_test_key(
    scene: Scene, statement: Statement
) -> None:
    event = {**scene.server.world.events[-2], "livemode": True}
    assert post(scene, event) == 200
    assert stored(scene) == []


def test_events_that_were_lost_are_found_by_a_sweep(scene: Scene, statement: Statement) -> None:
    scene.server.world.pay(scene.row(statement).stripe_id)
    scene.collect()
    assert scene.row(statement).status == "open", "no sweep is due yet"
    with travel(minutes=11):
        scene.collect()
    assert scene.row(statement).status == "paid"
    known = stored(scene)
    assert scene.server.world.events[-1]["id"] in known
    # Another sweep stores nothing twice, also after the clock was ahead for a day.
    with travel(hours=25):
        scene.collect()
    gateway = StripeGateway(Credentials(API_KEY, SECRET, scene.server.url))
    with scene.account.scope():
        before = StripeSettings.objects.get().next_sweep_at
    assert sweep(tenant_id=scene.tenant_id, gateway=gateway) == 0
    assert stored(scene) == known
    with scene.account.scope():
        assert StripeSettings.objects.get().next_sweep_at < before


def test_an_event_that_cannot_be_processed_yet_is_tried_again(
    scene: Scene, statement: Statement
) -> None:
    charge = scene.server.world.pay(scene.row(statement).stripe_id)
    scene.server.world.refund(charge["id"], 1000)
    scene.server.faults.broken.add("invoice_payments")
    assert post(scene, scene.server.world.events[-1]) == 200
    scene.collect()
    with scene.account.scope():
        event = StripeEvent.objects.get()
    assert (event.processed_at, event.attempts) == (None, 1)
    assert event.problem.startswith("Stripe failed: Something went wrong")
    scene.server.faults.broken.clear()
    scene.collect_later()
    assert scene.row(statement).amount_refunded == 1000


def history(scene: Scene, statement: Statement) -> list[Object]:
    """Seven events: a payment fails and succeeds, is disputed, won, and given back in part."""
    world = scene.server.world
    before = len(world.events)
    world.pay(scene.row(statement).stripe_id, succeeds=False)
    charge = world.pay(scene.row(statement).stripe_id)
    dispute = world.open_dispute(charge["id"])
    world.close_dispute(dispute["id"], "won")
    world.refund(charge["id"], 250)
    events = [each for each in world.events[before:] if each["type"] != "charge.succeeded"]
    overdue = {**events[1], "id": "evt_overdue", "type": "invoice.overdue"}
    return [events[0], events[1], overdue, *events[2:]]


def test_http_deliveries_in_any_order_and_number_end_in_the_same_state(
    scene: Scene, statement: Statement
) -> None:
    events = history(scene, statement)
    assert len(events) == 7
    chances = dice("deliveries")
    seen = set()
    for _ in range(6):
        with scene.account.scope():
            StripeEvent.objects.all().delete()
        scene.forget_payments()
        for event in chances.sample(events, 7) + chances.choices(events, k=3):
            assert post(scene, event) == 200
            if chances.random() < 0.3:
                scene.collect()
        scene.collect()
        row = scene.row(statement)
        amounts = (row.amount_paid, row.amount_refunded, row.amount_disputed)
        seen.add((row.status, amounts, row.has_payment_failed, row.account.state))
    assert seen == {("paid", (1000, 250, 0), False, AccountState.REFUNDED)}


class Truth(NamedTuple):
    """What Stripe says of an invoice after an event."""

    status: str
    has_payment_failed: bool
    refunded: int
    disputed: int


# By the number of events that have happened.
TRUTHS: Final = (
    Truth("open", False, 0, 0),
    Truth("open", True, 0, 0),  # charge.failed
    Truth("open", True, 0, 0),  # invoice.payment_failed
    Truth("open", True, 0, 0),  # invoice.overdue
    Truth("paid", False, 0, 0),  # invoice.paid
    Truth("paid", False, 0, 1000),  # charge.dispute.created
    Truth("paid", False, 0, 0),  # charge.dispute.closed
    Truth("paid", False, 250, 0),  # charge.refunded
)


def states_of_all_orders(events: list[Event]) -> Iterator[AccountState]:
    """Deliver in every order, each event once or twice, none before it has happened.

    A delivery reads what is true by then, at any order of all 5,040.
    """
    for order in itertools.permutations(range(7)):
        known: dict[str, PaymentFacts] = {}
        happened = 0
        for index in (*order, order[0], order[3]):
            happened = max(happened, index + 1)
            subject = subject_of(events[index])
            assert subject.stripe_invoice or subject.payment_intent
            truth = TRUTHS[happened]
            known["the invoice"] = PaymentFacts(
                sequence=1,
                status=truth.status,
                due_at=None,
                has_payment_failed=truth.has_payment_failed,
                amount_refunded=truth.refunded,
                amount_disputed=truth.disputed,
                amount_lost=0,
            )
        yield state_of(known.values(), now=NOW)


def test_all_5040_orders_of_a_history_end_in_the_same_state(
    scene: Scene, statement: Statement
) -> None:
    events = msgspec.convert(history(scene, statement), list[Event])
    states = list(states_of_all_orders(events))
    assert len(states) == 5040
    assert set(states) == {AccountState.REFUNDED}
