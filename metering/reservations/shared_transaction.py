"""Batches of several tenants in one transaction, where each is small and plain.

With many tenants few callers are of the same one, and most of a small transaction is what it costs
by itself: to begin, to commit, and the way to PostgreSQL and back, twice. Each statement still sees
the rows of one tenant.

Tenants are taken in the order of their ids, each with all its locks in their order, so that no two
transactions wait for each other. None of them waits long for another: what holds a tenant's rows
for longer than LOCK_MS, or is not as expected, sends that tenant to a transaction of its own.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from django.db import DatabaseError, connection, transaction

from common.database_errors import is_cut_short
from metering.calls.storage import KnownBefore
from metering.ledger.holds import are_known, find_held, remember_held
from metering.ledger.posting import Planned
from metering.reservations.admission import NotAsExpected
from metering.reservations.batch import Batch, Sent, Strategy, may_combine
from metering.reservations.commands import Command, ReservationCommand, Reserve
from metering.reservations.transaction import prepare, windows_wanted
from metering.snapshot import ConfigurationChanged, last_known_configuration
from tenants.pipeline import pipelined

# A transaction that is not held up takes less.
LOCK_MS: Final = 20
_LIMIT_WAITS: Final = f"SET LOCAL lock_timeout = {LOCK_MS}"
_UNFIT: Final = (NotAsExpected, KnownBefore, ConfigurationChanged)


class Unfit(Exception):
    """These tenants need transactions of their own."""

    def __init__(self, tenant_ids: Collection[int]) -> None:
        super().__init__(tenant_ids)
        self.tenant_ids = tenant_ids


def run_together(work: Mapping[int, Sequence[Command]]) -> Collection[int]:
    """Do what callers of these tenants want, in one transaction.

    Return the tenants for which nothing is known to be done: `run_batch` does it for each.
    """
    apart: set[int] = set()
    while rest := sorted(work.keys() - apart):
        try:
            batches = _prepared({tenant_id: work[tenant_id] for tenant_id in rest})
            if batches := [batch for batch in batches if batch.commands]:
                _run(batches)
        except Unfit as error:
            apart.update(error.tenant_ids)
        except DatabaseError as error:
            if not is_cut_short(error):
                connection.close()
            return work.keys()
        else:
            break
    return apart


def _prepared(work: Mapping[int, Sequence[Command]]) -> list[Batch]:
    """Return the batches of tenants, in this order. Raises Unfit."""
    batches, unfit = [], []
    for tenant_id, commands in work.items():
        try:
            batches.append(_batch_of(tenant_id, commands))
        except NotAsExpected:
            unfit.append(tenant_id)
    if unfit:
        raise Unfit(unfit)
    return batches


def _batch_of(tenant_id: int, commands: Sequence[Command]) -> Batch:
    """Return the batch of one tenant; raise NotAsExpected if something must be read for it."""
    configuration = last_known_configuration(tenant_id)
    ids = {each.reservation_id for each in commands if isinstance(each, ReservationCommand)}
    if configuration is None or not are_known(tenant_id, ids):
        raise NotAsExpected
    if any(command.was_attempted for command in commands):
        raise NotAsExpected
    held = find_held(tenant_id, ids)
    able = [command for command in commands if prepare(command, configuration, held)]
    book = configuration.budgets.for_transaction()
    own = configuration._replace(budgets=book)
    if book.lacking(windows_wanted(able)) or not may_combine(own, able):
        raise NotAsExpected
    return Batch(own, able, held, strategy=Strategy.SHARED)


def _run(batches: Sequence[Batch]) -> None:
    """Commit batches, in this order of their tenants. Raises Unfit: then nothing is committed."""
    with transaction.atomic():
        with pipelined() as pipeline:
            pipeline.send(_LIMIT_WAITS)
            sent = [batch.send_locks(pipeline) for batch in batches]
        planned = _decide(batches, sent)
        for command in [command for batch in batches for command in batch.commands]:
            command.was_attempted = isinstance(command, Reserve)
        with pipelined() as pipeline:
            for batch, plan in zip(batches, planned, strict=True):
                pipeline.enter_tenant(batch.tenant_id)
                batch.send_writes(pipeline, plan)
            pipeline.commit()
    for batch in batches:
        for reservation in batch.admission.made:
            remember_held(batch.tenant_id, reservation)


def _decide(batches: Sequence[Batch], sent: Sequence[Sent]) -> list[Planned | None]:
    """Return what each batch moves. Raises Unfit."""
    planned, unfit = [], []
    for batch, answers in zip(batches, sent, strict=True):
        try:
            planned.append(batch.decide(None, batch.take_locks(answers)))
        except _UNFIT:
            unfit.append(batch.tenant_id)
    if unfit:
        raise Unfit(unfit)
    return planned
