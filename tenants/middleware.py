"""Which tenant a request is for, and the transaction that sees only that tenant."""

from collections.abc import Callable
from typing import cast

from django.db import transaction
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase

from tenants.keys import KeyHolder, find_key_holder
from tenants.models import Membership, Tenant, User
from tenants.roles import Role
from tenants.scope import platform_scope, tenant_scope

SESSION_TENANT = "tenant_id"
# Pages of accounts hash passwords, during which no transaction may be open.
ACCOUNT_PAGES = ("/login", "/password", "/invitations/")
# Health and metrics must answer while the database does not; these pages belong to no tenant.
OUTSIDE_TENANTS = (
    *("/healthz", "/readyz", "/metrics", "/static/", "/v1/schema", "/v1/docs"),
    # Which tenant's secret signed it is for its view to find.
    "/webhooks/",
    *ACCOUNT_PAGES,
    # A customer of a tenant, by a signed link that says whose.
    "/bill/",
)

# These work in transactions of their own, some of them in many: what they lock must not stay locked
# until the response is sent.
OWN_TRANSACTIONS = frozenset(
    {
        ("POST", "/v1/events"),
        ("POST", "/v1/traces"),
        ("POST", "/v1/integrations/litellm"),
        ("POST", "/v1/corrections"),
        ("POST", "/v1/prices/rerate"),
        ("GET", "/v1/export/focus.csv"),
        ("GET", "/v1/halts"),
        ("HEAD", "/v1/halts"),
    }
)
# Reservations and what is done with them share transactions between callers. A statement is
# computed in a snapshot, and becomes final in another transaction.
OWN_PAGES = "/statements/"
OWN_PREFIXES = ("/v1/reservations", "/v1/statements/", OWN_PAGES)


class TenantRequest(HttpRequest):
    """A request as this middleware completes it: of a program with its key, or of a person."""

    key_holder: KeyHolder | None
    tenant_id: int | None
    tenant: Tenant
    # Of the person who is signed in: the role in the present tenant, and all memberships.
    role: Role | None
    memberships: list[Membership]
    # A secret that the next answer shows.
    shown_once: str | None


class TenantMiddleware:
    """Find the tenant by API key or by session and run everything below inside its scope.

    The transaction spans the whole response, template rendering included: rows read lazily while a
    template renders must be visible too. A response of 500 or above is rolled back.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, incoming: HttpRequest) -> HttpResponseBase:
        request = cast(TenantRequest, incoming)
        if request.path.startswith(OUTSIDE_TENANTS):
            return self.get_response(request)
        request.key_holder = _key_holder(request)
        request.tenant_id = tenant_id = _tenant_id(request)
        if tenant_id is None:
            with platform_scope("sign-in and pages without a tenant"):
                return self.get_response(request)
        if _opens_its_own(request):
            if request.path.startswith(OWN_PAGES):
                with tenant_scope(tenant_id):
                    request.tenant = Tenant.objects.get(id=tenant_id)
            return self.get_response(request)
        with tenant_scope(tenant_id, is_snapshot=request.method in {"GET", "HEAD"}):
            request.tenant = Tenant.objects.get(id=tenant_id)
            response = self.get_response(request)
            if isinstance(response, HttpResponse) and response.status_code >= 500:
                transaction.set_rollback(True)
            assert not response.streaming or isinstance(response, FileResponse), (
                "a stream runs after this transaction: only a file can"
            )
            return response


def _opens_its_own(request: HttpRequest) -> bool:
    return (request.method, request.path) in OWN_TRANSACTIONS or (
        request.method == "POST" and request.path.startswith(OWN_PREFIXES)
    )


def _key_holder(request: HttpRequest) -> KeyHolder | None:
    kind, _, text = request.headers.get("Authorization", "").partition(" ")
    return find_key_holder(text.strip()) if kind.lower() == "bearer" else None


def _tenant_id(request: TenantRequest) -> int | None:
    holder = request.key_holder
    if request.path.startswith("/v1/"):
        return holder.tenant_id if holder is not None else None
    user = request.user
    if not isinstance(user, User):
        request.role = None
        return None
    with platform_scope("memberships of the person who is signed in"):
        memberships = list(
            Membership.objects.filter(user=user).order_by("id").select_related("tenant")
        )
    request.memberships = memberships
    chosen = request.session.get(SESSION_TENANT)
    membership = next(
        (each for each in memberships if each.tenant_id == chosen),
        memberships[0] if memberships else None,
    )
    request.role = Role(membership.role) if membership else None
    return membership.tenant_id if membership else None
