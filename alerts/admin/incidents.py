"""Admin pages of incidents: what was seen, what happened to it, and what people do with it."""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from django import forms
from django.contrib import messages
from django.contrib.admin import SimpleListFilter, display, register
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action
from unfold.decorators import display as labelled
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from alerts.admin.lines import lines, moment_words
from alerts.errors import AlertError
from alerts.incident_lists import STATUSES, having_status
from alerts.incidents import acknowledge, assign, comment, resolve, snooze, status_of
from alerts.models import Incident, Severity
from common.money import usd_words
from metering.fields.forms import match_words
from tenants.admin_questions import Question, ask, sent
from tenants.admin_site import ReadOnlyAdmin, actor_of, role_of, site, tenant_of
from tenants.models import Tenant, User
from tenants.roles import SCOPES_BY_ROLE, Role, Scope

# Who may act on incidents: whoever is on call, besides those who may change what is configured.
ON_CALL_ROLES: Final = frozenset(
    role for role in Role if {Scope.ENFORCE, Scope.MANAGE} & SCOPES_BY_ROLE[role]
)
TEXT_CHARACTERS_MAX: Final = 5000
# The latest lines; all of them can be read through the API.
LINES_MAX: Final = 200
UNRESOLVED: Final = "unresolved"
SNOOZE_HOURS: Final = (
    ("1", "1 hour"),
    ("4", "4 hours"),
    ("24", "1 day"),
    ("168", "1 week"),
    ("0", "no longer: tell of it again"),
)


class NothingForm(forms.Form):
    """A deed that needs no words."""

    def __init__(self, tenant: Tenant, data: Any = None) -> None:
        super().__init__(data)


class RemarkForm(NothingForm):
    """What to say about it, if anything."""

    text = forms.CharField(
        label="Remark",
        required=False,
        max_length=TEXT_CHARACTERS_MAX,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
    )


class CommentForm(NothingForm):
    """A line for the timeline."""

    text = forms.CharField(
        label="Comment",
        max_length=TEXT_CHARACTERS_MAX,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
    )


class SnoozeForm(NothingForm):
    """For how long."""

    hours = forms.ChoiceField(
        label="For", initial="1", choices=SNOOZE_HOURS, widget=UnfoldAdminSelectWidget()
    )


class AssignForm(NothingForm):
    """To which member."""

    user = forms.ModelChoiceField(
        label="To",
        required=False,
        queryset=User.objects.none(),
        empty_label="nobody",
        widget=UnfoldAdminSelectWidget(),
    )

    def __init__(self, tenant: Tenant, data: Any = None) -> None:
        super().__init__(tenant, data)
        members = User.objects.filter(memberships__tenant=tenant).order_by("email")
        field: Any = self.fields["user"]
        field.queryset = members


class Deed(NamedTuple):
    """What a person may do with an incident."""

    verb: str
    consequence: str
    form: type[NothingForm]
    act: Callable[[Incident, str, Mapping[str, Any]], Incident]
    done: str


def _snooze(incident: Incident, actor: str, data: Mapping[str, Any]) -> Incident:
    hours = int(data["hours"])
    until = timezone.now() + timedelta(hours=hours) if hours else None
    return snooze(incident=incident, actor=actor, until=until)


ACKNOWLEDGE: Final = Deed(
    "Acknowledge",
    "Others see that you look at it, and pagers stop paging.",
    NothingForm,
    lambda incident, actor, data: acknowledge(incident=incident, actor=actor),
    "acknowledged.",
)
RESOLVE: Final = Deed(
    "Resolve",
    "Whoever was told of it is told that it is over. While the cause goes on it stays quiet; once "
    "it has rested for the cool-down, it is another incident.",
    RemarkForm,
    lambda incident, actor, data: resolve(incident=incident, actor=actor, text=data["text"]),
    "resolved.",
)
SNOOZE: Final = Deed(
    "Snooze",
    "Nobody is told of it for that time, unless it becomes critical.",
    SnoozeForm,
    _snooze,
    "snoozed.",
)
ASSIGN: Final = Deed(
    "Assign",
    "Others see who has it.",
    AssignForm,
    lambda incident, actor, data: assign(incident=incident, actor=actor, user=data["user"]),
    "assigned.",
)
COMMENT: Final = Deed(
    "Comment",
    "It stands in the timeline for good.",
    CommentForm,
    lambda incident, actor, data: comment(incident=incident, actor=actor, text=data["text"]),
    "the comment is written.",
)


class StatusFilter(SimpleListFilter):
    """Incidents that are not resolved, or those of one status."""

    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(status, status.capitalize()) for status in STATUSES]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """The first choice is what the list shows by itself."""
        for place, choice in enumerate(super().choices(changelist)):
            yield {**choice, "display": "Not resolved"} if place == 0 else choice

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """An incident's own page shows any."""
        if self.value() in STATUSES:
            return queryset.filter(having_status(str(self.value()), timezone.now()))
        return queryset.filter(resolved_at__isnull=True)


@register(Incident, site=site)
class IncidentAdmin(ReadOnlyAdmin):
    """Something people should look at, newest first."""

    list_display = (
        "severity_label",
        "title",
        "status",
        "about",
        "excess",
        "opened",
        "assigned_to",
    )
    list_display_links = ("title",)
    list_filter = (StatusFilter, "severity", "kind")
    list_select_related = ("assigned_to",)
    search_fields = ("title", "summary")
    ordering = ("-id",)
    actions_detail = ("acknowledge", "resolve", "snooze", "assign", "comment")
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "title",
                    "summary",
                    "severity_label",
                    "status",
                    "about",
                    "excess",
                    "opened",
                    "seen",
                    "assigned_to",
                )
            },
        ),
        ("What happened", {"fields": ("timeline",)}),
        ("Who was told", {"fields": ("told",)}),
    )

    @labelled(  # type: ignore[untyped-decorator]
        description="Severity",
        ordering="severity",
        label={
            Severity.INFO.value: "info",
            Severity.WARNING.value: "warning",
            Severity.CRITICAL.value: "danger",
        },
    )
    def severity_label(self, obj: Incident) -> str:
        return obj.severity

    @labelled(  # type: ignore[untyped-decorator]
        description="Status",
        label={
            "open": "danger",
            "acknowledged": "warning",
            "snoozed": "info",
            "resolved": "success",
        },
    )
    def status(self, obj: Incident) -> str:
        return status_of(obj)

    @display(description="About")
    def about(self, obj: Incident) -> str:
        return match_words(obj.match)

    @display(description="Beyond what was expected", ordering="excess_nanos")
    def excess(self, obj: Incident) -> str:
        return "—" if obj.excess_nanos is None else usd_words(obj.excess_nanos)

    @display(description="Opened", ordering="opened_at")
    def opened(self, obj: Incident) -> str:
        return moment_words(obj.opened_at)

    @display(description="Last seen", ordering="seen_at")
    def seen(self, obj: Incident) -> str:
        return moment_words(obj.seen_at)

    @display(description="Timeline")
    def timeline(self, obj: Incident) -> str:
        entries = list(obj.entries.order_by("-id")[:LINES_MAX])
        return lines(
            ((moment_words(one.at), one.get_kind_display(), one.actor), one.text)
            for one in reversed(entries)
        )

    @display(description="Deliveries")
    def told(self, obj: Incident) -> str:
        deliveries = obj.delivery_set.select_related("channel").order_by("-id")[:LINES_MAX]
        return lines(
            (
                (
                    moment_words(one.created_at),
                    str(one.channel or ", ".join(one.recipients)),
                    one.get_event_display(),
                ),
                f"{one.state}: {one.last_error}" if one.last_error else one.state,
            )
            for one in deliveries
        )

    def has_act_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Whoever is on call, as long as it is not resolved."""
        unresolved = Incident.objects.filter(
            tenant=tenant_of(request), id=object_id, resolved_at__isnull=True
        )
        return self.has_comment_permission(request) and unresolved.exists()

    def has_comment_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """After it was resolved too."""
        return role_of(request) in ON_CALL_ROLES

    @action(  # type: ignore[untyped-decorator]
        description="Acknowledge",
        permissions=["act"],
        icon="visibility",
        variant=ActionVariant.PRIMARY,
    )
    def acknowledge(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._do(request, object_id, ACKNOWLEDGE)

    @action(  # type: ignore[untyped-decorator]
        description="Resolve", permissions=["act"], icon="check"
    )
    def resolve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._do(request, object_id, RESOLVE)

    @action(  # type: ignore[untyped-decorator]
        description="Snooze", permissions=["act"], icon="snooze"
    )
    def snooze(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._do(request, object_id, SNOOZE)

    @action(  # type: ignore[untyped-decorator]
        description="Assign", permissions=["act"], icon="person_add"
    )
    def assign(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._do(request, object_id, ASSIGN)

    @action(  # type: ignore[untyped-decorator]
        description="Comment", permissions=["comment"], icon="comment"
    )
    def comment(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._do(request, object_id, COMMENT)

    def _do(self, request: HttpRequest, object_id: str, deed: Deed) -> HttpResponse:
        """Ask once more, then do it."""
        incident = self.get_queryset(request).filter(id=object_id).first()
        if incident is None:
            raise Http404
        back = reverse("admin:alerts_incident_change", args=[incident.id])
        form = deed.form(tenant_of(request), sent(request))
        if form.is_valid():
            try:
                deed.act(incident, actor_of(request), form.cleaned_data)
                messages.success(request, f"{incident.title}: {deed.done}")
            except (AlertError, ValidationError) as error:
                messages.error(request, " ".join(refusal_words(error)))
            return HttpResponseRedirect(back)
        question = Question(
            title=f"{deed.verb} “{incident.title}”?",
            verb=deed.verb,
            consequence=deed.consequence,
            facts=[("Status", status_of(incident)), ("Since", self.opened(incident))],
            back=back,
        )
        return ask(self, request, question=question, form=form)


def refusal_words(error: AlertError | ValidationError) -> list[str]:
    """Why something was not done, in sentences."""
    return [error.detail] if isinstance(error, AlertError) else error.messages
