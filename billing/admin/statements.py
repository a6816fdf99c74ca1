"""Admin pages of statements. A draft has no amounts here, because it is rated when it is read."""

from django.contrib.admin import display, register
from django.http import HttpRequest
from unfold.admin import TabularInline

from billing.admin.reading import BILLING_ROLES, BillingAdmin
from billing.currencies import money_of
from billing.models import Statement, StatementLine, StatementState
from tenants.admin_site import OfTenant, role_of, site


class LineInline(OfTenant, TabularInline):
    """The lines of a statement that is final."""

    model = StatementLine
    # The other key is of adjustments.
    fk_name = "statement"
    fields = ("position", "kind", "name", "quantity", "exact_amount", "amount")
    readonly_fields = fields
    ordering = ("position",)
    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return role_of(request) in BILLING_ROLES


@register(Statement, site=site)
class StatementAdmin(BillingAdmin):
    """What customers owe."""

    list_display = ("label", "customer", "state", "period_start", "period_end", "due")
    list_select_related = ("customer",)
    list_filter = ("state",)
    search_fields = ("number", "customer__name", "customer__key")
    ordering = ("-period_start", "-id")
    inlines = (LineInline,)
    fields = (
        "label",
        "customer",
        "state",
        "period_start",
        "period_end",
        "timezone",
        "due",
        "due_on",
        "finalized_at",
        "finalized_by",
        "voided_at",
    )
    readonly_fields = ("label", "due")

    @display(description="Number")
    def label(self, obj: Statement) -> str:
        return obj.number or f"draft {obj.pk}"

    @display(description="Due")
    def due(self, obj: Statement) -> str:
        if obj.state == StatementState.DRAFT:
            return "as rated when it is read"
        return money_of(obj.amount_due, obj.currency)
