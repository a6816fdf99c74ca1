"""What exists at the stand-in, its clock, and the rules that change one object by another."""

import copy
import time
from dataclasses import dataclass, field

from fake_stripe import objects
from fake_stripe.objects import Object

# How many lines an invoice shows without being asked for them.
LINES_SHOWN = 10
# Tags of customers' addresses by which the bank of the demo decides: billing+declined@example.com.
DECLINED = "+declined@"
LATER = "+later@"


class Refused(Exception):
    """A request that Stripe answers with an error."""

    def __init__(self, status: int, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class World:
    """All objects by id, oldest first, and the events of what happened to them."""

    customers: dict[str, Object] = field(default_factory=dict)
    invoices: dict[str, Object] = field(default_factory=dict)
    # By invoice.
    lines: dict[str, list[Object]] = field(default_factory=dict)
    payments: dict[str, Object] = field(default_factory=dict)
    charges: dict[str, Object] = field(default_factory=dict)
    refunds: dict[str, Object] = field(default_factory=dict)
    disputes: dict[str, Object] = field(default_factory=dict)
    credit_notes: dict[str, Object] = field(default_factory=dict)
    webhook_endpoints: dict[str, Object] = field(default_factory=dict)
    meters: dict[str, Object] = field(default_factory=dict)
    prices: dict[str, Object] = field(default_factory=dict)
    # By meter, customer and second; the most recent of a window counts where windows overwrite.
    meter_values: dict[tuple[str, str, int], int] = field(default_factory=dict)
    meter_identifiers: set[str] = field(default_factory=set)
    events: list[Object] = field(default_factory=list)
    # Added to this machine's clock.
    clock_offset_seconds: int = 0
    # How many objects there are: the last of their numbers.
    numbers: int = 0
    # How many requests may have changed something.
    changes: int = 0
    # Whether invoices are paid by themselves once they are sent or charged.
    has_bank: bool = False

    @property
    def now(self) -> int:
        return int(time.time()) + self.clock_offset_seconds

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_fake{self.take_number():08d}"

    def take_number(self) -> int:
        """Count one more object that is kept."""
        self.numbers += 1
        return self.numbers

    def shown(self, invoice: Object) -> Object:
        """Return an invoice as it is answered: with its sums and first lines."""
        lines = self.lines[invoice["id"]]
        total = sum(each["amount"] for each in lines)
        due = invoice.get("amount_due", max(0, total))
        return {
            **copy.deepcopy(invoice),
            "subtotal": total,
            "total": total,
            "amount_due": due,
            "amount_remaining": max(
                0,
                due - invoice["amount_paid"] - invoice["pre_payment_credit_notes_amount"],
            ),
            "lines": objects.listing(
                f"/v1/invoices/{invoice['id']}/lines",
                lines[:LINES_SHOWN],
                has_more=len(lines) > LINES_SHOWN,
            ),
        }

    def note(self, kind: str, of: Object) -> None:
        """Write the event of what happened, with the object as it is now."""
        shown = self.shown(of) if of["object"] == "invoice" else copy.deepcopy(of)
        self.events.append(objects.event(self.new_id("evt"), self.now, kind=kind, of=shown))

    def finalize(self, invoice: Object) -> None:
        """Open an invoice; a negative total becomes credit, and credit pays."""
        total = sum(each["amount"] for each in self.lines[invoice["id"]])
        customer = self.customers[invoice["customer"]]
        invoice["starting_balance"] = customer["balance"]
        owed = total + customer["balance"]
        # A balance of the customer's favor is negative.
        customer["balance"] = min(0, owed)
        invoice["amount_due"] = max(0, owed)
        invoice["ending_balance"] = customer["balance"]
        invoice["status"] = "open"
        invoice["status_transitions"]["finalized_at"] = self.now
        if invoice["number"] is None:
            invoice["number"] = f"FAKE-{self.take_number():04d}"
        self.note("invoice.finalized", invoice)
        if invoice["amount_due"] == 0:
            self._settle(invoice)
            return
        payment = objects.invoice_payment(
            self.new_id("inpay"), self.now, payment_intent=self.new_id("pi"), invoice=invoice
        )
        self.payments[payment["id"]] = payment

    def ask_bank(self, invoice: Object) -> None:
        """Let a bank, if there is one, pay: an address says if it declines, or pays later."""
        email = self.customers[invoice["customer"]]["email"] or ""
        if self.has_bank and invoice["status"] == "open" and LATER not in email:
            self.pay(invoice["id"], succeeds=DECLINED not in email)

    def pay(self, invoice_id: str, *, succeeds: bool = True) -> Object:
        """Let a customer's bank pay an open invoice, or refuse to."""
        invoice = self.invoices[invoice_id]
        payment = next(each for each in self.payments.values() if each["invoice"] == invoice["id"])
        charge = objects.charge(
            self.new_id("ch"),
            self.now,
            payment_intent=payment["payment"]["payment_intent"],
            paid=succeeds,
            invoice=invoice,
        )
        self.charges[charge["id"]] = charge
        invoice["attempt_count"] += 1
        invoice["attempted"] = True
        if not succeeds:
            self.note("charge.failed", charge)
            self.note("invoice.payment_failed", invoice)
            return charge
        payment["status"] = "paid"
        payment["amount_paid"] = charge["amount"]
        invoice["amount_paid"] += charge["amount"]
        self.note("charge.succeeded", charge)
        self._settle(invoice)
        return charge

    def _settle(self, invoice: Object) -> None:
        invoice["status"] = "paid"
        invoice["status_transitions"]["paid_at"] = self.now
        self.note("invoice.paid", invoice)

    def refund(self, charge_id: str, amount: int) -> Object:
        """Give a payment back, wholly or in part."""
        charge = self.charges[charge_id]
        refund = objects.refund(self.new_id("re"), self.now, charge=charge, amount=amount)
        self.refunds[refund["id"]] = refund
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        self.note("charge.refunded", charge)
        return refund

    def open_dispute(self, charge_id: str) -> Object:
        """Let a customer dispute a payment with the bank."""
        charge = self.charges[charge_id]
        charge["disputed"] = True
        dispute = objects.dispute(self.new_id("du"), self.now, charge=charge)
        self.disputes[dispute["id"]] = dispute
        self.note("charge.dispute.created", dispute)
        return dispute

    def close_dispute(self, dispute_id: str, status: str) -> None:
        """Let the bank decide: `won` or `lost`, as the merchant has it."""
        dispute = self.disputes[dispute_id]
        dispute["status"] = status
        self.note("charge.dispute.closed", dispute)
