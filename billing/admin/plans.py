"""Admin pages of plans with their versions, and of who is on them."""

from typing import Any

from django.contrib.admin import register
from django.http import HttpRequest
from unfold.admin import TabularInline

from billing.admin.reading import BILLING_ROLES, BillingAdmin
from billing.models import Plan, PlanVersion, Subscription
from tenants.admin_site import OfTenant, role_of, site


class VersionInline(OfTenant, TabularInline):
    """What the plan says from when on. A version never changes."""

    model = PlanVersion
    fields = ("number", "starts_at", "terms", "actor", "created_at")
    readonly_fields = fields
    ordering = ("-number",)
    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return role_of(request) in BILLING_ROLES


@register(Plan, site=site)
class PlanAdmin(BillingAdmin):
    """What customers are charged."""

    list_display = ("name", "currency", "interval", "anchor", "timezone", "archived_at")
    list_filter = ("interval", "anchor")
    search_fields = ("name",)
    ordering = ("name", "id")
    inlines = (VersionInline,)
    fields = (
        "name",
        "currency",
        "interval",
        "anchor",
        "timezone",
        "trial_days",
        "archived_at",
        "created_at",
    )


@register(Subscription, site=site)
class SubscriptionAdmin(BillingAdmin):
    """Who is on which plan, from when to when."""

    list_display = ("customer", "plan", "starts_at", "ends_at")
    list_select_related = ("customer", "plan")
    search_fields = ("customer__name", "customer__key", "plan__name")
    ordering = ("-starts_at", "-id")
    fields = ("customer", "plan", "starts_at", "ends_at", "created_at")
