"""What follows from how a customer pays: its state, and halts while it is overdue."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import structlog
from django.db.models import F, Q
from django.utils import timezone

from billing.collection.payment_state import PaymentFacts, next_due, state_of
from billing.models import (
    AccountState,
    Customer,
    CustomerLink,
    StripeAccount,
    StripeInvoice,
    StripeSettings,
)
from common.json_bodies import JsonObject
from metering.limits.halts import halt, lift_halt
from metering.models import Halt
from tenants.audit import record_change
from tenants.scope import tenant_scope

log = structlog.get_logger(__name__)

ACTOR: Final = "Spendgate (Stripe)"
REASON: Final = "{} is overdue: an invoice was not paid. Lifted when it is."
# Values beyond these are not halted one by one.
LINKS_MAX: Final = 200
JUDGED_MAX: Final = 20


def judge_account(*, tenant_id: int, account_id: int) -> AccountState:
    """Set an account's state by its invoices, and halt or release its customer's usage."""
    now = timezone.now()
    with tenant_scope(tenant_id):
        account = StripeAccount.objects.select_for_update(of=("self",)).get(id=account_id)
        payments = [
            PaymentFacts(**row)
            for row in StripeInvoice.objects.filter(account=account).values(
                *(name for name in PaymentFacts._fields if name != "sequence"),
                sequence=F("statement__sequence"),
            )
        ]
        before = account.state
        account.state = state = state_of(payments, now=now)
        account.judge_at = next_due(payments, now=now)
        if state != before:
            account.state_since = now
            record_change(
                tenant_id=tenant_id,
                actor=ACTOR,
                action="judge",
                subject=account,
                before={"state": before},
                after={"state": state},
            )
        _match_halts(account, now)
        account.save()
    return state


def judge_due(*, tenant_id: int) -> int:
    """Judge accounts whose state may have changed with time; return their number."""
    with tenant_scope(tenant_id):
        due = list(
            StripeAccount.objects.filter(tenant_id=tenant_id, judge_at__lte=timezone.now())
            .order_by("judge_at")
            .values_list("id", flat=True)[:JUDGED_MAX]
        )
    for account_id in due:
        judge_account(tenant_id=tenant_id, account_id=account_id)
    return len(due)


def _match_halts(account: StripeAccount, now: datetime) -> None:
    """Halt all usage of an overdue customer if the tenant wants it so, else lift those halts.

    A halt that a person has lifted is not made again before the customer has paid.
    """
    settings = StripeSettings.objects.get(tenant_id=account.tenant_id)
    is_halted = settings.halts_overdue and account.state == AccountState.OVERDUE
    wanted = _matches(account.customer, now) if is_halted else []
    kept: list[JsonObject] = []
    for made in account.halts:
        if made["match"] in wanted:
            kept.append(made)
        elif (stored := Halt.objects.filter(id=made["id"]).first()) is not None:
            lift_halt(halt=stored, actor=ACTOR)
    known = [made["match"] for made in kept]
    for match in wanted:
        if match not in known:
            reason = REASON.format(account.customer.name)
            made_now = halt(tenant=account.tenant, match=match, reason=reason, actor=ACTOR)
            kept.append({"id": made_now.id, "match": match})
    account.halts = kept


def _matches(customer: Customer, now: datetime) -> list[JsonObject]:
    """Return what usage of a customer matches: its key, and the values that are linked to it."""
    is_linked = (Q(starts_at=None) | Q(starts_at__lte=now)) & (Q(ends_at=None) | Q(ends_at__gt=now))
    links = CustomerLink.objects.filter(is_linked, customer=customer).order_by("id")
    values: Iterable[tuple[str, str]] = links.values_list("dimension", "value")[:LINKS_MAX]
    matches = [{"customer": customer.key}, *({name: value} for name, value in values)]
    return [match for at, match in enumerate(matches) if match not in matches[:at]]
