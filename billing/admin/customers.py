"""Admin pages of customers, with the usage that is theirs."""

from typing import Any

from django.contrib.admin import register
from django.http import HttpRequest
from unfold.admin import TabularInline

from billing.admin.reading import BILLING_ROLES, BillingAdmin
from billing.models import Customer, CustomerLink
from tenants.admin_site import OfTenant, role_of, site


class LinkInline(OfTenant, TabularInline):
    """Which usage is the customer's."""

    model = CustomerLink
    fields = ("dimension", "value", "starts_at", "ends_at")
    readonly_fields = fields
    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return role_of(request) in BILLING_ROLES


@register(Customer, site=site)
class CustomerAdmin(BillingAdmin):
    """Who is billed."""

    list_display = ("name", "key", "currency", "timezone", "email", "archived_at")
    list_filter = ("currency",)
    search_fields = ("name", "key", "email")
    ordering = ("name", "id")
    inlines = (LinkInline,)
    fields = (
        "name",
        "key",
        "currency",
        "timezone",
        "email",
        "address",
        "country",
        "vat_id",
        "payment_terms_days",
        "tax_rates",
        "stripe_customer",
        "archived_at",
        "created_at",
    )
