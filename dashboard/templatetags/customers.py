"""Template tags of pages about customers: amounts of a customer's currency."""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final
from zoneinfo import ZoneInfo

from babel.numbers import format_currency
from django import template
from django.template import Context
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.collection.credentials import has_fake_key
from billing.currencies import LOCALE, amount_of, digits_of, money_of
from billing.form_fields import FAKE_WORDS
from billing.models import Coupon
from billing.reconciliation.results import decimal_string
from billing.statement_files import day_range
from common.money import MINUS, NANOS_PER_USD, money, usd_from_nanos

register = template.Library()
EMPTY: Final = SafeString("")


@register.simple_tag(takes_context=True)
def fake_stripe(context: Context) -> SafeString:
    """A badge beside Stripe's name where no money moves; otherwise nothing."""
    is_fake = has_fake_key(context["request"].tenant.id)
    return format_html('<span class="badge warning">{}</span>', FAKE_WORDS) if is_fake else EMPTY


@register.simple_tag
def price(nanos: int, currency: str) -> SafeString:
    """Billionths of a currency as people read them, rounded to its digits; exact on hover."""
    exact = usd_from_nanos(nanos)
    rounded = (Decimal(abs(nanos)) / NANOS_PER_USD).quantize(
        Decimal(1).scaleb(-digits_of(currency)), rounding=ROUND_HALF_UP
    )
    words = format_currency(rounded, currency, locale=LOCALE)
    sign = MINUS if nanos < 0 else ""
    return format_html(
        '<data value="{}" title="{} {}">{}{}</data>', exact, exact, currency, sign, words
    )


@register.simple_tag
def minor(amount: int, currency: str) -> SafeString:
    """Minor units of a currency as people read them; exact for machines and on hover."""
    exact = amount_of(amount, currency)
    return format_html(
        '<data value="{}" title="{} {}">{}</data>',
        exact,
        exact,
        currency,
        money_of(amount, currency),
    )


@register.simple_tag(name="day_range")
def days_between(starts_at: datetime, ends_at: datetime, zone: str) -> str:
    """The days of a period in its own time zone, as a statement prints them."""
    return day_range(starts_at, ends_at, ZoneInfo(zone))


@register.filter
def calls_url(events_url: str) -> str:
    """The page of the calls that an address of the API lists."""
    return events_url.replace("/v1/events", reverse("dashboard:calls"), 1)


@register.filter
def quantity(text: str) -> str:
    """A decimal string with thousands marked: 1,234.5."""
    return f"{Decimal(text):,f}".replace("-", MINUS)


@register.filter
def decimal_words(value: Decimal) -> str:
    """A decimal without zeros at its end: 20, 17.5."""
    return f"{value.normalize():f}"


@register.simple_tag
def coupon_words(coupon: Coupon) -> str:
    """What a coupon takes off, and of how many statements: 10%, of 2 of 3 statements.

    Needs the coupon annotated with `used`.
    """
    off = (
        f"{decimal_words(coupon.percent)}%"
        if coupon.percent is not None
        else money_of(coupon.amount or 0, coupon.customer.currency)
    )
    if coupon.statements_max is None:
        return f"{off} off"
    used = getattr(coupon, "used", 0)
    return f"{off} off, {used:,} of {coupon.statements_max:,} statements used"


@register.simple_tag
def figure(value: Decimal, unit: str) -> SafeString:
    """An amount of a currency, or a quantity, that was compared; exact for machines."""
    exact = decimal_string(value)
    words = (
        money(int(value * NANOS_PER_USD))
        if unit == "USD"
        else f"{Decimal(exact):,f} {unit}".replace("-", MINUS)
    )
    return format_html('<data value="{}" title="{} {}">{}</data>', exact, exact, unit, words)
