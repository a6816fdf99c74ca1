"""Admin page of a tenant's settings."""

from typing import Any, Final, cast
from zoneinfo import available_timezones

from django import forms
from django.contrib import messages
from django.contrib.admin import register
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminSelectWidget

from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_site import Context, TenantModelAdmin, actor_of, site, tenant_of
from tenants.models import Tenant
from tenants.number_fields import AmountField
from tenants.roles import ROLES_THAT_GRANT
from tenants.settings import change_settings

RATE_USD_MAX: Final = 1_000_000


class SettingsForm(RowForm):
    """What a tenant's usage is judged by where budgets and prices do not say."""

    timezone = forms.ChoiceField(
        widget=UnfoldAdminSelectWidget(),
        help_text="Defines when days and months begin on the pages.",
    )
    assumed_input_usd = AmountField(
        label="Assumed input rate, USD",
        required=False,
        maximum=RATE_USD_MAX,
        help_text="Per million tokens, for models without a price under the policy “assume”.",
    )
    assumed_output_usd = AmountField(
        label="Assumed output rate, USD",
        required=False,
        maximum=RATE_USD_MAX,
    )

    class Meta:
        model = Tenant
        fields = ("timezone", "unpriced_policy", "trusts_given_costs")

    def prepare(self) -> None:
        if "timezone" not in self.fields:
            return
        names = sorted(available_timezones() | {self.instance.timezone})
        cast(forms.ChoiceField, self.fields["timezone"]).choices = [(name, name) for name in names]
        for side in ("input", "output"):
            nanos = getattr(self.instance, f"assumed_{side}_nanos_per_mtok")
            if nanos is not None:
                whole, rest = divmod(nanos, 10**9)
                self.initial[f"assumed_{side}_usd"] = f"{whole}.{rest:09d}".rstrip("0").rstrip(".")

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        sides = ("assumed_input_usd", "assumed_output_usd")
        is_complete = all(data.get(side) is not None for side in sides)
        if data.get("unpriced_policy") == "assume" and not is_complete:
            self.add_error("unpriced_policy", "“Assume” needs both assumed rates.")
        return data


@register(Tenant, site=site)
class SettingsAdmin(TenantModelAdmin):
    """The present tenant's settings."""

    form = SettingsForm
    writers = ROLES_THAT_GRANT
    is_global = True
    fieldsets = (
        (None, {"fields": ("name", "timezone")}),
        (
            "Models without a price",
            {"fields": ("unpriced_policy", "assumed_input_usd", "assumed_output_usd")},
        ),
        ("Costs that others report", {"fields": ("trusts_given_costs",)}),
    )
    readonly_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        rows: QuerySet[Tenant] = super().get_queryset(request)
        return rows.filter(id=tenant_of(request).id)

    def has_add_permission(self, request: HttpRequest, obj: Tenant | None = None) -> bool:
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Tenant | None = None) -> Any:
        if self.may_write(request):
            return self.fieldsets
        return ((None, {"fields": ("name", "timezone", "unpriced_policy", "trusts_given_costs")}),)

    def changelist_view(self, request: HttpRequest, extra_context: Context = None) -> HttpResponse:
        """There is one row: its form."""
        return HttpResponseRedirect(
            reverse("admin:tenants_tenant_change", args=[tenant_of(request).id])
        )

    def write(self, request: HttpRequest, filled: FilledForm) -> Tenant:
        data = filled.data
        changes = {name: data[name] for name in SettingsForm.Meta.fields}
        for side in ("input", "output"):
            usd = data[f"assumed_{side}_usd"]
            changes[f"assumed_{side}_nanos_per_mtok"] = None if usd is None else int(usd * 10**9)
        return change_settings(tenant=tenant_of(request), actor=actor_of(request), changes=changes)

    def response_change(self, request: HttpRequest, obj: Tenant) -> HttpResponse:
        messages.success(request, "The settings were changed.")
        return HttpResponseRedirect(request.path)
