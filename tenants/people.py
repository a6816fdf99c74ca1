"""Tenants and their people: how both come to be."""

import secrets
from typing import Final, NamedTuple

from django.contrib.auth.hashers import make_password
from django.db import transaction

from common.database_errors import name_once
from common.errors import Conflict, InvalidRequest, NameTaken
from common.values import normal_value
from tenants.audit import audited_change, create_audited
from tenants.keys import create_api_key
from tenants.limits import lock_room, require_room
from tenants.models import Membership, Team, Tenant, User, normalize_email
from tenants.roles import Role
from tenants.scope import platform_scope, tenant_scope

FORMER_NAMES_MAX: Final = 20


class NewTenant(NamedTuple):
    """What the founder of a tenant needs to begin. The key and the password are shown this once."""

    tenant: Tenant
    api_key: str
    email: str
    password: str | None


class TenantExists(ValueError):
    """Another tenant has this name."""


def create_tenant(*, name: str, owner_email: str, actor: str) -> NewTenant:
    """Make a tenant with its owner and a key with all scopes.

    Who is new gets a first password, and so does an account that someone else may have made for
    the address, which ends its sessions; an owner who has an account of their own keeps theirs, and
    `password` is None. This is the operator's: a tenant lets people in by invitation.
    """
    password = secrets.token_urlsafe(12)
    stored_password = make_password(password)  # slow, so before the transaction
    with platform_scope("create tenant"):
        if Tenant.objects.filter(name=name).exists():
            raise TenantExists(f"A tenant named {name!r} exists already.")
        tenant = create_audited(Tenant(name=name), actor=actor)
        with tenant_scope(tenant.id):
            user = User.objects.find(owner_email)
            has_own = user is not None and user.is_address_proven
            if user is None:
                user = User(email=normalize_email(owner_email))
            if not has_own:
                user.password, user.is_address_proven = stored_password, True
                user.save()
            add_member(tenant=tenant, user=user, role=Role.OWNER, actor=actor)
            _, api_key = create_api_key(
                tenant=tenant, name="First key", actor=actor, created_by=user
            )
    return NewTenant(tenant, api_key, user.email, None if has_own else password)


@transaction.atomic
def add_member(*, tenant: Tenant, user: User, role: Role, actor: str) -> Membership:
    """Let a person into a tenant: its founder, or who accepts an invitation."""
    return create_audited(Membership(tenant=tenant, user=user, role=role.value), actor=actor)


@transaction.atomic
def create_team(*, tenant: Tenant, name: str, actor: str) -> Team:
    """Add a team, by its name as events would carry it. Raises InvalidRequest, and NameTaken when
    the tenant has one that has or had that name.
    """
    name = _team_name(name)
    require_room(tenant.id, "teams", Team.objects.filter(tenant_id=tenant.id))
    _require_unused_name(Team(tenant=tenant, name=name))
    with name_once("team", name):
        return create_audited(Team(tenant=tenant, name=name), actor=actor)


@transaction.atomic
def rename_team(*, team: Team, name: str, actor: str) -> Team:
    """Give a team another name, which events carry from now on.

    Invariant: a name is one team's at most, also after it has another. Its members see what was
    counted under its former names, and members of other teams do not. Raises InvalidRequest and
    NameTaken.
    """
    name = _team_name(name)
    with name_once("team", name), audited_change(team, actor=actor) as change:
        lock_room(team.tenant_id)  # against a new team of one of its names
        stored = change.row
        former = [former_name for former_name in stored.names if former_name != name]
        if len(former) > FORMER_NAMES_MAX:
            raise Conflict(f"A team has at most {FORMER_NAMES_MAX} former names.")
        stored.name, stored.former_names = name, former
        _require_unused_name(stored)
    return stored


def _team_name(typed: str) -> str:
    """Return a name as usage has it, which decides what the team's members see."""
    if name := normal_value(typed):
        return name
    detail = "A team's name needs a character that can be seen."
    raise InvalidRequest(detail, errors=[{"pointer": "/name", "code": "blank", "detail": detail}])


def _require_unused_name(team: Team) -> None:
    """Raise NameTaken where the name was another team's. The caller has locked the room."""
    had = Team.objects.filter(tenant_id=team.tenant_id, former_names__contains=[team.name])
    if had.exclude(id=team.id).exists():
        raise NameTaken("team", team.name)
