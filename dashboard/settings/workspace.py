"""The workspace: its zone, what a model without a price costs, whose costs are believed, and how
long usage is kept.
"""

from datetime import timedelta
from typing import Final

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from dashboard.access import PageRequest, may_grant
from dashboard.forms import form_page, form_token, save_once, sent_data
from dashboard.frame import filter_bar_of, frame
from tenants.admin_site import actor_of
from tenants.forms import SettingsFields, offer_zones
from tenants.models import Tenant, UnpricedPolicy
from tenants.settings import change_settings

POLICY_WORDS: Final = {
    UnpricedPolicy.REFUSE: "Refuse reservations for it under a cost budget that blocks",
    UnpricedPolicy.ASSUME: "Assume the rates below",
    UnpricedPolicy.ALLOW: "Allow it; it costs nothing until it has a price",
}


class WorkspaceForm(SettingsFields):
    """The settings of a workspace."""

    unpriced_policy = forms.ChoiceField(
        label="A model without a price",
        choices=[(policy.value, words) for policy, words in POLICY_WORDS.items()],
        widget=forms.RadioSelect(),
    )
    trusts_given_costs = forms.BooleanField(
        label="Trust costs inside OpenTelemetry and LiteLLM payloads",
        required=False,
        help_text="Otherwise every call is priced here. The field “cost_usd” of an event always "
        "counts.",
    )

    def __init__(self, request: PageRequest) -> None:
        tenant = request.tenant
        super().__init__(
            sent_data(request), initial={name: getattr(tenant, name) for name in self.base_fields}
        )
        offer_zones(self, tenant.timezone)
        self.order_fields(["timezone", "unpriced_policy"])


@form_page("workspace", may=may_grant, is_readable=True)
def page(request: PageRequest) -> HttpResponse:
    """What is usage judged by?"""
    form = WorkspaceForm(request)
    if not may_grant(request):
        for field in form.fields.values():
            field.disabled = True

    def save() -> Tenant:
        return change_settings(
            tenant=request.tenant, actor=actor_of(request), changes=form.cleaned_data
        )

    if save_once(request, form, save) is not None:
        messages.success(request, "The workspace's settings were changed.")
        return HttpResponseRedirect(reverse("dashboard:workspace"))
    tenant = request.tenant
    context = frame(request, filter_bar_of(request), page="workspace") | {
        "headline": f"{tenant.name}: days begin in {tenant.timezone}",
        "sub": "The operator of this service names workspaces and sets how long usage is kept.",
        "form": form,
        "is_locked": not may_grant(request),
        "kept": [
            ("Calls, with all that they carry", _days(settings.RETENTION_EVENTS)),
            ("Decisions", _days(settings.RETENTION_DECISIONS)),
            ("Incidents", _days(settings.RETENTION_INCIDENTS)),
            ("Audit log and finished jobs", _days(settings.RETENTION_HISTORY)),
        ],
        **form_token(request),
    }
    return render(request, "dashboard/settings/workspace.html", context)


def _days(kept: timedelta) -> str:
    return f"{kept.days:,} days"
