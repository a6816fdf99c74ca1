"""How long metering's rows are kept, and what removes them. `docs/operations.md` has the table.

Everything goes by an index and in chunks. Usage, and what proves it, goes once it is sealed
(`metering.calls.seals`).
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from common.queries import Parameter
from metering.calls.seals import (
    first_kept,
    freeze,
    keys_kept,
    read_sealed,
    remove_ended_windows,
    seal_entries,
    seal_events,
    tenants_to_freeze,
    tenants_to_seal,
    tenants_with_seals,
)
from metering.intake.open_traces import forget_spans, forget_spans_beyond
from metering.ledger.holds import OPEN
from metering.limits.breakers import forget_idle_states
from metering.limits.rate_counters import forget_idle_rate_counters
from metering.models import (
    BY_LEVEL,
    Annotation,
    BackgroundJob,
    BudgetWindow,
    Correction,
    Crossing,
    Halt,
    LimitIncrease,
    LimitIncreaseStatus,
    LimitReduction,
    Outcome,
    Simulation,
    SimulationStatus,
    UnitCount,
)
from metering.rollups.sets import DAY_SETS, HISTOGRAM_SETS, QUARTER_SETS, DimensionSet
from metering.usage.partitions import drop_sealed_partitions
from tenants.models import Tenant
from tenants.old_rows import ROWS_A_CHUNK, ChunkedRun
from tenants.runs import TenantRun, TenantWork, scoped, shuffled

IDLE_RATE_COUNTER_SECONDS: Final = 3600
IDLE_STATE_SECONDS: Final = 35 * 86_400
# How long after its last span a trace may still grow.
SPANS_KEPT: Final = timedelta(hours=1)


def seal_old_usage(*, seconds: float) -> None:
    """Seal the usage of months that are no longer kept, and remove it with what proves it: events,
    ledger entries, windows that are over, reservations, batches, roll-ups by quarter of an hour.

    Every step takes up what runs before it have left.
    """
    until = first_kept(timezone.now())
    run = TenantRun(seconds, steps=8)
    freezing = scoped(partial(freeze, until=until))
    run.each("freeze", shuffled(partial(tenants_to_freeze, until)), freezing)
    run.repeat("seal_events", shuffled(tenants_to_seal), scoped(seal_events))
    drop_sealed_partitions(before=until)
    steps: dict[str, TenantWork] = {
        "seal_entries": partial(seal_entries, positions={}),
        "remove_reservations": _remove_reservations,
        "remove_ended_windows": remove_ended_windows,
        "remove_batches": partial(_remove_batches, positions={}),
        "remove_quarters": _remove_quarters,
        "remove_days": _remove_days,
    }
    for job, work in steps.items():
        run.repeat(job, shuffled(tenants_with_seals), scoped(work))
    run.report()


def remove_old_rows(*, seconds: float) -> None:
    """Remove what needs no seal: keys of events, decisions, counts of sources, simulations,
    crossings, halts, limit increases, and what was said of events.
    """
    now = timezone.now()
    run = ChunkedRun(seconds / 2)
    for table in ("call_report", "event_key"):
        run.repeat("keys of events too old to come again", _by_age(table, "event_at", now))
    _remove_source_counts(run, now)
    decided_before = now - settings.RETENTION_DECISIONS
    done = Simulation.objects.filter(status__in=(SimulationStatus.DONE, SimulationStatus.FAILED))
    run.remove_by_id(done, at="created_at", before=decided_before)
    # Of each kind the latest stays: it says by which prices usage was tried last.
    later = BackgroundJob.objects.filter(
        tenant=OuterRef("tenant"), kind=OuterRef("kind"), id__gt=OuterRef("id")
    )
    ended = BackgroundJob.objects.filter(Exists(later), finished_at__isnull=False)
    run.remove_by_id(ended, at="created_at", before=decided_before)
    occurred_before = now - settings.RETENTION_INCIDENTS
    claimed = Crossing.objects.filter(claimed_at__isnull=False)
    run.remove_by_id(claimed, at="crossed_at", before=occurred_before)
    run.remove_by_id(_halts_over(occurred_before), at="since", before=occurred_before)
    eased = LimitReduction.objects.filter(ended_at__lt=occurred_before)
    run.remove_by_id(eased, at="since", before=occurred_before)
    run.remove_by_id(_raises_over(occurred_before), at="asked_at", before=occurred_before)
    counted_before = now - settings.RETENTION_EVENTS
    run.remove_by_id(Correction.objects.all(), at="created_at", before=counted_before)
    run.remove_by_id(Outcome.objects.all(), at="reported_at", before=counted_before)
    read_until = now - settings.RETENTION_HISTORY
    run.remove_by_id(Annotation.objects.all(), at="created_at", before=read_until)
    run.remove_by_id(UnitCount.objects.all(), at="updated_at", before=read_until)
    tenants = TenantRun(seconds / 2)
    remove = partial(_remove_decisions, before=decided_before)
    tenants.repeat("remove_decisions", shuffled(_all_tenants), scoped(remove))
    tenants.report()


def remove_idle_groups(*, seconds: float) -> int:
    """Remove rate counters and breaker states of groups that no one asks for any more; return the
    number of rows.
    """
    now_second = int(timezone.now().timestamp())
    run = ChunkedRun(seconds)
    reason = "paces and breaker states of idle groups"
    return sum(
        run.repeat(reason, partial(forget, before_second=now_second - idle, limit=ROWS_A_CHUNK))
        for forget, idle in (
            (forget_idle_rate_counters, IDLE_RATE_COUNTER_SECONDS),
            (forget_idle_states, IDLE_STATE_SECONDS),
        )
    )


def remove_old_spans(*, seconds: float) -> int:
    """Remove the spans of traces that have not grown for an hour; return their number."""
    before = timezone.now() - SPANS_KEPT
    run = ChunkedRun(seconds)
    reason = "spans of traces that grow no more"
    return sum(
        run.repeat(reason, partial(forget, limit=ROWS_A_CHUNK))
        for forget in (partial(forget_spans, before=before), forget_spans_beyond)
    )


def _all_tenants() -> list[int]:
    return list(Tenant.objects.values_list("id", flat=True))


def _remove_chunk(
    cursor: CursorWrapper, table: str, condition: str, parameters: list[Parameter]
) -> int:
    """Remove a chunk of the rows that fit. One that changes meanwhile is left for the next."""
    cursor.execute(
        f"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} r"
        f" WHERE {condition} LIMIT {ROWS_A_CHUNK}))",
        parameters,
    )
    return int(cursor.rowcount)


def _by_age(table: str, column: str, now: datetime) -> Callable[[CursorWrapper], int]:
    before = now - keys_kept()

    def remove(cursor: CursorWrapper) -> int:
        return _remove_chunk(cursor, table, f"{column} < %s", [before])

    return remove


def _remove_source_counts(run: ChunkedRun, now: datetime) -> None:
    first_day = (now - settings.RETENTION_DECISIONS).date()
    run.repeat(
        "counts of sources too old to be read",
        lambda cursor: _remove_chunk(cursor, "source_count", "day < %s", [first_day]),
    )


def _remove_decisions(*, tenant_id: int, before: datetime) -> int:
    with connection.cursor() as cursor:
        condition = "tenant_id = %s AND decided_at < %s"
        return _remove_chunk(cursor, "decision", condition, [tenant_id, before])


def _halts_over(before: datetime) -> QuerySet[Halt]:
    """Halts that ended before then. A tenant's newest stays, whose version clients compare; and so
    do lockouts that a person lifted, for as long as their window might lock out again.
    """
    newer = Halt.objects.filter(tenant_id=OuterRef("tenant_id"), version__gt=OuterRef("version"))
    window = BudgetWindow.objects.filter(tenant_id=OuterRef("tenant_id"), id=OuterRef("window_id"))
    return Halt.objects.filter(
        Q(lifted_at__lt=before) | Q(ends_at__lt=before),
        Exists(newer),
        Q(window_id=None) | Q(lifted_by=BY_LEVEL) | ~Exists(window),
    )


def _raises_over(before: datetime) -> QuerySet[LimitIncrease]:
    """Limit increases that ended before then, and requests that no one granted. An approved one
    stays with the windows in which it counted: it is why they spent more than their limit.
    """
    window = BudgetWindow.objects.filter(
        Q(ends_at=None) | Q(ends_at__gt=OuterRef("starts_at")),
        Q(counted_from=None) | Q(counted_from__lt=OuterRef("ends_at")),
        tenant_id=OuterRef("tenant_id"),
        budget_id=OuterRef("budget_id"),
        starts_at__lt=OuterRef("ends_at"),
    )
    is_needed = Q(Exists(window), group_key="") | Exists(
        window.filter(group_key=OuterRef("group_key"))
    )
    return LimitIncrease.objects.filter(
        ~Q(status=LimitIncreaseStatus.APPROVED) | Q(~is_needed, judged_at__isnull=False),
        ends_at__lt=before,
    )


def _remove_reservations(*, tenant_id: int) -> int:
    """Remove those that are over and whose event is gone: until then it counts where they held."""
    before = read_sealed(tenant_id).changes_until
    with connection.cursor() as cursor:
        return _remove_chunk(
            cursor,
            "reservation",
            f"tenant_id = %s AND created_at < %s AND state <> {OPEN} AND finished_at < %s"
            " AND NOT EXISTS (SELECT FROM usage_event e WHERE e.tenant_id = r.tenant_id"
            " AND e.id = r.event_id)",
            [tenant_id, before, before],
        )


_REMOVE_BATCHES: Final = """
    WITH looked AS MATERIALIZED (
        SELECT id, received_at < %(before)s AS is_old FROM ingest_batch
        WHERE tenant_id = %(tenant)s AND id > %(after)s ORDER BY id LIMIT %(limit)s
    ), removed AS (
        DELETE FROM ingest_batch b USING looked l
        WHERE b.tenant_id = %(tenant)s AND b.id = l.id AND l.is_old
            AND coalesce(b.last_at < %(before)s, true) AND b.rolled_up_at IS NOT NULL
            AND b.sessions_checked_at IS NOT NULL
    )
    SELECT max(id), count(*) FILTER (WHERE is_old) FROM looked
"""


def _remove_batches(*, tenant_id: int, positions: dict[int, int]) -> int:
    """Batches of events that are all sealed, once nothing is left to be derived from them."""
    with connection.cursor() as cursor:
        cursor.execute(
            _REMOVE_BATCHES,
            {
                "tenant": tenant_id,
                "after": positions.get(tenant_id, 0),
                "limit": ROWS_A_CHUNK,
                "before": read_sealed(tenant_id).changes_until,
            },
        )
        last_id, count = cursor.fetchone()
    positions[tenant_id] = last_id or 0
    return int(count)


def _remove_quarters(*, tenant_id: int) -> int:
    """Sums by quarter and combinations, which name users and sessions: they go with the events."""
    before = read_sealed(tenant_id).sealed_until
    with connection.cursor() as cursor:
        # A day that is not over by then is kept whole.
        condition = "tenant_id = %s AND starts_at < %s"
        parameters: list[Parameter] = [tenant_id, before - timedelta(days=1)]
        if count := _remove_chunk(cursor, "usage_combination", condition, parameters):
            return count
    return _remove_rollups(tenant_id, before, {"usage_rollup": QUARTER_SETS})


def _remove_days(*, tenant_id: int) -> int:
    """Sums by day that are older than any history. Days whose events are kept stay."""
    before = min(timezone.now() - settings.RETENTION_HISTORY, read_sealed(tenant_id).sealed_until)
    # A day that is not over by then is kept whole.
    before -= timedelta(days=1)
    return _remove_rollups(
        tenant_id, before, {"usage_rollup": DAY_SETS, "usage_histogram": HISTOGRAM_SETS}
    )


def _remove_rollups(
    tenant_id: int, before: datetime, tables: dict[str, tuple[DimensionSet, ...]]
) -> int:
    with connection.cursor() as cursor:
        for table, sets in tables.items():
            for dimension_set in sets:
                condition = "tenant_id = %s AND dimension_set = %s AND starts_at < %s"
                parameters: list[Parameter] = [tenant_id, dimension_set.number, before]
                if count := _remove_chunk(cursor, table, condition, parameters):
                    return count
    return 0
