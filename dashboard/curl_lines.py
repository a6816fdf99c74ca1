"""What a ready curl line is made of: where the service is, and the tenant's own key."""

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone

from dashboard.access import PageRequest
from tenants.models import ApiKey
from tenants.roles import ROLES_THAT_GRANT, Scope


def service_url(request: HttpRequest) -> str:
    """Where clients reach the service."""
    public_url: str | None = settings.ENVIRONMENT.public_url
    return (public_url or request.build_absolute_uri("/")).rstrip("/")


def curl_context(request: PageRequest, scope: Scope) -> dict[str, object]:
    """What a ready line for the first call of an API is made of: the newest key with its scope."""
    keys = ApiKey.objects.filter(
        tenant=request.tenant, revoked_at=None, scopes__contains=[scope.value]
    ).exclude(expires_at__lte=timezone.now())
    key = keys.order_by("-id").first()
    return {
        "url": service_url(request),
        "key_prefix": key.prefix if key else None,
        "may_make_keys": request.role in ROLES_THAT_GRANT,
    }
