"""The page behind an invitation's link.

It looks the same whether or not the address has an account: who holds the link may be the one who
invited, and must not learn that.
"""

from typing import Any, Final, cast

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from dashboard.account_forms import NewPasswordForm, OwnPasswordForm
from dashboard.accounts import GONE, form_page, page_to_wait
from tenants.attempts import TooSoon
from tenants.client_address import client_address
from tenants.invitations import (
    HasAccount,
    InvitationEnded,
    WrongPerson,
    accept_invitation,
    accept_with_new_account,
    find_invitation,
)
from tenants.login_sessions import begin_session
from tenants.middleware import SESSION_TENANT
from tenants.models import Invitation, Membership, User
from tenants.passwords import TooManyHashes
from tenants.sign_in import WrongPassword, choose_password, sign_in

TEMPLATE: Final = "dashboard/invitation.html"


@sensitive_post_parameters()
@form_page
@never_cache
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """Join a tenant: signed in, with the password of an account, or with a new password."""
    try:
        invited = find_invitation(token)
        if request.user.is_authenticated:
            return _as_signed_in(request, invited, token)
        return _as_stranger(request, invited, token)
    except InvitationEnded as error:
        return render(
            request, "dashboard/invitation_over.html", {"state": error.state}, status=GONE
        )


def _as_signed_in(request: HttpRequest, invited: Invitation, token: str) -> HttpResponse:
    user = cast(User, request.user)
    if request.method == "POST":
        try:
            return _joined(request, accept_invitation(token=token, user=user), invited)
        except WrongPerson:
            pass  # the page says so
    context = {"invited": invited, "is_other": user.email != invited.email}
    return render(request, TEMPLATE, context)


def _as_stranger(request: HttpRequest, invited: Invitation, token: str) -> HttpResponse:
    has_account = request.POST.get("form") == "account"
    data = request.POST or None
    account = OwnPasswordForm(data if has_account else None)
    new = NewPasswordForm(None if has_account else data, email=invited.email)
    context: dict[str, Any] = {"invited": invited, "account": account, "new": new}
    try:
        if account.is_valid():
            return _with_account(request, invited, token, account.cleaned_data["password"])
        if new.is_valid():
            return _with_new_account(request, invited, token, new.cleaned_data["new_password1"])
    except WrongPassword:
        account.add_error("password", "This password does not match an account with this address.")
    except HasAccount:
        new.add_error(None, "This address already has an account. Use its password below.")
    except (TooSoon, TooManyHashes) as error:
        return page_to_wait(request, TEMPLATE, context, error)
    return render(request, TEMPLATE, context)


def _with_account(
    request: HttpRequest, invited: Invitation, token: str, password: str
) -> HttpResponse:
    user = sign_in(email=invited.email, password=password, address=client_address(request))
    membership = accept_invitation(token=token, user=user)
    begin_session(request, user)
    return _joined(request, membership, invited)


def _with_new_account(
    request: HttpRequest, invited: Invitation, token: str, password: str
) -> HttpResponse:
    stored = choose_password(new=password, address=client_address(request))
    membership = accept_with_new_account(token=token, stored_password=stored)
    begin_session(request, membership.user)
    return _joined(request, membership, invited)


def _joined(request: HttpRequest, membership: Membership, invited: Invitation) -> HttpResponse:
    request.session[SESSION_TENANT] = membership.tenant_id
    messages.success(request, f"You are now a member of {invited.tenant.name}.")
    return HttpResponseRedirect(reverse("dashboard:overview"))
