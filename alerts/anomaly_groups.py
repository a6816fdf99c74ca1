"""The anomalies of one cause: its figures, and what its incident says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from alerts.causes import Overlaps
from alerts.explanations import SHARE_MIN, Narrative, noun_of, summary, title
from alerts.incidents import Observation
from alerts.models import Anomaly, Incident, IncidentKind, Severity
from alerts.series import COST, MONEY_MEASURES, QUARTER, REQUESTS, SeriesKey, Usage
from alerts.severity import SECONDS_PER_HOUR, Activity, Finding, most_telling, severity_of
from common.json_bodies import JsonObject
from metering.reporting.series import SeriesSince, series_costs
from metering.rollups.sets import QUARTER_SECONDS

Costs = Mapping[SeriesSince, int]

# Of a series that was not used.
NOTHING: Final = Activity(0.0, 0.0, 0.0, 0)
# A line of the timeline names this many series.
JOINED_MAX: Final = 6


class ScanResult(NamedTuple):
    """What a scan found: findings, what every series in use did, what the tenant usually spends in
    an hour, all usage from a quarter on; and which values were used together, None if nothing may
    be new.
    """

    tenant_id: int
    findings: Sequence[Finding]
    activities: Mapping[SeriesKey, Activity]
    usual_nanos_per_hour: float
    usage: Usage
    usage_from: datetime
    overlaps: Overlaps | None = None


@dataclass(eq=False)
class AnomalyGroup:
    """The open anomalies of one cause, and what this scan found of them.

    `key` is the series that the incident is about; `joined` are the findings of this scan that are
    new to an incident that was open before.
    """

    key: SeriesKey
    incident: Incident | None = None
    anomalies: list[Anomaly] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    joined: list[Finding] = field(default_factory=list)

    @property
    def is_silence(self) -> bool:
        """Whether it is about usage that stopped."""
        first = self.anomalies[0] if self.anomalies else None
        return first is not None and not first.is_above and first.measure == REQUESTS

    @property
    def began_at(self) -> datetime:
        """When the first of its anomalies began."""
        if self.incident is not None:
            return datetime.fromisoformat(self.incident.facts["began_at"])
        return min(anomaly.began_at for anomaly in self.anomalies)

    @property
    def facts(self) -> JsonObject:
        """What was known of it before."""
        return dict(self.incident.facts) if self.incident else {}


def observation_of(
    *, cause: str, group: AnomalyGroup, scan: ScanResult, costs: Costs, now: datetime
) -> Observation:
    """Return what is observed of a cause now."""
    evidence = _figures(group, scan, costs, now)
    narrative = _narrative(group.key, evidence)
    return Observation(
        kind=IncidentKind.ANOMALY,
        cause=cause,
        severity=Severity(severity_of(group.findings, scan.usual_nanos_per_hour)),
        title=title(narrative),
        summary=summary(narrative),
        # Null in a match is "has no value".
        match={group.key.dimension: group.key.value or None} if group.key.dimension else {},
        facts=evidence,
        excess_nanos=evidence["excess_nanos"],
        entry=_joined_text(group.joined),
    )


def _figures(group: AnomalyGroup, scan: ScanResult, costs: Costs, now: datetime) -> JsonObject:
    """Return the figures of a cause.

    The expectation is fixed when the incident is opened: what a detector expects moves towards what
    goes on.
    """
    before = group.facts
    activity = scan.activities.get(group.key, NOTHING)
    telling = _telling(group, activity)
    began_at = group.began_at
    cost_nanos = costs[SeriesSince(*group.key, began_at)]
    expected_hourly = round(activity.expected_nanos * SECONDS_PER_HOUR / max(1, activity.seconds))
    expected_hourly = before.get("expected_per_hour_nanos", expected_hourly)
    seconds = max(1.0, (now - began_at).total_seconds())
    excess_nanos = 0
    if before.get("excess_nanos") or any(finding.is_costly for finding in group.findings):
        excess_nanos = max(0, cost_nanos - round(expected_hourly * seconds / SECONDS_PER_HOUR))
    return {
        "dimension": group.key.dimension,
        "value": group.key.value,
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
        "contributors": _contributors(group, before, scan.overlaps),
        "anomalies": len(group.anomalies),
    }


def _telling(group: AnomalyGroup, activity: Activity) -> Finding:
    """Return the finding to report, as it was at its worst. A new series has none of its own: its
    cost is reported.
    """
    telling = most_telling(group.findings, group.key, reported=group.facts.get("measure"))
    if telling.key == group.key or telling.is_fall:
        identity = (*telling.key, telling.measure)
        worst = next(
            anomaly
            for anomaly in group.anomalies
            if (anomaly.dimension, anomaly.value, anomaly.measure) == identity
        )
        return telling._replace(score=worst.score, actual=worst.actual, expected=worst.expected)
    if before := group.facts:
        actual, expected = _read_measured(before)
        return telling._replace(measure=before["measure"], actual=actual, expected=expected)
    quarters = max(1.0, activity.seconds / QUARTER_SECONDS)
    return telling._replace(
        key=group.key,
        measure=COST,
        actual=activity.cost_nanos / quarters,
        expected=activity.expected_nanos / quarters,
    )


def _measured(telling: Finding) -> dict[str, float]:
    """Return the measure's figures as facts: money in whole nano-USD, and named so."""
    if telling.measure not in MONEY_MEASURES:
        return {"actual": telling.actual, "expected": telling.expected}
    return {"actual_nanos": round(telling.actual), "expected_nanos": round(telling.expected)}


def _read_measured(evidence: JsonObject) -> tuple[float, float]:
    """Return what `_measured` wrote: actual, expected."""
    unit = "_nanos" if evidence["measure"] in MONEY_MEASURES else ""
    return evidence[f"actual{unit}"], evidence[f"expected{unit}"]


def _contributors(
    group: AnomalyGroup, before: JsonObject, overlaps: Overlaps | None
) -> list[JsonObject]:
    """Return the values that made most of it, as of when its last anomaly was found."""
    if overlaps is None or not (group.joined or group.incident is None):
        return list(before.get("contributors", []))
    return [
        {"dimension": key.dimension, "value": key.value, "share": round(share, 4)}
        for key, share in overlaps.shares(group.key)
        if share >= SHARE_MIN
    ]


def _narrative(key: SeriesKey, evidence: JsonObject) -> Narrative:
    actual, expected = _read_measured(evidence)
    return Narrative(
        key=key,
        measure=evidence["measure"],
        is_fall=evidence["is_fall"],
        actual=actual,
        expected=expected,
        began_at=datetime.fromisoformat(evidence["began_at"]),
        cost_nanos=evidence["cost_nanos"],
        excess_nanos=evidence["excess_nanos"],
        excess_nanos_per_hour=evidence["excess_per_hour_nanos"],
        shares=[
            (SeriesKey(contributor["dimension"], contributor["value"]), contributor["share"])
            for contributor in evidence["contributors"]
        ],
    )


def _joined_text(joined: Sequence[Finding]) -> str:
    """Return a line for the timeline about what has joined it."""
    if not joined:
        return ""
    measures: dict[SeriesKey, list[str]] = {}
    for finding in joined:
        measures.setdefault(finding.key, []).append(finding.measure.replace("_", " "))
    parts = [
        f"{noun_of(key)} ({', '.join(names)})" for key, names in list(measures.items())[:JOINED_MAX]
    ]
    more = len(measures) - len(parts)
    return f"Also unusual: {', '.join(parts)}{f' and {more} more' if more else ''}."


def costs_of(scan: ScanResult, groups: Sequence[AnomalyGroup]) -> Costs:
    """Return what the series of these groups and of their anomalies have cost since they began.

    Only what is older than the usage that the scan has read is read here.
    """
    asked = {SeriesSince(*group.key, group.began_at) for group in groups}
    asked |= {
        _since(anomaly)
        for group in groups
        for anomaly in group.anomalies
        if _is_too_costly(anomaly)
    }
    older = series_costs(
        tenant_id=scan.tenant_id,
        series=sorted(series for series in asked if series.starts_at < scan.usage_from),
        ends_at=scan.usage_from,
    )
    return {
        series: older.get(series, 0)
        + scan.usage.cost_nanos(SeriesKey(series.dimension, series.value), since=series.starts_at)
        for series in asked
    }


def excess_of(anomaly: Anomaly, costs: Costs, now: datetime) -> int:
    """Return what a series cost beyond the expected since its cost became unusual."""
    if not _is_too_costly(anomaly):
        return 0
    quarters = (now - anomaly.began_at) / QUARTER
    return max(0, costs[_since(anomaly)] - round(anomaly.expected * quarters))


def _is_too_costly(anomaly: Anomaly) -> bool:
    return anomaly.measure == COST and anomaly.is_above


def _since(anomaly: Anomaly) -> SeriesSince:
    return SeriesSince(anomaly.dimension, anomaly.value, anomaly.began_at)
