"""Fields of forms about customers, on their own pages and in the admin."""

from decimal import Decimal
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError

from billing.collection.credentials import has_fake_key
from billing.customers import TAX_RATES_MAX
from tenants.number_fields import decimal_of

FAKE_WORDS: Final = "Fake Stripe: not real money"
PERCENT_MAX: Final = 100
PERCENT_DECIMALS_MAX: Final = 6
TAX_RATES_HELP: Final = (
    "One a line, as in VAT 19. Each is a percentage of the net amount; they are added, not "
    "compounded."
)


def stripe_help(tenant_id: int, words: str) -> str:
    """Return the help of a field that names Stripe; it says so if that is the fake one."""
    return f"{words} {FAKE_WORDS}." if has_fake_key(tenant_id) else words


class TaxRatesField(forms.CharField):
    """Taxes, one a line: a name and a percentage, as in "VAT 19"."""

    def __init__(self, **options: Any) -> None:
        options = {"widget": forms.Textarea(attrs={"rows": 2}), **options}
        super().__init__(
            label="Taxes", required=False, max_length=2000, help_text=TAX_RATES_HELP, **options
        )

    def prepare_value(self, value: object) -> object:
        if not isinstance(value, list):
            return value
        return "\n".join(f"{rate['name']} {rate['percent']}" for rate in value)

    def clean(self, value: object) -> object:
        """Raises ValidationError that names the line which cannot be read."""
        lines = [line.strip() for line in (super().clean(value) or "").splitlines()]
        rates = [_rate_of(line) for line in lines if line]
        if len(rates) > TAX_RATES_MAX:
            raise ValidationError(f"Give at most {TAX_RATES_MAX} rates.")
        return rates


def _rate_of(line: str) -> dict[str, str]:
    name, _, text = line.removesuffix("%").strip().rpartition(" ")
    try:
        percent: Decimal | None = decimal_of(text.strip())
    except ValidationError:
        percent = None
    if not name.strip() or percent is None or percent > PERCENT_MAX:
        raise ValidationError(f"Write a name and a percentage, as in VAT 19: “{line[:60]}”.")
    if percent != round(percent, PERCENT_DECIMALS_MAX):
        raise ValidationError(f"Write at most {PERCENT_DECIMALS_MAX} decimals: “{line[:60]}”.")
    return {"name": name.strip()[:60], "percent": f"{percent.normalize():f}"}
