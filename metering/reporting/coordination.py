"""Coordination between agents: how much of what agents write is read by other agents.

A handoff is a model call whose parent span, in the same trace, is a call by another agent. No more
of its input can come from that agent than the parent wrote, so a handoff passes on the smaller of
its own input and its parent's output. What passes by other ways (a shared file, a parent span that
no report tells of) is not known, and not counted.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from metering.models import Operation
from metering.reporting.bounded import fetch_in_time, require_few_events
from metering.reporting.conditions import on_events
from metering.reporting.metrics import share
from metering.reporting.question import UsageQuestion

PAIRS_MAX: Final = 20
WHAT: Final = "Coordination between agents"
# How long before its child a parent may have been made.
PARENT_BEFORE: Final = timedelta(days=1)


class Handoffs(NamedTuple):
    """Handoffs from one agent to another; `cost_nanos` is what the receiving calls cost."""

    giver: str
    receiver: str
    handoffs: int
    passed_on_tokens: int
    cost_nanos: int


class Coordination(NamedTuple):
    """Handoffs of a range: the pairs with most tokens, and the sums of all pairs."""

    pairs: list[Handoffs]
    handoffs: int
    passed_on_tokens: int
    cost_nanos: int
    produced_tokens: int

    @property
    def overhead_percent(self) -> Decimal | None:
        """Tokens passed on in percent of those that agents wrote; None where they wrote none."""
        passed_on = share(self.passed_on_tokens, self.produced_tokens)
        return None if passed_on is None else passed_on * 100


def coordination(question: UsageQuestion) -> Coordination:
    """Return the handoffs whose receiving call is in the question. Raises TooMuchToRead."""
    starts_at, ends_at = question.starts_at, question.ends_at
    require_few_events(question, [(starts_at, ends_at)], what=WHAT)
    wanted = on_events(question.filters)
    # Who may see one team's usage is not told what other teams' agents wrote.
    of_teams = on_events({"team": question.filters["team"]} if "team" in question.filters else {})
    rows = fetch_in_time(
        f"""
        WITH chosen AS MATERIALIZED (
            SELECT agent, trace, parent_span, input_tokens, output_tokens,
                coalesce(cost_nanos, 0) AS cost_nanos
            FROM usage_event WHERE tenant_id = %s AND time >= %s AND time < %s AND NOT is_void
                AND agent <> '' AND operation <> {Operation.TOOL.value} AND {wanted.sql}
        ), receiving AS MATERIALIZED (
            SELECT * FROM chosen WHERE trace <> '' AND parent_span IS NOT NULL
        ), parents AS MATERIALIZED (
            SELECT trace, span, max(agent) AS agent, max(output_tokens) AS output_tokens
            FROM usage_event
            WHERE tenant_id = %s AND time >= %s AND time < %s AND NOT is_void AND agent <> ''
                AND trace <> '' AND span IS NOT NULL
                AND trace IN (SELECT trace FROM receiving) AND {of_teams.sql}
            GROUP BY trace, span
        ), pairs AS (
            SELECT p.agent AS giver, r.agent AS receiver, count(*) AS count,
                sum(least(r.input_tokens, p.output_tokens)) AS passed_on,
                sum(r.cost_nanos) AS cost
            FROM receiving r JOIN parents p ON p.trace = r.trace AND p.span = r.parent_span
            WHERE p.agent <> r.agent GROUP BY 1, 2
        )
        SELECT giver, receiver, count, passed_on, cost, sum(count) OVER (),
            sum(passed_on) OVER (), sum(cost) OVER (),
            (SELECT coalesce(sum(output_tokens), 0) FROM chosen)
        FROM (SELECT 1) always LEFT JOIN pairs ON true
        ORDER BY passed_on DESC NULLS LAST, count DESC, giver, receiver LIMIT {PAIRS_MAX}
        """,
        [
            *(question.tenant_id, starts_at, ends_at, *wanted.parameters),
            *(question.tenant_id, starts_at - PARENT_BEFORE, ends_at, *of_teams.parameters),
        ],
        what=WHAT,
    )
    sums = [int(value or 0) for value in rows[0][5:]]
    pairs = [Handoffs(*row[:2], *map(int, row[2:5])) for row in rows if row[2] is not None]
    return Coordination(pairs, *sums)
