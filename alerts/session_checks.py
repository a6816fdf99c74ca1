"""Check the sessions that had new calls, open incidents for loops, and halt them if configured.

Batches are marked once their sessions were checked: nothing is skipped, whatever the order in which
batches commit, and a killed worker's batches are checked again, which changes nothing. Two workers
may check the same batches. Sessions are judged some at a time, each time in a transaction that
reads, and one that writes if there is a loop: none takes long.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final, TypeGuard

from django.db import connection, transaction

from alerts.incidents import RANK, Observation, end, observe
from alerts.loops import (
    CALLS_MAX,
    OUTPUT_TOKENS_MIN,
    Call,
    Finding,
    SessionVerdict,
    Strength,
    judge,
    may_loop,
)
from alerts.models import SERVICE, EntryKind, Incident, IncidentKind, Severity
from alerts.settings import settings_of
from common.money import NANOS_PER_USD, money
from metering.limits.halts import halts_changed, insert_halt
from metering.models import HaltKind, IngestBatch, Operation, Status
from metering.reporting.session_calls import (
    SessionCall,
    latest_calls,
    likenesses,
    session_costs,
    sessions_of_batches,
)
from tenants.runs import tenants_of
from tenants.scope import tenant_scope

# What one run checks, at most (a single batch may have more events); the next run continues.
BATCHES_MAX: Final = 1_000
EVENTS_MAX: Final = 20_000
# A transaction reads and writes this many sessions.
SESSIONS_PER_TRANSACTION: Final = 100
# What is older is history that was sent later, and wakes no one.
RECENT: Final = timedelta(days=1)
# A session whose latest call is older has nothing left to be stopped.
HALTABLE: Final = timedelta(hours=1)
# How much further back a session's calls are read: 40 of them may be an hour apart.
LOOK_BACK: Final = timedelta(hours=24)
# A loop without a call for so long is over, or for twice as long as it pauses between calls.
RESTS_AFTER: Final = timedelta(minutes=30)
# A loop is worth waking someone from here on: wasted already, or within an hour at this rate.
CRITICAL_WASTE_NANOS: Final = 5 * NANOS_PER_USD
CRITICAL_HOURLY_NANOS: Final = 20 * NANOS_PER_USD
# One transaction ends this many loops.
ENDED_MAX: Final = 100
# The pause of a loop is judged by this many of its latest calls.
PAUSE_CALLS: Final = 10
WAITING: Final = """
    SELECT id, last_at FROM (
        SELECT id, last_at, sum(event_count) OVER (ORDER BY id) - event_count AS events_before
        FROM (
            SELECT id, event_count, last_at FROM ingest_batch
            WHERE tenant_id = %s AND sessions_checked_at IS NULL ORDER BY id LIMIT %s
        ) oldest
    ) waiting WHERE events_before < %s ORDER BY id
"""
OPERATIONS: Final[Mapping[int, object]] = dict(Operation.choices)
STATUSES: Final[Mapping[int, object]] = dict(Status.choices)
# Values that all of a session's calls share tell whom it concerns.
SHARED: Final = ("team", "customer", "user", "feature", "agent")


def tenants_to_check() -> list[int]:
    """Return tenants with batches whose sessions were not checked. Needs a platform scope."""
    return tenants_of(IngestBatch.objects.filter(sessions_checked_at=None))


def check_sessions(*, tenant_id: int, now: datetime) -> int:
    """Check the sessions of waiting batches; return the number of batches. Zero: none wait."""
    with tenant_scope(tenant_id):
        batches = _waiting(tenant_id)
        fresh = [id_ for id_, last_at in batches.items() if last_at and last_at >= now - RECENT]
        sessions = sorted(
            sessions_of_batches(tenant_id=tenant_id, batch_ids=fresh, since=now - RECENT)
        )
    for start in range(0, len(sessions), SESSIONS_PER_TRANSACTION):
        _check(tenant_id, sessions[start : start + SESSIONS_PER_TRANSACTION], now)
    if batches:
        with tenant_scope(tenant_id):
            waiting = IngestBatch.objects.filter(tenant_id=tenant_id, sessions_checked_at=None)
            waiting.filter(id__in=list(batches)).update(sessions_checked_at=now)
    return len(batches)


def _waiting(tenant_id: int) -> dict[int, datetime | None]:
    """Return the oldest batches whose sessions were not checked, with their newest event."""
    with connection.cursor() as cursor:
        cursor.execute(WAITING, [tenant_id, BATCHES_MAX, EVENTS_MAX])
        return dict(cursor.fetchall())


def tenants_with_loops() -> list[int]:
    """Return tenants with a loop that is not resolved. Needs a platform scope."""
    return tenants_of(Incident.objects.filter(kind=IncidentKind.LOOP, resolved_at=None))


@transaction.atomic
def end_loops(*, tenant_id: int, now: datetime) -> int:
    """Resolve the loops that have come to rest. Return their number; the next run continues."""
    resting = Incident.objects.filter(
        tenant_id=tenant_id,
        kind=IncidentKind.LOOP,
        resolved_at=None,
        seen_at__lt=now - RESTS_AFTER,
    ).order_by("cause")
    causes = [
        incident.cause
        for incident in resting.only("cause", "facts", "seen_at")
        if incident.seen_at < now - 2 * timedelta(seconds=incident.facts.get("pause_seconds", 0))
    ][:ENDED_MAX]
    for cause in causes:
        end(tenant_id=tenant_id, cause=cause, summary="No further call.")
    return len(causes)


def _check(tenant_id: int, sessions: Sequence[str], now: datetime) -> None:
    """Judge some sessions, and write incidents of their loops."""
    with tenant_scope(tenant_id):
        since = now - RECENT - LOOK_BACK
        # Most sessions repeat nothing: it takes a count to see that, and reading their calls is
        # what would take time.
        alike = likenesses(
            tenant_id=tenant_id,
            sessions=sessions,
            since=since,
            limit=CALLS_MAX,
            output_tokens_min=OUTPUT_TOKENS_MIN,
        )
        calls_by_session = latest_calls(
            tenant_id=tenant_id,
            sessions=[session for session, likeness in alike.items() if may_loop(*likeness)],
            since=since,
            limit=CALLS_MAX,
        )
        verdicts = {
            session: verdict
            for session, calls in calls_by_session.items()
            if (verdict := judge([_call(call) for call in calls])) is not None and verdict.is_loop
        }
        costs = session_costs(tenant_id=tenant_id, sessions=verdicts) if verdicts else {}
    if not verdicts:
        return
    with tenant_scope(tenant_id):
        # In their order, as `end_loops`: else two could wait for each other's incidents.
        for session, verdict in sorted(verdicts.items()):
            calls = calls_by_session[session]
            observation = observation_of(session, calls, verdict, costs[session])
            incident = _observe(tenant_id, observation, verdict)
            if calls[-1].time >= now - HALTABLE and _should_halt(incident):
                _halt(incident, observation)


def _call(stored: SessionCall) -> Call:
    values = stored._asdict() | {
        "at": stored.time.timestamp(),
        "operation": OPERATIONS[stored.operation],
        "status": STATUSES[stored.status],
    }
    return Call(**{name: values[name] for name in Call._fields})


def _observe(tenant_id: int, observation: Observation, verdict: SessionVerdict) -> Incident | None:
    """Open or update the incident of an ongoing loop; end that of one that has stopped.

    A loop that was over before anyone could look gets an incident too, but pages no one.
    """
    if verdict.is_ongoing:
        return observe(tenant_id=tenant_id, observation=observation)
    if not Incident.objects.filter(tenant_id=tenant_id, cause=observation.cause).exists():
        severity = min(observation.severity, Severity.WARNING, key=RANK.__getitem__)
        observe(tenant_id=tenant_id, observation=observation._replace(severity=severity))
    summary = f"{observation.summary} It got out by itself."
    end(tenant_id=tenant_id, cause=observation.cause, summary=summary)
    return None


def _should_halt(incident: Incident | None) -> TypeGuard[Incident]:
    """Whether to halt, once an incident if the tenant wants it: a lifted halt stays lifted."""
    if incident is None or incident.resolved_at is not None:
        return False
    if not settings_of(incident.tenant_id).halts_loops:
        return False
    return not incident.entries.filter(kind=EntryKind.HALTED).exists()


def _halt(incident: Incident, observation: Observation) -> None:
    with connection.cursor() as cursor:
        insert_halt(
            cursor,
            tenant_id=incident.tenant_id,
            match={"session": observation.match["session"]},
            reason=f"{observation.title}. {observation.summary}",
            kind=HaltKind.BREAKER,
            actor=SERVICE,
        )
    text = "The session was halted: its new calls are refused until someone lifts the halt."
    incident.add_entry(EntryKind.HALTED, SERVICE, text)
    transaction.on_commit(halts_changed.set)


def observation_of(
    session: str, calls: Sequence[SessionCall], verdict: SessionVerdict, cost_nanos: int
) -> Observation:
    """Return what is observed of a session's loop. `cost_nanos` is the cost of the session."""
    loops = [finding for finding in verdict.findings if finding.strength == Strength.LOOP]
    main = max(loops, key=lambda loop: loop.last)
    hourly_nanos = verdict.projected_nanos_per_hour
    return Observation(
        kind=IncidentKind.LOOP,
        cause=f"loop:{session}",
        severity=_severity(verdict),
        title=f"Session {session!r} is in a loop",
        summary=_summary(main, verdict, cost_nanos),
        match={"session": session, **_shared(calls)},
        facts={
            "session": session,
            "findings": [
                {
                    "kind": finding.kind,
                    "strength": finding.strength,
                    "calls": finding.calls,
                    "words": finding.words,
                    "cost_nanos": finding.cost_nanos,
                    "began_at": _timestamp(finding.began_at),
                    "found_at": _timestamp(finding.found_at),
                }
                for finding in verdict.findings
            ],
            "began_at": _timestamp(min(loop.began_at for loop in loops)),
            "cost_nanos": cost_nanos,
            "wasted_nanos": verdict.wasted_nanos,
            "call_cost_nanos": verdict.nanos_per_call,
            "projected_per_hour_nanos": hourly_nanos,
            "last_call_at": calls[-1].time.isoformat(),
            "pause_seconds": _longest_pause(calls[-PAUSE_CALLS:]).total_seconds(),
        },
        excess_nanos=verdict.wasted_nanos,
    )


def _summary(main: Finding, verdict: SessionVerdict, cost_nanos: int) -> str:
    parts = [
        main.words,
        f"It has cost {money(cost_nanos)} so far, {money(verdict.wasted_nanos)} of it since the"
        " first repeat.",
    ]
    if verdict.projected_nanos_per_hour is not None:
        parts.append(f"At this rate another hour costs {money(verdict.projected_nanos_per_hour)}.")
    return " ".join(parts)


def _severity(verdict: SessionVerdict) -> Severity:
    is_costly = verdict.wasted_nanos >= CRITICAL_WASTE_NANOS
    is_fast = (verdict.projected_nanos_per_hour or 0) >= CRITICAL_HOURLY_NANOS
    return Severity.CRITICAL if is_costly or is_fast else Severity.WARNING


def _shared(calls: Sequence[SessionCall]) -> dict[str, str]:
    """Return the dimensions in which all of the calls have the same value."""
    first = {name: getattr(calls[0], name) for name in SHARED}
    return {
        name: value
        for name, value in first.items()
        if value and all(getattr(call, name) == value for call in calls)
    }


def _longest_pause(calls: Sequence[SessionCall]) -> timedelta:
    """Return the longest time between two calls in a row."""
    pauses = (later.time - earlier.time for earlier, later in pairwise(calls))
    return max(pauses, default=timedelta())


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
