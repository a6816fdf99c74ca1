"""Rolling windows let go of what is older than their period, a grain at a time."""

from datetime import datetime

from django.db import connection

from metering.budget_rules import Amounts, BudgetBook
from metering.crossings import settle_levels
from metering.ledger import NOTHING, Posting, write_entries_and_move
from metering.models import EntryKind, FellBy
from metering.windows import read_states


def age_rolling_window(*, book: BudgetBook, window_id: int, now: datetime) -> None:
    """Take out of a rolling window what has become older than its period, by an entry that says
    so.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT budget_id, counted_from FROM budget_window WHERE tenant_id = %s AND id = %s"
            " FOR UPDATE",
            [book.tenant_id, window_id],
        )
        budget_id, counted_from = cursor.fetchone()
        rule = book.rules.get(budget_id)
        until = rule.counted_from(now) if rule is not None else None
        if counted_from is None or until is None or until <= counted_from:
            return
        cursor.execute(
            """
            SELECT coalesce(sum(cost_nanos), 0), coalesce(sum(tokens), 0),
                coalesce(sum(requests), 0), coalesce(sum(tool_calls), 0)
            FROM ledger_entry WHERE tenant_id = %s AND window_id = %s AND grain_at >= %s AND
            grain_at < %s
            """,
            [book.tenant_id, window_id, counted_from, until],
        )
        amounts = Amounts(*(-part for part in cursor.fetchone()))
        if amounts != NOTHING:
            # No grain of its own: it belongs to the grains it cancels, which are never summed
            # again.
            sums = {Posting(window_id, None): amounts}
            write_entries_and_move(cursor, book.tenant_id, sums, EntryKind.AGED_OUT, None, None)
        cursor.execute(
            "UPDATE budget_window SET counted_from = %s WHERE tenant_id = %s AND id = %s",
            [until, book.tenant_id, window_id],
        )
        states = read_states(cursor, book.tenant_id, [window_id])
    settle_levels(book=book, windows=states, by=FellBy.AGED, now=now)
