"""Sessions of a period with what they cost, beside the usual of their agent and feature.

Sessions have no roll-up: there are nearly as many as there are events. What is read is the newest
50,000 calls of the period that belong to a session, so the cost of an answer has a bound, and the
answer says when there were more. A session's agent and feature are those of its costliest part.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from django.db import connection

from metering.models import Status
from metering.reporting.conditions import on_events
from metering.reporting.question import Filters
from metering.reporting.usage import TUNING

CALLS_READ_MAX: Final = 50_000
USUAL_LOOK_BACK: Final = timedelta(days=30)
# With fewer sessions of an agent and feature nothing is usual.
USUAL_SESSIONS_MIN: Final = 5

Order = Literal["cost", "newest", "unusual"]
# PostgreSQL knows little of the newest calls and takes them for a few. A loop over sessions within
# another one, which would be right then, takes seconds.
_ONE_PASS: Final = f"{TUNING}; SET LOCAL enable_nestloop = off"
_ANY_PLAN: Final = "SET LOCAL enable_nestloop = DEFAULT"
_KEYS: Final[dict[Order, str]] = {
    "cost": "cost_nanos",
    "newest": "(extract(epoch FROM ended_at) * 1000000)::bigint",
    "unusual": "coalesce(usual_percent, -1)",
}
# A condition inside of the limit could make the scan as long as the tenant's history.
_SESSIONS: Final = f"""
    calls AS MATERIALIZED (
        SELECT session, agent, feature, model, time, status, coalesce(cost_nanos, 0) AS cost_nanos,
            NOT is_void AND {{condition}} AS is_wanted
        FROM (
            SELECT * FROM usage_event
            WHERE tenant_id = %s AND time >= %s AND time < %s AND session <> ''
            ORDER BY time DESC, id DESC LIMIT %s
        ) newest
    ), parts AS (
        SELECT session, agent, feature, sum(cost_nanos)::bigint AS cost_nanos, count(*) AS calls,
            count(*) FILTER (WHERE status = {Status.ERROR.value}) AS errors,
            min(time) AS began_at, max(time) AS ended_at
        FROM calls WHERE is_wanted GROUP BY session, agent, feature
    ), sessions AS (
        SELECT session, sum(cost_nanos)::bigint AS cost_nanos, sum(calls)::bigint AS calls,
            sum(errors)::bigint AS errors, min(began_at) AS began_at, max(ended_at) AS ended_at,
            count(DISTINCT agent) AS agents,
            (array_agg(agent ORDER BY cost_nanos DESC, agent, feature))[1] AS agent,
            (array_agg(feature ORDER BY cost_nanos DESC, agent, feature))[1] AS feature
        FROM parts GROUP BY session
    )
"""
_LIST: Final = f"""
    WITH {_SESSIONS}, usual AS (
        SELECT agent, feature,
            percentile_disc(0.5) WITHIN GROUP (ORDER BY cost_nanos) AS usual_nanos
        FROM sessions GROUP BY agent, feature HAVING count(*) >= {USUAL_SESSIONS_MIN}
    ), compared AS (
        SELECT sessions.*, usual_nanos,
            cost_nanos * 100 / nullif(usual_nanos, 0) AS usual_percent
        FROM sessions LEFT JOIN usual USING (agent, feature)
        WHERE starts_with(session, %s)
    ), page AS (
        SELECT *, {{key}} AS key FROM compared
        WHERE %s OR ({{key}}, session) < (%s, %s)
        ORDER BY key DESC, session DESC LIMIT %s
    ), models AS (
        SELECT session, array_agg(DISTINCT model) AS models
        FROM calls JOIN page USING (session) WHERE is_wanted AND model <> '' GROUP BY session
    )
    SELECT session, agent, feature, agents, cost_nanos, calls, errors, began_at, ended_at,
        usual_nanos, coalesce(models, '{{{{}}}}'), key
    FROM page LEFT JOIN models USING (session) ORDER BY key DESC, session DESC
"""
# None where the period has no more calls than are read.
_READ_SINCE: Final = """
    SELECT time FROM usage_event
    WHERE tenant_id = %s AND time >= %s AND time < %s AND session <> ''
    ORDER BY time DESC, id DESC OFFSET %s LIMIT 1
"""


class SessionQuestion(NamedTuple):
    """Which sessions of a tenant: those with calls in the range that match the filters."""

    tenant_id: int
    starts_at: datetime
    ends_at: datetime
    filters: Filters
    order: Order = "cost"
    prefix: str = ""


class SessionRow(NamedTuple):
    """A session, as far as its calls lie in what was asked. `usual_nanos` is the median of the
    sessions of its agent and feature there; None where there are too few.
    """

    session: str
    agent: str
    feature: str
    agents: int
    cost_nanos: int
    calls: int
    errors: int
    began_at: datetime
    ended_at: datetime
    usual_nanos: int | None
    models: list[str]
    key: int


class SessionPage(NamedTuple):
    """A page of sessions. `read_since` is from when on calls were read where the period has more of
    them than are read; None where all were.
    """

    rows: Sequence[SessionRow]
    has_more: bool
    read_since: datetime | None


def list_sessions(
    question: SessionQuestion, *, limit: int, after: tuple[int, str] | None = None
) -> SessionPage:
    """Return sessions in the order that is asked; `after` is the key and id of the last one of the
    page before.
    """
    with connection.cursor() as cursor:
        cursor.execute(_ONE_PASS)
        key = _KEYS[question.order]
        wanted = on_events(question.filters)
        cursor.execute(
            _LIST.format(condition=wanted.sql, key=key),
            [
                *wanted.parameters,
                question.tenant_id,
                question.starts_at,
                question.ends_at,
                CALLS_READ_MAX,
                question.prefix,
                after is None,
                *(after or (0, "")),
                limit + 1,
            ],
        )
        rows = [SessionRow(*row) for row in cursor.fetchall()]
        cursor.execute(_ANY_PLAN)
        cursor.execute(
            _READ_SINCE,
            [question.tenant_id, question.starts_at, question.ends_at, CALLS_READ_MAX],
        )
        beyond = cursor.fetchone()
    return SessionPage(rows[:limit], len(rows) > limit, beyond[0] if beyond else None)


def session_costs(question: SessionQuestion) -> list[int]:
    """Return what each session of the question cost, the cheapest first."""
    return _costs(question, "starts_with(session, %s)", [question.prefix])


def earlier_costs(
    *,
    tenant_id: int,
    session: str,
    agent: str,
    feature: str,
    until: datetime,
    teams: Sequence[str] | None,
) -> list[int]:
    """Return what other sessions of an agent and feature cost, the cheapest first: those with calls
    among the newest 50,000 calls of sessions in the 30 days before.
    """
    filters: Filters = {} if teams is None else {"team": tuple(teams)}
    asked = SessionQuestion(tenant_id, until - USUAL_LOOK_BACK, until, filters)
    return _costs(asked, "agent = %s AND feature = %s AND session <> %s", [agent, feature, session])


def _costs(question: SessionQuestion, which: str, parameters: Sequence[str]) -> list[int]:
    wanted = on_events(question.filters)
    with connection.cursor() as cursor:
        cursor.execute(_ONE_PASS)
        cursor.execute(
            f"WITH {_SESSIONS.format(condition=wanted.sql)}"
            f" SELECT cost_nanos FROM sessions WHERE {which} ORDER BY cost_nanos",
            [
                *wanted.parameters,
                question.tenant_id,
                question.starts_at,
                question.ends_at,
                CALLS_READ_MAX,
                *parameters,
            ],
        )
        costs = [cost_nanos for (cost_nanos,) in cursor.fetchall()]
        cursor.execute(_ANY_PLAN)
    return costs
