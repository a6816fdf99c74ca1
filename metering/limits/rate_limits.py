"""Rate limits: how much may be asked for within any minute, by tenant, key, user, agent …

What was asked for is in `pace`, so a limit survives a restart and holds across processes.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from django.db import transaction

from metering.core.amounts import Amounts
from metering.core.match import Grouping, Values
from metering.limits.rate_counters import PaceState
from metering.models import RateLimit
from tenants.audit import facts_of, record_change
from tenants.limits import require_room
from tenants.models import Tenant
from tenants.scope import change_configuration

RATE_FIELDS: Final = ("cost_nanos_per_minute", "tokens_per_minute", "requests_per_minute")


class RateRule(NamedTuple):
    """One rate limit, ready to judge what is asked for."""

    id: int
    name: str
    mode: str
    grouping: Grouping
    cost_nanos_per_minute: int | None
    tokens_per_minute: int | None
    requests_per_minute: int | None

    @classmethod
    def of(cls, limit: RateLimit) -> "RateRule":
        """The rule that a stored rate limit means."""
        return cls(
            id=limit.id,
            name=limit.name,
            mode=limit.mode,
            grouping=Grouping(limit.match, limit.per),
            cost_nanos_per_minute=limit.cost_nanos_per_minute,
            tokens_per_minute=limit.tokens_per_minute,
            requests_per_minute=limit.requests_per_minute,
        )

    @property
    def subject(self) -> str:
        """What its paces are kept by."""
        return f"limit:{self.id}"

    def group(self, values: Values, *, key_prefix: str) -> str | None:
        """The group that a call with these values, asked for with this key, is counted in; None
        where the limit does not match it.
        """
        return self.grouping.group(values, key_prefix=key_prefix)

    def wait_seconds(self, pace: PaceState, asked: Amounts, *, now: datetime) -> int:
        """How many whole seconds until the call fits into the minute; 0 where it fits now.

        A call of a tool is a request like any other here. Every part must fit; a call that is
        larger than a limit itself passes once the minute is empty (see `Minute.seconds_until`).
        """
        minute = pace.minute
        minute.advance(int(now.timestamp()))
        waits = [0]
        if self.cost_nanos_per_minute is not None:
            waits.append(
                minute.seconds_until("nanos", asked.cost_nanos, self.cost_nanos_per_minute)
            )
        if self.tokens_per_minute is not None:
            waits.append(minute.seconds_until("tokens", asked.tokens, self.tokens_per_minute))
        if self.requests_per_minute is not None:
            requests = asked.requests + asked.tool_calls
            waits.append(minute.seconds_until("requests", requests, self.requests_per_minute))
        return max(waits)


def read_rate_rules(tenant_id: int) -> tuple[RateRule, ...]:
    """The tenant's rate limits as they are stored."""
    limits = RateLimit.objects.filter(tenant_id=tenant_id).order_by("id")
    return tuple(RateRule.of(limit) for limit in limits)


@transaction.atomic
def create_rate_limit(*, tenant: Tenant, actor: str, **fields: Any) -> RateLimit:
    """Add a rate limit, in force for the next reservation that begins."""
    change_configuration(tenant.id)
    require_room(tenant.id, "rate_limits", RateLimit.objects.filter(tenant_id=tenant.id))
    limit = RateLimit.objects.create(tenant=tenant, **fields)
    _record(limit, actor=actor, action="create", after=facts_of(limit))
    return limit


@transaction.atomic
def update_rate_limit(*, limit: RateLimit, actor: str, changes: Mapping[str, Any]) -> RateLimit:
    """Change a rate limit. What its groups asked for within the last minute still counts."""
    change_configuration(limit.tenant_id)
    stored = RateLimit.objects.select_for_update().get(tenant_id=limit.tenant_id, id=limit.id)
    before = facts_of(stored)
    for name, value in changes.items():
        setattr(stored, name, value)
    stored.save()
    _record(stored, actor=actor, action="update", before=before, after=facts_of(stored))
    return stored


@transaction.atomic
def delete_rate_limit(*, limit: RateLimit, actor: str) -> None:
    """Remove a rate limit; what was counted for it is forgotten by itself."""
    change_configuration(limit.tenant_id)
    for stored in RateLimit.objects.filter(tenant_id=limit.tenant_id, id=limit.id):
        _record(stored, actor=actor, action="delete", before=facts_of(stored))
        stored.delete()


def _record(
    limit: RateLimit,
    *,
    actor: str,
    action: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    record_change(
        tenant_id=limit.tenant_id,
        actor=actor,
        action=action,
        subject=limit,
        before=before,
        after=after,
    )
