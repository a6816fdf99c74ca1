"""Template tags of the pages of sessions, traces and calls."""

from datetime import timedelta
from decimal import Decimal
from typing import Final

from django import template

from dashboard import amounts
from dashboard.sessions.waterfall import Span

register = template.Library()

MILLISECOND: Final = timedelta(milliseconds=1)


@register.simple_tag
def plain_money(nanos: int) -> str:
    """Dollars where no element fits, as in a drawing."""
    return amounts.money(nanos)


@register.simple_tag
def duration(milliseconds: int) -> str:
    """How long something took: 812 ms, 4.1 s, 2 min 5 s, 3 h 20 min, 2 d 4 h."""
    if not milliseconds:
        return "0 s"
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    seconds, rest = divmod(milliseconds, 1000)
    if seconds < 60:
        return f"{seconds}.{rest // 100} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days:,} d {hours} h" if hours else f"{days:,} d"


@register.simple_tag
def axis_of(span: Span) -> list[tuple[Decimal, str]]:
    """Places along a waterfall in percent, and the time that had passed there in round words."""
    return [
        (span.place(span.starts_at + passed), duration(passed // MILLISECOND).replace(".0 s", " s"))
        for passed in span.ticks
    ]
