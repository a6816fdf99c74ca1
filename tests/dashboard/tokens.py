"""The design tokens as a theme has them, read from the stylesheet."""

import re
from functools import cache
from pathlib import Path
from typing import Any, Final

STYLESHEET: Final = Path("dashboard/static/dashboard/css/tokens.css")
_TOKEN: Final = re.compile(r"(--[a-z0-9-]+): (?:light-dark\((.+), (.+)\)|([^;]+));")
THEMES: Final = ("light", "dark")


@cache
def tokens(theme: str) -> dict[str, str]:
    return {
        result[1]: result[4] or result[2 + THEMES.index(theme)]
        for result in _TOKEN.finditer(STYLESHEET.read_text())
    }


def resolved(value: object, theme: str = "light") -> Any:
    """A figure with the colors that its names of tokens stand for."""
    if isinstance(value, str):
        return re.sub(r"var\((--[a-z0-9-]+)\)", lambda result: tokens(theme)[result[1]], value)
    if isinstance(value, list):
        return [resolved(each, theme) for each in value]
    if isinstance(value, dict):
        return {name: resolved(each, theme) for name, each in value.items()}
    return value
