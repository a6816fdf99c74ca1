"""Finds stored events, newest first."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from django.db.models import BooleanField, Q, QuerySet
from django.db.models.expressions import RawSQL

from common.cursors import InvalidCursor
from metering.models import CostSource, UsageEvent
from metering.reporting.conditions import on_events
from metering.reporting.cursors import fingerprint, read_cursor, write_cursor
from metering.reporting.question import Filters, check_filters


@dataclass(frozen=True, kw_only=True)
class EventQuestion:
    """Events of a tenant, void ones included; no range: all. Raises InvalidQuestion."""

    tenant_id: int
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    filters: Filters = field(default_factory=dict)
    is_unpriced: bool | None = None
    # Calls that share an identity with another one which they contradict.
    is_conflict: bool | None = None

    def __post_init__(self) -> None:
        check_filters(self.filters)


class EventPage(NamedTuple):
    """A page of events."""

    events: list[UsageEvent]
    next_cursor: str | None


def list_events(
    question: EventQuestion, *, limit: int = 100, cursor: str | None = None
) -> EventPage:
    """A page of events by time and id, the newest first."""
    mark = fingerprint(
        question.starts_at,
        question.ends_at,
        question.filters,
        question.is_unpriced,
        question.is_conflict,
    )
    found = _matching(question)
    if cursor is not None:
        time, event_id = _position(cursor, mark)
        # The first condition is what the index is entered by.
        found = found.filter(time__lte=time).filter(Q(time__lt=time) | Q(id__lt=event_id))
    events = list(found.order_by("-time", "-id")[: limit + 1])
    page = events[:limit]
    if len(events) == len(page):
        return EventPage(page, None)
    position = {"time": page[-1].time.isoformat(), "id": page[-1].id}
    return EventPage(page, write_cursor(mark, position))


def _matching(question: EventQuestion) -> QuerySet[UsageEvent]:
    found = UsageEvent.objects.filter(tenant_id=question.tenant_id)
    if question.starts_at is not None:
        found = found.filter(time__gte=question.starts_at)
    if question.ends_at is not None:
        found = found.filter(time__lt=question.ends_at)
    if question.filters:
        wanted = on_events(question.filters)
        found = found.filter(RawSQL(wanted.sql, wanted.parameters, BooleanField()))  # noqa: S611
    if question.is_unpriced is True:
        found = found.filter(cost_source=CostSource.UNPRICED)
    elif question.is_unpriced is False:
        found = found.exclude(cost_source=CostSource.UNPRICED)
    if question.is_conflict is not None:
        found = found.filter(is_conflict=question.is_conflict)
    return found


def _position(cursor: str, mark: str) -> tuple[datetime, int]:
    asked, position = read_cursor(cursor)
    try:
        time, event_id = datetime.fromisoformat(position["time"]), int(position["id"])
        time.astimezone()
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidCursor from error
    if asked != mark or time.tzinfo is None or not 0 <= event_id < 1 << 63:
        raise InvalidCursor
    return time, event_id


def cost_of(event: UsageEvent) -> int:
    """What an event counts: nothing when it is void or has no price."""
    return 0 if event.is_void or event.cost_nanos is None else event.cost_nanos
