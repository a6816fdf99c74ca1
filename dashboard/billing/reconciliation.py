"""`/customers/reconciliation`: do bills, usage, statements and Stripe agree, and what differs?"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from celery import current_app
from dateutil.relativedelta import relativedelta
from django.db import transaction
from django.db.models import QuerySet
from django.http import FileResponse, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone

from billing.models import (
    Drift,
    ProviderBillLine,
    Reconciliation,
    ReconciliationKind,
    ReconciliationState,
)
from billing.reconciliation.results import KindResult, decimal_string
from billing.reconciliation.runs import UNFINISHED, settings_of, start_reconciliation, threshold_of
from common.csv_downloads import csv_download
from dashboard.access import PageRequest, customers_page, may_bill
from dashboard.buttons import button_of
from dashboard.filter_bar import Choice
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of, numbered_page
from tenants.admin_site import actor_of

# Named, since the page needs nothing else of the workers' side.
WORK_OFF: Final = "billing.tasks_reconciliation.reconcile"
PER_PAGE: Final = 50
PAGE_MAX: Final = 1_000
RUNS_SHOWN: Final = 10
# Among how many runs the latest of a kind is looked for.
RUNS_READ: Final = 50
LATEST: Final = "latest"
LATEST_DAYS: Final = 31
KINDS: Final = {
    ReconciliationKind.PROVIDERS.value: "Providers' bills",
    ReconciliationKind.STATEMENTS.value: "Statements",
    ReconciliationKind.STRIPE.value: "Stripe's invoices",
}
COLUMNS: Final = (
    *("kind", "day", "provider", "model", "line_item", "statement", "line", "unit"),
    *("expected", "found", "difference", "note"),
)


class KindLine(NamedTuple):
    """What the latest comparison of a kind found."""

    kind: str
    words: str
    run: Reconciliation | None
    result: KindResult
    state: str
    tone: str
    address: str

    @property
    def sums(self) -> Sequence[tuple[str, Decimal, Decimal, Decimal]]:
        """Return what was expected, found, and lies between them, by currency."""
        return [
            (unit, each.expected, each.found, each.found - each.expected)
            for unit, each in sorted(self.result.sums.items())
        ]


@customers_page
def page(request: PageRequest) -> HttpResponse:
    """The latest comparison of each kind, and what differs in one of them."""
    runs = Reconciliation.objects.filter(tenant=request.tenant).order_by("-id")
    recent = list(runs[:RUNS_READ])
    lines = [line_of(kind, recent) for kind in KINDS]
    line = _chosen(request, runs, lines)
    drifts = _drifts(line.run, line.kind)
    asked = max(1, min(number_of(request.GET.get("page", "")) or 1, PAGE_MAX))
    pages = numbered_page(
        asked,
        drifts.count(),
        per_page=PER_PAGE,
        address=lambda number: _address(line.kind, line.run, page=number),
    )
    last_bill = ProviderBillLine.objects.filter(tenant=request.tenant).order_by("-imported_at")
    context = frame(request, filter_bar_of(request), page="reconciliation") | {
        "headline": headline_of(lines),
        "lines": lines,
        "line": line,
        "kinds": [
            Choice(_address(kind, None), words, 0, kind == line.kind)
            for kind, words in KINDS.items()
        ],
        "drifts": drifts[pages.rows],
        "first": pages.first,
        "last": pages.last,
        "found": pages.total,
        "previous": pages.previous,
        "next": pages.next,
        "runs": [
            (run, ", ".join(KINDS[kind] for kind in run.kinds)) for run in recent[:RUNS_SHOWN]
        ],
        "is_running": any(run.state in UNFINISHED for run in recent),
        "days": day_choices(timezone.now()),
        "settings": settings_of(request.tenant.id),
        "last_bill": last_bill.first(),
        "may_bill": may_bill(request),
    }
    return render(request, "dashboard/billing/reconciliation.html", context)


def _chosen(
    request: PageRequest, runs: QuerySet[Reconciliation], lines: Sequence[KindLine]
) -> KindLine:
    """Return what the address asks for: a kind, of a run or of the latest one; else the first kind
    that differs.
    """
    kind = request.GET.get("kind", "")
    run_id = number_of(request.GET.get("run", ""))
    if run_id is not None:
        run = get_object_or_404(runs, id=run_id)
        kind = kind if kind in run.kinds else run.kinds[0]
        return line_of(kind, [run])
    by_kind = {line.kind: line for line in lines}
    differing = (line for line in lines if line.result.drifts)
    return by_kind.get(kind) or next(differing, lines[0])


def line_of(kind: str, runs: Sequence[Reconciliation]) -> KindLine:
    """Return what the newest of these runs found of a kind; one that is over comes first. Pure."""
    own = [run for run in runs if kind in run.kinds]
    over = [run for run in own if run.state not in UNFINISHED]
    run = next(iter(over or own), None)
    result = KindResult.read(run.results.get(kind) if run else None)
    state, tone = _state_of(kind, run, result)
    return KindLine(kind, KINDS[kind], run, result, state, tone, _address(kind, run))


def _state_of(kind: str, run: Reconciliation | None, result: KindResult) -> tuple[str, str]:
    """Return where a comparison stands, and the tone of its badge. Pure."""
    if run is None:
        return "never compared", "outline"
    if run.state != ReconciliationState.DONE:
        is_failed = run.state == ReconciliationState.FAILED
        return ("failed", "critical") if is_failed else ("running", "info")
    if not result.is_connected:
        return "not connected", "outline"
    if result.exceeds(threshold_of(run, kind)):
        return "differs", "critical"
    if not result.compared:
        return "nothing to compare", "outline"
    return ("within the threshold", "warning") if result.drifts else ("agrees", "ok")


def headline_of(lines: Sequence[KindLine]) -> str:
    """The finding: what differs by more than the threshold. Pure."""
    differing = [line.words for line in lines if line.state == "differs"]
    if differing:
        verb = "differ" if len(differing) > 1 or differing[0].endswith("s") else "differs"
        return f"{' and '.join(differing)} {verb} from what usage makes them"
    compared = [line for line in lines if line.state in {"agrees", "within the threshold"}]
    if not compared:
        return "Nothing was compared yet"
    names = " and ".join(line.words for line in compared)
    return f"{names} agree with usage"


def _drifts(run: Reconciliation | None, kind: str) -> QuerySet[Drift]:
    if run is None:
        return Drift.objects.none()
    rows = Drift.objects.filter(reconciliation=run, tenant_id=run.tenant_id, kind=kind)
    return rows.select_related("statement").order_by("id")


def _address(kind: str, run: Reconciliation | None, *, page: int = 1) -> str:
    asked: dict[str, Any] = {"kind": kind}
    if run is not None:
        asked["run"] = run.pk
    if page > 1:
        asked["page"] = page
    return f"{reverse('dashboard:reconciliation')}?{urlencode(asked)}"


def day_choices(now: datetime) -> list[tuple[str, str]]:
    """Return which days can be compared: the latest ones, and months in UTC. Pure."""
    first = now.astimezone(UTC).date().replace(day=1)
    months = [first - relativedelta(months=back) for back in range(3)]
    return [
        (LATEST, f"the last {LATEST_DAYS} days"),
        *((f"{month:%Y-%m}", f"{month:%B %Y}") for month in months),
    ]


@button_of("reconciliation", may=may_bill)
def compare(request: PageRequest) -> str:
    """Have the workers compare the chosen days, all kinds."""
    now = timezone.now()
    chosen = request.POST.get("days", LATEST)
    today = now.astimezone(UTC).date()
    if chosen in [code for code, _ in day_choices(now)] and chosen != LATEST:
        first = datetime.strptime(chosen, "%Y-%m").replace(tzinfo=UTC).date()
        last = min(first + relativedelta(months=1) - timedelta(days=1), today)
    else:
        last = today - timedelta(days=1)
        first = last - timedelta(days=LATEST_DAYS - 1)
    start_reconciliation(
        tenant=request.tenant,
        actor=actor_of(request),
        first_day=first,
        last_day=last,
        kinds=list(KINDS),
    )
    # Where the broker is away, the next beat finds the row all the same.
    transaction.on_commit(_wake_worker, robust=True)
    return f"{first:%b %-d} to {last:%b %-d} are being compared; reload the page in a few seconds."


def _wake_worker() -> None:
    current_app.send_task(WORK_OFF, retry=False)


@customers_page
def csv_file(request: PageRequest, run_id: int) -> FileResponse:
    """What a run found that differs, exact, for spreadsheets."""
    run = get_object_or_404(Reconciliation, tenant=request.tenant, id=run_id)
    rows = Drift.objects.filter(reconciliation=run, tenant_id=run.tenant_id).order_by("id")
    return csv_download(
        _csv_rows(rows.select_related("statement")), name=f"reconciliation-{run.id}.csv"
    )


def _csv_rows(drifts: QuerySet[Drift]) -> Iterator[Sequence[str]]:
    yield COLUMNS
    for drift in drifts:
        yield [
            drift.kind,
            "" if drift.day is None else drift.day.isoformat(),
            drift.provider,
            drift.model,
            drift.line_item,
            drift.statement.number if drift.statement else "",
            drift.line,
            drift.unit,
            decimal_string(drift.expected),
            decimal_string(drift.found),
            decimal_string(drift.difference),
            drift.note,
        ]
