"""One run of a worker: several attempts at a time, each over another channel."""

import math
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from typing import Final

import structlog

from alerts.delivery.attempts import Outcome, attempt, record
from alerts.delivery.lanes import Claim, Lane, claim, lanes_due

log = structlog.get_logger(__name__)

# Attempts of one run at a time, each to another channel.
AT_ONCE: Final = 8
# So many of them may go to channels whose last attempt failed, since those may take their time.
FAILING_AT_ONCE: Final = 4
# So many go to receivers of one tenant, who may have many that take their time and still succeed;
# and one whose last attempt failed has to leave room for those of its tenant that work.
TENANT_AT_ONCE: Final = 4
TENANT_AT_ONCE_IF_FAILING: Final = 2
# While attempts are under way, newly due deliveries are looked for this often.
LOOK_SECONDS: Final = 0.5


def deliver_due(*, seconds: float) -> int:
    """Send what is due until nothing is, or the time is over; answers how many attempts were made.

    Several may run at once. What is under way when the time is over is still brought to its end.
    """
    ends_at = time.monotonic() + seconds
    attempts = 0
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="delivery") as pool:
        rota = _Rota()
        flights: dict[Future[Outcome], Claim] = {}
        try:
            while True:
                if time.monotonic() < ends_at:
                    for claimed in rota.claims(list(flights.values())):
                        flights[pool.submit(attempt, claimed.delivery)] = claimed
                if not flights:
                    return attempts
                landed, _ = wait(flights, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                for flight in landed:
                    _record(flights.pop(flight), flight.result())
                    attempts += 1
        finally:
            # Whatever ended the run, what was sent meanwhile is not to be sent again.
            for flight in as_completed(flights):
                _record(flights[flight], flight.result())


def _record(claimed: Claim, outcome: Outcome) -> None:
    try:
        record(claimed, outcome)
    except Exception:
        # The claim runs out and the message is sent again; others' outcomes are not lost with it.
        log.exception("outcome of a delivery not recorded", delivery=claimed.delivery.id)


class _Rota:
    """The lanes with something due, as they were half a second ago at most; each has its turn."""

    def __init__(self) -> None:
        self._lanes: deque[Lane] = deque()
        self._looked_at = -math.inf

    def claims(self, under_way: Sequence[Claim]) -> Iterator[Claim]:
        """Claims for the attempts that may begin beside those under way, each of another lane."""
        self._look(is_idle=not under_way)
        busy = {one.lane.key for one in under_way}
        tenants = Counter(one.lane.tenant_id for one in under_way)
        failing = sum(one.lane.is_failing for one in under_way)
        for _ in range(len(self._lanes)):
            if len(busy) == AT_ONCE:
                return
            lane = self._lanes.popleft()
            is_failing_too_often = lane.is_failing and failing == FAILING_AT_ONCE
            most = TENANT_AT_ONCE_IF_FAILING if lane.is_failing else TENANT_AT_ONCE
            is_tenant_served = tenants[lane.tenant_id] >= most
            if lane.key in busy or is_failing_too_often or is_tenant_served:
                self._lanes.append(lane)
            elif (claimed := claim(lane)) is not None:
                self._lanes.append(lane)
                busy.add(lane.key)
                tenants[lane.tenant_id] += 1
                failing += lane.is_failing
                yield claimed

    def _look(self, *, is_idle: bool) -> None:
        now = time.monotonic()
        if is_idle or now - self._looked_at >= LOOK_SECONDS:
            self._lanes = deque(lanes_due())
            self._looked_at = now
