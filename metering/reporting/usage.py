"""What was used and what it cost: exactly, and without delay.

answer = roll-ups of the buckets that lie inside the range + events of batches not yet rolled up in
the same buckets + events of the edges that cut a bucket; where most of a bucket lies inside, its
roll-up - the events outside instead. All statements of an answer must see the
same snapshot: call these inside `tenant_scope(..., is_snapshot=True)`, as every GET does.

A request is any event that is not a tool call (`operation` tool); those count in `tool_calls`.
Tokens are as normalised: input includes cached, output includes reasoning. Void events count
nowhere.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, NamedTuple

from django.db import connection

from metering.models import MEASURES
from metering.reporting.conditions import NO_CONDITION, Condition
from metering.reporting.cursors import write_cursor
from metering.reporting.intervals import Bucket, buckets
from metering.reporting.question import UsageQuestion
from metering.reporting.sources import sets_for
from metering.reporting.usage_branches import Source, branches_of, is_folded
from metering.reporting.usage_cursors import (
    end_of_page,
    mark_of_group,
    mark_of_question,
    position_of,
    shown_by,
)
from metering.rollups.sets import OTHER, SUM_LIST

# A page reads as few buckets as it needs: one of events or two of roll-ups first, then twice as
# many each time.
BUCKETS_MAX: Final = 256
# Compiling a query takes longer than running one of these.
TUNING: Final = "SET LOCAL jit = off; SET LOCAL work_mem = '32MB'"


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


class UsagePage(NamedTuple):
    """A page of rows, and the total over all pages."""

    rows: list[UsageRow]
    total: Measures
    next_cursor: str | None


def usage(question: UsageQuestion, *, limit: int = 100, cursor: str | None = None) -> UsagePage:
    """Return a page of the answer: by start, then group; without interval the highest cost first.

    Costs move between two pages, so a cursor of those says which groups were shown: every group
    comes once, whatever overtakes what. Once a cursor can name no more, the other groups follow in
    the order of their values.
    """
    mark = mark_of_question(question)
    position = position_of(cursor, mark, question)
    with connection.cursor() as database:
        database.execute(TUNING)
        waiting = waiting_batches(database, question)
        source = _source(database, question, question.dimensions, waiting)
        if question.interval == "none":
            rows = _rows_by_cost(question, source, position, limit + 1)
        else:
            rows = _rows_by_start(question, source, position, limit + 1)
        total = _total(database, question, waiting)
    page = rows[:limit]
    next_cursor = None
    if len(rows) > limit:
        keys = [row.key for row in page]
        end = end_of_page(question, keys, start=page[-1].start, before=position)
        next_cursor = write_cursor(mark, end)
    return UsagePage(page, total, next_cursor)


def total_usage(question: UsageQuestion) -> Measures:
    """Return the total of a question alone."""
    with connection.cursor() as database:
        database.execute(TUNING)
        return _total(database, question, waiting_batches(database, question))


def waiting_batches(database: Any, question: UsageQuestion) -> list[int]:
    """Return batches that no roll-up holds yet, in order of id."""
    database.execute(
        "SELECT id FROM ingest_batch WHERE tenant_id = %s AND rolled_up_at IS NULL ORDER BY id",
        [question.tenant_id],
    )
    return [row[0] for row in database.fetchall()]


def _source(
    database: Any, question: UsageQuestion, dimensions: frozenset[str], waiting: list[int]
) -> Source:
    sets = sets_for(dimensions)
    if question.filters and any(
        is_folded(
            database,
            tenant_id=question.tenant_id,
            dimension_set=dimension_set,
            starts_at=question.starts_at,
            ends_at=question.ends_at,
        )
        for dimension_set in sets
    ):
        # A value that was asked for by name may be part of the long tail, where it cannot be found.
        sets = []
    return Source(sets, waiting)


def _total(database: Any, question: UsageQuestion, waiting: list[int]) -> Measures:
    """Return the sum over all rows, from the smallest roll-up that knows the filters."""
    source = _source(database, question, frozenset(question.filters), waiting)
    whole = [Bucket(question.starts_at, question.starts_at, question.ends_at)]
    branches = branches_of(question, source, whole, group_by=())
    database.execute(
        f"SELECT {SUM_LIST} FROM ({branches.sql}) parts",
        branches.parameters,
    )
    return Measures(*(value or 0 for value in database.fetchone()))


def _rows_by_start(
    question: UsageQuestion,
    source: Source,
    position: dict[str, Any] | None,
    limit: int,
) -> list[UsageRow]:
    """Return rows after the position, reading only as many buckets as hold them."""
    rows: list[UsageRow] = []
    after = None if position is None else list(position["group"])
    remaining = _buckets_from(question, position)
    if after == []:
        next(remaining)  # without groups a bucket has one row, which the page before ended with
        after = None
    size = 2 if source.sets else 1
    while len(rows) < limit and (portion := list(islice(remaining, size))):
        rows += _read_rows(question, source, portion, after, limit - len(rows))
        after = None
        size = min(2 * size, BUCKETS_MAX)
    return rows


def _rows_by_cost(
    question: UsageQuestion,
    source: Source,
    position: dict[str, Any] | None,
    limit: int,
) -> list[UsageRow]:
    """Return rows that no page has shown."""
    shown = frozenset(shown_by(position))
    after = None if position is None else position.get("group")
    order = "sum(cost_nanos) DESC, " if after is None else ""
    whole = [Bucket(question.starts_at, question.starts_at, question.ends_at)]
    rows = _read_rows(question, source, whole, after, limit + len(shown), order=order)
    return [row for row in rows if mark_of_group(row.key) not in shown][:limit]


def _read_rows(
    question: UsageQuestion,
    source: Source,
    portion: list[Bucket],
    after: list[str] | None,
    limit: int,
    *,
    order: str = "",
) -> list[UsageRow]:
    """Return rows of these buckets by start and group, unless another order comes first; of the
    first bucket those after a group.
    """
    branches = branches_of(question, source, portion, group_by=question.group_by)
    groups = [f"group_{place}" for place in range(len(question.group_by))]
    condition = NO_CONDITION
    if after:
        values = ", ".join(["%s"] * len(after))
        condition = Condition(f"(bucket > 1 OR ({', '.join(groups)}) > ({values}))", after)
    key = ", ".join(["bucket", *groups])
    with connection.cursor() as database:
        database.execute(
            f"SELECT {key}, {SUM_LIST} FROM ({branches.sql}) parts"
            f" WHERE {condition.sql} GROUP BY {key} HAVING sum(requests) + sum(tool_calls) > 0"
            f" ORDER BY {order}{key} LIMIT %s",
            [*branches.parameters, *condition.parameters, limit],
        )
        return [
            _row(question, portion[bucket - 1].start, values)
            for bucket, *values in database.fetchall()
        ]


def _buckets_from(question: UsageQuestion, position: dict[str, Any] | None) -> Iterator[Bucket]:
    starts_at = question.starts_at
    if position is not None:
        starts_at = max(starts_at, datetime.fromisoformat(position["start"]))
    return buckets(
        interval=question.interval,
        timezone=question.timezone,
        starts_at=starts_at,
        ends_at=question.ends_at,
    )


def _row(question: UsageQuestion, start: datetime, values: Sequence[Any]) -> UsageRow:
    width = len(question.group_by)
    return UsageRow(question.group_by, tuple(values[:width]), start, Measures(*values[width:]))
