"""Admin pages of breakers: what opens them, where they are open, and closing them."""

from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.contrib.admin import display, register
from django.contrib.admin.views.main import ChangeList
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminSelectWidget

from common.money import usd_words
from metering.admin.rate_limits import GroupedForm, question_about_mode
from metering.configuration.breakers import (
    CALLS_MAX,
    COOL_DOWN_SECONDS_MAX,
    LIMIT_PERCENT_MAX,
    PER_DEFAULT,
    close_breaker,
    create_breaker,
    delete_breaker,
    update_breaker,
    validate_breaker,
)
from metering.core.match import ASKABLE, PER_MAX, Grouping
from metering.fields.forms import MONEY_ROLES, UsdField, count_field, match_words
from metering.limits.breakers.states import OpenGroup, group_values, open_groups
from metering.models import Breaker, BreakerClose, Mode
from tenants.admin_questions import Question
from tenants.admin_site import TenantModelAdmin, actor_of, site, tenant_of


class BreakerForm(GroupedForm):
    """What opens it, and what happens then."""

    cost_nanos_per_minute = UsdField(
        label="Spend within 60 seconds, USD", required=False, help_text="More than this opens it."
    )
    error_percent = count_field("Failed calls, %", maximum=100, required=False)
    error_min_calls = count_field("Of at least so many calls", maximum=CALLS_MAX)
    tokens_times = count_field(
        "A call's tokens, times the usual", minimum=2, maximum=CALLS_MAX, required=False
    )
    usual_min_calls = count_field("Known after so many calls", maximum=CALLS_MAX)
    limit_percent = count_field(
        "Tighten budgets to, %",
        maximum=LIMIT_PERCENT_MAX,
        required=False,
        help_text="Empty: it stops the calls. Else they go on, and the limits of their budgets "
        "count so much less.",
    )
    cool_down_seconds = count_field("Cool-down, seconds", maximum=COOL_DOWN_SECONDS_MAX)

    class Meta:
        model = Breaker
        fields = (
            "name",
            "mode",
            "match",
            "per",
            "cost_nanos_per_minute",
            "error_percent",
            "error_min_calls",
            "tokens_times",
            "usual_min_calls",
            "limit_percent",
            "close",
            "cool_down_seconds",
        )
        labels = {"close": "Closes"}
        help_texts = {"close": "By hand, or by a trial: one call is let through after a cool-down."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "per" in self.fields:
            per: Any = self.fields["per"]
            per.choices = [(name, name) for name in ASKABLE]
            per.help_text = (
                "Each is watched and stopped by itself. Nothing chosen: all calls together. At "
                f"most {PER_MAX}."
            )
        if self.instance._state.adding:
            self.initial["per"] = list(PER_DEFAULT)
            for name in ("error_min_calls", "usual_min_calls", "cool_down_seconds"):
                self.initial[name] = getattr(self.instance, name)

    def judge(self) -> None:
        validate_breaker(self.instance)


class CloseForm(forms.Form):
    """Which group to close; all of them unless one is chosen."""

    group = forms.ChoiceField(required=False, widget=UnfoldAdminSelectWidget())

    def __init__(self, breaker: Breaker, groups: Sequence[OpenGroup], data: Any = None) -> None:
        super().__init__(data)
        choices = [(one.group_key, group_words(breaker, one)) for one in groups]
        self.fields["group"].choices = [("", "every group"), *choices]  # type: ignore[attr-defined]


def group_words(breaker: Breaker, one: OpenGroup) -> str:
    """A group, for people."""
    values = group_values(Grouping(breaker.match, breaker.per), one.group_key)
    return ", ".join(f"{name} {value or '(none)'}" for name, value in values.items()) or "all calls"


def groups_open(breaker: Breaker) -> list[OpenGroup]:
    """Where a breaker is open, the latest first."""
    return groups_of([breaker]).get(breaker.id, [])


def groups_of(breakers: Sequence[Breaker]) -> dict[int, list[OpenGroup]]:
    """Where breakers of a tenant are open, by breaker."""
    if not breakers:
        return {}
    ids = [breaker.id for breaker in breakers]
    with connection.cursor() as cursor:
        return open_groups(cursor, breakers[0].tenant_id, ids, now=timezone.now())


SHOWN: Final = ("name", "mode", "opens_when", "counts", "for_each", "does", "open_now")


@register(Breaker, site=site)
class BreakerAdmin(TenantModelAdmin):
    """Stops whoever spends too fast, fails too often, or asks for far more tokens than usual."""

    form = BreakerForm
    writers = MONEY_ROLES
    list_display = ("name", "opens_when", "counts", "for_each", "does", "open_now")
    search_fields = ("name",)
    ordering = ("name",)
    actions_detail = ("close_by_hand",)
    end_verb = "Remove breaker"
    end_consequence = (
        "Nothing opens any more, and what it has open closes: whoever it stopped may spend again "
        "within a second."
    )
    end_done = "removed."
    fieldsets = (
        (None, {"fields": ("name", "mode", "open_now")}),
        (
            "Opens for",
            {
                "description": "Any of them, whichever happens first.",
                "fields": (
                    "cost_nanos_per_minute",
                    ("error_percent", "error_min_calls"),
                    ("tokens_times", "usual_min_calls"),
                ),
            },
        ),
        ("Which calls", {"fields": ("match", "per")}),
        ("Then", {"fields": ("limit_percent", ("close", "cool_down_seconds"))}),
    )

    @display(description="Opens for")
    def opens_when(self, obj: Breaker) -> str:
        parts = []
        if obj.cost_nanos_per_minute is not None:
            parts.append(f"more than {usd_words(obj.cost_nanos_per_minute)} a minute")
        if obj.error_percent is not None:
            parts.append(f"{obj.error_percent} % failed calls")
        if obj.tokens_times is not None:
            parts.append(f"{obj.tokens_times:,} times the usual tokens")
        return ", ".join(parts)

    @display(description="Watches")
    def counts(self, obj: Breaker) -> str:
        return match_words(obj.match)

    @display(description="For each")
    def for_each(self, obj: Breaker) -> str:
        return ", ".join(obj.per) or "—"

    @display(description="Then")
    def does(self, obj: Breaker) -> str:
        if obj.mode != Mode.ENFORCE:
            return f"nothing ({obj.mode})"
        act = f"budgets at {obj.limit_percent} %" if obj.limit_percent else "stops calls"
        by = "a trial" if obj.close == BreakerClose.TRIAL else "hand"
        return f"{act} until closed by {by}"

    @display(description="Open now")
    def open_now(self, obj: Breaker) -> str:
        if obj._state.adding:
            return "—"
        found = obj.open_groups if hasattr(obj, "open_groups") else groups_open(obj)
        lines = [
            f"{group_words(obj, one)}: {one.why} ({one.opened_at:%Y-%m-%d %H:%M} UTC)"
            for one in found[:5]
        ]
        if len(found) > len(lines):
            lines.append(f"and {len(found) - len(lines)} more")
        return "; ".join(lines) or "—"

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """A page of breakers, with what they have open by one query for all of them."""
        changes: ChangeList = super().get_changelist_instance(request)
        rows = list(changes.result_list)
        found = groups_of(rows)
        for row in rows:
            row.open_groups = found.get(row.id, [])
        changes.result_list = rows
        return changes

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fieldsets if self.may_write(request) else ((None, {"fields": SHOWN}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return ("open_now",) if self.may_write(request) else SHOWN

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request)

    def has_close_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Who may change breakers may close what is open."""
        if not self.may_write(request):
            return False
        found = Breaker.objects.filter(tenant=tenant_of(request), id=object_id).first()
        return found is not None and bool(groups_open(found))

    def question(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> Question | None:
        """A breaker that would act no more."""
        return question_about_mode(form, change)

    def write(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> Breaker:
        fields = {name: form.cleaned_data[name] for name in BreakerForm.Meta.fields}
        if change:
            return update_breaker(breaker=form.instance, actor=actor_of(request), changes=fields)
        return create_breaker(tenant=tenant_of(request), actor=actor_of(request), **fields)

    def end(self, request: HttpRequest, obj: Breaker) -> None:
        delete_breaker(breaker=obj, actor=actor_of(request))

    @action(  # type: ignore[untyped-decorator]
        description="Close", permissions=["close"], icon="lock_open", variant=ActionVariant.PRIMARY
    )
    def close_by_hand(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for which group, and whether that is meant."""
        breaker = self.get_queryset(request).filter(id=object_id).first()
        if breaker is None:
            raise Http404
        groups = groups_open(breaker)
        form = CloseForm(breaker, groups, request.POST if request.method == "POST" else None)
        if form.is_valid():
            closed = close_breaker(
                breaker=breaker,
                actor=actor_of(request),
                group_key=form.cleaned_data["group"] or None,
            )
            count = len(closed)
            messages.success(request, f"{breaker}: closed for {count} group{'s'[: count != 1]}.")
            return HttpResponseRedirect(reverse("admin:metering_breaker_change", args=[breaker.id]))
        return TemplateResponse(
            request,
            "admin/metering/breaker/close.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": f"Close breaker “{breaker}”?",
                "verb": "Close breaker",
                "consequence": "Whoever it stopped may spend again within a second. It counts from "
                "an empty minute, and opens again for the same reasons.",
                "facts": [(group_words(breaker, one), one.why) for one in groups],
                "form": form,
                "back": reverse("admin:metering_breaker_change", args=[breaker.id]),
            },
        )
