"""The chart of a window: what was used by time, how it goes on, levels and limits. Pure."""

from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from dashboard.amounts import count, exact_count
from dashboard.budgets.burn import Burn
from dashboard.budgets.forecast_band import band_of
from dashboard.budgets.words import ACTION_WORDS, refuses
from dashboard.chart_notes import Level, with_levels
from dashboard.charts import (
    COUNT,
    CRITICAL,
    MONEY,
    SURFACE,
    Figure,
    Unit,
    amount_ticks,
    band,
    height,
    line,
    over_time,
)
from metering.reporting.budget_windows import WatchedWindow

# Where plotly draws a moment: by the clock of a zone.
Place = Callable[[datetime], str]


def unit_of(part: str) -> Unit:
    """How amounts of a part of a limit are drawn."""
    if part == "cost_nanos":
        return MONEY
    name = part.replace("_", " ")
    return COUNT._replace(
        text=lambda amount: f"{count(amount)} {name}",
        exact=lambda amount: f"{exact_count(amount)} {name}",
    )


def burn_figure(burn: Burn, window: WatchedWindow, zone: ZoneInfo) -> Figure:
    """Spend as a line, the forecast dashed, levels and limit as lines, crossings as circles."""
    unit = unit_of(window.part)

    def x_of(at: datetime) -> str:
        return at.astimezone(zone).replace(tzinfo=None).isoformat()

    places = [x_of(at) for at in burn.times]
    traces = [line("Spent", burn.used, places, unit=unit)]
    if burn.ahead is not None:
        at, amount = burn.ahead
        traces += _band(burn, window, x_of, unit)
        ahead = line(
            "At this rate",
            [burn.used[-1], amount],
            [places[-1], x_of(min(at, max(burn.ends_at, at)))],
            unit=unit,
            dash="dash",
        )
        traces.append(ahead | _silent())
    is_raised = len({limit for _, limit in burn.limits}) > 1
    if is_raised:
        traces.append(_steps(burn, x_of, unit))
    if burn.crossings:
        traces.append(_circles(burn, x_of, unit))
    local = [at.astimezone(zone) for at in burn.times]
    figure = over_time(traces, starts=local, interval=burn.interval, unit=unit)
    highest = max(window.limit, *(limit for _, limit in burn.limits), *burn.used)
    figure["layout"]["yaxis"] |= amount_ticks(highest, unit)
    last = max(burn.ends_at, burn.ahead[0]) if burn.ahead else burn.ends_at
    figure["layout"]["xaxis"]["range"] = [x_of(burn.starts_at), x_of(last)]
    return with_levels(figure, _levels(window, is_raised, unit), unit)


def _band(burn: Burn, window: WatchedWindow, x_of: Place, unit: Unit) -> list[Figure]:
    spread = band_of(burn, highest=window.limit if refuses(window.rule) else None)
    if spread is None:
        return []
    return band(spread.low, spread.high, [x_of(at) for at in spread.times], unit)


def _silent() -> Figure:
    """What is drawn beside the line has no hover of its own."""
    return {"hoverinfo": "skip", "meta": {"isValue": False}}


def _levels(window: WatchedWindow, is_raised: bool, unit: Unit) -> list[Level]:
    levels = [
        Level(window.limit * percent // 100, f"{percent}% {ACTION_WORDS.get(action, action)}")
        for percent, action in window.levels
        if percent != 100
    ]
    if not is_raised:
        words = f"Limit {unit.text(window.limit).removesuffix('.00')}"
        levels.append(Level(window.limit, words, is_limit=True))
    return levels


def _steps(burn: Burn, x_of: Place, unit: Unit) -> Figure:
    moments = [*burn.limits, (burn.ends_at, burn.limits[-1][1])]
    steps = line(
        "Limit",
        [limit for _, limit in moments],
        [x_of(at) for at, _ in moments],
        unit=unit,
        color=CRITICAL,
    )
    steps["line"]["shape"] = "hv"
    return steps | _silent()


def _circles(burn: Burn, x_of: Place, unit: Unit) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "cliponaxis": False,
        "name": "Level reached",
        "x": [x_of(at) for at, _, _ in burn.crossings],
        "y": [height(amount, unit) for _, amount, _ in burn.crossings],
        "marker": {"size": 8, "color": SURFACE, "line": {"color": CRITICAL, "width": 2}},
        **_silent(),
    }
