"""Pages: each reads the filter bar, asks the domain, and renders."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard import findings
from dashboard.access import PageRequest, cached_page
from dashboard.frame import filter_bar_of, frame
from metering.reporting.unpriced_models import unpriced_models
from tenants.models import ApiKey
from tenants.roles import ROLES_THAT_GRANT, Scope

UNPRICED_MAX = 200


def service_url(request: HttpRequest) -> str:
    """Where clients reach the service."""
    public_url: str | None = settings.ENVIRONMENT.public_url
    return (public_url or request.build_absolute_uri("/")).rstrip("/")


def curl_context(request: PageRequest, scope: Scope) -> dict[str, Any]:
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


@require_safe
@cached_page
@require_safe
@cached_page
def unpriced(request: PageRequest) -> HttpResponse:
    """Models that were used and have no price, with what to do."""
    bar = filter_bar_of(request)
    models = unpriced_models(
        tenant_id=request.tenant.id,
        starts_at=bar.range.starts_at,
        ends_at=bar.range.ends_at,
        limit=UNPRICED_MAX,
    )
    context = frame(request, bar, page="unpriced") | {
        "headline": findings.unpriced_headline(models),
        "models": models,
    }
    return render(request, "dashboard/unpriced.html", context)
