"""Admin pages of prices: the tenant's own and the catalogue."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.admin import display, register
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from common.money import usd_words
from metering.configuration.price_slips import rate_slips, tool_price_slips
from metering.configuration.prices import Validity, add_price, add_tool_price, end_price
from metering.fields.forms import MONEY_ROLES, UsdField
from metering.fields.rates import RATE_LABELS, format_rates, rate_unit, read_rates
from metering.models import CataloguePrice, TenantPrice, ToolPrice
from metering.pricing.rates import check_rates
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_questions import Question, question_about
from tenants.admin_site import (
    ReadOnlyAdmin,
    TenantModelAdmin,
    actor_of,
    shown_moment,
    site,
    tenant_of,
)


class _DatedPriceForm(RowForm):
    """What prices of models and of tools have in common."""

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        starts_at, ends_at = data.get("effective_from"), data.get("effective_to")
        if starts_at and ends_at and ends_at <= starts_at:
            self.add_error("effective_to", "The end must be later than the start.")
        return data


class ModelPriceBase(_DatedPriceForm):
    """Rates in USD as price lists state them."""

    class Meta:
        model = TenantPrice
        fields = ("provider", "model", "effective_from", "effective_to", "note")
        help_texts = {
            "provider": "As named in events. Leave empty for any provider.",
            "model": "As named in events; aliases and dated names of a known model are resolved.",
            "effective_from": "In the workspace's zone. Calls without a price since then are "
            "priced, too.",
            "effective_to": "In the workspace's zone. Leave empty to keep it until you end it.",
        }

    def _post_clean(self) -> None:
        """The rates are judged here; the row itself is made and checked by the domain."""

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        rates = read_rates(data)
        if not rates:
            self.add_error("rate_input_tokens", "Give at least one rate.")
        elif problem := check_rates(rates):
            raise ValidationError(problem)
        data["rates"] = rates
        return data


def validity_of(data: Mapping[str, Any]) -> Validity:
    """When a price applies, from a form's values."""
    return Validity(data["effective_from"], data["effective_to"], data["note"])


# A field for each rate that forms offer.
ModelPriceForm: Any = type(
    "ModelPriceForm",
    (ModelPriceBase,),
    {
        f"rate_{key}": UsdField(label=label, required=False, help_text=f"USD {rate_unit(key)}")
        for key, label in RATE_LABELS.items()
    },
)


class PriceAdmin(TenantModelAdmin):
    """Prices are added and ended, never changed: what was priced by one can still name it."""

    writers = MONEY_ROLES
    end_verb = "End price"
    end_consequence = (
        "It no longer prices new calls. What it has priced keeps its cost, until someone has the "
        "period priced again."
    )
    end_done = "ended."

    @display(description="In force")
    def in_force(self, obj: Any) -> str:
        start = f"from {shown_moment(obj.effective_from)}"
        return start if obj.effective_to is None else f"{start} to {shown_moment(obj.effective_to)}"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_open = obj is None or obj.effective_to is None or obj.effective_to > timezone.now()
        return self.may_write(request) and is_open

    def end(self, request: HttpRequest, obj: Any) -> None:
        end_price(price=obj, actor=actor_of(request))

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """From now on; or, for a model of the list without a price, for all that is stored."""
        initial: dict[str, Any] = {**super().get_changeform_initial_data(request)}
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
        return format_rates(obj.rates)

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
        keys = [f"rate_{key}" for key in RATE_LABELS]
        return (
            (None, {"fields": (("model", "provider"),)}),
            ("Rates", {"fields": tuple(zip(keys[::2], keys[1::2], strict=True))}),
            ("In force", {"fields": ("effective_from", "effective_to", "note")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("any_provider", "rates_shown")

    def question(self, request: HttpRequest, filled: FilledForm) -> Question | None:
        """Rates that may not be per million."""
        data = filled.data
        warnings = rate_slips(
            tenant_id=tenant_of(request).id,
            provider=data["provider"],
            model=data["model"],
            rates=data["rates"],
            now=timezone.now(),
        )
        return question_about(f"Add this price of {data['model']}?", warnings)

    def write(self, request: HttpRequest, filled: FilledForm) -> TenantPrice:
        data = filled.data
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
            "tool": "As named in events.",
            "effective_from": "In the workspace's zone.",
            "effective_to": "In the workspace's zone. Leave empty to keep it until you end it.",
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

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("call_price",)

    def question(self, request: HttpRequest, filled: FilledForm) -> Question | None:
        """A price that may be for a thousand calls."""
        data = filled.data
        warnings = tool_price_slips(data["tool"], data["call_nanos"])
        return question_about(f"Add this price of {data['tool']}?", warnings)

    def write(self, request: HttpRequest, filled: FilledForm) -> ToolPrice:
        data = filled.data
        return add_tool_price(
            tenant=tenant_of(request),
            actor=actor_of(request),
            tool=data["tool"],
            call_nanos=data["call_nanos"],
            validity=validity_of(data),
        )


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
        return format_rates(obj.rates)

    @display(description="Only when")
    def condition(self, obj: CataloguePrice) -> str:
        return ", ".join(f"{name} {value}" for name, value in obj.context.items()) or "—"

    def get_queryset(self, request: HttpRequest) -> QuerySet[CataloguePrice]:
        rows: QuerySet[CataloguePrice] = super().get_queryset(request)
        return rows.filter(superseded_at=None)
