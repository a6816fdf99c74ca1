"""Alerts: which rules are on, quiet hours and digests, what is done automatically, whom the
contacts of budgets reach, and maintenance windows.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from django import forms
from django.contrib import messages
from django.forms import BoundField
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone

from alerts.forms import RULE_PARTS, SETTINGS, AlertSettingsFields, initial_of_rules, rule_fields
from alerts.models import AlertSettings, MaintenanceWindow
from alerts.rules import RULES
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
from dashboard.forms import form_page, form_token, moment_field, save_once, sent_data, show_form
from dashboard.frame import filter_bar_of, frame
from dashboard.settings.contacts import read_contacts
from metering.fields.forms import match_words
from tenants.admin_site import actor_of

WINDOWS_MAX: Final = 100
REASON_CHARACTERS_MAX: Final = 1000


class RuleRow(NamedTuple):
    """A rule with its fields."""

    description: str
    default: str
    on: BoundField
    threshold: BoundField
    severity: BoundField


class AlertsForm(AlertSettingsFields):
    """The settings, and a row for each rule."""

    def __init__(self, request: PageRequest, settings: AlertSettings) -> None:
        initial = {name: getattr(settings, name) for name in SETTINGS}
        super().__init__(sent_data(request), initial=initial | initial_of_rules(settings))
        self.fields |= rule_fields()

    @property
    def plain_fields(self) -> list[BoundField]:
        return [self[name] for name in SETTINGS]

    @property
    def rule_rows(self) -> list[RuleRow]:
        return [
            RuleRow(
                rule.description,
                f"{rule.threshold:g}{'%' if rule.unit == 'percent' else f' {rule.unit}'}",
                *(self[f"{name}_{part}"] for part in RULE_PARTS),
            )
            for name, rule in RULES.items()
        ]


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
            changes=form.changes(),
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
    return show_form(
        request,
        form,
        page="alerts",
        headline="Add a maintenance window",
        sub=f"Times are in {request.tenant.timezone}.",
        intro="What is not critical waits until it is over, and is sent then.",
        verb="Add window",
    )


@button_of("alerts", may=may_manage)
def end_maintenance(request: PageRequest, window_id: int) -> str:
    """End a window now."""
    window = get_object_or_404(MaintenanceWindow, tenant=request.tenant, id=window_id)
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
