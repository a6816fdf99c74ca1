"""Statements as they are shown, drafts and final ones alike."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Final, NamedTuple

from billing.currencies import amount_of
from billing.drafts import DraftLine, drafts_of
from billing.line_details import detail_of
from billing.models import Customer, Statement, StatementLine, StatementState
from billing.rate_words import decimal_text
from billing.totals import Tax, Totals
from common.formats import moment

QUANTITY_PLACES: Final = 9


class LineView(NamedTuple):
    """A line as it is shown. The amount is in minor units."""

    name: str
    kind: str
    quantity: str
    amount: int
    rate: str
    starts_at: datetime
    ends_at: datetime
    events_url: str | None
    adjusts: str | None


@dataclass(frozen=True)
class StatementView:
    """A statement with its lines and totals, as of now or as it became final."""

    statement: Statement
    lines: Sequence[LineView]
    totals: Totals
    unpriced: int


def views_of(statements: Sequence[Statement]) -> list[StatementView]:
    """Return statements of one tenant as they are shown. Within a snapshot."""
    drafts = drafts_of([each for each in statements if each.state == StatementState.DRAFT])
    stored = _stored_lines([each for each in statements if each.id not in drafts])
    views = []
    for statement in statements:
        draft = drafts.get(statement.id)
        if draft is None:
            view = StatementView(
                statement,
                [_stored_view(row) for row in stored[statement.id]],
                stored_totals(statement),
                statement.unpriced,
            )
        else:
            lines = [draft_view(line, statement.customer) for line in draft.lines]
            view = StatementView(statement, lines, draft.totals, draft.unpriced)
        views.append(view)
    return views


def _stored_lines(statements: Sequence[Statement]) -> dict[int, list[StatementLine]]:
    lines: defaultdict[int, list[StatementLine]] = defaultdict(list)
    if statements:
        rows = StatementLine.objects.filter(
            tenant_id=statements[0].tenant_id, statement__in=statements
        )
        for row in rows.select_related("adjusts").order_by("statement_id", "position"):
            lines[row.statement_id].append(row)
    return lines


def stored_totals(statement: Statement) -> Totals:
    """Return the totals of a statement that is not a draft."""
    columns = {name: getattr(statement, name) for name in Totals._fields if name != "taxes"}
    taxes = (Tax(each["name"], each["percent"], each["amount"]) for each in statement.taxes)
    return Totals(**columns, taxes=tuple(taxes))


def draft_view(line: DraftLine, customer: Customer) -> LineView:
    """Return a line of a draft as it is shown, and as it is kept once it is final."""
    detail = detail_of(line.rated, customer)
    return LineView(
        name=line.name,
        kind=line.kind,
        quantity=decimal_text(line.quantity, QUANTITY_PLACES),
        amount=line.amount,
        rate=detail["rate"],
        starts_at=line.starts_at,
        ends_at=line.ends_at,
        events_url=detail["events_url"],
        adjusts=None if line.adjusts is None else line.adjusts.number,
    )


def _stored_view(row: StatementLine) -> LineView:
    return LineView(
        name=row.name,
        kind=row.kind,
        quantity=decimal_text(Fraction(row.quantity), QUANTITY_PLACES),
        amount=row.amount,
        rate=row.detail["rate"],
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        events_url=row.detail["events_url"],
        adjusts=None if row.adjusts is None else row.adjusts.number,
    )


def csv_rows(view: StatementView) -> Iterator[Sequence[str]]:
    """Yield the rows of a statement's file: its lines, then its totals."""
    statement, currency = view.statement, view.statement.currency
    yield ("statement", "customer", "line", "kind", "quantity", "rate", "amount", "currency",
           "from", "to", "adjusts")  # fmt: skip
    shared = (statement.number or "draft", statement.customer.key)
    for line in view.lines:
        yield (
            *shared,
            line.name,
            line.kind,
            line.quantity,
            line.rate,
            amount_of(line.amount, currency),
            currency,
            moment(line.starts_at),
            moment(line.ends_at),
            line.adjusts or "",
        )
    period = (moment(statement.period_start), moment(statement.period_end), "")
    for name, amount in total_rows(view.totals):
        yield (*shared, name, "total", "", "", amount_of(amount, currency), currency, *period)


def total_rows(totals: Totals) -> Iterator[tuple[str, int]]:
    """Yield the sums below the lines, in order, each with its name."""
    yield "Subtotal", totals.subtotal
    if totals.coupon_amount:
        yield "Coupon", -totals.coupon_amount
    for tax in totals.taxes:
        yield f"{tax.name} {tax.percent}%", tax.amount
    yield "Total", totals.total
    if totals.credit_notes_applied:
        yield "Credit notes", -totals.credit_notes_applied
    if totals.credit_applied:
        yield "Prepaid credit", -totals.credit_applied
    yield "Amount due", totals.amount_due
