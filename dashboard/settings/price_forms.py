"""Adding prices: a preview says what a price changes and what may be a slip; then it is saved."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from common.money import usd_words
from dashboard.access import PageRequest, may_manage
from dashboard.forms import CONFIRMED, form_page, moment_field, save_once, sent_data, show_form
from metering.configuration.price_slips import rate_slips, tool_price_slips
from metering.configuration.prices import Validity, add_price, add_tool_price
from metering.fields.rates import RatesForm, format_rates, rate_fields
from metering.models import TenantPrice, ToolPrice
from metering.reporting.unpriced_models import unpriced_models
from metering.snapshot import known_configuration, read_configuration
from tenants.admin_site import actor_of
from tenants.number_fields import UsdField

UNPRICED_MAX: Final = 500


class PriceForm(forms.Form):
    """From when to when a price applies, and why."""

    effective_from = moment_field("In force from")
    effective_to = moment_field("Until", required=False, help_text="Leave empty until you end it.")
    note = forms.CharField(label="Note", required=False, max_length=500)

    def __init__(self, request: PageRequest, **initial: object) -> None:
        now = timezone.now().replace(second=0, microsecond=0)
        super().__init__(sent_data(request), initial={"effective_from": now, **initial})
        self.request = request

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        starts_at, ends_at = data.get("effective_from"), data.get("effective_to")
        if starts_at and ends_at and ends_at <= starts_at:
            self.add_error("effective_to", "The end must be later than the start.")
        return data

    @property
    def validity(self) -> Validity:
        data = self.cleaned_data
        return Validity(data["effective_from"], data["effective_to"], data["note"])


class ModelPriceForm(RatesForm, PriceForm):
    """A model's rates in USD, as price lists state them."""

    provider = forms.CharField(
        label="Provider",
        required=False,
        max_length=200,
        help_text="As named in events. Leave empty for any provider.",
    )
    model = forms.CharField(
        label="Model",
        max_length=200,
        help_text="As named in events; aliases and dated names of a known model are resolved.",
    )
    field_order = ("model", "provider")

    def __init__(self, request: PageRequest) -> None:
        # One for a model of the list of those without a price is for all that is stored of it.
        named: dict[str, Any] = {
            name: request.GET.get(name, "")[:200] for name in ("provider", "model")
        }
        if named["model"]:
            named["effective_from"] = timezone.now() - settings.EVENT_MAX_AGE
        super().__init__(request, **named)
        rates = rate_fields()
        self.fields |= rates
        self.order_fields(["model", "provider", *rates])

    def preview(self) -> list[str]:
        """What saving would change."""
        data, tenant_id = self.cleaned_data, self.request.tenant.id
        configuration = read_configuration(tenant_id, known=known_configuration(tenant_id))
        present = configuration.prices.price_at(
            provider=data["provider"], model=data["model"], at=timezone.now()
        )
        lines = [f"{data['model']}: {format_rates(data['rates'])}."]
        if present is None:
            lines.append("The model has no price now.")
        else:
            lines.append(
                "It replaces the present price for new calls. Priced calls keep their cost."
            )
        count = self._unpriced_count()
        if count:
            noun, verb = ("call", "is") if count == 1 else ("calls", "are")
            lines.append(f"{count:,} {noun} without a price {verb} priced immediately.")
        return lines

    def _unpriced_count(self) -> int:
        """Calls under this name without a price, from when it is in force."""
        data = self.cleaned_data
        rows = unpriced_models(
            tenant_id=self.request.tenant.id,
            starts_at=data["effective_from"],
            ends_at=data["effective_to"] or timezone.now(),
            limit=UNPRICED_MAX,
        )
        return sum(
            row.event_count
            for row in rows
            if row.model == data["model"]
            and data["provider"] in {"", row.provider}
            and not row.is_usage_missing
        )

    def slips(self, now: datetime) -> Sequence[str]:
        data = self.cleaned_data
        return rate_slips(
            tenant_id=self.request.tenant.id,
            provider=data["provider"],
            model=data["model"],
            rates=data["rates"],
            now=now,
        )

    def save(self) -> TenantPrice:
        data = self.cleaned_data
        return add_price(
            tenant=self.request.tenant,
            actor=actor_of(self.request),
            provider=data["provider"],
            model=data["model"],
            rates=data["rates"],
            validity=self.validity,
        )


class ToolPriceForm(PriceForm):
    """What one call of a tool costs."""

    tool = forms.CharField(label="Tool", max_length=200, help_text="As named in events.")
    call_nanos = UsdField(label="Price of a call, USD")
    field_order = ("tool", "call_nanos")

    def preview(self) -> list[str]:
        data = self.cleaned_data
        return [
            f"Each call of {data['tool']} costs {usd_words(data['call_nanos'])}.",
            "It applies to new calls. What is priced already keeps its cost.",
        ]

    def slips(self, now: datetime) -> Sequence[str]:
        return tool_price_slips(self.cleaned_data["tool"], self.cleaned_data["call_nanos"])

    def save(self) -> ToolPrice:
        return add_tool_price(
            tenant=self.request.tenant,
            actor=actor_of(self.request),
            tool=self.cleaned_data["tool"],
            call_nanos=self.cleaned_data["call_nanos"],
            validity=self.validity,
        )


@form_page("prices", may=may_manage)
def add_model(request: PageRequest) -> HttpResponse:
    """Add a model's price."""
    return _add(request, ModelPriceForm(request), "Add a model's price")


@form_page("prices", may=may_manage)
def add_tool(request: PageRequest) -> HttpResponse:
    """Add a tool's price."""
    return _add(request, ToolPriceForm(request), "Add a tool's price")


def _add(request: PageRequest, form: ModelPriceForm | ToolPriceForm, headline: str) -> HttpResponse:
    preview: list[str] = []
    slips: Sequence[str] = []
    if request.method == "POST" and form.is_valid():
        preview, slips = form.preview(), form.slips(timezone.now())
        # What was confirmed counts for the same price alone.
        if request.POST.get(CONFIRMED) == _wording(form, slips):
            save: Callable[[], TenantPrice | ToolPrice] = form.save
            saved = save_once(request, form, save)
            if saved is not None:
                messages.success(request, f"{saved} has a price.")
                return HttpResponseRedirect(reverse("dashboard:prices"))
    return show_form(
        request,
        form,
        page="prices",
        headline=headline,
        template="dashboard/settings/add_price.html",
        preview=preview if form.is_bound and not form.errors else [],
        slips=slips,
        confirmed=CONFIRMED,
        wording=_wording(form, slips) if preview else "",
    )


def _wording(form: ModelPriceForm | ToolPriceForm, slips: Sequence[str]) -> str:
    """What a preview was about: all that was typed, and what was doubted."""
    typed = [form[name].value() or "" for name in sorted(form.fields)]
    return " | ".join([*map(str, typed), *slips])
