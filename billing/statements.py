"""Statements: what a draft has on it now, and how it becomes final or void.

A draft is computed in one snapshot. What is final is written in another transaction, under the
customer's lock, from a draft that no other final statement has overtaken. Usage that is
acknowledged in between is an adjustment of the next statement, as all that comes late.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.models import Count, Q
from django.utils import timezone

from billing.currencies import digits_of
from billing.drafts import open_drafts
from billing.line_details import detail_of
from billing.models import (
    BillingSettings,
    Customer,
    LineKind,
    SeriesName,
    Statement,
    StatementLine,
    StatementState,
)
from billing.rating import RatedLine
from billing.statement_lines import LineKey, Lines, lines_of, period_of, periods_of
from billing.totals import Billed, TaxRate, Totals, adjust, settle_totals, to_minor
from common.errors import Conflict, NotFound
from common.json_bodies import JsonObject
from tenants.audit import record_change
from tenants.models import Tenant
from tenants.scope import tenant_scope

# Statements whose period ended longer ago are not adjusted any more.
ADJUSTED_FOR: Final = timedelta(days=400)
ATTEMPTS: Final = 5
NUMBER_DIGITS: Final = 6

# How many statements of a customer are final, and how many void: what a draft has been computed
# beside.
Revision = tuple[int, int]


class DraftLine(NamedTuple):
    """A line of a statement that is not final yet. `rated` is the line as it is rated now; None in
    an adjustment of what is not charged any more.
    """

    key: LineKey
    kind: str
    name: str
    starts_at: datetime
    ends_at: datetime
    quantity: Fraction
    exact: Fraction
    amount: int
    rated: RatedLine | None
    adjusts: Statement | None = None


@dataclass(frozen=True)
class Draft:
    """What a statement would be if it became final now."""

    statement: Statement
    lines: Sequence[DraftLine]
    totals: Totals
    revision: Revision

    @property
    def unpriced(self) -> int:
        """How many calls have no cost yet whose cost is charged for."""
        return sum(line.rated.unpriced for line in self.lines if line.rated and not line.adjusts)


@dataclass
class _BilledBefore:
    """What final statements charge for the lines of one statement."""

    lines: dict[LineKey, Billed] = field(default_factory=dict)
    quantities: defaultdict[LineKey, Fraction] = field(
        default_factory=lambda: defaultdict(Fraction)
    )
    rows: dict[LineKey, StatementLine] = field(default_factory=dict)

    def add(self, row: StatementLine) -> None:
        """Count a line, after those of earlier statements."""
        key = LineKey.read(row.subscription_id, row.key)
        before = self.lines.get(key, Billed(Fraction(0), 0))
        self.lines[key] = Billed(Fraction(row.exact_amount), before.minor + row.amount)
        self.quantities[key] += Fraction(row.quantity)
        self.rows[key] = row


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


def draft_of(statement: Statement) -> Draft:
    """Return what a draft has on it now. Within a snapshot."""
    return drafts_of([statement])[statement.id]


def drafts_of(statements: Collection[Statement]) -> dict[int, Draft]:
    """Return what drafts of one tenant have on them now, by id. Within a snapshot."""
    if not statements:
        return {}
    (tenant_id,) = {each.tenant_id for each in statements}
    revisions = _revisions(tenant_id, {each.customer_id for each in statements})
    adjusted = _adjusted_by(tenant_id, statements)
    earlier = [each for group in adjusted.values() for each in group]
    before = _billed_before(tenant_id, earlier)
    lines = lines_of(tenant_id, periods_of([*statements, *earlier]))
    drafts: dict[int, Draft] = {}
    for statement in statements:
        customer = statement.customer
        own = _own_lines(lines[statement.customer_id, period_of(statement)], customer.currency)
        adjustments = [
            line
            for each in adjusted[statement.id]
            for line in _adjustments(
                each, before[each.id], lines[each.customer_id, period_of(each)], customer.currency
            )
        ]
        every_line = [*own, *adjustments]
        drafts[statement.id] = Draft(
            statement,
            every_line,
            _totals(statement, sum(line.amount for line in every_line)),
            revisions.get(statement.customer_id, (0, 0)),
        )
    return drafts


def _totals(statement: Statement, subtotal: int) -> Totals:
    return settle_totals(subtotal, tax_rates=tax_rates_of(statement.customer))


def tax_rates_of(customer: Customer) -> list[TaxRate]:
    """Return the taxes that a customer pays."""
    return [TaxRate(rate["name"], Decimal(rate["percent"])) for rate in customer.tax_rates]


def _own_lines(lines: Lines, currency: str) -> list[DraftLine]:
    amounts = to_minor([line.amount for line in lines.values()], digits_of(currency))
    return [
        DraftLine(
            key=key,
            kind=line.kind.value,
            name=line.name,
            starts_at=line.starts_at,
            ends_at=line.ends_at,
            quantity=line.quantity,
            exact=line.amount,
            amount=amount,
            rated=line,
        )
        for (key, line), amount in zip(lines.items(), amounts, strict=True)
    ]


def _adjustments(
    statement: Statement, before: _BilledBefore, lines: Lines, currency: str
) -> Iterator[DraftLine]:
    """Yield what final statements charge too little or too much for the lines of this one. A void
    one charges nothing.
    """
    now = {} if statement.state == StatementState.VOID else lines
    exact = {key: line.amount for key, line in now.items()}
    for key, amount in adjust(before.lines, exact, digits_of(currency)).items():
        line, row = now.get(key), before.rows.get(key)
        source = line or row
        assert source is not None, "what changes is charged now or was before"
        quantity = line.quantity if line is not None else Fraction(0)
        yield DraftLine(
            key=key,
            kind=LineKind.ADJUSTMENT,
            name=source.name,
            starts_at=source.starts_at,
            ends_at=source.ends_at,
            quantity=quantity - before.quantities[key],
            exact=exact.get(key, Fraction(0)),
            amount=amount,
            rated=line,
            adjusts=statement,
        )


def _adjusted_by(tenant_id: int, statements: Collection[Statement]) -> dict[int, list[Statement]]:
    """Return which statements each of these drafts adjusts: those that the customer's earliest
    draft after them is.
    """
    customer_ids = {each.customer_id for each in statements}
    others = defaultdict(list)
    recent = timezone.now() - ADJUSTED_FOR
    for each in Statement.objects.filter(
        tenant_id=tenant_id, customer_id__in=customer_ids, period_end__gt=recent
    ).order_by("period_start", "id"):
        others[each.customer_id].append(each)
    adjusted: dict[int, list[Statement]] = {each.id: [] for each in statements}
    for siblings in others.values():
        drafts = [each for each in siblings if each.state == StatementState.DRAFT]
        for each in siblings:
            after = [draft for draft in drafts if draft.period_start >= each.period_end]
            if each.state != StatementState.DRAFT and after and after[0].id in adjusted:
                adjusted[after[0].id].append(each)
    return adjusted


def _billed_before(tenant_id: int, statements: Sequence[Statement]) -> dict[int, _BilledBefore]:
    ids = [each.id for each in statements]
    before: defaultdict[int, _BilledBefore] = defaultdict(_BilledBefore)
    rows = StatementLine.objects.filter(
        Q(statement_id__in=ids, adjusts=None) | Q(adjusts_id__in=ids),
        tenant_id=tenant_id,
        statement__state=StatementState.FINAL,
    )
    for row in rows.order_by("statement__sequence", "position"):
        before[row.adjusts_id or row.statement_id].add(row)
    return before


def _revisions(tenant_id: int, customer_ids: Iterable[int]) -> dict[int, Revision]:
    counts = (
        Statement.objects.filter(tenant_id=tenant_id, customer_id__in=customer_ids)
        .values("customer_id")
        .annotate(
            final=Count("id", filter=Q(state=StatementState.FINAL)),
            void=Count("id", filter=Q(state=StatementState.VOID)),
        )
    )
    return {each["customer_id"]: (each["final"], each["void"]) for each in counts}


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
        revision = _revisions(tenant_id, [customer.id]).get(customer.id, (0, 0))
        if revision != draft.revision:
            return None
        _write(statement, draft, actor=actor)
        open_drafts(customer)
    return statement


def _write(statement: Statement, draft: Draft, *, actor: str) -> None:
    now = timezone.now()
    customer = statement.customer
    totals = _totals(statement, draft.totals.subtotal)
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


def next_number(tenant_id: int, series: SeriesName) -> int:
    """Take the next number of a series. Whoever asks after this waits for this transaction, so a
    number that is not used in the end is given to the next.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO billing_series (tenant_id, name, last) VALUES (%s, %s, 1)"
            " ON CONFLICT (tenant_id, name) DO UPDATE SET last = billing_series.last + 1"
            " RETURNING last",
            [tenant_id, series.value],
        )
        (number,) = cursor.fetchone()
    return int(number)


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
            statement.state, statement.voided_at = StatementState.VOID, timezone.now()
            statement.save(update_fields=["state", "voided_at"])
            record_change(
                tenant_id=tenant_id,
                actor=actor,
                action="void",
                subject=statement,
                after={"number": statement.number},
            )
            open_drafts(customer)
    return statement
