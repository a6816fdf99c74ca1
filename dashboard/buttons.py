"""Buttons that act: a POST by who may, a sentence for the person, and back to where they were."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods

from common.errors import MeteringError
from dashboard.access import Page, PageRequest, member_page
from tenants.form_tokens import is_of_other_tenant

# Which page a form was on, so that the person comes back to it.
BACK: Final = "back"
OTHER_TENANT: Final = (
    "This button was shown for another tenant; you are in “{}” now. Nothing was changed."
)


def button_of(page: str, *, may: Callable[[PageRequest], bool]) -> Callable[..., Page]:
    """What a button posts to. The view acts, and answers what to tell the person.

    Leads back to where the button was, else to `page`; so does a GET, which is what signing in
    again makes of a POST. A button that was shown for another of the person's tenants does nothing.
    """

    def decorate(view: Callable[..., str]) -> Page:
        @wraps(view)
        def act(request: PageRequest, *args: object, **kwargs: object) -> HttpResponse:
            if request.method == "POST":
                if not may(request):
                    raise PermissionDenied
                if is_of_other_tenant(request, request.tenant):
                    messages.error(request, OTHER_TENANT.format(request.tenant))
                    return HttpResponseRedirect(reverse(f"dashboard:{page}"))
                try:
                    with _undone_if_refused():
                        said = view(request, *args, **kwargs)
                    messages.success(request, said)
                except MeteringError as error:
                    messages.error(request, error.detail)
            return HttpResponseRedirect(_back(request) or reverse(f"dashboard:{page}"))

        return require_http_methods(["GET", "HEAD", "POST"])(member_page(act))

    return decorate


def _undone_if_refused() -> AbstractContextManager[None]:
    """What was written before a refusal goes with it. A view that is outside of the tenant's
    transaction has transactions of its own.
    """
    return transaction.atomic() if connection.in_atomic_block else nullcontext()


def _back(request: PageRequest) -> str | None:
    """The page that the form names. One of another site is none."""
    address = request.POST.get(BACK, "")
    is_ours = address.startswith("/") and url_has_allowed_host_and_scheme(
        address, allowed_hosts=None
    )
    return address if is_ours else None
