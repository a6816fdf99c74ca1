"""Breakers as configuration: made, changed, removed, and closed by hand."""

from collections.abc import Mapping
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone

from metering.limits.breakers.feed import BreakerChange, record_changes, stop_acting
from metering.limits.breakers.rules import BreakerRule, Transition
from metering.limits.breakers.states import (
    group_values,
    lock_open_groups,
    remove_states,
    reset_states,
)
from metering.limits.halts import forget_halts_on_commit
from metering.models import Breaker
from tenants.audit import facts_of, record_change
from tenants.limits import require_room
from tenants.models import Tenant
from tenants.scope import change_configuration

PER_DEFAULT: Final = ("agent", "feature")
# The most calls that anything is measured by, and the longest cool-down.
CALLS_MAX: Final = 1_000_000
COOL_DOWN_SECONDS_MAX: Final = 7 * 24 * 3600
# At least one of them makes a breaker.
RULE_FIELDS: Final = ("cost_nanos_per_minute", "error_percent", "tokens_times")
# A change of one of these changes what it counts or does: what is open closes, and all begins anew.
COUNTING_FIELDS: Final = ("match", "per", "mode", "limit_percent")
# When a halt lets a probe through is remembered by processes with the halt.
PROBE_FIELDS: Final = ("close", "cool_down_seconds")


def read_breaker_rules(tenant_id: int) -> tuple[BreakerRule, ...]:
    """The tenant's breakers as they are stored."""
    breakers = Breaker.objects.filter(tenant_id=tenant_id).order_by("id")
    return tuple(BreakerRule.of(breaker) for breaker in breakers)


@transaction.atomic
def create_breaker(*, tenant: Tenant, actor: str, **fields: Any) -> Breaker:
    """Add a breaker, for each agent and feature unless `per` says otherwise. It counts from now."""
    change_configuration(tenant.id)
    require_room(tenant.id, "breakers", Breaker.objects.filter(tenant_id=tenant.id))
    breaker = Breaker.objects.create(tenant=tenant, **{"per": list(PER_DEFAULT), **fields})
    _record(breaker, actor=actor, action="create", after=facts_of(breaker))
    return breaker


@transaction.atomic
def update_breaker(*, breaker: Breaker, actor: str, changes: Mapping[str, Any]) -> Breaker:
    """Change a breaker. What it has open stays so, unless it would count or do something else."""
    change_configuration(breaker.tenant_id)
    stored = Breaker.objects.select_for_update().get(tenant_id=breaker.tenant_id, id=breaker.id)
    before = facts_of(stored)
    rule = BreakerRule.of(stored)
    for name, value in changes.items():
        setattr(stored, name, value)
    after = facts_of(stored)
    stored.save()
    _record(stored, actor=actor, action="update", before=before, after=after)
    if any(before[name] != after[name] for name in COUNTING_FIELDS):
        _close(stored, rule, actor=actor, why="the breaker was changed")
        with connection.cursor() as cursor:
            remove_states(cursor, stored.tenant_id, stored.id)
    elif any(before[name] != after[name] for name in PROBE_FIELDS):
        _renew_halts(stored)
    return stored


@transaction.atomic
def delete_breaker(*, breaker: Breaker, actor: str) -> None:
    """Remove a breaker, and lift what it has open."""
    change_configuration(breaker.tenant_id)
    for stored in Breaker.objects.filter(tenant_id=breaker.tenant_id, id=breaker.id):
        rule = BreakerRule.of(stored)
        _close(stored, rule, actor=actor, why="the breaker was removed")
        with connection.cursor() as cursor:
            remove_states(cursor, stored.tenant_id, stored.id)
        _record(stored, actor=actor, action="delete", before=facts_of(stored))
        stored.delete()


@transaction.atomic
def close_breaker(*, breaker: Breaker, actor: str, group_key: str | None = None) -> list[str]:
    """Close a breaker by hand, for one group or for all: lift what it made, and count from an empty
    minute. Answers the groups that were open.

    Takes no configuration lock: usage goes on meanwhile, and who is at a group's state is waited
    for.
    """
    rule = BreakerRule.of(breaker)
    return _close(breaker, rule, actor=actor, why=f"closed by {actor}", group_key=group_key)


def _close(
    breaker: Breaker, rule: BreakerRule, *, actor: str, why: str, group_key: str | None = None
) -> list[str]:
    tenant_id, now = breaker.tenant_id, timezone.now()
    with connection.cursor() as cursor:
        groups = lock_open_groups(cursor, tenant_id, breaker.id, group_key=group_key)
        changes = [
            BreakerChange(rule, one.group_key, Transition.CLOSED, now, why, one.halt_id)
            for one in groups
        ]
        for change in changes:
            stop_acting(cursor, tenant_id, change, actor=actor)
        group_keys = [change.group_key for change in changes]
        reset_states(cursor, tenant_id, breaker.id, group_keys)
        record_changes(cursor, tenant_id, changes)
    if group_keys:
        closed = [group_values(rule.grouping, one) for one in group_keys]
        _record(breaker, actor=actor, action="close", after={"groups": closed})
    return group_keys


def _renew_halts(breaker: Breaker) -> None:
    """Let every process read the breaker's halts again."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE halt SET version = nextval('halt_version')"
            " WHERE tenant_id = %s AND breaker_id = %s AND lifted_at IS NULL",
            [breaker.tenant_id, breaker.id],
        )
    forget_halts_on_commit(breaker.tenant_id)


def _record(
    breaker: Breaker,
    *,
    actor: str,
    action: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    record_change(
        tenant_id=breaker.tenant_id,
        actor=actor,
        action=action,
        subject=breaker,
        before=before,
        after=after,
    )
