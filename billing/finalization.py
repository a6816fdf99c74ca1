"""How drafts become final: written in one short transaction from what a snapshot had of them.

Locks, in this order: the customers' rows by id, their credit, and last the series of numbers, for
which all other finalizations of the tenant wait until commit.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
from django.db import connection
from django.utils import timezone

from billing import coupons, credit_notes, credits
from billing.credit_expiry import settle_ended_calls
from billing.drafts import Draft, DraftLine, Payments, payments_of, revisions_of, totals_of
from billing.line_details import detail_of
from billing.models import (
    BillingSettings,
    Customer,
    SeriesName,
    Statement,
    StatementState,
    Subscription,
)
from billing.numbers import next_number
from billing.settings import billing_settings
from billing.statement_periods import open_drafts_of
from billing.usage import usage_kept_from
from common.errors import Conflict
from common.json_bodies import JsonObject
from tenants.audit import record_changes
from tenants.models import Tenant
from tenants.scope import tenant_scope

NUMBER_DIGITS: Final = 6
# What a bigint holds.
MINOR_UNITS_MAX: Final = 2**63 - 1
# What a draft has from its first day on; all else it gets when it becomes final.
_OF_DRAFTS: Final = (
    *("id", "tenant_id", "customer_id", "period_start", "period_end", "timezone", "currency"),
    "created_at",
)
_GETS: Final = tuple(
    field.attname for field in Statement._meta.concrete_fields if field.attname not in _OF_DRAFTS
)
# One parameter for all rows; the server takes them apart faster than it takes parameters.
_UPDATE_STATEMENTS: Final = f"""
    UPDATE statement SET {", ".join(f"{name} = final.{name}" for name in _GETS)}
    FROM jsonb_populate_recordset(NULL::statement, %s::jsonb) AS final
    WHERE statement.id = final.id
"""
_INSERT_LINES: Final = """
    INSERT INTO statement_line (tenant_id, statement_id, position, kind, name, subscription_id, key,
        starts_at, ends_at, quantity, exact_amount, amount, adjusts_id, detail)
    SELECT * FROM json_to_recordset(%s::json) AS line (tenant_id bigint, statement_id bigint,
        position integer, kind text, name text, subscription_id bigint, key text,
        starts_at timestamptz, ends_at timestamptz, quantity text, exact_amount text, amount bigint,
        adjusts_id bigint, detail jsonb)
"""


def write_final(drafts: Sequence[Draft], *, actor: str) -> list[Statement]:
    """Make the statements of these drafts final, all or none; return those that now are. The drafts
    are of one tenant, and no two of one customer.

    Raises Conflict for amounts that a column does not hold.

    Left out is a draft that was overtaken since it was computed: its statement is no draft any
    more, other statements of its customer became final or void, usage that it read was frozen, or a
    subscription that it charges for was removed.
    """
    if not drafts:
        return []
    tenant_id = drafts[0].statement.tenant_id
    customer_ids = [draft.statement.customer_id for draft in drafts]
    settle_ended_calls(tenant_id=tenant_id, customer_ids=customer_ids)
    with tenant_scope(tenant_id):
        customers = _locked_customers(tenant_id, drafts)
        current = list(_not_overtaken(tenant_id, drafts, customers))
        if not current:
            return []
        now = timezone.now()
        payments = payments_of([draft.statement for draft in current], at=now)
        settings = billing_settings(tenant_id)
        seller = seller_of(settings)
        for draft in current:
            _fill(draft, payments, at=now, actor=actor)
            draft.statement.parties = parties_of(draft.statement.customer, settings, seller)
        _insert_lines(current)
        # What refers to other rows is checked now, while no one waits for a number.
        connection.check_constraints()
        for draft in current:
            _use_credit(draft.statement, payments.discounts.get(draft.statement.id), at=now)
        _number(tenant_id, current, settings.statement_prefix, actor=actor)
        open_drafts_of([draft.statement.customer for draft in current])
    return [draft.statement for draft in current]


def _locked_customers(tenant_id: int, drafts: Iterable[Draft]) -> dict[int, Customer]:
    ids = [draft.statement.customer_id for draft in drafts]
    customers = Customer.objects.select_for_update(no_key=True).filter(
        tenant_id=tenant_id, id__in=ids
    )
    return {customer.id: customer for customer in customers.order_by("id")}


def _not_overtaken(
    tenant_id: int, drafts: Sequence[Draft], customers: dict[int, Customer]
) -> Iterable[Draft]:
    """Yield the drafts that are still current, each with its statement and customer as stored."""
    statements = Statement.objects.in_bulk([draft.statement.id for draft in drafts])
    revisions = revisions_of(tenant_id, customers)
    kept_from = usage_kept_from(tenant_id)
    charged = {draft.statement.id: _subscriptions_of(draft) for draft in drafts}
    ids = set().union(*charged.values())
    stored = set(Subscription.objects.filter(id__in=ids).values_list("id", flat=True))
    for draft in drafts:
        statement = statements.get(draft.statement.id)
        if (
            statement is None
            or statement.state != StatementState.DRAFT
            or revisions.get(statement.customer_id, (0, 0)) != draft.revision
            or draft.reads_from < kept_from
            or not charged[draft.statement.id] <= stored
        ):
            continue
        statement.customer = customers[statement.customer_id]
        draft.statement = statement
        yield draft


def _subscriptions_of(draft: Draft) -> set[int]:
    return {line.key.subscription_id for line in draft.lines}


def _fill(draft: Draft, payments: Payments, *, at: datetime, actor: str) -> None:
    statement, customer = draft.statement, draft.statement.customer
    totals = totals_of(statement, draft.lines, draft.adjusted.values(), payments)
    amounts = (totals.subtotal, totals.total, *(line.amount for line in draft.lines))
    if max(map(abs, amounts)) > MINOR_UNITS_MAX:
        raise Conflict("The amounts are too large to be kept. Look at the prices of the plan.")
    local = at.astimezone(ZoneInfo(statement.timezone))
    statement.state, statement.held_until = StatementState.FINAL, None
    statement.finalized_at, statement.finalized_by = at, actor[:300]
    statement.due_on = local.date() + timedelta(days=customer.payment_terms_days)
    statement.unpriced, statement.inputs = draft.unpriced, draft.inputs
    statement.coupon_adjustments = draft.coupon_adjustments
    statement.taxes = [
        {"name": tax.name, "percent": f"{tax.percent:f}", "amount": tax.amount}
        for tax in totals.taxes
    ]
    for name, amount in totals._asdict().items():
        if name != "taxes":
            setattr(statement, name, amount)


def _use_credit(statement: Statement, discount: coupons.Discount | None, *, at: datetime) -> None:
    """Count what the statement was paid with as used."""
    if discount is not None:
        statement.coupon = coupons.discount_facts(discount)
        coupons.mark_used(discount, statement)
    if statement.credit_notes_applied:
        credit_notes.apply_to(statement, statement.credit_notes_applied)
    if statement.credit_applied:
        credits.draw(statement, statement.credit_applied, at)


def _insert_lines(drafts: Iterable[Draft]) -> None:
    _send(
        _INSERT_LINES,
        [
            _row(draft.statement, position, line)
            for draft in drafts
            for position, line in enumerate(draft.lines, 1)
        ],
    )


def _send(statement: str, rows: Sequence[JsonObject]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, [msgspec.json.encode(rows).decode()])


def _row(statement: Statement, position: int, line: DraftLine) -> JsonObject:
    return {
        "tenant_id": statement.tenant_id,
        "statement_id": statement.id,
        "position": position,
        "kind": line.kind,
        "name": line.name,
        "subscription_id": line.key.subscription_id,
        "key": line.key.text,
        "starts_at": line.starts_at,
        "ends_at": line.ends_at,
        "quantity": str(line.quantity),
        "exact_amount": str(line.exact),
        "amount": line.amount,
        "adjusts_id": None if line.adjusts is None else line.adjusts.id,
        "detail": detail_of(line.rated, statement.customer),
    }


def _number(tenant_id: int, drafts: Sequence[Draft], prefix: str, *, actor: str) -> None:
    """Give the statements their numbers and store them. Nothing but the next drafts comes after,
    because everyone who takes a number waits until this transaction ends.
    """
    last = next_number(tenant_id, SeriesName.STATEMENT, count=len(drafts))
    statements = [draft.statement for draft in drafts]
    for sequence, statement in enumerate(statements, last - len(statements) + 1):
        statement.sequence = sequence
        statement.number = f"{prefix}{sequence:0{NUMBER_DIGITS}}"
    names = ("id", *_GETS)
    _send(
        _UPDATE_STATEMENTS, [{name: getattr(each, name) for name in names} for each in statements]
    )
    record_changes(
        tenant_id=tenant_id,
        actor=actor,
        action="finalize",
        after={each: {"number": each.number, "total": each.total} for each in statements},
    )


def seller_of(settings: BillingSettings) -> JsonObject:
    """Return who sends a tenant's statements."""
    name = settings.legal_name or Tenant.objects.get(id=settings.tenant_id).name
    return {
        "name": name,
        **{name: getattr(settings, name) for name in ("address", "email", "vat_id")},
    }


def parties_of(
    customer: Customer, settings: BillingSettings, seller: JsonObject | None = None
) -> JsonObject:
    """Return who sends and who gets a statement, to be kept with it."""
    return {
        "seller": seller or seller_of(settings),
        "customer": {
            name: getattr(customer, name)
            for name in ("key", "name", "address", "country", "email", "vat_id")
        },
        "payment_terms_days": customer.payment_terms_days,
    }
