"""The transaction that takes usage in: dedupe, events, ledger. Acknowledged means committed.

One transaction serves one tenant and as many bodies as were waiting. In order: the configuration
lock (shared), the batch's number, the events by COPY into a temporary table (COPY straight into a
table with row security is refused by PostgreSQL), their keys, the events that turned out new, the
batch's row, and last the balances of the windows they count in.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from django.db import DatabaseError, OperationalError, connection
from django.utils import timezone

from common.bounded_memory import BoundedMemory
from common.database_errors import is_of_value, sqlstate_of
from common.errors import EventRejected, without_frames
from metering.calls.ingest_job import IngestJob
from metering.calls.inheritance import held_of, is_reservation_id, reservation_of
from metering.calls.preparation import IncomingReport, prepare_event, prepare_events
from metering.calls.prepared_event import PreparedEvent
from metering.calls.retries import with_retries
from metering.calls.settlement import lock_named_reservations, settle_with_events
from metering.calls.storage import KnownBefore, store_events
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
# For so long after a tenant reported a call again, all its keys are looked up before they are
# written. Otherwise they are taken for new ones, which spares a quarter of the work on them; where
# one is known after all, the transaction is done again.
RETELLING_SECONDS: Final = 60.0
# When tenants were last found to report calls again.
_RETOLD: Final = BoundedMemory[int, float](10_000)


def prepare_job(
    items: Sequence[Decoded], *, tenant_id: int, route: Route, now: datetime | None = None
) -> IngestJob:
    """Judge every decoded item by itself; none can make another fail."""
    configuration = known_configuration(tenant_id)
    job = IngestJob(tenant_id, route, len(items), [], configuration)
    held = _held_by(items, tenant_id)
    reports = []
    for index, item in enumerate(items):
        if isinstance(item, EventRejected):
            job.errors.append((index, item))
        else:
            reservation_id = reservation_of(item) if held else None
            reports.append(
                IncomingReport(index, item, held.get(reservation_id) if reservation_id else None)
            )
    prepared = prepare_events(
        reports, now=now or timezone.now(), route=route, configuration=configuration
    )
    for report, event in zip(reports, prepared, strict=True):
        if isinstance(event, EventRejected):
            event.source = report.body.source
            job.errors.append((report.position, event))
        else:
            job.events.append(event)
    return job


def prepare_export(export: Export, *, tenant_id: int) -> IngestJob:
    """Return the job that takes spans in."""
    return IngestJob(
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
    """Return the reservations that events name, as far as they exist."""
    ids = {
        id_
        for item in items
        if isinstance(item, EventBody) and (id_ := reservation_of(item)) is not None
    }
    if are_known(tenant_id, ids):
        return find_held(tenant_id, ids)
    with tenant_scope(tenant_id):
        return find_held(tenant_id, ids)


def ingest(items: Sequence[Decoded], *, tenant_id: int, route: Route) -> IngestJob:
    """Take decoded items in, in this thread. The web process combines callers instead
    (`committer`).
    """
    job = prepare_job(items, tenant_id=tenant_id, route=route)
    waiting = [job]
    while waiting:
        waiting += commit_jobs(tenant_id, [waiting.pop()])
    job.collect()
    return job


def commit_jobs(tenant_id: int, jobs: Sequence[IngestJob]) -> Sequence[IngestJob]:
    """Commit jobs of one tenant together.

    If the database refuses a value of a single job although the contract let it through, return
    smaller jobs to commit instead, until the event is found that is refused alone.

    Raises OperationalError if the database cannot be reached: nothing was acknowledged, and since
    every event carries its id, sending it again is safe.
    """
    try:
        with_retries(tenant_id, lambda: _commit_as_configured(tenant_id, jobs))
    except DatabaseError as error:
        if len(jobs) > 1 or not is_of_value(error):
            raise
        log.warning("values not stored", tenant_id=tenant_id, sqlstate=sqlstate_of(error))
        without_frames(error)
        return jobs[0].without_what_failed()
    for job in jobs:
        job.keep_traced_errors()
    return []


class _WindowsMissing(Exception):
    """Calls found in traces count in windows that are not open yet."""


def _commit_as_configured(tenant_id: int, jobs: Sequence[IngestJob]) -> None:
    """Commit jobs judged by the configuration in force, however often it changes meanwhile.

    Each repetition means that someone else's change has been committed, so someone always makes
    progress. Windows are opened beforehand, by a transaction of their own.
    """
    configuration, changes = known_configuration(tenant_id), 0
    while changes < CHANGES_MAX:
        for job in jobs:
            job.forget_outcome()
            job.judge(configuration)
        if not any(job.weight for job in jobs):
            return
        # Of the events of a body, many have the very same keys.
        keys = {id(key): key for event in _reports(jobs) for key in event.windows}.values()
        own = configuration._replace(budgets=with_windows(configuration.budgets, keys))
        try:
            with tenant_scope(tenant_id):
                if lock_configuration_shared(tenant_id) != configuration.version:
                    raise ConfigurationChanged
                _write(own, jobs)
        except (_WindowsMissing, KnownBefore):
            pass
        except ConfigurationChanged:
            configuration = read_configuration(tenant_id, known=configuration)
            changes += 1
        else:
            return
    raise OperationalError("what the events count in changed again and again")


def _write(configuration: Configuration, jobs: Sequence[IngestJob]) -> None:
    """Write what the jobs bring, in the transaction that holds the configuration: spans, events,
    reservations that they settle, breakers, and last the balances.
    """
    withdrawn = _find_calls(configuration, jobs)
    reports = _reports(jobs)
    reservations = lock_named_reservations(configuration.tenant_id, reports)
    retold_at = _RETOLD.get(configuration.tenant_id)
    are_new = retold_at is None or time.monotonic() > retold_at + RETELLING_SECONDS
    try:
        stored = store_events(configuration, jobs, reservations, withdrawn, are_new=are_new)
    except KnownBefore:
        _RETOLD.keep(configuration.tenant_id, time.monotonic())
        raise
    book = configuration.budgets
    moves = settle_with_events(configuration, stored, reservations, reports)
    with connection.cursor() as cursor:
        write_reservations(cursor, configuration.tenant_id, reservations.values())
    feed_breakers(
        tenant_id=configuration.tenant_id,
        rules=configuration.breakers,
        calls=(event.breaker_call() for event in (*stored.fresh, *stored.inserted)),
    )
    changes = post(
        book=book,
        sums=stored.sums(book),
        kind=EntryKind.USAGE,
        batch_id=stored.batch_id,
        holds=moves.by_window(),
    )
    follow_levels(book, changes)


def _reports(jobs: Iterable[IngestJob]) -> list[PreparedEvent]:
    return [event for job in jobs for event in job.reports]


def _find_calls(configuration: Configuration, jobs: Sequence[IngestJob]) -> list[str]:
    """Find the calls of the jobs' spans, with all that is known of their traces; return the keys of
    reports that turned out to be none.
    """
    tracing = [job for job in jobs if job.spans]
    if not tracing:
        return []
    tenant_id = configuration.tenant_id
    for job in tracing:
        job.traced, job.traced_errors = [], []
    # Reservations before anything else, as everywhere.
    named = {span.fields.get("reservation") for job in tracing for span in job.spans}
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
    if configuration.budgets.lacking({key for event in _reports(tracing) for key in event.windows}):
        raise _WindowsMissing
    return traced.withdrawn


def _prepare_call(
    call: SpanCall, configuration: Configuration, now: datetime
) -> PreparedEvent | EventRejected:
    if isinstance(call.body, EventRejected):
        return call.body
    held = held_of(configuration.tenant_id, call.body)
    event = prepare_event(
        IncomingReport(0, call.body, held, tokens=call.tokens),
        now=now,
        route=Route.OTLP,
        configuration=configuration,
    )
    if isinstance(event, EventRejected):
        event.source = call.span.source
        return event
    event.fingerprint = fingerprint_of_call(call)
    event.write_line(tenant_id=configuration.tenant_id)
    return event
