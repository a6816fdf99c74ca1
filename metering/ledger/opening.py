"""Windows come into being when something is first to count in them."""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from django.db import connection, transaction
from django.utils import timezone

from common.queries import Parameter, Row
from metering.budgets.index import BudgetIndex, WindowKey
from metering.core.match import group_key
from metering.ledger.rollover import carried_into
from metering.ledger.windows import identify_windows, read_windows
from tenants.pipeline import pipelined
from tenants.scope import tenant_scope


def open_windows(*, book: BudgetIndex, keys: Iterable[WindowKey]) -> None:
    """Make sure that a window exists for every key, and note their ids in the transaction's book.

    Called in a transaction of its own before the one that locks windows: inserting inside the
    locking transaction would take locks in the order of arrival, and two batches would block each
    other.
    """
    missing = sorted(set(keys) - book.window_ids.keys())
    if not missing:
        return
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, _opening_parameters(book, missing))
        rows = cursor.fetchall()
    _note_ids(book, missing, rows)


# What is there is found without an attempt to insert it. A window that someone else opens meanwhile
# is in neither part of the answer.
_OPEN: Final = """
    WITH wanted AS MATERIALIZED (
        SELECT * FROM unnest(%s::bigint[], %s::int[], %s::text[], %s::timestamptz[],
            %s::timestamptz[], %s::numeric[], %s::timestamptz[]) AS n (budget_id, revision,
            group_key, starts_at, ends_at, carried_nanos, counted_from)
    ), found AS MATERIALIZED (
        SELECT w.budget_id, w.revision, w.group_key, w.starts_at, w.id
        FROM wanted n JOIN budget_window w ON w.tenant_id = %s AND w.budget_id = n.budget_id
            AND w.revision = n.revision AND w.starts_at = n.starts_at
            AND w.group_key = n.group_key
    ), opened AS (
        INSERT INTO budget_window (tenant_id, id, budget_id, revision, group_key, starts_at,
            ends_at, carried_nanos, counted_from)
        SELECT %s, nextval('budget_window_id'), n.* FROM wanted n
        WHERE (n.budget_id, n.revision, n.group_key, n.starts_at)
            NOT IN (SELECT budget_id, revision, group_key, starts_at FROM found)
        ON CONFLICT DO NOTHING RETURNING budget_id, group_key, starts_at, id
    )
    SELECT budget_id, group_key, starts_at, id FROM found UNION ALL SELECT * FROM opened
"""


def _opening_parameters(book: BudgetIndex, missing: Sequence[WindowKey]) -> list[Parameter]:
    rules = [book.rules[key.budget_id] for key in missing]
    spans = [rule.clock.span(key.starts_at) for rule, key in zip(rules, missing, strict=True)]
    now = timezone.now()
    return [
        *identify_windows(book, missing),
        [span.ends_at for span in spans],
        carried_into(book, missing),
        [rule.counted_from(now) if rule.is_rolling else None for rule in rules],
        book.tenant_id,
        book.tenant_id,
    ]


def _note_ids(book: BudgetIndex, missing: Sequence[WindowKey], rows: Iterable[Row]) -> None:
    """Note what _OPEN answered, and find what someone else opened meanwhile."""
    ids = {tuple(identity): window_id for *identity, window_id in rows}
    late = []
    for key in missing:
        window_id = ids.get((key.budget_id, group_key(key.group), key.starts_at))
        if window_id is None:
            late.append(key)
        else:
            book.window_ids[key] = window_id
    if late:
        find_windows(book=book, keys=late)


def with_windows(book: BudgetIndex, keys: Collection[WindowKey]) -> BudgetIndex:
    """The book of one transaction, which knows all these windows; those that lack are opened by a
    short transaction of its own, before the one that is to lock them.
    """
    own = book.for_transaction()
    if missing := own.lacking(keys):
        opened = book.for_transaction()
        if book.has_rollover or connection.in_atomic_block:
            with tenant_scope(book.tenant_id):
                open_windows(book=opened, keys=missing)
        else:
            _open_in_one_round_trip(opened, sorted(missing))
        book.learn(opened)
        own.window_ids.update(opened.window_ids)
    return own


def _open_in_one_round_trip(book: BudgetIndex, missing: Sequence[WindowKey]) -> None:
    """Open windows that carry nothing over, in a transaction of their own: most of what a tenant's
    first call waits for is the way to the database and back. It commits: never call it inside a
    transaction.
    """
    with transaction.atomic(), pipelined() as pipeline:
        pipeline.enter_tenant(book.tenant_id)
        opening = pipeline.send(_OPEN, _opening_parameters(book, missing))
        pipeline.commit()
        rows = opening.fetchall()
    if len(rows) == len(missing):
        _note_ids(book, missing, rows)
        return
    with tenant_scope(book.tenant_id):
        _note_ids(book, missing, rows)


def find_windows(*, book: BudgetIndex, keys: Iterable[WindowKey]) -> set[WindowKey]:
    """The keys for which a window exists; their ids are remembered in the book."""
    windows = read_windows(book, keys)
    book.window_ids.update({key: window.id for key, window in windows.items()})
    return set(windows)
