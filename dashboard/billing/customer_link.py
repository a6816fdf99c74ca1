"""`/bill/{link}`: a customer's own page, by a signed link that expires."""

from datetime import timedelta
from typing import Any, Final

from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from billing.finalization import parties_of
from billing.models import Customer, Statement, StatementState
from billing.settings import billing_settings
from billing.statement_files import file_response
from billing.statement_views import views_of
from dashboard.access import PageRequest
from tenants.scope import tenant_scope

LIFETIME: Final = timedelta(days=30)
SALT: Final = "billing.customer_link"
GONE: Final = 410
STATEMENTS_SHOWN: Final = 24
KINDS: Final = ("html", "csv")


def link_of(request: PageRequest, customer: Customer) -> str:
    """Return the address of a customer's own page, which works for LIFETIME."""
    claims = [customer.tenant_id, customer.pk, customer.link_generation]
    token = signing.dumps(claims, salt=SALT, compress=True)
    return request.build_absolute_uri(reverse("customer_bill", args=[token]))


def _claims(token: str) -> list[int] | None:
    try:
        claims: list[int] = signing.loads(token, salt=SALT, max_age=LIFETIME)
    except signing.BadSignature:
        return None
    return claims


def _gone(request: HttpRequest) -> HttpResponse:
    return render(request, "dashboard/billing/link_over.html", status=GONE)


@never_cache
@require_safe
def page(request: HttpRequest, token: str) -> HttpResponse:
    """What a customer used in this period, and its statements."""
    claims = _claims(token)
    if claims is None:
        return _gone(request)
    tenant_id, customer_id, generation = claims
    with tenant_scope(tenant_id, is_snapshot=True):
        customer = _customer(tenant_id, customer_id, generation)
        if customer is None:
            return _gone(request)
        rows = list(
            customer.statements.filter(period_start__lte=timezone.now())
            .select_related("customer")
            .order_by("-period_start", "-id")[:STATEMENTS_SHOWN]
        )
        drafts = [row for row in rows if row.state == StatementState.DRAFT]
        context: dict[str, Any] = {
            "customer": customer,
            "seller": parties_of(customer, billing_settings(tenant_id))["seller"],
            "current": views_of(drafts[:1])[0] if drafts else None,
            "statements": views_of([row for row in rows if row.state == StatementState.FINAL]),
            "token": token,
            "now": timezone.now(),
        }
        return render(request, "dashboard/billing/bill.html", context)


@never_cache
@require_safe
def file(request: HttpRequest, token: str, statement_id: int, kind: str) -> HttpResponse:
    """A file of a final statement, for the customer that it is for."""
    claims = _claims(token)
    if claims is None:
        return _gone(request)
    tenant_id, customer_id, generation = claims
    with tenant_scope(tenant_id, is_snapshot=True):
        customer = _customer(tenant_id, customer_id, generation)
        if customer is None:
            return _gone(request)
        row = (
            Statement.objects.filter(
                tenant_id=tenant_id,
                customer=customer,
                id=statement_id,
                state=StatementState.FINAL,
            )
            .select_related("customer")
            .first()
        )
        if row is None or kind not in KINDS:
            raise Http404
        return file_response(row, kind)


def _customer(tenant_id: int, customer_id: int, generation: int) -> Customer | None:
    return Customer.objects.filter(
        tenant_id=tenant_id, id=customer_id, link_generation=generation
    ).first()
