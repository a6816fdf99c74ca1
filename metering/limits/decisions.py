"""Decisions other than a plain allow, each with its reasons: written with what was decided."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from django.db import connection
from django.db.models import Q

from common.queries import TakesStatements
from metering.models import Decision


class DecisionRow(NamedTuple):
    """A decision to be written. `reasons` are JSON objects, money in them as `*_usd` strings."""

    decided_at: datetime
    # allow (where a budget in shadow or warn objected), downgrade, refuse, open or close.
    decision: str
    # Of a refusal: the problem's code.
    code: str
    # The dimensions that have a value, by name.
    dimensions: Mapping[str, str]
    reasons: Sequence[Mapping[str, object]]
    reservation_id: UUID | None = None
    asked_nanos: int | None = None
    asked_tokens: int | None = None
    saved_nanos: int | None = None


_INSERT: Final = """
    INSERT INTO decision (tenant_id, id, decided_at, decision, code, reservation_id, agent,
        dimensions, asked_nanos, asked_tokens, saved_nanos, reasons)
    SELECT %s, nextval('decision_id'), n.decided_at, n.decision, n.code, n.reservation_id, n.agent,
        n.dimensions::jsonb, n.asked_nanos, n.asked_tokens, n.saved_nanos, n.reasons::jsonb
    FROM unnest(%s::timestamptz[], %s::text[], %s::text[], %s::uuid[], %s::text[], %s::text[],
        %s::bigint[], %s::bigint[], %s::bigint[], %s::text[])
        AS n (decided_at, decision, code, reservation_id, agent, dimensions, asked_nanos,
            asked_tokens, saved_nanos, reasons)
"""


def insert_decisions(cursor: TakesStatements, tenant_id: int, rows: Sequence[DecisionRow]) -> None:
    """Record decisions in the caller's transaction, in one statement."""
    if not rows:
        return
    cursor.execute(
        _INSERT,
        [
            tenant_id,
            [row.decided_at for row in rows],
            [row.decision for row in rows],
            [row.code for row in rows],
            [row.reservation_id for row in rows],
            [row.dimensions.get("agent", "") for row in rows],
            [json.dumps(row.dimensions) for row in rows],
            [row.asked_nanos for row in rows],
            [row.asked_tokens for row in rows],
            [row.saved_nanos for row in rows],
            [json.dumps(row.reasons) for row in rows],
        ],
    )


class DecisionQuestion(NamedTuple):
    """Which of a tenant's decisions; None asks for all."""

    tenant_id: int
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    agent: str | None = None
    decision: str | None = None
    code: str | None = None
    # A budget that is among the reasons.
    budget_id: int | None = None
    # Calls of one session, and of these teams.
    session: str | None = None
    teams: Sequence[str] | None = None


def list_decisions(
    question: DecisionQuestion, *, limit: int, after: tuple[datetime, int] | None = None
) -> list[Decision]:
    """Decisions by time and id, the newest first; `after` is where the page before ended."""
    decisions = Decision.objects.filter(tenant_id=question.tenant_id)
    conditions = {
        "decided_at__gte": question.starts_at,
        "decided_at__lt": question.ends_at,
        "agent": question.agent,
        "decision": question.decision,
        "code": question.code,
    }
    named = {name: value for name, value in conditions.items() if value is not None}
    decisions = decisions.filter(**named)
    if question.budget_id is not None:
        decisions = decisions.filter(reasons__contains=[{"budget": question.budget_id}])
    if question.session is not None:
        decisions = decisions.filter(dimensions__session=question.session)
    if question.teams is not None:
        decisions = decisions.filter(dimensions__team__in=list(question.teams))
    if after is not None:
        decided_at, decision_id = after
        # The first condition is what an index is entered by.
        decisions = decisions.filter(decided_at__lte=decided_at).filter(
            Q(decided_at__lt=decided_at) | Q(id__lt=decision_id)
        )
    return list(decisions.order_by("-decided_at", "-id")[:limit])


_REFUSALS: Final = """
    SELECT dimensions ->> 'session', count(*) FROM decision
    WHERE tenant_id = %s AND decision = 'refuse'
        AND dimensions -> 'session' = ANY(SELECT to_jsonb(unnest(%s::text[])))
        AND (%s OR dimensions ->> 'team' = ANY(%s))
    GROUP BY 1
"""


def refusals_by_session(
    tenant_id: int, sessions: Sequence[str], *, teams: Sequence[str] | None = None
) -> Counter[str]:
    """Return how many calls of each session were refused; with `teams`, calls of these."""
    with connection.cursor() as cursor:
        cursor.execute(_REFUSALS, [tenant_id, list(sessions), teams is None, list(teams or ())])
        return Counter(dict(cursor.fetchall()))
