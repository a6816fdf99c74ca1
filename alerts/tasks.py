"""What the workers do for alerts: thin, bounded, safe to run twice. The rows are the queue.

`notify`, `deliver` and `end_incidents` are short, and have a queue of their own; what may take
longer (`scan_*`, `check_*`) never stands before them.
"""

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from celery import shared_task
from django.utils import timezone

from alerts import (
    breakers,
    crossings,
    delivery,
    digests,
    incidents,
    rule_checks,
    scans,
    session_checks,
)
from tenants.scope import platform_scope, tenant_scope

log = structlog.get_logger(__name__)

# A run ends after this time; the next beat goes on where it stopped.
SHORT_SECONDS: Final = 10.0
LONG_SECONDS: Final = 90.0
# A message that says "send now" is of no use later: the beat has said it again meanwhile.
DELIVER_EXPIRES_SECONDS: Final = 10


@shared_task(ignore_result=True)
def notify() -> None:
    """Make incidents of what metering left as rows, and let go of what was held back."""
    now = timezone.now()
    run = _Run(SHORT_SECONDS, steps=3)
    written = run.repeat(_shuffled(crossings.tenants_with_crossings), crossings.take_crossings)
    written += run.each(
        _shuffled(breakers.tenants_with_breakers), partial(breakers.compare_breakers, now=now)
    )
    written += run.each(
        _shuffled(partial(digests.tenants_with_held, now)), partial(digests.gather_held, now=now)
    )
    if written:
        deliver.apply_async(expires=DELIVER_EXPIRES_SECONDS)
    run.report()


@shared_task(ignore_result=True)
def deliver() -> None:
    """Send what is due."""
    delivery.deliver_due(seconds=SHORT_SECONDS)


@shared_task(ignore_result=True)
def end_incidents() -> None:
    """Resolve what is over, tell again of what was snoozed until now, and write due digests."""
    now = timezone.now()
    run = _Run(SHORT_SECONDS, steps=4)
    run.each(_shuffled(crossings.tenants_with_incidents), partial(crossings.end_crossings, now=now))
    run.each(
        _shuffled(session_checks.tenants_with_loops), partial(session_checks.end_loops, now=now)
    )
    run.each(
        _shuffled(partial(incidents.tenants_to_wake, now)), partial(incidents.wake_snoozed, now=now)
    )
    run.each(_shuffled(digests.tenants_with_digests), partial(digests.write_digests, now=now))
    run.report()


@shared_task(ignore_result=True)
def check_sessions() -> None:
    """Look for loops in the sessions that had new calls."""
    run = _Run(LONG_SECONDS)
    now = timezone.now()
    run.repeat(
        _shuffled(session_checks.tenants_to_check), partial(session_checks.check_sessions, now=now)
    )
    run.report()


@shared_task(ignore_result=True)
def scan_anomalies() -> None:
    """Judge every tenant's series up to this moment."""
    run = _Run(LONG_SECONDS)
    now = timezone.now()
    run.each(scans.tenants_to_scan, partial(scans.scan_tenant, now=now))
    run.report()


@shared_task(ignore_result=True)
def check_rules() -> None:
    """Judge every tenant's figures by the plain rules."""
    run = _Run(LONG_SECONDS)
    now = timezone.now()
    run.each(rule_checks.tenants_to_judge, partial(rule_checks.judge_rules, now=now))
    run.report()


@shared_task(ignore_result=True)
def forget_old_deliveries() -> None:
    """Drop deliveries that are older than they are kept."""
    delivery.forget_old_deliveries()


class _Run:
    """One run over the tenants, each in a transaction of its own. One tenant's error stops no
    other's work.

    Each of its steps has an equal share of the time, so that one with much to do keeps none of the
    others from its own.
    """

    def __init__(self, seconds: float, *, steps: int = 1) -> None:
        self._step_seconds = seconds / steps
        self._failure: Exception | None = None

    def each(self, find: Callable[[], list[int]], work: Callable[..., int]) -> int:
        """Do the work of each tenant that has some, in turn; the sum of what they answer."""
        return self._round(find, work, self._end_of_step())

    def repeat(self, find: Callable[[], list[int]], work: Callable[..., int]) -> int:
        """The same, again and again until nothing is left to do; the sum of all."""
        ends_at, done = self._end_of_step(), 0
        while found := self._round(find, work, ends_at):
            done += found
        return done

    def _end_of_step(self) -> float:
        return time.monotonic() + self._step_seconds

    def _round(
        self, find: Callable[[], list[int]], work: Callable[..., int], ends_at: float
    ) -> int:
        with platform_scope("find the tenants with work for alerts"):
            tenants = find()
        return sum(
            self._once(tenant_id, work) for tenant_id in tenants if time.monotonic() < ends_at
        )

    def _once(self, tenant_id: int, work: Callable[..., int]) -> int:
        try:
            with tenant_scope(tenant_id):
                return work(tenant_id=tenant_id)
        except Exception as error:
            log.exception("work for alerts failed", tenant_id=tenant_id)
            self._failure = self._failure or error
            return 0

    def report(self) -> None:
        """Let the task fail, for whoever counts outcomes, once everybody had a turn."""
        if self._failure is not None:
            raise self._failure


def _shuffled(find: Callable[[], list[int]]) -> Callable[[], list[int]]:
    """The same tenants in any order: where the time does not suffice for all, it is not always the
    same who have to wait.
    """

    def find_shuffled() -> list[int]:
        tenants = find()
        random.shuffle(tenants)
        return tenants

    return find_shuffled
