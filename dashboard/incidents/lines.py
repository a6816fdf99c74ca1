"""One incident as pages show it: who has it, since when, and what can be done about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from django.db.models import Case, F, IntegerField, Value, When

from alerts.models import Incident, IncidentKind
from dashboard.enforcement.matches import pairs_of
from dashboard.incidents.filters import KINDS, SEVERITIES, STATUSES
from metering.core.match import KNOWN_BEFORE_CALL

# When a working day has begun for most.
MORNING: Final = time(8)
EXCESS_WORDS: Final = {
    IncidentKind.CROSSING.value: "over the limit",
    IncidentKind.LOOP.value: "wasted",
    IncidentKind.RECONCILIATION.value: "more than expected",
}
# The order in which people look at incidents: by severity, then by money.
URGENT_FIRST: Final = (
    Case(
        *(When(severity=name, then=Value(rank)) for rank, name in enumerate(SEVERITIES)),
        output_field=IntegerField(),
    ),
    F("excess_nanos").desc(nulls_last=True),
    "-id",
)
SNOOZES: Final = {"hour": "1 hour", "tomorrow": "Until tomorrow, 8:00", "week": "1 week"}


@dataclass(frozen=True)
class IncidentLine:
    """An incident as lists and its own page show it."""

    row: Incident
    status: str

    @property
    def pairs(self) -> list[tuple[str, list[str]]]:
        return pairs_of(self.row.match)

    @property
    def kind_words(self) -> str:
        return KINDS[self.row.kind]

    @property
    def severity_words(self) -> str:
        return SEVERITIES[self.row.severity]

    @property
    def status_words(self) -> str:
        return STATUSES[self.status]

    @property
    def excess_words(self) -> str:
        """What the money of an incident is: beyond what."""
        if "projected_nanos" in self.row.facts:
            return "over the limit at this pace"
        return EXCESS_WORDS.get(self.row.kind, "more than usual")

    @property
    def used_percent(self) -> int | None:
        """How full a budget was that is not over its limit on cost, never rounded up; None of
        everything else.
        """
        used = self.row.facts.get("used_percent")
        is_told = self.row.kind == IncidentKind.CROSSING and not self.row.excess_nanos
        return int(used) if is_told and isinstance(used, int | float) else None

    @property
    def is_resolved(self) -> bool:
        return self.status == "resolved"

    @property
    def who(self) -> str:
        """Return who is handling it; empty if no one is."""
        if self.row.assigned_to is not None:
            return str(self.row.assigned_to)
        return self.row.acknowledged_by

    @property
    def haltable(self) -> list[tuple[str, str]]:
        """What can be halted because of it: dimensions that have one value here. Of a session
        that loops the session and its agent; its team and customer have not done anything.
        """
        return [
            (name, values[0])
            for name, values in self.pairs
            if name in KNOWN_BEFORE_CALL and len(values) == 1 and values[0] and self._is_cause(name)
        ]

    def _is_cause(self, dimension: str) -> bool:
        return self.row.kind != IncidentKind.LOOP or dimension in {"session", "agent"}


def lines_of(rows: Iterable[Incident]) -> list[IncidentLine]:
    """Incidents with the status of each."""
    return [IncidentLine(row, row.status) for row in rows]


def snooze_until(choice: str, *, now: datetime, zone: ZoneInfo) -> datetime:
    """When a snooze ends. Raises KeyError for what is none of SNOOZES."""
    if choice == "tomorrow":
        tomorrow = now.astimezone(zone).date() + timedelta(days=1)
        return datetime.combine(tomorrow, MORNING, tzinfo=zone)
    return now + {"hour": timedelta(hours=1), "week": timedelta(weeks=1)}[choice]
