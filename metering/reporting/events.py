"""Stored events, newest first."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from django.db.models import BooleanField, F, Q, QuerySet
from django.db.models.expressions import RawSQL

from common.cursors import ID_MAX
from common.errors import NotFound
from common.values import normal_value
from metering.core.periods import EPOCH
from metering.models import CostSource, UsageEvent
from metering.reporting.conditions import on_events
from metering.reporting.cursors import Page, cut_page, fingerprint, position_after
from metering.reporting.question import Filters, check_filters
from metering.reporting.session_steps import Step

_MICROSECOND: Final = timedelta(microseconds=1)


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


class _Position(NamedTuple):
    """Where a page ended: a time in microseconds since the epoch, and an event."""

    microseconds: Annotated[int, msgspec.Meta(ge=0, lt=1 << 57)]
    id: Annotated[int, msgspec.Meta(ge=0, le=ID_MAX)]


def list_events(
    question: EventQuestion, *, limit: int = 100, cursor: str | None = None
) -> Page[UsageEvent]:
    """Return a page of events by time and id, the newest first."""
    mark = fingerprint(
        *(question.starts_at, question.ends_at, question.filters),
        *(question.is_unpriced, question.is_conflict),
    )
    matching = _matching(question)
    if cursor is not None:
        microseconds, event_id = position_after(cursor, mark, _Position)
        time = EPOCH + microseconds * _MICROSECOND
        # The first condition is what the index is entered by.
        matching = matching.filter(time__lte=time).filter(Q(time__lt=time) | Q(id__lt=event_id))
    events = list(matching.order_by("-time", "-id")[: limit + 1])
    return cut_page(
        events,
        limit=limit,
        question=mark,
        after=lambda event: ((event.time - EPOCH) // _MICROSECOND, event.id),
    )


def costliest_events(question: EventQuestion, *, limit: int) -> list[UsageEvent]:
    """Return the events that cost most, void ones left out; the newest first where they cost the
    same. Reads all that match.
    """
    matching = _matching(question).filter(is_void=False)
    return list(matching.order_by(F("cost_nanos").desc(nulls_last=True), "-time", "-id")[:limit])


def _matching(question: EventQuestion) -> QuerySet[UsageEvent]:
    wanted = {
        "time__gte": question.starts_at,
        "time__lt": question.ends_at,
        "is_conflict": question.is_conflict,
    }
    events = UsageEvent.objects.filter(
        tenant_id=question.tenant_id,
        **{name: value for name, value in wanted.items() if value is not None},
    )
    if question.filters:
        condition = on_events(question.filters)
        events = events.filter(RawSQL(*condition, BooleanField()))  # noqa: S611
    if question.is_unpriced is True:
        events = events.filter(cost_source=CostSource.UNPRICED)
    elif question.is_unpriced is False:
        events = events.exclude(cost_source=CostSource.UNPRICED)
    return events


def events_of(
    *, tenant_id: int, dimension: Literal["session", "trace"], value: str, limit: int
) -> list[UsageEvent]:
    """Return the first events of a session or trace, in order of time, and one more than the limit
    if there are more. Raises NotFound if there are none.
    """
    value = normal_value(value)
    events = list(
        UsageEvent.objects.filter(tenant_id=tenant_id, **{dimension: value})
        # Spelled out so that the partial index is used.
        .exclude(**{dimension: ""})
        .order_by("time", "id")[: limit + 1]
    )
    if not events:
        raise NotFound(f"There are no events of this {dimension}.")
    return events


def cost_of(event: UsageEvent | Step) -> int:
    """Return what an event counts: nothing if it is void or has no price."""
    return 0 if event.is_void or event.cost_nanos is None else event.cost_nanos
