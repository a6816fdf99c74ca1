"""Rolling windows let go of what is older than their period, a grain at a time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from django.db import connection

from common.queries import Parameter, Row
from metering.budgets.index import BudgetIndex
from metering.core.amounts import NOTHING, Amounts
from metering.ledger.crossings import NO_LEVEL_CHANGES, LevelChanges, settle_levels
from metering.ledger.posting import Posting, move_statement
from metering.ledger.windows import read_states
from metering.models import BudgetWindow, EntryKind, FellBy

_LEAVING: Final = """
    SELECT w.id, e.cost_nanos, e.tokens, e.requests, e.tool_calls
    FROM unnest(%s::bigint[], %s::timestamptz[]) AS n (id, until)
    JOIN budget_window w ON w.tenant_id = %s AND w.id = n.id
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(cost_nanos), 0) AS cost_nanos, coalesce(sum(tokens), 0) AS tokens,
            coalesce(sum(requests), 0)::bigint AS requests,
            coalesce(sum(tool_calls), 0)::bigint AS tool_calls
        FROM ledger_entry l WHERE l.tenant_id = w.tenant_id AND l.window_id = w.id
            AND l.grain_at >= w.counted_from AND l.grain_at < n.until
    ) e
"""
_NOTE: Final = """
    UPDATE budget_window w SET counted_from = n.until, oldest_grain_at = (
        SELECT min(l.grain_at) FROM ledger_entry l
        WHERE l.tenant_id = w.tenant_id AND l.window_id = w.id AND l.grain_at >= n.until
    )
    FROM unnest(%s::bigint[], %s::timestamptz[]) AS n (id, until)
    WHERE w.tenant_id = %s AND w.id = n.id
"""


def windows_letting_go(book: BudgetIndex, now: datetime) -> list[int]:
    """The rolling windows that count something which is older than their period."""
    return sorted(
        window_id
        for rule in book.rules.values()
        if rule.is_rolling
        for window_id in BudgetWindow.objects.filter(
            tenant_id=book.tenant_id,
            budget_id=rule.id,
            oldest_grain_at__lt=rule.counted_from(now),
        ).values_list("id", flat=True)
    )


def age_windows(
    *, book: BudgetIndex, window_ids: Sequence[int], now: datetime, waits: bool
) -> tuple[set[int], LevelChanges]:
    """Take out of rolling windows what has become older than their period, by entries that say so.

    Return the windows that were looked at, and what their levels ask of halts. Those that someone
    has locked are not looked at, unless it `waits` for them.
    """
    changes = NO_LEVEL_CHANGES
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, budget_id, counted_from FROM budget_window"
            " WHERE tenant_id = %s AND id = ANY(%s) ORDER BY id FOR UPDATE"
            + ("" if waits else " SKIP LOCKED"),
            [book.tenant_id, list(window_ids)],
        )
        rows = cursor.fetchall()
        untils = dict(_untils(book, rows, now))
        if untils:
            places: list[Parameter] = [list(untils), list(untils.values()), book.tenant_id]
            cursor.execute(_LEAVING, places)
            sums = {
                # No grain of its own: it belongs to the grains it cancels, which are never summed
                # again.
                Posting(window_id, None): Amounts(*(-part for part in amounts))
                for window_id, *amounts in cursor.fetchall()
                if Amounts(*amounts) != NOTHING
            }
            if sums:
                statement, parameters = move_statement(
                    tenant_id=book.tenant_id,
                    sums=sums,
                    kind=EntryKind.AGED_OUT,
                    batch_id=None,
                    now=now,
                )
                cursor.execute(statement, parameters)
            cursor.execute(_NOTE, places)
            states = read_states(cursor, book.tenant_id, list(untils))
            changes = settle_levels(book=book, windows=states, by=FellBy.AGED, now=now)
    return {row[0] for row in rows}, changes


def _untils(
    book: BudgetIndex, rows: Sequence[Row], now: datetime
) -> Sequence[tuple[int, datetime]]:
    """The windows that have something to let go of, and until when."""
    untils = []
    for window_id, budget_id, counted_from in rows:
        rule = book.rules.get(budget_id)
        if rule is None or counted_from is None:
            continue
        until = rule.counted_from(now)
        if until > counted_from:
            untils.append((window_id, until))
    return untils
