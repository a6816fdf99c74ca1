"""Final statements become invoices at Stripe, with the same totals, each once."""

from datetime import UTC, datetime, timedelta

import pytest

from billing.collection.claims import ClaimLost, claim, queue_statements, store
from billing.collection.credentials import (
    configure_collection,
    set_collection_method,
    set_credentials,
)
from billing.models import CollectionMethod, Customer, InvoiceStep, StripeInvoice, StripeSettings
from billing.stripe_gateway import WrongKey
from fake_stripe.faults import Fault
from tenants.models import AuditEntry
from tests.billing.stripe.scene import API_KEY, SECRET, Scene, travel

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


def test_a_statement_of_a_thousand_lines_is_added_in_parts_of_250(scene: Scene) -> None:
    amounts = [number % 7 - 2 for number in range(1000)]
    scene.statement(scene.customer(), amounts, tax=190)
    scene.collect()
    (invoice,) = scene.invoices()
    assert (invoice["status"], invoice["total"]) == ("open", sum(amounts) + 190)
    assert len(scene.server.world.lines[invoice["id"]]) == 1001
    added = [r for r in scene.server.requests if r.path.endswith("/add_lines")]
    assert len(added) == 5


@pytest.mark.parametrize(
    ("currency", "amount", "total"),
    [("USD", 1234, 1234), ("JPY", 1234, 1234), ("KWD", 1230, 1230), ("ISK", 12, 1200)],
)
def test_amounts_are_in_the_units_that_stripe_has_for_the_currency(
    scene: Scene, currency: str, amount: int, total: int
) -> None:
    scene.statement(scene.customer(currency=currency), [amount])
    scene.collect()
    (invoice,) = scene.invoices()
    assert (invoice["total"], invoice["currency"]) == (total, currency.lower())


def test_nothing_owed_is_paid_and_what_is_owed_to_the_customer_pays_the_next(scene: Scene) -> None:
    customer = scene.customer()
    zero = scene.statement(customer, [500], credit=500)
    negative = scene.statement(customer, [-300])
    following = scene.statement(customer, [1000])
    scene.collect()
    assert [(each["total"], each["status"], each["amount_due"]) for each in scene.invoices()] == [
        (0, "paid", 0),
        (-300, "paid", 0),
        (1000, "open", 700),
    ]
    assert [scene.row(each).total for each in (zero, negative, following)] == [0, -300, 1000]


def test_a_customer_is_made_once_and_one_that_is_named_is_used(scene: Scene) -> None:
    customer = scene.customer()
    scene.statement(customer)
    scene.statement(customer)
    scene.collect()
    (made,) = scene.server.world.customers.values()
    assert (made["name"], made["email"]) == ("Acme", "acme@example.com")
    named = scene.customer("named", stripe_customer=made["id"])
    scene.statement(named)
    scene.collect()
    assert [each["customer"] for each in scene.invoices()] == [made["id"]] * 3


def test_a_customer_whose_making_had_no_answer_is_found_again(scene: Scene) -> None:
    scene.server.faults.coming.extend([None, Fault.LOST_ANSWER])  # the sweep comes first
    scene.statement(scene.customer())
    scene.collect()
    # Another key, as after a day: only the search keeps it from being made twice.
    scene.server.world.clock_offset_seconds += 25 * 3600
    scene.collect_later()
    assert len(scene.server.world.customers) == 1
    assert [each["status"] for each in scene.invoices()] == ["open"]


def test_one_broken_customer_stalls_no_other(scene: Scene) -> None:
    broken = scene.customer("broken", stripe_customer="cus_gone")
    statement = scene.statement(broken)
    others = [scene.statement(scene.customer(f"customer-{number}")) for number in range(5)]
    scene.collect()
    assert [scene.row(each).status for each in others] == ["open"] * 5
    row = scene.row(statement)
    assert row.step == InvoiceStep.CREATE
    assert row.problem.startswith("Stripe refused: No such customer: 'cus_gone'")
    assert row.claimed_until is None
    wait = row.next_attempt_at - datetime.now(UTC)
    assert timedelta(seconds=5) < wait <= timedelta(seconds=10)
    # It is not tried before, and waits longer each time.
    asked = len(scene.server.requests)
    scene.collect()
    assert len(scene.server.requests) == asked
    scene.collect_later()
    wait = scene.row(statement).next_attempt_at - datetime.now(UTC)
    assert timedelta(seconds=15) < wait <= timedelta(seconds=20)
    with scene.account.scope():
        Customer.objects.filter(id=broken.id).update(stripe_customer="")
    scene.collect_later()
    assert (scene.row(statement).status, scene.row(statement).problem) == ("open", "")


def test_what_stripe_cannot_hold_is_said_and_not_sent(scene: Scene) -> None:
    statement = scene.statement(scene.customer(), number="N" * 27)
    scene.collect()
    assert scene.row(statement).problem == "Numbers at Stripe have at most 26 characters."
    assert scene.server.world.customers == {}


def test_a_number_that_stripe_has_for_something_else_is_not_taken_over(scene: Scene) -> None:
    first = scene.statement(scene.customer("first"))
    scene.collect()
    other = scene.statement(scene.customer("other"), number=first.number)
    scene.collect()
    assert "already exists" in scene.row(other).problem
    assert len(scene.invoices()) == 1


def test_an_invoice_that_exists_already_counts_as_made(scene: Scene) -> None:
    """As after a database was restored that knew nothing of it."""
    statement = scene.statement(scene.customer())
    scene.collect()
    (invoice,) = scene.invoices()
    with scene.account.scope():
        StripeInvoice.objects.all().delete()
    scene.collect()
    assert len(scene.invoices()) == 1
    row = scene.row(statement)
    assert (row.stripe_id, row.step, row.status) == (invoice["id"], InvoiceStep.DONE, "open")


def test_drafts_beside_the_invoice_are_deleted_before_it_is_finalized(scene: Scene) -> None:
    statement = scene.statement(scene.customer())
    scene.server.faults.broken.add("add_lines")
    scene.collect()
    (draft,) = scene.server.world.invoices.values()
    # A worker that was away for an hour made a second one.
    twin = {**draft, "id": "in_twin", "number": None, "created": draft["created"] + 1}
    scene.server.world.invoices["in_twin"] = twin
    scene.server.world.lines["in_twin"] = []
    scene.server.faults.broken.clear()
    scene.collect_later()
    assert [(each["id"], each["status"]) for each in scene.invoices()] == [(draft["id"], "open")]
    assert scene.row(statement).status == "open"


def test_lines_that_came_twice_are_removed(scene: Scene) -> None:
    scene.statement(scene.customer(), [100, 200])
    scene.server.faults.broken.add("finalize")
    scene.collect()
    (draft,) = scene.server.world.invoices.values()
    lines = scene.server.world.lines[draft["id"]]
    lines += [{**lines[0], "id": "il_again"}, {**lines[1], "id": "il_wrong", "amount": 7}]
    lines.append({**lines[0], "id": "il_foreign", "metadata": {}})
    scene.server.faults.broken.clear()
    scene.collect_later()
    (invoice,) = scene.invoices()
    assert (invoice["status"], invoice["total"]) == ("open", 300)


def test_a_draft_that_was_deleted_by_hand_is_made_again(scene: Scene) -> None:
    statement = scene.statement(scene.customer())
    scene.server.faults.broken.add("finalize")
    scene.collect()
    scene.server.world.invoices.clear()
    scene.server.faults.broken.clear()
    scene.collect_later(turns=2)
    (invoice,) = scene.invoices()
    assert (invoice["status"], invoice["total"]) == ("open", 1000)
    assert scene.row(statement).stripe_id == invoice["id"]


@pytest.mark.parametrize(
    ("method", "seen"),
    [
        (CollectionMethod.SEND_INVOICE, ("send_invoice", False, True)),
        (CollectionMethod.CHARGE, ("charge_automatically", True, False)),
        (CollectionMethod.MANUAL, ("send_invoice", False, False)),
    ],
)
def test_a_customer_is_collected_from_in_its_own_way(
    scene: Scene, method: CollectionMethod, seen: tuple[str, bool, bool]
) -> None:
    customer = scene.customer()
    with scene.account.scope():
        set_collection_method(customer=customer, actor="tests", method=method, is_live=False)
    scene.statement(customer)
    scene.collect()
    (invoice,) = scene.invoices()
    is_sent = "invoice.sent" in {event["type"] for event in scene.server.world.events}
    assert (invoice["collection_method"], invoice["auto_advance"], is_sent) == seen


def test_who_is_not_collected_from_has_no_invoice(scene: Scene) -> None:
    customer = scene.customer()
    with scene.account.scope():
        set_collection_method(
            customer=customer, actor="tests", method=CollectionMethod.NONE, is_live=False
        )
    scene.statement(customer)
    scene.statement(scene.customer("other"))
    scene.collect()
    assert len(scene.invoices()) == 1


def test_only_final_statements_since_collecting_began_are_collected(scene: Scene) -> None:
    customer = scene.customer()
    scene.statement(customer)
    with scene.account.scope():
        configure_collection(
            tenant=scene.account.tenant,
            actor="tests",
            collects_from=datetime.now(UTC) + timedelta(seconds=1),
        )
    assert scene.collect() == 0
    assert scene.server.requests[1:] == []  # the sweep


@pytest.mark.parametrize("is_finalized", [False, True])
def test_the_invoice_of_a_void_statement_is_taken_back(scene: Scene, is_finalized: bool) -> None:
    statement = scene.statement(scene.customer())
    if not is_finalized:
        scene.server.faults.broken.add("finalize")
    scene.collect()
    scene.server.faults.broken.clear()
    scene.void(statement)
    scene.collect_later()
    assert [each["status"] for each in scene.invoices()] == (["void"] if is_finalized else [])
    row = scene.row(statement)
    assert (row.step, row.status) == (InvoiceStep.VOIDED, "void" if is_finalized else "deleted")


def test_an_invoice_that_was_paid_before_the_void_is_named(scene: Scene) -> None:
    statement = scene.statement(scene.customer())
    scene.collect()
    scene.server.world.pay(scene.row(statement).stripe_id)
    scene.void(statement)
    scene.collect_later()
    assert scene.row(statement).problem == (
        "The invoice was paid before its statement was voided: refund it in Stripe."
    )


def test_a_key_that_stripe_refuses_rests_and_no_row_is_blamed(scene: Scene) -> None:
    with scene.account.scope():
        set_credentials(
            tenant=scene.account.tenant, actor="tests", api_key="sk_live_x", webhook_secret=SECRET
        )
    statement = scene.statement(scene.customer())
    scene.collect()
    with scene.account.scope():
        settings = StripeSettings.objects.get()
        assert settings.problem.startswith("Stripe refused the API key: Invalid API Key")
        assert settings.paused_until is not None
        assert not StripeInvoice.objects.exists()
    asked = len(scene.server.requests)
    assert scene.collect() == 0
    assert len(scene.server.requests) == asked
    # Another key is tried immediately.
    with scene.account.scope():
        set_credentials(
            tenant=scene.account.tenant, actor="tests", api_key=API_KEY, webhook_secret=SECRET
        )
    scene.collect()
    assert scene.row(statement).status == "open"


def test_rows_of_test_mode_are_left_alone_by_a_live_key(scene: Scene) -> None:
    statement = scene.statement(scene.customer())
    scene.server.faults.broken.add("finalize")
    scene.collect()
    assert claim(tenant_id=scene.tenant_id, is_live=True) is None
    with travel(hours=1):
        assert claim(tenant_id=scene.tenant_id, is_live=True) is None
        assert queue_statements(tenant_id=scene.tenant_id, is_live=True) == 0
        claimed = claim(tenant_id=scene.tenant_id, is_live=False)
    assert claimed is not None
    assert claimed.statement == statement


def test_a_row_has_one_worker_and_a_customer_one_row_under_way(scene: Scene) -> None:
    customer = scene.customer()
    scene.statement(customer)
    scene.statement(customer)
    queue_statements(tenant_id=scene.tenant_id, is_live=False)
    first = claim(tenant_id=scene.tenant_id, is_live=False)
    assert first is not None
    assert claim(tenant_id=scene.tenant_id, is_live=False) is None
    # After a worker died its row is free again, and what it still stores is refused.
    with travel(minutes=11):
        second = claim(tenant_id=scene.tenant_id, is_live=False)
    assert second is not None
    assert second.row.id == first.row.id
    with pytest.raises(ClaimLost):
        store(first, step=InvoiceStep.DONE)


def test_too_many_requests_wait_as_long_as_stripe_asks(scene: Scene) -> None:
    statement = scene.statement(scene.customer())
    scene.server.retry_after_seconds = 3600
    scene.server.faults.coming.extend([None, Fault.BUSY])  # the sweep comes first
    scene.collect()
    row = scene.row(statement)
    assert row.problem == "Stripe takes no more requests for now."
    assert row.next_attempt_at - datetime.now(UTC) > timedelta(minutes=59)


def test_keys_are_sealed_and_in_no_log(scene: Scene) -> None:
    with scene.account.scope():
        stored = StripeSettings.objects.get()
        assert API_KEY.encode() not in bytes(stored.secrets or b"")
        entries = str(list(AuditEntry.objects.values()))
    assert "set_key" in entries
    assert API_KEY not in entries
    assert SECRET not in entries
    with pytest.raises(WrongKey):
        set_credentials(
            tenant=scene.account.tenant, actor="tests", api_key="pk_test_x", webhook_secret=""
        )
