"""Admin pages of the routing table."""

from typing import Any

from django import forms
from django.contrib.admin import display, register
from django.core.exceptions import ValidationError

from common.json_bodies import JsonObject
from metering.admin.limits import LimitAdmin
from metering.configuration.routes import ROUTES, validate_tiers
from metering.limits.routes import Tier
from metering.models import ModelRoute
from tenants.admin_forms import RowForm
from tenants.admin_site import site


def tier_line(tier: JsonObject) -> str:
    """A tier as it is typed: provider, model and the complexity that it takes."""
    bound = tier["max_complexity"]
    parts = [tier["provider"], tier["model"], *([] if bound is None else [str(bound)])]
    return ", ".join(parts)


class TiersField(forms.CharField):
    """Tiers, a line each. Its value is a list of `Tier`."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea(
            attrs={"rows": 5, "placeholder": "openai, gpt-5-nano, 4\nanthropic, claude-sonnet-4-5"}
        )
        super().__init__(widget=widget, **kwargs)

    def prepare_value(self, value: object) -> object:
        if isinstance(value, list):
            return "\n".join(tier_line(tier) for tier in value)
        return value

    def clean(self, value: object) -> list[Tier]:
        """Raises ValidationError with a sentence for what is no table."""
        lines = [line for line in super().clean(value).splitlines() if line.strip()]
        return [_tier_of(line) for line in lines]


def _tier_of(line: str) -> Tier:
    parts = [part.strip() for part in line.split(",")]
    has_bound = (
        len(parts) == 3 and parts[2].isascii() and parts[2].isdecimal() and len(parts[2]) <= 3
    )
    bound = int(parts.pop()) if has_bound else None
    if len(parts) != 2:
        raise ValidationError(f"“{line.strip()}” is not: provider, model, complexity.")
    return Tier(parts[0], parts[1], bound)


class RouteForm(RowForm):
    """A kind of task, and the models that do it."""

    def judge(self) -> None:
        validate_tiers(self.cleaned_data["tiers"])

    tiers = TiersField(
        label="Models",
        help_text="One per line, from the cheapest to the best: provider, model, and the highest "
        "complexity (0 to 10) it can handle. The last one handles everything and has no number.",
    )

    class Meta:
        help_texts = {
            "task_type": "As named in calls. Leave empty for every task that no other route names."
        }


@register(ModelRoute, site=site)
class RouteAdmin(LimitAdmin):
    """Which models do a kind of task: what a level that downgrades chooses from."""

    kind = ROUTES
    form = RouteForm
    list_display = ("name", "tasks", "models_label")
    search_fields = ("name", "task_type")
    fields = ("name", "task_type", "tiers")
    shown_fields = ("name", "tasks", "models_label")
    end_verb = "Remove route"
    end_consequence = (
        "From the next call on, levels that downgrade name no cheaper model for these tasks; calls "
        "keep the model that they asked for."
    )

    @display(description="Tasks", ordering="task_type")
    def tasks(self, obj: ModelRoute) -> str:
        return obj.task_type or "all others"

    @display(description="Models, cheapest first")
    def models_label(self, obj: ModelRoute) -> str:
        return " → ".join(tier["model"] for tier in obj.tiers)
