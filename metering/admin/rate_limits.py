"""Admin pages of rate limits."""

from collections.abc import Sequence
from typing import Any, Final

from django import forms
from django.contrib.admin import display, register
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from common.money import usd_words
from metering.admin.slips import mode_slips
from metering.configuration.rate_limits import (
    PER_NAMES,
    RATE_FIELDS,
    create_rate_limit,
    delete_rate_limit,
    update_rate_limit,
    validate_rate_limit,
)
from metering.core.match import PER_MAX, wanted_values
from metering.fields.forms import (
    MONEY_ROLES,
    UsdField,
    count_field,
    match_field,
    match_words,
)
from metering.fields.match_widget import rows_for
from metering.models import RateLimit
from tenants.admin_questions import Question, question_about
from tenants.admin_site import RowForm, TenantModelAdmin, actor_of, site, tenant_of


class GroupedForm(RowForm):
    """What has a match and a `per`: values one per line, dimensions to tick."""

    match = match_field(rows=rows_for({}))
    per = forms.MultipleChoiceField(
        label="For each", required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget()
    )

    class Media:
        css = {"all": ["dashboard/admin.css"]}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Who only looks gets a form without fields. A match of many dimensions, made through the
        # API, must survive being saved here.
        if "match" in self.fields:
            self.fields["match"] = match_field(rows=rows_for(self.instance.match))

    def clean_per(self) -> list[str]:
        """In the order that is stored, new ones last: another order would be other groups."""
        chosen = self.cleaned_data["per"]
        kept = [name for name in self.instance.per if name in chosen]
        return kept + [name for name in chosen if name not in kept]

    def clean_match(self) -> dict[str, Any]:
        """As it is stored where it means the same."""
        match: dict[str, Any] = self.cleaned_data["match"]
        stored = self.instance.match
        return stored if _meaning(match) == _meaning(stored) else match


def _meaning(match: dict[str, Any]) -> dict[str, frozenset[str]]:
    return {name: wanted_values(value) for name, value in match.items()}


def question_about_mode(form: Any, change: bool) -> Question | None:
    """The question about a limit that acts and would not any more."""
    name, before = form.cleaned_data["name"], form.initial.get("mode", "")
    warnings = mode_slips(f"“{name}”", before, form.cleaned_data["mode"]) if change else []
    return question_about(f"Save “{name}”?", warnings)


class RateLimitForm(GroupedForm):
    """Rates, any of which may be left out but not all."""

    cost_nanos_per_minute = UsdField(label="Cost, USD", required=False)
    tokens_per_minute = count_field("Tokens", required=False, help_text="Input and output.")
    requests_per_minute = count_field(
        "Requests", required=False, help_text="Calls of models and of tools."
    )

    shown_at = {"limit": "cost_nanos_per_minute"}

    class Meta:
        model = RateLimit
        fields = ("name", "mode", "match", "per", *RATE_FIELDS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "per" in self.fields:
            per: Any = self.fields["per"]
            per.choices = [(name, name) for name in PER_NAMES]
            per.help_text = (
                "Each has the whole rate; key is the API key that asks. Nothing chosen: all calls "
                f"together. At most {PER_MAX}."
            )

    def judge(self) -> None:
        validate_rate_limit(self.instance)


SHOWN: Final = ("name", "mode", "rates", "counts", "for_each")


@register(RateLimit, site=site)
class RateLimitAdmin(TenantModelAdmin):
    """How much may be asked for within any minute."""

    form = RateLimitForm
    writers = MONEY_ROLES
    list_display = ("name", "rates", "counts", "for_each", "mode")
    search_fields = ("name",)
    ordering = ("name",)
    end_verb = "Remove rate limit"
    end_consequence = "From the next call on it holds nobody back. Calls that run go on."
    end_done = "removed."
    fieldsets = (
        (None, {"fields": ("name", "mode")}),
        (
            "Within any minute",
            {
                "description": "A call that does not fit is told when to ask again.",
                "fields": (
                    "cost_nanos_per_minute",
                    ("tokens_per_minute", "requests_per_minute"),
                ),
            },
        ),
        ("Which calls", {"fields": ("match", "per")}),
    )

    @display(description="A minute")
    def rates(self, obj: RateLimit) -> str:
        parts = []
        if obj.cost_nanos_per_minute is not None:
            parts.append(usd_words(obj.cost_nanos_per_minute))
        if obj.tokens_per_minute is not None:
            parts.append(f"{obj.tokens_per_minute:,} tokens")
        if obj.requests_per_minute is not None:
            parts.append(f"{obj.requests_per_minute:,} requests")
        return ", ".join(parts)

    @display(description="Counts")
    def counts(self, obj: RateLimit) -> str:
        return match_words(obj.match)

    @display(description="For each")
    def for_each(self, obj: RateLimit) -> str:
        return ", ".join(obj.per) or "—"

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fieldsets if self.may_write(request) else ((None, {"fields": SHOWN}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Sequence[str]:
        return () if self.may_write(request) else SHOWN

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may_write(request)

    def question(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> Question | None:
        """A limit that would act no more."""
        return question_about_mode(form, change)

    def write(
        self, request: HttpRequest, form: Any, formsets: Sequence[Any], change: bool
    ) -> RateLimit:
        fields = {name: form.cleaned_data[name] for name in RateLimitForm.Meta.fields}
        if change:
            return update_rate_limit(limit=form.instance, actor=actor_of(request), changes=fields)
        return create_rate_limit(tenant=tenant_of(request), actor=actor_of(request), **fields)

    def end(self, request: HttpRequest, obj: RateLimit) -> None:
        delete_rate_limit(limit=obj, actor=actor_of(request))
