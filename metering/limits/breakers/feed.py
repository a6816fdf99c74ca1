"""Reported calls, held against the tenant's breakers: what opens, and what closes.

Runs within the transaction that stores the calls, before it locks paces and windows.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final, NamedTuple
from uuid import UUID

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from metering.core.amounts import Amounts
from metering.core.match import POSITION, Values
from metering.limits.breakers.rules import BreakerRule, Call, Transition
from metering.limits.breakers.states import (
    LockedState,
    StateKey,
    group_values,
    lock_states,
    match_of,
    write_states,
)
from metering.limits.decisions import DecisionRow, insert_decisions
from metering.limits.halts import forget_halts_on_commit, halts_changed, insert_halt
from metering.limits.limit_reductions import (
    CAUSE_CHARACTERS_MAX,
    end_limit_reduction,
    open_limit_reduction,
)
from metering.models import HaltKind

STATUS: Final = POSITION["status"]
# Calls count when they become known, since that is when they can be stopped. What is reported
# later than this after it happened is history (an import, say), not an agent that runs away.
HISTORY_AFTER: Final = timedelta(hours=1)


class ReportedCall(NamedTuple):
    """A call as it was reported: its values in the order of MATCHABLE, when it happened, what it
    used, and the id of the reservation that it settles, if any.
    """

    values: Values
    at: datetime
    amounts: Amounts
    reservation: str | None


class BreakerChange(NamedTuple):
    """What a breaker did for one of its groups."""

    rule: BreakerRule
    group_key: str
    transition: Transition
    at: datetime
    why: str
    # The halt that it made or lifted, where it did.
    halt_id: int | None


def feed_breakers(
    *,
    tenant_id: int,
    rules: Sequence[BreakerRule],
    calls: Iterable[ReportedCall],
    now: datetime | None = None,
) -> list[BreakerChange]:
    """Count calls that were new, in the breakers that match them; open and close what that asks
    for, with a decision for each. No statement is sent where no breaker matches.

    Locks states in the order of their keys.
    """
    if not rules:
        return []
    at = now or timezone.now()
    oldest = at - HISTORY_AFTER
    fed = [
        (rule, StateKey(rule.id, group_key), call)
        for call in calls
        if call.at >= oldest
        for rule in rules
        if (group_key := rule.group(call.values)) is not None
    ]
    if not fed:
        return []
    with connection.cursor() as cursor:
        states = lock_states(cursor, tenant_id, {key for _, key, _ in fed})
        changes = []
        for rule, key, call in fed:
            state = states[key]
            if (transition := _feed_one(rule, state, call, at=at)) is not None:
                change = BreakerChange(
                    rule, key.group_key, transition, at, state.group.why, state.halt_id
                )
                changes.append(_act(cursor, tenant_id, state, change))
        write_states(cursor, tenant_id, states.values())
        record_changes(cursor, tenant_id, changes)
    return changes


def _feed_one(
    rule: BreakerRule, state: LockedState, reported: ReportedCall, *, at: datetime
) -> Transition | None:
    amounts, is_error = reported.amounts, reported.values[STATUS] == "error"
    call = Call(at, amounts.cost_nanos, amounts.tokens, is_error)
    return state.group.feed(rule, call, is_probe=_is_probe(state, reported))


def _is_probe(state: LockedState, reported: ReportedCall) -> bool:
    """Whether the call is the one that was let through, by the reservation that it settles."""
    probe_id, named = state.group.probe_id, reported.reservation
    return probe_id is not None and named is not None and UUID(named) == probe_id


def _act(
    cursor: CursorWrapper, tenant_id: int, state: LockedState, change: BreakerChange
) -> BreakerChange:
    """Do what the change asks for; return it with the halt that it is about."""
    if change.transition is Transition.CLOSED:
        stop_acting(cursor, tenant_id, change, actor=_actor(change.rule))
        state.halt_id = None
        return change
    if change.rule.halts and state.halt_id is None:
        state.halt_id = _halt(cursor, tenant_id, change)
    elif change.rule.tightens:
        assert change.rule.limit_percent is not None
        open_limit_reduction(
            tenant_id=tenant_id,
            match=match_of(change.rule.grouping, change.group_key),
            limit_percent=change.rule.limit_percent,
            reason=_reason(change),
            cause=cause_of(change.rule.id, change.group_key),
        )
    return change._replace(halt_id=state.halt_id)


def _halt(cursor: CursorWrapper, tenant_id: int, change: BreakerChange) -> int:
    halt_id = insert_halt(
        cursor,
        tenant_id=tenant_id,
        match=match_of(change.rule.grouping, change.group_key),
        reason=_reason(change),
        kind=HaltKind.BREAKER,
        actor=_actor(change.rule),
        breaker_id=change.rule.id,
        group_key=change.group_key,
    )
    assert halt_id is not None, "a group has a halt in force only while its state names it"
    transaction.on_commit(halts_changed.set)
    return halt_id


def stop_acting(
    cursor: CursorWrapper, tenant_id: int, change: BreakerChange, *, actor: str
) -> None:
    """Lift the halt or end the limit reduction that an open breaker made."""
    if change.halt_id is not None:
        cursor.execute(
            "UPDATE halt SET lifted_at = now(), lifted_by = %s, version = nextval('halt_version')"
            " WHERE tenant_id = %s AND id = %s AND lifted_at IS NULL",
            [actor[:300], tenant_id, change.halt_id],
        )
        forget_halts_on_commit(tenant_id)
    if change.rule.limit_percent is not None:
        cause = cause_of(change.rule.id, change.group_key)
        end_limit_reduction(tenant_id=tenant_id, cause=cause)


def record_changes(cursor: CursorWrapper, tenant_id: int, changes: Sequence[BreakerChange]) -> None:
    """Record what breakers did as decisions, with the reasons."""
    insert_decisions(
        cursor,
        tenant_id,
        [
            DecisionRow(
                decided_at=change.at,
                decision=change.transition.value,
                code="breaker_open" if change.transition is Transition.OPENED else "breaker_closed",
                dimensions=_dimensions(change),
                reasons=[_reason_facts(change)],
            )
            for change in changes
        ],
    )


def _dimensions(change: BreakerChange) -> dict[str, str]:
    """The dimensions that have one value for the whole group."""
    match = match_of(change.rule.grouping, change.group_key)
    return {name: value for name, value in match.items() if isinstance(value, str)}


def _reason_facts(change: BreakerChange) -> dict[str, object]:
    return {
        "breaker": change.rule.id,
        "name": change.rule.name,
        "group": group_values(change.rule.grouping, change.group_key),
        "mode": change.rule.mode,
        "action": "halt" if change.rule.halts else "tighten" if change.rule.tightens else "none",
        "halt": change.halt_id,
        "detail": change.why,
    }


def _reason(change: BreakerChange) -> str:
    return f"The breaker {change.rule.name!r} opened: {change.why}."


def _actor(rule: BreakerRule) -> str:
    return f"breaker {rule.name}"


def cause_of(breaker_id: int, group_key: str) -> str:
    """What a limit reduction by a breaker is known by. A long group's key is hashed."""
    cause = f"breaker:{breaker_id}:{group_key}"
    if len(cause) <= CAUSE_CHARACTERS_MAX:
        return cause
    digest = blake2b(group_key.encode(), digest_size=16).hexdigest()
    return f"breaker:{breaker_id}:{digest}"
