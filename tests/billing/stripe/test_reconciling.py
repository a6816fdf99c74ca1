"""Statements are compared with what Stripe has."""

import pytest

from billing.collection.totals import stripe_totals_of
from billing.models import Statement
from billing.reconciliation.invoices import compare_invoices
from billing.reconciliation.results import Difference, KindResult
from tests.billing.stripe.scene import Scene
from tests.factories import Account

pytestmark = pytest.mark.django_db(transaction=True)


def differences(scene: Scene, *statements: Statement) -> list[Difference]:
    with scene.account.scope():
        ask = stripe_totals_of(scene.account.tenant)
    assert ask is not None
    totals = ask(scene.account.tenant, statements)
    return list(compare_invoices(statements, totals, KindResult()))


def test_what_was_collected_agrees_also_where_credit_was_applied(scene: Scene) -> None:
    customer, other = scene.customer(), scene.customer("isk", currency="ISK")
    statements = [
        scene.statement(customer, [1000, 500], tax=285, credit=300, credit_notes=85),
        scene.statement(customer, [-700]),
        scene.statement(other, [12]),
    ]
    scene.collect()
    assert differences(scene, *statements) == []


def test_a_difference_that_is_put_in_by_hand_is_found_exactly(scene: Scene) -> None:
    statement = scene.statement(scene.customer(), [1000, 500])
    missing = scene.statement(scene.customer("broken", stripe_customer="cus_gone"), [200])
    scene.collect()
    (invoice,) = scene.server.world.invoices.values()
    scene.server.world.lines[invoice["id"]][0]["amount"] += 123
    result = differences(scene, statement, missing)
    assert [(str(each.difference), each.statement_id, each.line) for each in result] == [
        ("1.23", statement.id, invoice["id"]),
        ("-2.00", missing.id, ""),
    ]


def test_what_is_not_to_be_collected_is_not_missing(scene: Scene, stranger: Account) -> None:
    statement = scene.statement(scene.customer(), [1000])
    with scene.account.scope():
        scene.exclude(statement)
    assert differences(scene, statement) == []
    with stranger.scope():
        assert stripe_totals_of(stranger.tenant) is None
