"""Incidents: one for a cause as long as it lasts, and what people do with it.

Sources observe a cause as often as they like; people hear of it once, again when it becomes more
severe, and when it is over. Everything here runs in the tenant's scope, and what is to be told is
written in the same transaction.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from alerts import routing
from alerts.errors import IncidentResolved
from alerts.models import DeliveryEvent, EntryKind, Incident, IncidentEntry, IncidentKind, Severity
from alerts.routing import BY_ITSELF
from alerts.settings import settings_of
from metering.limits.throttles import end_tightening
from tenants.models import Membership, User

RANK: Final[Mapping[str, int]] = {name: rank for rank, name in enumerate(Severity.values)}
TITLE_CHARACTERS_MAX: Final = 300
CAUSE_CHARACTERS_MAX: Final = 700
SNOOZE_MAX: Final = timedelta(days=90)
# So many snoozed incidents are told again in one transaction.
WOKEN_AT_ONCE: Final = 100


class Observation(NamedTuple):
    """What a source has seen of a cause just now."""

    kind: IncidentKind
    # At most 700 characters, the same at every observation.
    cause: str
    severity: Severity
    title: str
    summary: str
    match: Mapping[str, Any]
    facts: Mapping[str, Any]
    excess_nanos: int | None = None
    # Contacts that a budget's level names; None: whoever hears of that severity.
    contacts: tuple[str, ...] | None = None
    # A line for the timeline of an incident that exists; empty: the figures alone are new.
    entry: str = ""
    # Whether people are to hear of it although it is no more severe than before.
    is_news: bool = False
    # Whether it is another matter than what was resolved before, however shortly ago.
    starts_anew: bool = False


@transaction.atomic
def observe(*, tenant_id: int, observation: Observation) -> Incident:
    """Open the cause's incident, or bring it up to date.

    Invariant: a cause has at most one unresolved incident, however many observe it at once. One
    that a person resolved stays quiet until the cause has rested for the tenant's cool-down; one
    that ended by itself within that time goes on as the same incident.
    """
    assert len(observation.cause) <= CAUSE_CHARACTERS_MAX, "a source names a short cause"
    now = timezone.now()
    incident = _unresolved(tenant_id, observation.cause)
    if incident is None:
        incident, is_new = _begin(tenant_id, observation, now)
        if is_new:
            return incident
    if incident.resolved_at is not None:
        incident.seen_at = now
        incident.save(update_fields=["seen_at"])
        return incident
    return _update(incident, observation, now)


@transaction.atomic
def end(*, tenant_id: int, cause: str, summary: str = "") -> Incident | None:
    """The cause is over: resolve its incident. None where there is none."""
    incident = _unresolved(tenant_id, cause)
    if incident is None:
        return None
    if summary:
        incident.summary = summary
    return _resolve(incident, actor=BY_ITSELF, text=summary)


def bring_up_to_date(*, incident: Incident, observation: Observation) -> None:
    """Show what goes on as it stands now. Nobody is told: it is no worse than what was observed."""
    stored = _unresolved(incident.tenant_id, incident.cause)
    if stored is None or stored.id != incident.id or stored.facts != incident.facts:
        return  # somebody else has changed it meanwhile
    seen_at = stored.seen_at
    _take(stored, observation, timezone.now())
    # It was not observed anew.
    stored.seen_at = seen_at
    stored.severity = observation.severity
    if observation.entry:
        _note(stored, EntryKind.UPDATED, BY_ITSELF, observation.entry)
    _save(stored)


@transaction.atomic
def acknowledge(*, incident: Incident, actor: str) -> Incident:
    """Somebody looks at it. A second time changes nothing."""
    stored = _open_for_people(incident)
    if stored.acknowledged_at is None:
        stored.acknowledged_at = timezone.now()
        stored.acknowledged_by = actor[:300]
        _note(stored, EntryKind.ACKNOWLEDGED, actor)
        _save(stored)
        routing.tell(incident=stored, event=DeliveryEvent.ACKNOWLEDGED)
    return stored


@transaction.atomic
def assign(*, incident: Incident, actor: str, user: User | None) -> Incident:
    """Give it to a member of the tenant, or to nobody. Raises ValidationError for strangers."""
    stored = _open_for_people(incident)
    if (
        user is not None
        and not Membership.objects.filter(tenant_id=stored.tenant_id, user=user).exists()
    ):
        raise ValidationError("Only a member of the tenant can have an incident.")
    if stored.assigned_to_id != (user.id if user else None):
        stored.assigned_to = user
        _note(stored, EntryKind.ASSIGNED, actor, f"to {user.email}" if user else "to nobody")
        _save(stored)
    return stored


@transaction.atomic
def snooze(*, incident: Incident, actor: str, until: datetime | None) -> Incident:
    """Tell nobody of it until then, unless it becomes critical. None ends that."""
    now = timezone.now()
    if until is not None and not now < until <= now + SNOOZE_MAX:
        raise ValidationError(f"Snooze until a time within the next {SNOOZE_MAX.days} days.")
    stored = _open_for_people(incident)
    if stored.snoozed_until != until:
        stored.snoozed_until = until
        text = f"until {until:%Y-%m-%d %H:%M %Z}" if until else "ended"
        _note(stored, EntryKind.SNOOZED, actor, text)
        _save(stored)
    return stored


@transaction.atomic
def comment(*, incident: Incident, actor: str, text: str) -> Incident:
    """Write a line of the timeline, after it was resolved too."""
    stored = Incident.objects.select_for_update().get(tenant_id=incident.tenant_id, id=incident.id)
    _note(stored, EntryKind.COMMENTED, actor, text)
    return stored


@transaction.atomic
def resolve(*, incident: Incident, actor: str, text: str = "") -> Incident:
    """A person says it is dealt with. A second time changes nothing."""
    stored = Incident.objects.select_for_update().get(tenant_id=incident.tenant_id, id=incident.id)
    if stored.resolved_at is not None:
        return stored
    return _resolve(stored, actor=actor, text=text)


def note(*, incident: Incident, kind: EntryKind, text: str) -> None:
    """Write what the service did about it into the timeline."""
    _note(incident, kind, BY_ITSELF, text)


def tenants_to_wake(now: datetime) -> list[int]:
    """Tenants with an incident that was snoozed until now. Needs a platform scope."""
    due = Incident.objects.filter(resolved_at=None, snoozed_until__lte=now)
    return sorted(due.values_list("tenant_id", flat=True).distinct())


@transaction.atomic
def wake_snoozed(*, tenant_id: int, now: datetime) -> int:
    """Tell again of what was snoozed until now and still goes on. Answers how many; the next turn
    goes on.
    """
    due = list(
        Incident.objects.select_for_update(skip_locked=True)
        .filter(tenant_id=tenant_id, resolved_at=None, snoozed_until__lte=now)
        .order_by("id")[:WOKEN_AT_ONCE]
    )
    for incident in due:
        incident.snoozed_until = None
        _note(incident, EntryKind.SNOOZED, BY_ITSELF, "over, and it still goes on")
        _save(incident)
        routing.tell_again(incident=incident)
    return len(due)


def limit_reduction_cause(incident: Incident) -> str:
    """By which name limits are tightened while an incident lasts."""
    return f"anomaly:{incident.id}"


def _unresolved(tenant_id: int, cause: str) -> Incident | None:
    return (
        Incident.objects.select_for_update()
        .filter(tenant_id=tenant_id, cause=cause, resolved_at=None)
        .first()
    )


def _begin(tenant_id: int, observation: Observation, now: datetime) -> tuple[Incident, bool]:
    """The incident of a cause that has none unresolved, and whether people were told by that.

    The one of before where it is the same episode; another's where that was opened meanwhile.
    """
    cool_down = timedelta(seconds=settings_of(tenant_id).cool_down_seconds)
    last = (
        Incident.objects.select_for_update()
        .filter(tenant_id=tenant_id, cause=observation.cause)
        .order_by("-id")
        .first()
    )
    if last is not None and last.resolved_at is None:
        return last, False
    if last is not None and observation.starts_anew:
        last = None
    if last is not None and last.resolved_by and now - last.seen_at < cool_down:
        return last, False
    if last is not None and not last.resolved_by and now - _ended_at(last) < cool_down:
        return _reopen(last, observation, now), True
    try:
        with transaction.atomic():
            incident = _open(tenant_id, observation, now)
    except IntegrityError:
        found = _unresolved(tenant_id, observation.cause)
        if found is None:
            raise
        return found, False
    return incident, True


def _ended_at(incident: Incident) -> datetime:
    assert incident.resolved_at is not None, "only what has ended is asked for its end"
    return incident.resolved_at


def _open(tenant_id: int, observation: Observation, now: datetime) -> Incident:
    incident = Incident(
        tenant_id=tenant_id,
        kind=observation.kind,
        cause=observation.cause,
        opened_at=now,
        severity=observation.severity,
    )
    _take(incident, observation, now)
    incident.save(force_insert=True)
    _note(incident, EntryKind.OPENED, BY_ITSELF, observation.summary)
    routing.tell(incident=incident, event=DeliveryEvent.OPENED, contacts=observation.contacts)
    return incident


def _reopen(incident: Incident, observation: Observation, now: datetime) -> Incident:
    incident.resolved_at = None
    incident.observations += 1
    incident.severity = observation.severity
    _take(incident, observation, now)
    _note(incident, EntryKind.REOPENED, BY_ITSELF, observation.summary)
    _save(incident)
    routing.tell(incident=incident, event=DeliveryEvent.OPENED, contacts=observation.contacts)
    return incident


def _update(incident: Incident, observation: Observation, now: datetime) -> Incident:
    is_worse = RANK[observation.severity] > RANK[incident.severity]
    incident.observations += 1
    if is_worse:
        incident.severity = observation.severity
    _take(incident, observation, now)
    if is_worse or observation.entry:
        kind = EntryKind.ESCALATED if is_worse else EntryKind.UPDATED
        _note(incident, kind, BY_ITSELF, observation.entry or observation.summary)
    _save(incident)
    if is_worse or observation.is_news:
        routing.tell(
            incident=incident,
            event=DeliveryEvent.ESCALATED if is_worse else DeliveryEvent.UPDATED,
            contacts=observation.contacts,
        )
    return incident


def _take(incident: Incident, observation: Observation, now: datetime) -> None:
    """The figures as last observed."""
    incident.title = observation.title[:TITLE_CHARACTERS_MAX]
    incident.summary = observation.summary
    incident.match = dict(observation.match)
    incident.facts = dict(observation.facts)
    incident.excess_nanos = observation.excess_nanos
    incident.seen_at = now
    incident.updated_at = now


def _resolve(incident: Incident, *, actor: str, text: str) -> Incident:
    now = timezone.now()
    incident.resolved_at = now
    incident.resolved_by = "" if actor == BY_ITSELF else actor[:300]
    incident.updated_at = now
    end_tightening(tenant_id=incident.tenant_id, cause=limit_reduction_cause(incident))
    _note(incident, EntryKind.RESOLVED, actor, text)
    _save(incident)
    routing.tell(incident=incident, event=DeliveryEvent.RESOLVED)
    return incident


def _open_for_people(incident: Incident) -> Incident:
    """Lock it. Raises IncidentResolved where there is nothing to do any more."""
    stored = Incident.objects.select_for_update().get(tenant_id=incident.tenant_id, id=incident.id)
    if stored.resolved_at is not None:
        raise IncidentResolved("This incident is resolved already.")
    return stored


def _save(incident: Incident) -> None:
    incident.updated_at = timezone.now()
    incident.save(update_fields=SAVED_FIELDS)


# All that changes after an incident was opened.
SAVED_FIELDS: Final = (
    "severity",
    "title",
    "summary",
    "match",
    "facts",
    "excess_nanos",
    "observations",
    "seen_at",
    "updated_at",
    "acknowledged_at",
    "acknowledged_by",
    "assigned_to",
    "snoozed_until",
    "resolved_at",
    "resolved_by",
)


def _note(incident: Incident, kind: EntryKind, actor: str, text: str = "") -> None:
    IncidentEntry.objects.create(
        tenant_id=incident.tenant_id,
        incident=incident,
        kind=kind,
        actor=actor[:300],
        text=text,
    )
