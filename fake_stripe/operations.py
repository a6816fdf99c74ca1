"""What requests about customers, invoices and payments do.

A handler gets the world, the ids of the path and the checked parameters; it returns the object
that is answered.
"""

import secrets
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from fake_stripe import objects
from fake_stripe.objects import Object
from fake_stripe.routes import Ids, find, is_since, on, page, part_of_list
from fake_stripe.world import Refused, World

LINES_A_CALL_MAX: Final = 250
NUMBER_TAKEN: Final = "An invoice with the number {} already exists."


@on("POST", "/v1/webhook_endpoints")
def create_webhook_endpoint(world: World, ids: Ids, given: Object) -> Object:
    if not is_on_this_machine(given["url"]):
        raise Refused(400, "A stand-in sends webhooks to this machine alone.")
    made = objects.webhook_endpoint(world.new_id("we"), world.now, given)
    # As Stripe does, the secret is said once.
    made["secret"] = f"whsec_fake{secrets.token_hex(12)}"
    world.webhook_endpoints[made["id"]] = made
    return made


def is_on_this_machine(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


@on("POST", "/v1/customers")
def create_customer(world: World, ids: Ids, given: Object) -> Object:
    made = objects.customer(world.new_id("cus"), world.now, given)
    world.customers[made["id"]] = made
    world.note("customer.created", made)
    return made


@on("GET", "/v1/customers")
def list_customers(world: World, ids: Ids, given: Object) -> Object:
    customers = (
        each
        for each in world.customers.values()
        if given.get("email", each["email"]) == each["email"]
        and is_since(each, given.get("created"))
    )
    return page("/v1/customers", customers, given)


@on("GET", "/v1/customers/{customer}")
def read_customer(world: World, ids: Ids, given: Object) -> Object:
    return find(world.customers, ids["customer"], "customer")


@on("POST", "/v1/invoices")
def create_invoice(world: World, ids: Ids, given: Object) -> Object:
    find(world.customers, given.get("customer", ""), "customer")
    number = given.get("number")
    if number is not None and number in {each["number"] for each in world.invoices.values()}:
        raise Refused(400, NUMBER_TAKEN.format(number))
    if given.get("collection_method") == "send_invoice" and not (
        "days_until_due" in given or "due_date" in given
    ):
        raise Refused(400, "send_invoice needs days_until_due or due_date")
    made = objects.invoice(world.new_id("in"), world.now, given)
    world.invoices[made["id"]] = made
    world.lines[made["id"]] = []
    world.note("invoice.created", made)
    return world.shown(made)


@on("GET", "/v1/invoices")
def list_invoices(world: World, ids: Ids, given: Object) -> Object:
    invoices = [
        world.shown(each)
        for each in world.invoices.values()
        if given.get("customer", each["customer"]) == each["customer"]
        and given.get("status", each["status"]) == each["status"]
        and is_since(each, given.get("created"))
    ]
    return page("/v1/invoices", invoices, given)


@on("GET", "/v1/invoices/{invoice}")
def read_invoice(world: World, ids: Ids, given: Object) -> Object:
    return world.shown(find(world.invoices, ids["invoice"], "invoice"))


@on("POST", "/v1/invoices/{invoice}")
def update_invoice(world: World, ids: Ids, given: Object) -> Object:
    invoice = find(world.invoices, ids["invoice"], "invoice")
    if invoice["status"] not in ("draft", "open"):
        raise Refused(400, f"An invoice that is {invoice['status']} cannot be changed.")
    for name in ("auto_advance", "metadata"):
        if name in given:
            invoice[name] = given[name]
    world.note("invoice.updated", invoice)
    if invoice["status"] == "open" and invoice["auto_advance"]:
        world.ask_bank(invoice)
    return world.shown(invoice)


@on("DELETE", "/v1/invoices/{invoice}")
def delete_invoice(world: World, ids: Ids, given: Object) -> Object:
    draft(world, ids)
    del world.invoices[ids["invoice"]]
    return {"id": ids["invoice"], "object": "invoice", "deleted": True}


def draft(world: World, ids: Ids) -> Object:
    invoice = find(world.invoices, ids["invoice"], "invoice")
    if invoice["status"] != "draft":
        raise Refused(400, "This invoice is no longer a draft.", code="invoice_not_editable")
    return invoice


@on("POST", "/v1/invoices/{invoice}/add_lines")
def add_lines(world: World, ids: Ids, given: Object) -> Object:
    invoice = draft(world, ids)
    if len(given["lines"]) > LINES_A_CALL_MAX:
        raise Refused(400, f"At most {LINES_A_CALL_MAX} lines are added in a call.")
    world.lines[invoice["id"]] += [
        objects.line(world.new_id("il"), each, invoice) for each in given["lines"]
    ]
    return world.shown(invoice)


@on("POST", "/v1/invoices/{invoice}/remove_lines")
def remove_lines(world: World, ids: Ids, given: Object) -> Object:
    invoice = draft(world, ids)
    removed = {each["id"] for each in given["lines"]}
    kept = [each for each in world.lines[invoice["id"]] if each["id"] not in removed]
    world.lines[invoice["id"]] = kept
    return world.shown(invoice)


@on("GET", "/v1/invoices/{invoice}/lines")
def list_lines(world: World, ids: Ids, given: Object) -> Object:
    find(world.invoices, ids["invoice"], "invoice")
    return part_of_list(f"/v1/invoices/{ids['invoice']}/lines", world.lines[ids["invoice"]], given)


@on("POST", "/v1/invoices/{invoice}/finalize")
def finalize_invoice(world: World, ids: Ids, given: Object) -> Object:
    invoice = find(world.invoices, ids["invoice"], "invoice")
    if invoice["status"] != "draft":
        raise Refused(400, "This invoice is already finalized.", code="invoice_not_editable")
    invoice["auto_advance"] = given.get("auto_advance", invoice["auto_advance"])
    world.finalize(invoice)
    return world.shown(invoice)


@on("POST", "/v1/invoices/{invoice}/send")
def send_invoice(world: World, ids: Ids, given: Object) -> Object:
    invoice = find(world.invoices, ids["invoice"], "invoice")
    if invoice["collection_method"] != "send_invoice" or invoice["status"] == "void":
        raise Refused(400, "This invoice cannot be sent.")
    world.note("invoice.sent", invoice)
    world.ask_bank(invoice)
    return world.shown(invoice)


@on("POST", "/v1/invoices/{invoice}/pay")
def pay_invoice(world: World, ids: Ids, given: Object) -> Object:
    invoice = open_invoice(world, ids)
    world.pay(invoice["id"])
    return world.shown(invoice)


def open_invoice(world: World, ids: Ids) -> Object:
    invoice = find(world.invoices, ids["invoice"], "invoice")
    if invoice["status"] not in ("open", "uncollectible"):
        raise Refused(400, f"This invoice is {invoice['status']}.")
    return invoice


@on("POST", "/v1/invoices/{invoice}/void")
def void_invoice(world: World, ids: Ids, given: Object) -> Object:
    invoice = open_invoice(world, ids)
    invoice["status"] = "void"
    invoice["status_transitions"]["voided_at"] = world.now
    world.note("invoice.voided", invoice)
    return world.shown(invoice)


@on("POST", "/v1/invoices/{invoice}/mark_uncollectible")
def mark_uncollectible(world: World, ids: Ids, given: Object) -> Object:
    invoice = open_invoice(world, ids)
    invoice["status"] = "uncollectible"
    invoice["status_transitions"]["marked_uncollectible_at"] = world.now
    world.note("invoice.marked_uncollectible", invoice)
    return world.shown(invoice)


@on("GET", "/v1/invoice_payments")
def list_payments(world: World, ids: Ids, given: Object) -> Object:
    intent = given.get("payment", {}).get("payment_intent")
    payments = (
        each
        for each in world.payments.values()
        if given.get("invoice", each["invoice"]) == each["invoice"]
        and intent in (None, each["payment"]["payment_intent"])
    )
    return page("/v1/invoice_payments", payments, given)


def of_payment(objects: Iterable[Object], given: Object) -> list[Object]:
    """Keep what belongs to a payment or charge, if one is asked for."""
    return [
        each
        for each in objects
        if given.get("payment_intent", each["payment_intent"]) == each["payment_intent"]
        and given.get("charge", each.get("charge")) == each.get("charge")
    ]


@on("GET", "/v1/charges")
def list_charges(world: World, ids: Ids, given: Object) -> Object:
    return page("/v1/charges", of_payment(world.charges.values(), given), given)


@on("GET", "/v1/disputes")
def list_disputes(world: World, ids: Ids, given: Object) -> Object:
    return page("/v1/disputes", of_payment(world.disputes.values(), given), given)


@on("GET", "/v1/refunds")
def list_refunds(world: World, ids: Ids, given: Object) -> Object:
    return page("/v1/refunds", of_payment(world.refunds.values(), given), given)


@on("POST", "/v1/refunds")
def create_refund(world: World, ids: Ids, given: Object) -> Object:
    charge = next(
        (
            each
            for each in world.charges.values()
            if each["paid"]
            and (
                each["id"] == given.get("charge")
                or each["payment_intent"] == given.get("payment_intent")
            )
        ),
        None,
    )
    if charge is None:
        raise Refused(400, "There is no such payment.")
    left = charge["amount"] - charge["amount_refunded"]
    amount = given.get("amount", left)
    if not 0 < amount <= left:
        raise Refused(400, f"Only {left} can be refunded.")
    return world.refund(charge["id"], amount)


@on("POST", "/v1/credit_notes")
def create_credit_note(world: World, ids: Ids, given: Object) -> Object:
    invoice = find(world.invoices, given["invoice"], "invoice")
    if invoice["status"] not in ("open", "paid"):
        raise Refused(400, "Only an open or paid invoice has credit notes.")
    amount = given.get("amount", 0)
    field = "post_payment" if invoice["status"] == "paid" else "pre_payment"
    note = objects.credit_note(
        world.new_id("cn"),
        world.now,
        invoice=invoice,
        amount=amount,
        number=f"{invoice['number']}-CN-{len(world.credit_notes) + 1:02d}",
    )
    invoice[f"{field}_credit_notes_amount"] += amount
    world.credit_notes[note["id"]] = note
    world.note("credit_note.created", note)
    return note


@on("GET", "/v1/events")
def list_events(world: World, ids: Ids, given: Object) -> Object:
    kinds = given.get("types")
    events = (
        each
        for each in world.events
        if is_since(each, given.get("created")) and (kinds is None or each["type"] in kinds)
    )
    return page("/v1/events", events, given)
