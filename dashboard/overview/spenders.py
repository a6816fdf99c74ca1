"""The values of the split that spent most, as rows with what can be done about each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from django.urls import reverse

from dashboard.access import PageRequest, may_halt
from dashboard.colors import SERIES_MAX, places_of
from dashboard.filter_bar import FilterBar
from dashboard.findings import value_words
from dashboard.spend import Spender, read_greatest
from metering.core.match import KNOWN_BEFORE_CALL, wanted_values
from metering.models import Halt

# Halts that are looked through for those of the spenders.
HALTS_MAX: Final = 500
CURVE_WIDTH: Final = 84
CURVE_HEIGHT: Final = 22


@dataclass(frozen=True)
class SpenderRow:
    """A spender with its color (its number in the palette, 0 for none), the curve of its last days,
    and its addresses. `halt` stops exactly this value; `stop` leads to where one makes such a halt,
    and is empty where the person may not, or no halt can name it.
    """

    spender: Spender
    words: str
    color_number: int
    only: str
    explore: str
    sessions: str
    calls: str
    halt: Halt | None
    stop: str

    @property
    def curve(self) -> str:
        return curve(self.spender.days)


def spender_rows(
    request: PageRequest, bar: FilterBar, spenders: Sequence[Spender]
) -> list[SpenderRow]:
    """The named spenders in their order."""
    shown = [spender.value for spender in spenders[:SERIES_MAX]]
    places = places_of(read_greatest(request.tenant.id, bar), shown)
    halts = _halts(request.tenant.id, bar.split)
    can_stop = bar.split in KNOWN_BEFORE_CALL and may_halt(request)
    rows = []
    for spender in spenders:
        narrowed = bar.with_chip(bar.split, spender.value)
        asked = urlencode({"dimension": bar.split, "value": spender.value})
        rows.append(
            SpenderRow(
                spender=spender,
                words=value_words(bar.split, spender.value),
                color_number=places[spender.value] + 1 if spender.value in places else 0,
                only=narrowed.query(),
                explore=narrowed.query(path=reverse("dashboard:explore")),
                sessions=narrowed.query(path=reverse("dashboard:sessions")),
                calls=narrowed.query(path=reverse("dashboard:calls")),
                halt=halts.get(spender.value),
                stop=f"{reverse('dashboard:confirm_halt')}?{asked}"
                if can_stop and spender.value
                else "",
            )
        )
    return rows


def _halts(tenant_id: int, dimension: str) -> dict[str, Halt]:
    """Halts in force that stop exactly one value of the dimension, by that value."""
    rows = Halt.objects.filter(tenant_id=tenant_id, lifted_at=None, match__has_key=dimension)
    by_value = {}
    for row in rows.order_by("-id")[:HALTS_MAX]:
        values = wanted_values(row.match[dimension])
        if len(row.match) == len(values) == 1:
            by_value[next(iter(values))] = row
    return by_value


def curve(amounts: Sequence[int]) -> str:
    """The path of a small curve, as SVG has it; empty where nothing was spent. Pure."""
    highest = max(amounts, default=0)
    if not highest or len(amounts) < 2:
        return ""
    room = CURVE_HEIGHT - 2
    points = [
        f"{index * CURVE_WIDTH / (len(amounts) - 1):.1f} {1 + room - room * amount / highest:.1f}"
        for index, amount in enumerate(amounts)
    ]
    return f"M{' L'.join(points)}"
