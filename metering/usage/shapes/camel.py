"""Objects that count `inputTokens` and `outputTokens`.

Bedrock (Converse and Nova) and Cursor leave cached input out; the Vercel AI SDK includes it, and
names it otherwise.
"""

from collections.abc import Mapping
from typing import Final

from metering.usage.shapes.arithmetic import Reported, settle
from metering.usage.shapes.counts import (
    Usage,
    count,
    fills_total,
    judge_unknown,
    largest,
    part,
    refuse_unknown,
    require_one,
)
from metering.usage.shapes.tokens import ExtraValue, Tokens, UnknownUsage, with_unknown

_READ_APART: Final = ("cacheReadInputTokens", "cacheReadInputTokenCount", "cacheReadTokens")
_WRITE_APART: Final = ("cacheWriteInputTokens", "cacheWriteInputTokenCount", "cacheWriteTokens")
_INSIDE: Final = frozenset({"cachedInputTokens", "inputTokenDetails"})
_PLAIN: Final = frozenset({"inputTokens", "outputTokens", "totalTokens", "serverToolUsage"})
_KNOWN: Final = (
    _PLAIN
    | _INSIDE
    | frozenset((*_READ_APART, *_WRITE_APART))
    | frozenset({"cacheDetails", "reasoningTokens", "outputTokenDetails", "raw", "totalCents"})
)
_PROMPT_KNOWN: Final = frozenset({"promptTokens", "completionTokens", "totalTokens"})
_INPUT_DETAILS: Final = frozenset({"noCacheTokens", "cacheReadTokens", "cacheWriteTokens"})
_OUTPUT_DETAILS: Final = frozenset({"textTokens", "reasoningTokens"})


def from_camel(usage: Usage, provider: str | None) -> Tokens:
    require_one(usage, ("inputTokens", "outputTokens", "totalTokens"))
    given = count(usage, "inputTokens")
    output = count(usage, "outputTokens")
    total = count(usage, "totalTokens")
    if usage.keys() <= _PLAIN and not usage.get("serverToolUsage"):
        return settle(Reported(given, output, total_tokens=total))
    into = part(usage, "inputTokenDetails")
    out = part(usage, "outputTokenDetails")
    unknown = judge_unknown(
        fills_total(total, given + output),
        (usage, _KNOWN),
        (into, _INPUT_DETAILS),
        (out, _OUTPUT_DETAILS),
    )
    is_inside = not _INSIDE.isdisjoint(usage)
    inside_read = max(count(usage, "cachedInputTokens"), count(into, "cacheReadTokens"))
    web, runs = _server_runs(part(usage, "serverToolUsage"))
    tokens = settle(
        Reported(
            given,
            output,
            max(largest(usage, _READ_APART), inside_read),
            max(largest(usage, _WRITE_APART), count(into, "cacheWriteTokens")),
            _kept_an_hour(usage),
            max(count(usage, "reasoningTokens"), count(out, "reasoningTokens")),
            total,
            is_cache_apart=not is_inside,
        ),
        web_searches=web,
        extra=runs or None,
    )
    return with_unknown(tokens, unknown)


def _server_runs(tools: Usage) -> tuple[int, dict[str, ExtraValue]]:
    """Web searches, and other runs under the names they came with."""
    runs: dict[str, ExtraValue] = {name: used for name in tools if (used := count(tools, name))}
    web = runs.pop("webSearchRequests", 0)
    return web if isinstance(web, int) else 0, runs


def _kept_an_hour(usage: Usage) -> int:
    details = usage.get("cacheDetails")
    if details is None:
        return 0
    if not isinstance(details, list):
        raise UnknownUsage("cacheDetails must be a list")
    return sum(
        count(entry, "inputTokens")
        for entry in details
        if isinstance(entry, Mapping) and entry.get("ttl") == "1h"
    )


def from_prompt_camel(usage: Usage, provider: str | None) -> Tokens:
    """`promptTokens` and `completionTokens`, as older JavaScript libraries name them."""
    require_one(usage, ("promptTokens", "completionTokens"))
    given, output = count(usage, "promptTokens"), count(usage, "completionTokens")
    total = count(usage, "totalTokens")
    unknown = judge_unknown(fills_total(total, given + output), (usage, _PROMPT_KNOWN))
    return with_unknown(settle(Reported(given, output, total_tokens=total)), unknown)


def from_invocation_metrics(usage: Usage, provider: str | None) -> Tokens:
    """Return the metrics that close a Bedrock stream, and Titan's counts in a Bedrock answer."""
    given = ("inputTokenCount", "inputTextTokenCount")
    output = ("outputTokenCount", "outputTextTokenCount", "totalOutputTextTokenCount")
    require_one(usage, (*given, *output))
    refuse_unknown(usage, frozenset((*given, *output, *_READ_APART, *_WRITE_APART, "results")))
    results = usage.get("results") or []
    if not isinstance(results, list):
        raise UnknownUsage("results must be a list")
    generated = sum(count(entry, "tokenCount") for entry in results if isinstance(entry, Mapping))
    return settle(
        Reported(
            largest(usage, given),
            max(largest(usage, output), generated),
            largest(usage, _READ_APART),
            largest(usage, _WRITE_APART),
            is_cache_apart=True,
        )
    )
