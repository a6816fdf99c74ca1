"""A person's own account: the zone and the theme of pages, password and sessions."""

from typing import Final
from zoneinfo import available_timezones

from django import forms
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from dashboard.access import PageRequest
from dashboard.buttons import button_of
from dashboard.forms import form_page, form_token, save_once, sent_data
from dashboard.frame import filter_bar_of, frame
from tenants.roles import Role
from tenants.sign_in import end_other_sessions, set_own_timezone

BROWSERS: Final = "Same as the browser"


def is_member(request: PageRequest) -> bool:
    """Whether the person belongs to the tenant: everyone has an account."""
    return request.role in Role


class AccountForm(forms.Form):
    """How pages show times to the person."""

    timezone = forms.ChoiceField(
        label="Time zone",
        required=False,
        help_text="For times of day. Days, weeks and months begin in the workspace's zone.",
    )

    def __init__(self, request: PageRequest) -> None:
        super().__init__(sent_data(request), initial={"timezone": request.user.timezone})
        names = [(name, name) for name in sorted(available_timezones())]
        self.fields["timezone"].choices = [("", BROWSERS), *names]  # type: ignore[attr-defined]


@form_page("account", may=is_member)
def page(request: PageRequest) -> HttpResponse:
    """What is mine?"""
    form = AccountForm(request)

    def save() -> bool:
        set_own_timezone(user=request.user, timezone=form.cleaned_data["timezone"])
        return True

    if save_once(request, form, save):
        messages.success(request, "Your time zone was changed.")
        return HttpResponseRedirect(reverse("dashboard:account"))
    context = frame(request, filter_bar_of(request), page="account") | {
        "headline": "Your account",
        "sub": f"{request.user.email} · {request.role.value} of {request.tenant.name}",
        "form": form,
        **form_token(request),
    }
    return render(request, "dashboard/settings/account.html", context)


@button_of("account", may=is_member)
def end_sessions(request: PageRequest) -> str:
    """Sign the person out everywhere else."""
    update_session_auth_hash(request, end_other_sessions(request.user))
    return "You were signed out everywhere else."
