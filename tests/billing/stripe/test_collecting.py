"""Final statements become invoices at Stripe, with the same totals, each once."""

import pytest

from billing.models import InvoiceStep
from tests.billing.stripe.scene import Scene

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_statement_becomes_an_open_invoice_of_its_number_and_total(scene: Scene) -> None:
    customer = scene.customer()
    statement = scene.statement(
        customer, [12_000, -700, 0], coupon=300, tax=2090, credit_notes=90, credit=3000
    )
    scene.collect()
    (invoice,) = scene.invoices()
    assert (invoice["status"], invoice["number"]) == ("open", "S-0001")
    assert (invoice["total"], invoice["amount_due"]) == (10_000, 10_000)
    assert (invoice["currency"], invoice["collection_method"]) == ("usd", "send_invoice")
    assert invoice["auto_advance"] is False
    lines = scene.server.world.lines[invoice["id"]]
    assert [(line["description"], line["amount"]) for line in lines] == [
        ("Line 1", 12_000),
        ("Line 2", -700),
        ("Line 3", 0),
        ("Coupon: Launch", -300),
        ("VAT 19%", 2090),
        ("Credit notes", -90),
        ("Prepaid credit", -3000),
    ]
    row = scene.row(statement)
    assert (row.step, row.status, row.total, row.problem) == (InvoiceStep.DONE, "open", 10_000, "")
    assert (row.stripe_id, row.is_live, row.claimed_until) == (invoice["id"], False, None)
    assert [event["type"] for event in scene.server.world.events][-1] == "invoice.sent"
    # There is nothing more to do.
    asked = len(scene.server.requests)
    assert scene.collect() == 0
    assert len(scene.server.requests) == asked
