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
def spread(windows: Spread, mode: str) -> SafeString:
    """A small histogram: a bar for each tenth of the limit, and the last for what is over it."""
    highest = max(windows.bins)
    last = len(windows.bins) - 1
    bars = []
    for index, number in enumerate(windows.bins):
        if number:
            height = max(2, number * HEIGHT // highest)
            over = "fcrit" if mode == Mode.ENFORCE else "fwarn"
            bars.append((index * 8, HEIGHT - height, height, over if index == last else "f0"))
    label = f"{windows.windows:,} windows by how full they are; {windows.over:,} over the limit"
    return SafeString(render_to_string("components/spread.html", {"bars": bars, "label": label}))


@register.filter
def item(values: Mapping[object, object], key: object) -> Any:
    """What a mapping has at a key; None where it has nothing."""
    return values.get(key)
