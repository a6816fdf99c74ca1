"""Pages: each reads the filter bar, asks the domain, and renders."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard import findings
from dashboard.access import PageRequest, cached_page
from dashboard.budget_windows import bar_of, watched_windows
from dashboard.frame import filter_bar_of, frame
from metering.budgets.reading import read_budget_index
from tenants.models import ApiKey
from tenants.roles import ROLES_THAT_GRANT, Scope

WINDOWS_PER_BUDGET_MAX = 25


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
def budgets(request: PageRequest) -> HttpResponse:
    """Every budget with its fullest windows."""
    bar = filter_bar_of(request)
    book = read_budget_index(request.tenant.id)
    watch = watched_windows(
        tenant_id=request.tenant.id,
        book=book,
        now=bar.now,
        per_budget=WINDOWS_PER_BUDGET_MAX,
        filters=bar.filters,
    )
    shown = {one.rule.id for one in watch.windows}
    context = frame(request, bar, page="budgets") | {
        "headline": findings.budgets_headline(watch),
        "windows": [(one, bar_of(one)) for one in watch.windows],
        "unused": [rule for rule in book.rules.values() if rule.id not in shown],
        "budget_count": len(book.rules),
    }
    return render(request, "dashboard/budgets.html", context)
