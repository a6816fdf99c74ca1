"""What the forms of credit and coupons share: a customer by its key, amounts in its currency."""

from decimal import Decimal
from typing import Any, ClassVar

from django import forms
from django.contrib.admin import display
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.admin.reading import SeenByBillers
from billing.currencies import minor_units, money_of
from billing.models import Customer
from common.expectations import as_sentence
from metering.fields.forms import MONEY_ROLES
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_site import TenantModelAdmin, actor_of, tenant_of
from tenants.number_fields import AmountField


class CustomerField(forms.CharField):
    """A customer by its key: there may be too many to choose from."""

    def __init__(self, **options: Any) -> None:
        options = {"max_length": 200, "widget": UnfoldAdminTextInputWidget(), **options}
        super().__init__(label="Customer", help_text="The customer's key.", **options)


def customer_of(key: str) -> Customer:
    """Return the customer of a key. Raises ValidationError."""
    # Row security shows the tenant's customers alone.
    customer = Customer.objects.filter(key=key, archived_at=None).first()
    if customer is None:
        raise ValidationError("No customer has this key.")
    return customer


class CreditForm(RowForm):
    """A form with a customer, and amounts that have the digits of its currency."""

    customer = CustomerField()
    amount = AmountField(help_text="In the customer's currency.")
    amounts: ClassVar[tuple[str, ...]] = ("amount",)

    def clean_customer(self) -> Customer:
        return customer_of(self.cleaned_data["customer"])

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        customer = data.get("customer")
        for name in self.amounts:
            amount = data.get(name)
            if customer is not None and isinstance(amount, Decimal):
                try:
                    data[name] = minor_units(amount, customer.currency)
                except ValueError as error:
                    self.add_error(name, as_sentence(str(error)))
        return data


class CreditAdmin(SeenByBillers, TenantModelAdmin):
    """Rows of customers that are made and ended, and never changed."""

    writers = MONEY_ROLES
    list_select_related = ("customer",)
    search_fields: ClassVar[tuple[str, ...]] = ("customer__key", "customer__name")
    ordering = ("-id",)
    # What the form has, and the columns and methods that a row is shown by.
    filled: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[tuple[str, ...]] = ()

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = self.shown if obj is not None else self.filled
        return ((None, {"fields": fields}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.shown if obj is not None else ()

    def fields_of(self, filled: FilledForm) -> dict[str, Any]:
        """Return what was filled in, without what was left empty."""
        return {
            name: value
            for name in filled.form.fields
            if (value := filled.data[name]) is not None and value != ""
        }

    @display(description="Customer", ordering="customer__name")
    def customer_name(self, obj: Any) -> str:
        return str(obj.customer.name)

    @display(description="Amount")
    def amount_shown(self, obj: Any) -> str:
        return money_of(obj.amount, obj.customer.currency)


def own(request: HttpRequest) -> dict[str, Any]:
    """Return the tenant and the actor of a request, as the domain's functions take them."""
    return {"tenant": tenant_of(request), "actor": actor_of(request)}
