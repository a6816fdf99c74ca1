"""`/v1/coupons`: discounts on statements."""

from typing import Annotated

from drf_spectacular.utils import extend_schema, extend_schema_view

from billing.api.credit_fields import in_minor_units, percent_text
from billing.api.references import CustomerReference, OfCustomers, find_customer, named
from billing.coupons import STATEMENTS_MAX, create_coupon, end_coupon
from billing.currencies import amount_of
from billing.models import Coupon, StatementState
from common.api.fields import Amount, Count, StrictSerializer, Text, Timestamp
from common.api.structs import Answer, UtcTimestamp, about
from common.json_bodies import JsonObject
from metering.fields.body import errors_at_members


class CouponBody(StrictSerializer):
    """A coupon of a customer: give `percent` or `amount`."""

    customer = CustomerReference()
    name = Text(help_text="As statements have it.")
    percent = Amount(required=False)
    amount = Amount(required=False, help_text="In the customer's currency.")
    starts_at = Timestamp(required=False, help_text="Now, if left out.")
    ends_at = Timestamp(
        required=False,
        allow_null=True,
        help_text="It is for statements whose period ends while it lasts.",
    )
    statements_max = Count(
        required=False,
        allow_null=True,
        max_value=STATEMENTS_MAX,
        help_text="How many statements it is for; left out: all.",
    )


class CouponAnswer(Answer):
    """A coupon."""

    id: int
    customer: Annotated[str, about("The customer's key.")]
    name: str
    percent: str | None
    amount: str | None
    starts_at: UtcTimestamp
    ends_at: UtcTimestamp | None
    statements_max: int | None
    statements_used: Annotated[int, about("Statements that have it and are not void.")]
    actor: str
    created_at: UtcTimestamp


@extend_schema_view(
    list=extend_schema(summary="List coupons, newest first"),
    create=extend_schema(
        summary="Give a customer a coupon",
        description="A statement has one coupon: the oldest that lasts and is not used up.",
    ),
    retrieve=extend_schema(summary="Show a coupon"),
    destroy=extend_schema(summary="End a coupon; statements that have it keep it"),
)
class Coupons(OfCustomers[Coupon]):
    """The coupons of the tenant's customers."""

    model = Coupon
    noun = "coupon"
    body = CouponBody
    answer = CouponAnswer

    def create_row(self, fields: JsonObject) -> Coupon:
        customer = named("customer", find_customer, self.tenant.id, fields.pop("customer"))
        with errors_at_members(self.body()):
            amounts = in_minor_units(fields, customer.currency, "amount")
            return create_coupon(tenant=self.tenant, actor=self.actor, customer=customer, **amounts)

    def delete_row(self, row: Coupon) -> object:
        return end_coupon(row, actor=self.actor)

    def answer_of(self, row: Coupon) -> CouponAnswer:
        currency = row.customer.currency
        used = row.uses.exclude(statement__state=StatementState.VOID)
        return CouponAnswer.of(
            row,
            customer=row.customer.key,
            percent=None if row.percent is None else percent_text(row.percent),
            amount=None if row.amount is None else amount_of(row.amount, currency),
            statements_used=used.count(),
        )
