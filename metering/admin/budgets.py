"""Admin pages of budgets."""

from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.admin import SimpleListFilter, display, register
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action

from common.json_bodies import JsonObject
from metering.admin.budget_questions import ask_about
from metering.admin.levels import LevelInline, format_level, levels_of
from metering.admin.limits import GroupedForm, LimitAdmin, per_field
from metering.budgets.presets import PRESETS
from metering.budgets.rules import LevelRule
from metering.configuration.budgets import (
    BUDGETS,
    DEFAULT_LEVELS,
    PER_NAMES,
    ROLLOVER_PERCENT_MAX,
    create_budget,
    update_budget,
    validate_budget,
)
from metering.core.periods import EPOCH
from metering.fields.forms import count_field
from metering.models import Budget, Period
from metering.simulation import Proposal, ProposedBudget
from metering.simulation.warnings import format_limit
from tenants.admin_forms import FilledForm
from tenants.admin_questions import PREVIEWS, Question
from tenants.admin_site import actor_of, site, tenant_of
from tenants.forms import ZoneField, offer_zones
from tenants.number_fields import UsdField

PRESET: Final = "preset"


class BudgetForm(GroupedForm):
    """A budget as people think of it: money in USD, values one per line."""

    limit_cost_nanos = UsdField(label="Cost, USD", required=False)
    # A limit of 0 lets nothing through.
    limit_tokens = count_field("Tokens", minimum=0, required=False)
    limit_requests = count_field("Requests", minimum=0, required=False)
    limit_tool_calls = count_field("Tool calls", minimum=0, required=False)
    limit_seconds = count_field("Seconds since first use", minimum=0, required=False)
    rollover_max_percent = count_field(
        "At most, % of the limit", minimum=0, maximum=ROLLOVER_PERCENT_MAX, initial=100
    )
    per = per_field(
        "Separate limit per",
        PER_NAMES,
        "Leave empty for one limit on everything. With agent, each agent has the whole limit; "
        "with request, each single call does.",
    )
    timezone = ZoneField(help_text="Defines when days, weeks and months begin.")

    shown_at = {"limit": "limit_cost_nanos"}

    class Meta:
        labels = {
            "anchor_at": "Periods begin at",
            "is_rolling": "Rolling",
            "has_rollover": "Carry over",
        }
        help_texts = {
            "anchor_at": "In the workspace's zone. Leave empty to follow the calendar; otherwise "
            "periods repeat from this time."
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offer_zones(self, self.instance.timezone)

    def judge(self) -> None:
        validate_budget(self.instance)


class ArchivedFilter(SimpleListFilter):
    """Budgets in force, or the archived ones."""

    title = "state"
    parameter_name = "archived"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("yes", "Archived")]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """The first choice is what the list shows by itself."""
        for index, choice in enumerate(super().choices(changelist)):
            yield {**choice, "display": "In force"} if index == 0 else choice

    def queryset(self, request: HttpRequest, queryset: QuerySet[Budget]) -> QuerySet[Budget]:
        """In force, unless the archived ones are asked for; a budget's own page shows either."""
        return queryset.filter(archived_at__isnull=self.value() != "yes")


@register(Budget, site=site)
class BudgetAdmin(LimitAdmin):
    """Limits on what is spent, with the levels at which people hear of it and calls are stopped."""

    kind = BUDGETS
    form = BudgetForm
    inlines = (LevelInline,)
    actions_list = ("add_session_limits",)
    list_display = (
        "name",
        "counts",
        "for_each",
        "limits",
        "period_label",
        "levels_label",
        "mode",
        "state_label",
    )
    list_filter = (ArchivedFilter,)
    end_verb = "Archive budget"
    end_consequence = (
        "From the next call on, it stops counting and blocking. What it counted can still be "
        "read through the API. This cannot be undone; create a new budget instead."
    )
    end_done = "archived."
    has_preview = True
    fieldsets = (
        (None, {"fields": ("name", "mode")}),
        (
            "Limit",
            {
                "description": "Any of them, whichever is reached first. Without a level the "
                "budget blocks at 100%.",
                "fields": (
                    "limit_cost_nanos",
                    ("limit_tokens", "limit_requests"),
                    ("limit_tool_calls", "limit_seconds"),
                ),
            },
        ),
        ("Applies to", {"fields": ("match", "per")}),
        (
            "Period",
            {
                "fields": (
                    ("period", "timezone"),
                    "anchor_at",
                    "is_rolling",
                    ("has_rollover", "rollover_max_percent"),
                )
            },
        ),
    )
    shown_fields = (
        "name",
        "mode",
        "state_label",
        "limits",
        "counts",
        "for_each",
        "period_label",
        "levels_label",
        "archived_at",
    )

    @display(description="Limit")
    def limits(self, obj: Budget) -> str:
        return ", ".join(format_limit(obj))

    @display(description="Period", ordering="period")
    def period_label(self, obj: Budget) -> str:
        words = f"rolling {obj.period}" if obj.is_rolling else obj.period
        return f"{words}, {obj.timezone}" if obj.timezone != "UTC" else words

    @display(description="Levels")
    def levels_label(self, obj: Budget) -> str:
        return ", ".join(format_level(level) for level in obj.levels.all())

    @display(description="State")
    def state_label(self, obj: Budget) -> str:
        return "still counting" if obj.is_counting else "—"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Budget]:
        rows: QuerySet[Budget] = super().get_queryset(request)
        return rows.prefetch_related("levels")

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        is_changeable = not isinstance(obj, Budget) or (
            obj.archived_at is None and not obj.managed_by
        )
        return self.may_write(request) and is_changeable

    def get_inlines(self, request: HttpRequest, obj: Budget | None) -> Any:
        """Who only looks reads the levels as words."""
        return () if self.is_only_shown(request, obj) else self.inlines

    def write(self, request: HttpRequest, filled: FilledForm) -> Budget:
        fields = {name: filled.data[name] for name in filled.form.fields}
        levels, actor = levels_of(filled.formsets), actor_of(request)
        if filled.is_change:
            budget = update_budget(budget=filled.row, actor=actor, changes=fields, levels=levels)
        else:
            budget = create_budget(tenant=tenant_of(request), actor=actor, levels=levels, **fields)
        if budget.is_counting:
            messages.info(
                request,
                "Earlier spend is still being counted. Until that is done, the budget enforces "
                "what it has counted so far.",
            )
        return budget

    def question(self, request: HttpRequest, filled: FilledForm) -> Question | None:
        """What the budget would refuse, where that is more than is refused as it is."""
        proposal = _proposal(request, filled.form, levels_of(filled.formsets), filled.is_change)
        is_asked_for = PREVIEWS in request.POST
        return ask_about(proposal, now=timezone.now(), is_asked_for=is_asked_for)

    @action(description="Add session limits", permissions=["add"], icon="timer")
    def add_session_limits(self, request: HttpRequest) -> HttpResponse:
        """The form of a new budget, filled in: nothing is made before it is saved."""
        messages.info(request, PRESETS["session"].description)
        return HttpResponseRedirect(
            f"{reverse('admin:metering_budget_add')}?{urlencode({PRESET: 'session'})}"
        )

    def get_changeform_initial_data(self, request: HttpRequest) -> JsonObject:
        given: JsonObject = {**super().get_changeform_initial_data(request)}
        initial = {"timezone": tenant_of(request).timezone, "period": Period.MONTH, **given}
        preset = PRESETS.get(initial.pop(PRESET, ""))
        return {**initial, **preset.fields} if preset else initial

    def get_formset_kwargs(
        self, request: HttpRequest, obj: Any, inline: Any, prefix: str
    ) -> JsonObject:
        """A new budget starts with its levels. Only when it is shown: what is sent back unchanged
        must count as given.
        """
        kwargs: JsonObject = super().get_formset_kwargs(request, obj, inline, prefix)
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
    fields = {name: form.cleaned_data[name] for name in form.fields}
    if not change:
        budget = Budget(tenant=tenant_of(request), counts_from=EPOCH, **fields)
        return Proposal(budget=ProposedBudget.of(budget, levels))
    # Read it again: the form has changed its own.
    stored = Budget.objects.get(tenant=tenant_of(request), id=form.instance.pk)
    present = ProposedBudget.stored(stored)
    return Proposal(budget=present.changed(fields, levels), present=present)
