"""`/plans`: who is on which plan, what each brings, and what its versions say."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from django.db.models import Count, F, Q
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from billing.earnings import customers_between
from billing.models import Plan, PlanVersion
from billing.plan_preview import customers_on
from billing.plans import archive_plan, terms_of
from dashboard.access import PageRequest, customers_page, may_bill
from dashboard.billing.charge_words import charge_words
from dashboard.billing.customers import AT_ONCE_MAX, RATED_MAX
from dashboard.billing.figures import read_earnings
from dashboard.billing.months import month_of
from dashboard.billing.plan_edit import find_plan
from dashboard.buttons import button_of
from dashboard.filter_bar import FilterBar
from dashboard.findings import shortened
from dashboard.frame import filter_bar_of, frame
from tenants.admin_site import actor_of

PLANS_MAX: Final = 200
VERSIONS_SHOWN: Final = 50
CUSTOMERS_SHOWN: Final = 50


class PlanRow(NamedTuple):
    """A plan in the list. Revenue is in billionths of its currency; None: it is not added up."""

    plan: Plan
    customers: int
    revenue_nanos: int | None


@customers_page
def page(request: PageRequest) -> HttpResponse:
    """Which plans are there, and what do they bring?"""
    bar = filter_bar_of(request)
    number = customers_between(request.tenant.id, bar.now).count()
    rows = _rows(request, bar, with_revenue=number <= AT_ONCE_MAX)
    context = frame(request, bar, page="plans") | {
        "headline": headline_of(rows),
        "rows": rows,
        "later": reverse("dashboard:plans_figures") if AT_ONCE_MAX < number <= RATED_MAX else "",
        "may_bill": may_bill(request),
        "month": month_of(bar, 0),
    }
    return render(request, "dashboard/billing/plans.html", context)


@customers_page
def figures(request: PageRequest) -> HttpResponse:
    """The list with revenue, where there are many customers: read after the page."""
    bar = filter_bar_of(request)
    number = customers_between(request.tenant.id, bar.now).count()
    rows = _rows(request, bar, with_revenue=number <= RATED_MAX)
    return render(
        request, "dashboard/billing/plans_table.html", {"rows": rows, "month": month_of(bar, 0)}
    )


def _rows(request: PageRequest, bar: FilterBar, *, with_revenue: bool) -> list[PlanRow]:
    now = bar.now
    on_plan = Q(subscriptions__starts_at__lte=now) & (
        Q(subscriptions__ends_at=None)
        | Q(subscriptions__ends_at__gt=now)
        & Q(subscriptions__ends_at__gt=F("subscriptions__starts_at"))
    )
    plans = (
        Plan.objects.filter(tenant=request.tenant, archived_at=None)
        .annotate(number=Count("subscriptions__customer", filter=on_plan, distinct=True))
        .order_by("-number", "name")[:PLANS_MAX]
    )
    revenue = _revenue(request, bar) if with_revenue else None
    return [
        PlanRow(plan, plan.number, None if revenue is None else revenue[plan.name])
        for plan in plans
    ]


def _revenue(request: PageRequest, bar: FilterBar) -> defaultdict[str, int]:
    """Return what the customers now on each plan pay this month, by the name of the plan."""
    earnings = read_earnings(request.tenant.id, month_of(bar, 0), month_of(bar, 1))
    revenue: defaultdict[str, int] = defaultdict(int)
    for row in earnings.rows:
        revenue[row.plan] += row.revenue_nanos
    return revenue


def headline_of(rows: list[PlanRow]) -> str:
    """The finding: how many customers are on plans, and on which most. Pure."""
    if not rows:
        return "No plans yet"
    plans = "1 plan" if len(rows) == 1 else f"{len(rows):,} plans"
    customers = sum(row.customers for row in rows)
    if not customers:
        return f"{plans}, and no customer on {'it' if len(rows) == 1 else 'them'} yet"
    who = "1 customer" if customers == 1 else f"{customers:,} customers"
    most = f"; {rows[0].customers:,} on {shortened(rows[0].plan.name)}" if len(rows) > 1 else ""
    return f"{plans} with {who}{most}"


class VersionRow(NamedTuple):
    """A version with its charges in words."""

    version: PlanVersion
    is_in_force: bool
    charges: list[tuple[str, list[str]]]
    bounds: list[str]


@customers_page
def plan(request: PageRequest, plan_id: int) -> HttpResponse:
    """What a plan says now, what it said before, and who is on it."""
    row = find_plan(request, plan_id)
    bar = filter_bar_of(request)
    customers = customers_on(row, bar.now).order_by("name", "id")
    number = customers.count()
    rows = list(_versions(row))
    context = frame(request, bar, page="plans") | {
        "headline": _headline(row, number),
        "plan": row,
        "versions": rows,
        "customers": customers[:CUSTOMERS_SHOWN],
        "customers_number": number,
        "may_bill": may_bill(request) and row.archived_at is None,
    }
    return render(request, "dashboard/billing/plan.html", context)


def _headline(plan: Plan, number: int) -> str:
    if plan.archived_at is not None:
        return f"{plan.name} is archived; who has it keeps it"
    who = "1 customer is" if number == 1 else f"{number:,} customers are"
    return f"{who} on {plan.name}" if number else f"No customer is on {plan.name} yet"


def _versions(plan: Plan) -> Iterator[VersionRow]:
    now = timezone.now()
    rows = list(plan.versions.order_by("-number")[:VERSIONS_SHOWN])
    begun = [row for row in rows if row.starts_at is None or row.starts_at <= now]
    for row in rows:
        terms = terms_of(row)
        bounds = [
            f"{words} {amount:f} {plan.currency} a period"
            for words, amount in (
                ("All charges together: at least", terms.minimum_amount),
                ("All charges together: at most", terms.cap_amount),
            )
            if amount is not None
        ]
        charges = [(each.name, charge_words(each, plan.currency)) for each in terms.charges]
        yield VersionRow(row, bool(begun) and row.id == begun[0].id, charges, bounds)


@button_of("plans", may=may_bill)
def archive(request: PageRequest, plan_id: int) -> str:
    """Archive a plan: no one can subscribe to it."""
    row = find_plan(request, plan_id)
    if row.archived_at is not None:
        raise Http404
    archive_plan(row, actor=actor_of(request))
    return f"“{row.name}” is archived. Customers who are on it keep it."
