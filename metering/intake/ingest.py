"""The transaction that takes usage in: dedupe, events, ledger. Acknowledged means committed.

One transaction serves one tenant and as many bodies as were waiting. In order: the configuration
lock (shared), the batch's number, the events by COPY into a temporary table (COPY straight into a
table with row security is refused by PostgreSQL), their keys, the events that turned out new, the
batch's row, and last the balances of the windows they count in.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import DatabaseError, OperationalError, connection
from django.utils import timezone

from common.database_errors import is_of_value, sqlstate_of
from common.errors import EventRejected, without_frames
from metering.calls.events import (
    PreparedEvent,
    Told,
    is_reservation_id,
    prepare_event,
    prepare_events,
    reservation_of,
    rest_of_line,
)
from metering.calls.job import Job
from metering.calls.retries import with_retries
from metering.calls.settlement import lock_named_reservations, settle_with_events
from metering.calls.storage import store_events, sums_of_stored
from metering.intake.open_traces import fingerprint_of_call, take_spans
from metering.ledger.holds import Held, are_known, find_held, lock_reservations, write_reservations
from metering.ledger.opening import with_windows
from metering.ledger.posting import post
from metering.limits.breakers import feed_breakers
from metering.limits.lockouts import follow_levels
from metering.models import BATCH_ID_STRIDE, EntryKind, Route
from metering.snapshot import (
    CHANGES_MAX,
    Configuration,
    ConfigurationChanged,
    known_configuration,
    read_configuration,
)
from metering.usage.decoders.native import Decoded, EventBody
from metering.usage.decoders.otlp import Export, SpanCall
from tenants.scope import lock_configuration_shared, tenant_scope

log = structlog.get_logger(__name__)

# The most events one transaction takes; below the number of ids a batch has.
TRANSACTION_EVENTS_MAX: Final = 10_000
assert TRANSACTION_EVENTS_MAX < BATCH_ID_STRIDE


def prepare_job(
    items: Sequence[Decoded], *, tenant_id: int, route: Route, now: datetime | None = None
) -> Job:
    """Judge every decoded item by itself; none can make another fail."""
    configuration = known_configuration(tenant_id)
    job = Job(tenant_id, route, len(items), [], configuration)
    held = _held_by(items, tenant_id)
    reports = [
        Told(index, item, _named(item, held) if held else None)
        for index, item in enumerate(items)
        if isinstance(item, EventBody)
    ]
    job.errors += [
        (index, item) for index, item in enumerate(items) if isinstance(item, EventRejected)
    ]
    prepared = prepare_events(
        reports,
        now=now or timezone.now(),
        max_age=settings.EVENT_MAX_AGE,
        tenant_id=tenant_id,
        route=route,
        configuration=configuration,
    )
    for told, event in zip(reports, prepared, strict=True):
        if isinstance(event, EventRejected):
            event.source = told.body.source
            job.errors.append((told.place, event))
        else:
            job.events.append(event)
    return job


def prepare_export(export: Export, *, tenant_id: int) -> Job:
    """The job that takes spans in."""
    return Job(
        tenant_id,
        Route.OTLP,
        len(export.spans) + len(export.rejected),
        [],
        known_configuration(tenant_id),
        errors=list(enumerate(export.rejected)),
        spans=export.spans,
        passed_over=export.passed_over,
    )


def _held_by(items: Sequence[Decoded], tenant_id: int) -> Mapping[UUID, Held]:
    """The reservations that events name, as far as they exist."""
    ids = {
        id_
        for item in items
        if isinstance(item, EventBody) and (id_ := reservation_of(item)) is not None
    }
    if not ids:
        return {}
    if are_known(tenant_id, ids):
        return find_held(tenant_id, ids)
    with tenant_scope(tenant_id):
        return find_held(tenant_id, ids)


def _named(item: EventBody, held: Mapping[UUID, Held]) -> Held | None:
    id_ = reservation_of(item)
    return None if id_ is None else held.get(id_)


def ingest(items: Sequence[Decoded], *, tenant_id: int, route: Route) -> Job:
    """Take decoded items in, in this thread. The web process combines callers instead
    (`committer`).
    """
    job = prepare_job(items, tenant_id=tenant_id, route=route)
    waiting = [job]
    while waiting:
        waiting += commit_jobs(tenant_id, [waiting.pop()])
    job.collect()
    return job


def commit_jobs(tenant_id: int, jobs: Sequence[Job]) -> Sequence[Job]:
    """Commit jobs of one tenant together.

    Where the database refuses a value of a single job, although the contract let it through,
    returns smaller jobs to commit instead, until the event is found that is refused alone.

    Raises OperationalError when the database cannot be reached: nothing was acknowledged, and since
    every event carries its id, sending it again is safe.
    """
    try:
        _commit_with_retries(tenant_id, jobs)
    except DatabaseError as error:
        if len(jobs) > 1 or not is_of_value(error):
            raise
        log.warning("values not stored", tenant_id=tenant_id, sqlstate=sqlstate_of(error))
        without_frames(error)
        return jobs[0].without_what_failed()
    for job in jobs:
        job.keep_traced_errors()
    return []


def _commit_with_retries(tenant_id: int, jobs: Sequence[Job]) -> None:
    def commit() -> None:
        for job in jobs:
            job.forget_outcome()
        _commit_as_configured(tenant_id, jobs)

    with_retries(tenant_id, commit)


def _commit_as_configured(tenant_id: int, jobs: Sequence[Job]) -> None:
    """Commit jobs judged by the configuration in force, however often it changes meanwhile.

    Each turn means that somebody else's change has been committed, so somebody always gets on.
    """
    configuration = known_configuration(tenant_id)
    for _ in range(CHANGES_MAX):
        for job in jobs:
            job.judge(configuration)
        try:
            _commit(configuration, jobs)
        except ConfigurationChanged:
            configuration = read_configuration(tenant_id, known=configuration)
        else:
            return
    raise OperationalError("what the events count in changed again and again")


def _events(jobs: Iterable[Job]) -> list[PreparedEvent]:
    return [event for job in jobs for event in (*job.events, *job.traced)]


class _WindowsMissing(Exception):
    """Calls found in traces count in windows that are not open yet."""


def _commit(configuration: Configuration, jobs: Sequence[Job]) -> None:
    if not any(job.weight for job in jobs):
        return
    tenant_id = configuration.tenant_id
    is_done = False
    while not is_done:
        keys = {key for event in _events(jobs) for key in event.windows}
        own = configuration._replace(budgets=with_windows(configuration.budgets, keys))
        try:
            with tenant_scope(tenant_id):
                if lock_configuration_shared(tenant_id) != configuration.version:
                    raise ConfigurationChanged
                _write(own, jobs, _find_calls(own, jobs))
            is_done = True
        except _WindowsMissing:
            pass  # the windows of what was found are opened before the next attempt


def _find_calls(configuration: Configuration, jobs: Sequence[Job]) -> list[str]:
    """Find the calls that the jobs' spans tell of, with all that is known of their traces; answer
    the keys of reports that turned out to be none.
    """
    tracing = [job for job in jobs if job.spans]
    if not tracing:
        return []
    tenant_id = configuration.tenant_id
    for job in tracing:
        job.traced, job.traced_errors = [], []
    # Reservations before anything else, as everywhere.
    named = {span.facts.get("reservation") for job in tracing for span in job.spans}
    ids = [UUID(text) for text in named if text is not None and is_reservation_id(text)]
    lock_reservations(tenant_id, find_held(tenant_id, ids))
    now = timezone.now()
    traced = take_spans(tenant_id, (span for job in tracing for span in job.spans), now=now)
    owner = {span.key: job for job in tracing for span in job.spans}
    for call in traced.calls:
        job = owner.get(call.span.key, tracing[0])
        event = _prepare_call(call, configuration, now)
        if isinstance(event, EventRejected):
            job.traced_errors.append((0, event))
        else:
            job.traced.append(event)
    if configuration.budgets.lacking({key for event in _events(tracing) for key in event.windows}):
        raise _WindowsMissing
    return traced.withdrawn


def _prepare_call(
    call: SpanCall, configuration: Configuration, now: datetime
) -> PreparedEvent | EventRejected:
    if isinstance(call.body, EventRejected):
        return call.body
    reservation_id = reservation_of(call.body)
    held = find_held(configuration.tenant_id, [reservation_id]) if reservation_id else {}
    event = prepare_event(
        Told(
            0,
            call.body,
            held.get(reservation_id) if reservation_id else None,
            tokens=call.tokens,
        ),
        now=now,
        max_age=settings.EVENT_MAX_AGE,
        tenant_id=configuration.tenant_id,
        route=Route.OTLP,
        configuration=configuration,
    )
    if isinstance(event, EventRejected):
        event.source = call.span.source
        return event
    event.fingerprint = fingerprint_of_call(call)
    event.rest = rest_of_line(event, tenant_id=configuration.tenant_id)
    return event


def _write(configuration: Configuration, jobs: Sequence[Job], withdrawn: Collection[str]) -> None:
    reservations = lock_named_reservations(configuration.tenant_id, _events(jobs))
    stored = store_events(configuration, jobs, reservations, withdrawn)
    book = configuration.budgets
    moves = settle_with_events(configuration, stored, reservations, _events(jobs))
    with connection.cursor() as cursor:
        write_reservations(cursor, configuration.tenant_id, reservations.values())
    feed_breakers(
        tenant_id=configuration.tenant_id,
        rules=configuration.breakers,
        calls=[event.reported() for event in (*stored.fresh, *stored.inserted)],
    )
    changes = post(
        book=book,
        sums=sums_of_stored(book, stored),
        kind=EntryKind.USAGE,
        batch_id=stored.batch_id,
        holds=moves,
    )
    follow_levels(book, changes)
