"""Whose spending an incident was: the values of the dimensions that its match leaves open."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, NamedTuple

from alerts.models import Incident
from dashboard.incidents.course import Stretch, filters_of
from metering.reporting.question import UsageQuestion
from metering.reporting.usage import UsageRow, usage

# From the most telling to the least.
ASKED: Final = ("agent", "feature", "model", "customer", "user", "team")
VALUES_SHOWN: Final = 4
# A cause that began just now is compared with no less than this.
SHORTEST: Final = timedelta(minutes=15)


class Spender(NamedTuple):
    """What a value spent during an incident, and in as long a time before it."""

    value: str
    cost_nanos: int
    before_nanos: int


class Spenders(NamedTuple):
    """The values of one dimension whose spending grew most, out of all that was spent."""

    dimension: str
    values: list[Spender]
    total_nanos: int


def read_spenders(incident: Incident, cause: Stretch) -> list[Spenders]:
    """Who spent it, for each dimension that tells anything: one with a single value does not."""
    starts_at = min(cause.starts_at, cause.ends_at - SHORTEST)
    filters = filters_of(incident.match)
    question = UsageQuestion(
        tenant_id=incident.tenant_id,
        starts_at=starts_at,
        ends_at=cause.ends_at,
        interval="none",
        filters=filters,
    )
    open_ones = [name for name in ASKED if len(filters.get(name, ())) != 1]
    lists = [_of_dimension(replace(question, group_by=(name,)), name) for name in open_ones]
    return [spenders for spenders in lists if any(spender.value for spender in spenders.values)]


def _of_dimension(question: UsageQuestion, name: str) -> Spenders:
    page = usage(question, limit=VALUES_SHOWN)
    rows = [row for row in page.rows if not row.is_other and row.measures.cost_nanos]
    before = _before(question, name, rows)
    spenders = [
        Spender(row.group[name], row.measures.cost_nanos, before.get(row.group[name], 0))
        for row in rows
    ]
    return Spenders(name, spenders, page.total.cost_nanos)


def _before(question: UsageQuestion, name: str, rows: Sequence[UsageRow]) -> dict[str, int]:
    """What the same values spent in as long a time before."""
    if not rows:
        return {}
    values = tuple(row.group[name] for row in rows)
    earlier = replace(
        question,
        starts_at=question.starts_at - (question.ends_at - question.starts_at),
        ends_at=question.starts_at,
        filters={**question.filters, name: values},
    )
    earlier_rows = usage(earlier, limit=len(values)).rows
    return {row.group[name]: row.measures.cost_nanos for row in earlier_rows}
