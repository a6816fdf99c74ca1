"""The admin page of alert settings: what the tenant is notified of, and when not."""

from typing import Any, ClassVar, Final

from django import forms
from django.contrib import messages
from django.contrib.admin import display, register
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html_join
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from alerts.models import AlertSettings, Severity
from alerts.rules import COOL_DOWN_SECONDS_MAX, RULES, THRESHOLD_MAX, rule_values
from alerts.settings import change_alert_settings, settings_of
from metering.fields.forms import MONEY_ROLES, count_field
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_site import Context, TenantModelAdmin, actor_of, site, tenant_of

SETTINGS_FIELDS: Final = (
    "quiet_from",
    "quiet_until",
    "cool_down_seconds",
    "digest_at",
    "halts_loops",
    "anomaly_limit_percent",
)
RULE_PARTS: Final = ("on", "threshold", "severity")


def rule_fields(name: str) -> tuple[str, str, str]:
    """Return the names of a rule's fields on the form."""
    on, threshold, severity = (f"{name}_{part}" for part in RULE_PARTS)
    return on, threshold, severity


def _fields_of_rules() -> dict[str, forms.Field]:
    fields: dict[str, forms.Field] = {}
    for name, rule in RULES.items():
        on, threshold, severity = rule_fields(name)
        fields[on] = forms.BooleanField(
            label="On", required=False, widget=UnfoldBooleanSwitchWidget()
        )
        fields[threshold] = count_field(
            "%" if rule.unit == "percent" else rule.unit.capitalize(),
            maximum=THRESHOLD_MAX,
            help_text=f"Default: {rule.threshold}.",
        )
        fields[severity] = forms.ChoiceField(
            label="Severity", choices=Severity.choices, widget=UnfoldAdminSelectWidget()
        )
    return fields


def clock_field(label: str, **options: Any) -> forms.TimeField:
    """Return a field for a time of day in the tenant's zone. The admin's widget assumes UTC."""
    return forms.TimeField(
        label=label, widget=UnfoldAdminTextInputWidget(attrs={"type": "time"}), **options
    )


class AlertSettingsBase(RowForm):
    """Quiet hours, cool-down, digests, loops and anomalies."""

    quiet_from = clock_field("From", required=False)
    quiet_until = clock_field("Until", required=False)
    digest_at = clock_field(
        "Digests leave at",
        help_text="Daily and weekly ones, in the tenant's zone; weekly ones on Monday.",
    )
    cool_down_seconds = count_field(
        "Cool-down, seconds",
        minimum=0,
        maximum=COOL_DOWN_SECONDS_MAX,
        help_text="The same cause is not reported again within this time, unless it became more "
        "severe.",
    )
    anomaly_limit_percent = count_field(
        "Reduce limits to, %",
        maximum=99,
        required=False,
        help_text="Share of limits that applies during a critical anomaly. Leave empty for all.",
    )

    class Meta:
        model = AlertSettings
        fields = SETTINGS_FIELDS
        labels = {"halts_loops": "Halt sessions that loop"}
        help_texts = {"halts_loops": "Their next calls are refused until someone lifts the halt."}

    def prepare(self) -> None:
        for name in RULES:
            values = rule_values(name, self.instance.rules)
            for part in RULE_PARTS:
                self.initial[f"{name}_{part}"] = values[part]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        begins, ends = data.get("quiet_from"), data.get("quiet_until")
        if (begins is None) != (ends is None):
            missing = "quiet_from" if begins is None else "quiet_until"
            self.add_error(missing, "Set both ends of the quiet hours, or leave both empty.")
        elif begins is not None and begins == ends:
            self.add_error("quiet_until", "The two ends must differ.")
        return data

    def rules(self) -> dict[str, dict[str, Any]]:
        """Return every rule as the form has it."""
        return {
            name: {part: self.cleaned_data[f"{name}_{part}"] for part in RULE_PARTS}
            for name in RULES
        }


def _describe(name: str, settings: AlertSettings) -> str:
    values = rule_values(name, settings.rules)
    state = f"{values['threshold']} {RULES[name].unit}, {values['severity']}"
    return state if values["on"] else "off"


# A row of fields for each rule there is.
AlertSettingsForm: Any = type("AlertSettingsForm", (AlertSettingsBase,), _fields_of_rules())


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
        *((rule.description, {"fields": (rule_fields(name),)}) for name, rule in RULES.items()),
    )
    shown_fields = (*SETTINGS_FIELDS, "rules_shown")

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
            changes={name: filled.data[name] for name in SETTINGS_FIELDS},
            rules=filled.form.rules(),
        )

    def response_change(self, request: HttpRequest, obj: AlertSettings) -> HttpResponse:
        messages.success(request, "The alert settings were changed.")
        return HttpResponseRedirect(request.path)
