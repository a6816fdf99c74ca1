"""Template tags of the components: icons, and choices among rows."""

from typing import Final

from django import template
from django.template import Context
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

# Drawn on a 16 px grid with a line of 1.5 px.
ICONS: Final = {
    "alert": "M8 2.5 14.5 13.5h-13zM8 6.5v3.2M8 11.6v.1",
    "bars": "M2 4.5h12M2 8h12M2 11.5h12",
    "chart": "M2 13V8.5M6 13V4M10 13V6.5M14 13V2.5",
    "check": "m3 8.5 3.2 3L13 4.5",
    "close": "m4 4 8 8M12 4l-8 8",
    "down": "m4 6 4 4 4-4",
    "print": "M4.5 6V2.5h7V6M4.5 11.5h-2V6h11v5.5h-2M4.5 9.5h7v4h-7z",
    "download": "M8 2.5v8M4.5 7 8 10.5 11.5 7M2.5 13.5h11",
    "gauge": "M2 12a6 6 0 1 1 12 0M8 12l3-4",
    "left": "m10 4-4 4 4 4",
    "lines": "M2 4h5M4 8h7M8 12h6",
    "moon": "M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7Z",
    "more": "M3.5 8h.01M8 8h.01M12.5 8h.01",
    "panes": "M2 3h5v10H2zM9 3h5v4H9zM9 9h5v4H9z",
    "people": (
        "M6 7.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5ZM1.5 13.5c0-2.5 2-4 4.5-4s4.5 1.5 4.5 4"
        "M11 3a2.2 2.2 0 0 1 0 4.2M12.5 9.8c1.3.5 2 1.8 2 3.7"
    ),
    "percent": (
        "M3 13 13 3M4.5 6a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3Z"
        "M11.5 13a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3Z"
    ),
    "plus": "M8 3v10M3 8h10",
    "right": "m6 4 4 4-4 4",
    "save": "M3 2.5h10v11L8 10.5 3 13.5z",
    "search": "M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9ZM10.5 10.5 14 14",
    "sliders": (
        "M2 4.5h7M13 4.5h1M2 11.5h1M7 11.5h7M11 6.5a2 2 0 1 0 0-4 2 2 0 0 0 0 4Z"
        "M5 13.5a2 2 0 1 0 0-4 2 2 0 0 0 0 4Z"
    ),
    "stop": "M5.5 2h5L14 5.5v5L10.5 14h-5L2 10.5v-5z",
}
# The shape tells the severity, too.
SEVERITY_SHAPES: Final = {
    "critical": "M5 0 10 5 5 10 0 5z",
    "warning": "M5 .5 10 9.5H0z",
    "info": "M5 1a4 4 0 1 0 0 8 4 4 0 0 0 0-8Z",
    "ok": "M5 1a4 4 0 1 0 0 8 4 4 0 0 0 0-8Z",
}


@register.simple_tag
def icon(name: str) -> SafeString:
    """An icon beside words, or in a button that has an `aria-label`."""
    return format_html(
        '<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="{}"/></svg>',
        ICONS[name],
    )


@register.simple_tag
def severity(name: str, words: str = "") -> SafeString:
    """The mark of a severity: critical, warning, info, or ok."""
    return format_html(
        '<svg class="sev {}" viewBox="0 0 10 10" role="img" aria-label="{}"><path d="{}"/></svg>',
        name,
        words or name.capitalize(),
        SEVERITY_SHAPES[name],
    )


@register.simple_tag
def swatch(number: int) -> SafeString:
    """The color of a dimension value: its place in the palette from 1 on, 0 for all others."""
    return format_html(
        '<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">'
        '<rect class="f{}" width="10" height="10"/></svg>',
        number,
    )


@register.simple_block_tag(takes_context=True)
def curl(context: Context, content: str, path: str) -> SafeString:
    """A request to copy, with the newest key of the tenant (`curl_context`). What stands between
    the tags is its JSON.
    """
    prefix = context["key_prefix"]
    key = f"sg_{prefix}_YOUR_SECRET" if prefix else "YOUR_KEY"
    lines = [
        f"curl {context['url']}{path}",
        f"-H 'Authorization: Bearer {key}'",
        "-H 'Content-Type: application/json'",
        f"-d '{content.strip()}'",
    ]
    code = " \\\n  ".join(lines)
    return render_to_string("components/code.html", {"id": "curl", "code": code})
