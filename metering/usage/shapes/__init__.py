"""What a provider's own usage object means, in the service's words. Pure: objects in, counts out.

"Input" includes cached tokens for one provider and leaves them out for another; reasoning is inside
the output here and beside it there. Each shape has a function of its own; where the object gives a
total, arithmetic decides, and a shape that no one knows is refused rather than read as zero.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from metering.usage.shapes import camel, chat, gemini, messages, responses, smaller
from metering.usage.shapes.counts import Usage, count, seconds
from metering.usage.shapes.keys import KEYS
from metering.usage.shapes.smaller import UNITS
from metering.usage.shapes.tokens import (
    INFERENCE_GEO,
    OTHER_MODELS,
    OVERLAP,
    UNKNOWN_PARTS,
    ExtraValue,
    Tokens,
    UnknownUsage,
    check_tokens,
)

Shape = Callable[[Usage, str | None], Tokens]

_WRAPPED_DEEPEST: Final = 3
# What an answer says of its place where the call was bound to none.
_ANYWHERE: Final = frozenset({"", "global", "not_available"})
_GEO_CHARACTERS_MAX: Final = 40


def normalise_usage(usage: Mapping[str, object], *, provider: str | None) -> Tokens:
    """Return the counts that a provider's usage object means, whole or wrapped as the provider
    returns it.

    Raises UnknownUsage for a shape no one knows and for a known one with a count that is negative,
    no whole number or beyond 2**53. No token is lost and none is counted twice.
    """
    usage, shape = _shape_of(usage)
    tokens = shape(usage, provider)
    if INFERENCE_GEO in usage or not UNITS.isdisjoint(usage):
        return _with_what_any_shape_holds(tokens, usage)
    return tokens


def _shape_of(usage: Usage) -> tuple[Usage, Shape]:
    """Return the object itself, out of what its provider wraps around it, and its shape."""
    if "prompt_tokens" in usage:
        return usage, chat.from_chat
    if "input_tokens" in usage or "output_tokens" in usage:
        return usage, _from_input_and_output
    for _ in range(_WRAPPED_DEEPEST + 1):
        for key, shape in _BY_KEY:
            if usage.get(key) is not None:
                return usage, shape
        inner = (usage.get(key) for key in KEYS.common.wrappers)
        wrapped = next((each for each in inner if isinstance(each, Mapping)), None)
        if wrapped is None:
            break
        usage = wrapped
    raise UnknownUsage("the usage object has no shape that is known")


def _from_input_and_output(usage: Usage, provider: str | None) -> Tokens:
    if messages.MARKS.isdisjoint(usage):
        return responses.from_responses(usage, provider)
    return messages.from_messages(usage, provider)


def _with_what_any_shape_holds(tokens: Tokens, usage: Usage) -> Tokens:
    """Units that are no tokens, and where the call was bound to run."""
    extra: dict[str, ExtraValue] = {}
    for key in sorted(UNITS & usage.keys()):
        if used := seconds(usage, key):
            extra[key] = used
    web = extra.pop("web_searches", 0)
    geo = usage.get(INFERENCE_GEO)
    if isinstance(geo, str) and geo.lower() not in _ANYWHERE:
        extra[INFERENCE_GEO] = geo.lower()[:_GEO_CHARACTERS_MAX]
    return msgspec.structs.replace(
        tokens,
        web_searches=tokens.web_searches or (count(usage, "web_searches") if web else 0),
        extra={**extra, **(tokens.extra or {})} or None,
    )


_BY_KEY: Final[tuple[tuple[str, Shape], ...]] = (
    ("prompt_tokens", chat.from_chat),
    ("input_tokens", _from_input_and_output),
    ("output_tokens", _from_input_and_output),
    ("promptTokenCount", gemini.from_gemini),
    ("inputTokens", camel.from_camel),
    ("outputTokens", camel.from_camel),
    ("prompt_token_count", gemini.from_snake_gemini),
    ("candidates_token_count", gemini.from_snake_gemini),
    ("total_token_count", gemini.from_snake_gemini),
    ("response_token_count", gemini.from_snake_gemini),
    ("generation_token_count", gemini.from_snake_gemini),
    ("totalTokenCount", gemini.from_gemini),
    ("candidatesTokenCount", gemini.from_gemini),
    ("responseTokenCount", gemini.from_gemini),
    ("completion_tokens", chat.from_chat),
    ("billed_units", smaller.from_cohere),
    ("tokens", smaller.from_cohere),
    ("promptTokens", camel.from_prompt_camel),
    ("completionTokens", camel.from_prompt_camel),
    ("inputTokenCount", camel.from_invocation_metrics),
    ("outputTokenCount", camel.from_invocation_metrics),
    ("inputTextTokenCount", camel.from_invocation_metrics),
    ("prompt_eval_count", smaller.from_ollama),
    ("eval_count", smaller.from_ollama),
    ("input_token_count", smaller.from_input_count),
    ("output_token_count", smaller.from_input_count),
    ("generated_token_count", smaller.from_input_count),
    *((mark, messages.from_messages) for mark in sorted(messages.MARKS)),
    ("total_tokens", smaller.from_total),
    ("totalTokens", smaller.from_total),
    ("pages_processed", smaller.from_pages),
    ("seconds", smaller.from_duration),
    *((unit, smaller.from_units) for unit in sorted(UNITS)),
)


_TELL_TIERS: Final = frozenset({"speed", "service_tier", "serviceTier", "trafficType"})


def service_tier(usage: Mapping[str, object]) -> str | None:
    """Return the tier by which the provider served the call, where its usage object tells it."""
    if _TELL_TIERS.isdisjoint(usage):
        return None
    if usage.get("speed") == "fast":
        return "fast"
    for key in ("service_tier", "serviceTier"):
        value = usage.get(key)
        if isinstance(value, Mapping):  # as Bedrock has it
            value = value.get("type")
        if isinstance(value, str) and value:
            return value.lower()
    traffic = usage.get("trafficType")
    if traffic == "ON_DEMAND_FLEX":
        return "flex"
    if traffic == "ON_DEMAND_PRIORITY":
        return "priority"
    return None
