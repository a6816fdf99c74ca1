"""What the admin pages of credit and coupons share."""

from typing import Any, ClassVar

from django.contrib.admin import display
from django.db.models import Model
from django.http import HttpRequest

from billing.admin.reading import SeenByBillers
from billing.currencies import money_of
from metering.fields.forms import MONEY_ROLES
from tenants.admin_forms import FilledForm
from tenants.admin_site import TenantModelAdmin, actor_of, tenant_of


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

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return self.may_write(request)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = self.shown if obj is not None else self.filled
        return ((None, {"fields": fields}),)

    def get_readonly_fields(self, request: HttpRequest, obj: object = None) -> tuple[str, ...]:
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
