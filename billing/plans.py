"""Plans and their versions as configuration."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec
from django.db import transaction
from django.utils import timezone

from billing.models import Plan, PlanVersion, Wallet
from billing.plan_rules import terms_problems
from billing.terms import Terms
from billing.wallet_opening import require_followed
from common.database_errors import name_once
from common.errors import Conflict
from common.formats import moment
from metering.core.validation import require
from tenants.audit import audited_change, create_audited, lock_stored
from tenants.kinds import Kind
from tenants.limits import require_room
from tenants.models import Tenant

VERSIONS_MAX: Final = 500


@transaction.atomic
def create_plan(*, tenant: Tenant, actor: str, terms: Terms, **fields: object) -> Plan:
    """Add a plan whose version 1 has these terms. Raises NameTaken, and ValidationError by the
    members of terms.
    """
    plan = Plan(tenant=tenant, **{"timezone": tenant.timezone, **fields})
    require_room(tenant.id, "plans", Plan.objects.filter(tenant=tenant, archived_at=None))
    with name_once("plan", plan.name):
        create_audited(plan, actor=actor)
    _add_version(plan, number=1, starts_at=None, terms=terms, actor=actor)
    return plan


@transaction.atomic
def add_version(plan: Plan, *, actor: str, starts_at: datetime, terms: Terms) -> PlanVersion:
    """Add the version that is in force from a moment on. Raises Conflict unless that is after the
    start of the version before, and NotProportional if a customer's wallet could not follow.

    Usage of final statements that the new version prices otherwise becomes an adjustment.
    """
    lock_stored(plan)
    last = plan.versions.order_by("-number").first()
    assert last is not None, "a plan has a version"
    if last.starts_at is not None and starts_at <= last.starts_at:
        raise Conflict(
            f"Version {last.number} is in force from {moment(last.starts_at)} on; "
            "a new one must begin later."
        )
    if last.number >= VERSIONS_MAX:
        raise Conflict(f"A plan has at most {VERSIONS_MAX} versions; create a new plan.")
    added = _add_version(
        plan, number=last.number + 1, starts_at=starts_at, terms=terms, actor=actor
    )
    with_wallets = Wallet.objects.filter(ended_at=None, customer__subscriptions__plan=plan)
    require_followed(with_wallets.values_list("customer_id", flat=True))
    return added


def _add_version(
    plan: Plan, *, number: int, starts_at: datetime | None, terms: Terms, actor: str
) -> PlanVersion:
    # A form's terms come here as they are; those of the API's body were judged with it.
    require(terms_problems(terms, currency=plan.currency))
    version = PlanVersion(
        tenant_id=plan.tenant_id,
        plan=plan,
        number=number,
        starts_at=starts_at,
        terms=msgspec.to_builtins(terms),
        actor=actor[:300],
    )
    return create_audited(version, actor=actor)


@transaction.atomic
def update_plan(plan: Plan, *, actor: str, changes: Mapping[str, object]) -> Plan:
    """Change a plan's name; everything else of it is terms, or what periods depend on."""
    with (
        name_once("plan", str(changes.get("name", plan.name))),
        audited_change(plan, actor=actor, changes=changes) as change,
    ):
        pass
    return change.row


@transaction.atomic
def archive_plan(plan: Plan, *, actor: str) -> None:
    """Take a plan out of lists. No one can subscribe to it; who has it keeps it."""
    with audited_change(plan, actor=actor, action="archive") as change:
        change.row.archived_at = timezone.now()


def terms_of(version: PlanVersion) -> Terms:
    """Return a version's terms."""
    return msgspec.convert(version.terms, Terms)


PLANS: Final = Kind(create_plan, update_plan, archive_plan)
