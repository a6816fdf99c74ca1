"""`/bill/{link}`: a customer's own page, by a signed link that expires."""

from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, Final

from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from billing.finalization import parties_of
from billing.models import Customer, Statement, StatementState
from billing.settings import billing_settings
from billing.statement_files import file_response
from billing.statement_views import views_of
from dashboard.access import PageRequest, may_bill
from dashboard.billing.collection_words import collections_of
from dashboard.buttons import button_of
from tenants.admin_site import actor_of
from tenants.audit import audited_change
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


@button_of("customers", may=may_bill)
def end_links(request: PageRequest, customer_id: int) -> str:
    """End every link to a customer's own page."""
    customer = get_object_or_404(Customer, tenant=request.tenant, id=customer_id)
    with audited_change(customer, actor=actor_of(request)) as change:
        change.row.link_generation += 1
    return f"The links to {customer.name}'s page ended. New ones are on its statements."


def _for_customer(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A page for the customer that a link is for: read in a snapshot of its tenant alone."""

    @wraps(view)
    def act(request: HttpRequest, token: str, **path: object) -> HttpResponse:
        try:
            claims: list[int] = signing.loads(token, salt=SALT, max_age=LIFETIME)
        except signing.BadSignature:
            return _gone(request)
        tenant_id, customer_id, generation = claims
        with tenant_scope(tenant_id, is_snapshot=True):
            customer = Customer.objects.filter(
                tenant_id=tenant_id, id=customer_id, link_generation=generation
            ).first()
            return _gone(request) if customer is None else view(request, customer, token, **path)

    return never_cache(require_safe(act))


def _gone(request: HttpRequest) -> HttpResponse:
    return render(request, "dashboard/billing/link_over.html", status=GONE)


@_for_customer
def page(request: HttpRequest, customer: Customer, token: str) -> HttpResponse:
    """What a customer used in this period, and its statements."""
    rows = list(
        customer.statements.filter(period_start__lte=timezone.now())
        .select_related("customer")
        .order_by("-period_start", "-id")[:STATEMENTS_SHOWN]
    )
    drafts = [row for row in rows if row.state == StatementState.DRAFT]
    collections = collections_of(rows)
    context: dict[str, Any] = {
        "customer": customer,
        "paid": {id_ for id_, collection in collections.items() if collection.is_paid},
        "seller": parties_of(customer, billing_settings(customer.tenant_id))["seller"],
        "current": views_of(drafts[:1])[0] if drafts else None,
        "statements": views_of([row for row in rows if row.state == StatementState.FINAL]),
        "token": token,
        "now": timezone.now(),
    }
    return render(request, "dashboard/billing/bill.html", context)


@_for_customer
def file(
    request: HttpRequest, customer: Customer, token: str, statement_id: int, kind: str
) -> HttpResponse:
    """A file of a final statement, for the customer that it is for."""
    final = Statement.objects.filter(
        tenant_id=customer.tenant_id, customer=customer, state=StatementState.FINAL
    )
    row = final.filter(id=statement_id).select_related("customer").first()
    if row is None or kind not in KINDS:
        raise Http404
    return file_response(row, kind)
