"""Rate limits as configuration: made, changed, removed."""

from collections.abc import Iterator, Mapping
from typing import Final

from django.db import transaction

from common.money import USD_NANOS_MAX
from common.values import COUNT_MAX
from metering.core.match import KEY, KNOWN_BEFORE_CALL, PER_MAX
from metering.core.validation import (
    Problem,
    amount_problems,
    askable_match_problems,
    per_problems,
    require_row,
)
from metering.models import RateLimit
from tenants.audit import audited_change, create_audited, delete_audited
from tenants.kinds import Kind
from tenants.limits import require_room
from tenants.models import Tenant
from tenants.scope import change_configuration

# Of calls that count together: a dimension, or the API key that asks.
PER_NAMES: Final = (*KNOWN_BEFORE_CALL, KEY)
RATE_FIELDS: Final = ("cost_nanos_per_minute", "tokens_per_minute", "requests_per_minute")


def validate_rate_limit(limit: RateLimit) -> None:
    """Raise ValidationError with an error for each field that is wrong."""
    require_row(limit, _problems(limit))


def _problems(limit: RateLimit) -> Iterator[Problem]:
    yield from askable_match_problems(limit.match)
    yield from per_problems(limit.per, PER_NAMES, most=PER_MAX)
    if all(getattr(limit, name) is None for name in RATE_FIELDS):
        yield Problem("limit", "Give at least one rate: cost, tokens or requests.", "missing_limit")
    yield from amount_problems(
        limit,
        cost_nanos_per_minute=(1, USD_NANOS_MAX),
        tokens_per_minute=(1, COUNT_MAX),
        requests_per_minute=(1, COUNT_MAX),
    )


@transaction.atomic
def create_rate_limit(*, tenant: Tenant, actor: str, **fields: object) -> RateLimit:
    """Add a rate limit, in force for the next reservation that begins. Raises ValidationError."""
    limit = RateLimit(tenant=tenant, **fields)
    validate_rate_limit(limit)
    change_configuration(tenant.id)
    require_room(tenant.id, "rate_limits", RateLimit.objects.filter(tenant_id=tenant.id))
    return create_audited(limit, actor=actor)


@transaction.atomic
def update_rate_limit(limit: RateLimit, *, actor: str, changes: Mapping[str, object]) -> RateLimit:
    """Change a rate limit. What its groups asked for within the last minute still counts. Raises
    ValidationError.
    """
    change_configuration(limit.tenant_id)
    with audited_change(limit, actor=actor, changes=changes) as change:
        validate_rate_limit(change.row)
    return change.row


@transaction.atomic
def delete_rate_limit(limit: RateLimit, *, actor: str) -> None:
    """Remove a rate limit. What was counted for it is removed by a job."""
    change_configuration(limit.tenant_id)
    delete_audited(limit, actor=actor)


RATE_LIMITS: Final = Kind(create_rate_limit, update_rate_limit, delete_rate_limit)
