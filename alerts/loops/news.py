"""Whether an agent learned or did something new between two of its model calls.

News is a tool call with arguments not seen before, or with another result than last time.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from alerts.loops.calls import Placed, is_model_call

UNKNOWN: Final = ""


class News(NamedTuple):
    """The amount of news an agent had before a model call, and with what that call asked for."""

    before: int
    asked: int


def news_by_position(calls: Iterable[Placed]) -> dict[int, News]:
    """Return for each model call, by its position, what was new to its agent until then."""
    counts: defaultdict[str, int] = defaultdict(int)
    asking: dict[str, int] = {}
    news: dict[int, News] = {}
    results: dict[tuple[str, str, str], str] = {}
    for position, call in calls:
        if is_model_call(call):
            asking[call.agent] = position
            news[position] = News(counts[call.agent], counts[call.agent])
        elif call.tool and call.tool_arguments_hash:
            key = (call.agent, call.tool, call.tool_arguments_hash)
            before, after = results.get(key), call.output_hash or UNKNOWN
            results[key] = after
            if before is None:
                _excuse(news, asking.get(call.agent))
            if before is None or (after != before and UNKNOWN not in (before, after)):
                counts[call.agent] += 1
    return news


def _excuse(news: dict[int, News], position: int | None) -> None:
    """A new tool call is no news next to the model call that asked for it."""
    if position is not None:
        news[position] = news[position]._replace(asked=news[position].asked + 1)
