"""Template tags of the explore page: figures of a metric, and where a value leads."""

from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from dashboard import spend
from dashboard.charts import COUNT
from dashboard.explore.exploration import Exploration
from dashboard.explore.metrics import Metric, Value
from dashboard.explore.ranking import Ranked
from dashboard.findings import shortened, value_words
from dashboard.templatetags import amounts
from metering.reporting.metrics import Figures
from metering.reporting.usage import Measures

register = template.Library()

# Dimensions whose values have a page of their own, of the same name.
PAGES: Final = frozenset({"session", "trace"})
# Sessions and traces have long names that few people read.
ID_CHARACTERS: Final = 20
MONEY_PLACES: Final = 2
SMALL_MONEY_PLACES: Final = 4


@register.simple_tag
def metric_of(metric: Metric, figures: Figures) -> SafeString:
    """A metric's value, exact for machines; why there is none where there is none."""
    return value_of(metric, metric.value(figures))


@register.simple_tag
def value_of(metric: Metric, value: Value) -> SafeString:
    if value is None:
        return amounts.missing(metric.missing)
    if metric.has_money:
        return amounts.money(int(value), SMALL_MONEY_PLACES if metric.asked else MONEY_PLACES)
    if metric.unit is COUNT:
        return amounts.count(int(value))
    return format_html('<data value="{}">{}</data>', value, metric.unit.text(value))


@register.simple_tag
def metric_delta(metric: Metric, now: Figures, before: Figures | None) -> SafeString:
    """The change of a metric; where it is compared, what was not there before counts as nothing."""
    value = metric.value(now)
    if value is None:
        return SafeString("")
    earlier = metric.value(before) if before is not None else 0
    if earlier is None:
        return amounts.missing("new")
    # Shares are compared in millionths, in which a change can be read.
    scale = 1_000_000 if metric.unit.is_share else 1
    whole = [
        int((Decimal(figure) * scale).to_integral_value(rounding=ROUND_HALF_UP))
        for figure in (value, earlier)
    ]
    return amounts.delta(whole[0], whole[1], "spend" if metric.has_money else "count")


@register.simple_tag
def metric_amount(metric: Metric, figures: Figures) -> int:
    """A metric that adds up as a whole number, for shares of it."""
    return int(metric.value(figures) or 0)


@register.simple_tag
def cost_per_call(measures: Measures) -> SafeString:
    """What a model call or tool call cost on average."""
    if not spend.calls_of(measures):
        return amounts.missing("no calls")
    return amounts.money(spend.per_call(measures), SMALL_MONEY_PLACES)


@register.simple_tag
def value_link(
    view: Exploration, dimension: str, row: Ranked, parent: Ranked | None = None
) -> SafeString:
    """A value, in its `parent` if it has one, that leads deeper: to its own page, or to the view of
    it alone.
    """
    if row.value and dimension in PAGES:
        return page_link(dimension, row.value)
    words = value_words(dimension, row.value)
    title = f"Show only {dimension} {row.value}" if row.value else f"Show only {words}"
    around = view.within(parent.value) if parent else view
    address = around.deeper(dimension, row.value).query()
    shown = shortened(words, amounts.VALUE_CHARACTERS)
    return format_html('<a class="name" href="{}" title="{}">{}</a>', address, title, shown)


@register.simple_tag
def page_link(dimension: str, value: str) -> SafeString:
    """A session or a trace, which leads to its page."""
    if not value:
        return amounts.missing("none")
    address = reverse(f"dashboard:{dimension}", args=[value])
    words = shortened(value, ID_CHARACTERS)
    return format_html('<a class="name" href="{}" title="Open {}">{}</a>', address, value, words)


@register.simple_tag
def rest_address(view: Exploration, value: str) -> str:
    """All values of the second dimension in one of the first, as a ranking of their own."""
    bar = view.bar.with_chip(view.group_by[0], value)
    return replace(bar, group_by=view.group_by[1:]).query()


@register.simple_tag
def calls_address(view: Exploration, *pairs: str) -> str:
    """The list of the calls behind a row: `pairs` are dimensions and values in turn."""
    bar = view.bar.with_further({})
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        bar = bar.with_chip(name, value)
    return bar.query(path=reverse("dashboard:calls"))
