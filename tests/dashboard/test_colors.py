"""Colors of dimension values: stable, and told apart by everybody on both backgrounds."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from dashboard.colors import OTHER, PALETTE, SERIES_MAX, places_of
from tests.dashboard.tokens import THEMES, resolved, tokens

Vector = NDArray[np.float64]

# How red-, green- and blue-blind people see linear sRGB (Machado and others, 2009, full severity).
SIGHT = {
    "common": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_LMS = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
TO_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


def linear(color: str) -> Vector:
    parts = np.array([int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(each: str, two: str) -> float:
    light, dark = sorted(
        (float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (each, two)), reverse=True
    )
    return (light + 0.05) / (dark + 0.05)


def oklab(rgb: Vector) -> Vector:
    return np.array(TO_LAB) @ np.cbrt(np.array(TO_LMS) @ rgb)


@pytest.mark.parametrize("theme", THEMES)
def test_every_color_stands_out_from_its_background(theme: str) -> None:
    surface = tokens(theme)["--surface-1"]
    for color in resolved([*PALETTE, OTHER], theme):
        assert contrast(color, surface) >= 3, color


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", ["text", "muted", "accent", "ok", "warning", "critical"])
@pytest.mark.parametrize("behind", ["surface-0", "surface-1", "surface-2"])
def test_text_can_be_read_on_every_surface(theme: str, name: str, behind: str) -> None:
    assert contrast(tokens(theme)[f"--{name}"], tokens(theme)[f"--{behind}"]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", ["ok", "warning", "critical"])
def test_text_can_be_read_on_its_own_soft_surface(theme: str, name: str) -> None:
    assert contrast(tokens(theme)[f"--{name}"], tokens(theme)[f"--{name}-soft"]) >= 4.5


@pytest.mark.parametrize("sight", SIGHT)
def test_no_two_colors_look_alike(sight: str) -> None:
    seen = [
        oklab(np.clip(np.array(SIGHT[sight]) @ linear(color), 0, 1))
        for color in resolved([*PALETTE])
    ]
    # A distance of 0.02 is just noticeable side by side.
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) >= 0.06


def test_a_value_keeps_its_color_whatever_else_is_shown() -> None:
    known = [f"agent-{number}" for number in range(SERIES_MAX)]
    everything = places_of(known, known)
    assert sorted(everything.values()) == list(range(SERIES_MAX))
    for name in known:
        assert places_of(reversed(known), [name])[name] == everything[name]


def test_values_beyond_the_known_ones_get_colors_of_their_own() -> None:
    known = [f"agent-{number}" for number in range(SERIES_MAX)]
    shown = ["new", known[0], "newer"]
    places = places_of(known, shown)
    assert len(set(places.values())) == 3
    assert places[known[0]] == places_of(known, known)[known[0]]
