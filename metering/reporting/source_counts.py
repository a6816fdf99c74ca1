"""What each source sent by each route: what was counted, what was lost, and why."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Final, NamedTuple

import msgspec
from django.utils import timezone

from common.queries import Rows, fetch_rows
from metering.models import Route, SourceOutcome
from metering.reporting.cursors import Page, cut_page, fingerprint, position_after
from metering.reporting.question import InvalidQuestion, check_range
from metering.usage.source_advice import HARMLESS, detail_of, what_to_set
from metering.usage.sources import NAME_MAX, unwritten_counts

DAYS_DEFAULT: Final = 7
DAYS_MAX: Final = 400

# The rows of this process that the snapshot lacks are added to those of the table.
_READ: Final = """
    WITH reported AS (
        SELECT source, route, outcome, code, count, first_at, last_at, detail, sample
        FROM source_count WHERE tenant_id = %(tenant)s AND day BETWEEN %(first)s AND %(last)s
        UNION ALL
        SELECT source COLLATE "C", route, outcome, code COLLATE "C", count, first_at, last_at,
            detail, sample
        FROM json_to_recordset(%(unwritten)s::json) AS u (day date, source text, route smallint,
            outcome smallint, code text, count bigint, first_at timestamptz, last_at timestamptz,
            detail text, sample text, transaction xid8)
        WHERE day BETWEEN %(first)s AND %(last)s AND (transaction IS NULL
            OR NOT pg_visible_in_snapshot(transaction, pg_current_snapshot()))
    ), counted AS (
        SELECT source, route, outcome, code, sum(count)::bigint AS count, min(first_at) AS first_at,
            max(last_at) AS last_at, (array_agg(detail ORDER BY last_at DESC))[1] AS detail,
            (array_agg(sample ORDER BY last_at DESC) FILTER (WHERE sample IS NOT NULL))[1] AS sample
        FROM reported GROUP BY source, route, outcome, code
    ), page AS (
        SELECT DISTINCT source, route FROM counted
        WHERE %(source)s::text IS NULL OR (source, route) > (%(source)s COLLATE "C", %(route)s)
        ORDER BY source, route LIMIT %(limit)s
    )
    SELECT source, route, outcome, code, count, first_at, last_at, detail, sample
    FROM counted JOIN page USING (source, route)
    ORDER BY source, route, count DESC, outcome, code
"""


@dataclass(frozen=True, kw_only=True)
class SourceQuestion:
    """The days that a range touches, which are UTC's. Raises InvalidQuestion."""

    tenant_id: int
    starts_at: datetime
    ends_at: datetime

    def __post_init__(self) -> None:
        check_range(self.starts_at, self.ends_at)
        if self.ends_at - self.starts_at > timedelta(days=DAYS_MAX):
            raise InvalidQuestion("range_too_long", f"Ask for at most {DAYS_MAX} days at a time.")

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day, both included."""
        last = self.ends_at - timedelta(microseconds=1)
        return self.starts_at.astimezone(UTC).date(), last.astimezone(UTC).date()


@dataclass(frozen=True)
class SourceReason:
    """Why reports were lost, or count less than they should."""

    outcome: SourceOutcome
    code: str
    detail: str
    count: int
    last_at: datetime
    sample: str | None

    @property
    def what_to_set(self) -> str:
        return what_to_set(self.code)

    @property
    def is_harmless(self) -> bool:
        """Whether nothing that should count is lost by it."""
        return self.outcome is SourceOutcome.PASSED_OVER and self.code in HARMLESS


@dataclass
class SourceRow:
    """What one source sent by one route. `counts` has every outcome that there was."""

    source: str
    route: Route
    first_at: datetime
    last_at: datetime
    counts: dict[SourceOutcome, int] = field(default_factory=dict)
    reasons: list[SourceReason] = field(default_factory=list)

    def count(self, outcome: SourceOutcome) -> int:
        return self.counts.get(outcome, 0)


class _Position(NamedTuple):
    """Where a page ended: a source, and the number of its route."""

    source: Annotated[str, msgspec.Meta(max_length=NAME_MAX)]
    route: Annotated[int, msgspec.Meta(ge=0, lt=1 << 15)]


def last_days(days: int = DAYS_DEFAULT) -> tuple[datetime, datetime]:
    """Return the range of the last UTC days, the present one included."""
    today = timezone.now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days - 1), today + timedelta(days=1)


def read_sources(
    question: SourceQuestion, *, limit: int = 100, cursor: str | None = None
) -> Page[SourceRow]:
    """Return a page of what sources sent, by source and route.

    What this process has taken in is there, written or not. Read in a transaction that keeps its
    snapshot, as every GET has.
    """
    mark = fingerprint("sources", *question.days)
    source, route = (None, 0) if cursor is None else position_after(cursor, mark, _Position)
    first, last = question.days
    rows = fetch_rows(
        _READ,
        {
            "tenant": question.tenant_id,
            "first": first,
            "last": last,
            "unwritten": msgspec.json.encode(unwritten_counts(question.tenant_id)).decode(),
            "source": source,
            "route": route,
            "limit": limit + 1,
        },
    )
    return cut_page(
        _gather(rows),
        limit=limit,
        question=mark,
        after=lambda row: (row.source, row.route.value),
        bounds=(question.starts_at, question.ends_at),
    )


def _gather(rows: Rows) -> list[SourceRow]:
    gathered: dict[tuple[str, int], SourceRow] = {}
    for source, route, outcome, code, count, first_at, last_at, detail, sample in rows:
        row = gathered.setdefault(
            (source, route), SourceRow(source, Route(route), first_at, last_at)
        )
        row.first_at = min(row.first_at, first_at)
        row.last_at = max(row.last_at, last_at)
        kind = SourceOutcome(outcome)
        row.counts[kind] = row.count(kind) + count
        if code:
            reason = SourceReason(kind, code, detail or detail_of(code), count, last_at, sample)
            row.reasons.append(reason)
    return list(gathered.values())
