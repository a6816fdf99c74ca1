"""Matches in words: whose calls a halt or a breaker is about. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from dashboard.amounts import listed
from dashboard.findings import shortened
from metering.core.match import POSITION, wanted_values

_JOINED_BY: Final = {
    "agent": "by",
    "user": "by",
    "team": "by",
    "customer": "for",
    "feature": "for",
    "session": "in",
    "task": "in",
    "trace": "in",
    "source": "from",
}


def calls_of(match: Mapping[str, Any]) -> str:
    """As the subject of a sentence: calls by agent “research”, calls without a team."""
    if not match:
        return "calls of the whole tenant"
    parts = [_joined(name, wanted_values(match[name])) for name in _in_order(match)]
    return f"calls {' '.join(parts)}"


def _joined(name: str, values: frozenset[str]) -> str:
    parts = [f"“{shortened(value)}”" for value in sorted(values) if value]
    words = [f"{_JOINED_BY.get(name, 'of')} {name} {listed(parts, 'or')}"] if parts else []
    if "" in values:
        article = "an" if name in {"agent", "operation"} else "a"
        words.append(f"without {article} {name}")
    return " or ".join(words)


def pairs_of(match: Mapping[str, object]) -> list[tuple[str, list[str]]]:
    """The dimensions of a match, each with its values; "" for calls without one."""
    return [(name, sorted(wanted_values(match[name]))) for name in _in_order(match)]


def _in_order(match: Mapping[str, object]) -> list[str]:
    """The agent first, then as dimensions are listed everywhere."""
    return sorted(match, key=lambda name: (name != "agent", POSITION.get(name, len(POSITION))))
