"""Admin pages of prices: the tenant's own and the catalogue."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from django.conf import settings
from django.contrib import messages
from django.contrib.admin import display, register
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from common.json_bodies import JsonObject
from common.money import usd_words
from metering.admin.limits import MoneyAdmin
from metering.configuration.price_slips import rate_slips, tool_price_slips
from metering.configuration.prices import Validity, add_price, add_tool_price, end_price
from metering.fields.rates import RatesForm, format_rates, rate_fields
from metering.models import CataloguePrice, TenantPrice, ToolPrice
from tenants.admin_forms import FilledForm, RowForm
from tenants.admin_kinds import ReadOnlyAdmin
from tenants.admin_questions import Question, question_about
from tenants.admin_site import actor_of, shown_moment, site, tenant_of
from tenants.number_fields import UsdField

RATE_FIELDS: Final = tuple(rate_fields())


class ModelPriceBase(RatesForm, RowForm):
    """Rates in USD as price lists state them."""

    class Meta:
        help_texts = {
            "provider": "As named in events. Leave empty for any provider.",
            "model": "As named in events; aliases and dated names of a known model are resolved.",
            "effective_from": "In the workspace's zone. Calls without a price since then are "
            "priced, too.",
            "effective_to": "In the workspace's zone. Leave empty to keep it until you end it.",
        }


# A field for each rate that forms offer.
ModelPriceForm: Any = type("ModelPriceForm", (ModelPriceBase,), rate_fields())


class PriceAdmin(MoneyAdmin):
    """Prices are added and ended, never changed: what was priced by one can still name it."""

    # The domain's function, what it takes of a form besides the validity, and whose price it is.
    add: ClassVar[Callable[..., TenantPrice | ToolPrice]]
    taken: ClassVar[Sequence[str]]
    priced: ClassVar[str]
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

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_open = obj is None or obj.effective_to is None or obj.effective_to > timezone.now()
        return self.may_write(request) and is_open

    def end(self, request: HttpRequest, obj: Any) -> None:
        end_price(price=obj, actor=actor_of(request))

    def slips(self, request: HttpRequest, data: JsonObject) -> list[str]:
        """Return what the form may not mean."""
        raise NotImplementedError

    def question(self, request: HttpRequest, filled: FilledForm) -> Question | None:
        data = filled.data
        return question_about(f"Add this price of {data[self.priced]}?", self.slips(request, data))

    def write(self, request: HttpRequest, filled: FilledForm) -> TenantPrice | ToolPrice:
        data = filled.data
        return self.add(
            tenant=tenant_of(request),
            actor=actor_of(request),
            validity=Validity(*(data[name] for name in Validity._fields)),
            **{name: data[name] for name in self.taken},
        )

    def get_changeform_initial_data(self, request: HttpRequest) -> JsonObject:
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
    add = staticmethod(add_price)
    taken = ("provider", "model", "rates")
    priced = "model"
    list_display = ("model", "any_provider", "rates_shown", "in_force", "note")
    search_fields = ("model", "provider")
    ordering = ("model", "-effective_from")

    @display(description="Provider", ordering="provider")
    def any_provider(self, obj: TenantPrice) -> str:
        return obj.provider or "any"

    @display(description="Rates")
    def rates_shown(self, obj: TenantPrice) -> str:
        return format_rates(obj.rates)

    fieldsets = (
        (None, {"fields": (("model", "provider"),)}),
        ("Rates", {"fields": tuple(zip(RATE_FIELDS[::2], RATE_FIELDS[1::2], strict=True))}),
        ("In force", {"fields": Validity._fields}),
    )
    shown_fields = ("model", "any_provider", "rates_shown", *Validity._fields)

    def slips(self, request: HttpRequest, data: JsonObject) -> list[str]:
        return rate_slips(
            tenant_id=tenant_of(request).id,
            provider=data["provider"],
            model=data["model"],
            rates=data["rates"],
            now=timezone.now(),
        )

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        words = f"{obj.model} has a price. Calls that had none are priced with it now."
        messages.success(request, words)
        return HttpResponseRedirect(reverse("admin:metering_tenantprice_changelist"))


class ToolPriceForm(RowForm):
    """What one call of a tool costs."""

    call_nanos = UsdField(label="Price of a call", help_text="USD")

    class Meta:
        help_texts = {
            "tool": "As named in events.",
            "effective_from": "In the workspace's zone.",
            "effective_to": "In the workspace's zone. Leave empty to keep it until you end it.",
        }


@register(ToolPrice, site=site)
class ToolPriceAdmin(PriceAdmin):
    """What calls of tools cost. A tool without a price is free."""

    form = ToolPriceForm
    add = staticmethod(add_tool_price)
    taken = ("tool", "call_nanos")
    priced = "tool"
    list_display = ("tool", "call_price", "in_force", "note")
    search_fields = ("tool",)
    ordering = ("tool", "-effective_from")
    fields = ("tool", "call_nanos", *Validity._fields)
    shown_fields = ("tool", "call_price", *Validity._fields)

    @display(description="Price of a call", ordering="call_nanos")
    def call_price(self, obj: ToolPrice) -> str:
        return usd_words(obj.call_nanos)

    def slips(self, request: HttpRequest, data: JsonObject) -> list[str]:
        return tool_price_slips(data["tool"], data["call_nanos"])


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
