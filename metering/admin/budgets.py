"""Admin pages of budgets and their levels."""

from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import available_timezones

from django import forms
from django.contrib import messages
from django.contrib.admin import SimpleListFilter, display, register
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
)

from common.money import usd_words
from metering.admin.budget_questions import ask_about
from metering.admin.levels import LevelInline, level_words, levels_of
from metering.budgets.presets import PRESETS
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import (
    DEFAULT_LEVELS,
    PER_NAMES,
    ROLLOVER_PERCENT_MAX,
    archive_budget,
    create_budget,
    update_budget,
    validate_budget,
)
from metering.core.match import wanted_values
from metering.core.periods import EPOCH
from metering.fields.forms import MONEY_ROLES, UsdField, count_field, match_field
from metering.fields.match_widget import rows_for
from metering.models import Budget, Period
from metering.simulation import Proposal, ProposedBudget
from tenants.admin_questions import PREVIEWS, Question
from tenants.admin_site import (
    RowForm,
    TenantModelAdmin,
    actor_of,
    site,
    tenant_of,
)
from tenants.number_fields import WholeNumberField

LIMIT_WORDS: Final = {
    "limit_tokens": "tokens",
    "limit_requests": "requests",
    "limit_tool_calls": "tool calls",
    "limit_seconds": "seconds since first use",
}
PRESET: Final = "preset"


def limit_field(name: str) -> WholeNumberField:
    """A part of the limit that is a count; 0 lets nothing through."""
    return count_field(LIMIT_WORDS[name].capitalize(), minimum=0, required=False)


class BudgetForm(RowForm):
    """A budget as people think of it: money in USD, values one per line."""

    limit_cost_nanos = UsdField(label="Cost, USD", required=False)
    limit_tokens = limit_field("limit_tokens")
    limit_requests = limit_field("limit_requests")
    limit_tool_calls = limit_field("limit_tool_calls")
    limit_seconds = limit_field("limit_seconds")
    rollover_max_percent = count_field(
        "At most, % of the limit", minimum=0, maximum=ROLLOVER_PERCENT_MAX, initial=100
    )
    match = match_field(rows=rows_for({}))
    per = forms.MultipleChoiceField(
        label="A window for each",
        required=False,
        choices=[(name, name) for name in PER_NAMES],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="Nothing chosen: one window for everything. With agent, each agent has the whole "
        "limit; with request, each single call has.",
    )
    timezone = forms.ChoiceField(
        widget=UnfoldAdminSelectWidget(), help_text="Where days, weeks and months begin."
    )

    shown_at = {"limit": "limit_cost_nanos"}

    class Meta:
        model = Budget
        labels = {
            "anchor_at": "Periods begin at",
            "is_rolling": "Rolling",
            "has_rollover": "Carry over",
        }
        help_texts = {
            "anchor_at": "UTC. Empty: with the calendar. Else at this moment and its repetitions.",
        }
        fields = (
            "name",
            "mode",
            "match",
            "per",
            "period",
            "timezone",
            "anchor_at",
            "is_rolling",
            "has_rollover",
            "rollover_max_percent",
            "limit_cost_nanos",
            "limit_tokens",
            "limit_requests",
            "limit_tool_calls",
            "limit_seconds",
        )

    class Media:
        css = {"all": ["dashboard/admin.css"]}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "match" in self.fields:
            # A match of many dimensions, made through the API, must survive being saved here.
            self.fields["match"] = match_field(rows=rows_for(self.instance.match))
        # Who only looks gets a form without fields.
        if "timezone" in self.fields:
            zones = sorted(available_timezones() | {self.instance.timezone})
            self.fields["timezone"].choices = [(name, name) for name in zones]  # type: ignore[attr-defined]

    def clean_per(self) -> list[str]:
        """In the order that the budget has, new ones last: another order would be another group."""
        chosen = self.cleaned_data["per"]
        kept = [name for name in self.instance.per if name in chosen]
        return kept + [name for name in chosen if name not in kept]

    def clean_match(self) -> dict[str, Any]:
        """As it is stored where it means the same: another spelling would start a new revision."""
        match: dict[str, Any] = self.cleaned_data["match"]
        stored = self.instance.match
        is_same = {name: wanted_values(value) for name, value in match.items()} == {
            name: wanted_values(value) for name, value in stored.items()
        }
        return stored if is_same else match

    def judge(self) -> None:
        validate_budget(self.instance)


class ArchivedFilter(SimpleListFilter):
    """Budgets in force, or the archived ones."""

    title = "state"
    parameter_name = "archived"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Archived")]

    def choices(self, changelist: Any) -> Iterator[Any]:
        """The first choice is what the list shows by itself."""
        for place, choice in enumerate(super().choices(changelist)):
            yield {**choice, "display": "In force"} if place == 0 else choice

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """In force, unless the archived ones are asked for; a budget's own page shows either."""
        return queryset.filter(archived_at__isnull=self.value() != "yes")


@register(Budget, site=site)
class BudgetAdmin(TenantModelAdmin):
    """Limits on what is spent, with the levels at which people hear of it and calls are stopped."""

    form = BudgetForm
    writers = MONEY_ROLES
    inlines = (LevelInline,)
    actions_list = ("add_session_limits",)
    list_display = (
        "name",
        "counts",
        "window_for_each",
        "limits",
        "period_words",
        "levels_words",
        "mode",
        "state_words",
    )
    list_filter = (ArchivedFilter,)
    search_fields = ("name",)
    ordering = ("name",)
    end_verb = "Archive budget"
    end_consequence = (
        "It counts and blocks nothing any more, from the next call on. What it counted stays, and "
        "can be read through the API. This cannot be taken back; make a new budget instead."
    )
    end_done = "archived."
    has_preview = True
    fieldsets = (
        (None, {"fields": ("name", "mode")}),
        (
            "Limit",
            {
                "description": "Any of them, whichever is reached first. Without a level the "
                "budget blocks at 100 %.",
                "fields": (
                    "limit_cost_nanos",
                    ("limit_tokens", "limit_requests"),
                    ("limit_tool_calls", "limit_seconds"),
                ),
            },
        ),
        ("What it counts", {"fields": ("match", "per")}),
        (
            "Period",
            {
                "fields": (
                    ("period", "timezone"),
                    "anchor_at",
                    "is_rolling",
                    ("has_rollover", "rollover_max_percent"),
                ),
            },
        ),
    )
    shown_fields = (
        "name",
        "mode",
        "state_words",
        "limits",
        "counts",
        "window_for_each",
        "period_words",
        "levels_words",
        "archived_at",
    )

    @display(description="Counts")
    def counts(self, obj: Budget) -> str:
        parts = [f"{name} {_values_words(value)}" for name, value in obj.match.items()]
        return ", ".join(parts) or "all usage"

    @display(description="A window for each")
    def window_for_each(self, obj: Budget) -> str:
        return ", ".join(obj.per) or "—"

    @display(description="Limit")
    def limits(self, obj: Budget) -> str:
        parts = []
        if obj.limit_cost_nanos is not None:
            parts.append(usd_words(obj.limit_cost_nanos))
        parts += [
            f"{getattr(obj, name):,} {words}"
            for name, words in LIMIT_WORDS.items()
            if getattr(obj, name) is not None
        ]
        return ", ".join(parts)

    @display(description="Period", ordering="period")
    def period_words(self, obj: Budget) -> str:
        words = f"rolling {obj.period}" if obj.is_rolling else obj.period
        return f"{words}, {obj.timezone}" if obj.timezone != "UTC" else words

    @display(description="Levels")
    def levels_words(self, obj: Budget) -> str:
        return ", ".join(level_words(level) for level in obj.levels.all())

    @display(description="State")
    def state_words(self, obj: Budget) -> str:
        return "still counting" if obj.is_counting else "—"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Budget]:
        rows: QuerySet[Budget] = super().get_queryset(request)
        return rows.prefetch_related("levels")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request) and (obj is None or obj.archived_at is None)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None and not self.has_change_permission(request, obj):
            return ((None, {"fields": self.shown_fields}),)
        return self.fieldsets

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        if obj is not None and not self.has_change_permission(request, obj):
            return self.shown_fields
        return ()

    def get_inlines(self, request: HttpRequest, obj: Any) -> Sequence[Any]:
        """Who only looks reads the levels as words."""
        is_shown = obj is not None and not self.has_change_permission(request, obj)
        return () if is_shown else self.inlines

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if obj is not None and not self.has_change_permission(request, obj):
            return form
        if obj is None and "timezone" in form.base_fields:
            form.base_fields["timezone"].initial = tenant_of(request).timezone
            form.base_fields["period"].initial = Period.MONTH
        return form

    def write(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> Budget:
        fields = {name: form.cleaned_data[name] for name in BudgetForm.Meta.fields}
        if change:
            budget = update_budget(
                budget=form.instance,
                actor=actor_of(request),
                changes=fields,
                levels=levels_of(formsets),
            )
        else:
            budget = create_budget(
                tenant=tenant_of(request),
                actor=actor_of(request),
                levels=levels_of(formsets),
                **fields,
            )
        if budget.is_counting:
            messages.info(
                request,
                "What was spent before is still being counted. Until that is done, the budget "
                "refuses by what it has counted so far.",
            )
        return budget

    def question(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> Question | None:
        """What the budget would refuse, where that is more than is refused as it is."""
        proposal = _proposal(request, form, levels_of(formsets), change)
        is_asked_for = PREVIEWS in request.POST
        return ask_about(proposal, now=timezone.now(), is_asked_for=is_asked_for)

    def end(self, request: HttpRequest, obj: Budget) -> None:
        archive_budget(budget=obj, actor=actor_of(request))

    @action(  # type: ignore[untyped-decorator]
        description="Add session limits", permissions=["add"], icon="timer"
    )
    def add_session_limits(self, request: HttpRequest) -> HttpResponse:
        """The form of a new budget, filled in: nothing is made before it is saved."""
        messages.info(request, PRESETS["session"].description)
        return HttpResponseRedirect(
            f"{reverse('admin:metering_budget_add')}?{urlencode({PRESET: 'session'})}"
        )

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        initial = dict(super().get_changeform_initial_data(request))
        preset = PRESETS.get(initial.pop(PRESET, ""))
        return {**initial, **preset.fields} if preset else initial

    def get_formset_kwargs(
        self, request: HttpRequest, obj: Any, inline: Any, prefix: str
    ) -> dict[str, Any]:
        """A new budget starts with its levels. Only when it is shown: what is sent back unchanged
        must count as given.
        """
        kwargs: dict[str, Any] = super().get_formset_kwargs(request, obj, inline, prefix)
        if request.method == "GET" and obj.pk is None:
            preset = PRESETS.get(request.GET.get(PRESET, ""))
            levels = preset.levels if preset else DEFAULT_LEVELS
            kwargs["initial"] = [
                {**level._asdict(), "notify": list(level.notify)} for level in levels
            ]
        return kwargs


def _proposal(
    request: HttpRequest, form: Any, levels: Sequence[LevelRule], change: bool
) -> Proposal:
    fields = {name: form.cleaned_data[name] for name in BudgetForm.Meta.fields}
    if not change:
        budget = Budget(tenant=tenant_of(request), counts_from=EPOCH, **fields)
        return Proposal(budget=ProposedBudget.of(budget, levels))
    # Read anew: the form has changed its own.
    stored = Budget.objects.get(tenant=tenant_of(request), id=form.instance.pk)
    present = ProposedBudget.stored(stored)
    return Proposal(budget=present.changed(fields, levels), present=present)


def _values_words(value: object) -> str:
    words = [one or "(none)" for one in sorted(wanted_values(value))]
    return " or ".join(words) if len(words) <= 3 else f"any of {len(words)}"
