"""Rating again: a period's events at the prices known now, by entries that correct and never
rewrite.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from django.db import connection

from metering.configuration import Configuration, read_configuration
from metering.errors import Conflict
from metering.events import SOURCES
from metering.ledger import post
from metering.models import Completeness, CostSource, EntryKind
from metering.pricing import Rating
from metering.rollups import lock_batches, post_deltas
from metering.seals import read_sealed
from metering.stored_events import (
    OPERATIONS,
    Change,
    StoredEvent,
    added_up,
    lock_events,
    movements,
)
from tenants.scope import lock_configuration_shared, tenant_scope

CHUNK_EVENTS: Final = 2_000
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

Progress = Callable[[int], None]


class UsageSealed(Conflict):
    """Events that are to change are sealed: their sums stand, and they are about to be dropped."""

    code = "usage_sealed"

    def __init__(self, frozen_until: datetime) -> None:
        super().__init__(
            f"Usage before {frozen_until:%Y-%m-%d} UTC is sealed and never changes any more: name a"
            " period from then on."
        )


class RerateSummary(NamedTuple):
    """What rating again found (and, unless it was a dry run, changed)."""

    examined: int
    changed: int
    newly_priced: int
    still_unpriced: int
    difference_nanos: int

    def plus(self, other: "RerateSummary") -> "RerateSummary":
        """Both together."""
        return RerateSummary(*(left + right for left, right in zip(self, other, strict=True)))


NO_CHANGE: Final = RerateSummary(0, 0, 0, 0, 0)


class _Rerating(NamedTuple):
    event: StoredEvent
    rating: Rating
    source: CostSource
    cost_nanos: int | None

    @property
    def is_change(self) -> bool:
        event = self.event
        stored = (event.cost_nanos, event.price_id, event.cost_source)
        return stored != (self.cost_nanos, self.rating.price_id, self.source.value)


def rerate(
    *,
    tenant_id: int,
    from_: datetime,
    to: datetime,
    is_dry_run: bool = False,
    progress: Progress | None = None,
) -> RerateSummary:
    """Rate the events of [from_, to) again. Given costs stay; a dry run says what would change.

    Each chunk is a transaction of its own that is right by itself, so that stopping half-way leaves
    no drift and running again goes on. Raises UsageSealed where part of the period is sealed.
    """
    with tenant_scope(tenant_id):
        frozen_until = read_sealed(tenant_id).frozen_until
    if from_ < frozen_until:
        raise UsageSealed(frozen_until)
    condition = (
        f"e.cost_source <> {CostSource.GIVEN.value} AND e.time >= %s AND e.time < %s"
        " AND (e.time, e.id) > (%s, %s)"
    )
    return _rerate_chunks(tenant_id, condition, (from_, to), is_dry_run, progress)


def price_unpriced(*, tenant_id: int) -> int:
    """Rate what has no price yet, after prices were added; answers how many events got one."""
    condition = (
        f"e.cost_source = {CostSource.UNPRICED.value}"
        f" AND e.completeness <> {Completeness.MISSING.value} AND (e.time, e.id) > (%s, %s)"
    )
    return _rerate_chunks(tenant_id, condition, (), False, None).newly_priced


def _rerate_chunks(
    tenant_id: int,
    condition: str,
    parameters: Sequence[Any],
    is_dry_run: bool,
    progress: Progress | None,
) -> RerateSummary:
    summary = NO_CHANGE
    after: tuple[datetime, int] = (BEGINNING, 0)
    configuration: Configuration | None = None
    while True:
        configuration = read_configuration(tenant_id, known=configuration)
        with tenant_scope(tenant_id):
            if lock_configuration_shared(tenant_id) != configuration.version:
                continue
            events = lock_events(
                tenant_id=tenant_id,
                condition=condition,
                parameters=[*parameters, *after],
                limit=CHUNK_EVENTS,
            )
            if not events:
                return summary
            reratings = [_rate(configuration, event) for event in events]
            summary = summary.plus(_summary(reratings))
            if not is_dry_run:
                _apply(configuration, [one for one in reratings if one.is_change])
        after = (events[-1].time, events[-1].id)
        if progress is not None:
            progress(len(events))


def _rate(configuration: Configuration, event: StoredEvent) -> _Rerating:
    if event.completeness == Completeness.MISSING:
        # No price makes up for usage that nobody told.
        return _Rerating(event, Rating(0, None, "unpriced"), CostSource.UNPRICED, None)
    rating = configuration.prices.rate(
        provider=event.provider or None,
        model=event.model or None,
        at=event.time,
        tokens=event.tokens,
        service_tier=event.service_tier,
        tool=event.tool or None,
        operation=OPERATIONS[event.operation],
    )
    source = SOURCES[rating.source]
    return _Rerating(event, rating, source, configuration.cost_of(rating, event.tokens))


def _summary(reratings: Sequence[_Rerating]) -> RerateSummary:
    changed = [one for one in reratings if one.is_change]
    unpriced = CostSource.UNPRICED
    return RerateSummary(
        examined=len(reratings),
        changed=len(changed),
        newly_priced=sum(
            1 for one in changed if one.event.cost_source == unpriced and one.source is not unpriced
        ),
        still_unpriced=sum(1 for one in reratings if one.source is unpriced),
        difference_nanos=sum(
            (one.cost_nanos or 0) - (one.event.cost_nanos or 0) for one in changed
        ),
    )


def _apply(configuration: Configuration, reratings: Sequence[_Rerating]) -> None:
    """Write new ratings: the events' rating, the roll-ups that hold them, and last the balances."""
    if not reratings:
        return
    tenant_id = configuration.tenant_id
    rolled_up = lock_batches(
        tenant_id=tenant_id, batch_ids={one.event.batch_id for one in reratings}
    )
    summed = [one.event.id for one in reratings if one.event.batch_id in rolled_up]
    post_deltas(tenant_id=tenant_id, event_ids=summed, sign=-1)
    _update_ratings(tenant_id, reratings)
    post_deltas(tenant_id=tenant_id, event_ids=summed, sign=1)
    changes = [
        Change(one.event, one.event._replace(cost_nanos=one.cost_nanos)) for one in reratings
    ]
    post(
        book=configuration.budgets,
        sums=added_up(movements(configuration.budgets, changes)),
        kind=EntryKind.RERATE,
        batch_id=None,
    )


def _update_ratings(tenant_id: int, reratings: Sequence[_Rerating]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE usage_event e SET cost_nanos = n.cost_nanos, price_id = n.price_id,
                cost_source = n.cost_source
            FROM unnest(%s::bigint[], %s::timestamptz[], %s::bigint[], %s::bigint[], %s::smallint[])
                AS n (id, time, cost_nanos, price_id, cost_source)
            WHERE e.tenant_id = %s AND e.id = n.id AND e.time = n.time
            """,
            [
                [one.event.id for one in reratings],
                [one.event.time for one in reratings],
                [one.cost_nanos for one in reratings],
                [one.rating.price_id for one in reratings],
                [one.source.value for one in reratings],
                tenant_id,
            ],
        )
