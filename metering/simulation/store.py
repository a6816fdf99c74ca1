"""Simulations as rows: short periods are replayed immediately, the others wait for a worker.

The rows are the queue. A worker that claims one has a lease: a worker that died loses it, and
another takes the row up again; both would answer the same.
"""

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec
import structlog
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from common.errors import Conflict, MeteringError
from common.queries import fetch_rows
from metering.core.event_stretches import are_few_events
from metering.models import Simulation, SimulationStatus
from metering.simulation.earlier import first_counted, require_kept
from metering.simulation.proposals import Proposal
from metering.simulation.running import Replayed, TooManyCalls, simulate, time_limit
from tenants.models import Tenant
from tenants.scope import platform_scope, tenant_scope

log = structlog.get_logger(__name__)

# Of one tenant: simulations are replayed one at a time, and those of others wait behind them.
WAITING_MAX: Final = 20
# A replay ends after this time, which is less than a worker's task may take.
REPLAY_SECONDS: Final = 200.0
# Longer than a worker's task may take, so that no two workers replay the same row.
LEASE: Final = timedelta(minutes=6)
# A worker that dies in a replay is followed by another, but not indefinitely: the replay itself may
# be what kills them.
GIVE_UP_AFTER: Final = timedelta(hours=1)


class TooManyWaiting(Conflict):
    """Too many simulations of the tenant are waiting already."""

    code = "too_many_simulations"


class Claim(NamedTuple):
    """A waiting simulation that this worker has taken, and until when it is its own."""

    id: int
    tenant_id: int
    until: datetime


def create_simulation(
    *,
    tenant: Tenant,
    actor: str,
    sent: Mapping[str, object],
    proposal: Proposal,
    period: tuple[datetime, datetime],
) -> Simulation:
    """Replay a proposal immediately if the period is short, else leave it to a worker.

    `sent` is kept as the proposal was worded. Raises TooManyWaiting, and InvalidQuestion if calls
    that it needs are no longer kept.
    """
    starts_at, ends_at = period
    require_kept(tenant_id=tenant.id, proposal=proposal, starts_at=starts_at)
    simulation = Simulation(
        tenant=tenant,
        actor=actor[:300],
        proposal={"asked": sent, "rules": proposal.to_json()},
        from_at=starts_at,
        to_at=ends_at,
    )
    reads_from = first_counted(proposal, starts_at, keeps_carried=True)
    if not are_few_events(tenant_id=tenant.id, from_=reads_from, to=ends_at):
        unfinished = (SimulationStatus.WAITING, SimulationStatus.RUNNING)
        waiting = Simulation.objects.filter(tenant=tenant, status__in=unfinished).count()
        if waiting >= WAITING_MAX:
            raise TooManyWaiting(
                f"{waiting} simulations wait already. Try again when some are done."
            )
    else:
        outcome = simulate(
            tenant_id=tenant.id, proposal=proposal, period=Replayed(starts_at, ends_at)
        )
        simulation.result = msgspec.to_builtins(outcome)
        simulation.status = SimulationStatus.DONE
        simulation.finished_at = timezone.now()
    simulation.save()
    return simulation


def work_off(*, seconds: float) -> int:
    """Replay waiting simulations until there are none or the time is over; return their number."""
    ends_at = time.monotonic() + seconds
    count = 0
    while time.monotonic() < ends_at and (claim := claim_next()) is not None:
        _finish(claim, **_replay(claim))
        count += 1
    return count


def claim_next() -> Claim | None:
    """Take the oldest simulation that waits; None where none does, or one is being replayed.

    One at a time in the whole service: they must not take the workers from what is urgent.
    """
    now = timezone.now()
    with platform_scope("simulations that wait"):
        _give_up(now)
        rows = fetch_rows(
            "UPDATE simulation SET status = 'running', claimed_until = %s WHERE id = ("
            " SELECT id FROM simulation WHERE status = 'waiting'"
            " OR (status = 'running' AND claimed_until <= %s)"
            " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)"
            " AND NOT EXISTS (SELECT FROM simulation WHERE status = 'running'"
            " AND claimed_until > %s) RETURNING id, tenant_id, claimed_until",
            [now + LEASE, now, now],
        )
    return Claim(*rows[0]) if rows else None


def _give_up(now: datetime) -> None:
    abandoned = Simulation.objects.filter(
        status=SimulationStatus.RUNNING,
        claimed_until__lte=now,
        created_at__lt=now - GIVE_UP_AFTER,
    )
    abandoned.update(
        status=SimulationStatus.FAILED,
        detail="It was begun and did not end. Try a shorter period.",
        finished_at=now,
    )


def _replay(claim: Claim) -> Mapping[str, object]:
    """Return the columns that say how a claimed simulation ended."""
    try:
        with tenant_scope(claim.tenant_id):
            simulation = Simulation.objects.get(tenant_id=claim.tenant_id, id=claim.id)
            proposal = Proposal.from_json(simulation.proposal["rules"])
        outcome = simulate(
            tenant_id=claim.tenant_id,
            proposal=proposal,
            period=Replayed(simulation.from_at, simulation.to_at, time_limit(REPLAY_SECONDS)),
        )
    except (OperationalError, InterfaceError):
        # Nothing is wrong with the proposal: the lease runs out, and it is tried again.
        raise
    except TooManyCalls:
        detail = (
            f"The period holds more calls than are replayed in {REPLAY_SECONDS:.0f} s."
            " Choose a shorter one."
        )
        return {"status": SimulationStatus.FAILED, "detail": detail}
    except MeteringError as error:
        # What it needs was sealed while it waited.
        return {"status": SimulationStatus.FAILED, "detail": error.detail}
    except Exception:
        log.exception("simulation failed", simulation=claim.id, tenant=claim.tenant_id)
        detail = "Something went wrong on our side; the error was logged."
        return {"status": SimulationStatus.FAILED, "detail": detail}
    return {"status": SimulationStatus.DONE, "result": msgspec.to_builtins(outcome)}


def _finish(claim: Claim, **columns: object) -> None:
    """Store how it ended, unless the lease ran out and another worker has it."""
    with tenant_scope(claim.tenant_id):
        Simulation.objects.filter(
            tenant_id=claim.tenant_id,
            id=claim.id,
            status=SimulationStatus.RUNNING,
            claimed_until=claim.until,
        ).update(**columns, claimed_until=None, finished_at=timezone.now())
