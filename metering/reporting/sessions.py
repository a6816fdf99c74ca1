"""A session in the order in which it happened, with its running cost and what made it up."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from common.values import normal_value
from metering.models import Outcome, UsageEvent
from metering.reporting.events import cost_of, events_of
from metering.reporting.question import EARLIEST, LATEST, Filters, UsageQuestion
from metering.reporting.usage import Measures, UsageRow, total_usage, usage

EVENTS_MAX: Final = 10_000
# The number of agents, models and tools that a session lists, the most expensive first.
VALUES_MAX: Final = 100


class SessionStep(NamedTuple):
    """An event of a session and what the session had cost after it."""

    event: UsageEvent
    running_cost_nanos: int


class SessionTotals(NamedTuple):
    """What all of a session comes to, and its outcome where one was reported."""

    total: Measures
    by_dimension: dict[str, Sequence[UsageRow]]
    outcome: Outcome | None


class Session(NamedTuple):
    """A session's steps and its totals."""

    steps: list[SessionStep]
    is_truncated: bool
    totals: SessionTotals


def read_session(*, tenant_id: int, session: str) -> Session:
    """Return the first 10,000 events of a session, and totals of all of them. Raises NotFound."""
    session = normal_value(session)
    events = events_of(tenant_id=tenant_id, dimension="session", value=session, limit=EVENTS_MAX)
    steps = []
    running_cost_nanos = 0
    for event in events[:EVENTS_MAX]:
        running_cost_nanos += cost_of(event)
        steps.append(SessionStep(event, running_cost_nanos))
    return Session(
        steps=steps,
        is_truncated=len(events) > EVENTS_MAX,
        totals=read_totals(tenant_id=tenant_id, session=session),
    )


def read_totals(
    *, tenant_id: int, session: str, teams: Sequence[str] | None = None
) -> SessionTotals:
    """Return what all events of a session come to. `teams` leaves out those of all other teams."""
    filters: dict[str, tuple[str, ...]] = {"session": (session,)}
    if teams is not None:
        filters["team"] = tuple(teams)
    return SessionTotals(
        total=total_usage(_question(tenant_id, filters)),
        by_dimension={
            name: usage(_question(tenant_id, filters, name), limit=VALUES_MAX).rows
            for name in ("agent", "model", "tool")
        },
        outcome=Outcome.objects.filter(tenant_id=tenant_id, session=session)
        .order_by("-reported_at")
        .first(),
    )


def _question(tenant_id: int, filters: Filters, *group_by: str) -> UsageQuestion:
    return UsageQuestion(
        tenant_id=tenant_id,
        starts_at=EARLIEST,
        ends_at=LATEST,
        group_by=group_by,
        interval="none",
        filters=filters,
    )
