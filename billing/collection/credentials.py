"""With whose key a tenant collects: its own, or that of the installation."""

from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from billing.models import CollectionMethod, Customer, StripeAccount, StripeSettings
from billing.stripe_gateway import Credentials, is_live_key
from common.sealing import Unreadable, seal, unseal
from tenants.audit import audited_change, record_change
from tenants.models import Tenant

PURPOSE: Final = "billing.stripe"
# After Stripe refused a key, or the tenant's key could not be read.
PAUSE: Final = timedelta(minutes=10)


def credentials_of(row: StripeSettings | None) -> Credentials | None:
    """Return what a tenant collects with; None if there is no key. Raises Unreadable.

    Key and secret are of one origin: a tenant with a key of its own does not take webhooks that
    were signed for the installation. A key of the fake Stripe goes there or nowhere, and no other
    key does.
    """
    base: str | None = settings.STRIPE_API_BASE
    if row is not None and row.secrets is not None:
        opened = unseal(row.secrets, purpose=PURPOSE)
        own = Credentials(opened["api_key"], opened["webhook_secret"], base)
        if not own.is_fake:
            return own
        fake_base: str | None = settings.STRIPE_FAKE_BASE
        return None if fake_base is None else own._replace(api_base=fake_base)
    if settings.STRIPE_API_KEY is None:
        return None
    return Credentials(settings.STRIPE_API_KEY, settings.STRIPE_WEBHOOK_SECRET or "", base)


def has_fake_key(tenant_id: int) -> bool:
    """Return whether Stripe is the fake one for a tenant, so that no money moves."""
    row = StripeSettings.objects.filter(tenant_id=tenant_id).first()
    try:
        credentials = credentials_of(row)
    except Unreadable:
        return False
    return credentials is not None and credentials.is_fake


def working_credentials(tenant_id: int) -> Credentials | None:
    """Return what to collect with now; None while the tenant does not collect or its key rests."""
    row = StripeSettings.objects.filter(tenant_id=tenant_id, collects=True).first()
    if row is None or (row.paused_until is not None and row.paused_until > timezone.now()):
        return None
    try:
        return credentials_of(row)
    except Unreadable:
        rest_key(tenant_id, "The key was sealed with another SECRET_KEY. Enter it again.")
        return None


def rest_key(tenant_id: int, problem: str) -> None:
    """Do not use a tenant's key for a while, and say why."""
    StripeSettings.objects.filter(tenant_id=tenant_id).update(
        problem=problem[:600], paused_until=timezone.now() + PAUSE
    )


@transaction.atomic
def set_credentials(*, tenant: Tenant, actor: str, api_key: str, webhook_secret: str) -> None:
    """Keep a tenant's own key and secret, sealed. Raises WrongKey.

    The sweep for lost events begins again: the key may be of another mode.
    """
    mode = "live" if is_live_key(api_key) else "test"
    secrets = seal({"api_key": api_key, "webhook_secret": webhook_secret}, purpose=PURPOSE)
    row = _settings_of(tenant)
    row.secrets = secrets
    row.events_stored_until = 0
    _use_again(row)
    row.save()
    record_change(
        tenant_id=tenant.id, actor=actor, action="set_key", subject=row, after={"mode": mode}
    )


@transaction.atomic
def remove_credentials(*, tenant: Tenant, actor: str) -> None:
    """Forget a tenant's own key and secret, and collect no more: not with the installation's key
    either, which may be of another Stripe account. Invoices at Stripe stay as they are.
    """
    row = _settings_of(tenant)
    row.secrets, row.collects, row.events_stored_until = None, False, 0
    _use_again(row)
    row.save()
    record_change(
        tenant_id=tenant.id,
        actor=actor,
        action="remove_key",
        subject=row,
        after={"collects": False},
    )


@transaction.atomic
def configure_collection(*, tenant: Tenant, actor: str, **changes: Any) -> StripeSettings:
    """Change `collects`, `collects_from`, `collection_method` or `halts_overdue`.

    Statements that are final already are not collected, unless `collects_from` says so.
    """
    with audited_change(_settings_of(tenant), actor=actor, changes=changes) as change:
        row = change.row
        if row.collects and row.collects_from is None:
            row.collects_from = timezone.now()
        _use_again(row)
    if "halts_overdue" in changes:
        StripeAccount.objects.filter(tenant=tenant).update(judge_at=timezone.now())
    return row


@transaction.atomic
def set_collection_method(*, customer: Customer, actor: str, method: str, is_live: bool) -> None:
    """Collect a customer's statements in its own way; empty: in the tenant's."""
    if method not in ("", *CollectionMethod.values):
        raise ValueError(f"method must be one of {', '.join(CollectionMethod.values)}")
    account, _ = StripeAccount.objects.get_or_create(
        tenant_id=customer.tenant_id, customer=customer, is_live=is_live
    )
    with audited_change(account, actor=actor, changes={"collection_method": method}):
        pass


def _settings_of(tenant: Tenant) -> StripeSettings:
    return StripeSettings.objects.get_or_create(tenant=tenant)[0]


def _use_again(row: StripeSettings) -> None:
    row.problem = ""
    row.paused_until = None
