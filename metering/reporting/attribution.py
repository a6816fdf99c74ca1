"""What share of each source's calls says whose they are: a team, an agent, a customer, a user."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from metering.models import Route
from metering.reporting.bounded import fetch_in_time, require_few_events
from metering.reporting.question import UsageQuestion

SOURCES_MAX: Final = 100
NAMES: Final = ("team", "agent", "customer", "user")
WHAT: Final = "What calls are attributed to"


class Attribution(NamedTuple):
    """The calls that a source reported by one route, and how many of them carry each of NAMES."""

    source: str
    route: Route
    calls: int
    carrying: Sequence[int]


def attributions(question: UsageQuestion) -> list[Attribution]:
    """Return the sources with most calls. Raises TooMuchToRead."""
    starts_at, ends_at = question.starts_at, question.ends_at
    require_few_events(question, [(starts_at, ends_at)], what=WHAT)
    carrying = ", ".join(f"""count(*) FILTER (WHERE "{name}" <> '')""" for name in NAMES)
    rows = fetch_in_time(
        f"""
        SELECT source, route, count(*), {carrying} FROM usage_event
        WHERE tenant_id = %s AND time >= %s AND time < %s AND NOT is_void
        GROUP BY source, route ORDER BY count(*) DESC, source, route LIMIT {SOURCES_MAX}
        """,
        [question.tenant_id, starts_at, ends_at],
        what=WHAT,
    )
    return [
        Attribution(source, Route(route), calls, counts) for source, route, calls, *counts in rows
    ]
