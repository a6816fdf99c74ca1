"""Admin pages of plans with their versions, and of who is on them."""

from typing import Any

from django.contrib.admin import register
from django.http import HttpRequest
from unfold.admin import TabularInline

from billing.admin.reading import BILLING_ROLES, KeptAdmin
from billing.forms import OfCustomerForm
from billing.models import Plan, PlanVersion, Subscription
from billing.plans import PLANS
from billing.subscriptions import SUBSCRIPTIONS
from tenants.admin_forms import RowForm
from tenants.admin_site import OfTenant, role_of, site


class VersionInline(OfTenant, TabularInline):
    """What the plan says from when on. A version never changes."""

    model = PlanVersion
    fields = ("number", "starts_at", "terms", "actor", "created_at")
    readonly_fields = fields
    ordering = ("-number",)
    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return role_of(request) in BILLING_ROLES

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


class PlanForm(RowForm):
    """What a plan is called; everything else of it is terms, which versions hold."""

    class Meta:
        model = Plan
        fields = ("name",)


@register(Plan, site=site)
class PlanAdmin(KeptAdmin):
    """What customers are charged. Plans and versions are made on their own page, beside what they
    would have billed.
    """

    kind = PLANS
    form = PlanForm
    list_display = ("name", "currency", "interval", "anchor", "timezone", "archived_at")
    list_filter = ("interval", "anchor")
    search_fields = ("name",)
    ordering = ("name", "id")
    inlines = (VersionInline,)
    filled = ("name",)
    changed = filled
    shown = (
        *("currency", "interval", "anchor", "timezone", "trial_days"),
        *("archived_at", "created_at"),
    )
    end_verb = "Archive plan"
    end_consequence = "No one can subscribe to it. Who has it keeps it."
    end_done = "archived."

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


class SubscriptionForm(OfCustomerForm, RowForm):
    """A customer on a plan, from when to when."""

    amounts = ()

    class Meta:
        model = Subscription
        fields = ("customer", "plan", "starts_at", "ends_at")
        help_texts = {
            "starts_at": "The plan before ends there.",
            "ends_at": "Leave empty until you end it.",
        }

    def prepare(self) -> None:
        if "plan" in self.fields:
            plans: Any = self.fields["plan"]
            # Without buttons beside it: plans are made on their own page.
            plans.widget = plans.widget.widget
            plans.queryset = plans.queryset.filter(archived_at=None)


@register(Subscription, site=site)
class SubscriptionAdmin(KeptAdmin):
    """Who is on which plan, from when to when."""

    kind = SUBSCRIPTIONS
    form = SubscriptionForm
    list_display = ("customer", "plan", "starts_at", "ends_at")
    list_select_related = ("customer", "plan")
    search_fields = ("customer__name", "customer__key", "plan__name")
    ordering = ("-starts_at", "-id")
    filled = SubscriptionForm.Meta.fields
    changed = ("ends_at",)
    shown = ("created_at",)
    end_verb = "Remove subscription"
    end_consequence = (
        "As if it had never been. Where a final statement charges for it, end it instead."
    )
