"""A tenant's own prices: added and ended, never changed, so that usage rated by one can name it.

Each change holds the configuration lock alone, so no batch is rated by prices that were replaced
before it was committed. Usage that had no price is priced by a job.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from metering.core.event_stretches import are_few_unpriced
from metering.intake.job_steps import run_job
from metering.intake.rerate import start_pricing, waiting_pricing
from metering.models import BackgroundJob, TenantPrice, ToolPrice
from metering.pricing.rates import check_rates
from tenants.audit import audited_change, create_audited
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
    rates: Mapping[str, object],
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
    price = TenantPrice(
        tenant=tenant,
        provider=provider,
        model=model,
        rates=dict(rates),
        **validity._asdict(),
    )
    create_audited(price, actor=actor)
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
    price = ToolPrice(tenant=tenant, tool=tool, call_nanos=call_nanos, **validity._asdict())
    return create_audited(price, actor=actor)


def _require_room(tenant_id: int) -> None:
    has_not_ended = Q(effective_to=None) | Q(effective_to__gt=timezone.now())
    require_room(
        tenant_id,
        "prices",
        TenantPrice.objects.filter(has_not_ended, tenant_id=tenant_id),
        ToolPrice.objects.filter(has_not_ended, tenant_id=tenant_id),
    )


@transaction.atomic
def end_price(price: TenantPrice | ToolPrice, *, actor: str) -> TenantPrice | ToolPrice:
    """Let a price end now; one that has ended stays as it is, one that has not begun never does.

    The row stays, since events may name it.
    """
    change_configuration(price.tenant_id)
    with audited_change(price, actor=actor) as change:
        stored = change.row
        # The table wants an end after the start: the least time that there is.
        end = max(timezone.now(), stored.effective_from + timedelta(microseconds=1))
        if stored.effective_to is None or stored.effective_to > end:
            stored.effective_to = end
    return stored


def _price_what_had_none(tenant_id: int, *, actor: str) -> None:
    """Begin to price usage that had no price; a little of it as soon as this is committed, so that
    the person who added the price sees it.
    """
    job = start_pricing(tenant_id=tenant_id, actor=actor)
    if job is not None and are_few_unpriced(tenant_id):
        # A failure here must not turn an added price into an error; the job is still there.
        transaction.on_commit(partial(run_job, job), robust=True)


def find_long_pricing(price: TenantPrice | ToolPrice) -> BackgroundJob | None:
    """The job that will price what had no price, once a price was added in this transaction; None
    if that is done immediately.
    """
    if isinstance(price, ToolPrice) or are_few_unpriced(price.tenant_id):
        return None
    return waiting_pricing(price.tenant_id)
