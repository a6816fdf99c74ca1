"""Signing in and out, passwords, and which of their tenants people look at.

These pages run outside the tenant's transaction: they hash passwords, which takes long, and open
short transactions of their own around what they read and write.
"""

from typing import Any, cast
from urllib.parse import urlsplit

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView, LogoutView
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.access import PageRequest, member_page
from dashboard.account_forms import AddressForm, ChangePasswordForm, NewPasswordForm, SignInForm
from tenants.attempts import TooSoon, format_wait
from tenants.client_address import client_address
from tenants.links import can_mail
from tenants.login_sessions import begin_session
from tenants.middleware import SESSION_TENANT
from tenants.models import User
from tenants.password_resets import ResetEnded, ask_for_reset, find_reset_user, reset_password
from tenants.passwords import TooManyHashes
from tenants.sign_in import WrongPassword, change_password, choose_password, sign_in

TOO_MANY_REQUESTS = 429
SERVICE_UNAVAILABLE = 503
GONE = 410

form_page = require_http_methods(["GET", "HEAD", "POST"])


def page_to_wait(
    request: HttpRequest, template: str, context: dict[str, Any], error: TooSoon | TooManyHashes
) -> HttpResponse:
    """The form again, with how long to wait. Nothing was tried."""
    if isinstance(error, TooSoon):
        words = f"Too many attempts. Wait {format_wait(error.seconds)}, then try again."
        status = TOO_MANY_REQUESTS
    else:
        words = "Too many people are signing in at the moment. Try again in a few seconds."
        status = SERVICE_UNAVAILABLE
    said = {**context, "refusal": f"{words} Nothing was changed."}
    response = render(request, template, said, status=status)
    response["Retry-After"] = str(error.seconds)
    return response


class LoginPage(LoginView):
    """Email address and password. Wrong ones make the next try wait; nothing locks."""

    template_name = "dashboard/login.html"
    form_class = SignInForm  # type: ignore[assignment]
    redirect_authenticated_user = True

    def get_form_kwargs(self) -> dict[str, object]:
        kwargs = super().get_form_kwargs()
        kwargs.pop("request")
        return kwargs

    def get_redirect_url(self, request: HttpRequest | None = None) -> str:
        """The page that asked to sign in first; none where that is this page."""
        address = super().get_redirect_url()
        return "" if urlsplit(address).path == self.request.path else address

    def form_valid(self, form: Any) -> HttpResponse:
        """Sign in, or say why not. Which of the two was wrong is not told."""
        try:
            user = sign_in(
                email=form.cleaned_data["username"],
                password=form.cleaned_data["password"],
                address=client_address(self.request),
            )
        except WrongPassword:
            return self.form_invalid(form)
        except (TooSoon, TooManyHashes) as error:
            context = self.get_context_data(form=form)
            return page_to_wait(self.request, self.template_name, context, error)
        begin_session(self.request, user)
        return HttpResponseRedirect(self.get_success_url())

    def form_invalid(self, form: object) -> HttpResponse:
        return self.render_to_response(self.get_context_data(form=form, is_wrong=True))


class LogoutPage(LogoutView):
    """POST signs out."""

    next_page = "dashboard:login"


@sensitive_post_parameters()
@form_page
@never_cache
@login_required
def password(request: HttpRequest) -> HttpResponse:
    """Change one's own password. Other sessions of the person end; this one stays."""
    user = cast(User, request.user)
    form = ChangePasswordForm(request.POST or None, email=user.email)
    template, context = "dashboard/password.html", {"form": form}
    if not form.is_valid():
        return render(request, template, context)
    try:
        changed = change_password(
            user=user,
            old=form.cleaned_data["old_password"],
            new=form.cleaned_data["new_password1"],
            address=client_address(request),
        )
    except WrongPassword:
        form.add_error("old_password", "Your old password was entered incorrectly.")
        return render(request, template, context)
    except (TooSoon, TooManyHashes) as error:
        return page_to_wait(request, template, context, error)
    update_session_auth_hash(request, changed)
    messages.success(request, "Your password was changed. You were signed out everywhere else.")
    return HttpResponseRedirect(reverse("dashboard:overview"))


@form_page
@never_cache
def forgotten(request: HttpRequest) -> HttpResponse:
    """Ask for a link to a new password. The answer is the same whether there is an account."""
    template = "dashboard/forgotten.html"
    if not can_mail():
        return render(request, template, {"can_mail": False})
    form = AddressForm(request.POST or None)
    context: dict[str, Any] = {"can_mail": True, "form": form}
    if form.is_valid():
        try:
            ask_for_reset(email=form.cleaned_data["email"], address=client_address(request))
        except TooSoon as error:
            return page_to_wait(request, template, context, error)
        context["asked_for"] = form.cleaned_data["email"]
    return render(request, template, context)


@sensitive_post_parameters()
@form_page
@never_cache
def new_password(request: HttpRequest, token: str) -> HttpResponse:
    """Choose a new password by a link. All sessions of the person end."""
    template = "dashboard/new_password.html"
    try:
        user = find_reset_user(token)
        form = NewPasswordForm(request.POST or None, email=user.email)
        context = {"form": form, "email": user.email}
        if not form.is_valid():
            return render(request, template, context)
        stored = choose_password(
            new=form.cleaned_data["new_password1"], address=client_address(request)
        )
        reset_password(token=token, stored_password=stored)
    except ResetEnded:
        return render(request, template, {"is_over": True}, status=GONE)
    except (TooSoon, TooManyHashes) as error:
        return page_to_wait(request, template, context, error)
    messages.success(request, "Your password was changed, and you were signed out everywhere.")
    return HttpResponseRedirect(reverse("dashboard:login"))


@require_POST
@member_page
def switch_tenant(request: HttpRequest) -> HttpResponse:
    """Look at another tenant that the person belongs to. Any other is not found."""
    member = cast(PageRequest, request)
    chosen = request.POST.get("tenant", "")
    for membership in member.memberships:
        if str(membership.tenant_id) == chosen:
            request.session[SESSION_TENANT] = membership.tenant_id
            return HttpResponseRedirect(reverse("dashboard:overview"))
    raise Http404("You are not a member of this tenant.")
