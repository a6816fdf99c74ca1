"""Whatever fails in between, Stripe ends with one invoice for each statement, of its total."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from unittest.mock import patch

import pytest
from django.db import connection

from billing.collection import claims, steps
from billing.models import InvoiceStep, Statement
from billing.stripe_gateway import Credentials, StripeGateway
from fake_stripe.faults import Fault
from tests.billing.stripe.scene import API_KEY, SECRET, Scene
from tests.seed import dice

pytestmark = pytest.mark.django_db(transaction=True)

DAY_SECONDS: Final = 25 * 3600
FAULTS: Final = {
    Fault.LOST_ANSWER: 0.12,
    Fault.RESET: 0.05,
    Fault.BUSY: 0.03,
    Fault.ERROR: 0.06,
    Fault.ERROR_AFTER_COMMIT: 0.08,
}
ROUNDS_MAX: Final = 60


class WorkerKilled(BaseException):
    """The process ends: nothing more is stored."""


def require_equal(scene: Scene, statements: list[Statement]) -> None:
    """Stripe has one invoice for each statement, finalized, with its number and total."""
    invoices = scene.invoices()
    marks = Counter(each["metadata"]["spendgate_statement"] for each in invoices)
    assert set(marks.values()) == {1}
    assert {each["number"]: (each["total"], each["status"]) for each in invoices} == {
        each.number: (each.amount_due, "open" if each.amount_due > 0 else "paid")
        for each in statements
    }
    rows = [scene.row(each) for each in statements]
    assert {row.step for row in rows} == {InvoiceStep.DONE}
    assert {row.stripe_id for row in rows} == {each["id"] for each in invoices}


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("request_number", range(1, 13))
def test_a_fault_at_any_request_leaves_one_invoice(
    scene: Scene, fault: Fault, request_number: int
) -> None:
    statement = scene.statement(scene.customer(), [700, 300])
    scene.server.faults.coming.extend([*[None] * request_number, fault])
    scene.collect()
    # Whatever keys Stripe remembered, it forgets.
    scene.server.world.clock_offset_seconds += DAY_SECONDS
    scene.collect_later(turns=2)
    require_equal(scene, [statement])


@pytest.mark.parametrize("store_number", range(5))
def test_a_worker_killed_between_any_two_steps_leaves_one_invoice(
    scene: Scene, store_number: int
) -> None:
    statement = scene.statement(scene.customer(), [700, 300])
    stored = iter(range(100))

    def store(claimed: claims.ClaimedInvoice, **changes: object) -> None:
        if next(stored) == store_number:
            raise WorkerKilled
        claims.store(claimed, **changes)

    with patch.object(steps, "store", store), pytest.raises(WorkerKilled):
        scene.collect()
    scene.release_claims()
    scene.collect_later()
    require_equal(scene, [statement])


@pytest.mark.parametrize("round_", range(2))
def test_random_failures_end_with_equal_totals_and_no_second_invoice(
    scene: Scene, round_: int
) -> None:
    chances = dice("failures", round_)
    scene.server.faults.dice = chances
    customers = [scene.customer(f"customer-{number}") for number in range(4)]
    statements = [
        scene.statement(chances.choice(customers), [chances.randint(1, 500) for _ in range(lines)])
        for lines in (1, 2, 5, 260, 3, 1, 40)
    ]
    scene.server.faults.probabilities = FAULTS
    original = claims.store

    def store(claimed: claims.ClaimedInvoice, **changes: object) -> None:
        if chances.random() < 0.05:
            raise WorkerKilled
        original(claimed, **changes)
        if chances.random() < 0.05:
            raise WorkerKilled

    for _ in range(ROUNDS_MAX):
        with patch.object(steps, "store", store):
            try:
                scene.collect_later()
            except WorkerKilled:
                scene.release_claims()
        if chances.random() < 0.1:
            scene.server.world.clock_offset_seconds += DAY_SECONDS
        if all(scene.is_done(each) for each in statements):
            break
    scene.server.faults.probabilities = {}
    scene.release_claims()
    scene.collect_later(turns=2)
    require_equal(scene, statements)


def test_workers_side_by_side_make_one_invoice_of_each_statement(scene: Scene) -> None:
    chances = dice("workers")
    scene.server.faults.dice = chances
    scene.server.faults.probabilities = {Fault.LOST_ANSWER: 0.05, Fault.ERROR_AFTER_COMMIT: 0.05}
    customers = [scene.customer(f"customer-{number}") for number in range(3)]
    statements = [scene.statement(customers[number % 3], [number + 1]) for number in range(9)]

    def work() -> None:
        try:
            for _ in range(3):
                scene.collect_later()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    scene.server.faults.probabilities = {}
    scene.collect_later(turns=2)
    require_equal(scene, statements)
    assert len(scene.server.world.customers) == 3


def test_no_transaction_is_open_while_stripe_is_asked(scene: Scene) -> None:
    scene.statement(scene.customer())
    gateway = StripeGateway(Credentials(API_KEY, SECRET, scene.server.url))
    with scene.account.scope(), pytest.raises(AssertionError, match="no transaction is open"):
        gateway.read_invoice("in_1")
    assert scene.server.requests == []
