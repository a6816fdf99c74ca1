"""What each request does. A handler gets the world, the ids of the path and the checked
parameters, and returns the object that is answered.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from fake_stripe import objects
from fake_stripe.objects import Object
from fake_stripe.world import Refused, World

LINES_A_CALL_MAX: Final = 250
NUMBER_TAKEN: Final = "An invoice with the number {} already exists."
METER_DAYS_BACK: Final = 35
METER_DIGITS_MAX: Final = 15

Ids = dict[str, str]
Handler = Callable[[World, Ids, Object], Object]


class Route(NamedTuple):
    """An operation of Stripe's and what does it: its method and path template, by which Stripe
    describes it, and the pattern of paths.
    """

    name: tuple[str, str]
    pattern: re.Pattern[str]
    handle: Handler


ROUTES: Final[list[Route]] = []


def on(method: str, path: str) -> Callable[[Handler], Handler]:
    """Let a function handle an operation."""
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))

    def register(handle: Handler) -> Handler:
        ROUTES.append(Route((method, path), pattern, handle))
        return handle

    return register


def find(of: dict[str, Object], id_: str, kind: str) -> Object:
    if id_ not in of:
        raise Refused(404, f"No such {kind}: '{id_}'", code="resource_missing")
    return of[id_]


def page(url: str, result: Iterable[Object], given: Object) -> Object:
    """Return a page of objects, newest first, as Stripe lists all but lines."""
    return _page(url, list(result)[::-1], given)


def _page(url: str, result: list[Object], given: Object) -> Object:
    if after := given.get("starting_after"):
        places = [index for index, each in enumerate(result) if each["id"] == after]
        result = result[places[0] + 1 :] if places else []
    limit = given.get("limit", 10)
    if not 1 <= limit <= 100:
        raise Refused(400, "limit must be from 1 to 100")
    return objects.listing(url, result[:limit], has_more=len(result) > limit)


def is_since(each: Object, given: Any) -> bool:
    """Whether an object fits a `created` of a listing."""
    if given is None or isinstance(given, int):
        return given is None or bool(each["created"] == given)
    return bool(given.get("gte", 0) <= each["created"] <= given.get("lte", each["created"]))


@on("POST", "/v1/customers")
def create_customer(world: World, ids: Ids, given: Object) -> Object:
    made = objects.customer(world.new_id("cus"), world.now, given)
    world.customers[made["id"]] = made
    world.note("customer.created", made)
    return made


@on("GET", "/v1/customers")
def list_customers(world: World, ids: Ids, given: Object) -> Object:
    result = (
        each
        for each in world.customers.values()
        if given.get("email", each["email"]) == each["email"]
        and is_since(each, given.get("created"))
    )
    return page("/v1/customers", result, given)


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
    result = [
        world.shown(each)
        for each in world.invoices.values()
        if given.get("customer", each["customer"]) == each["customer"]
        and given.get("status", each["status"]) == each["status"]
        and is_since(each, given.get("created"))
    ]
    return page("/v1/invoices", result, given)


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
    return _page(f"/v1/invoices/{ids['invoice']}/lines", world.lines[ids["invoice"]], given)


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
    result = (
        each
        for each in world.payments.values()
        if given.get("invoice", each["invoice"]) == each["invoice"]
        and intent in (None, each["payment"]["payment_intent"])
    )
    return page("/v1/invoice_payments", result, given)


def of_payment(result: Iterable[Object], given: Object) -> list[Object]:
    """Keep what belongs to a payment or charge, if one is asked for."""
    return [
        each
        for each in result
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
    result = (
        each
        for each in world.events
        if is_since(each, given.get("created")) and (kinds is None or each["type"] in kinds)
    )
    return page("/v1/events", result, given)


@on("POST", "/v1/billing/meters")
def create_meter(world: World, ids: Ids, given: Object) -> Object:
    if given["event_name"] in {each["event_name"] for each in world.meters.values()}:
        raise Refused(400, f"A meter for {given['event_name']} already exists.")
    made = objects.meter(world.new_id("mtr"), world.now, given)
    world.meters[made["id"]] = made
    return made


@on("GET", "/v1/billing/meters")
def list_meters(world: World, ids: Ids, given: Object) -> Object:
    return page("/v1/billing/meters", world.meters.values(), given)


@on("POST", "/v1/prices")
def create_price(world: World, ids: Ids, given: Object) -> Object:
    if given["recurring"]["meter"] not in world.meters:
        raise Refused(400, "There is no such meter.")
    if given.get("lookup_key") in {each["lookup_key"] for each in world.prices.values()}:
        raise Refused(400, "A price with this lookup key already exists.")
    made = objects.price(world.new_id("price"), world.now, given)
    world.prices[made["id"]] = made
    return made


@on("GET", "/v1/prices")
def list_prices(world: World, ids: Ids, given: Object) -> Object:
    keys = given.get("lookup_keys")
    result = (each for each in world.prices.values() if keys is None or each["lookup_key"] in keys)
    return page("/v1/prices", result, given)


@on("POST", "/v1/billing/meter_events")
def create_meter_event(world: World, ids: Ids, given: Object) -> Object:
    meter = next(
        (each for each in world.meters.values() if each["event_name"] == given["event_name"]),
        None,
    )
    customer = given["payload"].get("stripe_customer_id", "")
    value = given["payload"].get("value", "")
    at = given.get("timestamp", world.now)
    if meter is None:
        raise Refused(400, f"There is no meter for {given['event_name']}.")
    if customer not in world.customers:
        raise Refused(400, f"No such customer: '{customer}'")
    if not value.isdecimal() or len(value) > METER_DIGITS_MAX:
        raise Refused(400, "The value must be a whole number of at most 15 digits.")
    if not world.now - METER_DAYS_BACK * 86_400 <= at <= world.now + 300:
        raise Refused(400, "The timestamp is not within the past 35 days.")
    identifier = given.get("identifier") or world.new_id("identifier")
    if identifier in world.meter_identifiers:
        raise Refused(400, f"An event with the identifier {identifier} already exists.")
    world.take_number()
    world.meter_identifiers.add(identifier)
    window = {"hour": 3600, "day": 86_400, None: 1}[meter["event_time_window"]]
    world.meter_values[meter["id"], customer, at - at % window] = int(value)
    return {
        "object": "billing.meter_event",
        **objects.TEST,
        "created": world.now,
        "event_name": given["event_name"],
        "identifier": identifier,
        "payload": given["payload"],
        "timestamp": at,
    }


@on("GET", "/v1/billing/meters/{id}/event_summaries")
def list_summaries(world: World, ids: Ids, given: Object) -> Object:
    start, end = given["start_time"], given["end_time"]
    total = sum(
        value
        for (meter, customer, at), value in world.meter_values.items()
        if (meter, customer) == (ids["id"], given["customer"]) and start <= at < end
    )
    summary = {
        "id": world.new_id("mtrusg"),
        "object": "billing.meter_event_summary",
        **objects.TEST,
        "aggregated_value": total,
        "start_time": start,
        "end_time": end,
        "meter": ids["id"],
    }
    return objects.listing(f"/v1/billing/meters/{ids['id']}/event_summaries", [summary])
