"""API keys for DRF: who calls, and whether the key's scopes reach."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

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
    """Lets a key through that has one of the view's `read_scopes` to read, else its
    `write_scope`.
    """

    def has_permission(self, request: Request, view: "APIView") -> bool:
        holder = cast(KeyHolder | None, request.auth)
        if holder is None:
            raise NotAuthenticated("Send an API key: Authorization: Bearer sg_<prefix>_<secret>.")
        lack = lacks_scopes(holder, needed_scopes(request.method or "GET", view))
        if lack is not None:
            raise PermissionDenied(lack)
        return True


def needed_scopes(method: str, view: Any) -> tuple[Scope, ...]:
    """Return the scopes any of which a view asks for."""
    scopes: tuple[Scope, ...] = view.read_scopes
    return scopes if method in SAFE_METHODS else (view.write_scope,)


def lacks_scopes(holder: KeyHolder, needed: Sequence[Scope]) -> str | None:
    """What a key lacks that has none of the scopes, as a sentence; None where it has one."""
    if any(scope.value in holder.scopes for scope in needed):
        return None
    return f"This key lacks the scope {' or '.join(repr(scope.value) for scope in needed)}."
