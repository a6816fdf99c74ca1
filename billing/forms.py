"""What forms of credit and coupons ask for, on pages and in the admin alike."""

from decimal import Decimal
from typing import Any, ClassVar, Final

from django import forms
from django.core.exceptions import ValidationError

from billing.coupons import STATEMENTS_MAX
from billing.credits import PRIORITY_MAX, ROLLOVER_MONTHS_MAX
from billing.currencies import minor_units
from billing.models import Customer
from common.expectations import as_sentence
from metering.fields.forms import count_field
from tenants.number_fields import AmountField

PERCENT_MAX: Final = 100
PRIORITY: Final = 50


class AmountsForm(forms.Form):
    """A form with amounts in a customer's currency, which become minor units."""

    amounts: ClassVar[tuple[str, ...]] = ("amount",)

    def currency(self) -> str | None:
        """Return the currency that the amounts are in; None while no customer is known."""
        raise NotImplementedError

    def clean(self) -> dict[str, object]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        currency = self.currency()
        for name in self.amounts if currency else ():
            amount: Decimal | None = data.get(name)
            if amount is None:
                continue
            try:
                data[name] = minor_units(amount, str(currency))
            except ValueError as error:
                self.add_error(name, as_sentence(str(error)))
        return data


class OfCustomerForm(AmountsForm):
    """A form about one customer, by its key: there may be too many to choose from."""

    customer = forms.CharField(label="Customer's key", max_length=200)

    def clean_customer(self) -> Customer:
        # Row security shows the tenant's customers alone.
        key = self.cleaned_data["customer"]
        customer = Customer.objects.filter(key=key, archived_at=None).first()
        if customer is None:
            raise ValidationError("There is no customer with this key.")
        return customer

    def currency(self) -> str | None:
        customer: Customer | None = self.cleaned_data.get("customer")
        return None if customer is None else customer.currency


class GrantFields(OfCustomerForm):
    """Credit for a customer."""

    amount = AmountField(label="Amount", help_text="In the customer's currency, as in 500.00.")
    priority = count_field(
        "Priority",
        minimum=0,
        maximum=PRIORITY_MAX,
        initial=PRIORITY,
        help_text="Lower is drawn first.",
    )
    rollover_percent = count_field(
        "Rolls over, percent",
        maximum=PERCENT_MAX,
        required=False,
        help_text="What of the unused credit becomes new credit when it expires. Empty: nothing.",
    )
    rollover_max = AmountField(label="Rolls over, at most", required=False)
    rollover_months = count_field(
        "Rolled-over credit lasts, months",
        maximum=ROLLOVER_MONTHS_MAX,
        required=False,
        help_text="Without an end, if left empty.",
    )
    amounts = ("amount", "rollover_max")


class CouponFields(OfCustomerForm):
    """A discount on a customer's statements."""

    percent = AmountField(
        label="Percent off",
        required=False,
        maximum=PERCENT_MAX,
        help_text="Of a statement's own lines; or give an amount.",
    )
    amount = AmountField(
        label="Amount off", required=False, help_text="In the customer's currency."
    )
    statements_max = count_field(
        "Statements, at most",
        maximum=STATEMENTS_MAX,
        required=False,
        help_text="All, if left empty.",
    )
