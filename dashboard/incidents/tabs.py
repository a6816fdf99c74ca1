"""What the pages of incidents share: tabs around them, who may act, and buttons that act."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, Generic, NamedTuple, TypeVar

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods

from alerts.models import Delivery, DeliveryState
from common.errors import MeteringError
from dashboard.access import Page, PageRequest, may_halt, may_manage, member_page
from dashboard.filter_bar import FilterBar
from dashboard.frame import frame, unresolved_incidents

TABS: Final = (
    ("incidents", "Incidents"),
    ("channels", "Channels"),
    ("deliveries", "Deliveries"),
)
# Which page a form was on, so that the person comes back to it.
BACK: Final = "back"

Row = TypeVar("Row", bound=Model)


def may_handle(request: PageRequest) -> bool:
    """Whether the person may acknowledge, snooze and resolve: those who may stop an agent."""
    return may_halt(request)


def may_change_channels(request: PageRequest) -> bool:
    """Whether the person may test and pause channels, and resend messages: those who may add and
    remove them in the admin.
    """
    return may_manage(request)


def incidents_frame(request: PageRequest, bar: FilterBar, *, tab: str) -> dict[str, Any]:
    """Values of the base template and of the tabs."""
    dead = Delivery.objects.filter(tenant=request.tenant, state=DeliveryState.DEAD)
    counts = {
        "incidents": unresolved_incidents(request.tenant.id),
        "deliveries": dead.count(),
    }
    return frame(request, bar, page="incidents") | {
        "tabs": [
            (words, bar.query(path=reverse(f"dashboard:{name}")), counts.get(name, 0), name == tab)
            for name, words in TABS
        ],
        "may_handle": may_handle(request),
        "may_change_channels": may_change_channels(request),
        "here": request.get_full_path(),
    }


class Newest(NamedTuple, Generic[Row]):
    """Rows, the newest first, and the id from which on older ones follow; None: there are none."""

    rows: list[Row]
    older: int | None


def newest_before(rows: QuerySet[Row], before: int | None, *, limit: int) -> Newest[Row]:
    """A page of rows by falling id: the newest, or what is older than `before`."""
    ordered = rows.order_by("-id")
    found = list((ordered.filter(id__lt=before) if before else ordered)[: limit + 1])
    older = found[limit - 1].pk if len(found) > limit else None
    return Newest(found[:limit], older)


def button_back_to(page: str, *, may: Callable[[PageRequest], bool]) -> Callable[..., Page]:
    """What a button posts to. The view acts, and answers what to tell the person.

    Leads back to where the button was, else to `page`; so does a GET, which is what signing in
    again makes of a POST.
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
            return HttpResponseRedirect(_back(request) or reverse(f"dashboard:{page}"))

        return require_http_methods(["GET", "HEAD", "POST"])(member_page(act))

    return decorate


def _back(request: PageRequest) -> str | None:
    """The page that the form names. One of another site is none."""
    address = request.POST.get(BACK, "")
    is_ours = address.startswith("/") and url_has_allowed_host_and_scheme(
        address, allowed_hosts=None
    )
    return address if is_ours else None
