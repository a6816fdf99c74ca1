"""`/v1/subscriptions`: which customer is on which plan."""

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers

from billing.api.references import (
    CustomerReference,
    OfCustomers,
    PlanReference,
    find_customer,
    find_plan,
    named,
)
from billing.models import Subscription
from billing.subscriptions import SUBSCRIPTIONS
from common.api.fields import StrictSerializer, Timestamp
from common.json_bodies import JsonObject
from metering.fields.body import errors_at_members


class SubscriptionBody(StrictSerializer):
    """A subscription. A PATCH may change `ends_at` alone."""

    id = serializers.IntegerField(read_only=True)
    customer = CustomerReference()
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
class Subscriptions(OfCustomers[Subscription]):
    """The subscriptions of the tenant."""

    model = Subscription
    noun = "subscription"
    kind = SUBSCRIPTIONS
    body = SubscriptionBody
    related = ("customer", "plan")
    order = ("id",)

    def create_row(self, fields: JsonObject) -> Subscription:
        tenant_id = self.tenant.id
        customer = named("customer", find_customer, tenant_id, fields["customer"])
        plan = named("plan", find_plan, tenant_id, fields["plan"])
        with errors_at_members(self.body()):
            return super().create_row({**fields, "customer": customer, "plan": plan})

    def update_row(self, row: Subscription, changes: JsonObject) -> Subscription:
        with errors_at_members(self.body()):
            return super().update_row(row, changes)
