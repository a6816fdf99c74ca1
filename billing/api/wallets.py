"""`/v1/wallets`: customers whose usage is held to their prepaid credit."""

from collections.abc import Sequence
from typing import Annotated

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.credit_fields import percent_text
from billing.api.references import CustomerReference, OfCustomers, find_customer, named
from billing.credits import available
from billing.currencies import amount_of
from billing.models import Wallet
from billing.wallet_opening import FULL_PERCENT, change_levels, end_wallet, open_wallet
from billing.wallets import held_by_grants, use_of
from common.api.fields import Count, Items, StrictSerializer, Text, read_body
from common.api.structs import AmountUsd, Answer, UtcTimestamp, about
from common.json_bodies import JsonObject
from common.money import usd_from_nanos
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import LEVELS_MAX, NOTIFY_CHARACTERS_MAX, NOTIFY_MAX
from metering.fields.body import errors_at_members
from metering.models import Action


class WalletLevelBody(StrictSerializer):
    """A share of the credit at which people are notified. At 100 calls are refused as well."""

    percent = Count(max_value=FULL_PERCENT)
    notify = Items(
        child=Text(max_length=NOTIFY_CHARACTERS_MAX),
        required=False,
        max_length=NOTIFY_MAX,
        help_text="Contacts of channels.",
    )


class WalletBody(StrictSerializer):
    """A wallet of a customer."""

    customer = CustomerReference()
    levels = Items(
        child=WalletLevelBody(),
        required=False,
        max_length=LEVELS_MAX - 1,
        help_text="80 and 100, if left out.",
    )


class WalletChangeBody(StrictSerializer):
    """Other levels of a wallet."""

    levels = Items(child=WalletLevelBody(), max_length=LEVELS_MAX - 1)


class WalletLevelAnswer(Answer):
    """A share of the credit at which people are notified."""

    percent: int
    notify: list[str]


class WalletAnswer(Answer):
    """A wallet: its credit in the customer's currency, and its budget in the provider's cost."""

    id: int
    customer: Annotated[str, about("The customer's key.")]
    percent: Annotated[str, about("What the customer is charged on top of cost.")]
    currency: str
    balance: Annotated[str, about("What the grants hold.")]
    unpaid: Annotated[str, about("Of that: for usage that no statement has charged yet.")]
    budget_id: int
    limit_usd: Annotated[AmountUsd, about("The provider's cost that the credit covers.")]
    spent_usd: AmountUsd
    reserved_usd: AmountUsd
    levels: list[WalletLevelAnswer]
    opened_at: UtcTimestamp
    ended_at: UtcTimestamp | None
    actor: str


@extend_schema_view(
    list=extend_schema(summary="List wallets, newest first"),
    create=extend_schema(
        summary="Hold a customer's usage to its prepaid credit",
        description="From now on calls are refused that the credit does not cover. It is offered"
        " where usage is charged in proportion to the provider's cost; the refusal says why not.",
    ),
    retrieve=extend_schema(summary="Show a wallet"),
    partial_update=extend_schema(
        summary="Change when people are notified", request=WalletChangeBody
    ),
    destroy=extend_schema(
        summary="End a wallet", description="The credit stays, and pays whatever is charged."
    ),
)
class Wallets(OfCustomers[Wallet]):
    """The wallets of the tenant's customers."""

    model = Wallet
    noun = "wallet"
    body = WalletBody
    answer = WalletAnswer
    related = ("customer", "budget")
    also_answers = {"create": (409,)}

    def create_row(self, fields: JsonObject) -> Wallet:
        customer = named("customer", find_customer, self.tenant.id, fields["customer"])
        levels = {"levels": _rules(fields["levels"])} if "levels" in fields else {}
        with errors_at_members(self.body()):
            return open_wallet(tenant=self.tenant, actor=self.actor, customer=customer, **levels)

    def partial_update(self, request: Request, **path: object) -> Response:
        row, levels = self.row(), read_body(WalletChangeBody, request)["levels"]
        with errors_at_members(WalletChangeBody()):
            changed = change_levels(row, actor=self.actor, levels=_rules(levels))
        return Response(self.full_answer(changed))

    def delete_row(self, row: Wallet) -> object:
        return end_wallet(row, actor=self.actor)

    def answer_of(self, row: Wallet) -> WalletAnswer:
        use = use_of(row)
        currency = row.customer.currency
        unpaid = 0 if row.ended_at else available(row.customer_id, at=timezone.now())
        return WalletAnswer.of(
            row,
            customer=row.customer.key,
            percent=percent_text(row.percent),
            currency=currency,
            balance=amount_of(held_by_grants(row.customer_id), currency),
            unpaid=amount_of(unpaid, currency),
            limit_usd=usd_from_nanos(row.budget.limit_cost_nanos or 0),
            spent_usd=usd_from_nanos(use.spent_nanos),
            reserved_usd=usd_from_nanos(use.reserved_nanos),
            levels=[
                WalletLevelAnswer(level.percent, level.notify)
                for level in row.budget.levels.order_by("percent")
            ],
        )


def _rules(levels: Sequence[JsonObject]) -> list[LevelRule]:
    return [
        LevelRule(level["percent"], Action.NONE.value, tuple(level.get("notify", ())))
        for level in levels
    ]
