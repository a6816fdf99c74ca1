"""What bodies of credit share: amounts in the currency of a customer that is named by its key."""

import re
from decimal import Decimal
from typing import Final

from drf_spectacular.utils import OpenApiParameter, extend_schema_field
from rest_framework import serializers

from billing.currencies import minor_units
from billing.models import Customer
from common.api.fields import Spoken, Value, problem_at
from common.expectations import as_sentence
from common.json_bodies import JsonObject
from metering.core.validation import Problem, require
from tenants.models import Tenant

AMOUNT_PATTERN: Final = r"^[0-9]{1,10}(\.[0-9]{1,4})?$"
PERCENT_PATTERN: Final = r"^[0-9]{1,3}(\.[0-9]{1,4})?$"
AMOUNT: Final = "must be a decimal string, as in '100.00'"
CUSTOMER_PARAMETER: Final = OpenApiParameter("customer", str, description="A customer's key.")


@extend_schema_field({"type": "string", "pattern": AMOUNT_PATTERN, "example": "100.00"})
class Amount(Spoken):
    """Money as a decimal string in the customer's currency."""

    example = "100.00"

    def to_internal_value(self, data: object) -> Decimal:
        if not isinstance(data, str) or re.fullmatch(AMOUNT_PATTERN, data) is None:
            raise serializers.ValidationError(AMOUNT)
        return Decimal(data)


@extend_schema_field({"type": "string", "pattern": PERCENT_PATTERN, "example": "10"})
class CouponPercent(Spoken):
    """A percentage as a decimal string."""

    example = "10"

    def to_internal_value(self, data: object) -> Decimal:
        if not isinstance(data, str) or re.fullmatch(PERCENT_PATTERN, data) is None:
            raise serializers.ValidationError("must be a decimal string up to 100, as in '12.5'")
        return Decimal(data)

    def to_representation(self, value: Decimal) -> str:
        return f"{value.normalize():f}"


class CustomerKey(Value):
    """A customer by its key."""

    example = "acme"


def find_customer(tenant: Tenant, key: str) -> Customer:
    """Return the customer with a key. Raises ValidationError at the member `customer`."""
    customer = Customer.objects.filter(tenant=tenant, key=key, archived_at=None).first()
    if customer is None:
        raise problem_at("customer", "No customer has this key.", "unknown")
    return customer


def in_minor_units(fields: JsonObject, currency: str, *names: str) -> JsonObject:
    """Return the fields with these amounts in minor units. Raises ValidationError by field, as the
    domain does, for more digits than the currency has.
    """
    amounts = {}
    for name in names:
        if fields.get(name) is not None:
            try:
                amounts[name] = minor_units(fields[name], currency)
            except ValueError as error:
                require([Problem(name, as_sentence(str(error)))])
    return {**fields, **amounts}


def percent_text(percent: Decimal) -> str:
    """Return a percentage as it is answered: 20, 17.5."""
    return f"{percent.normalize():f}"
