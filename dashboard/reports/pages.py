"""Saved views and scheduled reports: the list, and what people do with it."""

from typing import Final

from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_safe

from alerts.channels.email import can_mail_people
from alerts.models import Channel
from common.errors import NotFound
from dashboard.access import PageRequest, may_manage, member_page
from dashboard.buttons import button_of
from dashboard.frame import filter_bar_of, frame
from dashboard.models import Cadence, Readers, ReportSchedule, SavedView, SentReport
from dashboard.paging import number_of
from dashboard.reports import saved_views, schedules
from dashboard.reports.saved_views import may_save

VIEWS_MAX: Final = 200
SENT_SHOWN: Final = 5
HOURS_WORDS: Final = frozenset(map(str, schedules.HOURS))


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """Which views do we keep, and to whom do they go?"""
    bar = filter_bar_of(request)
    views = list(saved_views.readable_views(request)[:VIEWS_MAX])
    pinned = saved_views.pinned_of(request)
    number = len(views)
    headline = (
        f"{number:,} saved view{'' if number == 1 else 's'}" if views else "No saved views yet"
    )
    reports = _reports(request, views)
    if reports:
        headline += f", {len(reports):,} scheduled report{'' if len(reports) == 1 else 's'}"
    context = frame(request, bar, page="reports") | {
        "headline": headline,
        "views": [_line(request, view, pinned) for view in views],
        "reports": reports,
        "may_save": may_save(request),
        "readers": saved_views.reader_choices(request),
        "cadences": Cadence.choices,
        "hours": schedules.HOURS,
        "channels": schedules.usable_channels(request.tenant.id) if may_manage(request) else [],
        "can_mail": can_mail_people(),
        "explore": bar.with_further({}).query(path=reverse("dashboard:explore")),
    }
    return render(request, "dashboard/reports/page.html", context)


def _line(request: PageRequest, view: SavedView, pinned: SavedView | None) -> dict[str, object]:
    audience = f"{saved_views.TEAM_PREFIX}{view.team_id}" if view.team_id else view.readers
    return {
        "view": view,
        "address": f"{reverse('dashboard:explore')}?{view.query}",
        "is_pinned": view == pinned,
        "may_change": saved_views.may_change(request, view),
        "audience": audience,
        "words": _audience_words(view),
    }


def _audience_words(view: SavedView) -> str:
    if view.readers == Readers.TEAM and view.team is not None:
        return f"Team {view.team.name}"
    return Readers.TENANT.label if view.readers == Readers.TENANT else "Private"


def _reports(request: PageRequest, views: list[SavedView]) -> list[tuple[ReportSchedule, bool]]:
    """Schedules of these views that are the person's own, or for managers everyone's; each with
    what was sent last.
    """
    rows = ReportSchedule.objects.filter(tenant=request.tenant, view__in=views)
    if not may_manage(request):
        rows = rows.filter(owner=request.user)
    newest = SentReport.objects.order_by("-id").select_related("delivery")
    rows = rows.select_related("view", "owner", "channel").prefetch_related(
        Prefetch("sent", queryset=newest[:SENT_SHOWN], to_attr="latest")
    )
    return [
        (schedule, _may_change(request, schedule))
        for schedule in rows.order_by("view__name", "id")[:VIEWS_MAX]
    ]


def _may_change(request: PageRequest, schedule: ReportSchedule) -> bool:
    return may_manage(request) or (may_save(request) and schedule.owner_id == request.user.pk)


@require_safe
@member_page
def home(request: PageRequest) -> HttpResponse:
    """Where a person begins: the pinned view, else the overview."""
    view = saved_views.pinned_of(request)
    if view is None:
        return HttpResponseRedirect(reverse("dashboard:overview"))
    return HttpResponseRedirect(f"{reverse('dashboard:explore')}?{view.query}")


@button_of("reports", may=may_save)
def save(request: PageRequest) -> str:
    """Keep the view that the form names."""
    audience = saved_views.audience_of(request, request.POST.get("readers", ""))
    view = saved_views.save_view(
        request,
        name=request.POST.get("name", ""),
        query=request.POST.get("query", ""),
        audience=audience,
    )
    return f"Saved “{view.name}”."


@button_of("reports", may=may_save)
def rename(request: PageRequest, view_id: int) -> str:
    """Give a view another name and other readers."""
    view = _changeable(request, view_id)
    audience = saved_views.audience_of(request, request.POST.get("readers", ""))
    saved_views.rename_view(request, view, name=request.POST.get("name", ""), audience=audience)
    return "The view was changed."


@button_of("reports", may=may_save)
def delete(request: PageRequest, view_id: int) -> str:
    """Remove a view and its reports."""
    view = _changeable(request, view_id)
    saved_views.delete_view(request, view)
    return f"Deleted “{view.name}”."


@button_of("reports", may=may_save)
def pin(request: PageRequest, view_id: int) -> str:
    """Begin with this view."""
    view = _found(request, view_id)
    saved_views.pin_view(request, view)
    return f"“{view.name}” is your home page now."


@button_of("reports", may=may_save)
def unpin(request: PageRequest) -> str:
    """Begin with the overview."""
    saved_views.unpin_view(request)
    return "The overview is your home page again."


@button_of("reports", may=may_save)
def schedule(request: PageRequest, view_id: int) -> str:
    """Send a view by the clock."""
    made = schedules.create_schedule(
        request,
        view=_found(request, view_id),
        cadence=request.POST.get("cadence", ""),
        hour=int(hour) if (hour := request.POST.get("hour", "")) in HOURS_WORDS else -1,
        channel=_channel(request),
    )
    return f"“{made.view.name}” is sent {made.get_cadence_display().lower()} from now on."


@button_of("reports", may=may_save)
def unschedule(request: PageRequest, schedule_id: int) -> str:
    """Send a report no more."""
    schedules.delete_schedule(request, _schedule(request, schedule_id))
    return "This report is not sent any more."


@button_of("reports", may=may_save)
def test(request: PageRequest, schedule_id: int) -> str:
    """Send a report now."""
    schedules.send_test(request, _schedule(request, schedule_id))
    return "The report of the last whole period was queued."


def _found(request: PageRequest, view_id: int) -> SavedView:
    try:
        return saved_views.find_view(request, view_id)
    except NotFound as error:
        raise Http404 from error


def _changeable(request: PageRequest, view_id: int) -> SavedView:
    view = _found(request, view_id)
    if not saved_views.may_change(request, view):
        raise PermissionDenied
    return view


def _schedule(request: PageRequest, schedule_id: int) -> ReportSchedule:
    rows = ReportSchedule.objects.select_related("view", "owner", "channel", "tenant")
    schedule = get_object_or_404(rows, tenant=request.tenant, id=schedule_id)
    if not _may_change(request, schedule):
        raise PermissionDenied
    return schedule


def _channel(request: PageRequest) -> Channel | None:
    """The channel that the form names, which takes who manages channels; none for a mail."""
    text = request.POST.get("channel", "")
    if not text:
        return None
    if not may_manage(request):
        raise PermissionDenied
    wanted = number_of(text)
    channels = schedules.usable_channels(request.tenant.id)
    channel = next((row for row in channels if row.id == wanted), None)
    if channel is None:
        raise Http404
    return channel
