"""Searches and tool runs that a provider bills by the call and counts in its usage object."""

from typing import Final

from metering.usage_shapes.counts import Usage, count, part
from metering.usage_shapes.tokens import ExtraValue

SEARCH_KEYS: Final = frozenset(
    {
        "server_tool_use",
        "server_tool_use_details",
        "server_side_tool_usage_details",
        "tool_calls_details",
        "num_search_queries",
    }
)
_XAI_TOOLS: Final = (
    ("x_search_calls", "social_searches"),
    ("code_interpreter_calls", "code_executions"),
    ("file_search_calls", "storage_searches"),
)


def searches(usage: Usage) -> tuple[int, dict[str, ExtraValue]]:
    """Web searches, and other billed runs by the price library's usage key."""
    if usage.keys().isdisjoint(SEARCH_KEYS):
        return 0, {}
    xai = part(usage, "server_side_tool_usage_details")
    invoked = part(part(usage, "tool_calls_details"), "search_web")
    web = max(
        count(part(usage, "server_tool_use"), "web_search_requests"),
        count(part(usage, "server_tool_use_details"), "web_search_requests"),
        count(usage, "num_search_queries"),
        count(xai, "web_search_calls"),
        count(invoked, "invocation"),
    )
    more: dict[str, ExtraValue] = {
        key: runs for name, key in _XAI_TOOLS if (runs := count(xai, name))
    }
    return web, more
