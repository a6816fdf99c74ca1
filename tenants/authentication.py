"""API keys for DRF: who calls, and whether the key's scopes reach."""

from typing import TYPE_CHECKING, Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from tenants.keys import KeyHolder
from tenants.roles import Scope

if TYPE_CHECKING:
    # Importing it here for good would go in a circle: views load the classes that settings name.
    from rest_framework.views import APIView

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class ApiKeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer sg_<prefix>_<secret>`. The middleware has looked it up."""

    def authenticate(self, request: Request) -> tuple[None, KeyHolder] | None:
        holder: KeyHolder | None = getattr(request._request, "key_holder", None)
        return None if holder is None else (None, holder)

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="spendgate"'


class HasScope(BasePermission):
    """Lets a key through that has the view's `read_scope` to read, else its `write_scope`."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        holder: Any = request.auth
        if holder is None:
            raise NotAuthenticated("Send an API key: Authorization: Bearer sg_<prefix>_<secret>.")
        needed = needed_scope(request.method or "GET", view)
        if needed.value not in holder.scopes:
            raise PermissionDenied(f"This key lacks the scope {needed.value!r}.")
        return True


def needed_scope(method: str, view: Any) -> Scope:
    """The scope that a view asks for; views without their own attributes read and manage."""
    if method in SAFE_METHODS:
        return Scope(getattr(view, "read_scope", Scope.READ))
    return Scope(getattr(view, "write_scope", Scope.MANAGE))
