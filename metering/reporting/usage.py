"""What was used and what it cost: exactly, and without delay.

answer = roll-ups of the buckets that lie inside the range + events of batches not yet rolled up in
the same buckets + events of the edges that cut a bucket; where most of a bucket lies inside, its
roll-up - the events outside instead. All statements of an answer must see the same snapshot: call
these inside `tenant_scope(..., is_snapshot=True)`, as every GET does.

A request is any event that is not a tool call (`operation` tool); those count in `tool_calls`.
Tokens are as normalised: input includes cached, output includes reasoning. Void events count
nowhere.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from itertools import islice, takewhile
from typing import Final, NamedTuple

from django.db import connection

from common.queries import Parameters, Rows, fetch_rows
from metering.models import MEASURES
from metering.reporting.conditions import NO_CONDITION, Condition
from metering.reporting.cursors import cut_page
from metering.reporting.intervals import Bucket
from metering.reporting.question import Filters, UsageQuestion
from metering.reporting.sources import sets_for
from metering.reporting.usage_branches import Source, WaitingBatch, hides_values, rows_to_add
from metering.reporting.usage_cursors import (
    UsagePosition,
    end_of_page,
    mark_of_group,
    mark_of_question,
    position_of,
    shown_by,
)
from metering.rollups.sets import OTHER, SUM_LIST
from tenants.scope import once_a_snapshot

# A page reads as few buckets as it needs: one of events or two of roll-ups first, then twice as
# many each time.
BUCKETS_MAX: Final = 256
# Of all groups, whatever of them is shown: a group without calls has nothing else either.
TOTAL_LIST: Final = ", ".join(f"sum(sum({name})) OVER ()" for name in MEASURES)
# Compiling a query, or starting workers for it, takes longer than running one of these.
TUNING: Final = """
    SET LOCAL jit = off; SET LOCAL work_mem = '32MB'; SET LOCAL max_parallel_workers_per_gather = 0
"""
# PostgreSQL takes the events that came just now for one, and would sort them to group them.
_BY_HASH: Final = f"{TUNING}; SET LOCAL enable_sort = off"
_ANY_PLAN: Final = "SET LOCAL enable_sort = DEFAULT"


class Measures(NamedTuple):
    """What was counted, in the order of `metering.models.MEASURES`."""

    cost_nanos: int = 0
    requests: int = 0
    errors: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: int = 0
    given_nanos: int = 0


assert Measures._fields == MEASURES


class UsageRow(NamedTuple):
    """Usage of one group in one bucket. `key` has the stored values of the group's dimensions."""

    dimensions: tuple[str, ...]
    key: tuple[str, ...]
    start: datetime
    measures: Measures

    @property
    def is_other(self) -> bool:
        """Whether this is the long tail of values, added up."""
        return OTHER in self.key

    @property
    def group(self) -> dict[str, str]:
        """The group as readers see it."""
        if self.is_other:
            return dict.fromkeys(self.dimensions, OTHER.strip())
        return dict(zip(self.dimensions, self.key, strict=True))


# A group in a bucket: the bucket's number in a portion, from 1, and the group's values.
Cell = tuple[int, tuple[str, ...]]
Keys = Collection[tuple[str, ...]]


@dataclass(frozen=True)
class UsagePage:
    """A page of rows, and the total over all pages, which is read when it is asked for."""

    rows: Sequence[UsageRow]
    next_cursor: str | None
    read_total: Callable[[], Measures] = field(repr=False)

    @cached_property
    def total(self) -> Measures:
        """What all pages add up to."""
        return self.read_total()


class _Found(NamedTuple):
    """Rows, and what all groups add up to where the same statement has told."""

    rows: list[UsageRow]
    total: Measures | None = None


def usage(question: UsageQuestion, *, limit: int = 100, cursor: str | None = None) -> UsagePage:
    """Return a page of the answer: by start, then group; without interval the highest cost first.

    Costs move between two pages, so a cursor of those says which groups were shown: every group
    comes once, whatever overtakes what. Once a cursor can name no more, the other groups follow in
    the order of their values.
    """
    mark = mark_of_question(question)
    position = position_of(cursor, mark, question)
    source = _source(question, question.dimensions)
    read = _rows_by_cost if question.interval == "none" else _rows_by_start
    rows, total = read(question, source, position, limit + 1)
    page = cut_page(
        rows,
        limit=limit,
        question=mark,
        after=lambda last: end_of_page(
            question, [row.key for row in rows[:limit]], start=last.start, before=position
        ),
        bounds=(question.starts_at, question.ends_at),
    )
    read_total = partial(total_usage, question) if total is None else lambda: total
    return UsagePage(page.rows, page.next_cursor, read_total)


@once_a_snapshot
def total_usage(question: UsageQuestion) -> Measures:
    """Return the total of a question alone, from the smallest roll-up that knows its filters."""
    source = _source(question, frozenset(question.filters))
    parts = rows_to_add(question, source, [question.whole], group_by=())
    (sums,) = fetch_rows(
        f"SELECT {SUM_LIST} FROM ({parts.sql}) parts", parts.parameters, tuning=TUNING
    )
    return Measures(*(value or 0 for value in sums))


def portion_of(question: UsageQuestion, rows: Sequence[UsageRow]) -> list[Bucket]:
    """Return the buckets from the first of these rows to the last."""
    first, last = min(row.start for row in rows), max(row.start for row in rows)
    buckets = question.buckets(starts_at=max(question.starts_at, first))
    return list(takewhile(lambda bucket: bucket.start <= last, buckets))


def are_empty(portion: Iterable[Bucket]) -> bool:
    """Whether no time lies in these buckets."""
    return all(bucket.reads_from >= bucket.reads_to for bucket in portion)


def filters_of(question: UsageQuestion, group_by: Sequence[str], keys: Keys) -> Filters:
    """Return the question's filters, and that nothing but the values of these groups is read."""
    values = {
        name: tuple(sorted({key[index] for key in keys})) for index, name in enumerate(group_by)
    }
    return {**question.filters, **values}


def measures_in(
    question: UsageQuestion,
    portion: Sequence[Bucket],
    group_by: tuple[str, ...],
    keys: Keys | None,
    *,
    limit: int | None = None,
) -> dict[Cell, Measures]:
    """Return the usage of these groups (None: of all) in these buckets, from what `usage` reads for
    its rows.
    """
    if (keys is not None and not keys) or are_empty(portion):
        return {}
    parts = rows_to_add(
        question,
        _source(question, frozenset(group_by) | frozenset(question.filters)),
        portion,
        group_by=group_by,
        filters=None if keys is None else filters_of(question, group_by, keys),
    )
    columns = ", ".join(["bucket", *(f"group_{index}" for index in range(len(group_by)))])
    rows = _fetch_grouped(
        f"SELECT {columns}, {SUM_LIST} FROM ({parts.sql}) parts GROUP BY {columns}"
        " HAVING sum(requests) + sum(tool_calls) > 0 LIMIT %s",
        [*parts.parameters, limit],
    )
    width = 1 + len(group_by)
    return {(row[0], row[1:width]): Measures(*row[width:]) for row in rows}


def _fetch_grouped(statement: str, parameters: Parameters) -> Rows:
    rows = fetch_rows(statement, parameters, tuning=_BY_HASH)
    with connection.cursor() as cursor:
        cursor.execute(_ANY_PLAN)
    return rows


@once_a_snapshot
def waiting_batches(tenant_id: int) -> Sequence[WaitingBatch]:
    """Return batches that no roll-up holds yet, in order of id."""
    rows = fetch_rows(
        "SELECT id, first_at, last_at FROM ingest_batch"
        " WHERE tenant_id = %s AND rolled_up_at IS NULL ORDER BY id",
        [tenant_id],
    )
    return [WaitingBatch(*row) for row in rows]


def _source(question: UsageQuestion, dimensions: frozenset[str]) -> Source:
    sets = sets_for(dimensions)
    waiting = waiting_batches(question.tenant_id)
    return Source([] if hides_values(question, sets) else sets, waiting)


def _rows_by_start(
    question: UsageQuestion, source: Source, position: UsagePosition | None, limit: int
) -> _Found:
    """Return rows after the position, reading only as many buckets as hold them."""
    rows: list[UsageRow] = []
    after = None if position is None else position.group
    starts_at = question.starts_at if position is None else max(question.starts_at, position.start)
    remaining = question.buckets(starts_at=starts_at)
    if after == []:
        next(remaining, None)  # without groups a bucket has one row, which ended the page before
    size = 2 if source.sets else 1
    while len(rows) < limit and (portion := list(islice(remaining, size))):
        rows += _read_rows(question, source, portion, after, limit - len(rows)).rows
        after = None
        size = min(2 * size, BUCKETS_MAX)
    return _Found(rows)


def _rows_by_cost(
    question: UsageQuestion, source: Source, position: UsagePosition | None, limit: int
) -> _Found:
    """Return rows that no page has shown, and the total where no cursor leaves out groups."""
    shown = frozenset(shown_by(position))
    after = None if position is None else position.group
    order = "sum(cost_nanos) DESC, " if after is None else ""
    most = limit + len(shown)
    costliest = _read_rows(question, source, [question.whole], after, most, order=order)
    return costliest._replace(
        rows=[row for row in costliest.rows if mark_of_group(row.key) not in shown][:limit]
    )


def _read_rows(
    question: UsageQuestion,
    source: Source,
    portion: list[Bucket],
    after: list[str] | None,
    limit: int,
    *,
    order: str = "",
) -> _Found:
    """Return rows of these buckets by start and group, unless another order comes first, and with
    it the total; of the first bucket those after a group.
    """
    width = len(question.group_by)
    parts = rows_to_add(question, source, portion, group_by=question.group_by)
    groups = [f"group_{index}" for index in range(width)]
    condition = NO_CONDITION
    if after:
        values = ", ".join(["%s"] * len(after))
        condition = Condition(f"(bucket > 1 OR ({', '.join(groups)}) > ({values}))", after)
    key = ", ".join(["bucket", *groups])
    totals = f", {TOTAL_LIST}" if order else ""
    rows = _fetch_grouped(
        f"SELECT {key}, {SUM_LIST}{totals} FROM ({parts.sql}) parts"
        f" WHERE {condition.sql} GROUP BY {key} HAVING sum(requests) + sum(tool_calls) > 0"
        f" ORDER BY {order}{key} LIMIT %s",
        [*parts.parameters, *condition.parameters, limit],
    )
    end = 1 + width + len(MEASURES)
    usage_rows = [
        UsageRow(
            question.group_by,
            tuple(row[1 : 1 + width]),
            portion[row[0] - 1].start,
            Measures(*row[1 + width : end]),
        )
        for row in rows
    ]
    if not order:
        return _Found(usage_rows)
    return _Found(usage_rows, Measures(*rows[0][end:]) if rows else Measures())
