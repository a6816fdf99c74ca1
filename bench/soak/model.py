"""What every window must hold, from what was booked. Pure, and simple enough to trust."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from bench.soak.world import NOTHING, Amounts, Budget, WindowKey, floor_to_minute

# From when a rolling group still counts; what is older has left its window.
CountedFrom = Callable[[tuple[str, ...]], datetime]


class Booking(NamedTuple):
    """An event that is in the books."""

    values: Mapping[str, str]
    at: datetime
    amounts: Amounts
    # By budget: the window that its reservation held, of the budget's present revision.
    held: Mapping[int, WindowKey]
    # What it cost beyond what was still held for it, in windows that were held; and in others that
    # it counts in, where nothing was. Of usage without a reservation neither is overrun.
    overrun_nanos: int
    unheld_overrun_nanos: int = 0


class Balance(NamedTuple):
    """What a window must hold."""

    spent: Amounts = NOTHING
    overrun_nanos: int = 0
    # The part of it that is of windows which were held.
    held_overrun_nanos: int = 0

    def with_booking(self, booking: Booking, *, is_held: bool) -> "Balance":
        """Return the balance with one more event."""
        held = booking.overrun_nanos if is_held else 0
        unheld = 0 if is_held else booking.unheld_overrun_nanos
        return Balance(
            self.spent.plus(booking.amounts),
            self.overrun_nanos + held + unheld,
            self.held_overrun_nanos + held,
        )


def book(
    balances: dict[WindowKey, Balance],
    budget: Budget,
    bookings: Iterable[Booking],
    *,
    counts_from: datetime,
    counted_from: CountedFrom,
) -> None:
    """Add bookings to the windows of a budget's present revision.

    A settled event counts in the window that was held for it, whatever it says itself. Where
    nothing was held it counts by its own time and dimensions.
    """
    for booking in bookings:
        held = booking.held.get(budget.id)
        key = held or budget.window_key(booking.values, booking.at)
        if key is None or (held is None and booking.at < counts_from):
            continue
        has_left = budget.is_rolling and floor_to_minute(booking.at) < counted_from(key.group)
        spent = booking._replace(amounts=NOTHING) if has_left else booking
        known = balances.get(key, Balance())
        balances[key] = known.with_booking(spent, is_held=held is not None)
