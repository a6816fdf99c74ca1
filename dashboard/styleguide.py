"""Every part of the pages on one page, in light and dark, for those who work on them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Final

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from common.money import NANOS_PER_USD
from dashboard.budgets.bars import Bar
from dashboard.chart_notes import Level, Mark, with_levels, with_marks, with_shade
from dashboard.charts import LINE, Buckets, Column, Figure, band, line, over_time, stacked_bars
from dashboard.colors import OTHER, PALETTE
from dashboard.filter_bar import Choice
from dashboard.lying_bars import change_bars
from dashboard.navigation import Link
from dashboard.templatetags.parts import ICONS

START: Final = datetime(2026, 11, 13, tzinfo=UTC)
DAYS: Final = [START + timedelta(days=day) for day in range(7)]
NAMES: Final = (
    *("market-scout", "support-assistant", "code-completion", "code-review"),
    *("contract-reader", "web-researcher", "ticket-triage", "email-writer"),
)
SURFACES: Final = (
    *("surface-0", "surface-1", "surface-2", "surface-3", "accent", "ok", "warning", "critical"),
    *("accent-soft", "ok-soft", "warning-soft", "critical-soft"),
)


@require_safe
def styleguide(request: HttpRequest) -> HttpResponse:
    """The parts, by the names that `docs/pages.md` has."""
    if not settings.HAS_STYLEGUIDE:
        raise Http404("The style guide is for development.")
    context = {
        "themes": ("light", "dark"),
        "figures": [
            ("bars", "Spend by day and agent", _bars()),
            ("forecast", "Month to date against its limit", _forecast()),
            ("change", "What changed", _change()),
        ],
        "palette": list(enumerate(NAMES, start=1)),
        "surfaces": SURFACES,
        "icons": list(ICONS),
        "choices": [Choice("#", words, 0, words == "7 days") for words in ("Today", "7 days")],
        "tabs": [
            Link("Incidents", "#", True, 5, "need attention"),
            Link("Channels", "#", False),
        ],
        "windows": _windows(),
        "at": START,
        "curl": "curl -H 'Authorization: Bearer sg_…' …/v1/events -d '{\"id\": \"test-1\"}'",
        "total_nanos": 3_468_890_000_000,
        "before_nanos": 2_626_480_000_000,
        "call_nanos": 19_200_000,
        "tokens": 3_309_778_401,
    }
    return render(request, "dashboard/styleguide.html", context)


def _usd(*amounts: int) -> list[int]:
    return [amount * NANOS_PER_USD for amount in amounts]


def _bars() -> Figure:
    shares = (219, 97, 70, 57, 52, 46, 28, 23)
    columns = [
        Column(name, _usd(*(share * day // 8 for day in range(2, 9))), color, name)
        for name, share, color in zip(NAMES, shares, PALETTE, strict=True)
    ]
    columns.append(Column("other", _usd(20, 21, 19, 30, 28, 33, 24), OTHER))
    figure = stacked_bars(
        columns,
        Buckets(DAYS, "day", unfinished=6, expected=809 * NANOS_PER_USD),
        before=_usd(455, 240, 270, 460, 455, 450, 470),
    )
    return with_marks(figure, [Mark(4, "warning", "An incident", 1, "#")])


def _forecast() -> Figure:
    places = [day.isoformat() for day in DAYS]
    spent = line("Spent", _usd(120, 250, 390, 540), places[:4])
    ahead = line("Forecast", _usd(540, 700, 860, 1020), places[3:], dash="dash")
    earlier = line(
        "Last month", _usd(90, 180, 300, 420, 560, 690, 800), places, color=LINE, dash="dot"
    )
    edges = band(_usd(540, 660, 780, 900), _usd(540, 740, 940, 1140), places[3:])
    figure = over_time([*edges, earlier, spent, ahead], starts=DAYS, interval="day")
    levels = [Level(1000 * NANOS_PER_USD, "Limit $1,000", True), Level(700 * NANOS_PER_USD, "70%")]
    return with_shade(with_levels(figure, levels), places[0], places[1], "No data")


def _change() -> Figure:
    return change_bars([*zip(NAMES[:4], _usd(734, 34, 25, -17), strict=True)])


def _windows() -> list[tuple[str, object, Bar]]:
    """Bars of windows: calm, with a part that is reserved, near the limit, and over it."""

    def window(words: str, tone: str, percent: int, reserved: int) -> tuple[str, Any, Bar]:
        scale = Decimal(100) / max(100, percent)
        spent = min(percent, 100) * scale
        shown = SimpleNamespace(
            tone=tone,
            percent=Decimal(percent),
            reserved=reserved,
            reserved_percent=Decimal(reserved),
            levels=[(70, "none"), (100, "block")],
        )
        bar = Bar(
            spent_width=spent,
            over_from=spent,
            over_width=max(0, percent - 100) * scale,
            reserved_from=spent,
            reserved_width=reserved * scale,
            limit_at=100 * scale,
            ticks=[(70 * scale, 70, "none"), (99 * scale, 100, "block")],
            is_cut=False,
        )
        return words, shown, bar

    return [
        window("Spent, calm", "calm", 43, 0),
        window("Spent and reserved", "calm", 43, 12),
        window("Above its last warning", "near", 91, 4),
        window("Over the limit", "over", 118, 0),
    ]
