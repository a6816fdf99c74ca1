"""What a period leaves unused is added to the next one's limit (budgets with rollover)."""

from collections.abc import Collection, Sequence
from datetime import datetime

from django.db import connection

from metering.budgets.index import BudgetIndex, WindowKey
from metering.budgets.rules import BudgetRule
from metering.ledger.windows import WindowState, read_states, read_windows


def carries_over(rule: BudgetRule, starts_at: datetime) -> bool:
    """Whether a window that begins then adds to its limit what the one before left unused."""
    is_first = starts_at <= rule.counts_from
    return rule.has_rollover and rule.limits["cost_nanos"] is not None and not is_first


def unused_nanos(rule: BudgetRule, *, spent: int, carried: int) -> int:
    """What a finished window hands to the next: what is left of its limit, up to the budget's
    maximum.
    """
    limit = rule.limits["cost_nanos"]
    assert limit is not None, "what has no limit leaves nothing unused"
    most = limit * rule.rollover_max_percent // 100
    return max(0, min(most, limit + carried - spent))


def carried_into(book: BudgetIndex, keys: Collection[WindowKey]) -> list[int]:
    """For each new window what its group's period before left unused, as far as it is carried."""
    before: dict[WindowKey, WindowKey] = {}
    for key in keys:
        rule = book.rules[key.budget_id]
        if carries_over(rule, key.starts_at):
            starts_at = rule.clock.before(rule.clock.span(key.starts_at)).starts_at
            before[key] = key._replace(starts_at=starts_at)
    windows = read_windows(book, before.values()) if before else {}
    return [
        unused_nanos(
            book.rules[key.budget_id],
            spent=window.spent_nanos if window else 0,
            carried=window.carried_nanos if window else 0,
        )
        if key in before
        else 0
        for key in keys
        for window in [windows.get(before[key]) if key in before else None]
    ]


def late_successors(book: BudgetIndex, window_ids: set[int]) -> list[int]:
    """Later windows of the same group: late usage changes what they carry."""
    if not book.has_rollover:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT later.id FROM budget_window w
            JOIN budget b ON b.tenant_id = w.tenant_id AND b.id = w.budget_id AND b.has_rollover
            JOIN budget_window later ON later.tenant_id = w.tenant_id AND later.budget_id =
            w.budget_id
                AND later.revision = w.revision AND later.group_key = w.group_key
                AND later.starts_at > w.starts_at
            WHERE w.tenant_id = %s AND w.id = ANY(%s)
            """,
            [book.tenant_id, list(window_ids)],
        )
        return [row[0] for row in cursor.fetchall()]


def carry_on(
    book: BudgetIndex, changed: Sequence[int], successors: Sequence[int]
) -> list[WindowState]:
    """Carry the unused part of changed windows into the ones after them, oldest first; return the
    windows whose limit moved by it. All of them are locked by the caller.
    """
    with connection.cursor() as cursor:
        states = read_states(cursor, book.tenant_id, sorted({*changed, *successors}))
        moved = _carried_now(book, states, set(successors))
        if moved:
            cursor.execute(
                "UPDATE budget_window w SET carried_nanos = n.carried"
                " FROM unnest(%s::bigint[], %s::numeric[]) AS n (id, carried)"
                " WHERE w.tenant_id = %s AND w.id = n.id",
                [
                    [window.id for window in moved],
                    [window.carried_nanos for window in moved],
                    book.tenant_id,
                ],
            )
    return moved


def _carried_now(
    book: BudgetIndex, states: Sequence[WindowState], successors: set[int]
) -> list[WindowState]:
    """The later windows that carry something else now, with what they carry. Pure."""
    by_end = {_series(window, window.ends_at): window for window in states}
    moved = []
    for window in sorted(states, key=lambda window: window.starts_at):
        rule = book.rules.get(window.budget_id)
        before = by_end.get(_series(window, window.starts_at))
        if (
            window.id not in successors
            or before is None
            or rule is None
            or rule.limits["cost_nanos"] is None
        ):
            continue
        carried_nanos = unused_nanos(rule, spent=before.spent_nanos, carried=before.carried_nanos)
        if carried_nanos != window.carried_nanos:
            later = window._replace(carried_nanos=carried_nanos)
            by_end[_series(window, window.ends_at)] = later
            moved.append(later)
    return moved


def _series(window: WindowState, at: datetime | None) -> tuple[int, int, str, datetime | None]:
    """A moment in the succession of one group's windows."""
    return window.budget_id, window.revision, window.group_key, at
