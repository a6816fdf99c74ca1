"""Batches of commands committed: prepared outside of the transaction, and tried again if need be.

A command is prepared (`Command.prepare`), its windows are opened, and `Batch` locks, decides and
writes.
"""

from collections.abc import Sequence
from itertools import chain
from uuid import UUID

import structlog
from django.db import DatabaseError, IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from common.database_errors import is_of_value, sqlstate_of
from common.errors import InvalidRequest, MeteringError, NotFound, without_frames
from metering.budgets.index import WindowKey
from metering.calls.retries import with_retries
from metering.calls.storage import KnownBefore
from metering.ledger.holds import (
    EXPIRED,
    Held,
    HoldMoves,
    are_known,
    find_held,
    lock_due,
    remember_held,
    write_reservations,
)
from metering.ledger.opening import with_windows
from metering.ledger.posting import lock_windows, move
from metering.limits.lockouts import follow_levels
from metering.models import EntryKind
from metering.reservations.admission import NotAsExpected
from metering.reservations.batch import Batch, Strategy, may_combine
from metering.reservations.commands import Command, ReservationCommand, Reserve
from metering.snapshot import (
    CHANGES_MAX,
    Configuration,
    ConfigurationChanged,
    known_configuration,
    read_configuration,
)
from tenants.scope import lock_configuration_shared, tenant_scope

log = structlog.get_logger(__name__)


def run_batch(tenant_id: int, commands: Sequence[Command]) -> Sequence[Command]:
    """Do what callers of one tenant want, in one transaction; an error of one fails no other.

    Raises OperationalError if the database cannot be reached: nothing was granted, and what was
    committed without an answer is recognized when it is sent again. Raises DataError or
    IntegrityError if the database refuses a value of one of several commands, which are then
    committed one by one. Nothing is ever left to do: returns no commands.
    """

    def commit() -> None:
        pending = _not_committed(tenant_id, commands)
        for command in pending:
            command.was_attempted = isinstance(command, Reserve)
        if pending:
            _commit(tenant_id, pending)

    try:
        with_retries(tenant_id, commit)
    except DatabaseError as error:
        if len(commands) > 1 or not is_of_value(error):
            raise
        if isinstance(error, IntegrityError):
            if _not_committed(tenant_id, commands):
                raise
            return ()
        log.warning("values not stored", tenant_id=tenant_id, sqlstate=sqlstate_of(error))
        commands[0].error = InvalidRequest("The request holds a value that cannot be stored.")
    return ()


def _not_committed(tenant_id: int, commands: Sequence[Command]) -> list[Command]:
    """Return the commands that an earlier attempt, whose commit was not answered, did not commit.

    Only reservations need this: the others see from what is stored that they are done.
    """
    attempted = {
        command.id for command in commands if isinstance(command, Reserve) and command.was_attempted
    }
    if not attempted:
        return list(commands)
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM reservation WHERE tenant_id = %s AND id = ANY(%s)",
            [tenant_id, list(attempted)],
        )
        committed = {row[0] for row in cursor.fetchall()}
    return [
        command
        for command in commands
        if not (isinstance(command, Reserve) and command.id in committed)
    ]


def _commit(tenant_id: int, commands: Sequence[Command]) -> None:
    """Prepare and run the commands by the configuration in force."""
    configuration = known_configuration(tenant_id)
    for _ in range(CHANGES_MAX):
        held = _find_held(tenant_id, commands)
        able = [command for command in commands if prepare(command, configuration, held)]
        if not able:
            return
        try:
            made = _run(configuration, able, held)
        except ConfigurationChanged:
            configuration = read_configuration(tenant_id, known=configuration)
            continue
        for reservation in made:
            remember_held(tenant_id, reservation)
        return
    raise OperationalError("what the calls count in changed again and again")


def _find_held(tenant_id: int, commands: Sequence[Command]) -> dict[UUID, Held]:
    ids = {
        command.reservation_id for command in commands if isinstance(command, ReservationCommand)
    }
    if are_known(tenant_id, ids):
        return find_held(tenant_id, ids)
    with tenant_scope(tenant_id):
        return find_held(tenant_id, ids)


def prepare(command: Command, configuration: Configuration, held: dict[UUID, Held]) -> bool:
    """Return whether the command can go on; if not, it has its error."""
    command.reset()
    reservation = None
    try:
        if isinstance(command, ReservationCommand):
            reservation = held.get(command.reservation_id)
            if reservation is None:
                raise NotFound.of("reservation", command.reservation_id)
        command.prepare(configuration, reservation)
    except MeteringError as error:
        command.error = without_frames(error)
        return False
    return True


def windows_wanted(commands: Sequence[Command]) -> set[WindowKey]:
    """Return the windows that must exist. Many commands have the same keys, in one tuple."""
    wanted = [command.window_keys() for command in commands]
    return set(chain.from_iterable({id(each): each for each in wanted}.values()))


def _run(
    configuration: Configuration, commands: Sequence[Command], held: dict[UUID, Held]
) -> Sequence[Held]:
    """Run prepared commands in one transaction, in the fastest way that can; return what is
    granted.
    """
    own = configuration._replace(
        budgets=with_windows(configuration.budgets, windows_wanted(commands))
    )
    strategy = Strategy.COMBINED if may_combine(own, commands) else Strategy.STEPWISE
    while True:
        batch = Batch(own, commands, held, strategy=strategy)
        try:
            with transaction.atomic():
                batch.run()
        except NotAsExpected:
            strategy = Strategy.STEPWISE
        except KnownBefore:
            strategy = Strategy.CAREFUL
        else:
            return batch.admission.made
        for command in commands:
            prepare(command, configuration, held)


def expire_due(tenant_id: int) -> int:
    """Give back what reservations hold whose time is over; return how many reservations ended.

    Batches do the same for themselves: this is for tenants without any.
    """
    book = known_configuration(tenant_id).budgets
    moves = HoldMoves()
    ended = 0
    with tenant_scope(tenant_id):
        lock_configuration_shared(tenant_id)
        due = lock_due(tenant_id)
        now = timezone.now()
        for reservation in due.values():
            reservation.finish(EXPIRED, now)
            reservation.give_back(moves)
            ended += 1
        with connection.cursor() as cursor:
            write_reservations(cursor, tenant_id, due.values())
        if moves:
            held = moves.by_window()
            locked = lock_windows(book=book, window_ids=set(held))
            changes = move(
                book=book,
                locked=locked,
                sums={},
                holds=moves.by_window(),
                kind=EntryKind.SETTLE,
                batch_id=None,
            )
            follow_levels(book, changes)
    # Fewer than are due if this clock is behind the database's: not to be tried again immediately.
    return ended
