"""Credit notes: what is given back of a final statement, and where it is used."""

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from django.db import transaction
from django.db.models import F, QuerySet, Sum

from billing.models import (
    CreditNote,
    CreditNoteApplication,
    CreditNoteLine,
    SeriesName,
    Statement,
    StatementLine,
    StatementState,
)
from billing.numbers import next_number
from billing.settings import billing_settings
from billing.totals import credit_note_amounts
from billing.wallets import lock_customer
from common.errors import Conflict
from metering.core.validation import Problem, require
from tenants.audit import facts_of, record_change

LINES_MAX: Final = 1_000
NOTES_MAX: Final = 1_000
NUMBER_DIGITS: Final = 6


class LineAmount(NamedTuple):
    """What is given back of a line, before tax."""

    position: int
    amount: int


class _Tax(NamedTuple):
    name: str
    percent: str
    amount: int


@transaction.atomic
def create_credit_note(
    statement: Statement,
    *,
    actor: str,
    reason: str,
    amount: int | None = None,
    lines: Sequence[LineAmount] = (),
) -> CreditNote:
    """Give back a net amount of a final statement, of some of its lines, or all that is left, with
    the tax on it. Later statements of the customer use it.

    Invariant: the notes of a statement never come to more than the statement, and for all of it
    come to exactly its total. Numbers have no gaps: the series' row is locked until commit.

    Raises Conflict for a statement that is no longer, or not yet, final, and ValidationError.
    """
    lock_customer(statement.customer_id)
    statement = Statement.objects.select_for_update().get(id=statement.id)
    if statement.state != StatementState.FINAL:
        raise Conflict(f"The statement is {statement.get_state_display().lower()}, not final.")
    earlier = list(CreditNote.objects.filter(statement=statement))
    if len(earlier) >= NOTES_MAX:
        raise Conflict(f"The statement has {NOTES_MAX:,} credit notes already.")
    left = statement.taxable - sum(note.net for note in earlier)
    _require_lines(statement, lines)
    net = sum(line.amount for line in lines) if lines else left if amount is None else amount
    field = "lines" if lines else "amount"
    if left <= 0:
        raise Conflict("Nothing of the statement is left to give back.")
    if not 0 < net <= left:
        require([Problem(field, "Give more than 0, and no more than is left of the statement.")])
    taxes = _taxes(statement, earlier, net)
    total = net + sum(tax.amount for tax in taxes)
    note = _store(statement, actor=actor, reason=reason, net=net, taxes=taxes, total=total)
    CreditNoteLine.objects.bulk_create(
        CreditNoteLine(tenant_id=note.tenant_id, credit_note=note, **line._asdict())
        for line in lines
    )
    record_change(
        tenant_id=note.tenant_id, actor=actor, action="create", subject=note, after=facts_of(note)
    )
    return note


def _require_lines(statement: Statement, lines: Sequence[LineAmount]) -> None:
    """Judge what is given back of lines: of each, no more than it is, all notes together."""
    if len({line.position for line in lines}) < len(lines):
        require([Problem("lines", "A line is named twice.")])
    amounts: Mapping[int, int] = dict(
        StatementLine.objects.filter(statement=statement).values_list("position", "amount")
    )
    given = dict(
        CreditNoteLine.objects.filter(credit_note__statement=statement)
        .values("position")
        .annotate(given=Sum("amount"))
        .values_list("position", "given")
    )
    for index, line in enumerate(lines):
        left = amounts.get(line.position, 0) - given.get(line.position, 0)
        if not 0 < line.amount <= left:
            message = "Give more than 0, and no more than is left of the line."
            require([Problem(f"lines.{index}.amount", message)])


def _taxes(statement: Statement, earlier: Sequence[CreditNote], net: int) -> list[_Tax]:
    """Return the tax on a net amount at each rate of the statement, next to earlier notes."""
    net_before = sum(note.net for note in earlier)
    taxes = []
    for index, rate in enumerate(statement.taxes):
        tax_before = sum(note.taxes[index]["amount"] for note in earlier)
        amounts = credit_note_amounts(net_before, tax_before, net, Decimal(rate["percent"]))
        taxes.append(_Tax(rate["name"], rate["percent"], amounts.tax))
    return taxes


def _store(
    statement: Statement, *, actor: str, reason: str, net: int, taxes: Sequence[_Tax], total: int
) -> CreditNote:
    sequence = next_number(statement.tenant_id, SeriesName.CREDIT_NOTE)
    prefix = billing_settings(statement.tenant_id).credit_note_prefix
    return CreditNote.objects.create(
        tenant_id=statement.tenant_id,
        statement=statement,
        sequence=sequence,
        number=f"{prefix}{sequence:0{NUMBER_DIGITS}}",
        reason=reason,
        net=net,
        taxes=[tax._asdict() for tax in taxes],
        total=total,
        unused=total,
        actor=actor[:300],
    )


def unused(customer_id: int) -> int:
    """Return what a customer's credit notes have left, in minor units."""
    return unused_of([customer_id]).get(customer_id, 0)


def unused_of(customer_ids: Collection[int]) -> dict[int, int]:
    """Return what the credit notes of each of these customers have left, if anything."""
    sums = (
        _usable(customer_ids)
        .values("statement__customer_id")
        .annotate(sum=Sum("unused"))
        .values_list("statement__customer_id", "sum")
    )
    return dict(sums)


@transaction.atomic
def apply_to(statement: Statement, amount: int) -> None:
    """Use the customer's credit notes for a statement, the oldest first. The amount is at most what
    is `unused` under the customer's lock, which the caller holds.
    """
    assert amount >= 0, "a statement uses credit notes; voiding it gives them back"
    notes = _usable([statement.customer_id]).order_by("sequence")
    for note in notes.select_for_update(of=("self",)):
        part = min(amount, note.unused)
        if part:
            _use(note, statement, part)
            amount -= part
    assert amount == 0, "no more than is unused"


@transaction.atomic
def give_back(statement: Statement) -> int:
    """Let a void statement use no credit notes; return what they have back. A second call returns
    nothing.
    """
    lock_customer(statement.customer_id)
    used = (
        CreditNoteApplication.objects.filter(statement=statement)
        .values("credit_note")
        .annotate(used=Sum("amount"))
        .values_list("credit_note", "used")
    )
    given_back = 0
    for note_id, amount in used:
        if amount:
            _use(CreditNote.objects.select_for_update().get(id=note_id), statement, -amount)
            given_back += amount
    return given_back


def require_no_notes(statement: Statement) -> None:
    """Raise Conflict for a statement that has credit notes, which would be worth nothing if it were
    void.
    """
    if CreditNote.objects.filter(statement=statement).exists():
        raise Conflict("The statement has credit notes; it cannot be voided any more.")


def _usable(customer_ids: Collection[int]) -> QuerySet[CreditNote]:
    return CreditNote.objects.filter(statement__customer_id__in=customer_ids, unused__gt=0).exclude(
        statement__state=StatementState.VOID
    )


def _use(note: CreditNote, statement: Statement, amount: int) -> None:
    CreditNoteApplication.objects.create(
        tenant_id=note.tenant_id, credit_note=note, statement=statement, amount=amount
    )
    CreditNote.objects.filter(id=note.id).update(unused=F("unused") - amount)
