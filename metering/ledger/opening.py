"""Windows come into being when something is first to count in them."""

from collections.abc import Collection, Iterable

from django.db import connection
from django.utils import timezone

from metering.budgets.index import BudgetIndex, WindowKey
from metering.ledger.rollover import carried_into
from metering.ledger.windows import identify_windows, read_windows
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
    rules = [book.rules[key.budget_id] for key in missing]
    spans = [rule.clock.span(key.starts_at) for rule, key in zip(rules, missing, strict=True)]
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO budget_window (tenant_id, id, budget_id, revision, group_key, starts_at,
                ends_at, carried_nanos, counted_from)
            SELECT %s, nextval('budget_window_id'), n.* FROM unnest(%s::bigint[],
                %s::int[], %s::text[],
                %s::timestamptz[], %s::timestamptz[], %s::numeric[], %s::timestamptz[]) AS n
            ON CONFLICT DO NOTHING
            """,
            [
                book.tenant_id,
                *identify_windows(book, missing),
                [span.ends_at for span in spans],
                carried_into(book, missing),
                [rule.counted_from(now) if rule.is_rolling else None for rule in rules],
            ],
        )
    find_windows(book=book, keys=missing)


def with_windows(book: BudgetIndex, keys: Collection[WindowKey]) -> BudgetIndex:
    """The book of one transaction, which knows all these windows; those that lack are opened by a
    short transaction of its own, before the one that is to lock them.
    """
    own = book.for_transaction()
    if missing := own.lacking(keys):
        opened = book.for_transaction()
        with tenant_scope(book.tenant_id):
            open_windows(book=opened, keys=missing)
        book.learn(opened)
        own.window_ids.update(opened.window_ids)
    return own


def find_windows(*, book: BudgetIndex, keys: Iterable[WindowKey]) -> set[WindowKey]:
    """The keys for which a window exists; their ids are remembered in the book."""
    windows = read_windows(book, keys)
    book.window_ids.update({key: window.id for key, window in windows.items()})
    return set(windows)
