"""Admin pages of prepaid credit: grant it, look at its balance, take back what is left."""

from typing import Any, Final

from django.contrib.admin import display, register
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display as labelled

from billing.admin.forms import CreditAdmin, own
from billing.credits import grant_credit, validate_grant, void_credit
from billing.currencies import money_of
from billing.forms import GrantFields
from billing.models import CreditGrant
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_site import actor_of, site

TAKEN_BACK: Final = "taken back in the admin"
FIELDS: Final = (
    "customer",
    "amount",
    "kind",
    "priority",
    "expires_at",
    "rollover_percent",
    "rollover_max",
    "rollover_months",
    "reference",
)


class CreditGrantForm(GrantFields, RowForm):
    """Credit for a customer."""

    class Meta:
        model = CreditGrant
        fields = FIELDS
        help_texts = {"reference": "Such as the number of a payment."}

    def judge(self) -> None:
        self.instance.effective_at = timezone.now()
        validate_grant(self.instance)


@register(CreditGrant, site=site)
class CreditGrantAdmin(CreditAdmin):
    """Prepaid credit of customers."""

    form = CreditGrantForm
    filled = FIELDS
    list_display = (
        "customer_name",
        "kind",
        "amount_shown",
        "balance_shown",
        "priority",
        "state_shown",
        "expires_at",
    )
    list_filter = ("state", "kind")
    shown = (*list_display, "effective_at", "entries_shown", "reference", "actor", "created_at")
    end_verb = "Take credit back"
    end_consequence = (
        "What is left of it is gone. A wallet keeps what it needs for usage that no statement has "
        "charged yet and for calls in flight."
    )
    end_done = "taken back."

    @display(description="Balance")
    def balance_shown(self, obj: CreditGrant) -> str:
        return money_of(obj.balance, obj.customer.currency)

    @labelled(
        description="State", label={"scheduled": "info", "active": "success", "expired": "warning"}
    )
    def state_shown(self, obj: CreditGrant) -> str:
        return obj.state

    @display(description="Entries")
    def entries_shown(self, obj: CreditGrant) -> str:
        entries = obj.entries.order_by("-id")[:20]
        return "; ".join(
            " ".join(
                filter(
                    None,
                    (
                        entry.get_kind_display(),
                        money_of(entry.amount, obj.customer.currency),
                        entry.note and f"({entry.note})",
                    ),
                )
            )
            for entry in reversed(entries)
        )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request) and (obj is None or obj.balance > 0)

    def write(self, request: HttpRequest, filled: FilledForm) -> CreditGrant:
        return grant_credit(**own(request), **self.fields_of(filled))

    def end(self, request: HttpRequest, obj: CreditGrant) -> None:
        void_credit(obj, actor=actor_of(request), reason=TAKEN_BACK)
