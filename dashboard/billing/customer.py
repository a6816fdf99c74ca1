"""`/customers/{id}`: what does this customer use, pay and cost?"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone

from billing.customers import archive_customer, further_links, update_customer
from billing.models import Customer, CustomerLink, Statement, StatementState, Subscription
from billing.statement_views import StatementView, views_of
from billing.subscriptions import delete_subscription, update_subscription
from common.errors import Conflict
from dashboard.access import PageRequest, customers_page, may_bill
from dashboard.amounts import money, percent
from dashboard.billing.collection_words import Collection, collections_of, payments_of
from dashboard.billing.credits import credit_of
from dashboard.billing.figures import CustomerFigures, figures_by_month
from dashboard.billing.months import Month, month_of
from dashboard.buttons import button_of
from dashboard.charts import FIRST, Figure, line, over_time
from dashboard.filter_bar import FilterBar, days_words
from dashboard.frame import filter_bar_of, frame
from tenants.admin_site import actor_of

MONTHS_SHOWN: Final = 6
STATEMENTS_SHOWN: Final = 24
SUBSCRIPTIONS_SHOWN: Final = 50
LINKS_SHOWN: Final = 200
# Drafts are rated when they are read; older ones say only that they are drafts.
DRAFTS_RATED: Final = 3
COURSE_MONTHS_MIN: Final = 4
SECOND: Final = "var(--c2)"


class StatementRow(NamedTuple):
    """A statement in the list, with its amounts unless it is an old draft."""

    row: Statement
    view: StatementView | None
    collection: Collection | None

    @property
    def days(self) -> str:
        """The days of the period, in the statement's zone."""
        zone = ZoneInfo(self.row.timezone)
        last = self.row.period_end - timedelta(microseconds=1)
        first_day, last_day = (at.astimezone(zone).date() for at in (self.row.period_start, last))
        return days_words(first_day, last_day, this_year=timezone.now().year)


def find_customer(request: PageRequest, customer_id: int) -> Customer:
    """Return a customer of the person's tenant, or 404."""
    return get_object_or_404(Customer, tenant=request.tenant, id=customer_id)


@customers_page
def page(request: PageRequest, customer_id: int) -> HttpResponse:
    """The present month and period of a customer, and what came before."""
    customer = find_customer(request, customer_id)
    bar = filter_bar_of(request)
    shown = [month_of(bar, back) for back in range(MONTHS_SHOWN)]
    months = list(zip(shown, figures_by_month(request.tenant.id, customer, shown), strict=True))
    statements = _statements(customer)
    now = bar.now
    subscriptions = list(
        customer.subscriptions.select_related("plan").order_by("-starts_at", "-id")[
            :SUBSCRIPTIONS_SHOWN
        ]
    )
    current = next(
        (
            each.view
            for each in statements
            if each.view is not None and each.row.period_start <= now < each.row.period_end
        ),
        None,
    )
    month, figures = months[0]
    context = frame(request, bar, page="customers") | {
        "headline": headline_of(customer, figures, month),
        "customer": customer,
        "may_bill": may_bill(request) and customer.archived_at is None,
        "figures": figures,
        "current": current,
        "subscriptions": [(each, _state_of(each, now)) for each in subscriptions],
        "links": list(further_links(customer).order_by("dimension", "value")[:LINKS_SHOWN]),
        "statements": statements,
        "months": [(each, row) for each, row in months if row.revenue_nanos or row.cost_nanos],
        "course": _course(months, bar) if figures.is_comparable else None,
        "now": now,
        "payments": payments_of(customer),
        **credit_of(customer),
    }
    return render(request, "dashboard/billing/customer.html", context)


def _statements(customer: Customer) -> list[StatementRow]:
    """Return the newest statements, all but old drafts with their amounts."""
    rows = list(
        customer.statements.select_related("customer").order_by("-period_start", "-id")[
            :STATEMENTS_SHOWN
        ]
    )
    drafts = [row for row in rows if row.state == StatementState.DRAFT][:DRAFTS_RATED]
    rated = {row.id for row in drafts}
    read = [row for row in rows if row.state != StatementState.DRAFT or row.id in rated]
    views = {view.statement.id: view for view in views_of(read)}
    collections = collections_of(rows)
    return [StatementRow(row, views.get(row.id), collections.get(row.id)) for row in rows]


def _state_of(subscription: Subscription, now: datetime) -> str:
    if subscription.starts_at > now:
        return "planned"
    ended = subscription.ends_at is not None and subscription.ends_at <= now
    return "ended" if ended else "running"


def _course(months: Sequence[tuple[Month, CustomerFigures]], bar: FilterBar) -> Figure:
    """Revenue and cost by month, the oldest first."""
    used = [index for index, (_, row) in enumerate(months) if row.revenue_nanos or row.cost_nanos]
    oldest = max([*used, COURSE_MONTHS_MIN - 1])
    ordered = [*months[: oldest + 1]][::-1]
    starts = [month.starts_at.astimezone(bar.zone) for month, _ in ordered]
    places = [start.replace(tzinfo=None).isoformat() for start in starts]
    revenue = [row.revenue_nanos for _, row in ordered]
    cost = [row.cost_nanos for _, row in ordered]
    traces = [line("Revenue", revenue, places, color=FIRST)]
    traces.append(line("Cost", cost, places, color=SECOND))
    return over_time(traces, starts=starts, interval="month")


def headline_of(customer: Customer, figures: CustomerFigures, month: Month) -> str:
    """The finding: what the customer costs, and what is left of what it pays. Pure."""
    cost = money(figures.cost_nanos)
    if customer.archived_at is not None:
        return f"{customer.name} is archived"
    if figures.statement is None:
        return f"{customer.name} costs {cost} {month.spoken} and is not billed"
    margin = figures.margin_nanos
    if margin is None:
        return f"{customer.name} costs {cost} {month.spoken} and pays in {customer.currency}"
    pays = money(figures.revenue_nanos)
    if margin < 0:
        return f"{customer.name} costs {cost} and pays {pays} {month.spoken}"
    share = percent(margin, figures.revenue_nanos)
    return f"{customer.name} pays {pays} and costs {cost} {month.spoken}: {share} margin"


@button_of("customers", may=may_bill)
def archive(request: PageRequest, customer_id: int) -> str:
    """Archive a customer; its subscriptions end now."""
    customer = find_customer(request, customer_id)
    archive_customer(customer, actor=actor_of(request))
    return f"{customer.name} is archived; its subscriptions ended. Its statements stay."


@button_of("customers", may=may_bill)
def end_link(request: PageRequest, customer_id: int, link_id: int) -> str:
    """Let a link end now: later usage is not the customer's."""
    customer = find_customer(request, customer_id)
    links = list(further_links(customer))
    ending = next((link for link in links if link.id == link_id), None)
    if ending is None:
        raise Http404
    now = timezone.now()
    if ending.ends_at is not None and ending.ends_at <= now:
        raise Conflict("This link has ended already.")
    kept = [as_body(link) for link in links if link.id != link_id]
    if ending.starts_at is None or ending.starts_at < now:
        kept.append(as_body(ending) | {"ends_at": now})
    update_customer(customer, actor=actor_of(request), changes={"links": kept})
    return f"Usage of {ending} from now on is not {customer.name}'s."


def as_body(link: CustomerLink) -> dict[str, Any]:
    """Return a link as the domain takes it."""
    return {
        "dimension": link.dimension,
        "value": link.value,
        "starts_at": link.starts_at,
        "ends_at": link.ends_at,
    }


@button_of("customers", may=may_bill)
def end_subscription(request: PageRequest, customer_id: int, subscription_id: int) -> str:
    """End a subscription now, or remove one that has not begun."""
    customer = find_customer(request, customer_id)
    subscription = get_object_or_404(customer.subscriptions, id=subscription_id)
    now, actor = timezone.now(), actor_of(request)
    if subscription.starts_at > now:
        delete_subscription(subscription, actor=actor)
        return f"{customer.name} will not be on {subscription.plan}."
    if subscription.ends_at is not None and subscription.ends_at <= now:
        raise Conflict("This subscription has ended already.")
    update_subscription(subscription, actor=actor, changes={"ends_at": now})
    return f"{customer.name} is no longer on {subscription.plan}. Its last statement is a draft."
