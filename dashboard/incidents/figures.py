"""The figures of an incident in words. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.utils.dateparse import parse_datetime

from dashboard.amounts import exact_count
from dashboard.findings import shortened
from metering.core.periods import EPOCH

TEXT_CHARACTERS_MAX: Final = 120
# Numbers of rows, which say nothing to people.
FOR_MACHINES: Final = frozenset({"id", "episode"})
# Some facts name a row, some say its number under the same name.
ROWS: Final = frozenset({"budget", "window", "breaker"})
TIMES: Final = frozenset({"at", "start", "end"})


class Figure(NamedTuple):
    """One figure: words and, of these, what fits."""

    words: str
    text: str = ""
    nanos: int | None = None
    at: datetime | None = None


def figures_of(evidence: Mapping[str, object]) -> list[Figure]:
    """Money first, then other numbers and words, then times; what is nested is shown elsewhere."""
    figures = (_figure(name, value) for name, value in sorted(evidence.items()))
    return sorted(
        (figure for figure in figures if figure is not None),
        key=lambda figure: (figure.nanos is None, figure.at is not None),
    )


def findings_of(evidence: Mapping[str, object]) -> list[str]:
    """What was found, a sentence each, where a source gives several reasons."""
    findings = evidence.get("findings")
    if not isinstance(findings, list):
        return []
    return [
        str(finding["words"])
        for finding in findings
        if isinstance(finding, Mapping) and "words" in finding
    ]


def _figure(name: str, value: object) -> Figure | None:
    words, _, unit = name.rpartition("_")
    if not _is_for_people(name, value):
        return None
    if unit == "nanos" and isinstance(value, int):
        return Figure(_titled(words), nanos=value)
    if unit == "seconds" and isinstance(value, int | float):
        return Figure(_titled(words), str(timedelta(seconds=round(value))))
    if unit == "percent" and isinstance(value, int | float):
        return Figure(_titled(words), f"{value:g}%")
    at = parse_datetime(value) if isinstance(value, str) and unit in TIMES else None
    if at is not None and at.tzinfo is not None:
        return _moment(words if unit == "at" else name, at)
    return Figure(_titled(name), _text(value))


def _moment(name: str, at: datetime) -> Figure:
    """A window that never ends begins at the epoch, which no one wants to read."""
    return Figure("Window", "never ends") if at == EPOCH else Figure(_titled(name), at=at)


def _is_for_people(name: str, value: object) -> bool:
    if value is None or value == "" or isinstance(value, Mapping | list):
        return False
    is_row = name in ROWS and isinstance(value, int)
    return not is_row and name.rpartition("_")[2] not in FOR_MACHINES


def _titled(name: str) -> str:
    return name.replace("_", " ").strip().capitalize()


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return exact_count(value)
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return shortened(str(value), TEXT_CHARACTERS_MAX)
