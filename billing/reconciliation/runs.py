"""Reconciliations as rows: begun by a request or by the day, done by workers step by step.

A step reads one snapshot and writes what it found in the same transaction, so that a worker that
dies leaves nothing half done, and the next continues with the row.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from django.db import transaction
from django.db.models import F, Max, Min
from django.utils import timezone

from billing.collection.totals import InvoiceTotal
from billing.models import (
    Drift,
    ProviderBillLine,
    Reconciliation,
    ReconciliationKind,
    ReconciliationSettings,
    ReconciliationState,
    Statement,
)
from billing.reconciliation.bills import compare_day, next_billed_day
from billing.reconciliation.invoices import compare_invoices, invoice_totals_of
from billing.reconciliation.results import EXACT, Difference, KindResult, Threshold, dollars
from billing.reconciliation.statements import compare_statements, final_statements
from common.errors import Conflict
from metering.reporting.kept import require_events
from tenants.audit import audited_change, create_audited
from tenants.models import Tenant
from tenants.runs import tenants_of
from tenants.scope import tenant_scope

# Who begins those of the day.
SERVICE: Final = "spendgate"
UNFINISHED: Final = (ReconciliationState.WAITING, ReconciliationState.RUNNING)
UNFINISHED_MAX: Final = 10
DAYS_MAX: Final = 366
STATEMENTS_AT_ONCE: Final = 50
# Differences of one reconciliation that are kept; the others are counted.
DRIFTS_MAX: Final = 10_000
FAILURES_MAX: Final = 5
OUR_FAULT: Final = "Something went wrong on our side; the error was logged."
# An import that began so long before a run of the day may not have been visible to it.
IMPORT_LASTS_MAX: Final = timedelta(hours=1)
KEPT_FOR: Final = timedelta(days=400)
REMOVED_AT_ONCE: Final = 100


def settings_of(tenant_id: int) -> ReconciliationSettings:
    """Return the tenant's settings; the defaults, unsaved, if nothing was changed yet."""
    stored = ReconciliationSettings.objects.filter(tenant_id=tenant_id).first()
    return stored or ReconciliationSettings(tenant_id=tenant_id)


@transaction.atomic
def change_settings(
    *, tenant: Tenant, actor: str, changes: Mapping[str, object]
) -> ReconciliationSettings:
    """Change when what differs is an incident, for reconciliations that begin from now on."""
    stored, _ = ReconciliationSettings.objects.get_or_create(tenant=tenant)
    with audited_change(stored, actor=actor, changes=changes) as change:
        change.row.full_clean(validate_unique=False)
    return change.row


@transaction.atomic
def start_reconciliation(
    *, tenant: Tenant, actor: str, first_day: date, last_day: date, kinds: Sequence[str]
) -> Reconciliation:
    """Leave a comparison to the workers, from commit on.

    Raises Conflict while too many wait, and InvalidQuestion for days whose usage is gone.
    """
    waiting = Reconciliation.objects.filter(tenant=tenant, state__in=UNFINISHED)
    if waiting.count() >= UNFINISHED_MAX:
        raise Conflict(f"{UNFINISHED_MAX} reconciliations wait already; begin another later.")
    require_events(tenant_id=tenant.id, starts_at=datetime.combine(first_day, time(), UTC))
    settings = settings_of(tenant.id)
    reconciliation = Reconciliation(
        tenant=tenant,
        first_day=first_day,
        last_day=last_day,
        kinds=list(kinds),
        threshold_percent=settings.threshold_percent,
        threshold_nanos=settings.threshold_nanos,
        actor=actor[:300],
    )
    return create_audited(reconciliation, actor=actor)


def threshold_of(reconciliation: Reconciliation, kind: str) -> Threshold:
    """Return what passes without an incident. An invoice must agree to the cent."""
    if kind == ReconciliationKind.STRIPE:
        return EXACT
    percent = Decimal(reconciliation.threshold_percent)
    return Threshold(percent, dollars(reconciliation.threshold_nanos))


def tenants_with_steps() -> list[int]:
    """Return tenants whose reconciliations are not done. Needs a platform scope."""
    return tenants_of(Reconciliation.objects.filter(state__in=UNFINISHED))


def take_step(*, tenant_id: int) -> int:
    """Do a step of the reconciliation that has waited longest; return whether one was done.

    Outside of any transaction, since Stripe is asked outside of one.
    """
    with tenant_scope(tenant_id):
        waiting = Reconciliation.objects.filter(tenant_id=tenant_id, state__in=UNFINISHED)
        row = waiting.order_by(F("stepped_at").asc(nulls_first=True), "id").first()
    if row is None:
        return 0
    try:
        invoices = _ask_stripe(row) if _kind_of(row) == ReconciliationKind.STRIPE else None
        with tenant_scope(tenant_id, is_snapshot=True):
            return _step(row, invoices)
    except Exception:
        with tenant_scope(tenant_id):
            _note_failure(row)
        raise


class _Invoices(NamedTuple):
    """Statements of a step, and what their invoices come to; None: no Stripe is connected."""

    statements: Sequence[Statement]
    totals: Mapping[int, InvoiceTotal | None] | None


def _kind_of(row: Reconciliation) -> str:
    return str(row.kinds[row.kind_place])


def _ask_stripe(row: Reconciliation) -> _Invoices:
    with tenant_scope(row.tenant_id):
        tenant = Tenant.objects.get(id=row.tenant_id)
        ask = invoice_totals_of(tenant)
        statements = [] if ask is None else _statements_of(row)
    if ask is None:
        return _Invoices([], None)
    return _Invoices(statements, ask(tenant, statements) if statements else {})


def _step(expected: Reconciliation, invoices: _Invoices | None) -> int:
    """Do a step if the row is where it was and no other worker holds it."""
    row = (
        Reconciliation.objects.select_for_update(skip_locked=True)
        .filter(
            id=expected.id,
            tenant_id=expected.tenant_id,
            state__in=UNFINISHED,
            kind_place=expected.kind_place,
            after=expected.after,
        )
        .first()
    )
    if row is None:
        return 0
    kind = _kind_of(row)
    result = KindResult.read(row.results.get(kind))
    after = _compare(row, kind, result, invoices)
    row.results = {**row.results, kind: result.stored()}
    row.kind_place, row.after = (
        (row.kind_place + 1, 0) if after is None else (row.kind_place, after)
    )
    row.state, row.stepped_at = ReconciliationState.RUNNING, timezone.now()
    row.failures, row.error = 0, ""
    if row.kind_place == len(row.kinds):
        row.state, row.finished_at = ReconciliationState.DONE, row.stepped_at
    row.save()
    return 1


def _compare(
    row: Reconciliation, kind: str, result: KindResult, invoices: _Invoices | None
) -> int | None:
    """Compare a part of a kind; return after what the next step begins, None if that was all."""
    if kind == ReconciliationKind.PROVIDERS:
        before = row.first_day - timedelta(days=1)
        after = max(before, date.fromordinal(row.after)) if row.after else before
        day = next_billed_day(row.tenant_id, after=after, last=row.last_day)
        if day is None:
            return None
        _keep(row, kind, result, compare_day(row.tenant_id, day, result))
        return day.toordinal()
    if invoices is None:
        statements: Sequence[Statement] = _statements_of(row)
        _keep(row, kind, result, compare_statements(row.tenant_id, statements, result))
    else:
        statements = invoices.statements
        result.is_connected = invoices.totals is not None
        _keep(row, kind, result, compare_invoices(statements, invoices.totals or {}, result))
    return statements[-1].id if statements else None


def _statements_of(row: Reconciliation) -> list[Statement]:
    return final_statements(
        row.tenant_id, row.first_day, row.last_day, after=row.after, limit=STATEMENTS_AT_ONCE
    )


def _keep(
    row: Reconciliation, kind: str, result: KindResult, differences: Iterable[Difference]
) -> None:
    new = list(differences)
    room = max(0, DRIFTS_MAX - result.drifts)
    result.drifts += len(new)
    Drift.objects.bulk_create(
        [
            Drift(
                tenant_id=row.tenant_id,
                reconciliation=row,
                kind=kind,
                difference=each.difference,
                **each._asdict(),
            )
            for each in new[:room]
        ]
    )


def _note_failure(row: Reconciliation) -> None:
    """Note that a step failed, whose transaction left nothing behind."""
    unfinished = Reconciliation.objects.select_for_update().filter(id=row.id, state__in=UNFINISHED)
    for stored in unfinished:
        stored.failures += 1
        stored.error, stored.stepped_at = OUR_FAULT, timezone.now()
        if stored.failures >= FAILURES_MAX:
            stored.state, stored.finished_at = ReconciliationState.FAILED, stored.stepped_at
        stored.save()


def tenants_with_bills() -> list[int]:
    """Return tenants that have imported bills. Needs a platform scope."""
    return tenants_of(ProviderBillLine.objects.all())


def start_daily(*, tenant_id: int) -> int:
    """Begin the comparison of the days whose bills were imported since the last one, and remove
    reconciliations that are too old; return whether there is something to compare.
    """
    _remove_old(tenant_id)
    if not settings_of(tenant_id).is_daily:
        return 0
    lines = ProviderBillLine.objects.filter(tenant_id=tenant_id)
    own = Reconciliation.objects.filter(tenant_id=tenant_id, actor=SERVICE)
    last = own.aggregate(at=Max("created_at"))["at"]
    if last is not None:
        lines = lines.filter(imported_at__gt=last - IMPORT_LASTS_MAX)
    days = lines.aggregate(first=Min("day"), last=Max("day"))
    if days["first"] is None:
        return 0
    start_reconciliation(
        tenant=Tenant.objects.get(id=tenant_id),
        actor=SERVICE,
        first_day=max(days["first"], days["last"] - timedelta(days=DAYS_MAX - 1)),
        last_day=days["last"],
        kinds=[ReconciliationKind.PROVIDERS.value],
    )
    return 1


def _remove_old(tenant_id: int) -> None:
    old = Reconciliation.objects.filter(
        tenant_id=tenant_id, created_at__lt=timezone.now() - KEPT_FOR
    ).order_by("id")
    ids = list(old.values_list("id", flat=True)[:REMOVED_AT_ONCE])
    Reconciliation.objects.filter(id__in=ids).delete()
