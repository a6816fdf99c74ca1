"""Who may open a page, and when a page that a browser holds is still right."""

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Final, cast

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.views.decorators.http import condition, require_safe

from metering.models import ReservationState
from tenants.members import visible_teams
from tenants.models import Membership, Tenant, User
from tenants.roles import ROLES_THAT_GRANT, SCOPES_BY_ROLE, Role, Scope

# Another process may have other templates: what it answered is not compared with ours.
STARTED_AT: Final = timezone.now().isoformat()

# Set by pages that ask for themselves.
LIVE_HEADER: Final = "X-Live"
QUIET_MINUTES: Final = 15

# A batch with a lower id may be committed after one with a higher, so the newest id alone does not
# tell whether anything came: what waits and what was rolled up last do.
LATE_BATCHES_MAX: Final = 500
# What is held shows in budgets' bars. More open reservations than that are not counted.
OPEN_MAX: Final = 10_000
_NEWEST: Final = f"""
    SELECT max(id), count(*) FILTER (WHERE rolled_up_at IS NULL),
        sum(id) FILTER (WHERE rolled_up_at IS NULL), max(rolled_up_at),
        (SELECT concat(count(*), max(updated_at)) FROM incident
            WHERE tenant_id = %(tenant)s AND resolved_at IS NULL),
        (SELECT max(id) FROM incident WHERE tenant_id = %(tenant)s),
        (SELECT max(id) FROM audit_entry WHERE tenant_id = %(tenant)s),
        (SELECT max(created_at) FROM reservation WHERE tenant_id = %(tenant)s),
        (SELECT count(*) FROM (SELECT FROM reservation WHERE tenant_id = %(tenant)s
            AND state = {ReservationState.OPEN.value} LIMIT {OPEN_MAX}) held)
    FROM (
        SELECT id, rolled_up_at FROM ingest_batch WHERE tenant_id = %(tenant)s
        ORDER BY id DESC LIMIT %(batches)s
    ) latest
"""


class PageRequest(HttpRequest):
    """A request of a signed-in member, as the tenant middleware has completed it."""

    user: User
    tenant: Tenant
    role: Role
    memberships: list[Membership]
    is_live: bool


Page = Callable[..., HttpResponseBase]


def member_page(view: Page) -> Page:
    """A page for signed-in members of a tenant, any role. Others sign in, or learn what to do."""

    @wraps(view)
    def for_members(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if getattr(request, "tenant", None) is None:
            return render(request, "dashboard/no_tenant.html", status=403)
        response = view(cast(PageRequest, request), *args, **kwargs)
        patch_cache_control(response, private=True, no_cache=True)
        patch_vary_headers(response, ["Cookie"])
        return response

    return login_required(for_members)


def may_manage(request: PageRequest) -> bool:
    """Whether the person may change limits, decide requests and lift halts."""
    return Scope.MANAGE in SCOPES_BY_ROLE[request.role]


def may_grant(request: PageRequest) -> bool:
    """Whether the person may hand out access: members, teams, keys, the tenant's settings."""
    return request.role in ROLES_THAT_GRANT


def may_bill(request: PageRequest) -> bool:
    """Whether the person may change customers, plans and statements."""
    return Scope.BILLING in SCOPES_BY_ROLE[request.role]


def sees_customers(request: PageRequest) -> bool:
    """Whether the person may see what customers pay: those who see all of the tenant's money."""
    teams = visible_teams(tenant_id=request.tenant.id, user_id=request.user.pk, role=request.role)
    return teams is None


def customers_page(view: Page) -> Page:
    """A page about customers' money, for members who see that of the whole tenant."""

    @wraps(view)
    def for_readers(request: PageRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if not sees_customers(request):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    return require_safe(member_page(for_readers))


def may_halt(request: PageRequest) -> bool:
    """Whether the person may stop an agent. Stopping everything takes `may_manage`, as it does of
    API keys.
    """
    return may_manage(request) or Scope.ENFORCE in SCOPES_BY_ROLE[request.role]


def cached_page(view: Page) -> Page:
    """A member page that is answered with 304 while nothing that it shows has changed, so that an
    open one can keep itself current (`static/dashboard/js/live.js`).
    """

    @wraps(view)
    def live(request: PageRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        request.is_live = True
        return view(request, *args, **kwargs)

    return member_page(condition(etag_func=_mark)(live))


def _mark(request: HttpRequest, *args: object, **kwargs: object) -> str:
    """What a page depends on: the newest batch and change, who looks, and the time.

    Estimates and running periods move with the clock: a page that is opened is at most a minute
    old, one that stays open while nothing comes is rebuilt every 15 minutes.
    """
    now = timezone.now()
    minutes = QUIET_MINUTES if LIVE_HEADER in request.headers else 1
    member = cast(PageRequest, request)
    with connection.cursor() as cursor:
        cursor.execute(
            _NEWEST,
            {"tenant": member.tenant.id, "batches": LATE_BATCHES_MAX},
        )
        newest = cursor.fetchone()
    parts = [
        STARTED_AT,
        request.get_full_path(),
        member.user.pk,
        member.user.timezone,
        member.role,
        len(member.memberships),
        member.tenant.id,
        member.tenant.configuration_version,
        newest,
        int(now.timestamp()) // (60 * minutes),
        request.META.get("CSRF_COOKIE", ""),
    ]
    return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'
