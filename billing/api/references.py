"""How bodies and addresses of billing name customers and plans."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Final, TypeVar

from django.db.models import Model, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema_field
from rest_framework import serializers

from billing.models import Customer, Plan
from common.api.fields import Spoken, problem_at
from common.api.pagination import PAGE_PARAMETERS
from common.errors import NotFound
from common.values import normal_value
from tenants.api.resources import Resource
from tenants.roles import Scope

ID_DIGITS_MAX: Final = 18
CUSTOMER_PARAMETER: Final = OpenApiParameter("customer", str, description="A customer's key or id.")
_REFERENCE_SCHEMA: Final = {
    "oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "maxLength": 200}]
}
Row = TypeVar("Row", bound=Model)


class _Reference(Spoken):
    """A row by its id or by a name."""

    example: str

    def to_internal_value(self, data: object) -> str:
        if isinstance(data, bool) or not isinstance(data, int | str):
            raise serializers.ValidationError(f"must be a string, such as '{self.example}'")
        return normal_value(str(data))


@extend_schema_field({**_REFERENCE_SCHEMA, "example": "acme"})
class CustomerReference(_Reference):
    """A customer by its key, or by its id; answered as its key."""

    example = "acme"

    def to_representation(self, value: Customer) -> str:
        return value.key


@extend_schema_field({**_REFERENCE_SCHEMA, "example": "Scale"})
class PlanReference(_Reference):
    """A plan by its id, or by its name; answered as its id."""

    example = "Scale"

    def to_representation(self, value: Plan) -> int:
        return int(value.pk)


def find_customer(tenant_id: int, text: str) -> Customer:
    """Return the customer with this key, else with this id. Raises NotFound."""
    customers = Customer.objects.filter(tenant_id=tenant_id)
    customer = customers.filter(key=text).first()
    if customer is None and (row_id := _id_of(text)) is not None:
        customer = customers.filter(id=row_id).first()
    if customer is None:
        raise NotFound.of("customer", text)
    return customer


def find_plan(tenant_id: int, text: str) -> Plan:
    """Return the plan with this id, else with this name. Raises NotFound."""
    plans = Plan.objects.filter(tenant_id=tenant_id)
    row_id = _id_of(text)
    plan = None if row_id is None else plans.filter(id=row_id).first()
    plan = plan or plans.filter(name=text).first()
    if plan is None:
        raise NotFound.of("plan", text)
    return plan


def named(member: str, find: Callable[[int, str], Row], tenant_id: int, text: str) -> Row:
    """Return what a member of a body names. Raises ValidationError at the member."""
    try:
        return find(tenant_id, text)
    except NotFound as error:
        raise problem_at(member, error.detail, "unknown") from error


def _id_of(text: str) -> int | None:
    is_id = text.isascii() and text.isdecimal() and len(text) <= ID_DIGITS_MAX
    return int(text) if is_id else None


def customers_named(tenant_id: int, text: str) -> QuerySet[Customer]:
    """Return the customer with this key, else with this id: none or one."""
    customers = Customer.objects.filter(tenant_id=tenant_id)
    by_key, row_id = customers.filter(key=text), _id_of(text)
    return by_key if row_id is None or by_key.exists() else customers.filter(id=row_id)


class OfCustomers(Resource[Row]):
    """Rows of customers. A list has those of the customer that a query parameter names: all without
    it, none for a customer that there is not.
    """

    related: ClassVar[Sequence[str]] = ("customer",)
    order: ClassVar[Sequence[str]] = ("-id",)
    write_scope = Scope.BILLING
    parameters = {"list": (*PAGE_PARAMETERS, CUSTOMER_PARAMETER)}
    # The path to the customer.
    by: ClassVar[str] = "customer"

    def listed_rows(self) -> QuerySet[Row]:
        rows, text = self.rows(), self.request.query_params.get("customer")
        if text is None:
            return rows
        return rows.filter(**{f"{self.by}__in": customers_named(self.tenant.id, text)})
