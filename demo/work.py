"""What the demo's teams say of their own work: tickets solved each day, and two deploys."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from demo.calls import Call
from demo.client import JsonObject

TICKETS: Final = "tickets solved"
FEATURE: Final = "ticket_answers"
# Modeled: how many answers it takes to solve one ticket.
ANSWERS_A_TICKET: Final = 3
# How long before the end, at what they were aimed, and what they say.
DEPLOYS: Final[tuple[tuple[timedelta, dict[str, str], str], ...]] = (
    (timedelta(days=5, hours=3), {"feature": FEATURE}, "Deployed ticket answers 2.1"),
    (timedelta(days=2, hours=6), {}, "Deployed gateway 1.8"),
)


def unit_counts(calls: Sequence[Call]) -> list[JsonObject]:
    """Return the tickets solved on each UTC day with ticket answers."""
    answers = Counter(
        datetime.fromtimestamp(call.time_ms // 1000, UTC).date()
        for call in calls
        if call.feature == FEATURE and call.status == "success"
    )
    return [
        {"name": TICKETS, "day": day.isoformat(), "count": number // ANSWERS_A_TICKET}
        for day, number in sorted(answers.items())
    ]


def deploys(end: datetime) -> list[JsonObject]:
    return [
        {"time": (end - before).isoformat(), "text": text, "filter": about}
        for before, about, text in DEPLOYS
    ]
