"""Jobs over all tenants: each tenant in its turn, and one tenant's failure stops no other."""

import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, Protocol

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.db.models import QuerySet
from prometheus_client import Counter

from tenants.scope import platform_scope, tenant_scope

log = structlog.get_logger(__name__)

FAILURES: Final = Counter(
    "spendgate_tenant_failures",
    "A job failed for one tenant, whom it then leaves alone for a while. The log says for whom.",
    ["job", "error"],
)
# A tenant for whom a job fails is left alone for so long, then for twice as long, up to the most.
PAUSE_SECONDS: Final = 10.0
PAUSE_SECONDS_MAX: Final = 600.0
# Failures that a process remembers; beyond these the oldest are forgotten.
PAUSES_MAX: Final = 10_000

FindTenants = Callable[[], list[int]]


class TenantWork(Protocol):
    """What a job does for one tenant; returns how much it did."""

    def __call__(self, *, tenant_id: int) -> int: ...


@dataclass
class _Pause:
    seconds: float
    ends_at: float


_pauses: OrderedDict[tuple[str, int], _Pause] = OrderedDict()


def forget_pauses() -> None:
    """Forget every failure, so that all tenants are tried again immediately."""
    _pauses.clear()


class TenantRun:
    """One run of a task over the tenants.

    Each of its steps has an equal share of the time, so that one with much to do keeps none of the
    others from its own. A tenant for whom a step fails is logged, counted, and not tried again
    before a pause that doubles with each failure.
    """

    def __init__(self, seconds: float, *, steps: int = 1) -> None:
        self._step_seconds = seconds / steps
        self._failure: Exception | None = None

    def each(self, job: str, find: FindTenants, work: TenantWork) -> int:
        """Do the work of each tenant that has some, in turn; return the sum of what was done."""
        return sum(done for _, done in self._round(job, _found(find), work, self._end_of_step()))

    def repeat(self, job: str, find: FindTenants, work: TenantWork) -> int:
        """Do the same again and again for tenants with something left to do; return the sum."""
        ends_at, total = self._end_of_step(), 0
        tenants = _found(find)
        while tenants:
            done = self._round(job, tenants, work, ends_at)
            tenants = [tenant_id for tenant_id, count in done if count]
            total += sum(count for _, count in done)
        return total

    def report(self) -> None:
        """Let the task fail, so that outcomes are counted, once every tenant had its turn."""
        if self._failure is not None:
            raise self._failure

    def _end_of_step(self) -> float:
        return time.monotonic() + self._step_seconds

    def _round(
        self, job: str, tenants: list[int], work: TenantWork, ends_at: float
    ) -> list[tuple[int, int]]:
        return [
            (tenant_id, self._once(job, tenant_id, work))
            for tenant_id in tenants
            if time.monotonic() < ends_at and not _is_paused(job, tenant_id)
        ]

    def _once(self, job: str, tenant_id: int, work: TenantWork) -> int:
        try:
            done = work(tenant_id=tenant_id)
        except Exception as error:
            if not isinstance(error, SoftTimeLimitExceeded) and not connection.is_usable():
                raise  # The database is away: the operator's trouble alone.
            _note_failure(job, tenant_id, error)
            if isinstance(error, SoftTimeLimitExceeded):
                raise
            self._failure = self._failure or error
            return 0
        _pauses.pop((job, tenant_id), None)
        return done


def tenants_of(rows: QuerySet[Any]) -> list[int]:
    """The tenants that have some of these rows."""
    return list(rows.order_by("tenant_id").values_list("tenant_id", flat=True).distinct())


def scoped(work: TenantWork) -> TenantWork:
    """The work in a transaction that sees the tenant's rows."""

    @wraps(work)
    def run(*, tenant_id: int) -> int:
        with tenant_scope(tenant_id):
            return work(tenant_id=tenant_id)

    return run


def shuffled(find: FindTenants) -> FindTenants:
    """The same tenants in random order: where time runs out, it is not always the same who wait."""

    def find_shuffled() -> list[int]:
        tenants = find()
        random.shuffle(tenants)
        return tenants

    return find_shuffled


def _found(find: FindTenants) -> list[int]:
    with platform_scope("find the tenants with work"):
        return find()


def _is_paused(job: str, tenant_id: int) -> bool:
    pause = _pauses.get((job, tenant_id))
    return pause is not None and time.monotonic() < pause.ends_at


def _note_failure(job: str, tenant_id: int, error: Exception) -> None:
    known = _pauses.pop((job, tenant_id), None)
    seconds = min(PAUSE_SECONDS_MAX, 2 * known.seconds) if known else PAUSE_SECONDS
    _pauses[job, tenant_id] = _Pause(seconds, time.monotonic() + seconds)
    while len(_pauses) > PAUSES_MAX:
        _pauses.popitem(last=False)
    kind = type(error).__name__
    FAILURES.labels(job, kind).inc()
    log.exception(
        "job failed for a tenant", job=job, tenant_id=tenant_id, error=kind, pause_seconds=seconds
    )
