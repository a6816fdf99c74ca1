"""Reservations and what is left, as of now: a hold whose time is over counts no more, whether or
not it has been given back yet.
"""

import json
from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from django.utils import timezone

from common.api.structs import Answer, GroupValues, UtcTimestamp
from common.queries import fetch_rows
from metering.budgets.index import WindowKey
from metering.budgets.levels import WindowBalance
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule
from metering.core.amounts import NOTHING, Amounts
from metering.core.match import Values, group_key
from metering.ledger.holds import EXPIRED, OPEN, RELEASED, SETTLED
from metering.ledger.windows import WindowState, balance_of, read_windows
from metering.models import Reservation
from metering.reporting.unknown_holds import unknown_by_window, window_from

# What is known of the call that a reservation was for. `unknown`: its time is over and the call,
# which may have run, was not reported.
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


class HeldWindowAnswer(Answer):
    """A window that it holds, or held."""

    budget: int
    name: str
    group: GroupValues
    window_start: UtcTimestamp
    window_end: UtcTimestamp | None


def read_balances(tenant_id: int, values: Values, *, at: datetime | None = None) -> list[Balance]:
    """Return every window that a call with these values counts in at a time, or else would count in
    now, in order of budgets.
    """
    now = timezone.now()
    budgets = read_budget_index(tenant_id)
    keys = budgets.windows_of(values, at or now)
    windows = read_windows(budgets, keys)
    due = _due_holds(tenant_id, [window.id for window in windows.values()])
    unknown = unknown_by_window(
        tenant_id,
        [
            window_from(budgets.rules[key.budget_id], window.id, window.starts_at, now)
            for key, window in windows.items()
        ],
        now=now,
    )
    balances = []
    for key in keys:
        rule, window = budgets.rules[key.budget_id], windows.get(key)
        if window is None:
            unused = WindowBalance(raised=rule.raised(group_key(key.group), now))
            balances.append(Balance(rule, key, None, unused, 0))
            continue
        balance = balance_of(rule, window, now=now)
        balance.hold(due.get(window.id, NOTHING), sign=-1)
        balances.append(Balance(rule, key, window, balance, unknown.get(window.id, 0)))
    return balances


def _due_holds(tenant_id: int, window_ids: Collection[int]) -> dict[int, Amounts]:
    """Return what open reservations whose time is over still hold in these windows."""
    if not window_ids:
        return {}
    rows = fetch_rows(
        f"""
        SELECT window_id, sum(reserved_nanos), sum(reserved_tokens),
            sum(reserved_requests)::bigint, sum(reserved_tool_calls)::bigint
        FROM reservation, unnest(window_ids) AS window_id
        WHERE tenant_id = %s AND state = {OPEN} AND expires_at <= now() AND window_id = ANY(%s)
        GROUP BY window_id
        """,
        [tenant_id, list(window_ids)],
    )
    return {window_id: Amounts(*amounts) for window_id, *amounts in rows}


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


def held_windows(tenant_id: int, reservation: Reservation) -> list[HeldWindowAnswer]:
    """Return the windows that a reservation holds or held."""
    rows = fetch_rows(
        "SELECT w.budget_id, b.name, b.per, w.group_key, w.starts_at, w.ends_at"
        " FROM budget_window w JOIN budget b ON b.tenant_id = w.tenant_id"
        " AND b.id = w.budget_id WHERE w.tenant_id = %s AND w.id = ANY(%s) ORDER BY w.id",
        [tenant_id, reservation.window_ids],
    )
    return [
        HeldWindowAnswer(budget_id, name, dict(zip(per, json.loads(key), strict=False)), *period)
        for budget_id, name, per, key, *period in rows
    ]
