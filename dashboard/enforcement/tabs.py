"""What the pages of enforcement share: tabs around them, buttons that act, and lists by pages."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from common.errors import MeteringError
from dashboard.access import Page, PageRequest, may_halt, may_manage, member_page
from dashboard.budget_windows import open_requests
from dashboard.filter_bar import PRESETS, FilterBar
from dashboard.frame import frame
from metering.models import Halt

TABS: Final = (
    ("requests", "Requests"),
    ("halts", "Halts"),
    ("decisions", "Decisions"),
    ("estimates", "Estimates"),
    ("unknown", "Outcome unknown"),
)
NUMBER_DIGITS_MAX: Final = 18


def enforcement_frame(request: PageRequest, bar: FilterBar, *, tab: str) -> dict[str, Any]:
    """Values of the base template and of the tabs."""
    counts = {
        "requests": open_requests(request.tenant.id, bar.now).total(),
        "halts": Halt.objects.filter(tenant=request.tenant, lifted_at=None).count(),
    }
    return frame(request, bar, page="enforcement") | {
        "tabs": [
            (words, bar.query(path=reverse(f"dashboard:{name}")), counts.get(name, 0), name == tab)
            for name, words in TABS
        ],
        "tab": tab,
        "may_manage": may_manage(request),
        "may_halt": may_halt(request),
    }


def button_of(page: str, *, may: Callable[[PageRequest], bool]) -> Callable[..., Page]:
    """What a button of a page posts to. The view acts, and answers what to tell the person.

    Leads back to the page; so does a GET, which is what signing in again makes of a POST.
    """

    def decorate(view: Callable[..., str]) -> Page:
        @wraps(view)
        def act(request: PageRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method == "POST":
                if not may(request):
                    raise PermissionDenied
                try:
                    messages.success(request, view(request, *args, **kwargs))
                except MeteringError as error:
                    messages.error(request, error.detail)
            return HttpResponseRedirect(reverse(f"dashboard:{page}"))

        return require_http_methods(["GET", "HEAD", "POST"])(member_page(act))

    return decorate


def number_of(text: str) -> int | None:
    """A whole number out of an address; None for what is none that a row can have."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX
    return int(text) if is_number else None


def query_of(bar: FilterBar, further: Mapping[str, str]) -> str:
    """The filter bar and what a page asks for besides, as a query string."""
    parts = (bar.query().removeprefix("?"), urlencode(further))
    return f"?{'&'.join(part for part in parts if part)}"


def periods_of(bar: FilterBar, further: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    """The presets of the filter bar as (query, words, is chosen), the rest of the page kept."""
    return [
        (query_of(bar.with_period(name), further), words, name == bar.preset)
        for name, words in PRESETS.items()
    ]
