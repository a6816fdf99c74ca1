"""A tenant's own prices: added and ended, never changed, so that usage rated by one can name it.

Each change holds the configuration lock alone, so no batch is rated by prices that were replaced
before it was committed. Usage that had no price is priced by a job.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from metering.core.event_stretches import are_few_unpriced
from metering.intake.job_steps import run_job
from metering.intake.rerate import start_pricing, waiting_pricing
from metering.models import BackgroundJob, TenantPrice, ToolPrice
from metering.pricing.rates import check_rates
from tenants.audit import facts_of, record_change
from tenants.limits import require_room
from tenants.models import Tenant
from tenants.scope import change_configuration


class Validity(NamedTuple):
    """From when, and until when if that is known, a price applies, and why."""

    effective_from: datetime
    effective_to: datetime | None = None
    note: str = ""


@transaction.atomic
def add_price(
    *,
    tenant: Tenant,
    actor: str,
    model: str,
    provider: str = "",
    rates: Mapping[str, Any],
    validity: Validity,
) -> TenantPrice:
    """Add a price for a model; an empty provider means any. `rates` as in `metering.pricing.rates`.

    Raises ValidationError when the rates cannot be compiled. What is priced already keeps its price
    until it is rated again.
    """
    # One that cannot be compiled would stop all rating.
    if problem := check_rates(rates):
        raise ValidationError({"rates": problem})
    change_configuration(tenant.id)
    _require_room(tenant.id)
    price = TenantPrice.objects.create(
        tenant=tenant,
        provider=provider,
        model=model,
        rates=dict(rates),
        **validity._asdict(),
    )
    _record(price, actor=actor, action="create", before=None)
    _price_what_had_none(tenant.id, actor=actor)
    return price


@transaction.atomic
def add_tool_price(
    *,
    tenant: Tenant,
    actor: str,
    tool: str,
    call_nanos: int,
    validity: Validity,
) -> ToolPrice:
    """Say what one call of a tool costs."""
    change_configuration(tenant.id)
    _require_room(tenant.id)
    price = ToolPrice.objects.create(
        tenant=tenant,
        tool=tool,
        call_nanos=call_nanos,
        **validity._asdict(),
    )
    _record(price, actor=actor, action="create", before=None)
    return price


def _require_room(tenant_id: int) -> None:
    has_not_ended = Q(effective_to=None) | Q(effective_to__gt=timezone.now())
    require_room(
        tenant_id,
        "prices",
        TenantPrice.objects.filter(has_not_ended, tenant_id=tenant_id),
        ToolPrice.objects.filter(has_not_ended, tenant_id=tenant_id),
    )


@transaction.atomic
def end_price(*, price: TenantPrice | ToolPrice, actor: str) -> TenantPrice | ToolPrice:
    """Let a price end now; one that has ended stays as it is, one that has not begun never does.

    The row stays, since events may name it.
    """
    change_configuration(price.tenant_id)
    before = facts_of(price)
    # The table wants an end after the start: the least moment that there is.
    end = max(timezone.now(), price.effective_from + timedelta(microseconds=1))
    if price.effective_to is None or price.effective_to > end:
        price.effective_to = end
        price.save(update_fields=["effective_to"])
    _record(price, actor=actor, action="update", before=before)
    return price


def _record(
    price: TenantPrice | ToolPrice, *, actor: str, action: str, before: Mapping[str, Any] | None
) -> None:
    record_change(
        tenant_id=price.tenant_id,
        actor=actor,
        action=action,
        subject=price,
        before=before,
        after=facts_of(price),
    )


def _price_what_had_none(tenant_id: int, *, actor: str) -> None:
    """Begin to price usage that had no price; a little of it as soon as this is committed, so that
    whoever added the price sees it.
    """
    job = start_pricing(tenant_id=tenant_id, actor=actor)
    if job is not None and are_few_unpriced(tenant_id):
        # A failure here must not turn an added price into an error; the job is still there.
        transaction.on_commit(partial(run_job, job), robust=True)


def find_long_pricing(price: TenantPrice | ToolPrice) -> BackgroundJob | None:
    """The job that will price what had no price, once a price was added in this transaction; None
    where that is done at once.
    """
    if isinstance(price, ToolPrice) or are_few_unpriced(price.tenant_id):
        return None
    return waiting_pricing(price.tenant_id)
