"""Teams: who is in them, who leads them, and a new one."""

from typing import Final, NamedTuple

from django import forms
from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse

from dashboard.access import PageRequest, may_grant
from dashboard.forms import form_page, form_token, save_once, sent_data, show_form
from dashboard.frame import filter_bar_of, frame
from tenants.admin_site import actor_of
from tenants.members import change_team_members
from tenants.models import Membership, Team, TeamMember
from tenants.people import create_team, rename_team

TEAMS_MAX: Final = 500
MEMBERS_MAX: Final = 500


class TeamLine(NamedTuple):
    """A team as the page shows it."""

    row: Team
    leads: list[str]
    others: list[str]


class NewTeamForm(forms.Form):
    """The name of a new team."""

    name = forms.CharField(
        label="Name",
        max_length=200,
        help_text="Events carry it in their field “team”.",
    )


class TeamForm(forms.Form):
    """What a team is called, who belongs to it, and who leads it."""

    name = forms.CharField(label="Name", max_length=200)

    def __init__(self, request: PageRequest, team: Team) -> None:
        people = TeamMember.objects.filter(tenant=request.tenant, team=team)
        leads = dict(people.values_list("user_id", "is_lead"))
        initial = {
            "name": team.name,
            "members": [str(user) for user in leads],
            "leads": [str(user) for user, is_lead in leads.items() if is_lead],
        }
        super().__init__(sent_data(request), initial=initial)
        self.fields["name"].help_text = _rename_words(team)
        rows = Membership.objects.filter(tenant=request.tenant).order_by("user__email")
        choices = [
            (str(user), email)
            for user, email in rows.values_list("user_id", "user__email")[:MEMBERS_MAX]
        ]
        for name, label, hint in (
            ("members", "Members", ""),
            ("leads", "Leads", "Leads are notified about the team's budgets."),
        ):
            self.fields[name] = forms.MultipleChoiceField(
                label=label,
                required=False,
                choices=choices,
                widget=forms.CheckboxSelectMultiple(),
                help_text=hint,
            )

    @property
    def leads_by_user(self) -> dict[int, bool]:
        """The people who were chosen, and whether each leads."""
        led = set(self.cleaned_data["leads"])
        return {int(user): user in led for user in led | set(self.cleaned_data["members"])}


@form_page("teams", may=may_grant, is_readable=True)
def page(request: PageRequest) -> HttpResponse:
    """Who is in which team?"""
    form = NewTeamForm(sent_data(request)) if may_grant(request) else None
    if form is not None:
        made = save_once(
            request,
            form,
            lambda: create_team(
                tenant=request.tenant, name=form.cleaned_data["name"], actor=actor_of(request)
            ),
        )
        if made is not None:
            messages.success(request, f"“{made.name}” was created. Choose its members.")
            return HttpResponseRedirect(reverse("dashboard:team", args=[made.id]))
    lines = _lines(request.tenant.id)
    context = frame(request, filter_bar_of(request), page="teams") | {
        "headline": headline_of(lines),
        "sub": "Leads are notified about their team's budgets. Budgets and filters use the names.",
        "lines": lines,
        "form": form,
        **form_token(request),
    }
    return render(request, "dashboard/settings/teams.html", context)


@form_page("teams", may=may_grant)
def team(request: PageRequest, team_id: int) -> HttpResponse:
    """Choose a team's name, members and leads."""
    row = get_object_or_404(Team, tenant=request.tenant, id=team_id)
    form = TeamForm(request, row)

    def save() -> Team:
        actor = actor_of(request)
        renamed = rename_team(team=row, name=form.cleaned_data["name"], actor=actor)
        change_team_members(team=row, leads_by_user=form.leads_by_user, actor=actor)
        return renamed

    saved = save_once(request, form, save)
    if saved is not None:
        messages.success(request, _saved_words(row, saved.name))
        return HttpResponseRedirect(reverse("dashboard:teams"))
    return show_form(
        request,
        form,
        page="teams",
        headline=row.name,
        sub=f"Known before as {', '.join(row.former_names)}." if row.former_names else "",
        verb="Save changes",
    )


def _rename_words(team: Team) -> str:
    """What a rename leaves as it is."""
    return (
        f"Calls until now, and budgets, rules and API keys that name “{team.name}”, keep that "
        "name: update them and whatever sends events. Members see the usage of both names."
    )


def _saved_words(team: Team, name: str) -> str:
    if name == team.name:
        return f"“{name}” was changed."
    renamed = f"“{team.name}” is “{name}” now."
    return f"{renamed} Update budgets, rules, API keys and senders that use the old name."


def headline_of(lines: list[TeamLine]) -> str:
    """The finding: how many teams there are, and how many have no one to notify."""
    if not lines:
        return "No teams yet"
    words = "1 team" if len(lines) == 1 else f"{len(lines):,} teams"
    leaderless = sum(not line.leads for line in lines)
    if not leaderless:
        return f"{words}, each with a lead"
    if leaderless == len(lines):
        return f"{words} without a lead"
    return f"{words}; {leaderless:,} without a lead"


def _lines(tenant_id: int) -> list[TeamLine]:
    leads: dict[int, list[str]] = {}
    others: dict[int, list[str]] = {}
    people = TeamMember.objects.filter(tenant_id=tenant_id).order_by("user__email")
    for team_id, email, is_lead in people.values_list("team_id", "user__email", "is_lead"):
        (leads if is_lead else others).setdefault(team_id, []).append(email)
    return [
        TeamLine(row, leads.get(row.id, []), others.get(row.id, []))
        for row in Team.objects.filter(tenant_id=tenant_id).order_by("name")[:TEAMS_MAX]
    ]
