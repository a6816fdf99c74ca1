"""What pages of alerts show as words: times, and what happened line by line."""

from collections.abc import Iterable
from datetime import datetime

from django.utils.html import format_html, format_html_join


def moment_words(at: datetime | None) -> str:
    """A time in UTC, for people."""
    return "—" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


def lines(rows: Iterable[tuple[tuple[str, ...], str]]) -> str:
    """What a line is about, and below it what it says; a phone is wide enough for that.

    What people and programs wrote is escaped.
    """
    shown = [(" · ".join(filter(None, about)), text) for about, text in rows]
    if not shown:
        return "—"
    form = '<p class="break-words pb-2"><b class="font-semibold">{}</b><br>{}</p>'
    return format_html("<div>{}</div>", format_html_join("", form, shown))
