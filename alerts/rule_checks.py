"""Judge a tenant's figures by the plain rules, and keep the rules' incidents in step.

An incident of a rule lasts as long as the rule is met. If an incident of the detector is about the
same calls, the rule adds a line to that one instead of calling people twice; and a rule about a
budget is silent once a level of that budget has been reported.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.db import connection
from django.db.models import Q

from alerts import incidents, rules
from alerts.models import SERVICE, EntryKind, Incident, IncidentKind, Severity
from alerts.rule_figures import CHECKS, HOURLY, Check, Met
from alerts.rules import RuleOverride
from alerts.scans import claim_progress
from alerts.settings import settings_of
from tenants.scope import tenant_scope

# One rule opens at most this many incidents; more would be one cause, and a storm.
MET_MAX: Final = 50
HOUR: Final = timedelta(hours=1)
# A single call is over when it is seen: its incident stays open for this time.
CALL_RESTS: Final = HOUR
CAUSE_START: Final = "rule"

# Tenants that were scanned since their rules were judged: there may be news.
_TO_JUDGE: Final = """
    SELECT tenant_id FROM scan_progress WHERE judged_at IS NULL OR judged_at < scanned_at
    ORDER BY judged_at NULLS FIRST, tenant_id
"""


def tenants_to_judge() -> list[int]:
    """Return tenants whose figures may have changed, the longest waiting first. Needs a platform
    scope.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TO_JUDGE)
        return [row[0] for row in cursor.fetchall()]


class _Judged(NamedTuple):
    """A rule, and what meets it."""

    name: str
    override: RuleOverride | None
    met: Sequence[Met]


def judge_rules(*, tenant_id: int, now: datetime) -> int:
    """Judge every rule that is on, open or update the incidents of those that are met, and end the
    others. Return the number that are met.

    Each rule's figures are read in a transaction of their own; the incidents are written in the
    last. Safe to run twice and by several workers: the row of the tenant's progress is locked for
    that, and a slower worker writes nothing.
    """
    with tenant_scope(tenant_id):
        progress = claim_progress(tenant_id=tenant_id, now=now)
        if progress is None:
            return 0
        check = Check(tenant_id, now, progress.judged_at)
        active = rules.active_rules(settings_of(tenant_id).rules)
    judged = [
        _judge(name, active.get(name), check)
        for name in rules.RULES
        if name not in active or name not in HOURLY or check.is_new_hour
    ]
    with tenant_scope(tenant_id):
        progress = claim_progress(tenant_id=tenant_id, now=now)
        if progress is None or progress.judged_at != check.judged_at:
            return 0
        for rule in judged:
            _write(rule, check)
        progress.judged_at = now
        progress.save(update_fields=["judged_at"])
    return sum(len(rule.met) for rule in judged)


def _judge(name: str, override: RuleOverride | None, check: Check) -> _Judged:
    """Judge one rule; nothing meets one that is off."""
    if override is None:
        return _Judged(name, None, [])
    with tenant_scope(check.tenant_id):
        return _Judged(name, override, list(CHECKS[name](check, override.threshold))[:MET_MAX])


def _write(rule: _Judged, check: Check) -> None:
    """Open or update the incidents of a rule, and end the others."""
    covering = _anomaly_incidents(check) if rule.met else []
    causes = set()
    for met in rule.met:
        cover = next((incident for incident in covering if _covers(incident, met)), None)
        if cover is not None:
            _mention(cover, rule.name)
            continue
        cause = _cause(rule.name, met.subject)
        causes.add(cause)
        assert rule.override is not None, "only a rule that is on is met"
        threshold = float(rule.override.threshold)
        incidents.observe(
            tenant_id=check.tenant_id,
            observation=incidents.Observation(
                kind=IncidentKind.RULE,
                cause=cause,
                severity=Severity(rule.override.severity),
                title=met.title,
                summary=met.summary,
                match=met.match,
                facts={"rule": rule.name, "threshold": threshold, **met.facts},
                excess_nanos=met.excess_nanos,
            ),
        )
    _end_others(rule.name, causes, check)


def _cause(name: str, subject: Iterable[str]) -> str:
    # As JSON, so that no value can be taken for the beginning of the next.
    return f"{CAUSE_START}:{name}:{json.dumps(list(subject), ensure_ascii=False)}"


def _end_others(name: str, causes: set[str], check: Check) -> None:
    """End the rule's incidents of causes that are not met any more."""
    open_incidents = Incident.objects.filter(
        tenant_id=check.tenant_id,
        kind=IncidentKind.RULE,
        cause__startswith=f"{CAUSE_START}:{name}:",
        resolved_at=None,
    )
    if name == rules.COSTLY_REQUEST:
        open_incidents = open_incidents.filter(seen_at__lt=check.now - CALL_RESTS)
    for cause in open_incidents.exclude(cause__in=causes).values_list("cause", flat=True):
        incidents.end(tenant_id=check.tenant_id, cause=cause)


def _anomaly_incidents(check: Check) -> list[Incident]:
    """Return the detector's incidents about money whose calls may be part of a rule's figures:
    those that ended within the hour too, since rules look as far back.
    """
    known = Incident.objects.filter(
        tenant_id=check.tenant_id, kind=IncidentKind.ANOMALY, excess_nanos__gt=0
    )
    recent = Q(resolved_at=None) | Q(resolved_at__gt=check.now - HOUR)
    return list(known.filter(recent).order_by("id"))


def _covers(incident: Incident, met: Met) -> bool:
    """Whether a detector's incident is about the calls that meet the rule, or makes up a sum of all
    calls.
    """
    about_budget = "window_id" in met.facts
    is_part = all(met.match.get(name) == value for name, value in incident.match.items())
    return not about_budget and (is_part or not met.match)


def _mention(incident: Incident, name: str) -> None:
    """Say once in the timeline that the rule is met too."""
    text = f"By the rule {name} as well. {rules.RULES[name].description}."
    if incident.resolved_at is None and not incident.entries.filter(text=text).exists():
        incident.add_entry(EntryKind.UPDATED, SERVICE, text)
