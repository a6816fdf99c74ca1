"""Who is on which plan, from when to when."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.db.models import F, Q

from billing.models import Customer, Plan, Subscription
from billing.statement_periods import open_drafts
from billing.wallet_opening import require_followed
from common.errors import Conflict
from common.formats import moment
from metering.core.validation import Problem, require
from tenants.audit import audited_change, create_audited, delete_audited, lock_stored
from tenants.kinds import Kind
from tenants.limits import require_room
from tenants.models import Tenant


@transaction.atomic
def subscribe(
    *,
    tenant: Tenant,
    actor: str,
    customer: Customer,
    plan: Plan,
    starts_at: datetime,
    ends_at: datetime | None = None,
) -> Subscription:
    """Put a customer on a plan from a moment on; the plan that it was on ends there.

    Raises Conflict if a subscription begins within the new one's time, NotProportional if the
    customer's wallet could not follow, ValidationError for a plan in another currency.
    """
    lock_stored(customer)
    if plan.currency != customer.currency:
        currencies = f"{plan} is in {plan.currency}, {customer} pays {customer.currency}."
        require([Problem("plan", currencies)])
    if plan.archived_at is not None or customer.archived_at is not None:
        raise Conflict(f"{plan if plan.archived_at else customer} is archived.")
    _require_length(starts_at, ends_at)
    others = customer.subscriptions.filter(Q(ends_at=None) | Q(ends_at__gt=F("starts_at")))
    later = others.filter(starts_at__gte=starts_at)
    if ends_at is not None:
        later = later.filter(starts_at__lt=ends_at)
    if (next_one := later.order_by("starts_at").first()) is not None:
        raise Conflict(
            f"{customer} is on {next_one.plan} from {moment(next_one.starts_at)} on; "
            "end or remove that subscription first."
        )
    require_room(tenant.id, "subscriptions", Subscription.objects.filter(tenant=tenant))
    running = others.filter(Q(ends_at=None) | Q(ends_at__gt=starts_at), starts_at__lt=starts_at)
    for subscription in running:
        with audited_change(subscription, actor=actor, changes={"ends_at": starts_at}):
            pass
    created = create_audited(
        Subscription(
            tenant=tenant, customer=customer, plan=plan, starts_at=starts_at, ends_at=ends_at
        ),
        actor=actor,
    )
    require_followed([customer.id])
    open_drafts(customer)
    return created


@transaction.atomic
def update_subscription(
    subscription: Subscription, *, actor: str, changes: Mapping[str, Any]
) -> Subscription:
    """Change when a subscription ends. Raises ValidationError and Conflict."""
    ends_at = changes.get("ends_at", subscription.ends_at)
    _require_length(subscription.starts_at, ends_at)
    lock_stored(subscription.customer)
    later = subscription.customer.subscriptions.filter(starts_at__gt=subscription.starts_at)
    if ends_at is not None:
        later = later.filter(starts_at__lt=ends_at)
    if (next_one := later.order_by("starts_at").first()) is not None:
        raise Conflict(
            f"{subscription.customer} is on {next_one.plan} from {moment(next_one.starts_at)} on."
        )
    with audited_change(subscription, actor=actor, changes={"ends_at": ends_at}) as change:
        pass
    require_followed([subscription.customer_id])
    open_drafts(subscription.customer)
    return change.row


@transaction.atomic
def delete_subscription(subscription: Subscription, *, actor: str) -> None:
    """Remove a subscription of which nothing was billed. Raises Conflict otherwise."""
    customer = lock_stored(subscription.customer)
    if subscription.statementline_set.exists():
        raise Conflict("A final statement charges for this subscription; end it instead.")
    delete_audited(subscription, actor=actor)
    require_followed([customer.id])
    open_drafts(customer)


def _require_length(starts_at: datetime, ends_at: datetime | None) -> None:
    if ends_at is not None and ends_at <= starts_at:
        require([Problem("ends_at", "Must be after 'starts_at'.")])


SUBSCRIPTIONS: Final = Kind(subscribe, update_subscription, delete_subscription)
