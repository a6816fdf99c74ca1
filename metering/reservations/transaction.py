"""The transaction that enforces: one serves all callers of a tenant that wait in this process.
`metering.enforcement.turn_steps` has its steps.
"""

from collections.abc import Iterable, Sequence
from uuid import UUID

import structlog
from django.db import DatabaseError, IntegrityError, OperationalError, connection, transaction
from django.utils import timezone

from common.database_errors import is_of_value, sqlstate_of
from common.errors import InvalidRequest, MeteringError, NotFound, without_frames
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
    write_standings,
)
from metering.ledger.opening import with_windows
from metering.ledger.posting import (
    lock_windows,
    move,
)
from metering.limits.lockouts import follow_levels
from metering.models import EntryKind
from metering.reservations.steps import NotAsExpected, Turn, Way, fits_at_once
from metering.reservations.works import Reserve, Work
from metering.snapshot import (
    CHANGES_MAX,
    Configuration,
    ConfigurationChanged,
    known_configuration,
    read_configuration,
)
from tenants.scope import lock_configuration_shared, tenant_scope

log = structlog.get_logger(__name__)


def take_turn(tenant_id: int, works: Sequence[Work]) -> Sequence[Work]:
    """Do what callers of one tenant want, in one transaction; an error of one fails no other.

    Raises OperationalError when the database cannot be reached: nothing was granted, and what was
    committed without an answer is recognised when it is sent again. Raises DataError or
    IntegrityError where the database refuses a value of one of several works, which then are
    committed apart. Nothing is ever left to do: returns no works.
    """

    def commit() -> None:
        pending = _not_committed(tenant_id, works)
        for work in pending:
            work.was_attempted = isinstance(work, Reserve)
        _take_as_configured(tenant_id, pending)

    try:
        with_retries(tenant_id, commit)
    except DatabaseError as error:
        if len(works) > 1 or not is_of_value(error):
            raise
        if isinstance(error, IntegrityError):
            if _not_committed(tenant_id, works):
                raise
            return ()
        log.warning("values not stored", tenant_id=tenant_id, sqlstate=sqlstate_of(error))
        works[0].error = InvalidRequest("The request holds a value that cannot be stored.")
    return ()


def expire_due(tenant_id: int) -> int:
    """Give back what reservations hold whose time is over; return how many reservations ended.

    Turns do the same for themselves: this is for tenants where nobody asks for anything.
    """
    book = known_configuration(tenant_id).budgets
    moves = HoldMoves()
    ended = 0
    with tenant_scope(tenant_id):
        lock_configuration_shared(tenant_id)
        due = lock_due(tenant_id)
        now = timezone.now()
        for standing in due.values():
            standing.finish(EXPIRED, now)
            moves.add(standing.returned())
            ended += 1
        with connection.cursor() as cursor:
            write_standings(cursor, tenant_id, due.values())
        if moves:
            locked = lock_windows(book=book, window_ids=set(moves))
            changes = move(
                book=book,
                locked=locked,
                sums={},
                holds=moves,
                kind=EntryKind.SETTLE,
                batch_id=None,
            )
            follow_levels(book, changes)
    # Fewer than are due where this clock is behind the database's: not to be tried at once again.
    return ended


def _not_committed(tenant_id: int, works: Sequence[Work]) -> list[Work]:
    """The works that an earlier attempt, whose commit was not answered, did not commit after all.

    Only reservations need this: the others find by what is stored that they are done.
    """
    attempted = [work.id for work in works if isinstance(work, Reserve) and work.was_attempted]
    if not attempted:
        return list(works)
    with tenant_scope(tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM reservation WHERE tenant_id = %s AND id = ANY(%s)",
            [tenant_id, attempted],
        )
        committed = {row[0] for row in cursor.fetchall()}
    return [work for work in works if not (isinstance(work, Reserve) and work.id in committed)]


def _take_as_configured(tenant_id: int, works: Sequence[Work]) -> None:
    configuration = known_configuration(tenant_id)
    for _ in range(CHANGES_MAX if works else 0):
        try:
            _take(configuration, works)
        except ConfigurationChanged:
            configuration = read_configuration(tenant_id, known=configuration)
        else:
            return
    if works:
        raise OperationalError("what the calls count in changed again and again")


def _take(configuration: Configuration, works: Sequence[Work]) -> None:
    tenant_id = configuration.tenant_id
    for work in works:
        work.reset()
    held = _held_of(tenant_id, works)
    able = [work for work in works if _judge(work, configuration, held)]
    if not able:
        return
    for one in _run(configuration, able, held):
        remember_held(tenant_id, one)


def _run(
    configuration: Configuration, works: Sequence[Work], held: dict[UUID, Held]
) -> Sequence[Held]:
    """Do the works in one transaction, the quickest way that can; answer what is granted."""
    keys = {key for work in works for key in work.window_keys()}
    own = configuration._replace(budgets=with_windows(configuration.budgets, keys))
    way = Way.AT_ONCE if fits_at_once(own, works) else Way.STEPWISE
    while True:
        turn = Turn(own, works, held, way=way)
        try:
            with transaction.atomic():
                turn.run()
        except NotAsExpected:
            way = Way.STEPWISE
        except KnownBefore:
            way = Way.CAREFUL
        else:
            return turn.asking.made
        for work in works:
            work.reset()
            work.judge(configuration, held.get(work.named_id) if work.named_id else None)


def _held_of(tenant_id: int, works: Iterable[Work]) -> dict[UUID, Held]:
    ids = {id_ for work in works if (id_ := work.named_id) is not None}
    if are_known(tenant_id, ids):
        return find_held(tenant_id, ids)
    with tenant_scope(tenant_id):
        return find_held(tenant_id, ids)


def _judge(work: Work, configuration: Configuration, held: dict[UUID, Held]) -> bool:
    """Whether the work can go on; else it has its error."""
    id_ = work.named_id
    if id_ is not None and id_ not in held:
        work.error = NotFound(f"There is no reservation {id_}.")
        return False
    try:
        work.judge(configuration, held.get(id_) if id_ is not None else None)
    except MeteringError as error:
        work.error = without_frames(error)
        return False
    return True
