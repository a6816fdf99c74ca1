"""How a budget's windows are drawn. Pure."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from metering.reporting.budget_windows import WHOLE, WatchedWindow

# A bar shows this much beyond its limit; what is further is cut off and said in words.
BAR_PERCENT_MAX: Final = Decimal(160)


@dataclass(frozen=True)
class Bar:
    """A window's bar: places and widths in percent of the drawing, not of the limit."""

    spent_width: Decimal
    over_from: Decimal
    over_width: Decimal
    reserved_from: Decimal
    reserved_width: Decimal
    limit_at: Decimal
    ticks: list[tuple[Decimal, int, str]]
    is_cut: bool


def bar_of(window: WatchedWindow) -> Bar:
    """How a window is drawn. Pure."""
    used = window.percent + window.reserved_percent
    highest = max([level for level, _ in window.levels], default=100)
    scale = max(WHOLE, min(BAR_PERCENT_MAX, max(used, Decimal(highest))))
    drawn = min(window.percent, scale)
    within = min(drawn, WHOLE)
    reserved = max(Decimal(0), min(used, scale) - drawn)

    def placed(percent: Decimal) -> Decimal:
        return round(percent * 100 / scale, 2)

    return Bar(
        spent_width=placed(within),
        over_from=placed(within),
        over_width=placed(drawn - within),
        reserved_from=placed(drawn),
        reserved_width=placed(reserved),
        limit_at=placed(WHOLE),
        ticks=[
            (placed(Decimal(level)), level, action)
            for level, action in window.levels
            if level <= scale
        ],
        is_cut=used > scale,
    )
