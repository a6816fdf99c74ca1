"""What the admin pages of billing have in common."""

from typing import Any, ClassVar, Final

from django.http import HttpRequest

from tenants.admin_kinds import KindAdmin, ReadOnlyAdmin
from tenants.admin_site import role_of
from tenants.roles import SCOPES_BY_ROLE, Role, Scope

# What customers pay is for those who may bill them.
BILLING_ROLES: Final = frozenset(role for role in Role if Scope.BILLING in SCOPES_BY_ROLE[role])


class SeenByBillers:
    """A page that only those see who may bill."""

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return role_of(request) in BILLING_ROLES


class BillingAdmin(SeenByBillers, ReadOnlyAdmin):
    """A page that shows rows of billing."""


class KeptAdmin(SeenByBillers, KindAdmin):
    """A page that changes rows of billing by the domain's functions. Columns that never change are
    shown once a row is there.
    """

    writers = BILLING_ROLES
    # Columns of a new row, and those of them that may be changed later.
    filled: ClassVar[tuple[str, ...]] = ()
    changed: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[tuple[str, ...]] = ()

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        is_archived = obj is not None and getattr(obj, "archived_at", None) is not None
        return self.may_write(request) and not is_archived

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return ((None, {"fields": self.filled if obj is None else (*self.filled, *self.shown)}),)

    def get_readonly_fields(self, request: HttpRequest, obj: object = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return (*(name for name in self.filled if name not in self.changed), *self.shown)
