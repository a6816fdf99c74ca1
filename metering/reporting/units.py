"""Unit economics: what one customer, user, session, feature, success or posted unit cost.

All cost of the question is divided by how many there were, that of calls without the dimension
included. Counts of distinct values are of each row's own time and do not add up. Posted counts are
of whole days in the question's zone and have no dimensions, so filters do not apply to them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from common.queries import fetch_rows
from metering.models import UnitCount
from metering.reporting.distinct import distinct_in
from metering.reporting.intervals import Bucket
from metering.reporting.kept import require_sums
from metering.reporting.metrics import per_unit
from metering.reporting.question import UsageQuestion
from metering.reporting.successes import successes_in
from metering.reporting.usage import Measures, are_empty, measures_in

SUCCESS: Final = "success"
# What is counted by its values, and successes; other units are posted.
COUNTED: Final = ("customer", "user", "session", "feature")
BUILT_IN: Final = (*COUNTED, SUCCESS)
POSTED_NAMES_MAX: Final = 50
_ALL: Final = frozenset({()})


class Unit(NamedTuple):
    """What costs are divided by: one of BUILT_IN, or the name of counts that were posted."""

    name: str
    is_posted: bool = False


class UnitFigures(NamedTuple):
    """A cost and how many units it was for."""

    cost_nanos: int
    units: int

    @property
    def each_nanos(self) -> int | None:
        """What one of them cost, rounded half up to a nano-dollar; None where there was none."""
        return per_unit(self.cost_nanos, self.units)


class UnitRow(NamedTuple):
    """One bucket, and the one at its place in the range before; None where there is none."""

    start: datetime
    figures: UnitFigures
    previous: UnitFigures | None


class UnitReport(NamedTuple):
    """The buckets of a range, and the whole of it."""

    rows: Sequence[UnitRow]
    total: UnitFigures
    previous_total: UnitFigures | None


def posted_units(tenant_id: int) -> list[Unit]:
    """Return the names of counts that were posted, in order."""
    names = UnitCount.objects.filter(tenant_id=tenant_id).order_by("name").values_list("name")
    return [Unit(name, is_posted=True) for (name,) in names.distinct()[:POSTED_NAMES_MAX]]


def unit_total(
    question: UsageQuestion, unit: Unit, *, previous: UsageQuestion | None = None
) -> tuple[UnitFigures, UnitFigures | None]:
    """Return the whole of a range, and of the range that it is compared with. Raises
    InvalidQuestion, for what cannot be counted in time as well.
    """
    require_sums(question)
    total = _figures_in(question, [question.whole], unit)[0]
    if previous is None:
        return total, None
    require_sums(previous)
    return total, _figures_in(previous, [previous.whole], unit)[0]


def unit_report(
    question: UsageQuestion, unit: Unit, *, previous: UsageQuestion | None = None
) -> UnitReport:
    """Return what a unit cost in each bucket of a range, beside the bucket at the same place of the
    range that it is compared with. Raises as `unit_total`.
    """
    total, previous_total = unit_total(question, unit, previous=previous)
    portion = list(question.buckets())
    figures = _figures_in(question, portion, unit)
    earlier = _figures_in(previous, list(previous.buckets()), unit) if previous else []
    rows = [
        UnitRow(bucket.start, figures[index], earlier[index] if index < len(earlier) else None)
        for index, bucket in enumerate(portion)
    ]
    return UnitReport(rows, total, previous_total)


def _figures_in(
    question: UsageQuestion, portion: Sequence[Bucket], unit: Unit
) -> list[UnitFigures]:
    """Return the figures of each bucket, in their order."""
    used = measures_in(question, portion, (), _ALL)
    counts = _counts_in(question, portion, unit)
    return [
        UnitFigures(used.get((number, ()), Measures()).cost_nanos, counts.get(number, 0))
        for number in range(1, len(portion) + 1)
    ]


def _counts_in(question: UsageQuestion, portion: Sequence[Bucket], unit: Unit) -> Mapping[int, int]:
    """Return the number of units in each bucket, by the bucket's number from 1."""
    if are_empty(portion):
        return {}
    if unit.is_posted:
        return _posted_in(question, portion, unit.name)
    if unit.name == SUCCESS:
        counts = successes_in(question, portion, (), _ALL)
    else:
        counts = distinct_in(question, portion, (), _ALL, dimension=unit.name)
    return {number: count for (number, _), count in counts.items()}


def _posted_in(question: UsageQuestion, portion: Sequence[Bucket], name: str) -> dict[int, int]:
    """Add up what was posted for the days that begin in each bucket."""
    zone = ZoneInfo(question.timezone)
    first = portion[0].reads_from.astimezone(zone).date()
    last = portion[-1].reads_to.astimezone(zone).date() + timedelta(days=1)
    rows = fetch_rows(
        "SELECT day, count FROM unit_count"
        " WHERE tenant_id = %s AND name = %s AND day BETWEEN %s AND %s",
        [question.tenant_id, name, first, last],
    )
    counts: dict[int, int] = {}
    for day, count in rows:
        begins = datetime(day.year, day.month, day.day, tzinfo=zone)
        for number, bucket in enumerate(portion, 1):
            if bucket.reads_from <= begins < bucket.reads_to:
                counts[number] = counts.get(number, 0) + count
    return counts
