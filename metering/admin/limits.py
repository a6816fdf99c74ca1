"""What the admin pages of limits share: forms with a match and groups, and who writes what."""

from collections.abc import Sequence
from typing import Any, ClassVar

from django import forms
from django.contrib.admin import display
from django.db.models import Model
from django.http import HttpRequest

from common.json_bodies import JsonObject
from metering.core.match import wanted_values
from metering.fields.forms import MONEY_ROLES, match_field, match_words
from metering.fields.match_widget import rows_for
from metering.models import Breaker, Budget, Mode, RateLimit
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_kinds import KindAdmin
from tenants.admin_questions import Question, question_about
from tenants.admin_site import TenantModelAdmin


def per_field(label: str, names: Sequence[str], help_text: str) -> forms.MultipleChoiceField:
    """A field for what calls are counted by: names to tick."""
    return forms.MultipleChoiceField(
        label=label,
        required=False,
        choices=[(name, name) for name in names],
        widget=forms.CheckboxSelectMultiple(),
        help_text=help_text,
    )


class GroupedForm(RowForm):
    """A form with a match and a `per`. Both stay as they are stored where they mean the same:
    another spelling or order would start the counting again.
    """

    match = match_field(rows=rows_for({}))

    class Media:
        css = {"all": ["dashboard/admin.css"]}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # People who may only look get a form without fields. A match of many dimensions that was
        # made through the API must survive being saved here.
        if "match" in self.fields:
            self.fields["match"] = match_field(rows=rows_for(self.instance.match))

    def clean_per(self) -> list[str]:
        chosen = self.cleaned_data["per"]
        kept = [name for name in self.instance.per if name in chosen]
        return kept + [name for name in chosen if name not in kept]

    def clean_match(self) -> JsonObject:
        match: JsonObject = self.cleaned_data["match"]
        stored = self.instance.match
        return stored if _meaning(match) == _meaning(stored) else match


def _meaning(match: JsonObject) -> dict[str, frozenset[str]]:
    return {name: wanted_values(value) for name, value in match.items()}


class MoneyAdmin(TenantModelAdmin):
    """What those who may manage write, and everyone else reads in words."""

    writers = MONEY_ROLES
    # The columns in words.
    shown_fields: ClassVar[tuple[str, ...]] = ()

    def is_only_shown(self, request: HttpRequest, obj: Model | None) -> bool:
        """Return whether the page of a row shows words in place of inputs."""
        return obj is not None and not self.has_change_permission(request, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if self.is_only_shown(request, obj):
            return ((None, {"fields": self.shown_fields}),)
        return super().get_fieldsets(request, obj)

    def get_readonly_fields(
        self, request: HttpRequest, obj: Model | None = None
    ) -> tuple[str, ...]:
        return self.shown_fields if self.is_only_shown(request, obj) else ()


class LimitAdmin(MoneyAdmin, KindAdmin):
    """Limits, which who may manage makes, changes and removes, and everyone else reads in words."""

    search_fields: ClassVar[tuple[str, ...]] = ("name",)
    ordering = ("name",)

    @display(description="Counts")
    def counts(self, obj: Budget | Breaker | RateLimit) -> str:
        return match_words(obj.match)

    @display(description="For each")
    def for_each(self, obj: Budget | Breaker | RateLimit) -> str:
        return ", ".join(obj.per) or "—"

    def question(self, request: HttpRequest, filled: FilledForm) -> Question | None:
        """Ask about a limit that acts and would no longer act."""
        name, mode = filled.data["name"], filled.data.get("mode")
        stops = (
            filled.is_change
            and filled.form.initial.get("mode") == Mode.ENFORCE
            and mode != Mode.ENFORCE
        )
        warning = f"“{name}” stops acting from the moment you save it: mode {mode}."
        return question_about(f"Save “{name}”?", [warning] if stops else [])
