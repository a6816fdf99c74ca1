"""The admin page of alert settings: what the tenant is notified of, and when not."""

from typing import Any, ClassVar

from django.contrib import messages
from django.contrib.admin import display, register
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html_join

from alerts.forms import RULE_PARTS, SETTINGS, AlertSettingsFields, initial_of_rules, rule_fields
from alerts.models import AlertSettings
from alerts.rules import RULES, rule_values
from alerts.settings import change_alert_settings, settings_of
from metering.fields.forms import MONEY_ROLES
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_site import Context, TenantModelAdmin, actor_of, site, tenant_of


class AlertSettingsBase(AlertSettingsFields, RowForm):
    """The tenant's one row."""

    class Meta:
        model = AlertSettings
        fields = SETTINGS

    def prepare(self) -> None:
        self.initial.update(initial_of_rules(self.instance))


# A row of fields for each rule there is.
AlertSettingsForm: Any = type("AlertSettingsForm", (AlertSettingsBase,), rule_fields())


def _describe(name: str, settings: AlertSettings) -> str:
    values = rule_values(name, settings.rules)
    state = f"{values['threshold']} {RULES[name].unit}, {values['severity']}"
    return state if values["on"] else "off"


@register(AlertSettings, site=site)
class AlertSettingsAdmin(TenantModelAdmin):
    """The present tenant's alert settings."""

    form = AlertSettingsForm
    writers = MONEY_ROLES
    fieldsets: ClassVar[Any] = (
        (
            "Quiet hours",
            {
                "description": "In the tenant's zone. Incidents that are not critical wait until "
                "they are over, and are sent then.",
                "fields": (("quiet_from", "quiet_until"),),
            },
        ),
        ("Notification timing", {"fields": (("cool_down_seconds", "digest_at"),)}),
        ("Automatic actions", {"fields": ("halts_loops", "anomaly_limit_percent")}),
        *(
            (rule.description, {"fields": (tuple(f"{name}_{part}" for part in RULE_PARTS),)})
            for name, rule in RULES.items()
        ),
    )
    shown_fields = (*SETTINGS, "rules_shown")

    @display(description="Rules")
    def rules_shown(self, obj: AlertSettings) -> str:
        return format_html_join(
            "",
            '<p class="break-words pb-2"><b class="font-semibold">{}</b><br>{}</p>',
            ((RULES[name].description, _describe(name, obj)) for name in RULES),
        )

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> AlertSettings | None:
        """Return the tenant's one row, by the tenant's id, also if it was never saved."""
        tenant = tenant_of(request)
        return settings_of(tenant.id) if object_id == str(tenant.id) else None

    def has_add_permission(self, request: HttpRequest, obj: AlertSettings | None = None) -> bool:
        return False

    def get_fieldsets(self, request: HttpRequest, obj: AlertSettings | None = None) -> Any:
        return (
            self.fieldsets if self.may_write(request) else ((None, {"fields": self.shown_fields}),)
        )

    def get_readonly_fields(
        self, request: HttpRequest, obj: AlertSettings | None = None
    ) -> tuple[str, ...]:
        return () if self.may_write(request) else self.shown_fields

    def changelist_view(self, request: HttpRequest, extra_context: Context = None) -> HttpResponse:
        """Show the form of the only row."""
        return HttpResponseRedirect(
            reverse("admin:alerts_alertsettings_change", args=[tenant_of(request).id])
        )

    def write(self, request: HttpRequest, filled: FilledForm) -> AlertSettings:
        return change_alert_settings(
            tenant=tenant_of(request),
            actor=actor_of(request),
            changes=filled.form.changes(),
            rules=filled.form.rules(),
        )

    def response_change(self, request: HttpRequest, obj: AlertSettings) -> HttpResponse:
        messages.success(request, "The alert settings were changed.")
        return HttpResponseRedirect(request.path)
