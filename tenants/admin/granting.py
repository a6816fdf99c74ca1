"""What the pages of members and of invitations share: roles that may be given."""

from django.http import HttpRequest

from tenants.admin_site import role_of
from tenants.roles import Role

ROLE_LABELS = {
    Role.OWNER: "owner: everything, including owners",
    Role.ADMIN: "admin: everything except owners",
    Role.FINANCE: "finance: budgets and prices",
    Role.ENGINEER: "engineer: view, report usage, enforce",
    Role.VIEWER: "viewer: view only",
}


def role_choices(request: HttpRequest) -> list[tuple[str, str]]:
    """The roles that this person may give."""
    is_owner = role_of(request) is Role.OWNER
    return [(role.value, ROLE_LABELS[role]) for role in Role if role is not Role.OWNER or is_owner]


def granting_role(request: HttpRequest) -> Role:
    """The role of who invites, changes or removes."""
    role = role_of(request)
    assert role is not None, "the admin is for members"
    return role
