"""Signing in and out, the password, and which of their tenants people look at."""

from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView, LogoutView, PasswordChangeView
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse, reverse_lazy
from django.views.decorators.http import require_POST

from dashboard.access import PageRequest, member_page
from tenants.middleware import SESSION_TENANT

TOO_MANY_REQUESTS = 429


class LoginPage(LoginView):
    """E-mail address and password. Too many wrong ones lock that address out for a while."""

    template_name = "dashboard/login.html"
    redirect_authenticated_user = True

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        """Say what was wrong; a lock-out in words of our own."""
        is_locked_out = bool(getattr(self.request, "axes_locked_out", False))
        # Answered here: the middleware would put a bare line in place of the page.
        self.request.axes_locked_out = False  # type: ignore[attr-defined]
        context = self.get_context_data(
            form=form,
            is_locked_out=is_locked_out,
            lockout_minutes=int(settings.AXES_COOLOFF_TIME.total_seconds() // 60),
        )
        status = TOO_MANY_REQUESTS if is_locked_out else 200
        return self.render_to_response(context, status=status)


class LogoutPage(LogoutView):
    """POST signs out."""

    next_page = "dashboard:login"


class PasswordPage(PasswordChangeView):
    """Change one's own password."""

    template_name = "dashboard/password.html"
    success_url = reverse_lazy("dashboard:overview")

    def form_valid(self, form: Any) -> HttpResponse:
        """Other sessions of the person end; this one goes on."""
        response = super().form_valid(form)
        messages.success(self.request, "Your password is changed.")
        return response


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
    raise Http404("You do not belong to this tenant.")
