"""The objects of the stand-in, with every member that Stripe's document requires of them."""

from collections.abc import Mapping, Sequence
from typing import Any

Object = dict[str, Any]
# Every object says that no money is behind it.
TEST: Mapping[str, object] = {"livemode": False}


def listing(url: str, objects: Sequence[Object], *, has_more: bool = False) -> Object:
    return {"object": "list", "url": url, "has_more": has_more, "data": list(objects)}


def customer(id_: str, now: int, given: Object) -> Object:
    return {
        "id": id_,
        "object": "customer",
        "created": now,
        **TEST,
        "balance": 0,
        "email": given.get("email"),
        "name": given.get("name"),
        "metadata": given.get("metadata", {}),
    }


def invoice(id_: str, now: int, given: Object) -> Object:
    due_date = given.get("due_date")
    if due_date is None and "days_until_due" in given:
        due_date = now + 86_400 * int(given["days_until_due"])
    return {
        "id": id_,
        "object": "invoice",
        **TEST,
        "created": now,
        "customer": given["customer"],
        "currency": given.get("currency", "usd"),
        "number": given.get("number"),
        "status": "draft",
        "metadata": given.get("metadata", {}),
        "description": given.get("description"),
        "auto_advance": given.get("auto_advance", False),
        "collection_method": given.get("collection_method", "charge_automatically"),
        "due_date": due_date,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_paid_off_stripe": 0,
        "amount_shipping": 0,
        "attempt_count": 0,
        "attempted": False,
        "automatic_tax": {"enabled": False, "liability": None, "status": None},
        "default_tax_rates": [],
        "discounts": [],
        "issuer": {"type": "self"},
        "payment_settings": {},
        "period_start": now,
        "period_end": now,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": 0,
        "ending_balance": None,
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
    }


def line(id_: str, given: Object, invoice: Object) -> Object:
    amount = given.get("amount", 0)
    return {
        "id": id_,
        "object": "line_item",
        **TEST,
        "amount": amount,
        "subtotal": amount,
        "currency": invoice["currency"],
        "description": given.get("description"),
        "discountable": given.get("discountable", True),
        "discounts": [],
        "invoice": invoice["id"],
        "metadata": given.get("metadata", {}),
        "period": given.get("period", {"start": invoice["created"], "end": invoice["created"]}),
    }


def charge(id_: str, now: int, *, payment_intent: str, paid: bool, invoice: Object) -> Object:
    amount = invoice["amount_due"] - invoice["amount_paid"]
    return {
        "id": id_,
        "object": "charge",
        **TEST,
        "created": now,
        "amount": amount,
        "amount_captured": amount if paid else 0,
        "amount_refunded": 0,
        "billing_details": {},
        "captured": paid,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "disputed": False,
        "metadata": {},
        "paid": paid,
        "payment_intent": payment_intent,
        "refunded": False,
        "status": "succeeded" if paid else "failed",
    }


def invoice_payment(id_: str, now: int, *, payment_intent: str, invoice: Object) -> Object:
    return {
        "id": id_,
        "object": "invoice_payment",
        **TEST,
        "created": now,
        "amount_requested": invoice["amount_due"],
        "amount_paid": None,
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "payment": {"type": "payment_intent", "payment_intent": payment_intent},
        "status": "open",
        "status_transitions": {},
    }


def refund(id_: str, now: int, *, charge: Object, amount: int) -> Object:
    return {
        "id": id_,
        "object": "refund",
        "created": now,
        "amount": amount,
        "charge": charge["id"],
        "currency": charge["currency"],
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "status": "succeeded",
    }


def dispute(id_: str, now: int, *, charge: Object) -> Object:
    return {
        "id": id_,
        "object": "dispute",
        **TEST,
        "created": now,
        "amount": charge["amount"],
        "balance_transactions": [],
        "charge": charge["id"],
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": now + 7 * 86_400,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "reason": "general",
        "status": "needs_response",
    }


def credit_note(id_: str, now: int, *, invoice: Object, amount: int, number: str) -> Object:
    is_paid = invoice["status"] == "paid"
    return {
        "id": id_,
        "object": "credit_note",
        **TEST,
        "created": now,
        "amount": amount,
        "amount_shipping": 0,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "discount_amount": 0,
        "discount_amounts": [],
        "invoice": invoice["id"],
        "lines": listing(f"/v1/credit_notes/{id_}/lines", []),
        "number": number,
        "pdf": "https://stripe.invalid/not-real-money.pdf",
        "post_payment_amount": amount if is_paid else 0,
        "pre_payment_amount": 0 if is_paid else amount,
        "pretax_credit_amounts": [],
        "refunds": [],
        "status": "issued",
        "subtotal": amount,
        "total": amount,
        "type": "post_payment" if is_paid else "pre_payment",
    }


def meter(id_: str, now: int, given: Object) -> Object:
    return {
        "id": id_,
        "object": "billing.meter",
        **TEST,
        "created": now,
        "customer_mapping": given.get(
            "customer_mapping", {"event_payload_key": "stripe_customer_id", "type": "by_id"}
        ),
        "default_aggregation": given["default_aggregation"],
        "display_name": given["display_name"],
        "event_name": given["event_name"],
        "event_time_window": given.get("event_time_window"),
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "updated": now,
        "value_settings": given.get("value_settings", {"event_payload_key": "value"}),
    }


def price(id_: str, now: int, given: Object) -> Object:
    return {
        "id": id_,
        "object": "price",
        **TEST,
        "active": True,
        "billing_scheme": given.get("billing_scheme", "per_unit"),
        "created": now,
        "currency": given["currency"],
        "lookup_key": given.get("lookup_key"),
        "metadata": given.get("metadata", {}),
        "nickname": given.get("nickname"),
        "product": f"prod_of_{id_}",
        "recurring": given["recurring"],
        "tiers_mode": given.get("tiers_mode"),
        "transform_quantity": given.get("transform_quantity"),
        "type": "recurring",
        "unit_amount_decimal": given.get("unit_amount_decimal"),
    }


def webhook_endpoint(id_: str, now: int, given: Object) -> Object:
    return {
        "id": id_,
        "object": "webhook_endpoint",
        **TEST,
        "created": now,
        "api_version": given.get("api_version"),
        "application": None,
        "description": "A stand-in: not real money",
        "enabled_events": given["enabled_events"],
        "metadata": given.get("metadata", {}),
        "status": "enabled",
        "url": given["url"],
    }


def event(id_: str, now: int, *, kind: str, of: Object) -> Object:
    return {
        "id": id_,
        "object": "event",
        **TEST,
        "api_version": None,
        "created": now,
        "data": {"object": of},
        "pending_webhooks": 1,
        "request": None,
        "type": kind,
    }
