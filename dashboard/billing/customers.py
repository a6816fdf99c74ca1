"""`/customers`: whom do we earn on, and whom do we lose on?"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from billing.earnings import customers_between, total_cost
from billing.models import Customer
from billing.usage import Piece
from common.csv_downloads import csv_response
from common.money import usd_from_nanos
from dashboard.access import PageRequest, customers_page, may_bill
from dashboard.amounts import count, money, percent
from dashboard.billing.figures import (
    CustomerFigures,
    Earnings,
    read_costliest,
    read_earnings,
    weekly_costs,
)
from dashboard.billing.months import (
    MONTH,
    Month,
    chosen_month,
    days_of,
    month_choices,
    month_of,
)
from dashboard.filter_bar import Choice, FilterBar
from dashboard.findings import shortened
from dashboard.frame import filter_bar_of, frame
from dashboard.lying_bars import margin_bars
from dashboard.overview.spenders import curve
from dashboard.paging import number_of

PER_PAGE: Final = 20
CHARTED: Final = 10
LOSSES_SHOWN: Final = 3
# More customers are rated after the page is there, and more than `RATED_MAX` not at all.
AT_ONCE_MAX: Final = 100
RATED_MAX: Final = 1_500
PAGES_MAX: Final = 10_000
ORDERS: Final[dict[str, tuple[str, Callable[[CustomerFigures], object]]]] = {
    "cost": ("Cost", lambda row: -row.cost_nanos),
    "revenue": ("Revenue", lambda row: -row.revenue_nanos),
    "margin": ("Margin", lambda row: row.margin_nanos if row.is_comparable else 0),
}


class Asked(NamedTuple):
    """What the page was asked: a month, what names contain, an order and a page."""

    bar: FilterBar
    month: Month
    text: str
    order: str
    page: int

    @property
    def is_first_look(self) -> bool:
        """Whether the table begins with those that cost most."""
        return self.page == 1 and self.order == "cost" and not self.text

    def query(self, *, path: str = "", **changed: str) -> str:
        """The address of this page with parameters changed."""
        return self.bar.with_further({**dict(self.bar.further), **changed}).query(path=path)


def _asked(request: PageRequest) -> Asked:
    bar = filter_bar_of(request)
    month = chosen_month(request.GET.get(MONTH, ""), bar)
    text = request.GET.get("q", "").replace("\0", "").strip()[:200]
    order = request.GET.get("order", "")
    order = order if order in ORDERS else "cost"
    page = min(number_of(request.GET.get("page", "")) or 1, PAGES_MAX)
    further = {MONTH: month.code if month.back else "", "q": text}
    further["order"] = order if order != "cost" else ""
    kept = {name: value for name, value in further.items() if value}
    return Asked(bar.with_further(kept), month, text, order, max(1, page))


@customers_page
def page(request: PageRequest) -> HttpResponse:
    """Whom do we earn on? Of many customers, the answer comes after the page."""
    asked = _asked(request)
    number = customers_between(request.tenant.id, asked.month.starts_at).count()
    context = frame(request, asked.bar, page="customers") | {
        "sub": _sub(asked, number),
        "may_bill": may_bill(request),
        "month_choices": month_choices(asked.month, asked.bar),
        "csv": asked.query(path=reverse("dashboard:customers_csv")),
    }
    if not number:
        context["headline"] = "No customers yet"
    elif number > AT_ONCE_MAX:
        spent = Piece(asked.month.starts_at, max(asked.month.until, asked.bar.now))
        cost = total_cost(request.tenant.id, spent._replace(ends_at=asked.month.until))
        context["headline"] = f"{count(number)} customers cost {money(cost)} {asked.month.spoken}"
        context["later"] = _figures_address(asked)
        if asked.is_first_look:
            context["later"] = asked.query(path=reverse("dashboard:customers_costliest"))
    else:
        context |= _content(request, asked)
    return render(request, "dashboard/billing/customers.html", context)


def _figures_address(asked: Asked) -> str:
    return asked.query(path=reverse("dashboard:customers_figures"), page=str(asked.page))


@customers_page
def costliest(request: PageRequest) -> HttpResponse:
    """The first rows of the table, while the figures of all customers are still to come."""
    asked = _asked(request)
    shown = read_costliest(request.tenant.id, asked.month, PER_PAGE)
    weeks = weekly_costs(request.tenant.id, [row.customer.id for row in shown], asked.bar.now)
    context = {
        "rows": [(row, curve(weeks[row.customer.id])) for row in shown],
        "source": _figures_address(asked),
    }
    return render(request, "dashboard/billing/customers_costliest.html", context)


@customers_page
def figures(request: PageRequest) -> HttpResponse:
    """The figures of many customers: a part that is read after the page, with its headline."""
    asked = _asked(request)
    number = customers_between(request.tenant.id, asked.month.starts_at).count()
    context: dict[str, Any] = {"may_bill": may_bill(request), "is_part": True, "bar": asked.bar}
    if number > RATED_MAX:
        context["too_many"] = True
    else:
        context |= _content(request, asked)
    return render(request, "dashboard/billing/customers_content.html", context)


def _content(request: PageRequest, asked: Asked) -> dict[str, object]:
    tenant_id, month = request.tenant.id, asked.month
    earnings = read_earnings(tenant_id, month, month_of(asked.bar, month.back + 1))
    matching = [row for row in earnings.rows if _is_wanted(row.customer, asked.text)]
    _, key = ORDERS[asked.order]
    matching.sort(key=lambda row: (key(row), row.customer.name, row.customer.id))
    first = (asked.page - 1) * PER_PAGE
    shown = matching[first : first + PER_PAGE]
    weeks = weekly_costs(tenant_id, [row.customer.id for row in shown], asked.bar.now)
    charted = sorted(earnings.comparable, key=lambda row: -row.cost_nanos)[:CHARTED]
    charted.sort(key=lambda row: -(row.margin_nanos or 0))
    return {
        "headline": headline_of(earnings, month),
        "earnings": earnings,
        "month": month,
        "before_words": "this point last month" if month.is_running else "the month before",
        "charted": charted,
        "chart_title": chart_title_of(charted),
        "figure": margin_bars([(row.customer.name, row.margin_nanos or 0) for row in charted]),
        "losses": earnings.losses[:LOSSES_SHOWN],
        "rows": [(row, curve(weeks[row.customer.id])) for row in shown],
        "others": _others(earnings, shown) if not asked.text else None,
        "table_title": table_title_of(earnings, shown, asked),
        "q": asked.text,
        "kept": [(name, value) for name, value in asked.bar.pairs if name != "q"],
        "orders": [
            Choice(asked.query(order=name if name != "cost" else ""), words, 0, name == asked.order)
            for name, (words, _) in ORDERS.items()
        ],
        **_pager(asked, len(matching), first, len(shown)),
        "unassigned": _unassigned_address(asked),
    }


def _is_wanted(customer: Customer, text: str) -> bool:
    wanted = text.casefold()
    return wanted in customer.name.casefold() or wanted in customer.key.casefold()


class Others(NamedTuple):
    """Customers who are not on this page of the table, together."""

    number: int
    revenue_nanos: int
    cost_nanos: int

    @property
    def margin_nanos(self) -> int:
        return self.revenue_nanos - self.cost_nanos


def _others(earnings: Earnings, shown: Sequence[CustomerFigures]) -> Others | None:
    number = len(earnings.rows) - len(shown)
    if not number:
        return None
    named = [row for row in shown if row.is_comparable]
    cost = sum(row.cost_nanos for row in earnings.comparable)
    return Others(
        number,
        earnings.revenue_nanos - sum(row.revenue_nanos for row in named),
        cost - sum(row.cost_nanos for row in named),
    )


def _pager(asked: Asked, number: int, first: int, shown: int) -> dict[str, object]:
    return {
        "found": number,
        "first": first + 1,
        "last": first + shown,
        "previous": asked.query(page=str(asked.page - 1)) if asked.page > 1 else "",
        "next": asked.query(page=str(asked.page + 1)) if first + shown < number else "",
    }


def _unassigned_address(asked: Asked) -> str:
    query = {MONTH: asked.month.code} if asked.month.back else {}
    return f"{reverse('dashboard:unassigned')}?{urlencode(query)}"


def _sub(asked: Asked, number: int) -> str:
    rated = (
        "revenue as rated by today's draft statements"
        if asked.month.is_running
        else ("revenue as its statements have it, before tax")
    )
    customers = "1 customer" if number == 1 else f"{number:,} customers"
    return f"{days_of(asked.month, asked.bar)} · days in {asked.bar.zone} · {rated} · {customers}"


def headline_of(earnings: Earnings, month: Month) -> str:
    """The finding: the gross margin, and how many customers cost more than they pay. Pure."""
    losses = len(earnings.losses)
    if not earnings.revenue_nanos:
        finding = f"No revenue {month.spoken}; usage cost {money(earnings.cost_nanos)}."
    elif earnings.margin_nanos < 0:
        finding = (
            f"Customers pay {money(-earnings.margin_nanos)} less than they cost {month.spoken}."
        )
    else:
        share = percent(earnings.margin_nanos, earnings.revenue_nanos)
        verb = "is" if month.is_running else "was"
        finding = f"Gross margin {verb} {share} {month.spoken}."
    if not losses:
        return finding
    who = (
        "1 customer costs more than it pays"
        if losses == 1
        else (f"{losses:,} customers cost more than they pay")
    )
    return f"{finding} {who}."


def chart_title_of(charted: Sequence[CustomerFigures]) -> str:
    """Who earns the most and who loses the most, of rows in the order of their margin. Pure."""
    if not charted:
        return "No customer pays in USD"
    best, worst = charted[0], charted[-1]
    best_margin, worst_margin = best.margin_nanos or 0, worst.margin_nanos or 0
    loses = f"{shortened(worst.customer.name)} loses {money(-worst_margin)}"
    if best_margin <= 0:
        return loses if worst_margin < 0 else "Nothing is earned or lost"
    earns = f"{shortened(best.customer.name)} earns the most"
    return f"{earns}; {loses}" if worst_margin < 0 else earns


def table_title_of(earnings: Earnings, shown: Sequence[CustomerFigures], asked: Asked) -> str:
    """How much of the cost the rows make. Pure."""
    if asked.text:
        return f"Customers like “{shortened(asked.text)}”"
    named = earnings.cost_nanos - earnings.unclaimed_nanos
    if len(shown) == len(earnings.rows) or not named:
        return "All customers"
    share = percent(sum(row.cost_nanos for row in shown), named)
    return f"{len(shown)} of {len(earnings.rows):,} customers make {share} of the cost"


@customers_page
def csv_file(request: PageRequest) -> HttpResponse:
    """All customers of the month, exact, for spreadsheets."""
    asked = _asked(request)
    before = month_of(asked.bar, asked.month.back + 1)
    if customers_between(request.tenant.id, asked.month.starts_at).count() > RATED_MAX:
        messages.error(request, f"A file has at most {RATED_MAX:,} customers; read /v1/margins.")
        return HttpResponseRedirect(asked.query(path=reverse("dashboard:customers")))
    earnings = read_earnings(request.tenant.id, asked.month, before)
    return csv_response(_csv_rows(earnings, asked.month), name=f"customers-{asked.month.code}.csv")


def _csv_rows(earnings: Earnings, month: Month) -> Iterator[list[str]]:
    yield ["month", "customer", "name", "plan", "currency", "revenue", "cost_usd", "margin_usd",
           "statement"]  # fmt: skip
    for row in sorted(earnings.rows, key=lambda row: -row.cost_nanos):
        margin = row.margin_nanos
        statement = row.statement
        yield [
            month.code,
            row.customer.key,
            row.customer.name,
            row.plan,
            row.customer.currency,
            usd_from_nanos(row.revenue_nanos),
            usd_from_nanos(row.cost_nanos),
            "" if margin is None else usd_from_nanos(margin),
            (statement.number or statement.state) if statement else "",
        ]
    cost = usd_from_nanos(earnings.unclaimed_nanos)
    yield [
        month.code,
        "",
        "No customer",
        "",
        "",
        "0",
        cost,
        usd_from_nanos(-earnings.unclaimed_nanos),
        "",
    ]
