"""`/v1/subscriptions`: which customer is on which plan."""

from collections.abc import Callable
from typing import TypeVar

from django.db.models import QuerySet
from drf_spectacular.utils import (
    OpenApiParameter,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
)
from rest_framework import serializers

from billing.api.customers import find_customer
from billing.models import Customer, Plan, Subscription
from billing.subscriptions import SUBSCRIPTIONS
from common.api.fields import Spoken, StrictSerializer, Timestamp, Value, problem_at
from common.api.pagination import PAGE_PARAMETERS
from common.errors import NotFound
from common.json_bodies import JsonObject
from tenants.api.resources import Resource
from tenants.roles import Scope

Row = TypeVar("Row")


class CustomerKey(Value):
    """A customer by its key."""

    example = "acme"

    def to_representation(self, value: Customer) -> str:
        return value.key


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string"}], "example": 1})
class PlanReference(Spoken):
    """A plan by its id, or by its name; answered as its id."""

    example = 1

    def to_internal_value(self, data: object) -> str:
        if isinstance(data, bool) or not isinstance(data, int | str):
            raise serializers.ValidationError("must be the id or the name of a plan")
        return str(data)

    def to_representation(self, value: Plan) -> int:
        return int(value.pk)


class SubscriptionBody(StrictSerializer):
    """A subscription. A PATCH may change `ends_at` alone."""

    id = serializers.IntegerField(read_only=True)
    customer = CustomerKey()
    plan = PlanReference()
    plan_name = serializers.CharField(source="plan.name", read_only=True)
    starts_at = Timestamp()
    ends_at = Timestamp(required=False, allow_null=True, help_text="Null: until further notice.")
    created_at = Timestamp(read_only=True)

    def validate(self, attrs: JsonObject) -> JsonObject:
        if self.instance is not None and attrs.keys() - {"ends_at"}:
            fixed = sorted(attrs.keys() - {"ends_at"})
            raise serializers.ValidationError(
                dict.fromkeys(fixed, "never changes; add another subscription")
            )
        return attrs


@extend_schema_view(
    list=extend_schema(summary="List subscriptions, oldest first"),
    create=extend_schema(
        summary="Put a customer on a plan",
        description="The plan that the customer was on ends at `starts_at`.",
    ),
    retrieve=extend_schema(summary="Show a subscription"),
    partial_update=extend_schema(summary="Change when a subscription ends"),
    destroy=extend_schema(summary="Remove a subscription for which nothing was charged yet"),
)
class Subscriptions(Resource[Subscription]):
    """The subscriptions of the tenant."""

    model = Subscription
    noun = "subscription"
    kind = SUBSCRIPTIONS
    body = SubscriptionBody
    write_scope = Scope.BILLING
    parameters = {
        "list": (
            *PAGE_PARAMETERS,
            OpenApiParameter("customer", str, description="A customer's key."),
        )
    }

    def rows(self) -> QuerySet[Subscription]:
        return super().rows().select_related("customer", "plan")

    def listed_rows(self) -> QuerySet[Subscription]:
        key = self.request.query_params.get("customer")
        rows = self.rows()
        return rows if key is None else rows.filter(customer__key=key)

    def create_row(self, fields: JsonObject) -> Subscription:
        named = {
            name: find_named(name, find, self.tenant.id, fields[name])
            for name, find in (("customer", find_customer), ("plan", find_plan))
        }
        return super().create_row({**fields, **named})


def find_named(member: str, find: Callable[[int, str], Row], tenant_id: int, text: str) -> Row:
    """Return what a member of a body names. Raises ValidationError at the member."""
    try:
        return find(tenant_id, text)
    except NotFound as error:
        raise problem_at(member, error.detail, "unknown") from error


def find_plan(tenant_id: int, text: str) -> Plan:
    """Return the plan with this id, else with this name. Raises NotFound."""
    if "\x00" in text:  # which no name has, and PostgreSQL refuses to look for
        raise NotFound.of("plan", text)
    plans = Plan.objects.filter(tenant_id=tenant_id)
    plan = None
    if text.isascii() and text.isdecimal() and len(text) < 19:
        plan = plans.filter(id=int(text)).first()
    plan = plan or plans.filter(name=text).first()
    if plan is None:
        raise NotFound.of("plan", text)
    return plan
