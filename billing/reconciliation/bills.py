"""Providers' bills against the cost of usage, by day in UTC and model.

Of a day is compared what a provider billed for it. A bill that names no models is compared as a
whole. What bills say of no model is compared with the tools of that name.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, NamedTuple

from billing.models import ProviderBillLine
from billing.provider_bills.lines import model_name, seller_of
from billing.reconciliation.results import USD, Difference, KindResult, dollars
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.reporting.usage import measures_in

GROUP_BY: Final = ("provider", "model", "tool")
# Combinations of provider, model and tool that a day may have.
CELLS_MAX: Final = 50_000

# A model, or an item that is none: as `ProviderBillLine` has them.
Item = tuple[str, str]
EVERYTHING: Final[Item] = ("", "")


class Spent(NamedTuple):
    """What usage of an item cost, and how many calls had no price."""

    nanos: int = 0
    unpriced: int = 0

    def plus(self, other: "Spent") -> "Spent":
        return Spent(self.nanos + other.nanos, self.unpriced + other.unpriced)


Spending = Mapping[Item, Spent]


def next_billed_day(tenant_id: int, *, after: date, last: date) -> date | None:
    """Return the first day after this one that has a bill, up to the last; None if none has."""
    days = ProviderBillLine.objects.filter(tenant_id=tenant_id, day__gt=after, day__lte=last)
    return days.order_by("day").values_list("day", flat=True).first()


def compare_day(tenant_id: int, day: date, result: KindResult) -> Iterator[Difference]:
    """Yield what differs on a day, and count everything in the result. Within a snapshot."""
    billed = _billed(tenant_id, day)
    spending = _spending(tenant_id, day)
    for provider, amounts in sorted(billed.items()):
        spent = spending.get(provider, {})
        for item, billed_nanos, expected in _pairs(amounts, spent):
            result.compared += 1
            result.add(
                USD,
                expected=dollars(expected.nanos),
                found=dollars(billed_nanos),
                provider=provider,
            )
            if billed_nanos != expected.nanos:
                yield Difference(
                    unit=USD,
                    expected=dollars(expected.nanos),
                    found=dollars(billed_nanos),
                    day=day,
                    provider=provider,
                    model=item[0],
                    line_item=item[1],
                    note=_note(item, amounts, spent, expected),
                )


def _billed(tenant_id: int, day: date) -> dict[str, dict[Item, int]]:
    """Return what each provider billed, over all accounts."""
    billed: defaultdict[str, defaultdict[Item, int]] = defaultdict(lambda: defaultdict(int))
    for line in ProviderBillLine.objects.filter(tenant_id=tenant_id, day=day):
        billed[line.provider][line.model, line.line_item] += line.amount_nanos
    return {provider: dict(amounts) for provider, amounts in billed.items()}


def _spending(tenant_id: int, day: date) -> dict[str, Spending]:
    """Return what usage of a day cost, by provider as bills spell them."""
    begin = datetime.combine(day, time(), UTC)
    question = UsageQuestion(
        tenant_id=tenant_id,
        starts_at=begin,
        ends_at=begin + timedelta(days=1),
        group_by=GROUP_BY,
        interval="none",
    )
    cells = measures_in(question, [question.whole], GROUP_BY, None, limit=CELLS_MAX + 1)
    if len(cells) > CELLS_MAX:
        detail = f"{day} has usage of more than {CELLS_MAX:,} different models and tools."
        raise InvalidQuestion("too_many_models", detail)
    spending: defaultdict[str, dict[Item, Spent]] = defaultdict(dict)
    for (_, (provider, model, tool)), measures in cells.items():
        seller = seller_of(provider, model)
        item = (model_name(seller, model), "") if model else ("", tool.lower())
        spent = Spent(measures.cost_nanos, measures.unpriced)
        spending[seller][item] = spending[seller].get(item, Spent()).plus(spent)
    return dict(spending)


def _pairs(amounts: Mapping[Item, int], spent: Spending) -> Iterator[tuple[Item, int, Spent]]:
    """Yield what was billed beside what was spent on the same."""
    if EVERYTHING in amounts:
        total = Spent()
        for each in spent.values():
            total = total.plus(each)
        yield EVERYTHING, sum(amounts.values()), total
        return
    for item in sorted(amounts.keys() | spent.keys()):
        yield item, amounts.get(item, 0), spent.get(item, Spent())


def _note(item: Item, amounts: Mapping[Item, int], spent: Spending, expected: Spent) -> str:
    if expected.unpriced:
        return f"{expected.unpriced:,} calls have no price yet."
    if item == EVERYTHING:
        return "The bill names no models."
    if item not in amounts:
        return "The bill has nothing of it."
    return "" if item in spent else "No usage of it was reported."
