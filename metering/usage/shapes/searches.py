"""Searches and tool runs that a provider bills by the call and counts in its usage object."""

from collections.abc import Mapping
from typing import Final

from metering.usage.shapes.counts import Usage, count, part
from metering.usage.shapes.keys import KEYS
from metering.usage.shapes.tokens import ExtraValue

_WEB: Final = "web_searches"
# Runs by their name at xAI, in the Responses API, its SDK's map, and its own protocol. Tools that
# somebody else runs, and looking at what a search found, are billed as tokens alone.
_FREE: Final = ""
_XAI_TOOLS: Final = {
    "web_search": _WEB,
    "x_search": "social_searches",
    "code_interpreter": "code_executions",
    "code_execution": "code_executions",
    "file_search": "storage_searches",
    "collections_search": "storage_searches",
    "document_search": "document_searches",
    "attachment_search": "document_searches",
    "mcp": _FREE,
    "view_image": _FREE,
    "view_x_video": _FREE,
}
_ANTHROPIC_TOOLS: Final = {
    "web_search": _WEB,
    "web_fetch": _FREE,
    "tool_search": _FREE,
}
_PERPLEXITY_TOOLS: Final = {"search_web": _WEB, "fetch_url": "url_fetches"}


def searches(usage: Usage) -> tuple[int, dict[str, ExtraValue]]:
    """Web searches, and other billed runs by usage key.

    A run whose name no one knows keeps it as its key, for which no price can have a rate.
    """
    if usage.keys().isdisjoint(KEYS.common.searches):
        return 0, {}
    runs: dict[str, int] = {}
    for key, suffix, names in (
        ("server_tool_use", "_requests", _ANTHROPIC_TOOLS),
        ("server_tool_use_details", "_requests", _ANTHROPIC_TOOLS),
        ("server_side_tool_usage_details", "_calls", _XAI_TOOLS),
        ("server_side_tool_usage", "", _XAI_TOOLS),
    ):
        _take_largest(runs, _runs(part(usage, key), suffix, names))
    invoked = part(usage, "tool_calls_details")
    _take_largest(
        runs,
        {
            _PERPLEXITY_TOOLS.get(name, name): count(tool, "invocation")
            for name, tool in invoked.items()
            if isinstance(tool, Mapping)
        },
    )
    _take_largest(runs, {_WEB: count(usage, "num_search_queries")})
    if not runs:
        # The older search of xAI, billed by the source; its tools are billed by the call instead.
        _take_largest(runs, {"search_sources": count(usage, "num_sources_used")})
    web = runs.pop(_WEB, 0)
    return web, {**runs}


def _runs(counts: Usage, suffix: str, names: Mapping[str, str]) -> dict[str, int]:
    """Return how often each tool ran, by usage key. What is told beside such counts is none."""
    runs: dict[str, int] = {}
    for name, value in counts.items():
        if not name.endswith(suffix):
            continue
        tool = name.lower().removeprefix("server_side_tool_").removesuffix(suffix)
        key = names.get(tool, name)
        if key and type(value) in (int, float):
            runs[key] = runs.get(key, 0) + count(counts, name)
    return runs


def _take_largest(runs: dict[str, int], more: Mapping[str, int]) -> None:
    """One run may be told in several places of an object."""
    for key, used in more.items():
        if used > runs.get(key, 0):
            runs[key] = used
