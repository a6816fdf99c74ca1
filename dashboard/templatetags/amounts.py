"""Template tags that print amounts, times and values as every page shows them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import urlencode

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from common.money import usd_from_nanos
from dashboard import amounts
from dashboard.filter_bar import FilterBar
from dashboard.findings import shortened, value_words
from metering.budgets.rules import LimitIncreaseRule
from metering.core.amounts import format_amount
from metering.limits.limit_increases import Added
from metering.reporting.unpriced_models import UnpricedModel

register = template.Library()

VALUE_CHARACTERS = 44
# Smaller changes are noise, and have no color.
DELTA_PERCENT_MIN = 10
# What a budget or breaker does that does not enforce.
MODE_WORDS = {"shadow": "Shadow: monitors only", "warn": "Warn: never refuses"}


@register.simple_tag
def money(nanos: int, places: int | None = None) -> SafeString:
    """Dollars, with the exact amount for machines and on hover. `places` fixes the decimals: 2 in a
    column of amounts and in "x of y", 4 in a column of amounts per call.
    """
    words = amounts.money(nanos) if places is None else amounts.fixed_money(nanos, places)
    return format_html(
        '<data value="{}" title="{}">{}</data>',
        usd_from_nanos(nanos),
        amounts.exact_money(nanos),
        words,
    )


@register.simple_tag
def money_change(nanos: int) -> SafeString:
    """An amount by which something grew, with its sign, and the exact one as `money` has it."""
    return format_html(
        '<data value="{}" title="{}">{}{}</data>',
        usd_from_nanos(nanos),
        amounts.exact_money(nanos),
        "+" if nanos > 0 else "",
        amounts.money(nanos),
    )


@register.simple_tag
def count(number: int) -> SafeString:
    """A count, with the exact one for machines and on hover."""
    return format_html(
        '<data value="{}" title="{}">{}</data>',
        number,
        amounts.exact_count(number),
        amounts.count(number),
    )


@register.simple_tag
def missing(why: str) -> SafeString:
    """What stands where a figure would: the reason that there is none."""
    return format_html('<span class="muted">{}</span>', why)


@register.simple_tag
def share(part: int, whole: int) -> str:
    return amounts.percent(part, whole)


@register.filter
def percent(value: Decimal) -> str:
    return amounts.percent_text(value)


@register.simple_tag
def delta(now: int, before: int | str | None, kind: str = "spend") -> SafeString:
    """A change with sign and arrow, colored from 10% on: more spend is bad news, more calls are
    neither.

    Nothing at all where the page is not compared: `before` is None, or "" as templates have it.
    """
    if not isinstance(before, int):
        return SafeString("")
    grown = amounts.change(now, before)
    if grown is None:
        words, why = (
            ("new", "Nothing in the previous period") if now else ("0%", "Nothing in either period")
        )
        return format_html('<span class="delta flat" title="{}">{}</span>', why, words)
    if abs(grown) < Decimal("0.05"):
        return format_html('<span class="delta flat">{}</span>', "0%")
    is_noise = kind != "spend" or abs(grown) < DELTA_PERCENT_MIN
    tone = "flat" if is_noise else "bad" if grown > 0 else "good"
    sign, arrow = ("+", "↑") if grown > 0 else (amounts.MINUS, "↓")
    return format_html(
        '<span class="delta {}">{}{} <span aria-hidden="true">{}</span></span>',
        tone,
        sign,
        amounts.percent_text(abs(grown)),
        arrow,
    )


@register.simple_tag
def moment(at: datetime | None, form: str = "short") -> SafeString:
    """An instant that the browser shows in the viewer's zone; UTC until it does. `form` is "short",
    "seconds", or "weekday" for what comes soon.
    """
    if at is None:
        return SafeString("never")
    at = at.astimezone(UTC)
    return format_html(
        '<time datetime="{}" data-form="{}" title="{} UTC">{}</time>',
        at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        form,
        at.strftime("%b %-d, %Y, %-I:%M:%S %p"),
        at.strftime("%b %-d, %-I:%M %p UTC"),
    )


@register.simple_tag
def chip_link(bar: FilterBar, name: str, value: str) -> SafeString:
    """A dimension value that filters the page by itself when clicked."""
    words = value_words(name, value)
    return format_html(
        '<a class="name" href="{}" title="{}">{}</a>',
        bar.with_chip(name, value).query(),
        f"Show only {name} {value}" if value else f"Show only {words}",
        shortened(words, VALUE_CHARACTERS),
    )


@register.simple_tag
def chip_query(bar: FilterBar, name: str, value: str) -> str:
    """The overview of one value alone."""
    plain = bar.with_further({}).with_chip(name, value)
    return plain.query(path=reverse("dashboard:overview"))


@register.simple_tag
def price_query(model: UnpricedModel) -> str:
    """What the form for a new price is filled with: the model, and its first call at the latest."""
    return urlencode({"provider": model.provider, "model": model.model})


@register.simple_tag
def share_width(part: int, whole: int, width: int) -> int:
    """How much of a bar of that width a part fills."""
    return min(width, -(-part * width // whole)) if whole > 0 and part > 0 else 0


@register.simple_tag
def words_of_value(value: str) -> str:
    return shortened(value, VALUE_CHARACTERS) if value else "(none)"


@register.simple_tag
def amount_of(part: str, amount: int, places: int | None = None) -> SafeString:
    """An amount of a budget's limit in its own unit; `places` are the decimals of money."""
    if part == "cost_nanos":
        return money(amount, places)
    if part == "seconds":
        return format_html("{}", timedelta(seconds=amount))
    return format_html("{} {}", count(amount), part.replace("_", " "))


@register.simple_tag
def raised_words(raised: LimitIncreaseRule) -> str:
    """By how much a raise in force makes limits higher."""
    parts = [(part, getattr(raised, part)) for part in Added._fields]
    return amounts.listed([format_amount(part, amount) for part, amount in parts if amount])


@register.simple_tag
def mode_tag(mode: str) -> SafeString:
    """A mark on what refuses nothing; nothing on what enforces."""
    words = MODE_WORDS.get(mode)
    return format_html('<span class="badge outline">{}</span>', words) if words else SafeString("")


@register.simple_tag
def halt_link(name: str, value: str) -> SafeString:
    """The way to halt what has this value; it asks once more."""
    query = urlencode({"dimension": name, "value": value})
    return format_html(
        '<a class="link small" href="{}?{}" aria-label="Halt {} {}…">Halt…</a>',
        reverse("dashboard:confirm_halt"),
        query,
        name,
        shortened(value, VALUE_CHARACTERS),
    )


@register.simple_tag
def agent_decisions(bar: FilterBar, agent: str) -> SafeString:
    """An agent that shows only its decisions when clicked."""
    return format_html(
        '<a class="name" href="{}" title="Show only agent {}">{}</a>',
        bar.with_only("agent", agent).query(),
        agent,
        shortened(agent, VALUE_CHARACTERS),
    )
