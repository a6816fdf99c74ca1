"""Admin page of a tenant's settings."""

from typing import Any

from django.contrib import messages
from django.contrib.admin import register
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_site import Context, TenantModelAdmin, actor_of, site, tenant_of
from tenants.forms import RATES, SettingsFields, offer_zones
from tenants.models import Tenant
from tenants.roles import ROLES_THAT_GRANT
from tenants.settings import change_settings


class SettingsForm(SettingsFields, RowForm):
    """The settings of a tenant."""

    class Meta:
        model = Tenant
        fields = ("timezone", "unpriced_policy", *RATES, "trusts_given_costs")

    def prepare(self) -> None:
        offer_zones(self, self.instance.timezone)


@register(Tenant, site=site)
class SettingsAdmin(TenantModelAdmin):
    """The present tenant's settings."""

    form = SettingsForm
    writers = ROLES_THAT_GRANT
    is_global = True
    fieldsets = (
        (None, {"fields": ("name", "timezone")}),
        ("Models without a price", {"fields": ("unpriced_policy", *RATES)}),
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
        changes = {name: filled.data[name] for name in SettingsForm.Meta.fields}
        return change_settings(tenant=tenant_of(request), actor=actor_of(request), changes=changes)

    def response_change(self, request: HttpRequest, obj: Tenant) -> HttpResponse:
        messages.success(request, "The settings were changed.")
        return HttpResponseRedirect(request.path)
