"""Rating again: a period's events at the prices known now, by entries that correct and never
rewrite.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final, NamedTuple

from django.db import connection

from common.errors import Conflict
from common.queries import Parameter
from metering.calls.movements import Change, added_up, movements
from metering.calls.prepared_event import COST_SOURCES
from metering.calls.reading import lock_events_of, read_events
from metering.calls.seals import read_sealed
from metering.core.background_jobs import finish_job, move_on, position_of, start_job
from metering.core.event_stretches import Position
from metering.core.periods import EPOCH
from metering.ledger.posting import post
from metering.limits.lockouts import follow_levels
from metering.models import (
    UNFINISHED,
    BackgroundJob,
    Completeness,
    CostSource,
    EntryKind,
    JobKind,
    JobState,
    UsageEvent,
)
from metering.pricing.book import Rating
from metering.rollups import lock_batches, post_deltas
from metering.rollups.counts import estimated_events
from metering.snapshot import Configuration, as_configured
from metering.usage.columns import OPERATIONS, StoredEvent
from tenants.scope import tenant_scope

# With a hundred budgets that is a second of work.
CHUNK_EVENTS: Final = 500
# Of one tenant at a time: each reads its period by itself.
RERATES_MAX: Final = 20

Progress = Callable[[int], None]


class TooManyJobs(Conflict):
    """Too many jobs of this kind are unfinished."""

    code = "too_many_jobs"


class UsageSealed(Conflict):
    """Events that are to change are sealed: their sums stand, and they are about to be dropped."""

    code = "usage_sealed"

    def __init__(self, frozen_until: datetime) -> None:
        super().__init__(
            f"Usage before {frozen_until:%Y-%m-%d} UTC is sealed and can no longer change:"
            " choose a period from then on."
        )


def require_unsealed(*, tenant_id: int, from_: datetime) -> None:
    """Raise UsageSealed where usage from then on is sealed in part. In the tenant's scope."""
    frozen_until = read_sealed(tenant_id).frozen_until
    if from_ < frozen_until:
        raise UsageSealed(frozen_until)


class RerateSummary(NamedTuple):
    """What rating again found (and, unless it was a dry run, changed)."""

    examined: int
    changed: int
    newly_priced: int
    still_unpriced: int
    difference_nanos: int

    def plus(self, other: "RerateSummary") -> "RerateSummary":
        """Return the sum of both."""
        return RerateSummary(*(left + right for left, right in zip(self, other, strict=True)))


NO_CHANGE: Final = RerateSummary(0, 0, 0, 0, 0)


class Selection(NamedTuple):
    """The events that are rated again: those of [from_, to), or those without a price."""

    from_: datetime = EPOCH
    to: datetime | None = None
    is_unpriced: bool = False


UNPRICED: Final = Selection(is_unpriced=True)


class Chunk(NamedTuple):
    """One transaction's part: what changed, the number of events, and the last (None: no more)."""

    summary: RerateSummary
    events: int
    end: Position | None


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
    no drift and running again continues. Raises UsageSealed where part of the period is sealed.
    """
    with tenant_scope(tenant_id):
        require_unsealed(tenant_id=tenant_id, from_=from_)
    selection = Selection(from_, to)
    summary, after = NO_CHANGE, Position(from_)
    while True:
        chunk = as_configured(
            tenant_id,
            partial(rerate_chunk, selection=selection, after=after, is_dry_run=is_dry_run),
        )
        summary = summary.plus(chunk.summary)
        if progress is not None:
            progress(chunk.events)
        if chunk.end is None:
            return summary
        after = chunk.end


def start_rerating(
    *, tenant_id: int, from_: datetime, to: datetime, is_dry_run: bool, actor: str
) -> BackgroundJob:
    """Start a job that rates the period again. Raises TooManyJobs and UsageSealed."""
    require_unsealed(tenant_id=tenant_id, from_=from_)
    unfinished = BackgroundJob.objects.filter(UNFINISHED, tenant_id=tenant_id, kind=JobKind.RERATE)
    if unfinished.count() >= RERATES_MAX:
        raise TooManyJobs(f"{RERATES_MAX} periods are being rated again. Try when some are done.")
    return start_job(
        tenant_id=tenant_id,
        kind=JobKind.RERATE,
        actor=actor,
        total=estimated_events(tenant_id=tenant_id, from_=from_, to=to),
        parameters={
            "from": from_.isoformat(),
            "to": to.isoformat(),
            "dry_run": is_dry_run,
        },
        after_at=from_,
    )


def start_pricing(*, tenant_id: int, actor: str) -> BackgroundJob | None:
    """Have a job rate what has no price, now that prices were added; None where nothing has none.

    The caller holds the configuration lock, so that no such job has begun with other prices.
    """
    if not UsageEvent.objects.filter(tenant_id=tenant_id, cost_source=CostSource.UNPRICED).exists():
        return None
    parameters = {"prices": prices_mark(tenant_id)}
    waiting = waiting_pricing(tenant_id)
    if waiting is not None:
        waiting.parameters = parameters
        waiting.save(update_fields=["parameters"])
        return waiting
    return start_job(
        tenant_id=tenant_id,
        kind=JobKind.PRICE_UNPRICED,
        actor=actor,
        total=estimated_events(tenant_id=tenant_id, from_=EPOCH, is_unpriced=True),
        parameters=parameters,
        after_at=EPOCH,
    )


def waiting_pricing(tenant_id: int) -> BackgroundJob | None:
    """Return a job that will rate what has no price, and has not begun."""
    return BackgroundJob.objects.filter(
        tenant_id=tenant_id, kind=JobKind.PRICE_UNPRICED, state=JobState.WAITING
    ).first()


# What decides on the cost of usage without a price: when this is as it was, no try is worth it.
_MARK: Final = """jsonb_build_array(
    (SELECT max(id) FROM tenant_price p WHERE p.tenant_id = t.id),
    (SELECT max(id) FROM catalogue_price),
    t.unpriced_policy, t.assumed_input_nanos_per_mtok, t.assumed_output_nanos_per_mtok)::text"""


def prices_mark(tenant_id: int) -> str:
    """Return a text that changes with whatever may give usage a price that has none."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {_MARK} FROM tenant t WHERE t.id = %s", [tenant_id])
        return str(cursor.fetchone()[0])


def tenants_with_other_prices() -> list[int]:
    """Tenants with usage without a price that was not tried since prices changed. Needs a platform
    scope.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH changed AS MATERIALIZED (
                SELECT t.id FROM tenant t WHERE {_MARK} IS DISTINCT FROM (
                    SELECT j.parameters ->> 'prices' FROM background_job j
                    WHERE j.tenant_id = t.id AND j.kind = '{JobKind.PRICE_UNPRICED.value}'
                    ORDER BY j.id DESC LIMIT 1)
            )
            SELECT c.id FROM changed c, LATERAL (
                SELECT FROM usage_event e WHERE e.tenant_id = c.id
                AND e.cost_source = {CostSource.UNPRICED.value} LIMIT 1
            ) unpriced
            """
        )
        return [row[0] for row in cursor.fetchall()]


def rerate_a_chunk(configuration: Configuration, job: BackgroundJob) -> None:
    """A step of such a job. In a transaction that holds the configuration shared, and the job."""
    asked = job.parameters
    is_dry_run = asked.get("dry_run", False)
    selection = UNPRICED
    if job.kind == JobKind.RERATE:
        selection = Selection(
            datetime.fromisoformat(asked["from"]), datetime.fromisoformat(asked["to"])
        )
    chunk = rerate_chunk(
        configuration, selection=selection, after=position_of(job), is_dry_run=is_dry_run
    )
    known = RerateSummary(**job.result) if job.result else NO_CHANGE
    job.result = known.plus(chunk.summary)._asdict()
    move_on(job, position=chunk.end or position_of(job), count=chunk.events)
    if chunk.end is None:
        finish_job(job, job.result)


def rerate_chunk(
    configuration: Configuration, *, selection: Selection, after: Position, is_dry_run: bool
) -> Chunk:
    """Rate the next events after a position.

    They are read and rated without a lock; those that come out otherwise are then locked and rated
    once more, as they may have changed meanwhile.
    """
    tenant_id = configuration.tenant_id
    condition = "e.time >= %s AND (e.time, e.id) > (%s, %s)"
    parameters: list[Parameter] = [after.time, *after]
    if selection.to is not None:
        condition += " AND e.time < %s"
        parameters.append(selection.to)
    if selection.is_unpriced:
        # Written out, so that the partial index of unpriced events fits.
        condition += f" AND e.cost_source = {CostSource.UNPRICED.value}"
    events = read_events(
        tenant_id=tenant_id, condition=condition, parameters=parameters, limit=CHUNK_EVENTS
    )
    reratings = {event.id: _rate(configuration, event) for event in events if _is_rated(event)}
    if not is_dry_run:
        times = {
            id_: rerating.event.time for id_, rerating in reratings.items() if rerating.is_change
        }
        locked = {
            id_: _rate(configuration, event)
            for id_, event in lock_events_of(tenant_id=tenant_id, times=times).items()
            if _is_rated(event)
        }
        reratings = {
            id_: rerating for id_, rerating in reratings.items() if id_ not in times
        } | locked
        _apply(configuration, [rerating for rerating in locked.values() if rerating.is_change])
    end = Position(events[-1].time, events[-1].id) if len(events) == CHUNK_EVENTS else None
    return Chunk(_summary(list(reratings.values())), len(events), end)


def _is_rated(event: StoredEvent) -> bool:
    return event.cost_source != CostSource.GIVEN and not event.is_void


def _rate(configuration: Configuration, event: StoredEvent) -> _Rerating:
    if event.completeness == Completeness.MISSING:
        # No price makes up for usage that no one reported.
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
    source = COST_SOURCES[rating.source]
    return _Rerating(event, rating, source, configuration.cost_of(rating, event.tokens))


def _summary(reratings: Sequence[_Rerating]) -> RerateSummary:
    changed = [rerating for rerating in reratings if rerating.is_change]
    unpriced = CostSource.UNPRICED
    return RerateSummary(
        examined=len(reratings),
        changed=len(changed),
        newly_priced=sum(
            1
            for rerating in changed
            if rerating.event.cost_source == unpriced and rerating.source is not unpriced
        ),
        still_unpriced=sum(1 for rerating in reratings if rerating.source is unpriced),
        difference_nanos=sum(
            (rerating.cost_nanos or 0) - (rerating.event.cost_nanos or 0) for rerating in changed
        ),
    )


def _apply(configuration: Configuration, reratings: Sequence[_Rerating]) -> None:
    """Write new ratings: the events' rating, the roll-ups that hold them, and last the balances."""
    if not reratings:
        return
    tenant_id = configuration.tenant_id
    rolled_up = lock_batches(
        tenant_id=tenant_id, batch_ids={rerating.event.batch_id for rerating in reratings}
    )
    summed = [rerating.event.id for rerating in reratings if rerating.event.batch_id in rolled_up]
    post_deltas(tenant_id=tenant_id, event_ids=summed, sign=-1)
    _update_ratings(tenant_id, reratings)
    post_deltas(tenant_id=tenant_id, event_ids=summed, sign=1)
    changes = [
        Change(rerating.event, rerating.event._replace(cost_nanos=rerating.cost_nanos))
        for rerating in reratings
    ]
    book = configuration.budgets
    sums = added_up(movements(book, changes))
    follow_levels(book, post(book=book, sums=sums, kind=EntryKind.RERATE, batch_id=None))


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
                [rerating.event.id for rerating in reratings],
                [rerating.event.time for rerating in reratings],
                [rerating.cost_nanos for rerating in reratings],
                [rerating.rating.price_id for rerating in reratings],
                [rerating.source.value for rerating in reratings],
                tenant_id,
            ],
        )
