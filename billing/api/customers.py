"""`/v1/customers`: who is billed, and which usage is whose."""

from operator import attrgetter
from typing import Any, Final

from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers

from billing.api.email import Email
from billing.api.references import find_customer
from billing.customers import (
    CUSTOMERS,
    LINK_DIMENSIONS,
    LINKS_MAX,
    PAYMENT_DAYS_MAX,
    TAX_RATES_MAX,
    validate_customer,
)
from billing.models import Customer, CustomerLink
from common.api.fields import (
    Amount,
    Choice,
    Count,
    Items,
    StrictSerializer,
    Text,
    Timestamp,
    Timezone,
    Value,
    problem_at,
)
from common.json_bodies import JsonObject
from metering.fields.body import RowBody
from tenants.api.resources import Resource
from tenants.roles import Scope

PERCENT_MAX: Final = 100
PERCENT_DECIMALS_MAX: Final = 6


class Percent(Amount):
    """A percentage from 0 to 100, kept as a decimal string."""

    example = "19"

    def to_internal_value(self, data: object) -> Any:
        percent = super().to_internal_value(data)
        if percent > PERCENT_MAX:
            raise serializers.ValidationError("must be at most 100")
        if percent != round(percent, PERCENT_DECIMALS_MAX):
            raise serializers.ValidationError(f"must have at most {PERCENT_DECIMALS_MAX} decimals")
        return f"{percent.normalize():f}"

    def to_representation(self, value: object) -> str:
        return str(value)


class TaxRateBody(StrictSerializer):
    """A tax on the net amount. Several are added, not compounded."""

    name = Text(max_length=60)
    percent = Percent()


class PartyBody(StrictSerializer):
    """Where statements go, and what is printed on them."""

    email = Email(required=False, allow_blank=True)
    address = Text(required=False, allow_blank=True, max_length=1000)
    country = Text(required=False, allow_blank=True, max_length=2)
    vat_id = Text(required=False, allow_blank=True, max_length=50)
    payment_terms_days = Count(required=False, min_value=0, max_value=PAYMENT_DAYS_MAX)


class LinkBody(StrictSerializer):
    """Usage of another dimension's value that is the customer's too."""

    dimension = Choice(choices=LINK_DIMENSIONS)
    value = Value()

    def get_fields(self) -> dict[str, Any]:
        # `from` is a word of Python.
        return {
            **super().get_fields(),
            "from": Timestamp(source="starts_at", required=False, allow_null=True),
            "to": Timestamp(source="ends_at", required=False, allow_null=True),
        }

    def validate(self, attrs: JsonObject) -> JsonObject:
        starts_at, ends_at = attrs.get("starts_at"), attrs.get("ends_at")
        if starts_at and ends_at and starts_at >= ends_at:
            raise problem_at("to", "must be after 'from'")
        return attrs


@extend_schema_field(LinkBody(many=True))
class Links(Items):
    """Further links, apart from the one on the customer's own key."""

    def __init__(self, **options: object) -> None:
        super().__init__(child=LinkBody(), max_length=LINKS_MAX, **options)

    def get_attribute(self, instance: Customer) -> list[CustomerLink]:
        # Those of a list's customers were read together.
        own = "customer", instance.key
        links = [each for each in instance.links.all() if (each.dimension, each.value) != own]
        return sorted(links, key=attrgetter("id"))


class CustomerBody(RowBody):
    """A customer. A PATCH changes the members it names; `links` replaces the further links."""

    id = serializers.IntegerField(read_only=True)
    key = Value(help_text="What usage names the customer by, in `customer`. It never changes.")
    name = Text()
    currency = Text(required=False, min_length=3, max_length=3)
    timezone = Timezone(required=False)
    billing = PartyBody(source="*", required=False)
    tax_rates = Items(child=TaxRateBody(), required=False, max_length=TAX_RATES_MAX)
    links = Links(required=False)
    stripe_customer = Text(required=False, allow_blank=True, max_length=100)
    created_at = Timestamp(read_only=True)

    model = Customer
    judge = staticmethod(validate_customer)

    def validate(self, attrs: JsonObject) -> JsonObject:
        for name in ("key", "currency"):
            if self.instance is not None and attrs.get(name, getattr(self.instance, name)) != (
                getattr(self.instance, name)
            ):
                raise serializers.ValidationError({name: "never changes; add another customer"})
        return super().validate(attrs)


@extend_schema_view(
    list=extend_schema(summary="List customers, oldest first"),
    create=extend_schema(
        summary="Add a customer",
        description="Usage whose `customer` is the key is the customer's, and that of `links`.",
    ),
    retrieve=extend_schema(summary="Show a customer"),
    partial_update=extend_schema(summary="Change a customer"),
    destroy=extend_schema(
        summary="Archive a customer",
        description="Its subscriptions end now; statements stay.",
    ),
)
class Customers(Resource[Customer]):
    """The customers of the tenant. An address names one by its id or its key."""

    model = Customer
    noun = "customer"
    kind = CUSTOMERS
    body = CustomerBody
    write_scope = Scope.BILLING

    def listed_rows(self) -> Any:
        return super().listed_rows().filter(archived_at=None).prefetch_related("links")

    def row(self) -> Customer:
        return find_customer(self.tenant.id, str(self.kwargs["customer_id"]))
