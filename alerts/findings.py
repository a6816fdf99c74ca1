"""Turn a scan's findings into anomalies, and into one incident for each cause.

An anomaly is a stretch of time in which one measure of one series is not as expected. It belongs to
the incident of its cause, which lasts until the last of its anomalies has ended. Runs in the scan's
last transaction, under the lock of the tenant's progress: no one else writes anomalies.
"""

from collections.abc import Container, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db.models import QuerySet
from django.utils import timezone

from alerts import incidents
from alerts.anomaly_groups import (
    AnomalyGroup,
    Costs,
    ScanResult,
    costs_of,
    excess_of,
    observation_of,
)
from alerts.causes import Overlaps, find_causes
from alerts.explanations import describe_end
from alerts.models import SERVICE, Anomaly, EntryKind, Incident, IncidentKind, Severity
from alerts.series import QUARTER, SeriesKey
from alerts.settings import settings_of
from alerts.severity import Finding, Identity, is_worth_reporting
from metering.limits.limit_reductions import end_limit_reduction, open_limit_reduction
from metering.reporting.series import combinations

# Overlaps are judged by this many combinations of values; the rest costs next to nothing.
COMBINATIONS_MAX: Final = 2_000
# Further new anomalies, the least unusual, are left to the next scan.
NEW_MAX: Final = 200
# A tenant has one pattern.
PATTERN_CAUSE: Final = "pattern:tenant"


def open_series(*, tenant_id: int) -> set[SeriesKey]:
    """Return the series with an anomaly that has not ended."""
    return {SeriesKey(*row) for row in _open(tenant_id).values_list("dimension", "value")}


def _open(tenant_id: int) -> QuerySet[Anomaly]:
    return Anomaly.objects.filter(tenant_id=tenant_id, ended_at=None)


def take_findings(*, scan: ScanResult, now: datetime) -> None:
    """Open, update and end anomalies, and their causes' incidents, by what a scan found.

    The same result again changes nothing but the times at which things were last seen.
    """
    tenant_id = scan.tenant_id
    known = list(_open(tenant_id).select_related("incident").order_by("id"))
    groups = _standing_groups(known, {finding.identity: finding for finding in scan.findings}, now)
    ended = [anomaly for anomaly in known if anomaly.ended_at is not None]
    # What has ended makes room for what is new of the same series.
    Anomaly.objects.bulk_update(ended, ["ended_at"])
    if new := _new_findings(scan, {_identity(anomaly) for anomaly in known}):
        groups += _open_anomalies(groups, new[:NEW_MAX], scan)
    costs = costs_of(scan, groups)
    for group in groups:
        _observe(group, scan, costs, now)
    _end_incidents(tenant_id, groups, ended, now)


def _identity(anomaly: Anomaly) -> Identity:
    return anomaly.dimension, anomaly.value, anomaly.measure, anomaly.is_above


def _standing_groups(
    known: Sequence[Anomaly], findings: Mapping[Identity, Finding], now: datetime
) -> list[AnomalyGroup]:
    """Return the causes that go on. Anomalies that do not are given their end."""
    groups: dict[int, AnomalyGroup] = {}
    for anomaly in known:
        finding = findings.get(_identity(anomaly))
        if finding is None:
            anomaly.ended_at = now
            continue
        _update(anomaly, finding)
        incident = anomaly.incident
        if incident is not None:
            key = SeriesKey(incident.facts["dimension"], incident.facts["value"])
            group = groups.setdefault(incident.id, AnomalyGroup(key, incident))
            group.anomalies.append(anomaly)
            group.findings.append(finding)
    return list(groups.values())


def _update(anomaly: Anomaly, finding: Finding) -> None:
    """Keep its most unusual figures."""
    before = anomaly.score, abs(anomaly.actual - anomaly.expected)
    if (finding.score, abs(finding.actual - finding.expected)) > before:
        anomaly.score = finding.score
        anomaly.actual, anomaly.expected = finding.actual, finding.expected


def _new_findings(scan: ScanResult, known: Container[Identity]) -> list[Finding]:
    """Return the findings that are new and matter, the most unusual first."""
    new = [
        finding
        for finding in scan.findings
        if finding.identity not in known and is_worth_reporting(finding, scan.usual_nanos_per_hour)
    ]
    new.sort(
        key=lambda finding: (
            -finding.activity.excess_nanos,
            -finding.score,
            finding.key,
            finding.measure,
        )
    )
    return new


def with_overlaps(scan: ScanResult, now: datetime) -> ScanResult:
    """Add which values were used together, if some of the findings may be new."""
    known = _open(scan.tenant_id).values_list("dimension", "value", "measure", "is_above")
    new = _new_findings(scan, set(known))
    if not new:
        return scan
    used = combinations(
        tenant_id=scan.tenant_id,
        starts_at=min(finding.began_at for finding in new),
        ends_at=now + QUARTER,
        limit=COMBINATIONS_MAX,
    )
    return scan._replace(overlaps=Overlaps(used))


def _open_anomalies(
    groups: Sequence[AnomalyGroup], new: Sequence[Finding], scan: ScanResult
) -> list[AnomalyGroup]:
    """Write anomalies, each with the group that explains it; return the groups that are new."""
    assert scan.overlaps is not None, "what is new now was not known when overlaps were read"
    standing = {group.key: group for group in groups if not group.is_silence}
    silent = next((group for group in groups if group.is_silence), None)
    causes = find_causes(
        findings=new,
        activities=scan.activities,
        overlaps=scan.overlaps,
        standing=list(standing),
    )
    opened = []
    for cause in causes:
        is_fall = cause.findings[0].is_fall
        group = silent if is_fall else standing.get(cause.key)
        if group is None:
            group = AnomalyGroup(cause.key)
            opened.append(group)
        else:
            # Silence spreads from one series to the others, in the end to the tenant.
            group.key = min(group.key, cause.key) if is_fall else group.key
            group.joined += cause.findings
        group.anomalies += Anomaly.objects.bulk_create(
            Anomaly(
                tenant_id=scan.tenant_id,
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
            for finding in cause.findings
        )
        group.findings += cause.findings
    return opened


def _observe(group: AnomalyGroup, scan: ScanResult, costs: Costs, now: datetime) -> None:
    """Observe the cause's incident with the figures of now, and keep its anomalies."""
    cause = _cause(scan.tenant_id, group)
    incident = incidents.observe(
        tenant_id=scan.tenant_id,
        observation=observation_of(cause=cause, group=group, scan=scan, costs=costs, now=now),
    )
    _reduce_limits(scan.tenant_id, incident)
    for anomaly in group.anomalies:
        anomaly.incident = incident
        anomaly.seen_at = now
        anomaly.excess_nanos = excess_of(anomaly, costs, now)
    Anomaly.objects.bulk_update(
        group.anomalies, ["incident", "seen_at", "score", "actual", "expected", "excess_nanos"]
    )


def _cause(tenant_id: int, group: AnomalyGroup) -> str:
    """Return the cause as its incident knows it: by its first anomaly.

    What is back before the tenant's cool-down is over is the same cause: no one is called again.
    """
    if group.incident is not None:
        return group.incident.cause
    cool_down = timedelta(seconds=settings_of(tenant_id).cool_down_seconds)
    before = (
        Incident.objects.filter(
            tenant_id=tenant_id,
            kind=IncidentKind.ANOMALY,
            resolved_at__gte=timezone.now() - cool_down,
            facts__dimension=group.key.dimension,
            facts__value=group.key.value,
            facts__is_fall=group.is_silence,
        )
        .order_by("-id")
        .first()
    )
    return before.cause if before is not None else f"anomaly:{group.anomalies[0].id}"


def take_pattern(*, tenant_id: int, is_novel: bool, now: datetime) -> None:
    """Note that the tenant's whole spend forms a new pattern, though no value is far off.

    Worth a look and no more: information, unless another anomaly is open already.
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
            title="The tenant's spend follows a pattern not seen before",
            summary="No quarter of an hour costs far too much or too little, but together the last"
            " thirteen hours are unlike anything seen before: steadier, more restless, quieter or"
            " on another level.",
            match={},
            facts={"seen_at": now.isoformat()},
        ),
    )


def _reduce_limits(tenant_id: int, incident: Incident) -> None:
    """Let budgets' limits count less while a critical incident lasts, if the tenant wants that."""
    limit_percent = settings_of(tenant_id).anomaly_limit_percent
    cause = incidents.limit_reduction_cause(incident)
    is_critical = incident.severity == Severity.CRITICAL and incident.resolved_at is None
    if limit_percent is None or not is_critical:
        end_limit_reduction(tenant_id=tenant_id, cause=cause)
        return
    opened = open_limit_reduction(
        tenant_id=tenant_id,
        match=incident.match,
        limit_percent=limit_percent,
        reason=incident.title,
        cause=cause,
    )
    if opened is not None:
        text = f"Until it ends, limits of budgets count {limit_percent}% for what matches."
        incident.add_entry(EntryKind.UPDATED, SERVICE, text)


def _end_incidents(
    tenant_id: int, groups: Sequence[AnomalyGroup], ended: Sequence[Anomaly], now: datetime
) -> None:
    """End the incidents whose last anomaly has ended."""
    standing = {group.incident.id for group in groups if group.incident is not None}
    over = {anomaly.incident.id: anomaly.incident for anomaly in ended if anomaly.incident}
    for incident_id, incident in sorted(over.items()):
        if incident_id not in standing:
            began_at = datetime.fromisoformat(incident.facts["began_at"])
            text = describe_end(began_at, now, incident.excess_nanos or 0)
            incidents.end(tenant_id=tenant_id, cause=incident.cause, summary=text)
