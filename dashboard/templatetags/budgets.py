"""Template tags of budgets: how full all windows of one are."""

from collections.abc import Mapping
from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from metering.models import Mode
from metering.reporting.budget_windows import Spread

register = template.Library()

HEIGHT = 20


@register.simple_tag
def spread(found: Spread, mode: str) -> SafeString:
    """A small histogram: a bar for each tenth of the limit, and the last for what is over it."""
    highest = max(found.bins)
    last = len(found.bins) - 1
    bars = []
    for place, number in enumerate(found.bins):
        if number:
            height = max(2, number * HEIGHT // highest)
            over = "fcrit" if mode == Mode.ENFORCE else "fwarn"
            bars.append((place * 8, HEIGHT - height, height, over if place == last else "f0"))
    label = f"{found.windows:,} windows by how full they are; {found.over:,} over the limit"
    return SafeString(render_to_string("components/spread.html", {"bars": bars, "label": label}))


@register.filter
def item(values: Mapping[Any, Any], key: Any) -> Any:
    """What a mapping has at a key; None where it has nothing."""
    return values.get(key)
