"""One cause while it goes on: its anomalies, its figures, and what its incident says of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from alerts.causes import SECONDS_PER_HOUR, Activity, Finding, Overlaps, most_telling, severity_of
from alerts.explanations import SHARE_MIN, Story, noun_of, summary, title
from alerts.incidents import Observation
from alerts.models import Anomaly, Incident, IncidentKind, Severity
from alerts.series import COST, MONEY_MEASURES, QUARTER, REQUESTS, SeriesKey, Usage
from metering.reporting.series import SeriesSince, series_costs
from metering.rollups.sets import QUARTER_SECONDS

Costs = Mapping[SeriesSince, int]

# Of a series that was not used.
NOTHING: Final = Activity(0.0, 0.0, 0.0, 0)
# So many series are named in a line of the timeline.
JOINED_MAX: Final = 6


class Sight(NamedTuple):
    """What a scan saw: findings, what every series in use did, what the tenant usually spends in an
    hour, all usage from a quarter on; and which values were used together, None where nothing may
    be new.
    """

    tenant_id: int

    findings: Sequence[Finding]
    activities: Mapping[SeriesKey, Activity]
    usual_nanos_per_hour: float
    usage: Usage
    usage_from: datetime
    overlaps: Overlaps | None = None


class Case:
    """The anomalies of one cause that go on, and what this scan found of them.

    `key` is the series that the incident is about; `joined` is what an incident that was there
    before has got in this scan.
    """

    def __init__(self, key: SeriesKey, incident: Incident | None = None) -> None:
        self.key = key
        self.incident = incident
        self.anomalies: list[Anomaly] = []
        self.findings: list[Finding] = []
        self.joined: list[Finding] = []

    @property
    def is_silence(self) -> bool:
        """Whether it is about usage that stopped."""
        return (
            bool(self.anomalies)
            and not self.anomalies[0].is_above
            and (self.anomalies[0].measure == REQUESTS)
        )

    @property
    def began_at(self) -> datetime:
        """When the first of its anomalies began."""
        if self.incident is not None:
            return datetime.fromisoformat(self.incident.facts["began_at"])
        return min(one.began_at for one in self.anomalies)

    @property
    def facts(self) -> dict[str, Any]:
        """What was known of it before."""
        return dict(self.incident.facts) if self.incident else {}


def observation_of(
    *, cause: str, case: Case, sight: Sight, costs: Costs, now: datetime
) -> Observation:
    """What is observed of a cause now."""
    facts = _figures(case, sight, costs, now)
    story = _story(case, facts)
    return Observation(
        kind=IncidentKind.ANOMALY,
        cause=cause,
        severity=Severity(severity_of(case.findings, sight.usual_nanos_per_hour)),
        title=title(story),
        summary=summary(story),
        match=_match(case.key),
        facts=facts,
        excess_nanos=facts["excess_nanos"],
        entry=_joined_text(case.joined),
    )


def _match(key: SeriesKey) -> dict[str, str | None]:
    """The series as a match: null is "has no value"."""
    return {key.dimension: key.value or None} if key.dimension else {}


def _figures(case: Case, sight: Sight, costs: Costs, now: datetime) -> dict[str, Any]:
    """The figures of a cause.

    What was to be expected is fixed when it is opened: what a detector expects moves towards what
    goes on.
    """
    before = case.facts
    activity = sight.activities.get(case.key, NOTHING)
    telling = _telling(case, activity)
    began_at = case.began_at
    cost_nanos = costs[SeriesSince(*case.key, began_at)]
    expected_hourly = before.get("expected_per_hour_nanos", _expected_hourly(activity))
    seconds = max(1.0, (now - began_at).total_seconds())
    excess_nanos = 0
    if before.get("excess_nanos") or any(one.is_costly for one in case.findings):
        excess_nanos = max(0, cost_nanos - round(expected_hourly * seconds / SECONDS_PER_HOUR))
    return {
        "dimension": case.key.dimension,
        "value": case.key.value,
        "measure": telling.measure,
        "is_fall": telling.is_fall,
        "score": round(telling.score, 4),
        **_measured(telling),
        "began_at": began_at.isoformat(),
        "cost_nanos": cost_nanos,
        "expected_per_hour_nanos": expected_hourly,
        "excess_nanos": excess_nanos,
        "excess_per_hour_nanos": round(
            excess_nanos * SECONDS_PER_HOUR / max(QUARTER_SECONDS, seconds)
        ),
        "contributors": _contributors(case, before, sight.overlaps),
        "anomalies": len(case.anomalies),
    }


def _telling(case: Case, activity: Activity) -> Finding:
    """The finding to speak of, as it was at its worst. A new series has none of its own: what it
    costs speaks for it.
    """
    telling = most_telling(case.findings, case.key, told=case.facts.get("measure"))
    if telling.key == case.key or telling.is_fall:
        worst = next(one for one in case.anomalies if _is_of(one, telling))
        return telling._replace(score=worst.score, actual=worst.actual, expected=worst.expected)
    if before := case.facts:
        actual, expected = _read_measured(before)
        return telling._replace(measure=before["measure"], actual=actual, expected=expected)
    quarters = max(1.0, activity.seconds / QUARTER_SECONDS)
    return telling._replace(
        key=case.key,
        measure=COST,
        actual=activity.cost_nanos / quarters,
        expected=activity.expected_nanos / quarters,
    )


def _measured(telling: Finding) -> dict[str, float]:
    """The measure's figures as facts: money in whole nano-USD, and named so."""
    if telling.measure not in MONEY_MEASURES:
        return {"actual": telling.actual, "expected": telling.expected}
    return {"actual_nanos": round(telling.actual), "expected_nanos": round(telling.expected)}


def _read_measured(facts: Mapping[str, Any]) -> tuple[float, float]:
    """What `_measured` wrote: actual, expected."""
    unit = "_nanos" if facts["measure"] in MONEY_MEASURES else ""
    return facts[f"actual{unit}"], facts[f"expected{unit}"]


def _is_of(anomaly: Anomaly, finding: Finding) -> bool:
    return (anomaly.dimension, anomaly.value, anomaly.measure) == (*finding.key, finding.measure)


def _expected_hourly(activity: Activity) -> int:
    return round(activity.expected_nanos * SECONDS_PER_HOUR / max(1, activity.seconds))


def _contributors(
    case: Case, before: Mapping[str, Any], overlaps: Overlaps | None
) -> list[dict[str, Any]]:
    """The values that made most of it, as of when its last anomaly was found."""
    if overlaps is None or not (case.joined or case.incident is None):
        return list(before.get("contributors", []))
    return [
        {"dimension": key.dimension, "value": key.value, "share": round(share, 4)}
        for key, share in overlaps.shares(case.key)
        if share >= SHARE_MIN
    ]


def _story(case: Case, facts: Mapping[str, Any]) -> Story:
    actual, expected = _read_measured(facts)
    return Story(
        key=case.key,
        measure=facts["measure"],
        is_fall=facts["is_fall"],
        actual=actual,
        expected=expected,
        began_at=datetime.fromisoformat(facts["began_at"]),
        cost_nanos=facts["cost_nanos"],
        excess_nanos=facts["excess_nanos"],
        excess_nanos_per_hour=facts["excess_per_hour_nanos"],
        shares=[
            (SeriesKey(one["dimension"], one["value"]), one["share"])
            for one in facts["contributors"]
        ],
    )


def _joined_text(joined: Sequence[Finding]) -> str:
    """A line for the timeline about what has joined it."""
    if not joined:
        return ""
    measures: dict[SeriesKey, list[str]] = {}
    for one in joined:
        measures.setdefault(one.key, []).append(one.measure.replace("_", " "))
    parts = [
        f"{noun_of(key)} ({', '.join(names)})" for key, names in list(measures.items())[:JOINED_MAX]
    ]
    more = len(measures) - len(parts)
    return f"Also unusual: {', '.join(parts)}{f' and {more} more' if more else ''}."


def costs_of(sight: Sight, cases: Sequence[Case]) -> Costs:
    """What the series of these cases and of their anomalies have cost since they began.

    Only what is older than the usage that the scan has read is read here.
    """
    asked = {SeriesSince(*case.key, case.began_at) for case in cases}
    asked |= {_since(one) for case in cases for one in case.anomalies if _is_too_costly(one)}
    older = series_costs(
        tenant_id=sight.tenant_id,
        asked=sorted(one for one in asked if one.starts_at < sight.usage_from),
        ends_at=sight.usage_from,
    )
    return {one: older.get(one, 0) + _cost_in_sight(sight, one) for one in asked}


def _cost_in_sight(sight: Sight, one: SeriesSince) -> int:
    return sight.usage.cost_nanos(SeriesKey(one.dimension, one.value), since=one.starts_at)


def excess_of(anomaly: Anomaly, costs: Costs, now: datetime) -> int:
    """What a series cost beyond the expected since its cost became unusual."""
    if not _is_too_costly(anomaly):
        return 0
    quarters = (now - anomaly.began_at) / QUARTER
    return max(0, costs[_since(anomaly)] - round(anomaly.expected * quarters))


def _is_too_costly(anomaly: Anomaly) -> bool:
    return anomaly.measure == COST and anomaly.is_above


def _since(anomaly: Anomaly) -> SeriesSince:
    return SeriesSince(anomaly.dimension, anomaly.value, anomaly.began_at)
