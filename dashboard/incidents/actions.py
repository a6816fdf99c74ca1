"""What people do with an incident: acknowledge, take, snooze, comment, resolve."""

from typing import Final
from zoneinfo import ZoneInfo

from django import forms
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone

from alerts import incidents
from alerts.incident_lists import visible_to
from alerts.models import Incident
from common.errors import InvalidRequest
from dashboard.access import PageRequest, may_halt
from dashboard.buttons import button_of
from dashboard.incidents.lines import SNOOZES, snooze_until
from tenants.admin_site import actor_of
from tenants.members import visible_teams
from tenants.models import User

TEXT_CHARACTERS_MAX: Final = 4000


class TextForm(forms.Form):
    """A comment on an incident."""

    text = forms.CharField(required=False, max_length=TEXT_CHARACTERS_MAX)


def find(request: PageRequest, incident_id: int) -> Incident:
    """An incident of the tenant that the person looks at and may see."""
    teams = visible_teams(tenant_id=request.tenant.id, user_id=request.user.pk, role=request.role)
    rows = Incident.objects.filter(visible_to(teams), tenant=request.tenant, id=incident_id)
    return get_object_or_404(rows.select_related("assigned_to"))


def members_of(request: PageRequest) -> QuerySet[User]:
    """Return those to whom an incident can be assigned."""
    return User.objects.filter(memberships__tenant=request.tenant).order_by("email")


@button_of("incidents", may=may_halt)
def acknowledge(request: PageRequest, incident_id: int) -> str:
    """Record that the person is looking into it."""
    incidents.acknowledge(incident=find(request, incident_id), actor=actor_of(request))
    return "Acknowledged. Everyone can see that you are looking into it."


@button_of("incidents", may=may_halt)
def take(request: PageRequest, incident_id: int) -> str:
    """Take it on."""
    incident = find(request, incident_id)
    incidents.assign(incident=incident, actor=actor_of(request), user=request.user)
    return "Assigned to you."


@button_of("incidents", may=may_halt)
def give_back(request: PageRequest, incident_id: int) -> str:
    """Unassign it."""
    incidents.assign(incident=find(request, incident_id), actor=actor_of(request), user=None)
    return "Unassigned."


@button_of("incidents", may=may_halt)
def assign(request: PageRequest, incident_id: int) -> str:
    """Assign it to a member."""
    incident, user_id = find(request, incident_id), request.POST.get("user", "")
    members = members_of(request)
    user = members.filter(id=user_id).first() if user_id.isascii() and user_id.isdecimal() else None
    if user is None:
        raise InvalidRequest("Choose a member. Nothing was changed.")
    incidents.assign(incident=incident, actor=actor_of(request), user=user)
    return f"Assigned to {user}."


@button_of("incidents", may=may_halt)
def snooze(request: PageRequest, incident_id: int) -> str:
    """Be told nothing of it for a while."""
    incident, choice = find(request, incident_id), request.POST.get("for", "")
    if choice not in SNOOZES:
        raise InvalidRequest("Choose for how long. Nothing was snoozed.")
    now = timezone.now()
    until = snooze_until(choice, now=now, zone=ZoneInfo(request.tenant.timezone))
    incidents.snooze(incident=incident, actor=actor_of(request), until=until)
    return f"Snoozed: {SNOOZES[choice].lower()}. It comes back sooner if it becomes critical."


@button_of("incidents", may=may_halt)
def wake(request: PageRequest, incident_id: int) -> str:
    """End a snooze."""
    incidents.snooze(incident=find(request, incident_id), actor=actor_of(request), until=None)
    return "Snooze ended."


@button_of("incidents", may=may_halt)
def comment(request: PageRequest, incident_id: int) -> str:
    """Write into its timeline."""
    incident, text = find(request, incident_id), _text(request)
    if not text:
        raise InvalidRequest("The comment is empty, so it was not added.")
    incidents.comment(incident=incident, actor=actor_of(request), text=text)
    return "Your comment was added to the timeline."


@button_of("incidents", may=may_halt)
def resolve(request: PageRequest, incident_id: int) -> str:
    """Say that it is dealt with."""
    incident = find(request, incident_id)
    incidents.resolve(incident=incident, actor=actor_of(request), text=_text(request))
    return "Resolved. If it happens again after the cool-down, a new incident opens."


def _text(request: PageRequest) -> str:
    form = TextForm(request.POST)
    if not form.is_valid():
        raise InvalidRequest(
            f"This text cannot be stored: it can have up to {TEXT_CHARACTERS_MAX:,} characters."
            " Nothing was changed."
        )
    text: str = form.cleaned_data["text"]
    return text
