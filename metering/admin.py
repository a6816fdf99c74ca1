"""Admin pages of limits and prices.

Facts (usage, windows, ledger) have composite keys, which the admin cannot serve.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin import SimpleListFilter, display, register
from django.contrib.postgres.forms import SimpleArrayField
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.widgets import (
    UnfoldAdminBigIntegerFieldWidget,
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from metering.budget_rules import LevelRule, wanted_values
from metering.budgets import archive_budget, create_budget, update_budget
from metering.dimensions import MATCHABLE, REQUEST
from metering.match_field import MatchField, rows_for
from metering.models import (
    Budget,
    BudgetLevel,
    CataloguePrice,
    Crossing,
    Period,
    TenantPrice,
    ToolPrice,
)
from metering.money import nanos_from_usd, usd_from_nanos
from metering.price_overrides import Validity, add_price, add_tool_price, end_price
from metering.rates import check_rates, parse_rates, units
from tenants.admin_site import (
    ReadOnlyAdmin,
    RowForm,
    RowFormSet,
    TenantInline,
    TenantModelAdmin,
    actor_of,
    site,
    tenant_of,
)
from tenants.roles import SCOPES_BY_ROLE, Role, Scope

# Who may change budgets and prices: owners, admins and finance.
MONEY_ROLES: Final = frozenset(role for role in Role if Scope.MANAGE in SCOPES_BY_ROLE[role])

LIMIT_WORDS: Final = {
    "limit_tokens": "tokens",
    "limit_requests": "requests",
    "limit_tool_calls": "tool calls",
    "limit_seconds": "seconds since first use",
}
# What a price form offers; the API takes every class of usage that the price library knows.
RATE_KEYS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "web_searches",
    "requests",
)
UNIT_WORDS: Final = {1_000_000: "per million", 1000: "per thousand", 1: "each"}


def usd_words(nanos: int) -> str:
    """The exact amount, with cents at least."""
    whole, _, decimals = usd_from_nanos(nanos).partition(".")
    return f"${int(whole):,}.{decimals:0<2}"


class UsdField(forms.CharField):
    """An amount in USD; its value is whole nano-dollars."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}))
        super().__init__(max_length=40, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return usd_from_nanos(value) if isinstance(value, int) else value

    def clean(self, value: Any) -> int | None:
        """Raises ValidationError with a sentence for what is no amount."""
        text = super().clean(value).replace(",", "").removeprefix("$").strip()
        if not text:
            return None
        try:
            return nanos_from_usd(text)
        except ValueError as error:
            raise ValidationError(f"The amount {error}.") from error


def match_field(*, rows: int) -> MatchField:
    """The field for what a budget counts."""
    return MatchField(
        rows=rows,
        label="Counts only",
        required=False,
        help_text="Nothing chosen: all usage. Several values of a dimension: any of them.",
    )


class BudgetForm(RowForm):
    """A budget as people think of it: money in USD, values one per line."""

    limit_cost_nanos = UsdField(label="Cost, USD", required=False)
    match = match_field(rows=rows_for({}))
    per = forms.MultipleChoiceField(
        label="A window for each",
        required=False,
        choices=[(name, name) for name in (*MATCHABLE, REQUEST)],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="Nothing chosen: one window for everything. With agent, each agent has the whole "
        "limit; with request, each single call has.",
    )
    timezone = forms.ChoiceField(
        widget=UnfoldAdminSelectWidget(), help_text="Where days, weeks and months begin."
    )

    class Meta:
        model = Budget
        labels = {
            "anchor_at": "Periods begin at",
            "is_rolling": "Rolling",
            "has_rollover": "Carry over",
            "rollover_max_percent": "At most, % of the limit",
        }
        help_texts = {
            "anchor_at": "UTC. Empty: with the calendar. Else at this moment and its repetitions.",
            "rollover_max_percent": "",
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
        for name in LIMIT_WORDS.keys() & self.fields.keys():
            self.fields[name].label = LIMIT_WORDS[name].capitalize()
            self.fields[name].widget = UnfoldAdminBigIntegerFieldWidget(attrs={"min": 0})

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

    def clean_anchor_at(self) -> Any:
        anchor_at = self.cleaned_data["anchor_at"]
        if anchor_at is not None and (anchor_at.second or anchor_at.microsecond):
            raise ValidationError("Periods begin at whole minutes.")
        return anchor_at

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        for name in LIMIT_WORDS:
            if (data.get(name) or 0) < 0:
                self.add_error(name, "A limit is not below zero.")
        if all(data.get(name) is None for name in ("limit_cost_nanos", *LIMIT_WORDS)):
            self.add_error("limit_cost_nanos", "Give at least one limit.")
        for name, words in period_problems(data):
            self.add_error(name, words)
        return data


def period_problems(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What of a budget's period contradicts the rest, as (field, words)."""
    problems = []
    has_no_periods = data.get("period") == Period.LIFETIME or REQUEST in (data.get("per") or [])
    for name in ("is_rolling", "has_rollover", "anchor_at"):
        if has_no_periods and data.get(name):
            problems.append((name, "This budget has no periods that follow each other."))
    if data.get("is_rolling") and data.get("anchor_at"):
        problems.append(("anchor_at", "A rolling budget has no periods that begin."))
    if data.get("is_rolling") and data.get("has_rollover"):
        problems.append(("has_rollover", "A rolling budget has no periods that end."))
    if data.get("has_rollover") and data.get("limit_cost_nanos") is None:
        problems.append(("has_rollover", "Only a limit of cost is carried over."))
    if (data.get("rollover_max_percent") or 0) > 500:
        problems.append(("rollover_max_percent", "At most 500 %."))
    return problems


class LevelForm(RowForm):
    """One level: at how much, what is done, who hears of it."""

    percent = forms.IntegerField(
        min_value=1, max_value=1000, widget=UnfoldAdminBigIntegerFieldWidget(attrs={"min": 1})
    )
    notify = SimpleArrayField(
        forms.CharField(max_length=100),
        required=False,
        max_length=20,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "team_lead, finance"}),
    )

    class Meta:
        model = BudgetLevel
        fields = ("percent", "action", "notify")


class LevelFormSet(RowFormSet):
    """The levels of a budget: each percentage once."""

    def clean(self) -> None:
        percents = [level.percent for level in levels_of([self])]
        if len(percents) != len(set(percents)):
            raise ValidationError("Two levels are at the same percentage.")


def levels_of(formsets: Sequence[Any]) -> list[LevelRule]:
    """The levels of a form, the lowest first."""
    levels = [
        LevelRule(
            form.cleaned_data["percent"],
            form.cleaned_data["action"],
            tuple(form.cleaned_data["notify"]),
        )
        for formset in formsets
        for form in formset.forms
        if form.cleaned_data.get("percent") and not form.cleaned_data.get("DELETE")
    ]
    return sorted(levels, key=lambda level: level.percent)


class LevelInline(TenantInline):
    """The levels, a row each."""

    model = BudgetLevel
    form = LevelForm
    formset = LevelFormSet
    writers = MONEY_ROLES
    fields = ("percent", "action", "notify")
    ordering = ("percent",)
    verbose_name = "level"
    verbose_name_plural = "levels"

    def get_extra(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> int:
        """A new budget starts with rows to fill in."""
        return 3 if obj is None else 0


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
    list_display = (
        "name",
        "counts",
        "window_for_each",
        "limits",
        "period_words",
        "levels_words",
        "mode",
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
    fieldsets = (
        (None, {"fields": ("name", "mode")}),
        (
            "Limit",
            {
                "description": "Any of them, whichever is reached first.",
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
        return ", ".join(
            f"{level.percent} %" + (f" {level.action}" if level.action != "none" else "")
            for level in obj.levels.all()
        )

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
            return update_budget(
                budget=form.instance,
                actor=actor_of(request),
                changes=fields,
                levels=levels_of(formsets),
            )
        return create_budget(
            tenant=tenant_of(request), actor=actor_of(request), levels=levels_of(formsets), **fields
        )

    def end(self, request: HttpRequest, obj: Budget) -> None:
        archive_budget(budget=obj, actor=actor_of(request))


def _values_words(value: object) -> str:
    words = [one or "(none)" for one in sorted(wanted_values(value))]
    return " or ".join(words) if len(words) <= 3 else f"any of {len(words)}"


def _rate_field(key: str, label: str) -> UsdField:
    unit = UNIT_WORDS[units().units[key].per]
    return UsdField(label=label, required=False, help_text=f"USD {unit}")


class _DatedPriceForm(RowForm):
    """What prices of models and of tools have in common."""

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        starts_at, ends_at = data.get("effective_from"), data.get("effective_to")
        if starts_at and ends_at and ends_at <= starts_at:
            self.add_error("effective_to", "The end must be later than the start.")
        return data


class ModelPriceForm(_DatedPriceForm):
    """Rates in USD as price lists state them."""

    rate_input_tokens = _rate_field("input_tokens", "Input tokens")
    rate_output_tokens = _rate_field("output_tokens", "Output tokens")
    rate_cache_read_tokens = _rate_field("cache_read_tokens", "Read from a cache")
    rate_cache_write_tokens = _rate_field("cache_write_tokens", "Written to a cache")
    rate_cache_write_1h_tokens = _rate_field("cache_write_1h_tokens", "Written for an hour")
    rate_output_reasoning_tokens = _rate_field("output_reasoning_tokens", "Reasoning tokens")
    rate_input_audio_tokens = _rate_field("input_audio_tokens", "Audio input tokens")
    rate_output_audio_tokens = _rate_field("output_audio_tokens", "Audio output tokens")
    rate_web_searches = _rate_field("web_searches", "Web searches")
    rate_requests = _rate_field("requests", "Requests")

    class Meta:
        model = TenantPrice
        fields = ("provider", "model", "effective_from", "effective_to", "note")
        help_texts = {
            "provider": "As events name it. Empty: any provider.",
            "model": "As events name it; aliases and dated names of a known model are resolved.",
            "effective_from": "UTC. Calls without a price since then are priced at once.",
            "effective_to": "UTC. Empty: until you end it.",
        }

    def _post_clean(self) -> None:
        """The rates are judged here; the row itself is made and checked by the domain."""

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        rates = {
            key: {"nanos": str(data[f"rate_{key}"]), "per": units().units[key].per}
            for key in RATE_KEYS
            if data.get(f"rate_{key}") is not None
        }
        if not rates:
            self.add_error("rate_input_tokens", "Give at least one rate.")
        elif problem := check_rates(rates):
            raise ValidationError(problem)
        data["rates"] = rates
        return data


def validity_of(data: Mapping[str, Any]) -> Validity:
    """When a price applies, from a form's values."""
    return Validity(data["effective_from"], data["effective_to"], data["note"])


class PriceAdmin(TenantModelAdmin):
    """Prices are added and ended, never changed: what was priced by one can still name it."""

    writers = MONEY_ROLES
    end_verb = "End price"
    end_consequence = (
        "From now on it prices nothing. What it has priced keeps its cost, until somebody has the "
        "period priced again."
    )
    end_done = "ended."

    @display(description="In force")
    def in_force(self, obj: Any) -> str:
        start = f"from {obj.effective_from:%Y-%m-%d %H:%M}"
        return (
            start if obj.effective_to is None else f"{start} to {obj.effective_to:%Y-%m-%d %H:%M}"
        )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_open = obj is None or obj.effective_to is None or obj.effective_to > timezone.now()
        return self.may_write(request) and is_open

    def end(self, request: HttpRequest, obj: Any) -> None:
        end_price(price=obj, actor=actor_of(request))

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """From now on; or, for a model of the list without a price, for all that is stored."""
        initial = dict(super().get_changeform_initial_data(request))
        now = timezone.now().replace(second=0, microsecond=0)
        is_for_stored = "model" in initial
        initial["effective_from"] = now - settings.EVENT_MAX_AGE if is_for_stored else now
        return initial


@register(TenantPrice, site=site)
class ModelPriceAdmin(PriceAdmin):
    """The tenant's own prices of models; they beat the catalogue."""

    form = ModelPriceForm
    list_display = ("model", "any_provider", "rates_shown", "in_force", "note")
    search_fields = ("model", "provider")
    ordering = ("model", "-effective_from")

    @display(description="Provider", ordering="provider")
    def any_provider(self, obj: TenantPrice) -> str:
        return obj.provider or "any"

    @display(description="Rates")
    def rates_shown(self, obj: TenantPrice) -> str:
        return rates_words(obj.rates)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is not None:
            names = (
                "model",
                "any_provider",
                "rates_shown",
                "effective_from",
                "effective_to",
                "note",
            )
            return ((None, {"fields": names}),)
        keys = [f"rate_{key}" for key in RATE_KEYS]
        return (
            (None, {"fields": (("model", "provider"),)}),
            ("Rates", {"fields": tuple(zip(keys[::2], keys[1::2], strict=True))}),
            ("In force", {"fields": ("effective_from", "effective_to", "note")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return () if obj is None else ("any_provider", "rates_shown")

    def write(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> TenantPrice:
        data = form.cleaned_data
        return add_price(
            tenant=tenant_of(request),
            actor=actor_of(request),
            provider=data["provider"],
            model=data["model"],
            rates=data["rates"],
            validity=validity_of(data),
        )

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        words = f"{obj.model} has a price. Calls that had none are priced with it now."
        messages.success(request, words)
        return HttpResponseRedirect(reverse("admin:metering_tenantprice_changelist"))


class ToolPriceForm(_DatedPriceForm):
    """What one call of a tool costs."""

    call_nanos = UsdField(label="Price of a call", help_text="USD")

    class Meta:
        model = ToolPrice
        fields = ("tool", "call_nanos", "effective_from", "effective_to", "note")
        help_texts = {
            "tool": "As events name it.",
            "effective_from": "UTC.",
            "effective_to": "UTC. Empty: until you end it.",
        }


@register(ToolPrice, site=site)
class ToolPriceAdmin(PriceAdmin):
    """What calls of tools cost. A tool without a price is free."""

    form = ToolPriceForm
    list_display = ("tool", "call_price", "in_force", "note")
    search_fields = ("tool",)
    ordering = ("tool", "-effective_from")
    fields = ("tool", "call_nanos", "effective_from", "effective_to", "note")

    @display(description="Price of a call", ordering="call_nanos")
    def call_price(self, obj: ToolPrice) -> str:
        return usd_words(obj.call_nanos)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return self.fields
        return ("tool", "call_price", "effective_from", "effective_to", "note")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return () if obj is None else ("call_price",)

    def write(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> ToolPrice:
        data = form.cleaned_data
        return add_tool_price(
            tenant=tenant_of(request),
            actor=actor_of(request),
            tool=data["tool"],
            call_nanos=data["call_nanos"],
            validity=validity_of(data),
        )


def rates_words(rates: Mapping[str, Any]) -> str:
    """Rates as people read them: "input $3, output $15 per million; requests $1 per thousand"."""
    by_unit: dict[str, list[str]] = {}
    parsed = parse_rates(rates)
    for key, rate in parsed.items():
        per = units().units[key].per
        words = key.removeprefix("output_") if key == "output_reasoning_tokens" else key
        amount = usd_from_nanos(round(rate.nanos * per / rate.per))
        words = words.removesuffix("_tokens").replace("_", " ")
        by_unit.setdefault(UNIT_WORDS.get(per, f"per {per:,}"), []).append(f"{words} ${amount}")
    parts = [f"{', '.join(amounts)} {unit}" for unit, amounts in by_unit.items()]
    if any(rate.tiers for rate in parsed.values()):
        parts.append("other rates for long input")
    return "; ".join(parts)


@register(CataloguePrice, site=site)
class CatalogueAdmin(ReadOnlyAdmin):
    """The prices that every tenant starts from."""

    is_global = True
    list_display = ("model", "provider", "rates_shown", "effective_from", "condition")
    list_filter = ("provider",)
    search_fields = ("model", "provider", "name")
    ordering = ("provider", "model", "ordinal")
    fields = (
        "provider",
        "model",
        "name",
        "rates_shown",
        "effective_from",
        "daily_from",
        "daily_to",
        "condition",
        "catalogue_version",
    )

    @display(description="Rates")
    def rates_shown(self, obj: CataloguePrice) -> str:
        return rates_words(obj.rates)

    @display(description="Only when")
    def condition(self, obj: CataloguePrice) -> str:
        return ", ".join(f"{name} {value}" for name, value in obj.context.items()) or "—"

    def get_queryset(self, request: HttpRequest) -> QuerySet[CataloguePrice]:
        rows: QuerySet[CataloguePrice] = super().get_queryset(request)
        return rows.filter(superseded_at=None)


@register(Crossing, site=site)
class CrossingAdmin(ReadOnlyAdmin):
    """Levels that windows reached, newest first."""

    list_display = ("crossed_at", "budget", "group", "percent_words", "action", "mode", "spent")
    list_filter = ("action", "mode")
    search_fields = ("budget__name", "group_key")
    ordering = ("-id",)
    list_select_related = ("budget",)
    fields = (
        "crossed_at",
        "budget",
        "group",
        "percent_words",
        "used_percent",
        "spent",
        "limit",
        "action",
        "mode",
        "notify",
    )

    @display(description="Group")
    def group(self, obj: Crossing) -> str:
        return ", ".join(one or "(none)" for one in json.loads(obj.group_key)) or "—"

    @display(description="Level", ordering="percent")
    def percent_words(self, obj: Crossing) -> str:
        return f"{obj.percent} %"

    @display(description="Spent", ordering="spent_nanos")
    def spent(self, obj: Crossing) -> str:
        return usd_words(obj.spent_nanos)

    @display(description="Limit")
    def limit(self, obj: Crossing) -> str:
        return "—" if obj.limit_nanos is None else usd_words(obj.limit_nanos)
