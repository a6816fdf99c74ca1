"""`/customers/unassigned`: usage that is no customer's, and whose it could be."""

from typing import Final

from django.core.exceptions import ValidationError
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from billing.customers import LINK_DIMENSIONS, further_links, update_customer
from billing.models import Customer
from billing.unclaimed import Unclaimed, unclaimed_by
from common.errors import InvalidRequest
from dashboard.access import PageRequest, customers_page, may_bill
from dashboard.amounts import money
from dashboard.billing.customer import as_body
from dashboard.billing.months import MONTH, Month, chosen_month, month_choices
from dashboard.buttons import button_of
from dashboard.filter_bar import Choice
from dashboard.findings import shortened
from dashboard.frame import filter_bar_of, frame
from tenants.admin_site import actor_of

ROWS_MAX: Final = 50
CUSTOMERS_MAX: Final = 1_000
BY: Final = "by"
# What would tell whose usage is, the most telling first.
OFFERED: Final = ("customer", "feature", "agent", "team", "user", "session")

assert set(OFFERED) == set(LINK_DIMENSIONS), "every dimension that can be linked is offered"


@customers_page
def page(request: PageRequest) -> HttpResponse:
    """What has no customer?"""
    bar = filter_bar_of(request)
    month = chosen_month(request.GET.get(MONTH, ""), bar)
    by = request.GET.get(BY, "")
    by = by if by in OFFERED else OFFERED[0]
    kept = {name: value for name, value in ((BY, by), (MONTH, month.code)) if value}
    bar = bar.with_further(kept)
    rows = unclaimed_by(request.tenant.id, by, month.starts_at, max(month.until, bar.now))
    context = frame(request, bar, page="customers") | {
        "headline": headline_of(rows, month),
        "crumb": reverse("dashboard:customers"),
        "crumb_words": "Customers",
        "sub": f"{month.words} · days in {bar.zone}",
        "rows": rows[:ROWS_MAX],
        "more": len(rows) - ROWS_MAX,
        "by": by,
        "month_choices": month_choices(month, bar),
        "by_choices": [
            Choice(bar.with_further({**kept, BY: name}).query(), name.capitalize(), 0, name == by)
            for name in OFFERED
        ],
        "customers": _customers(request),
        "may_bill": may_bill(request),
    }
    return render(request, "dashboard/billing/unassigned.html", context)


def _customers(request: PageRequest) -> object:
    rows = Customer.objects.filter(tenant=request.tenant, archived_at=None).order_by("name", "id")
    return list(rows.values_list("key", "name")[:CUSTOMERS_MAX])


def headline_of(rows: list[Unclaimed], month: Month) -> str:
    """The finding: what has no customer, and what most of it is. Pure."""
    total = sum(row.cost_nanos for row in rows)
    if not rows:
        return f"All usage {month.spoken} has a customer"
    finding = f"{money(total)} {month.spoken} has no customer"
    named = [row for row in rows if row.value and not row.is_rest]
    if len(rows) > 1 and named and named[0].cost_nanos * 2 > total > 0:
        return f"{finding}, mostly {shortened(named[0].value)}"
    return finding


@button_of("unassigned", may=may_bill)
def assign(request: PageRequest) -> str:
    """Give the usage of a value to a customer: all of it, also what was used before."""
    key = request.POST.get("customer", "").strip()
    customer = Customer.objects.filter(tenant=request.tenant, key=key, archived_at=None).first()
    if customer is None:
        if not key:
            raise InvalidRequest("Choose the customer whose usage it is.")
        raise Http404
    dimension, value = request.POST.get("dimension", ""), request.POST.get("value", "")[:200]
    if dimension not in LINK_DIMENSIONS or not value:
        raise Http404
    links = [*map(as_body, further_links(customer)), {"dimension": dimension, "value": value}]
    try:
        update_customer(customer, actor=actor_of(request), changes={"links": links})
    except ValidationError as error:
        raise InvalidRequest(" ".join(error.messages)) from None
    return f"Usage of {dimension} “{shortened(value)}” is {customer.name}'s from now on and before."
