"""Tightenings: limits of budgets count less for what matches, while a breaker or an anomaly is
open.

The caller that opens one names its cause and ends it by that name; there is one in force for a
cause.
"""

import json
from collections.abc import Mapping
from typing import Final, NamedTuple

from django.db import connection
from django.db.backends.utils import CursorWrapper

from metering.core.match import Values, Wanted, wanted_of

REASON_CHARACTERS_MAX: Final = 1000
CAUSE_CHARACTERS_MAX: Final = 500


class ActiveLimitReduction(NamedTuple):
    """A limit reduction in force, ready to judge calls."""

    id: int
    limit_percent: int
    reason: str
    match: Mapping[str, object]
    wanted: Wanted

    def matches(self, values: Values) -> bool:
        """Whether budgets' limits count less for a call with these values."""
        return all(values[index] in wanted for index, wanted in self.wanted)


def open_limit_reduction(
    *, tenant_id: int, match: Mapping[str, object], limit_percent: int, reason: str, cause: str
) -> int | None:
    """Tighten limits to `limit_percent` of what they are, in the caller's transaction; return the
    id. None if the cause has one in force already, which stays as it is.
    """
    assert len(cause) <= CAUSE_CHARACTERS_MAX, "who opens a limit reduction names a short cause"
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO limit_reduction (tenant_id, match, limit_percent, reason, cause)"
            " VALUES (%s, %s::jsonb, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING id",
            [tenant_id, json.dumps(match), limit_percent, reason[:REASON_CHARACTERS_MAX], cause],
        )
        row = cursor.fetchone()
    return None if row is None else int(row[0])


def end_limit_reduction(*, tenant_id: int, cause: str) -> bool:
    """Let limits count in full again; return False if the cause has no limit reduction in force."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE limit_reduction SET ended_at = now()"
            " WHERE tenant_id = %s AND cause = %s AND ended_at IS NULL",
            [tenant_id, cause],
        )
        return int(cursor.rowcount) > 0


def read_limit_reductions(
    cursor: CursorWrapper, tenant_id: int
) -> tuple[ActiveLimitReduction, ...]:
    """The tenant's limit reductions in force, oldest first."""
    cursor.execute(
        "SELECT id, limit_percent, reason, match::text FROM limit_reduction"
        " WHERE tenant_id = %s AND ended_at IS NULL ORDER BY id",
        [tenant_id],
    )
    return tuple(
        ActiveLimitReduction(
            id_, limit_percent, reason, match := json.loads(text), wanted_of(match)
        )
        for id_, limit_percent, reason, text in cursor.fetchall()
    )
