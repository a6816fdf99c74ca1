"""Admin pages of coupons: give one to a customer, and end it."""

from typing import Any, Final

from django.contrib.admin import display, register
from django.http import HttpRequest
from django.utils import timezone

from billing.admin.forms import CreditAdmin, own
from billing.coupons import create_coupon, end_coupon, validate_coupon
from billing.currencies import money_of
from billing.forms import CouponFields
from billing.models import Coupon
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_site import actor_of, site

FIELDS: Final = ("customer", "name", "percent", "amount", "ends_at", "statements_max")


class CouponForm(CouponFields, RowForm):
    """A coupon of a customer."""

    class Meta:
        model = Coupon
        fields = FIELDS
        help_texts = {
            "name": "As statements have it.",
            "ends_at": "It is for statements whose period ends while it lasts.",
        }

    def judge(self) -> None:
        self.instance.starts_at = timezone.now()
        validate_coupon(self.instance)


@register(Coupon, site=site)
class CouponAdmin(CreditAdmin):
    """Discounts on statements."""

    form = CouponForm
    filled = FIELDS
    list_display = ("name", "customer_name", "discount", "starts_at", "ends_at", "statements_max")
    shown = (*list_display, "actor", "created_at")
    search_fields = ("name", "customer__key", "customer__name")
    end_verb = "End coupon"
    end_consequence = "Statements of periods that end later do not have it. Others keep it."
    end_done = "ended."

    @display(description="Discount")
    def discount(self, obj: Coupon) -> str:
        if obj.percent is not None:
            return f"{obj.percent.normalize():f}%"
        return money_of(obj.amount or 0, obj.customer.currency)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_over = obj is not None and obj.ends_at is not None and obj.ends_at <= timezone.now()
        return self.may_write(request) and not is_over

    def write(self, request: HttpRequest, filled: FilledForm) -> Coupon:
        return create_coupon(**own(request), **self.fields_of(filled))

    def end(self, request: HttpRequest, obj: Coupon) -> None:
        end_coupon(obj, actor=actor_of(request))
