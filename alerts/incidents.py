"""Incidents: one for a cause as long as it lasts, and what people do with it.

Sources observe a cause as often as they like; people are notified of it once, again when it becomes
more severe, and when it is over. Everything here runs in the tenant's scope, and deliveries are
written in the same transaction.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from alerts import routing
from alerts.errors import IncidentResolved
from alerts.models import SERVICE, DeliveryEvent, EntryKind, Incident, IncidentKind, Severity
from alerts.settings import settings_of
from common.formats import format_time
from metering.limits.limit_reductions import end_limit_reduction
from tenants.models import Membership, User
from tenants.runs import tenants_of

RANK: Final[Mapping[str, int]] = {name: rank for rank, name in enumerate(Severity.values)}
TITLE_CHARACTERS_MAX: Final = 300
CAUSE_CHARACTERS_MAX: Final = 700
SNOOZE_MAX: Final = timedelta(days=90)
# One transaction ends this many snoozes.
SNOOZES_ENDED_MAX: Final = 100


class Observation(NamedTuple):
    """What a source sees of a cause now."""

    kind: IncidentKind
    # At most 700 characters, the same at every observation.
    cause: str
    severity: Severity
    title: str
    summary: str
    match: Mapping[str, object]
    facts: Mapping[str, object]
    excess_nanos: int | None = None
    # Contacts that a budget's level names; None: the channels of that severity.
    contacts: tuple[str, ...] | None = None
    # A line for the timeline of an incident that exists; empty: the figures alone are new.
    entry: str = ""
    # Whether people are notified although it is no more severe than before.
    is_news: bool = False
    # Whether it is another matter than what was resolved before, however recently.
    is_new_episode: bool = False


@transaction.atomic
def observe(*, tenant_id: int, observation: Observation) -> Incident:
    """Open the cause's incident, or update it.

    Invariant: a cause has at most one unresolved incident, however many observe it simultaneously.
    One that a person resolved stays quiet until the cause has rested for the tenant's cool-down;
    one that ended by itself within that time continues as the same incident.
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
    """Resolve the incident of a cause that is over. Return None if there is none."""
    incident = _unresolved(tenant_id, cause)
    if incident is None:
        return None
    if summary:
        incident.summary = summary
    return _resolve(incident, actor=SERVICE, text=summary)


def update_figures(*, incident: Incident, observation: Observation) -> None:
    """Show the figures of now. No one is notified: it is no worse than what was observed."""
    stored = _unresolved(incident.tenant_id, incident.cause)
    if stored is None or stored.id != incident.id or stored.facts != incident.facts:
        return  # another worker has changed it meanwhile
    # It was not observed again.
    _apply(stored, observation, stored.seen_at)
    if observation.entry:
        stored.add_entry(EntryKind.UPDATED, SERVICE, observation.entry)
    stored.save()


@transaction.atomic
def acknowledge(*, incident: Incident, actor: str) -> Incident:
    """Note that someone looks at it. A second time changes nothing."""
    stored = _lock_unresolved(incident)
    if stored.acknowledged_at is None:
        stored.acknowledged_at = timezone.now()
        stored.acknowledged_by = actor[:300]
        stored.save()
        stored.add_entry(EntryKind.ACKNOWLEDGED, actor)
        routing.notify(incident=stored, event=DeliveryEvent.ACKNOWLEDGED)
    return stored


@transaction.atomic
def assign(*, incident: Incident, actor: str, user: User | None) -> Incident:
    """Assign it to a member of the tenant, or to no one. Raises ValidationError for strangers."""
    stored = _lock_unresolved(incident)
    members = Membership.objects.filter(tenant_id=stored.tenant_id, user=user)
    if user is not None and not members.exists():
        raise ValidationError("An incident can be assigned only to a member of the tenant.")
    if stored.assigned_to != user:
        stored.assigned_to = user
        stored.save()
        stored.add_entry(EntryKind.ASSIGNED, actor, f"to {user.email}" if user else "to no one")
    return stored


@transaction.atomic
def snooze(*, incident: Incident, actor: str, until: datetime | None) -> Incident:
    """Notify no one of it until then, unless it becomes critical. None ends the snooze."""
    now = timezone.now()
    if until is not None and not now < until <= now + SNOOZE_MAX:
        raise ValidationError(f"Snooze until a time within the next {SNOOZE_MAX.days} days.")
    stored = _lock_unresolved(incident)
    if stored.snoozed_until != until:
        stored.snoozed_until = until
        stored.save()
        text = f"until {format_time(until)}" if until else "ended"
        stored.add_entry(EntryKind.SNOOZED, actor, text)
    return stored


@transaction.atomic
def comment(*, incident: Incident, actor: str, text: str) -> Incident:
    """Write a line of the timeline, also after it was resolved. The same line a second time in a
    row, as of a second click, changes nothing.
    """
    stored = _lock(incident)
    last = stored.entries.order_by("-id").first()
    said = (EntryKind.COMMENTED, actor[:300], text)
    if last is None or (last.kind, last.actor, last.text) != said:
        stored.add_entry(*said)
    return stored


@transaction.atomic
def resolve(*, incident: Incident, actor: str, text: str = "") -> Incident:
    """Resolve it for a person. A second time changes nothing."""
    stored = _lock(incident)
    return stored if stored.resolved_at else _resolve(stored, actor=actor, text=text)


def tenants_with_ended_snoozes(now: datetime) -> list[int]:
    """Return tenants with an incident that was snoozed until now. Needs a platform scope."""
    return tenants_of(Incident.objects.filter(resolved_at=None, snoozed_until__lte=now))


@transaction.atomic
def end_snoozes(*, tenant_id: int, now: datetime) -> int:
    """Notify again of incidents whose snooze has ended and that are still ongoing. Return the
    number of incidents; the next run takes the rest.
    """
    due = list(
        Incident.objects.select_for_update(skip_locked=True)
        .filter(tenant_id=tenant_id, resolved_at=None, snoozed_until__lte=now)
        .order_by("id")[:SNOOZES_ENDED_MAX]
    )
    for incident in due:
        incident.snoozed_until = None
        incident.save()
        incident.add_entry(EntryKind.SNOOZED, SERVICE, "over, and still ongoing")
        routing.notify_again(incident=incident)
    return len(due)


def limit_reduction_cause(incident: Incident) -> str:
    """Return the name under which limits are reduced while an incident lasts."""
    return f"anomaly:{incident.id}"


def _unresolved(tenant_id: int, cause: str) -> Incident | None:
    return (
        Incident.objects.select_for_update()
        .filter(tenant_id=tenant_id, cause=cause, resolved_at=None)
        .first()
    )


def _begin(tenant_id: int, observation: Observation, now: datetime) -> tuple[Incident, bool]:
    """Return the incident of a cause that has none unresolved, and whether this has opened it.

    It is the former one if this is the same episode, and another worker's if that was faster.
    """
    cool_down = timedelta(seconds=settings_of(tenant_id).cool_down_seconds)
    of_cause = Incident.objects.filter(tenant_id=tenant_id, cause=observation.cause)
    last = of_cause.select_for_update().order_by("-id").first()
    if last is not None and last.resolved_at is None:
        return last, False
    if last is not None and last.resolved_at is not None and not observation.is_new_episode:
        if last.resolved_by and now - last.seen_at < cool_down:
            return last, False
        if not last.resolved_by and now - last.resolved_at < cool_down:
            return _reopen(last, observation, now), True
    try:
        with transaction.atomic():
            incident = _open(tenant_id, observation, now)
    except IntegrityError:
        faster = _unresolved(tenant_id, observation.cause)
        if faster is None:
            raise
        return faster, False
    return incident, True


def _open(tenant_id: int, observation: Observation, now: datetime) -> Incident:
    incident = Incident(
        tenant_id=tenant_id, kind=observation.kind, cause=observation.cause, opened_at=now
    )
    _apply(incident, observation, now)
    incident.save(force_insert=True)
    incident.add_entry(EntryKind.OPENED, SERVICE, observation.summary)
    routing.notify(incident=incident, event=DeliveryEvent.OPENED, contacts=observation.contacts)
    return incident


def _reopen(incident: Incident, observation: Observation, now: datetime) -> Incident:
    incident.resolved_at = None
    incident.observations += 1
    _apply(incident, observation, now)
    incident.save()
    incident.add_entry(EntryKind.REOPENED, SERVICE, observation.summary)
    routing.notify(incident=incident, event=DeliveryEvent.OPENED, contacts=observation.contacts)
    return incident


def _update(incident: Incident, observation: Observation, now: datetime) -> Incident:
    before = incident.severity
    is_worse = RANK[observation.severity] > RANK[before]
    incident.observations += 1
    _apply(incident, observation, now)
    if not is_worse:
        incident.severity = before
    incident.save()
    if is_worse or observation.entry:
        kind = EntryKind.ESCALATED if is_worse else EntryKind.UPDATED
        incident.add_entry(kind, SERVICE, observation.entry or observation.summary)
    if is_worse or observation.is_news:
        routing.notify(
            incident=incident,
            event=DeliveryEvent.ESCALATED if is_worse else DeliveryEvent.UPDATED,
            contacts=observation.contacts,
        )
    return incident


def _apply(incident: Incident, observation: Observation, seen_at: datetime) -> None:
    """Take over what was observed."""
    incident.severity = observation.severity
    incident.title = observation.title[:TITLE_CHARACTERS_MAX]
    incident.summary = observation.summary
    incident.match = dict(observation.match)
    incident.facts = dict(observation.facts)
    incident.excess_nanos = observation.excess_nanos
    incident.seen_at = seen_at


def _resolve(incident: Incident, *, actor: str, text: str) -> Incident:
    incident.resolved_at = timezone.now()
    incident.resolved_by = "" if actor == SERVICE else actor[:300]
    incident.save()
    end_limit_reduction(tenant_id=incident.tenant_id, cause=limit_reduction_cause(incident))
    incident.add_entry(EntryKind.RESOLVED, actor, text)
    routing.notify(incident=incident, event=DeliveryEvent.RESOLVED)
    return incident


def _lock(incident: Incident) -> Incident:
    return Incident.objects.select_for_update().get(tenant_id=incident.tenant_id, id=incident.id)


def _lock_unresolved(incident: Incident) -> Incident:
    """Lock it for a person's action. Raises IncidentResolved if there is nothing to do any more."""
    stored = _lock(incident)
    if stored.resolved_at is not None:
        raise IncidentResolved("This incident is resolved already.")
    return stored
