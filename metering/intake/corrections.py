"""Corrections: a stored event voided or replaced, by new ledger entries. The event's row stays."""

from datetime import datetime
from typing import Final, NamedTuple

import msgspec
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from common.errors import Conflict, EventRejected, InvalidRequest, NotFound
from metering.calls.identities import lock_merging
from metering.calls.inheritance import held_of
from metering.calls.movements import Change, added_up, movements, sums_by_posting
from metering.calls.preparation import IncomingReport, prepare_event
from metering.calls.prepared_event import PreparedEvent, fingerprint_of
from metering.calls.reading import lock_events
from metering.calls.retries import with_retries
from metering.calls.seals import keys_kept
from metering.calls.storage import copy_incoming, insert_incoming, next_batch_id, write_batch_row
from metering.ledger.opening import with_windows
from metering.ledger.posting import post
from metering.limits.lockouts import follow_levels
from metering.models import BATCH_ID_STRIDE, Correction, EntryKind, Route
from metering.rollups import lock_batches, post_deltas
from metering.snapshot import Configuration, read_configuration
from metering.usage.columns import StoredEvent
from metering.usage.decoders.native import EventBody
from metering.usage.event_keys import key_of_id
from tenants.audit import record_change
from tenants.scope import lock_configuration_shared, tenant_scope

VOID: Final = "void"
REPLACE: Final = "replace"


class AlreadyCorrected(Conflict):
    """The event was voided or replaced before, otherwise than this."""

    code = "already_corrected"


class _SettledMeanwhile(Exception):
    """The event became the call of a reservation after its replacement was prepared."""


class Corrected(NamedTuple):
    """What a correction did."""

    correction_id: int
    voided_nanos: int | None
    replacement_nanos: int | None


class _Asked(NamedTuple):
    source: str
    sent_id: str
    replacement: EventBody | None
    reason: str
    actor: str

    @property
    def action(self) -> str:
        return VOID if self.replacement is None else REPLACE

    @property
    def fingerprint(self) -> str:
        """Equal for equal corrections, so that a retry is recognized."""
        body = self.replacement or EventBody(id=self.sent_id)
        return fingerprint_of(body)


def correct_event(
    *,
    tenant_id: int,
    source: str,
    sent_id: str,
    replacement: EventBody | None,
    reason: str,
    actor: str,
) -> Corrected:
    """Take an event back (and put `replacement` in its place); the same correction twice counts
    once.

    One transaction: the event's amounts leave every window and roll-up, and the replacement's
    enter. A window of both gets the difference, so that no level falls and is reached again.
    Raises NotFound, AlreadyCorrected, or InvalidRequest for a replacement that no event may be.
    """
    asked = _Asked(source, sent_id, replacement, reason, actor)
    corrected: list[Corrected] = []
    with_retries(tenant_id, lambda: corrected.append(_correct_as_configured(tenant_id, asked)))
    return corrected[-1]


def _correct_as_configured(tenant_id: int, asked: _Asked) -> Corrected:
    configuration: Configuration | None = None
    while True:
        configuration = read_configuration(tenant_id, known=configuration)
        new = None if asked.replacement is None else _prepare(configuration, asked)
        keys = new.windows if isinstance(new, PreparedEvent) else ()
        own = configuration._replace(budgets=with_windows(configuration.budgets, keys))
        try:
            with tenant_scope(tenant_id):
                if lock_configuration_shared(tenant_id) == configuration.version:
                    return _correct(own, asked, new)
        except _SettledMeanwhile:
            pass  # prepared again as the call of its reservation


def _correct(
    configuration: Configuration, asked: _Asked, prepared: PreparedEvent | EventRejected | None
) -> Corrected:
    tenant_id = configuration.tenant_id
    lock_merging(tenant_id)
    event_id, event_at = _find(tenant_id, asked)
    events = lock_events(
        tenant_id=tenant_id,
        condition="e.id = %s AND e.time = %s",
        parameters=[event_id, event_at],
        limit=1,
    )
    earlier = Correction.objects.filter(
        tenant_id=tenant_id, source=asked.source, sent_id=asked.sent_id
    ).last()
    if earlier is not None and (
        earlier.action == asked.action and earlier.fingerprint.hex == asked.fingerprint
    ):
        return _answer(tenant_id, earlier)
    if not events:
        raise AlreadyCorrected(
            f"The event {asked.sent_id!r} was voided before; post a new event instead."
        )
    event, new = events[0], _accepted(prepared)
    if new is not None and new.sent_body.reservation is None and event.reservation_id is not None:
        raise _SettledMeanwhile
    _take_back(configuration, event)
    replacement_id = None if new is None else _put_in(tenant_id, new)
    _post(configuration, event, new, replacement_id)
    correction = Correction.objects.create(
        tenant_id=tenant_id,
        event_id=event.id,
        source=asked.source,
        sent_id=asked.sent_id,
        action=asked.action,
        reason=asked.reason,
        actor=asked.actor,
        replacement_event_id=replacement_id,
        fingerprint=asked.fingerprint,
    )
    record_change(
        tenant_id=tenant_id,
        actor=asked.actor,
        action=asked.action,
        subject=correction,
        before={"cost_nanos": event.cost_nanos},
        after={"cost_nanos": new.cost_nanos if new else None, "reason": asked.reason},
    )
    return Corrected(correction.id, event.cost_nanos, new.cost_nanos if new else None)


def _find(tenant_id: int, asked: _Asked) -> tuple[int, datetime]:
    with connection.cursor() as cursor:
        # FOR UPDATE: two corrections of one event come one after the other.
        cursor.execute(
            "SELECT event_id, event_at FROM event_key WHERE tenant_id = %s AND key = %s FOR UPDATE",
            [tenant_id, key_of_id(asked.source, asked.sent_id)],
        )
        row = cursor.fetchone()
    if row is None:
        days = keys_kept().days
        raise NotFound(
            f"There is no event {asked.sent_id!r} of the source {asked.source!r} among those of the"
            f" last {days} days. Older ones can no longer be corrected."
        )
    return row[0], row[1]


def _answer(tenant_id: int, correction: Correction) -> Corrected:
    """Return what the same correction did the first time."""
    ids = [correction.event_id, correction.replacement_event_id]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, cost_nanos FROM usage_event WHERE tenant_id = %s AND id = ANY(%s)",
            [tenant_id, [id_ for id_ in ids if id_ is not None]],
        )
        costs: dict[int | None, int | None] = dict(cursor.fetchall())
    return Corrected(
        correction.id, costs.get(correction.event_id), costs.get(correction.replacement_event_id)
    )


def _prepare(configuration: Configuration, asked: _Asked) -> PreparedEvent | EventRejected:
    assert asked.replacement is not None
    body = asked.replacement
    with tenant_scope(configuration.tenant_id):
        if body.reservation is None:
            body = msgspec.structs.replace(body, reservation=_reservation_of(asked, configuration))
        held = held_of(configuration.tenant_id, body)
    return prepare_event(
        IncomingReport(0, body, held),
        now=timezone.now(),
        route=Route.CORRECTION,
        configuration=configuration,
    )


def _reservation_of(asked: _Asked, configuration: Configuration) -> str | None:
    """Return the reservation of the call that is replaced: a settle names it in its path, not in
    its body, and what replaces it goes to the windows that the reservation holds, too.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT e.reservation_id::text FROM event_key k JOIN usage_event e"
            " ON e.tenant_id = k.tenant_id AND e.id = k.event_id AND e.time = k.event_at"
            " WHERE k.tenant_id = %s AND k.key = %s",
            [configuration.tenant_id, key_of_id(asked.source, asked.sent_id)],
        )
        row = cursor.fetchone()
    return None if row is None else row[0]


def _accepted(prepared: PreparedEvent | EventRejected | None) -> PreparedEvent | None:
    if isinstance(prepared, EventRejected):
        error = prepared.as_error(0)
        error["pointer"] = f"/event{error.get('pointer', '')}"
        raise InvalidRequest(f"The replacement is not an event: {prepared.detail}", errors=[error])
    return prepared


def _take_back(configuration: Configuration, event: StoredEvent) -> None:
    tenant_id = configuration.tenant_id
    rolled_up = lock_batches(tenant_id=tenant_id, batch_ids=[event.batch_id])
    if rolled_up:
        post_deltas(tenant_id=tenant_id, event_ids=[event.id], sign=-1)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE usage_event SET is_void = true WHERE tenant_id = %s AND id = %s AND time = %s",
            [tenant_id, event.id, event.time],
        )


def _put_in(tenant_id: int, new: PreparedEvent) -> int:
    """Store the replacement as an event of a batch of its own, under the same key."""
    with connection.cursor() as cursor:
        batch_id = next_batch_id(cursor)
        event_id = batch_id * BATCH_ID_STRIDE
        copy_incoming(cursor, [new], event_id)
        insert_incoming(cursor)
        write_batch_row(cursor, tenant_id, batch_id, 1, [new.at])
        _lead_keys(cursor, tenant_id, new, event_id)
    return event_id


def _post(
    configuration: Configuration,
    event: StoredEvent,
    new: PreparedEvent | None,
    replacement_id: int | None,
) -> None:
    """Move every window by what it loses and gains, in one posting: windows are locked in the order
    of their ids once.
    """
    book = configuration.budgets
    moves = movements(book, [Change(event, None)])
    if new is not None:
        moves.append(sums_by_posting(book, [new]))
    batch_id = event.batch_id if replacement_id is None else replacement_id // BATCH_ID_STRIDE
    sums = added_up(moves)
    changes = post(book=book, sums=sums, kind=EntryKind.CORRECTION, batch_id=batch_id)
    follow_levels(book, changes)


def _lead_keys(cursor: CursorWrapper, tenant_id: int, new: PreparedEvent, event_id: int) -> None:
    """From now on the event's id, and its provider's response, lead to the replacement."""
    cursor.execute(
        "UPDATE event_key SET event_id = %s, event_at = %s, fingerprint = %s"
        " WHERE tenant_id = %s AND key = %s",
        [event_id, new.at, new.fingerprint, tenant_id, new.key],
    )
    # Else the report would seem to be of no stored call, and be booked once more.
    cursor.execute(
        "UPDATE call_report SET event_id = %s, event_at = %s WHERE tenant_id = %s AND key = %s",
        [event_id, new.at, tenant_id, new.key],
    )
    if new.response_key is not None:
        # The response that was reported first stays known; another one gets a key of its own.
        cursor.execute(
            "INSERT INTO event_key (tenant_id, key, response_key, fingerprint, event_id, event_at)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                tenant_id,
                new.response_key,
                new.response_key,
                new.fingerprint,
                event_id,
                new.at,
            ],
        )
