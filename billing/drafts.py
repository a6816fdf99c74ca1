"""Drafts: what statements that are not final have on them now. Read within one snapshot.

A draft has the lines of its period, and adjustments: what earlier final statements would charge
today, less what was charged for them.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from django.db.models import Count, Q
from django.utils import timezone

from billing import coupons, credit_notes, credits
from billing.currencies import digits_of
from billing.models import Customer, LineKind, Statement, StatementLine, StatementState
from billing.rating import RatedLine
from billing.statement_lines import (
    CustomerPeriod,
    Inputs,
    LineKey,
    Lines,
    inputs_of,
    period_of,
    periods_of,
)
from billing.totals import (
    Adjusted,
    Billed,
    Coupon,
    TaxRate,
    Totals,
    adjust,
    settle_totals,
    taken_off,
    to_minor,
)
from billing.usage import usage_kept_from

# Statements whose period ended longer ago are not adjusted any more.
ADJUSTED_FOR: Final = timedelta(days=400)
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


@dataclass
class Draft:
    """What a statement would be if it became final now."""

    statement: Statement
    lines: Sequence[DraftLine]
    # What adjustments move, each under the coupon of its own statement, by the statement's id.
    adjusted: Mapping[int, Adjusted]
    totals: Totals
    revision: Revision
    # The start of the earliest period whose usage is in it.
    reads_from: datetime
    # A digest of what its own lines are made of.
    inputs: str

    @property
    def unpriced(self) -> int:
        """How many calls have no cost yet whose cost is charged for."""
        return sum(line.rated.unpriced for line in self.lines if line.rated and not line.adjusts)

    @property
    def coupon_adjustments(self) -> dict[str, int]:
        """What the coupons of adjusted statements take off, by the statement's id."""
        return {
            str(id_): each.coupon_amount
            for id_, each in self.adjusted.items()
            if each.coupon_amount
        }


@dataclass
class _BilledBefore:
    """What final statements charge for the lines of one statement."""

    lines: dict[LineKey, Billed] = field(default_factory=dict)
    voided_at: dict[LineKey, datetime] = field(default_factory=dict)
    quantities: defaultdict[LineKey, Fraction] = field(
        default_factory=lambda: defaultdict(Fraction)
    )
    rows: dict[LineKey, StatementLine] = field(default_factory=dict)

    def add(self, row: StatementLine) -> None:
        """Count a line, after those of earlier statements. One of a void statement charges nothing,
        but was counted by what became final before it was void: that charges the difference to it.
        """
        key = LineKey.read(row.subscription_id, row.key)
        statement = row.statement
        if statement.voided_at is not None:
            if row.amount:
                last = self.voided_at.get(key, statement.voided_at)
                self.voided_at[key] = max(last, statement.voided_at)
            return
        before = self.lines.get(key, Billed(Fraction(0), 0))
        assert statement.finalized_at is not None, "only what is not a draft has lines"
        is_whole = self.voided_at.get(key, statement.finalized_at) <= statement.finalized_at
        exact = Fraction(row.exact_amount) if is_whole else None
        self.lines[key] = Billed(exact, before.minor + row.amount)
        self.quantities[key] += Fraction(row.quantity)
        self.rows[key] = row


def draft_of(statement: Statement) -> Draft:
    """Return what a draft has on it now. Within a snapshot."""
    return drafts_of([statement])[statement.id]


def drafts_of(
    statements: Collection[Statement], *, own_lines: "OwnLines | None" = None
) -> dict[int, Draft]:
    """Return what drafts of one tenant have on them now, by id. Within a snapshot. `own_lines`
    makes the lines of a draft's own period from their inputs; by default all of them, rated now.
    """
    if not statements:
        return {}
    (tenant_id,) = {each.tenant_id for each in statements}
    revisions = revisions_of(tenant_id, {each.customer_id for each in statements})
    adjusted = _adjusted_by(tenant_id, statements)
    earlier = [each for group in adjusted.values() for each in group]
    inputs = inputs_of(tenant_id, periods_of([*statements, *earlier]))
    changed = _changed(tenant_id, earlier, inputs) if earlier else set()
    before = _billed_before(tenant_id, changed) if changed else {}
    coupons_before = _coupons_before(tenant_id, changed) if changed else {}
    payments = payments_of(statements, at=timezone.now())
    drafts: dict[int, Draft] = {}
    for statement in statements:
        currency = statement.customer.currency
        own = inputs[statement.customer_id, period_of(statement)]
        every_line = [*(own_lines or rated_lines)(own, currency)]
        moved: dict[int, Adjusted] = {}
        for each in adjusted[statement.id]:
            if each in changed:
                now = inputs[each.customer_id, period_of(each)].lines()
                further = list(_adjustments(each, before[each.id], now, currency))
                moved[each.id] = _moved(each, before[each.id], further, coupons_before[each.id])
                every_line += further
        drafts[statement.id] = Draft(
            statement,
            every_line,
            moved,
            totals_of(statement, every_line, moved.values(), payments),
            revisions.get(statement.customer_id, (0, 0)),
            min(each.period_start for each in (statement, *adjusted[statement.id])),
            own.digest,
        )
    return drafts


class Payments(NamedTuple):
    """What lowers the amounts of some statements: discounts by statement, the rest by customer."""

    discounts: Mapping[int, coupons.Discount]
    credit_notes: Mapping[int, int]
    credit: Mapping[int, int]


def payments_of(statements: Collection[Statement], *, at: datetime) -> Payments:
    """Return what lowers the amounts of these statements if one of a customer's becomes final at
    this time.
    """
    customer_ids = {each.customer_id for each in statements}
    return Payments(
        coupons.discounts_of(statements, at=at),
        credit_notes.unused_of(customer_ids),
        credits.available_of(customer_ids, at=at),
    )


def totals_of(
    statement: Statement,
    lines: Iterable[DraftLine],
    adjusted: Collection[Adjusted],
    payments: Payments,
) -> Totals:
    """Return what is due for these lines."""
    coupon = payments.discounts.get(statement.id)
    return settle_totals(
        sum(line.amount for line in lines),
        coupon=None if coupon is None else Coupon(coupon.percent, coupon.amount),
        adjusted=adjusted,
        tax_rates=tax_rates_of(statement.customer),
        credit_notes=payments.credit_notes.get(statement.customer_id, 0),
        credit=payments.credit.get(statement.customer_id, 0),
    )


def tax_rates_of(customer: Customer) -> list[TaxRate]:
    """Return the taxes that a customer pays."""
    return [TaxRate(rate["name"], Decimal(rate["percent"])) for rate in customer.tax_rates]


OwnLines = Callable[[Inputs, str], Sequence[DraftLine]]


def rated_lines(inputs: Inputs, currency: str) -> Sequence[DraftLine]:
    """Return the lines of a draft's own period."""
    lines = inputs.lines()
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
    """Yield what final statements charge too little or too much for the lines of this one, and what
    they count too little or too much of where that changes no amount. A void one charges nothing.
    """
    now = {} if statement.state == StatementState.VOID else lines
    exact = {key: line.amount for key, line in now.items()}
    amounts = adjust(before.lines, exact, digits_of(currency))
    for key in dict.fromkeys([*now, *before.lines]):
        line, row = now.get(key), before.rows.get(key)
        source = line or row
        assert source is not None, "what changes is charged now or was before"
        quantity = line.quantity if line is not None else Fraction(0)
        if key not in amounts and quantity == before.quantities[key]:
            continue
        yield DraftLine(
            key=key,
            kind=LineKind.ADJUSTMENT,
            name=source.name,
            starts_at=source.starts_at,
            ends_at=source.ends_at,
            quantity=quantity - before.quantities[key],
            exact=exact.get(key, Fraction(0)),
            amount=amounts.get(key, 0),
            rated=line,
            adjusts=statement,
        )


def _moved(
    statement: Statement, before: _BilledBefore, further: Iterable[DraftLine], taken_before: int
) -> Adjusted:
    """Return what adjustments move of a statement, under its coupon, which takes off what it would
    of all that is charged for the statement then: nothing of a void one.
    """
    amount = sum(line.amount for line in further)
    charged = 0
    if statement.state == StatementState.FINAL:
        charged = sum(line.minor for line in before.lines.values()) + amount
    coupon_amount = taken_off(charged, coupons.coupon_of(statement.coupon))
    return Adjusted(amount, coupon_amount - taken_before)


def _adjusted_by(tenant_id: int, statements: Collection[Statement]) -> dict[int, list[Statement]]:
    """Return which statements each of these drafts adjusts: those that the customer's earliest
    draft after them is. A period whose usage is not kept whole stays as it was charged.
    """
    customer_ids = {each.customer_id for each in statements}
    others = defaultdict(list)
    recent = timezone.now() - ADJUSTED_FOR
    for each in Statement.objects.filter(
        tenant_id=tenant_id,
        customer_id__in=customer_ids,
        period_end__gt=recent,
        period_start__gte=usage_kept_from(tenant_id),
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


def _changed(
    tenant_id: int,
    statements: Sequence[Statement],
    inputs: Mapping[CustomerPeriod, Inputs],
) -> set[Statement]:
    """Return the statements that may need an adjustment: those that have some, and those whose
    lines are made of something else by now. A void one without adjustments charges nothing.
    """
    with_adjustments = set(
        StatementLine.objects.filter(
            tenant_id=tenant_id, adjusts_id__in=[each.id for each in statements]
        )
        .values_list("adjusts_id", flat=True)
        .distinct()
    )
    return {
        each
        for each in statements
        if each.id in with_adjustments
        or (
            each.state == StatementState.FINAL
            and each.inputs != inputs[each.customer_id, period_of(each)].digest
        )
    }


def _billed_before(tenant_id: int, statements: Collection[Statement]) -> dict[int, _BilledBefore]:
    ids = [each.id for each in statements]
    before: defaultdict[int, _BilledBefore] = defaultdict(_BilledBefore)
    rows = StatementLine.objects.filter(
        Q(statement_id__in=ids, adjusts=None) | Q(adjusts_id__in=ids),
        tenant_id=tenant_id,
    ).select_related("statement")
    for row in rows.order_by("statement__sequence", "position"):
        before[row.adjusts_id or row.statement_id].add(row)
    return before


def _coupons_before(tenant_id: int, statements: Collection[Statement]) -> dict[int, int]:
    """Return what the coupon of each of these statements takes off on final statements."""
    taken = {
        each.id: each.coupon_amount - sum(each.coupon_adjustments.values())
        if each.state == StatementState.FINAL
        else 0
        for each in statements
    }
    adjusting = Statement.objects.filter(
        tenant_id=tenant_id,
        customer_id__in={each.customer_id for each in statements},
        state=StatementState.FINAL,
        coupon_adjustments__has_any_keys=[str(id_) for id_ in taken],
    )
    for amounts in adjusting.values_list("coupon_adjustments", flat=True):
        for id_, amount in amounts.items():
            if int(id_) in taken:
                taken[int(id_)] += amount
    return taken


def revisions_of(tenant_id: int, customer_ids: Iterable[int]) -> dict[int, Revision]:
    """Return how many statements of each customer are final, and how many void."""
    counts = (
        Statement.objects.filter(tenant_id=tenant_id, customer_id__in=customer_ids)
        .values("customer_id")
        .annotate(
            final=Count("id", filter=Q(state=StatementState.FINAL)),
            void=Count("id", filter=Q(state=StatementState.VOID)),
        )
    )
    return {each["customer_id"]: (each["final"], each["void"]) for each in counts}
