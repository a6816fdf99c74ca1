"""Which color a dimension value has, on every page. Pure.

The eight colors differ for people with each of the common color blindnesses, and stand out from
their background by three to one at least; `tests/dashboard/test_colors.py` computes both.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

# Names of tokens (static/dashboard/css/tokens.css). What has no place of its own is grey.
PALETTE: Final = tuple(f"var(--c{number})" for number in range(1, 9))
OTHER: Final = "var(--c0)"
SERIES_MAX: Final = len(PALETTE)


def places_of(known: Iterable[str], shown: Sequence[str]) -> dict[str, int]:
    """The palette place of each shown value; at most as many as the palette has.

    A value's place follows from its name. Where two names want the same place, the `known` values
    (the greatest of the tenant, whatever the filter) are placed first and in the order of their
    names, so that filtering or another rank never changes a color.
    """
    assert len(shown) <= SERIES_MAX, "there is a color for each"
    greatest = sorted(set(known))[:SERIES_MAX]
    places = _fill({}, greatest)
    kept = {name: places[name] for name in shown if name in places}
    return _fill(kept, sorted(set(shown) - kept.keys()))


def _fill(taken: dict[str, int], names: Iterable[str]) -> dict[str, int]:
    places = dict(taken)
    for name in names:
        wanted = blake2b(name.encode(), digest_size=1).digest()[0] % SERIES_MAX
        used = set(places.values())
        places[name] = next(
            number
            for step in range(SERIES_MAX)
            if (number := (wanted + step) % SERIES_MAX) not in used
        )
    return places
