"""A person's own account: the zone and the theme of pages, password and login sessions."""

from typing import Final

from django import forms
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse

from common.times import zone_names
from dashboard.access import PageRequest
from dashboard.buttons import button_of
from dashboard.forms import form_page, form_token, save_once, sent_data
from dashboard.frame import filter_bar_of, frame
from tenants.forms import ZoneField
from tenants.login_sessions import end_own_session, own_sessions
from tenants.roles import Role
from tenants.sign_in import end_other_sessions, set_own_timezone

BROWSERS: Final = "Same as the browser"
# What browsers and systems call themselves. The first that is found counts: most name others, too.
BROWSER_NAMES: Final = {
    "Edg": "Edge",
    "OPR/": "Opera",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "Chrome/": "Chrome",
    "CriOS/": "Chrome",
    "Safari/": "Safari",
}
SYSTEM_NAMES: Final = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "Windows": "Windows",
    "CrOS": "ChromeOS",
    "Mac OS X": "macOS",
    "Linux": "Linux",
}


def is_member(request: PageRequest) -> bool:
    """Whether the person belongs to the tenant: everyone has an account."""
    return request.role in Role


def browser_words(user_agent: str) -> str:
    """A browser by its header, as in "Firefox on Windows"."""
    browser, system = (
        next((name for mark, name in names.items() if mark in user_agent), "")
        for names in (BROWSER_NAMES, SYSTEM_NAMES)
    )
    return " on ".join(filter(None, [browser, system])) or "Unknown browser"


class AccountForm(forms.Form):
    """How pages show times to the person."""

    timezone = ZoneField(
        label="Time zone",
        required=False,
        help_text="For times of day. Days, weeks and months begin in the workspace's zone.",
    )

    def __init__(self, request: PageRequest) -> None:
        super().__init__(sent_data(request), initial={"timezone": request.user.timezone})
        names = [(name, name) for name in sorted(zone_names())]
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
        "sessions": [
            (session, browser_words(session.browser))
            for session in own_sessions(request.user, session_key=request.session.session_key)
        ],
        **form_token(request),
    }
    return render(request, "dashboard/settings/account.html", context)


@button_of("account", may=is_member)
def end_session(request: PageRequest, session_id: str) -> str:
    """Sign the person out in one browser."""
    if end_own_session(request.user, session_id):
        return "That browser was logged out."
    return "That browser was logged out already."


@button_of("account", may=is_member)
def end_sessions(request: PageRequest) -> str:
    """Sign the person out everywhere else."""
    update_session_auth_hash(request, end_other_sessions(request.user))
    return "You were signed out everywhere else."
