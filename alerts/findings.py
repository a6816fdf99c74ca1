"""What becomes of a scan's findings: anomalies, and one incident for each cause.

An anomaly is a stretch of time in which one measure of one series is not as expected. It belongs to
the incident of its cause, which lasts until the last of its anomalies has ended. Runs in the scan's
last transaction, under the lock of the tenant's progress: nobody else writes anomalies.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from django.utils import timezone

from alerts import incidents
from alerts.cases import Case, Costs, Sight, costs_of, excess_of, observation_of
from alerts.causes import Finding, Overlaps, find_causes, is_worth_telling
from alerts.explanations import over_text
from alerts.models import Anomaly, EntryKind, Incident, IncidentKind, Severity
from alerts.series import QUARTER, SeriesKey
from alerts.settings import settings_of
from metering.limits.throttles import end_tightening, open_tightening
from metering.reporting.series import combinations

# So many combinations of values tell what overlaps with what; the rest costs next to nothing.
COMBINATIONS_MAX: Final = 2_000
# Beyond these a scan's new anomalies, the most unusual first, are left to the next scan.
NEW_MAX: Final = 200
# A tenant has one pattern.
PATTERN_CAUSE: Final = "pattern:tenant"


def open_series(*, tenant_id: int) -> set[SeriesKey]:
    """The series with an anomaly that has not ended."""
    rows = Anomaly.objects.filter(tenant_id=tenant_id, ended_at=None)
    return {SeriesKey(*row) for row in rows.values_list("dimension", "value")}


def take_findings(*, sight: Sight, now: datetime) -> None:
    """Open, update and end anomalies, and their causes' incidents, by what a scan saw.

    The same sight again changes nothing but the times at which things were last seen.
    """
    tenant_id = sight.tenant_id
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
    if new := _worth_telling(sight, known):
        cases += _open(cases, new, sight)
    costs = costs_of(sight, cases)
    for case in cases:
        _tell(case, sight, costs, now)
    _end_incidents(tenant_id, cases, ended, now)


def _cases(
    known: Sequence[Anomaly],
    found: Mapping[tuple[str, str, str, bool], Finding],
    now: datetime,
) -> list[Case]:
    """The causes that go on. Anomalies that do not are given their end."""
    cases: dict[int, Case] = {}
    for anomaly in known:
        finding = found.get((anomaly.dimension, anomaly.value, anomaly.measure, anomaly.is_above))
        if finding is None:
            anomaly.ended_at = now
            continue
        _see(anomaly, finding, now)
        incident = anomaly.incident
        if incident is not None:
            key = SeriesKey(incident.facts["dimension"], incident.facts["value"])
            case = cases.setdefault(incident.id, Case(key, incident))
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


def with_overlaps(sight: Sight, now: datetime) -> Sight:
    """Add to a sight which values were used together, where some of its findings may be new."""
    rows = Anomaly.objects.filter(tenant_id=sight.tenant_id, ended_at=None)
    known = set(rows.values_list("dimension", "value", "measure", "is_above"))
    new = [
        one
        for one in sight.findings
        if (*one.key, one.measure, one.is_above) not in known
        and is_worth_telling(one, sight.usual_nanos_per_hour)
    ]
    if not new:
        return sight
    found = combinations(
        tenant_id=sight.tenant_id,
        starts_at=min(one.began_at for one in new),
        ends_at=now + QUARTER,
        limit=COMBINATIONS_MAX,
    )
    return sight._replace(overlaps=Overlaps(found))


def _open(cases: Sequence[Case], new: Sequence[Finding], sight: Sight) -> list[Case]:
    """Write anomalies, each with the case that explains it; answers the cases that are new."""
    assert sight.overlaps is not None, "what is new now was not known when the sight was read"
    standing = {case.key: case for case in cases if not case.is_silence}
    silent = next((case for case in cases if case.is_silence), None)
    causes = find_causes(
        findings=new,
        activities=sight.activities,
        overlaps=sight.overlaps,
        standing=list(standing),
    )
    opened = []
    for cause in causes:
        is_fall = cause.findings[0].is_fall
        case = silent if is_fall else standing.get(cause.key)
        if case is None:
            case = Case(cause.key)
            opened.append(case)
        else:
            # Silence spreads from one series to the others, in the end to the tenant.
            case.key = min(case.key, cause.key) if is_fall else case.key
            case.joined += cause.findings
        rows = [_anomaly(sight.tenant_id, finding) for finding in cause.findings]
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


def _tell(case: Case, sight: Sight, costs: Costs, now: datetime) -> None:
    """Observe the cause's incident with the figures of now, and keep its anomalies."""
    incident = incidents.observe(
        tenant_id=sight.tenant_id,
        observation=observation_of(
            cause=_name(sight.tenant_id, case), case=case, sight=sight, costs=costs, now=now
        ),
    )
    _tighten(sight.tenant_id, incident)
    for anomaly in case.anomalies:
        anomaly.incident = incident
        anomaly.seen_at = now
        anomaly.excess_nanos = excess_of(anomaly, costs, now)
    Anomaly.objects.bulk_update(
        case.anomalies, ["incident", "seen_at", "score", "actual", "expected", "excess_nanos"]
    )


def _name(tenant_id: int, case: Case) -> str:
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
            facts__is_fall=case.is_silence,
        )
        .order_by("-id")
        .first()
    )
    return before.cause if before is not None else f"anomaly:{case.anomalies[0].id}"


def take_pattern(*, tenant_id: int, is_novel: bool, now: datetime) -> None:
    """Note that the tenant's whole spend goes as it never went before, though no value is far off.

    Worth a look and no more: information, unless something else is told of already.
    """
    if not is_novel:
        incidents.end(tenant_id=tenant_id, cause=PATTERN_CAUSE)
        return
    others = Incident.objects.filter(
        tenant_id=tenant_id, kind=IncidentKind.ANOMALY, resolved_at=None
    ).exclude(cause=PATTERN_CAUSE)
    if others.exists():
        return
    incidents.observe(
        tenant_id=tenant_id,
        observation=incidents.Observation(
            kind=IncidentKind.ANOMALY,
            cause=PATTERN_CAUSE,
            severity=Severity.INFO,
            title="The tenant's spend goes as it never went before",
            summary="No quarter of an hour costs far too much or too little, but together the last"
            " thirteen hours are like none that were seen before: steadier, more restless, quieter"
            " or on another level.",
            match={},
            facts={"seen_at": now.isoformat()},
        ),
    )


def _tighten(tenant_id: int, incident: Incident) -> None:
    """Let budgets' limits count less while a critical incident lasts, where the tenant wishes."""
    limit_percent = settings_of(tenant_id).anomaly_limit_percent
    is_critical = incident.severity == Severity.CRITICAL and incident.resolved_at is None
    if limit_percent is None or not is_critical:
        end_tightening(tenant_id=tenant_id, cause=incidents.tightening_cause(incident))
        return
    opened = open_tightening(
        tenant_id=tenant_id,
        match=incident.match,
        limit_percent=limit_percent,
        reason=incident.title,
        cause=incidents.tightening_cause(incident),
    )
    if opened is not None:
        text = f"Until it ends, limits of budgets count {limit_percent} % for what matches."
        incidents.note(incident=incident, kind=EntryKind.UPDATED, text=text)


def _end_incidents(
    tenant_id: int, cases: Sequence[Case], ended: Sequence[Anomaly], now: datetime
) -> None:
    """End the incidents whose last anomaly has ended."""
    going_on = {case.incident.id for case in cases if case.incident is not None}
    over = {one.incident_id: one.incident for one in ended if one.incident is not None}
    for incident_id, incident in sorted(over.items()):
        if incident_id in going_on:
            continue
        began_at = datetime.fromisoformat(incident.facts["began_at"])
        text = over_text(began_at, now, incident.excess_nanos or 0)
        incidents.end(tenant_id=tenant_id, cause=incident.cause, summary=text)
