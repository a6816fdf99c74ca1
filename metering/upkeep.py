"""What time alone changes: rolling windows let go, partitions are made ahead, old months go."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from django.conf import settings
from django.db import connection
from django.utils import timezone

from metering.budget_reading import read_book
from metering.budget_rules import BudgetBook
from metering.enforcement.breakers import forget_idle_states
from metering.enforcement.holds import OPEN
from metering.enforcement.lockouts import lift_ended_lockouts
from metering.enforcement.pace import forget_idle_paces
from metering.enforcement.raises import judge_ended_raises, tenants_with_ended_raises
from metering.enforcement.turn import expire_due
from metering.job_steps import take_step, tenants_with_jobs
from metering.models import Budget, CallReport, EventKey, SourceCount
from metering.open_traces import forget_spans, forget_spans_beyond
from metering.partitions import make_due_partitions
from metering.rerate import start_pricing, tenants_with_other_prices
from metering.rolling import age_windows, windows_letting_go
from tenants.models import IdempotencyRecord
from tenants.runs import TenantRun, scoped, shuffled
from tenants.scope import (
    hold_configuration,
    lock_configuration_shared,
    platform_scope,
    tenant_scope,
)

# A run ends after this time; the next beat goes on.
EXPIRE_SECONDS: Final = 30.0
END_SECONDS: Final = 30.0
AGE_SECONDS: Final = 120.0
# So many windows are aged in one transaction.
WINDOWS_AT_ONCE: Final = 50
PRICE_SECONDS: Final = 30.0
# Shorter than the beat's period: else every process of a worker runs jobs, while reservations wait
# to expire.
JOBS_SECONDS: Final = 1.5
PRICING_ACTOR: Final = "prices that changed"
# How long a retry with the same Idempotency-Key gets the first answer.
IDLE_PACE_SECONDS: Final = 3600
IDLE_STATE_SECONDS: Final = 35 * 86_400
# How long a job that has ended can be read.
JOBS_KEPT: Final = timedelta(days=35)
JOBS_A_CHUNK: Final = 10_000
ANSWERS_KEPT: Final = timedelta(days=7)
# How long after its last span a trace may still grow.
SPANS_KEPT: Final = timedelta(hours=1)
SPANS_A_CHUNK: Final = 10_000
# How long what each source sent can be read.
SOURCE_COUNTS_KEPT: Final = timedelta(days=35)


def age_rolling_windows() -> int:
    """Take out of rolling windows what is older than their period; return how many let go."""
    run = TenantRun(AGE_SECONDS)
    work = partial(_age_windows_of, now=timezone.now())
    count = run.each("age_rolling_windows", shuffled(_tenants_with_rolling_budgets), work)
    run.report()
    return count


def _tenants_with_rolling_budgets() -> list[int]:
    rolling = Budget.objects.filter(is_rolling=True, archived_at=None)
    return list(rolling.values_list("tenant_id", flat=True).distinct())


def _age_windows_of(*, tenant_id: int, now: datetime) -> int:
    """Age the windows that have something to let go of; return how many."""
    with tenant_scope(tenant_id):
        book = read_book(tenant_id)
        window_ids = windows_letting_go(book, now)
    aged: set[int] = set()
    for place in range(0, len(window_ids), WINDOWS_AT_ONCE):
        some = window_ids[place : place + WINDOWS_AT_ONCE]
        with tenant_scope(tenant_id):
            book = _book_in_force(book)
            aged |= age_windows(book=book, window_ids=some, now=now, waits=False)
    for window_id in window_ids:
        if window_id not in aged:
            # Many want it: it is not kept longer than its own turn, and keeps no other waiting.
            with tenant_scope(tenant_id):
                book = _book_in_force(book)
                age_windows(book=book, window_ids=[window_id], now=now, waits=True)
    return len(window_ids)


def _book_in_force(book: BudgetBook) -> BudgetBook:
    """Hold the tenant's configuration, and return the book of it."""
    version = lock_configuration_shared(book.tenant_id)
    return book if book.version == version else read_book(book.tenant_id, version=version)


def expire_reservations() -> int:
    """Give back what reservations of all tenants hold whose time is over; return how many."""
    run = TenantRun(EXPIRE_SECONDS)
    count = run.repeat("expire_reservations", shuffled(_tenants_with_due_holds), expire_due)
    run.report()
    return count


def _tenants_with_due_holds() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT tenant_id FROM reservation WHERE state = %s AND expires_at <= now()",
            [OPEN],
        )
        return [row[0] for row in cursor.fetchall()]


def end_what_is_over() -> int:
    """Judge windows without the raises that are over, and lift lockouts that have ended; return how
    many of both there were.
    """
    run = TenantRun(END_SECONDS, steps=2)
    ended = run.each("judge_ended_raises", tenants_with_ended_raises, scoped(judge_ended_raises))
    ended += run.repeat(
        "lift_ended_lockouts", _tenants_with_ended_lockouts, scoped(lift_ended_lockouts)
    )
    run.report()
    return ended


def _tenants_with_ended_lockouts() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT tenant_id FROM halt WHERE lifted_at IS NULL AND ends_at <= now()"
        )
        return [row[0] for row in cursor.fetchall()]


def forget_idle_groups() -> None:
    """Drop what is kept of groups that nobody asks for any more: paces, and what is usual."""
    now_second = int(timezone.now().timestamp())
    with platform_scope("paces and breaker states of idle groups"), connection.cursor() as cursor:
        forget_idle_paces(cursor, before_second=now_second - IDLE_PACE_SECONDS)
        forget_idle_states(cursor, before_second=now_second - IDLE_STATE_SECONDS)


def make_partitions_ahead() -> list[str]:
    """Partitions for the months to come."""
    with platform_scope("partitions for the months ahead"):
        return make_due_partitions(now=timezone.now(), max_age_days=settings.EVENT_MAX_AGE.days)


def price_what_was_unpriced() -> int:
    """Begin to rate usage without a price once more where prices have changed since it was last
    tried (an import of the catalogue, another policy); return for how many tenants.
    """
    run = TenantRun(PRICE_SECONDS)
    count = run.each("price_unpriced", shuffled(tenants_with_other_prices), scoped(_start_pricing))
    run.report()
    return count


def _start_pricing(*, tenant_id: int) -> int:
    # Alone, so that no job that waits begins while it is told of other prices.
    hold_configuration(tenant_id)
    return 0 if start_pricing(tenant_id=tenant_id, actor=PRICING_ACTOR) is None else 1


def run_jobs() -> int:
    """Do steps of the jobs of all tenants, in turn; return how many."""
    run = TenantRun(JOBS_SECONDS)
    count = run.repeat("run_jobs", shuffled(tenants_with_jobs), take_step)
    run.report()
    return count


def forget_old_jobs() -> int:
    """Drop jobs that ended long ago, but of each tenant and kind the latest: it says by which
    prices usage was tried last.
    """
    with platform_scope("jobs that ended long ago"), connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM background_job j WHERE j.id IN (SELECT o.id FROM background_job o"
            " WHERE o.finished_at < %s AND EXISTS (SELECT FROM background_job later"
            " WHERE later.tenant_id = o.tenant_id AND later.kind = o.kind AND later.id > o.id)"
            " LIMIT %s)",
            [timezone.now() - JOBS_KEPT, JOBS_A_CHUNK],
        )
        return int(cursor.rowcount)


def forget_old_keys() -> int:
    """Drop keys of events that are too old to be sent again; a day is added to the contract's
    limit.
    """
    until = timezone.now() - settings.EVENT_MAX_AGE - timedelta(days=1)
    with platform_scope("keys of events too old to come again"):
        # One statement each: deleting model by model would read what it removes.
        CallReport.objects.filter(event_at__lt=until)._raw_delete("default")
        return EventKey.objects.filter(event_at__lt=until)._raw_delete("default")


def forget_old_spans() -> int:
    """Drop the spans of traces that have not grown for an hour, a chunk a transaction; return how
    many.
    """
    before = timezone.now() - SPANS_KEPT
    dropped = 0
    for forget in (partial(forget_spans, before=before), forget_spans_beyond):
        while count := _forget_chunk(forget):
            dropped += count
    return dropped


def _forget_chunk(forget: Callable[..., int]) -> int:
    with platform_scope("spans of traces that grow no more"), connection.cursor() as cursor:
        return forget(cursor, limit=SPANS_A_CHUNK)


def forget_old_answers() -> int:
    """Drop the answers that are kept for retries, once nobody tries that request again."""
    until = timezone.now() - ANSWERS_KEPT
    with platform_scope("answers too old to be asked for again"):
        return IdempotencyRecord.objects.filter(created_at__lt=until)._raw_delete("default")


def forget_old_source_counts() -> int:
    """Drop what sources sent so long ago that it is no longer read; return how many rows."""
    until = (timezone.now() - SOURCE_COUNTS_KEPT).date()
    with platform_scope("counts of sources too old to be read"):
        return SourceCount.objects.filter(day__lt=until)._raw_delete("default")
