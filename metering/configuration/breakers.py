"""Breakers as configuration: created, changed, removed, and closed manually."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone

from common.money import USD_NANOS_MAX
from metering.core.match import KNOWN_BEFORE_CALL, PER_MAX
from metering.core.validation import (
    Problem,
    amount_problems,
    askable_match_problems,
    per_problems,
    require_row,
)
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
from tenants.audit import audited_change, create_audited, delete_audited, lock_stored, record_change
from tenants.kinds import Kind
from tenants.limits import require_room
from tenants.models import Tenant
from tenants.scope import change_configuration

PER_DEFAULT: Final = ("agent", "feature")
# The most calls that anything is measured by, and the longest cool-down.
CALLS_MAX: Final = 1_000_000
LIMIT_PERCENT_MAX: Final = 99
COOL_DOWN_SECONDS_MAX: Final = 7 * 24 * 3600
# At least one of them makes a breaker.
RULE_FIELDS: Final = ("cost_nanos_per_minute", "error_percent", "tokens_times")
# A change of one of these changes what it counts or does: what is open closes, and counting begins
# again.
COUNTING_FIELDS: Final = ("match", "per", "mode", "limit_percent")
# When a halt lets a probe through is remembered by processes with the halt.
PROBE_FIELDS: Final = ("close", "cool_down_seconds")


def validate_breaker(breaker: Breaker) -> None:
    """Raise ValidationError with an error for each field that is wrong."""
    require_row(breaker, _problems(breaker))


def _problems(breaker: Breaker) -> Iterator[Problem]:
    yield from askable_match_problems(breaker.match)
    yield from per_problems(breaker.per, KNOWN_BEFORE_CALL, most=PER_MAX)
    if all(getattr(breaker, name) is None for name in RULE_FIELDS):
        yield Problem(
            RULE_FIELDS[0],
            ("Give what opens it: a cost per minute, a share of errors, or a size of calls."),
            "missing_rule",
        )
    yield from amount_problems(
        breaker,
        cost_nanos_per_minute=(1, USD_NANOS_MAX),
        error_percent=(1, 100),
        error_min_calls=(1, CALLS_MAX),
        tokens_times=(2, CALLS_MAX),
        usual_min_calls=(1, CALLS_MAX),
        limit_percent=(1, LIMIT_PERCENT_MAX),
        cool_down_seconds=(1, COOL_DOWN_SECONDS_MAX),
    )


@transaction.atomic
def create_breaker(*, tenant: Tenant, actor: str, **fields: Any) -> Breaker:
    """Add a breaker, for each agent and feature unless `per` says otherwise. It counts from now.
    Raises ValidationError.
    """
    breaker = Breaker(tenant=tenant, **{"per": list(PER_DEFAULT), **fields})
    validate_breaker(breaker)
    change_configuration(tenant.id)
    require_room(tenant.id, "breakers", Breaker.objects.filter(tenant_id=tenant.id))
    return create_audited(breaker, actor=actor)


@transaction.atomic
def update_breaker(breaker: Breaker, *, actor: str, changes: Mapping[str, object]) -> Breaker:
    """Change a breaker. What it has open stays so, unless it would count or do something else.
    Raises ValidationError.
    """
    change_configuration(breaker.tenant_id)
    rule = BreakerRule.of(lock_stored(breaker))
    with audited_change(breaker, actor=actor, changes=changes) as change:
        validate_breaker(change.row)
    if change.concerns(COUNTING_FIELDS):
        _close(change.row, rule, actor=actor, why="the breaker was changed")
        with connection.cursor() as cursor:
            remove_states(cursor, breaker.tenant_id, breaker.id)
    elif change.concerns(PROBE_FIELDS):
        _renew_halts(change.row)
    return change.row


@transaction.atomic
def delete_breaker(breaker: Breaker, *, actor: str) -> None:
    """Remove a breaker, and lift what it has open."""
    change_configuration(breaker.tenant_id)
    for stored in Breaker.objects.filter(tenant_id=breaker.tenant_id, id=breaker.id):
        _close(stored, BreakerRule.of(stored), actor=actor, why="the breaker was removed")
        with connection.cursor() as cursor:
            remove_states(cursor, stored.tenant_id, stored.id)
    delete_audited(breaker, actor=actor)


@transaction.atomic
def close_breaker(*, breaker: Breaker, actor: str, group_key: str | None = None) -> list[str]:
    """Close a breaker manually, for one group or for all: lift what it made, and count from an
    empty minute. Return the groups that were open.

    Takes no configuration lock: usage continues meanwhile, and this waits for any transaction that
    has locked a group's state.
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
            BreakerChange(rule, group.group_key, Transition.CLOSED, now, why, group.halt_id)
            for group in groups
        ]
        for change in changes:
            stop_acting(cursor, tenant_id, change, actor=actor)
        group_keys = [change.group_key for change in changes]
        reset_states(cursor, tenant_id, breaker.id, group_keys)
        record_changes(cursor, tenant_id, changes)
    if group_keys:
        closed = [group_values(rule.grouping, group_key) for group_key in group_keys]
        record_change(
            tenant_id=tenant_id,
            actor=actor,
            action="close",
            subject=breaker,
            after={"groups": closed},
        )
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


BREAKERS: Final = Kind(create_breaker, update_breaker, delete_breaker)
