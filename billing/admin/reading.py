"""What the admin pages of billing have in common."""

from typing import Any, Final

from django.http import HttpRequest

from tenants.admin_site import ReadOnlyAdmin, role_of
from tenants.roles import SCOPES_BY_ROLE, Role, Scope

# What customers pay is for those who may bill them.
BILLING_ROLES: Final = frozenset(role for role in Role if Scope.BILLING in SCOPES_BY_ROLE[role])


class SeenByBillers:
    """A page that only those see who may bill."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return role_of(request) in BILLING_ROLES


class BillingAdmin(SeenByBillers, ReadOnlyAdmin):
    """A page that shows rows of billing."""
