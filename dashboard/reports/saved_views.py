"""Saved views: who keeps, opens and changes them. A view holds an address and no figures, so
each reader sees what their own rights allow.
"""

from typing import Final, NamedTuple
from urllib.parse import urlencode

from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import QueryDict
from django.utils import timezone

from common.database_errors import name_once
from common.errors import InvalidRequest, NotFound
from dashboard.access import PageRequest, may_manage
from dashboard.filter_bar import read_filter_bar
from dashboard.models import (
    QUERY_CHARACTERS_MAX,
    VIEW_NAME_CHARACTERS_MAX,
    PinnedView,
    Readers,
    SavedView,
)
from tenants.admin_site import actor_of
from tenants.audit import audited_change, create_audited, delete_audited
from tenants.limits import require_room
from tenants.models import Membership, Team, TeamMember
from tenants.roles import SCOPES_BY_ROLE, Role, Scope

TEAM_PREFIX: Final = "team-"


class WrongView(InvalidRequest):
    """What a saved view cannot be."""

    code = "invalid_view"


class Audience(NamedTuple):
    """Who can open a view: its readers, and the team if it is for one."""

    readers: str
    team: Team | None = None


def may_save(request: PageRequest) -> bool:
    """Whether the person may keep views at all: a viewer changes nothing."""
    return request.role != Role.VIEWER


def may_change(request: PageRequest, view: SavedView) -> bool:
    """Whether the person may rename or remove a view: their own, or as a manager one that others
    can open.
    """
    is_own = view.owner_id == request.user.pk and may_save(request)
    return is_own or (may_manage(request) and view.readers != Readers.OWNER)


def readable(*, tenant_id: int, user_id: int, role: Role) -> QuerySet[SavedView]:
    """Views that a member may open: their own, those of their teams, those for everyone; who
    manages budgets opens those of all teams.
    """
    of_teams = Q(readers=Readers.TEAM)
    if Scope.MANAGE not in SCOPES_BY_ROLE[role]:
        teams = TeamMember.objects.filter(tenant_id=tenant_id, user_id=user_id)
        of_teams &= Q(team_id__in=teams.values("team_id"))
    return SavedView.objects.filter(
        Q(owner_id=user_id) | of_teams | Q(readers=Readers.TENANT), tenant_id=tenant_id
    ).order_by("name", "id")


def readable_views(request: PageRequest) -> QuerySet[SavedView]:
    """Views that the person may open."""
    rows = readable(tenant_id=request.tenant.id, user_id=request.user.pk, role=request.role)
    return rows.select_related("owner", "team")


def find_view(request: PageRequest, view_id: int) -> SavedView:
    """A view that the person may open. Raises NotFound."""
    view = readable_views(request).filter(id=view_id).first()
    if view is None:
        raise NotFound("This saved view does not exist, or you may not open it.")
    return view


def pinned_of(request: PageRequest) -> SavedView | None:
    """The view with which the person begins, as long as they may open it."""
    pinned = PinnedView.objects.filter(tenant=request.tenant, user=request.user)
    return readable_views(request).filter(id__in=pinned.values("view_id")).first()


def reader_choices(request: PageRequest) -> list[tuple[str, str]]:
    """To whom the person may open a view: teams of theirs, and as a manager every team and all."""
    teams = Team.objects.filter(tenant=request.tenant).order_by("name")
    if not may_manage(request):
        teams = teams.filter(members__user=request.user)
    choices = [(Readers.OWNER.value, Readers.OWNER.label)]
    choices += [(f"{TEAM_PREFIX}{team.id}", f"Team {team.name}") for team in teams[:200]]
    if may_manage(request):
        choices.append((Readers.TENANT.value, Readers.TENANT.label))
    return choices


def audience_of(request: PageRequest, text: str) -> Audience:
    """The readers that a form names. Raises WrongView for what the person may not choose."""
    if text not in dict(reader_choices(request)):
        raise WrongView("Choose who can open the view: you, a team of yours, or everyone.")
    if not text.startswith(TEAM_PREFIX):
        return Audience(text)
    team_id = int(text.removeprefix(TEAM_PREFIX))
    return Audience(Readers.TEAM, Team.objects.get(tenant=request.tenant, id=team_id))


def save_view(request: PageRequest, *, name: str, query: str, audience: Audience) -> SavedView:
    """Keep an address under a name. Raises WrongView."""
    view = SavedView(
        tenant=request.tenant,
        owner=request.user,
        name=_name(name),
        query=_query(request, query),
        readers=audience.readers,
        team=audience.team,
    )
    require_room(request.tenant.id, "saved_views", SavedView.objects.filter(tenant=request.tenant))
    with name_once("saved view", view.name), transaction.atomic():
        return create_audited(view, actor=actor_of(request))


def rename_view(request: PageRequest, view: SavedView, *, name: str, audience: Audience) -> None:
    """Change a view's name and readers. Raises WrongView."""
    changes = {"name": _name(name), "readers": audience.readers, "team": audience.team}
    with (
        name_once("saved view", _name(name)),
        transaction.atomic(),
        audited_change(view, actor=actor_of(request), changes=changes),
    ):
        pass


def delete_view(request: PageRequest, view: SavedView) -> None:
    """Remove a view, with its reports and where it is pinned."""
    with transaction.atomic():
        delete_audited(view, actor=actor_of(request))


def pin_view(request: PageRequest, view: SavedView) -> None:
    """Begin with this view from now on."""
    PinnedView.objects.update_or_create(
        tenant=request.tenant, user=request.user, defaults={"view": view}
    )


def unpin_view(request: PageRequest) -> None:
    """Begin with the overview again."""
    PinnedView.objects.filter(tenant=request.tenant, user=request.user).delete()


def role_of(*, tenant_id: int, user_id: int) -> Role | None:
    """The role that an active person has now; None: they are no member any more."""
    membership = Membership.objects.filter(
        tenant_id=tenant_id, user_id=user_id, user__is_active=True
    ).first()
    return Role(membership.role) if membership else None


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not 1 <= len(name) <= VIEW_NAME_CHARACTERS_MAX or not name.isprintable():
        raise WrongView(f"A name has 1 to {VIEW_NAME_CHARACTERS_MAX} printable characters.")
    return name


def _query(request: PageRequest, text: str) -> str:
    """The address's parameters, as the filter bar writes them: nothing else is kept."""
    given = QueryDict(text)
    bar = read_filter_bar(given, timezone=request.tenant.timezone, now=timezone.now())
    kept = {"cumulative": "true"} if given.get("cumulative") == "true" else {}
    query = urlencode(bar.with_further(kept).pairs, safe="[],")
    if len(query) > QUERY_CHARACTERS_MAX:
        raise WrongView("This view has too many filters to be saved.")
    return query
