"""What becomes of a scan's findings: anomalies, and one incident for each cause.

An anomaly is a stretch of time in which one measure of one series is not as expected. It belongs to
the incident of its cause, which lasts until the last of its anomalies has ended. Runs in the scan's
transaction, under the lock of the tenant's progress: nobody else writes anomalies.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.utils import timezone

from alerts import incidents
from alerts.causes import (
    SECONDS_PER_HOUR,
    Activity,
    Finding,
    Overlaps,
    find_causes,
    is_worth_telling,
    most_telling,
    severity_of,
)
from alerts.explanations import SHARE_MIN, Story, noun_of, over_text, summary, title
from alerts.models import Anomaly, EntryKind, Incident, IncidentKind, Severity
from alerts.series import COST, QUARTER, SeriesKey
from alerts.settings import settings_of
from metering.enforcement.tightening import end_tightening, open_tightening
from metering.queries.series import combinations, series_cost
from metering.rollups.sets import QUARTER_SECONDS

# So many combinations of values tell what overlaps with what; the rest costs next to nothing.
COMBINATIONS_MAX: Final = 2_000
# Beyond these a scan's new anomalies, the most unusual first, are left to the next scan.
NEW_MAX: Final = 200
# Of a series that was not used.
NOTHING: Final = Activity(0.0, 0.0, 0.0, 0)
# So many series are named in a line of the timeline.
JOINED_MAX: Final = 6


class Sight(NamedTuple):
    """What a scan saw: findings, what every series in use did since `starts_at`, and what the
    tenant usually spends in an hour.
    """

    findings: Sequence[Finding]
    activities: Mapping[SeriesKey, Activity]
    usual_nanos_per_hour: float
    starts_at: datetime


class _Case:
    """The anomalies of one cause that go on, and what this scan found of them."""

    def __init__(self, key: SeriesKey, incident: Incident | None = None) -> None:
        self.key = key
        self.incident = incident
        self.anomalies: list[Anomaly] = []
        self.findings: list[Finding] = []
        self.joined: list[Finding] = []

    @property
    def facts(self) -> dict[str, Any]:
        """What was known of it before."""
        return dict(self.incident.facts) if self.incident else {}


def open_series(*, tenant_id: int) -> set[SeriesKey]:
    """The series with an anomaly that has not ended."""
    rows = Anomaly.objects.filter(tenant_id=tenant_id, ended_at=None)
    return {SeriesKey(*row) for row in rows.values_list("dimension", "value")}


def take_findings(*, tenant_id: int, sight: Sight, now: datetime) -> None:
    """Open, update and end anomalies, and their causes' incidents, by what a scan saw.

    The same sight again changes nothing but the times at which things were last seen.
    """
    known = list(
        Anomaly.objects.filter(tenant_id=tenant_id, ended_at=None)
        .select_related("incident")
        .order_by("id")
    )
    found = {(*one.key, one.measure, one.is_above): one for one in sight.findings}
    cases = _cases(known, found, now)
    ended = [one for one in known if one.ended_at is not None]
    # What has ended makes room for what is new of the same series.
    Anomaly.objects.bulk_update(ended, ["ended_at"])
    new = _worth_telling(sight, known)
    overlaps = None
    if new:
        overlaps = _overlaps(tenant_id, new, now)
        cases += _open(tenant_id, cases, new, sight, overlaps)
    for case in cases:
        _tell(tenant_id, case, sight, overlaps, now)
    _end_incidents(tenant_id, cases, ended, now)


def _cases(
    known: Sequence[Anomaly],
    found: Mapping[tuple[str, str, str, bool], Finding],
    now: datetime,
) -> list[_Case]:
    """The causes that go on. Anomalies that do not are given their end."""
    cases: dict[int, _Case] = {}
    for anomaly in known:
        finding = found.get((anomaly.dimension, anomaly.value, anomaly.measure, anomaly.is_above))
        if finding is None:
            anomaly.ended_at = now
            continue
        _see(anomaly, finding, now)
        incident = anomaly.incident
        if incident is not None:
            key = SeriesKey(incident.facts["dimension"], incident.facts["value"])
            case = cases.setdefault(incident.id, _Case(key, incident))
            case.anomalies.append(anomaly)
            case.findings.append(finding)
    return list(cases.values())


def _see(anomaly: Anomaly, finding: Finding, now: datetime) -> None:
    """Note that it was seen, and its most unusual figures."""
    anomaly.seen_at = now
    before = anomaly.score, abs(anomaly.actual - anomaly.expected)
    if (finding.score, abs(finding.actual - finding.expected)) > before:
        anomaly.score = finding.score
        anomaly.actual, anomaly.expected = finding.actual, finding.expected


def _worth_telling(sight: Sight, known: Sequence[Anomaly]) -> list[Finding]:
    """The findings that are new and matter, the most unusual first."""
    open_now = {(one.dimension, one.value, one.measure) for one in known if one.ended_at is None}
    new = [
        one
        for one in sight.findings
        if (*one.key, one.measure) not in open_now
        and is_worth_telling(one, sight.usual_nanos_per_hour)
    ]
    new.sort(key=lambda one: (-one.activity.excess_nanos, -one.score, one.key, one.measure))
    return new[:NEW_MAX]


def _overlaps(tenant_id: int, new: Sequence[Finding], now: datetime) -> Overlaps:
    return Overlaps(
        combinations(
            tenant_id=tenant_id,
            starts_at=min(one.began_at for one in new),
            ends_at=now + QUARTER,
            limit=COMBINATIONS_MAX,
        )
    )


def _open(
    tenant_id: int,
    cases: Sequence[_Case],
    new: Sequence[Finding],
    sight: Sight,
    overlaps: Overlaps,
) -> list[_Case]:
    """Write anomalies, each with the case that explains it; answers the cases that are new."""
    causes = find_causes(
        findings=new,
        activities=sight.activities,
        overlaps=overlaps,
        standing=[case.key for case in cases],
    )
    by_key = {case.key: case for case in cases}
    silent = next((case for case in cases if case.facts.get("is_fall")), None)
    opened = []
    for cause in causes:
        case = by_key.get(cause.key)
        if silent is not None and cause.findings[0].is_fall:
            # Silence spreads from one series to the others: it is the same one.
            case = silent
            case.key = min(case.key, cause.key)
        if case is None:
            case = by_key[cause.key] = _Case(cause.key)
            opened.append(case)
        else:
            case.joined += cause.findings
        rows = [_anomaly(tenant_id, finding) for finding in cause.findings]
        case.anomalies += Anomaly.objects.bulk_create(rows)
        case.findings += cause.findings
    return opened


def _anomaly(tenant_id: int, finding: Finding) -> Anomaly:
    return Anomaly(
        tenant_id=tenant_id,
        dimension=finding.key.dimension,
        value=finding.key.value,
        measure=finding.measure,
        is_above=finding.is_above,
        began_at=finding.began_at,
        seen_at=finding.began_at,
        score=finding.score,
        actual=finding.actual,
        expected=finding.expected,
    )


def _tell(
    tenant_id: int, case: _Case, sight: Sight, overlaps: Overlaps | None, now: datetime
) -> None:
    """Observe the cause's incident with the figures of now, and keep its anomalies."""
    facts = _facts(tenant_id, case, sight, overlaps, now)
    story = _story(case, facts)
    incident = incidents.observe(
        tenant_id=tenant_id,
        observation=incidents.Observation(
            kind=IncidentKind.ANOMALY,
            cause=_name(tenant_id, case),
            severity=Severity(severity_of(case.findings, sight.usual_nanos_per_hour)),
            title=title(story),
            summary=summary(story),
            match=_match(case.key),
            facts=facts,
            excess_nanos=facts["excess_nanos"],
            entry=_joined_text(case.joined),
        ),
    )
    _tighten(tenant_id, incident)
    for anomaly in case.anomalies:
        anomaly.incident = incident
        anomaly.seen_at = now
        anomaly.excess_nanos = _excess_of(tenant_id, anomaly, now)
    Anomaly.objects.bulk_update(
        case.anomalies, ["incident", "seen_at", "score", "actual", "expected", "excess_nanos"]
    )


def _name(tenant_id: int, case: _Case) -> str:
    """The cause as its incident knows it: by its first anomaly.

    What is back before the tenant's cool-down is over is the same cause: nobody is called again.
    """
    if case.incident is not None:
        return case.incident.cause
    cool_down = timedelta(seconds=settings_of(tenant_id).cool_down_seconds)
    before = (
        Incident.objects.filter(
            tenant_id=tenant_id,
            kind=IncidentKind.ANOMALY,
            resolved_at__gte=timezone.now() - cool_down,
            facts__dimension=case.key.dimension,
            facts__value=case.key.value,
        )
        .order_by("-id")
        .first()
    )
    return before.cause if before is not None else f"anomaly:{case.anomalies[0].id}"


def _match(key: SeriesKey) -> dict[str, str | None]:
    """The series as a match: null is "has no value"."""
    return {key.dimension: key.value or None} if key.dimension else {}


def _facts(
    tenant_id: int, case: _Case, sight: Sight, overlaps: Overlaps | None, now: datetime
) -> dict[str, Any]:
    """The figures of a cause.

    What was to be expected is fixed when it is opened: what a detector expects moves towards what
    goes on.
    """
    before = case.facts
    activity = sight.activities.get(case.key, NOTHING)
    telling = _telling(case, activity)
    began_at = min(one.began_at for one in case.findings)
    if before:
        began_at = datetime.fromisoformat(before["began_at"])
    cost_nanos = _cost_since(tenant_id, case.key, began_at, now)
    expected_hourly = before.get("expected_nanos_per_hour", _expected_hourly(activity))
    seconds = max(1.0, (now - began_at).total_seconds())
    excess_nanos = 0
    if before.get("excess_nanos") or any(_is_costly(one) for one in case.findings):
        excess_nanos = max(0, cost_nanos - round(expected_hourly * seconds / SECONDS_PER_HOUR))
    return {
        "dimension": case.key.dimension,
        "value": case.key.value,
        "measure": telling.measure,
        "is_fall": telling.is_fall,
        "score": round(telling.score, 4),
        "actual": telling.actual,
        "expected": telling.expected,
        "began_at": began_at.isoformat(),
        "cost_nanos": cost_nanos,
        "expected_nanos_per_hour": expected_hourly,
        "excess_nanos": excess_nanos,
        "excess_nanos_per_hour": round(
            excess_nanos * SECONDS_PER_HOUR / max(QUARTER_SECONDS, seconds)
        ),
        "contributors": _contributors(case, before, overlaps),
        "anomalies": len(case.anomalies),
    }


def _telling(case: _Case, activity: Activity) -> Finding:
    """The finding to speak of, as it was at its worst. A new series has none of its own: what it
    costs speaks for it.
    """
    telling = most_telling(case.findings, case.key)
    if telling.key == case.key or telling.is_fall:
        worst = next(one for one in case.anomalies if _is_of(one, telling))
        return telling._replace(score=worst.score, actual=worst.actual, expected=worst.expected)
    quarters = max(1.0, activity.seconds / QUARTER_SECONDS)
    return telling._replace(
        key=case.key,
        measure=COST,
        actual=activity.cost_nanos / quarters,
        expected=activity.expected_nanos / quarters,
    )


def _is_of(anomaly: Anomaly, finding: Finding) -> bool:
    return (anomaly.dimension, anomaly.value, anomaly.measure) == (*finding.key, finding.measure)


def _is_costly(finding: Finding) -> bool:
    return finding.is_above and finding.activity.excess_nanos > 0


def _expected_hourly(activity: Activity) -> int:
    return round(activity.expected_nanos * SECONDS_PER_HOUR / max(1, activity.seconds))


def _contributors(
    case: _Case, before: Mapping[str, Any], overlaps: Overlaps | None
) -> list[dict[str, Any]]:
    """The values that made most of it, as of when its last anomaly was found."""
    if overlaps is None or not (case.joined or case.incident is None):
        return list(before.get("contributors", []))
    return [
        {"dimension": key.dimension, "value": key.value, "share": round(share, 4)}
        for key, share in overlaps.shares(case.key)
        if share >= SHARE_MIN
    ]


def _story(case: _Case, facts: Mapping[str, Any]) -> Story:
    return Story(
        key=case.key,
        measure=facts["measure"],
        is_fall=facts["is_fall"],
        actual=facts["actual"],
        expected=facts["expected"],
        began_at=datetime.fromisoformat(facts["began_at"]),
        cost_nanos=facts["cost_nanos"],
        excess_nanos=facts["excess_nanos"],
        excess_nanos_per_hour=facts["excess_nanos_per_hour"],
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


def _cost_since(tenant_id: int, key: SeriesKey, began_at: datetime, now: datetime) -> int:
    return series_cost(
        tenant_id=tenant_id,
        dimension=key.dimension,
        value=key.value,
        starts_at=began_at,
        ends_at=now + QUARTER,
    )


def _excess_of(tenant_id: int, anomaly: Anomaly, now: datetime) -> int:
    """What a series cost beyond the expected since its cost became unusual."""
    if anomaly.measure != COST or not anomaly.is_above:
        return 0
    key = SeriesKey(anomaly.dimension, anomaly.value)
    cost_nanos = _cost_since(tenant_id, key, anomaly.began_at, now)
    quarters = (now - anomaly.began_at) / QUARTER
    return max(0, cost_nanos - round(anomaly.expected * quarters))


def _tighten(tenant_id: int, incident: Incident) -> None:
    """Let budgets' limits count less while a critical incident lasts, where the tenant wishes."""
    limit_percent = settings_of(tenant_id).anomaly_limit_percent
    is_critical = incident.severity == Severity.CRITICAL and incident.resolved_at is None
    if limit_percent is None or not is_critical:
        end_tightening(None, tenant_id=tenant_id, cause=_tightening_cause(incident))
        return
    opened = open_tightening(
        None,
        tenant_id=tenant_id,
        match=incident.match,
        limit_percent=limit_percent,
        reason=incident.title,
        cause=_tightening_cause(incident),
    )
    if opened is not None:
        text = f"Until it ends, limits of budgets count {limit_percent} % for what matches."
        incidents.note(incident=incident, kind=EntryKind.UPDATED, text=text)


def _tightening_cause(incident: Incident) -> str:
    return f"anomaly:{incident.id}"


def _end_incidents(
    tenant_id: int, cases: Sequence[_Case], ended: Sequence[Anomaly], now: datetime
) -> None:
    """End the incidents whose last anomaly has ended."""
    going_on = {case.incident.id for case in cases if case.incident is not None}
    over = {one.incident_id: one.incident for one in ended if one.incident is not None}
    for incident_id, incident in sorted(over.items()):
        if incident_id in going_on:
            continue
        began_at = datetime.fromisoformat(incident.facts["began_at"])
        text = over_text(began_at, now, incident.excess_nanos or 0)
        end_tightening(None, tenant_id=tenant_id, cause=_tightening_cause(incident))
        incidents.end(tenant_id=tenant_id, cause=incident.cause, summary=text)
