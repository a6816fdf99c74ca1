"""What pages of alerts show as lines: times, and tables of words."""

from collections.abc import Sequence
from datetime import datetime

from django.utils.html import format_html, format_html_join


def moment_words(at: datetime | None) -> str:
    """A time in UTC, for people."""
    return "—" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lines of words; what people and programs wrote is escaped."""
    if not rows:
        return "—"
    lines = [
        (format_html_join("", '<td class="pr-4 align-top break-words">{}</td>', zip(row)),)
        for row in rows
    ]
    return format_html("<table>{}</table>", format_html_join("", "<tr>{}</tr>", lines))
