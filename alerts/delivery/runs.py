"""One run of a worker: several attempts at a time, each over another channel."""

import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from typing import Final

import structlog

from alerts.delivery.attempts import Outcome, attempt, record
from alerts.delivery.queues import Claim, DeliveryQueue, claim, queues_due

log = structlog.get_logger(__name__)

# Attempts of one run at a time, each to another channel.
CONCURRENT_MAX: Final = 8
# This many of them may go to channels whose last attempt failed, since those may be slow.
FAILING_MAX: Final = 4
# This many go to receivers of one tenant, who may have many that are slow and still succeed; those
# whose last attempt failed have to leave room for those of their tenant that work.
TENANT_MAX: Final = 4
TENANT_MAX_IF_FAILING: Final = 2
# While attempts are in flight, newly due deliveries are looked for this often.
LOOK_SECONDS: Final = 0.5


def deliver_due(*, seconds: float) -> int:
    """Send what is due until nothing is, or the time is over; return the number of attempts.

    Several workers may run. Attempts in flight when the time is over are still completed.
    """
    ends_at = time.monotonic() + seconds
    attempts = 0
    with ThreadPoolExecutor(CONCURRENT_MAX, thread_name_prefix="delivery") as pool:
        scheduler = _Scheduler()
        in_flight: dict[Future[Outcome], Claim] = {}
        try:
            while True:
                if time.monotonic() < ends_at:
                    for claimed in scheduler.claims(list(in_flight.values())):
                        in_flight[pool.submit(attempt, claimed.delivery)] = claimed
                if not in_flight:
                    return attempts
                done, _ = wait(in_flight, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    _record(in_flight.pop(future), future.result())
                    attempts += 1
        finally:
            # Whatever ended the run, what was sent meanwhile is not to be sent again.
            for future in as_completed(in_flight):
                _record(in_flight[future], future.result())


def _record(claimed: Claim, outcome: Outcome) -> None:
    try:
        record(claimed, outcome)
    except Exception:
        # The claim runs out and the message is sent again; others' outcomes are not lost with it.
        log.exception("outcome of a delivery not recorded", delivery=claimed.delivery.id)


class _Scheduler:
    """The queues with something due, at most half a second ago; each has its turn."""

    def __init__(self) -> None:
        self._queues: deque[DeliveryQueue] = deque()
        self._looked_at = -math.inf

    def claims(self, in_flight: Sequence[Claim]) -> Iterator[Claim]:
        """Claim deliveries for the attempts that may begin beside those in flight, each of another
        queue.
        """
        self._look(is_idle=not in_flight)
        busy = {claimed.queue.key for claimed in in_flight}
        tenants = Counter(claimed.queue.tenant_id for claimed in in_flight)
        failing = sum(claimed.queue.is_failing for claimed in in_flight)
        for _ in range(len(self._queues)):
            if len(busy) == CONCURRENT_MAX:
                return
            queue = self._queues.popleft()
            is_failing_too_often = queue.is_failing and failing == FAILING_MAX
            most = TENANT_MAX_IF_FAILING if queue.is_failing else TENANT_MAX
            is_tenant_served = tenants[queue.tenant_id] >= most
            if queue.key in busy or is_failing_too_often or is_tenant_served:
                self._queues.append(queue)
            elif (claimed := claim(queue)) is not None:
                self._queues.append(queue)
                busy.add(queue.key)
                tenants[queue.tenant_id] += 1
                failing += queue.is_failing
                yield claimed

    def _look(self, *, is_idle: bool) -> None:
        now = time.monotonic()
        if is_idle or now - self._looked_at >= LOOK_SECONDS:
            self._queues = deque(queues_due())
            self._looked_at = now
