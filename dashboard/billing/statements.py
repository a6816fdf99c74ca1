"""`/statements`: what does each customer owe, and why?"""

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from billing.currencies import money_of
from billing.models import Statement, StatementState
from billing.statement_files import day_range, file_response, printed_context
from billing.statement_views import StatementView, views_of
from billing.statements import finalize, void
from dashboard.access import PageRequest, customers_page, may_bill
from dashboard.billing.collection_words import Collection, collection_of, collections_of, left_of
from dashboard.billing.customer_link import link_of
from dashboard.billing.month_end import months_due
from dashboard.buttons import button_of
from dashboard.filter_bar import Choice, FilterBar
from dashboard.findings import shortened
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of
from tenants.admin_site import actor_of

# Drafts are rated when they are read, so a page has few rows.
ROWS: Final = 25
PAGE_MAX: Final = 1_000
NEEDLE_CHARACTERS_MAX: Final = 100
NOTES_SHOWN: Final = 50


class StatementFilter(NamedTuple):
    """Which statements a list shows."""

    bar: FilterBar
    state: str
    needle: str
    page: int

    def query(self, **changes: str | int) -> str:
        """Return the address of the list with changes."""
        chosen = self._replace(**{"page": 1, **changes})  # type: ignore[arg-type]
        further = {"state": chosen.state, "q": chosen.needle, "page": str(chosen.page)}
        shown = {name: value for name, value in further.items() if value and value != "1"}
        address = reverse("dashboard:statements")
        return f"{address}?{urlencode(shown)}" if shown else address


@customers_page
def page(request: PageRequest) -> HttpResponse:
    """The statements of all customers, the newest period first."""
    chosen = _read_filter(request)
    rows = _rows(request, chosen)
    first = (chosen.page - 1) * ROWS
    shown = list(rows.select_related("customer")[first : first + ROWS])
    collections = collections_of(shown)
    of_tenant = Statement.objects.filter(tenant=request.tenant)
    states = Counter(dict(of_tenant.values_list("state").annotate(Count("id"))))
    counted = states[chosen.state] if chosen.state else states.total()
    number = rows.count() if chosen.needle else counted
    context = frame(request, chosen.bar, page="statements") | {
        "headline": headline_of(states),
        "rows": [(view, collections.get(view.statement.id)) for view in views_of(shown)],
        "states": [
            Choice(chosen.query(state=state), words, states[state], chosen.state == state)
            for state, words in (("", "All"), *StatementState.choices)
        ],
        "months": months_due(request.tenant.id, chosen.bar.now) if may_bill(request) else (),
        "chosen": chosen,
        "needle_characters_max": NEEDLE_CHARACTERS_MAX,
        "first": first + 1,
        "last": first + len(shown),
        "found": number,
        "previous": chosen.query(page=chosen.page - 1) if chosen.page > 1 else "",
        "next": chosen.query(page=chosen.page + 1) if number > first + ROWS else "",
    }
    return render(request, "dashboard/billing/statements.html", context)


def _read_filter(request: PageRequest) -> StatementFilter:
    state = request.GET.get("state", "")
    return StatementFilter(
        bar=filter_bar_of(request),
        state=state if state in StatementState.values else "",
        needle=request.GET.get("q", "").replace("\0", "")[:NEEDLE_CHARACTERS_MAX].strip(),
        page=min(number_of(request.GET.get("page", "")) or 1, PAGE_MAX),
    )


def _rows(request: PageRequest, chosen: StatementFilter) -> QuerySet[Statement]:
    rows = Statement.objects.filter(tenant=request.tenant).order_by("-period_start", "-id")
    if chosen.state:
        rows = rows.filter(state=chosen.state)
    if chosen.needle:
        rows = rows.filter(
            Q(customer__name__icontains=chosen.needle)
            | Q(customer__key__icontains=chosen.needle)
            | Q(number__icontains=chosen.needle)
        )
    return rows


def headline_of(states: Counter[str]) -> str:
    """The finding: how many statements wait to be finalized. Pure."""
    if not states:
        return "No statements yet"
    drafts, final = states[StatementState.DRAFT], states[StatementState.FINAL]
    drafts_words = f"{drafts:,} draft{'s' * (drafts != 1)}"
    if not final:
        return f"{drafts_words}, none final yet"
    return f"{drafts_words} and {final:,} final statement{'s' * (final != 1)}"


@customers_page
def statement(request: PageRequest, statement_id: int) -> HttpResponse:
    """One statement, each of its amounts with the calls behind it."""
    row = find_statement(request, statement_id)
    view, collection = views_of([row])[0], collection_of(row)
    bar = filter_bar_of(request)
    context = (
        frame(request, bar, page="statements")
        | printed_context(view)
        | {
            "headline": sentence_of(view, collection),
            "view": view,
            "is_over": bar.now >= row.period_end,
            "may_bill": may_bill(request),
            "notes": row.credit_notes.order_by("-id")[:NOTES_SHOWN],
            "left": left_of(row),
            "collection": collection,
            "customer_link": link_of(request, row.customer) if may_bill(request) else "",
            "replaced_by": _replaced_by(row),
        }
    )
    return render(request, "dashboard/billing/statement.html", context)


def find_statement(request: PageRequest, statement_id: int) -> Statement:
    """Return a statement of the person's tenant, or 404."""
    row = (
        Statement.objects.filter(tenant=request.tenant, id=statement_id)
        .select_related("customer")
        .first()
    )
    if row is None:
        raise Http404
    return row


def sentence_of(view: StatementView, collection: Collection | None = None) -> str:
    """What a statement says, in a sentence."""
    row, due = view.statement, view.totals.amount_due
    who = shortened(row.customer.name)
    period = day_range(row.period_start, row.period_end, ZoneInfo(row.timezone))
    amount = money_of(abs(due), row.currency)
    if row.state == StatementState.VOID:
        return f"Statement {row.number} is void"
    so_far = " so far" if row.state == StatementState.DRAFT else ""
    if due < 0:
        return f"You owe {who} {amount}{so_far} for {period}"
    if due == 0:
        return f"{who} owes nothing{so_far} for {period}"
    verb = "paid" if collection is not None and collection.is_paid else "owes"
    return f"{who} {verb} {amount}{so_far} for {period}"


def _replaced_by(row: Statement) -> Iterable[Statement]:
    """Return the statements that charge the period of a void one."""
    if row.state != StatementState.VOID:
        return ()
    return row.customer.statements.filter(
        period_start=row.period_start, period_end=row.period_end, id__gt=row.id
    ).exclude(state=StatementState.VOID)


@customers_page
def printed(request: PageRequest, statement_id: int) -> HttpResponse:
    """A statement as it prints on A4."""
    return file_response(find_statement(request, statement_id), "html")


@customers_page
def csv_file(request: PageRequest, statement_id: int) -> HttpResponse:
    """A statement for spreadsheets."""
    return file_response(find_statement(request, statement_id), "csv")


@button_of("statements", may=may_bill)
def finalize_statement(request: PageRequest, statement_id: int) -> str:
    """Make a statement final, with at most as many calls without a price as the person saw."""
    accepted = number_of(request.POST.get("accept_unpriced", "")) or 0
    final = finalize(
        request.tenant.id, statement_id, actor=actor_of(request), accepted_unpriced=accepted
    )
    return f"Statement {final.number} is final: {money_of(final.amount_due, final.currency)} due."


@button_of("statements", may=may_bill)
def void_statement(request: PageRequest, statement_id: int) -> str:
    """Declare a final statement void."""
    row = void(request.tenant.id, statement_id, actor=actor_of(request))
    return f"Statement {row.number} is void. Its period has a draft again."
