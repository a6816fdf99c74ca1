"""Reservations and what is left, as of now: a hold whose time is over counts no more, whether or
not it has been given back yet.
"""

import json
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import connection
from django.utils import timezone

from metering.budgets.index import BudgetIndex, WindowKey
from metering.budgets.levels import WindowBalance
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule
from metering.core.match import Values, group_key
from metering.ledger.holds import EXPIRED, OPEN, RELEASED, SETTLED
from metering.ledger.windows import WindowState, balance_of, read_windows
from metering.models import Reservation
from metering.reporting.unknown_holds import unknown_by_window, window_from

OUTCOMES: Final = {OPEN: None, SETTLED: "known", RELEASED: "not_run", EXPIRED: "unknown"}


class Balance(NamedTuple):
    """A window that calls with some values count in: as it is stored (None: not used yet),
    its balance, and what was held in it for calls of an unknown outcome.
    """

    rule: BudgetRule
    key: WindowKey
    window: WindowState | None
    balance: WindowBalance
    unknown_nanos: int


def read_balances(tenant_id: int, values: Values, *, at: datetime | None = None) -> list[Balance]:
    """Return every window that a call with these values counts in at a time, or else would count in
    now, in order of budgets.
    """
    now = timezone.now()
    book = read_budget_index(tenant_id)
    keys = book.windows_of(values, at or now)
    windows = read_windows(book, keys)
    due = _due_holds(tenant_id, [window.id for window in windows.values()])
    unknown = unknown_by_window(
        tenant_id,
        [
            window_from(book.rules[key.budget_id], window.id, window.starts_at, now)
            for key, window in windows.items()
        ],
        now=now,
    )
    return [
        Balance(
            book.rules[key.budget_id],
            key,
            window,
            _room(book, key, window, due, now=now),
            unknown.get(window.id, 0) if window else 0,
        )
        for key in keys
        for window in [windows.get(key)]
    ]


def _room(
    book: BudgetIndex,
    key: WindowKey,
    window: WindowState | None,
    due: dict[int, list[int]],
    *,
    now: datetime,
) -> WindowBalance:
    rule = book.rules[key.budget_id]
    if window is None:
        return WindowBalance(raised=rule.raised(group_key(key.group), now))
    balance = balance_of(rule, window, now=now)
    balance.hold(due.get(window.id, (0, 0, 0, 0)), sign=-1)
    return balance


def _due_holds(tenant_id: int, window_ids: Collection[int]) -> dict[int, list[int]]:
    """Return what open reservations whose time is over still hold in these windows."""
    if not window_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT window_id, sum(reserved_nanos), sum(reserved_tokens),
                sum(reserved_requests)::bigint, sum(reserved_tool_calls)::bigint
            FROM reservation, unnest(window_ids) AS window_id
            WHERE tenant_id = %s AND state = {OPEN} AND expires_at <= now()
                AND window_id = ANY(%s)
            GROUP BY window_id
            """,
            [tenant_id, list(window_ids)],
        )
        return {window_id: amounts for window_id, *amounts in cursor.fetchall()}


def find_reservation(tenant_id: int, reservation_id: UUID) -> Reservation | None:
    """Return a reservation as it stands now: expired once its time is over."""
    reservation = Reservation.objects.filter(tenant_id=tenant_id, id=reservation_id).first()
    if (
        reservation is not None
        and reservation.state == OPEN
        and reservation.expires_at <= timezone.now()
    ):
        reservation.state = EXPIRED
        reservation.finished_at = reservation.expires_at
    return reservation


def outcome_of(reservation: Reservation) -> str | None:
    """Return what is known of the call that a reservation was for; None while it is open.

    `unknown`: its time is over and the call, which may have run, was not reported.
    """
    return OUTCOMES[reservation.state]


def held_windows(tenant_id: int, reservation: Reservation) -> list[dict[str, Any]]:
    """Return the windows that a reservation holds or held: budget, group and period."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT w.budget_id, b.name, b.per, w.group_key, w.starts_at, w.ends_at"
            " FROM budget_window w JOIN budget b ON b.tenant_id = w.tenant_id"
            " AND b.id = w.budget_id WHERE w.tenant_id = %s AND w.id = ANY(%s) ORDER BY w.id",
            [tenant_id, reservation.window_ids],
        )
        return [
            {
                "budget": budget_id,
                "name": name,
                "group": dict(zip(per, json.loads(key), strict=False)),
                "window_start": starts_at,
                "window_end": ends_at,
            }
            for budget_id, name, per, key, starts_at, ends_at in cursor.fetchall()
        ]
