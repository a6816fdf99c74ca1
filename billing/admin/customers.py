"""Admin pages of customers. Which usage is theirs is shown here, and changed on their own page."""

from typing import Any, Final

from django import forms
from django.contrib.admin import register
from django.http import HttpRequest
from unfold.admin import TabularInline

from billing.admin.reading import BILLING_ROLES, KeptAdmin
from billing.customers import CUSTOMERS, PAYMENT_DAYS_MAX, validate_customer
from billing.form_fields import TaxRatesField, stripe_help
from billing.models import Customer, CustomerLink
from metering.fields.forms import count_field
from tenants.admin_forms import RowForm
from tenants.admin_site import OfTenant, role_of, site, tenant_of
from tenants.forms import ZoneField, offer_zones

STRIPE_CUSTOMER_HELP: Final = "Its id there, cus_…, if Stripe collects the money."


class LinkInline(OfTenant, TabularInline):
    """Which usage is the customer's."""

    model = CustomerLink
    fields = ("dimension", "value", "starts_at", "ends_at")
    readonly_fields = fields
    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return role_of(request) in BILLING_ROLES

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


class CustomerForm(RowForm):
    """Who is billed, and what is printed on its statements."""

    payment_terms_days = count_field("Days to pay", minimum=0, maximum=PAYMENT_DAYS_MAX)
    tax_rates = TaxRatesField(widget=forms.Textarea(attrs={"rows": 2}))

    class Meta:
        model = Customer
        fields = (
            *("key", "currency", "name", "timezone", "email", "address", "country", "vat_id"),
            *("payment_terms_days", "tax_rates", "stripe_customer"),
        )
        help_texts = {
            "key": "What usage names the customer by, in “customer”. It never changes.",
            "currency": "Of its plans and statements, as in USD. It never changes.",
            "country": "Two letters, as in DE.",
        }

    def prepare(self) -> None:
        if "timezone" in self.fields:
            self.fields["timezone"] = ZoneField()
            offer_zones(self, self.instance.timezone)

    def clean_currency(self) -> str:
        return str(self.cleaned_data["currency"]).upper()

    def clean_country(self) -> str:
        return str(self.cleaned_data["country"]).upper()

    def judge(self) -> None:
        validate_customer(self.instance)


@register(Customer, site=site)
class CustomerAdmin(KeptAdmin):
    """Who is billed."""

    kind = CUSTOMERS
    form = CustomerForm
    list_display = ("name", "key", "currency", "timezone", "email", "archived_at")
    list_filter = ("currency",)
    search_fields = ("name", "key", "email")
    ordering = ("name", "id")
    inlines = (LinkInline,)
    filled = CustomerForm.Meta.fields
    changed = tuple(name for name in filled if name not in ("key", "currency"))
    shown = ("archived_at", "created_at")
    end_verb = "Archive customer"
    end_consequence = (
        "Its subscriptions and its wallet end now. What was billed stays, and so do its statements."
    )
    end_done = "archived."

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "stripe_customer":
            field.help_text = stripe_help(tenant_of(request).id, STRIPE_CUSTOMER_HELP)
        return field

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return self.inlines if obj is not None else ()
