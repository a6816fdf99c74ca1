"""`/v1/coupons`: discounts on statements."""

from collections.abc import Sequence
from typing import Annotated

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view

from billing.api.credit_fields import in_minor_units, percent_text
from billing.api.references import (
    CUSTOMER_PARAMETER,
    CustomerReference,
    find_customer,
    named,
    of_customer,
)
from billing.coupons import STATEMENTS_MAX, create_coupon, end_coupon
from billing.currencies import amount_of
from billing.models import Coupon, StatementState
from common.api.fields import Amount, Count, StrictSerializer, Text, Timestamp
from common.api.pagination import PAGE_PARAMETERS
from common.api.structs import Answer, UtcTimestamp, about
from common.json_bodies import JsonObject
from metering.fields.body import errors_at_members
from tenants.api.resources import Resource
from tenants.roles import Scope


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
class Coupons(Resource[Coupon]):
    """The coupons of the tenant's customers."""

    model = Coupon
    noun = "coupon"
    body = CouponBody
    answer = CouponAnswer
    order = ("-id",)
    write_scope = Scope.BILLING
    parameters = {"list": (*PAGE_PARAMETERS, CUSTOMER_PARAMETER)}

    def rows(self) -> QuerySet[Coupon]:
        return super().rows().select_related("customer")

    def listed_rows(self) -> QuerySet[Coupon]:
        return of_customer(self.rows(), self.tenant.id, self.request.query_params.get("customer"))

    def create_row(self, fields: JsonObject) -> Coupon:
        customer = named("customer", find_customer, self.tenant.id, fields.pop("customer"))
        with errors_at_members(self.body()):
            amounts = in_minor_units(fields, customer.currency, "amount")
            return create_coupon(tenant=self.tenant, actor=self.actor, customer=customer, **amounts)

    def delete_row(self, row: Coupon) -> object:
        return end_coupon(row, actor=self.actor)

    def answers(self, rows: Sequence[Coupon]) -> Sequence[CouponAnswer]:
        return [_answer(row) for row in rows]


def _answer(coupon: Coupon) -> CouponAnswer:
    currency = coupon.customer.currency
    used = coupon.uses.exclude(statement__state=StatementState.VOID)
    return CouponAnswer.of(
        coupon,
        customer=coupon.customer.key,
        percent=None if coupon.percent is None else percent_text(coupon.percent),
        amount=None if coupon.amount is None else amount_of(coupon.amount, currency),
        statements_used=used.count(),
    )
