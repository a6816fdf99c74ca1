"""Halts that levels make: they end with their period, or with their cause before that."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db import connection, transaction
from django.utils import timezone

from common.queries import Parameter
from metering.budgets.index import BudgetIndex
from metering.budgets.rules import BudgetRule
from metering.core.periods import ROLLING_SECONDS
from metering.ledger.crossings import LevelChanges, Lockout
from metering.limits.halts import forget_halts_on_commit, halts_changed, insert_halt, match_of_group
from metering.models import BY_LEVEL, Halt, HaltKind, Mode
from tenants.audit import record_change

# Which halts are lifted, in one order.
_ABOVE_LEVEL: Final = """
    SELECT h.id FROM unnest(%s::bigint[], %s::int[]) AS n (window_id, level)
    JOIN halt h ON h.tenant_id = %s AND h.window_id = n.window_id AND h.level_percent > n.level
    WHERE h.lifted_at IS NULL AND h.lifted_by <> %s ORDER BY h.id FOR UPDATE OF h
"""
_ENDED: Final = """
    SELECT id FROM halt WHERE tenant_id = %s AND lifted_at IS NULL AND ends_at <= now()
    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_OF_BUDGET: Final = """
    SELECT h.id FROM halt h JOIN budget_window w ON w.tenant_id = h.tenant_id
        AND w.id = h.window_id
    WHERE h.tenant_id = %s AND h.lifted_at IS NULL AND w.budget_id = %s
    ORDER BY h.id FOR UPDATE OF h
"""
# The most lockouts that have ended which one transaction lifts.
ENDED_MAX: Final = 500


def follow_levels(book: BudgetIndex, changes: LevelChanges, *, now: datetime | None = None) -> None:
    """Lift the lockouts that have lost their cause, and make those that levels ask for.

    In the transaction that changed the levels.
    """
    if above := changes.lifts_above:
        tenant_id = book.tenant_id
        levels = [list(above), list(above.values())]
        _lift(_ABOVE_LEVEL, tenant_id, [*levels, tenant_id, BY_LEVEL])
    for lockout in changes.lockouts:
        _lock_out(book, lockout, now or timezone.now())


def _lock_out(book: BudgetIndex, lockout: Lockout, now: datetime) -> None:
    """Halt the window's group until its period ends."""
    rule, window = lockout.rule, lockout.window
    ends_at = lockout_ends_at(rule, window.ends_at, now)
    if rule.mode != Mode.ENFORCE or (ends_at is not None and ends_at <= now):
        return
    with connection.cursor() as cursor:
        halt_id = insert_halt(
            cursor,
            tenant_id=book.tenant_id,
            match=match_of_group(rule.match, rule.per, json.loads(window.group_key)),
            reason=f"The budget {rule.name!r} has reached {lockout.used_percent}% of its limit;"
            f" it locks out at {lockout.level_percent}%.",
            kind=HaltKind.LOCKOUT,
            actor=BY_LEVEL,
            window_id=window.id,
            level_percent=lockout.level_percent,
            episode=window.episode,
            ends_at=ends_at,
        )
    if halt_id is not None:
        transaction.on_commit(halts_changed.set)


def lift_ended_lockouts(tenant_id: int) -> int:
    """Note of lockouts whose time is over that they are lifted; return the number, at most 500.

    They stop nothing from that moment on: this is for readers of the stored state.
    """
    return _lift(_ENDED, tenant_id, [tenant_id, ENDED_MAX])


def lift_lockouts_of_budget(*, tenant_id: int, budget_id: int) -> None:
    """Lift all lockouts of a budget that counts no more in the windows which caused them."""
    _lift(_OF_BUDGET, tenant_id, [tenant_id, budget_id])


def _lift(lifted: str, tenant_id: int, parameters: Sequence[Parameter]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE halt SET lifted_at = now(), lifted_by = %s, version = nextval('halt_version')"
            f" WHERE tenant_id = %s AND id IN ({lifted}) RETURNING id",
            [BY_LEVEL, tenant_id, *parameters],
        )
        ids = [row[0] for row in cursor.fetchall()]
    for halt_id in ids:
        record_change(
            tenant_id=tenant_id,
            actor=BY_LEVEL,
            action="update",
            subject=Halt(id=halt_id),
            before={"lifted_by": ""},
            after={"lifted_by": BY_LEVEL},
        )
    if ids:
        forget_halts_on_commit(tenant_id)
    return len(ids)


def lockout_ends_at(
    rule: BudgetRule, window_ends_at: datetime | None, now: datetime
) -> datetime | None:
    """When a lockout that begins now ends by itself, if its cause lasts until then: with the
    period; a rolling period after it began, when all that it was for has left. None: never.
    """
    if rule.is_rolling:
        return now + timedelta(seconds=ROLLING_SECONDS[rule.period])
    return window_ends_at
