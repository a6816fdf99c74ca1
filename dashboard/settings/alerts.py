"""Alerts: which rules are on, quiet hours and digests, what is done automatically, whom the
contacts of budgets reach, and maintenance windows.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from django import forms
from django.contrib import messages
from django.forms import BoundField
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from alerts.models import AlertSettings, MaintenanceWindow, Severity
from alerts.rules import COOL_DOWN_SECONDS_MAX, RULES, THRESHOLD_MAX, rule_values
from alerts.settings import (
    change_alert_settings,
    create_maintenance_window,
    end_maintenance_window,
    settings_of,
)
from dashboard.access import PageRequest, may_manage
from dashboard.budgets.visible import teams_of
from dashboard.buttons import button_of
from dashboard.enforcement.concerned import read_concerned
from dashboard.forms import (
    clock_field,
    form_page,
    form_token,
    moment_field,
    save_once,
    sent_data,
)
from dashboard.frame import filter_bar_of, frame
from dashboard.settings.contacts import read_contacts
from metering.fields.forms import count_field, match_words
from tenants.admin_site import actor_of

FIELDS: Final = (
    "quiet_from",
    "quiet_until",
    "cool_down_seconds",
    "digest_at",
    "halts_loops",
    "anomaly_limit_percent",
)
PARTS: Final = ("on", "threshold", "severity")
WINDOWS_MAX: Final = 100
REASON_CHARACTERS_MAX: Final = 1000


class RuleRow(NamedTuple):
    """A rule with its fields."""

    description: str
    default: str
    on: BoundField
    threshold: BoundField
    severity: BoundField


def _digits() -> forms.TextInput:
    return forms.TextInput(attrs={"inputmode": "numeric"})


class AlertsForm(forms.Form):
    """Quiet hours, cool-down, digests, automatic actions, and a row for each rule."""

    quiet_from = clock_field("Quiet hours from", required=False)
    quiet_until = clock_field(
        "Quiet hours until",
        required=False,
        help_text="What is not critical waits until they are over. Leave both empty for none.",
    )
    digest_at = clock_field(
        "Digests leave at", help_text="Daily and weekly ones; weekly ones on Monday."
    )
    cool_down_seconds = count_field(
        "Cool-down, seconds",
        minimum=0,
        maximum=COOL_DOWN_SECONDS_MAX,
        widget=_digits(),
        help_text="The same cause is not reported again within this time, unless it became more "
        "severe.",
    )
    halts_loops = forms.BooleanField(
        label="Halt sessions that loop",
        required=False,
        help_text="Their next calls are refused until someone lifts the halt.",
    )
    anomaly_limit_percent = count_field(
        "During a critical anomaly, reduce affected budgets to, %",
        maximum=99,
        required=False,
        widget=_digits(),
        help_text="Leave empty to keep them unchanged.",
    )

    def __init__(self, request: PageRequest, settings: AlertSettings) -> None:
        initial = {name: getattr(settings, name) for name in FIELDS}
        for name in RULES:
            values = rule_values(name, settings.rules)
            initial |= {f"{name}_{part}": values[part] for part in PARTS}
        super().__init__(sent_data(request), initial=initial)
        for name, rule in RULES.items():
            about = rule.description
            self.fields[f"{name}_on"] = forms.BooleanField(
                required=False, widget=forms.CheckboxInput(attrs={"aria-label": f"On: {about}"})
            )
            self.fields[f"{name}_threshold"] = count_field(
                "Threshold",
                maximum=THRESHOLD_MAX,
                widget=forms.TextInput(
                    attrs={"inputmode": "numeric", "aria-label": f"Threshold: {about}"}
                ),
            )
            self.fields[f"{name}_severity"] = forms.ChoiceField(
                choices=Severity.choices,
                widget=forms.Select(attrs={"aria-label": f"Severity: {about}"}),
            )

    @property
    def plain_fields(self) -> list[BoundField]:
        return [self[name] for name in FIELDS]

    @property
    def rule_rows(self) -> list[RuleRow]:
        return [
            RuleRow(
                rule.description,
                f"{rule.threshold:g}{'%' if rule.unit == 'percent' else f' {rule.unit}'}",
                *(self[f"{name}_{part}"] for part in PARTS),
            )
            for name, rule in RULES.items()
        ]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        begins, ends = data.get("quiet_from"), data.get("quiet_until")
        if (begins is None) != (ends is None):
            missing = "quiet_from" if begins is None else "quiet_until"
            self.add_error(missing, "Set both ends of the quiet hours, or leave both empty.")
        elif begins is not None and begins == ends:
            self.add_error("quiet_until", "The two ends must differ.")
        return data

    def rules(self) -> Any:
        """Every rule as the form has it."""
        return {
            name: {part: self.cleaned_data[f"{name}_{part}"] for part in PARTS} for name in RULES
        }


class MaintenanceForm(forms.Form):
    """From when to when unusual spend is expected, and why."""

    starts_at = moment_field("From")
    ends_at = moment_field("Until", help_text="At most 31 days later.")
    reason = forms.CharField(
        label="Reason",
        max_length=REASON_CHARACTERS_MAX,
        help_text="For people who wonder why they were not notified.",
    )


@dataclass(frozen=True)
class WindowLine:
    """A maintenance window as the page shows it."""

    row: MaintenanceWindow
    now: datetime

    @property
    def key(self) -> str:
        """Tells its parts of the page from those of others."""
        return str(self.row.id)

    @property
    def is_running(self) -> bool:
        return self.row.starts_at <= self.now

    @property
    def about(self) -> str:
        return match_words(self.row.match) if self.row.match else "all incidents"


@form_page("alerts", may=may_manage, is_readable=True)
def page(request: PageRequest) -> HttpResponse:
    """What is reported, to whom, and when not?"""
    form = AlertsForm(request, settings_of(request.tenant.id))
    is_locked = not may_manage(request)
    if is_locked:
        for field in form.fields.values():
            field.disabled = True

    def save() -> AlertSettings:
        return change_alert_settings(
            tenant=request.tenant,
            actor=actor_of(request),
            changes={name: form.cleaned_data[name] for name in FIELDS},
            rules=form.rules(),
        )

    if save_once(request, form, save) is not None:
        messages.success(request, "The alert settings were changed.")
        return HttpResponseRedirect(reverse("dashboard:alerts"))
    now = timezone.now()
    stored = MaintenanceWindow.objects.filter(tenant=request.tenant, ends_at__gt=now)
    windows = list(stored.order_by("starts_at")[:WINDOWS_MAX])
    concerned = read_concerned(request.tenant.id, teams_of(request), [row.match for row in windows])
    context = frame(request, filter_bar_of(request), page="alerts") | {
        "headline": headline_of(form),
        "sub": f"Times are in {request.tenant.timezone}.",
        "form": form,
        "is_locked": is_locked,
        "contacts": read_contacts(request.tenant.id),
        "windows": [WindowLine(row, now) for row in windows if concerned.has(row.match)],
        **form_token(request),
    }
    return render(request, "dashboard/settings/alerts.html", context)


@form_page("alerts", may=may_manage)
def add_maintenance(request: PageRequest) -> HttpResponse:
    """Announce a time in which unusual spend is expected."""
    now = timezone.now().replace(second=0, microsecond=0)
    form = MaintenanceForm(sent_data(request), initial={"starts_at": now})

    def save() -> MaintenanceWindow:
        return create_maintenance_window(
            tenant=request.tenant, actor=actor_of(request), match={}, **form.cleaned_data
        )

    if save_once(request, form, save) is not None:
        messages.success(request, "The maintenance window was added.")
        return HttpResponseRedirect(reverse("dashboard:alerts"))
    context = frame(request, filter_bar_of(request), page="alerts") | {
        "headline": "Add a maintenance window",
        "crumb": reverse("dashboard:alerts"),
        "crumb_words": "Alerts",
        "sub": f"Times are in {request.tenant.timezone}.",
        "intro": "What is not critical waits until it is over, and is sent then.",
        "form": form,
        "verb": "Add window",
        "cancel": reverse("dashboard:alerts"),
        **form_token(request),
    }
    return render(request, "dashboard/settings/form.html", context)


@button_of("alerts", may=may_manage)
def end_maintenance(request: PageRequest, window_id: int) -> str:
    """End a window now."""
    window = MaintenanceWindow.objects.filter(tenant=request.tenant, id=window_id).first()
    if window is None:
        raise Http404
    end_maintenance_window(window=window, actor=actor_of(request))
    return "The maintenance window ended. Notifications are sent immediately again."


def headline_of(form: AlertsForm) -> str:
    """The finding: how many rules are on, and whether there are quiet hours."""
    on = sum(bool(form.initial[f"{name}_on"]) for name in RULES)
    words = f"{on} of {len(RULES)} rules are on"
    begins, ends = form.initial["quiet_from"], form.initial["quiet_until"]
    if begins is None or ends is None:
        return f"{words}; no quiet hours"
    return f"{words}; quiet from {begins:%-I:%M %p} to {ends:%-I:%M %p}"
