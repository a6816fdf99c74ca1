"""Holds whose time is over and whose call was not reported: it may have run, and cost something.

What they held has been given back, and nothing was booked. A call that is reported later settles
its reservation, which ends this. A window's sum reads the newest holds only, which an index finds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from common.queries import Parameter, fetch_row, fetch_rows
from metering.budgets.rules import BudgetRule
from metering.models import ReservationState

# This many of the newest are read for a window's sum, and counted in a period.
HOLDS_MAX: Final = 10_000
# A hold is over at its time, whether or not a task has ended it yet. Each half has an index.
_OF_TIME: Final = f"""
    (SELECT {{columns}} FROM reservation WHERE tenant_id = %(tenant)s
        AND state = {ReservationState.EXPIRED.value} AND event_id IS NULL AND {{condition}}
        ORDER BY expires_at DESC, id DESC LIMIT %(limit)s)
    UNION ALL
    (SELECT {{columns}} FROM reservation WHERE tenant_id = %(tenant)s
        AND state = {ReservationState.OPEN.value} AND expires_at <= %(now)s AND {{condition}}
        ORDER BY expires_at DESC, id DESC LIMIT %(limit)s)
"""
_BY_WINDOW: Final = f"""
    SELECT w.window_id, sum(held.reserved_nanos)
    FROM ({
    _OF_TIME.format(
        columns="expires_at, created_at, window_ids, reserved_nanos",
        condition="expires_at >= %(since)s",
    )
}) held
    CROSS JOIN unnest(held.window_ids) AS held_window (id)
    JOIN unnest(%(window_ids)s::bigint[], %(window_starts)s::timestamptz[])
        AS w (window_id, starts_at)
        ON w.window_id = held_window.id AND held.created_at >= w.starts_at
    GROUP BY w.window_id
"""
_IN_PERIOD: Final = (
    "expires_at >= %(starts_at)s AND expires_at < %(ends_at)s"
    " AND (%(teams)s::text[] IS NULL OR dimensions ->> 'team' = ANY(%(teams)s))"
)
_LIST: Final = f"""
    SELECT * FROM ({
    _OF_TIME.format(
        columns="id, expires_at, created_at, dimensions, provider, model, reserved_nanos,"
        " reserved_tokens",
        condition=f"{_IN_PERIOD} AND (expires_at, id) < (%(before_at)s, %(before_id)s)",
    )
}) held ORDER BY expires_at DESC, id DESC LIMIT %(limit)s
"""
_SUM: Final = f"""
    SELECT count(*), coalesce(sum(reserved_nanos), 0)
    FROM ({_OF_TIME.format(columns="expires_at, id, reserved_nanos", condition=_IN_PERIOD)}) held
"""
_LAST_ID: Final = UUID(int=2**128 - 1)


class Window(NamedTuple):
    """A budget window, and from when on holds count in it."""

    id: int
    starts_at: datetime


class UnknownQuestion(NamedTuple):
    """Holds of a tenant that ended in a range; where teams are named, of their calls alone."""

    tenant_id: int
    starts_at: datetime
    ends_at: datetime
    now: datetime
    teams: Sequence[str] | None = None

    def parameters(self) -> dict[str, Parameter]:
        """What the statements take."""
        return {
            "tenant": self.tenant_id,
            "now": self.now,
            "starts_at": self.starts_at,
            "ends_at": self.ends_at,
            "teams": None if self.teams is None else list(self.teams),
        }


class UnknownHold(NamedTuple):
    """A hold whose call may have run. Its outcome is unknown since `expires_at`."""

    id: UUID
    expires_at: datetime
    created_at: datetime
    dimensions: dict[str, str]
    provider: str
    model: str
    reserved_nanos: int
    reserved_tokens: int


@dataclass(frozen=True)
class UnknownSum:
    """The number of holds in a period, and their sum; at least, if `is_capped`."""

    holds: int
    nanos: int

    @property
    def is_capped(self) -> bool:
        return self.holds >= HOLDS_MAX


def window_from(rule: BudgetRule, window_id: int, starts_at: datetime, now: datetime) -> Window:
    """Return a window and when it counts from: a rolling one has let go of what is older."""
    return Window(window_id, rule.counted_from(now) if rule.is_rolling else starts_at)


def unknown_by_window(
    tenant_id: int, windows: Sequence[Window], *, now: datetime
) -> dict[int, int]:
    """Return what holds of an unknown outcome had held, in nano-dollars, by window that has any."""
    if not windows:
        return {}
    parameters = {
        "tenant": tenant_id,
        "now": now,
        "limit": HOLDS_MAX,
        "since": min(window.starts_at for window in windows),
        "window_ids": [window.id for window in windows],
        "window_starts": [window.starts_at for window in windows],
    }
    return {window_id: nanos for window_id, nanos in fetch_rows(_BY_WINDOW, parameters) if nanos}


def list_unknown(
    question: UnknownQuestion, *, limit: int, before: tuple[datetime, UUID] | None = None
) -> list[UnknownHold]:
    """Return holds of an unknown outcome, the latest first; `before` is where the page before
    ended.
    """
    before_at, before_id = before or (question.ends_at, _LAST_ID)
    page = {"before_at": before_at, "before_id": before_id, "limit": limit}
    rows = fetch_rows(_LIST, question.parameters() | page)
    return [UnknownHold._make((*row[:3], json.loads(row[3]), *row[4:])) for row in rows]


def sum_unknown(question: UnknownQuestion) -> UnknownSum:
    """Return the number of holds of an unknown outcome, and their sum."""
    holds, nanos = fetch_row(_SUM, question.parameters() | {"limit": HOLDS_MAX})
    return UnknownSum(min(holds, HOLDS_MAX), nanos)
