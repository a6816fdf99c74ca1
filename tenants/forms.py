"""What forms of settings and keys ask for, on pages and in the admin alike."""

from functools import lru_cache
from typing import Any, Final

from django import forms
from django.forms.renderers import BaseRenderer
from django.forms.utils import flatatt
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from common.times import zone_names
from tenants.models import UnpricedPolicy
from tenants.number_fields import UsdField
from tenants.roles import SCOPE_WORDS, Scope

RATE_USD_MAX: Final = 1_000_000
RATES: Final = ("assumed_input_nanos_per_mtok", "assumed_output_nanos_per_mtok")


@lru_cache(maxsize=2048)
def _option(zone: str, label: str, is_chosen: bool) -> SafeString:
    return format_html(
        "<option{}>{}</option>", flatatt({"value": zone, "selected": is_chosen}), label
    )


class ZoneSelect(forms.Select):
    """A select of the time zones. Django's renders two templates for each of these hundreds, which
    took longer than all else of a form.
    """

    def render(
        self,
        name: str,
        value: Any,
        attrs: dict[str, Any] | None = None,
        renderer: BaseRenderer | None = None,
    ) -> SafeString:
        chosen = self.format_value(value)
        options = "\n".join(
            _option(str(zone), str(label), zone in chosen) for zone, label in self.choices
        )
        return format_html(
            "<select{}>{}</select>",
            flatatt(self.build_attrs(self.attrs, {"name": name, **(attrs or {})})),
            mark_safe(options),  # noqa: S308 - each was escaped
        )


class ZoneField(forms.ChoiceField):
    """A time zone, by its name."""

    widget = ZoneSelect


def offer_zones(form: forms.BaseForm, present: str) -> None:
    """Offer every time zone, and the present one even if it is no longer known."""
    field = form.fields.get("timezone")
    if isinstance(field, ZoneField):
        field.choices = [(name, name) for name in sorted(zone_names() | {present})]


def _rate_field(side: str) -> UsdField:
    label = f"Assumed {side} rate, USD per million tokens"
    return UsdField(label=label, required=False, maximum=RATE_USD_MAX)


class SettingsFields(forms.Form):
    """What usage is judged by where budgets and prices do not say."""

    timezone = ZoneField(
        label="Time zone", help_text="Days, weeks and months begin in it, on pages and in exports."
    )
    assumed_input_nanos_per_mtok = _rate_field("input")
    assumed_output_nanos_per_mtok = _rate_field("output")

    def clean(self) -> dict[str, object]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        is_complete = all(data.get(rate) is not None for rate in RATES)
        if data.get("unpriced_policy") == UnpricedPolicy.ASSUME and not is_complete:
            self.add_error("unpriced_policy", "Give both rates to assume them.")
        return data


class KeyFields(forms.Form):
    """What a new key is called and may do."""

    name = forms.CharField(
        label="Name",
        max_length=200,
        help_text="Who or what will use it, as in “research service, production”.",
    )
    scopes = forms.MultipleChoiceField(
        label="Scopes",
        choices=[(scope.value, f"{scope}: {words}") for scope, words in SCOPE_WORDS.items()],
        widget=forms.CheckboxSelectMultiple(),
        initial=[Scope.INGEST.value],
        error_messages={"required": "Choose at least one scope."},
    )

    def clean(self) -> dict[str, object]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        expires_at = data.get("expires_at")
        if expires_at is not None and expires_at <= timezone.now():
            words = "This time is in the past. Choose a later one, or leave it empty."
            self.add_error("expires_at", words)
        return data
