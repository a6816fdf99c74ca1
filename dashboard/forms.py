"""Forms of pages: shown by a GET, taken once by a POST, and shown again with what was typed if they
were refused or the person had to sign in first.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import HttpResponse, HttpResponseBase, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from common.errors import MeteringError
from common.times import require_known_year
from dashboard.access import Page, PageRequest, member_page
from dashboard.frame import filter_bar_of, frame
from dashboard.navigation import TITLES
from tenants.form_tokens import (
    FORM_FIELD,
    AlreadySent,
    claim_form,
    is_of_other_tenant,
    new_form_token,
)

Saved = TypeVar("Saved")

# The button that was pressed after a question, and what the question was about.
CONFIRMED: Final = "_confirmed"
MOMENT: Final = "%Y-%m-%dT%H:%M"


def form_page(
    back: str,
    *,
    may: Callable[[PageRequest], bool],
    is_readable: bool = False,
    secret_fields: frozenset[str] = frozenset(),
) -> Callable[[Page], Page]:
    """A page with a form, for members who `may` send it; with `is_readable` every member looks.

    A form that was sent twice leads to the page `back`. Times are typed and shown in the tenant's
    zone. `secret_fields` are never kept for a person who has to sign in first.
    """

    def decorate(view: Page) -> Page:
        @wraps(view)
        def act(request: PageRequest, *args: object, **kwargs: object) -> HttpResponseBase:
            if not may(request) and not (is_readable and request.method != "POST"):
                raise PermissionDenied
            try:
                with timezone.override(ZoneInfo(request.tenant.timezone)):
                    return view(request, *args, **kwargs)
            except AlreadySent:
                messages.info(request, "This form was sent already; nothing was done twice.")
                return HttpResponseRedirect(reverse(f"dashboard:{back}"))

        page = require_http_methods(["GET", "HEAD", "POST"])(member_page(act))
        page.shows_kept_input = True  # type: ignore[attr-defined]
        page.secret_fields = secret_fields  # type: ignore[attr-defined]
        return page

    return decorate


def sent_data(request: PageRequest) -> QueryDict | None:
    """What a form is filled with: what was sent, or what was kept while the person signed in."""
    if request.method == "POST":
        return request.POST
    kept: QueryDict | None = getattr(request, "kept_input", None)
    return kept


def form_token(request: PageRequest) -> dict[str, str]:
    """The token of a form in a template's context: it is taken once, and in this tenant."""
    return {FORM_FIELD: new_form_token(request.tenant)}


def save_once(request: PageRequest, form: forms.Form, save: Callable[[], Saved]) -> Saved | None:
    """Write a sound form by `save`; None if it must be shown again, with the reasons in it.

    Raises AlreadySent for the second of two clicks.
    """
    if request.method != "POST":
        return None
    if is_of_other_tenant(request, request.tenant):
        words = f"This form was opened for another tenant; you are in “{request.tenant}” now."
        form.add_error(None, f"{words} Nothing was saved. Check and save again.")
    if not form.is_valid():
        return None
    try:
        with transaction.atomic():
            claim_form(request, request.tenant)
            return save()
    except MeteringError as error:
        form.add_error(None, error.detail)
    except ValidationError as error:
        add_errors(form, error)
    return None


def show_form(
    request: PageRequest,
    form: forms.Form,
    *,
    page: str,
    headline: str,
    back: tuple[str, str] | None = None,
    template: str = "dashboard/settings/form.html",
    **further: object,
) -> HttpResponse:
    """A form as a page of its own, with a way back: to `page`, or to the address and name."""
    address, words = back or (reverse(f"dashboard:{page}"), TITLES[page])
    context = frame(request, filter_bar_of(request), page=page) | {
        "headline": headline,
        "form": form,
        "crumb": address,
        "crumb_words": words,
        "cancel": address,
        **form_token(request),
        **further,
    }
    return render(request, template, context)


def add_errors(form: forms.Form, error: ValidationError) -> None:
    """Show what the domain refuses: at its field, or above the form where there is none."""
    by_field = error.error_dict if hasattr(error, "error_dict") else {"": [error]}
    for name, errors in by_field.items():
        form.add_error(name if name in form.fields else None, errors)


def moment_field(label: str, **options: Any) -> forms.DateTimeField:
    """A moment in the tenant's zone, to the minute."""
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format=MOMENT)
    return forms.DateTimeField(
        label=label, widget=widget, validators=[require_known_year], **options
    )


def shown_once(
    request: PageRequest, context: dict[str, object], *, secret: str, words: str, back: str
) -> HttpResponse:
    """The one page that shows a secret. It is stored nowhere, so a reload cannot show it again."""
    context |= {"secret": secret, "words": words, "back": reverse(f"dashboard:{back}")}
    response = render(request, "dashboard/settings/shown_once.html", context)
    response["Cache-Control"] = "no-store"
    return response
