"""One run of a worker: several attempts at a time, each over another channel."""

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final

import structlog

from alerts.delivery.attempts import Outcome, attempt, record
from alerts.delivery.lanes import Claim, claim, lanes_due

log = structlog.get_logger(__name__)

# Attempts of one run at a time, each to another channel.
AT_ONCE: Final = 8
# So many of them may go to channels whose last attempt failed, since those may take their time.
FAILING_AT_ONCE: Final = 4
# While attempts are under way, newly due deliveries are looked for this often.
LOOK_SECONDS: Final = 0.5


def deliver_due(*, seconds: float) -> int:
    """Send what is due until nothing is, or the time is over; answers how many attempts were made.

    Several may run at once. What is under way when the time is over is still brought to its end.
    """
    ends_at = time.monotonic() + seconds
    attempts = 0
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="delivery") as pool:
        flights: dict[Future[Outcome], Claim] = {}
        while True:
            if time.monotonic() < ends_at:
                for claimed in _claim_free(list(flights.values())):
                    flights[pool.submit(attempt, claimed.delivery)] = claimed
            if not flights:
                return attempts
            landed, _ = wait(flights, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for flight in landed:
                _record(flights.pop(flight), flight.result())
                attempts += 1


def _record(claimed: Claim, outcome: Outcome) -> None:
    try:
        record(claimed, outcome)
    except Exception:
        # The claim runs out and the message is sent again; others' outcomes are not lost with it.
        log.exception("outcome of a delivery not recorded", delivery=claimed.delivery.id)


def _claim_free(claims: list[Claim]) -> Iterator[Claim]:
    """Claims for the attempts that may still begin, each of another lane."""
    if len(claims) >= AT_ONCE:
        return
    taken = {(one.lane.tenant_id, one.lane.channel_id) for one in claims}
    failing = sum(one.lane.is_failing for one in claims)
    free = AT_ONCE - len(claims)
    for lane in lanes_due():
        if free == 0:
            return
        if (lane.tenant_id, lane.channel_id) in taken:
            continue
        if lane.is_failing and failing >= FAILING_AT_ONCE:
            continue
        if (claimed := claim(lane)) is not None:
            free -= 1
            failing += lane.is_failing
            yield claimed
