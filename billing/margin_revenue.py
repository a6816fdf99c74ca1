"""What customers are charged, net of coupons and credit notes and before taxes, by month, plan and
feature.

A line's amount belongs to the calendar months in the statement's zone that it covers; an
adjustment therefore to the months that it corrects.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

from django.db.models import Q, QuerySet
from django.utils import timezone

from billing.charge_models import NOTHING
from billing.drafts import DraftLine, drafts_of, rated_lines
from billing.margin_months import month_begin, next_month, split, spread
from billing.models import (
    CreditNote,
    LineKind,
    PlanVersion,
    Statement,
    StatementLine,
    StatementState,
    Subscription,
)
from billing.plans import terms_of
from billing.statement_lines import Inputs, LineKey
from billing.terms import UsageCharge
from common.bounded_memory import BoundedMemory
from metering.core.periods import EPOCH
from metering.reporting.question import InvalidQuestion

FEATURE: Final = "feature"
# A month in some zone begins so long before or after it does in UTC.
ZONES_APART: Final = timedelta(hours=14)
# Drafts are rated when they are read; this number takes some seconds.
DRAFTS_MAX: Final = 2_000
LINES_MAX: Final = 200_000
# Lines of drafts by currency and digest of what they come from, so that a draft without further
# usage is not rated again. Half of the memory keeps all that an answer needs; a hundred lines are
# some 25 KB.
_CHARGED_BEFORE: Final = BoundedMemory[tuple[str, str], Sequence[DraftLine]](2 * DRAFTS_MAX)


class Charged(NamedTuple):
    """A line of a statement, in minor units, with what says what it is for."""

    statement: Statement
    key: LineKey
    starts_at: datetime
    ends_at: datetime
    amount: int


class Revenue(NamedTuple):
    """An amount of a customer for a month. `features` are those that a charge names; None: it
    names none, and is for all that was used.
    """

    customer_id: int
    subscription_id: int
    month: date
    amount: int
    features: tuple[str, ...] | None
    is_draft: bool


def read_revenue(
    tenant_id: int,
    first: date,
    last: date,
    *,
    with_drafts: bool = True,
    customer_ids: Collection[int] | None = None,
) -> Iterator[Revenue]:
    """Yield what is charged for these months to these customers; None: to all. Within a
    snapshot.
    """
    whose = Q() if customer_ids is None else Q(customer_id__in=customer_ids)
    statements = Statement.objects.filter(whose, tenant_id=tenant_id)
    begin = month_begin(first) - ZONES_APART
    end = month_begin(next_month(last)) + ZONES_APART
    lines = list(_final_lines(tenant_id, statements, begin, end))
    if with_drafts:
        lines += _draft_lines(statements, first, begin, end)
    features = _Features(tenant_id, {line.key.subscription_id for line in lines})
    for line in lines:
        named = features.of(line)
        parts = spread(line.amount, line.starts_at, line.ends_at, line.statement.timezone)
        for month, amount in parts:
            if first <= month <= last:
                yield Revenue(
                    line.statement.customer_id,
                    line.key.subscription_id,
                    month,
                    amount,
                    named,
                    line.statement.state == StatementState.DRAFT,
                )


def _final_lines(
    tenant_id: int, statements: QuerySet[Statement], begin: datetime, end: datetime
) -> Iterator[Charged]:
    """Yield the lines of every final statement that has a line in this time: all of them, since a
    coupon is of all of them.
    """
    final = statements.filter(state=StatementState.FINAL)
    own = StatementLine.objects.filter(tenant_id=tenant_id, statement__in=final)
    inside = own.filter(starts_at__lt=end, ends_at__gte=begin)
    rows = (
        own.filter(statement__in=inside.values("statement_id"))
        .select_related("statement")
        .order_by("statement_id", "position")
    )
    if rows.count() > LINES_MAX:
        raise InvalidQuestion(
            "range_too_long", f"The statements have more than {LINES_MAX:,} lines; ask for less."
        )
    by_statement: defaultdict[int, list[StatementLine]] = defaultdict(list)
    for row in rows:
        by_statement[row.statement_id].append(row)
    notes = _given_back(tenant_id, list(by_statement))
    for statement_id, of_statement in by_statement.items():
        statement, note = of_statement[0].statement, notes[statement_id]
        # What a note gives back of lines is before the coupon, whose part it takes back.
        coupon = statement.coupon_amount - (sum(note.lines.values()) - note.net)
        amounts = _net(
            [row.amount - note.lines[row.position] for row in of_statement],
            [row.adjusts_id is not None for row in of_statement],
            coupon,
            sum(statement.coupon_adjustments.values()),
        )
        for row, amount in zip(of_statement, amounts, strict=True):
            key = LineKey.read(row.subscription_id, row.key)
            yield Charged(statement, key, row.starts_at, row.ends_at, amount)


def _draft_lines(
    statements: QuerySet[Statement], first: date, begin: datetime, end: datetime
) -> Iterator[Charged]:
    """Yield the lines of drafts: those of this time, and later ones, which may adjust it. A period
    that ended before the first month, in its own zone, has none.
    """
    drafts_then = statements.filter(state=StatementState.DRAFT, period_end__gt=begin)
    rows = drafts_then.select_related("customer")
    drafts = list(rows.order_by("id")[: DRAFTS_MAX + 1])
    if len(drafts) > DRAFTS_MAX:
        raise InvalidQuestion(
            "too_many_drafts",
            f"There are more than {DRAFTS_MAX:,} drafts to rate: ask with drafts=false for what is"
            " final.",
        )
    now = timezone.now()
    drafts = [each for each in drafts if each.period_end > month_begin(first, each.timezone)]
    for draft in drafts_of(drafts, own_lines=_charged_lines).values():
        amounts = _net(
            [line.amount for line in draft.lines],
            [line.adjusts is not None for line in draft.lines],
            draft.totals.coupon_amount,
            sum(draft.coupon_adjustments.values()),
        )
        for line, amount in zip(draft.lines, amounts, strict=True):
            if line.starts_at < end:
                # What was used so far is not of months that are still to come.
                is_running = line.kind == LineKind.USAGE and line.starts_at < now
                ends_at = min(line.ends_at, now) if is_running else line.ends_at
                yield Charged(draft.statement, line.key, line.starts_at, ends_at, amount)


def _charged_lines(inputs: Inputs, currency: str) -> Sequence[DraftLine]:
    """Return the lines of a draft's own period that charge something, or one that says that none
    does. They are rated only if they come from something else than the last time.
    """
    key = (currency, inputs.digest)
    lines = _CHARGED_BEFORE.get(key)
    if lines is None:
        rated = rated_lines(inputs, currency)
        charged = [line for line in rated if line.amount] or rated[:1]
        # What explains them is not asked for here, and is most of their size.
        lines = [line._replace(rated=None, quantity=NOTHING, exact=NOTHING) for line in charged]
        _CHARGED_BEFORE.keep(key, lines)
    return lines


def forget_drafts() -> None:
    """Forget what drafts came to."""
    _CHARGED_BEFORE.forget_all()


class _Notes(NamedTuple):
    """What credit notes give back: of lines by position before the coupon, and in all after it."""

    lines: Counter[int]
    net: int


def _given_back(tenant_id: int, statement_ids: Sequence[int]) -> dict[int, _Notes]:
    given_back = {statement_id: _Notes(Counter(), 0) for statement_id in statement_ids}
    notes = CreditNote.objects.filter(tenant_id=tenant_id, statement_id__in=statement_ids)
    for note in notes.prefetch_related("lines"):
        before = given_back[note.statement_id]
        lines = Counter({line.position: line.amount for line in note.lines.all()})
        given_back[note.statement_id] = _Notes(before.lines + lines, before.net + note.net)
    return given_back


def _net(
    amounts: Sequence[int], adjusting: Sequence[bool], coupon: int, of_adjustments: int
) -> list[int]:
    """Return the amounts less their shares of coupons: of the statement's own on its own lines, and
    of others' on the lines that adjust these.
    """
    net = list(amounts)
    for taken, is_adjusting in ((coupon - of_adjustments, False), (of_adjustments, True)):
        places = [index for index, each in enumerate(adjusting) if each == is_adjusting]
        # Without lines of the kind there are those of the other.
        places = places or list(range(len(amounts)))
        shares = _shares(taken, [amounts[index] for index in places])
        for index, share in zip(places, shares, strict=True):
            net[index] -= share
    return net


def _shares(taken: int, amounts: Sequence[int]) -> Sequence[int]:
    """Return what is taken off of each. Without a sum there are no shares."""
    if not taken:
        return [0] * len(amounts)
    return split(taken, amounts) if sum(amounts) else [taken, *[0] * (len(amounts) - 1)]


class _Features:
    """Which features the charges of plans name."""

    def __init__(self, tenant_id: int, subscription_ids: Iterable[int]) -> None:
        rows = Subscription.objects.filter(tenant_id=tenant_id, id__in=list(subscription_ids))
        self._plans = dict(rows.values_list("id", "plan_id"))
        self._versions: defaultdict[int, list[_Version]] = defaultdict(list)
        versions = PlanVersion.objects.filter(
            Q(plan_id__in=set(self._plans.values())), tenant_id=tenant_id
        )
        for version in versions.order_by("plan_id", "-number"):
            features = {
                charge.name: _named(charge)
                for charge in terms_of(version).charges
                if isinstance(charge, UsageCharge) and FEATURE in charge.filter
            }
            starts_at = version.starts_at or EPOCH
            self._versions[version.plan_id].append(_Version(starts_at, features))

    def of(self, line: Charged) -> tuple[str, ...] | None:
        """Return the features of a line's charge, in the version of its time."""
        versions = self._versions[self._plans[line.key.subscription_id]]
        version = next((each for each in versions if each.starts_at <= line.starts_at), None)
        return None if version is None else version.features.get(line.key.charge)


class _Version(NamedTuple):
    starts_at: datetime
    features: Mapping[str, tuple[str, ...]]


def _named(charge: UsageCharge) -> tuple[str, ...]:
    return tuple(charge.wanted[FEATURE])
