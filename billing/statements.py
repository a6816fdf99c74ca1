"""How a draft becomes a final statement, and a final one void.

A draft is computed in one snapshot. What is final is written in another transaction, under the
customer's lock, from a draft that no other final statement has overtaken. Usage that is
acknowledged in between is an adjustment of the next statement, as all that comes late.
"""

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from django.utils import timezone

from billing import coupons, credit_notes, credits
from billing.drafts import Draft, DraftLine, coupon_of_statement, draft_of, revisions_of, totals_of
from billing.line_details import detail_of
from billing.models import (
    BillingSettings,
    Customer,
    SeriesName,
    Statement,
    StatementLine,
    StatementState,
)
from billing.numbers import next_number
from billing.statement_periods import open_drafts
from common.errors import Conflict, NotFound
from common.json_bodies import JsonObject
from tenants.audit import record_change
from tenants.models import Tenant
from tenants.scope import tenant_scope

ATTEMPTS: Final = 5
NUMBER_DIGITS: Final = 6


def find_statement(tenant_id: int, statement_id: int) -> Statement:
    """Return a statement. Raises NotFound."""
    statement = (
        Statement.objects.filter(tenant_id=tenant_id, id=statement_id)
        .select_related("customer")
        .first()
    )
    if statement is None:
        raise NotFound.of("statement", statement_id)
    return statement


def finalize(
    tenant_id: int, statement_id: int, *, actor: str, accepted_unpriced: int = 0
) -> Statement:
    """Make a statement final, or return it if it is. Outside of any transaction.

    Raises NotFound, and Conflict for a void one or one with more unpriced calls than are accepted.
    """
    for _ in range(ATTEMPTS):
        with tenant_scope(tenant_id, is_snapshot=True):
            statement = find_statement(tenant_id, statement_id)
            if statement.state != StatementState.DRAFT:
                return _final(statement)
            draft = draft_of(statement)
        final = finalize_draft(draft, actor=actor, accepted_unpriced=accepted_unpriced)
        if final is not None:
            return final
    raise Conflict("Other statements of this customer became final meanwhile; try again.")


def _final(statement: Statement) -> Statement:
    if statement.state == StatementState.VOID:
        raise Conflict(f"Statement {statement.number} is void; its period has another statement.")
    return statement


def finalize_draft(draft: Draft, *, actor: str, accepted_unpriced: int = 0) -> Statement | None:
    """Make a statement final as this draft has it; None if the customer's other final statements
    are no longer those that it was computed beside. Raises Conflict.
    """
    tenant_id = draft.statement.tenant_id
    if draft.unpriced > accepted_unpriced:
        raise Conflict(
            f"{draft.unpriced:,} calls have no price yet, so their cost cannot be charged. Add "
            f"their prices, or accept their number."
        )
    with tenant_scope(tenant_id):
        customer = Customer.objects.select_for_update(no_key=True).get(
            tenant_id=tenant_id, id=draft.statement.customer_id
        )
        statement = Statement.objects.get(tenant_id=tenant_id, id=draft.statement.id)
        statement.customer = customer
        if statement.state != StatementState.DRAFT:
            return _final(statement)
        revision = revisions_of(tenant_id, [customer.id]).get(customer.id, (0, 0))
        if revision != draft.revision:
            return None
        _write(statement, draft, actor=actor)
        open_drafts(customer)
    return statement


def _write(statement: Statement, draft: Draft, *, actor: str) -> None:
    now = timezone.now()
    customer = statement.customer
    coupon = coupon_of_statement(statement, at=now)
    totals = totals_of(statement, draft.totals.subtotal, coupon=coupon, at=now)
    settings = billing_settings(statement.tenant_id)
    zone = ZoneInfo(statement.timezone)
    StatementLine.objects.bulk_create(
        [_row(statement, position, line) for position, line in enumerate(draft.lines, 1)]
    )
    statement.state = StatementState.FINAL
    statement.finalized_at, statement.finalized_by = now, actor[:300]
    statement.due_on = now.astimezone(zone).date() + timedelta(days=customer.payment_terms_days)
    statement.parties = parties_of(customer, settings)
    statement.unpriced = draft.unpriced
    statement.taxes = [
        {"name": tax.name, "percent": f"{tax.percent:f}", "amount": tax.amount}
        for tax in totals.taxes
    ]
    for name, amount in totals._asdict().items():
        if name != "taxes":
            setattr(statement, name, amount)
    _use_credit(statement, coupon, at=now)
    # Last, because everyone who takes a number waits until this transaction ends.
    statement.sequence = next_number(statement.tenant_id, SeriesName.STATEMENT)
    statement.number = f"{settings.statement_prefix}{statement.sequence:0{NUMBER_DIGITS}}"
    statement.save()
    record_change(
        tenant_id=statement.tenant_id,
        actor=actor,
        action="finalize",
        subject=statement,
        after={"number": statement.number, "total": statement.total},
    )


def _use_credit(statement: Statement, coupon: coupons.Discount | None, *, at: datetime) -> None:
    """Count what the statement was paid with as used."""
    if coupon is not None:
        statement.coupon = coupons.discount_facts(coupon)
        coupons.mark_used(coupon, statement)
    credit_notes.apply_to(statement, statement.credit_notes_applied)
    credits.draw(statement, statement.credit_applied, at)


def _row(statement: Statement, position: int, line: DraftLine) -> StatementLine:
    return StatementLine(
        tenant_id=statement.tenant_id,
        statement=statement,
        position=position,
        kind=line.kind,
        name=line.name,
        subscription_id=line.key.subscription_id,
        key=line.key.text,
        starts_at=line.starts_at,
        ends_at=line.ends_at,
        quantity=str(line.quantity),
        exact_amount=str(line.exact),
        amount=line.amount,
        adjusts=line.adjusts,
        detail=detail_of(line.rated, statement.customer),
    )


def billing_settings(tenant_id: int) -> BillingSettings:
    """Return how a tenant bills: what it set, or the defaults."""
    stored = BillingSettings.objects.filter(tenant_id=tenant_id).first()
    return stored or BillingSettings(tenant_id=tenant_id)


def parties_of(customer: Customer, settings: BillingSettings) -> JsonObject:
    """Return who sends and who gets a statement, to be kept with it."""
    seller_name = settings.legal_name or Tenant.objects.get(id=customer.tenant_id).name
    return {
        "seller": {
            "name": seller_name,
            **{name: getattr(settings, name) for name in ("address", "email", "vat_id")},
        },
        "customer": {
            name: getattr(customer, name)
            for name in ("key", "name", "address", "country", "email", "vat_id")
        },
        "payment_terms_days": customer.payment_terms_days,
    }


def void(tenant_id: int, statement_id: int, *, actor: str) -> Statement:
    """Declare a final statement void. Its period gets a new draft. Raises NotFound and Conflict."""
    with tenant_scope(tenant_id):
        customer_id = find_statement(tenant_id, statement_id).customer_id
        customer = Customer.objects.select_for_update(no_key=True).get(
            tenant_id=tenant_id, id=customer_id
        )
        statement = find_statement(tenant_id, statement_id)
        if statement.state == StatementState.DRAFT:
            raise Conflict("A draft cannot be voided; it changes with what was used.")
        if statement.state == StatementState.FINAL:
            credit_notes.require_no_notes(statement)
            statement.state, statement.voided_at = StatementState.VOID, timezone.now()
            statement.save(update_fields=["state", "voided_at"])
            credit_notes.give_back(statement)
            credits.give_back(statement, actor=actor)
            record_change(
                tenant_id=tenant_id,
                actor=actor,
                action="void",
                subject=statement,
                after={"number": statement.number},
            )
            open_drafts(customer)
    return statement
