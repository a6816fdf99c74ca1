"""What final statements charge for, against the usage of now.

A statement's line, together with the adjustments of it on later final statements, is what was
billed for it. What is more by now is late usage: the next statement adjusts it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

from django.db.models import Q

from billing.models import LineKind, Statement, StatementLine, StatementState
from billing.rate_words import decimal_text
from billing.rating import RatedLine
from billing.reconciliation.results import USD, Difference, KindResult
from billing.statement_lines import LineKey, lines_of, period_of, periods_of
from billing.terms import Metric, UsageCharge
from metering.calls.seals import read_sealed

PLACES: Final = 9
NOTHING: Final = Fraction(0)
AMOUNT_DIFFERS: Final = "The quantity agrees; the amount does not."


class BilledLine(NamedTuple):
    """What was billed for a line so far: its quantity and exact amount."""

    name: str
    kind: str
    quantity: Fraction = NOTHING
    exact: Fraction = NOTHING


Billed = Mapping[LineKey, BilledLine]


def final_statements(
    tenant_id: int, first: date, last: date, *, after: int, limit: int
) -> list[Statement]:
    """Return final statements whose periods these days touch, after an id."""
    begin, end = (datetime.combine(day, time(), UTC) for day in (first, last + timedelta(days=1)))
    statements = Statement.objects.filter(
        tenant_id=tenant_id,
        state=StatementState.FINAL,
        period_start__lt=end,
        period_end__gt=begin,
        id__gt=after,
    )
    return list(statements.order_by("id")[:limit])


def compare_statements(
    tenant_id: int, statements: Sequence[Statement], result: KindResult
) -> Iterator[Difference]:
    """Yield what differs between these statements and usage, and count everything in the result.
    Within a snapshot.
    """
    kept_from = read_sealed(tenant_id).sealed_until
    kept = [each for each in statements if each.period_start >= kept_from]
    result.skipped += len(statements) - len(kept)
    billed = _billed(tenant_id, kept)
    lines = lines_of(tenant_id, periods_of(kept))
    for statement in kept:
        now = lines[statement.customer_id, period_of(statement)]
        before = billed.get(statement.id, {})
        for key in dict.fromkeys([*before, *now]):
            result.compared += 1
            yield from _compare_line(statement, before.get(key), now.get(key), result)


def _billed(tenant_id: int, statements: Collection[Statement]) -> dict[int, Billed]:
    """Return what final statements charge for the lines of these, by the statement's id."""
    billed: defaultdict[int, dict[LineKey, BilledLine]] = defaultdict(dict)
    rows = StatementLine.objects.filter(
        Q(statement__in=statements, adjusts=None) | Q(adjusts__in=statements),
        tenant_id=tenant_id,
        statement__state=StatementState.FINAL,
    )
    for row in rows.order_by("statement__sequence", "position"):
        lines = billed[row.adjusts_id or row.statement_id]
        key = LineKey.read(row.subscription_id, row.key)
        before = lines.get(key, BilledLine(row.name, row.kind))
        # An adjustment has the quantity that was added, and the amount that is charged in all.
        lines[key] = before._replace(
            quantity=before.quantity + Fraction(row.quantity), exact=Fraction(row.exact_amount)
        )
    return dict(billed)


def _compare_line(
    statement: Statement, billed: BilledLine | None, now: RatedLine | None, result: KindResult
) -> Iterator[Difference]:
    """Yield the difference of a line: of its quantity, or of its amount where that agrees."""
    name = now.name if now is not None else billed.name if billed is not None else ""
    was = billed or BilledLine(name, "")
    expected = _figure(now.amount if now is not None else NOTHING)
    charged = _figure(was.exact)
    result.add(statement.currency, expected=expected, found=charged)
    is_usage = (now.kind.value if now is not None else was.kind) in (
        LineKind.USAGE,
        LineKind.ADJUSTMENT,
    )
    quantity = _figure(now.quantity if now is not None else NOTHING)
    if is_usage and quantity != _figure(was.quantity):
        yield Difference(
            unit=_unit(now),
            expected=quantity,
            found=_figure(was.quantity),
            statement_id=statement.id,
            line=name,
            note=f"Billed {charged:f} {statement.currency} of {expected:f}."
            if charged != expected
            else "",
        )
    elif charged != expected:
        yield Difference(
            unit=statement.currency,
            expected=expected,
            found=charged,
            statement_id=statement.id,
            line=name,
            note=AMOUNT_DIFFERS if is_usage else "",
        )


def _figure(value: Fraction) -> Decimal:
    return Decimal(decimal_text(value, PLACES))


def _unit(line: RatedLine | None) -> str:
    """Return what a line counts. A cost is the provider's, in dollars."""
    if line is None or not isinstance(line.charge, UsageCharge):
        return "units"
    return USD if line.charge.metric == Metric.COST else line.charge.metric.value
