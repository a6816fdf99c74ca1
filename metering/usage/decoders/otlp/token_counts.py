"""The tokens that a span says its call used, in the service's meaning of each count.

The dialects name the counts differently, and some leave cached input out of the input. A usage
object of the provider's own beside them is believed before them.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from metering.usage.columns import TOKEN_COUNTS
from metering.usage.decoders.assembly import count
from metering.usage.decoders.otlp.dialects import TOKENS
from metering.usage.decoders.otlp.quoted import (
    Answer,
    answer_of,
    decode_object,
    decode_text,
    searches_in_messages,
)
from metering.usage.decoders.otlp.spans import first
from metering.usage.shapes import Tokens, UnknownUsage, normalise_usage
from metering.usage.shapes.arithmetic import Reported, settle

_CACHE_WRITE_5M: Final = tuple(key.replace("1h", "5m") for key in TOKENS.cache_write_1h)
_LANGFUSE: Final = "langfuse.observation.usage_details"
# Claude Code's own names, which it sends alone where it is old.
_CLAUDE_CODE: Final = ("input_tokens", "output_tokens")
_KEPT_BY_TIME: Final = frozenset((*TOKENS.cache_write_1h, *_CACHE_WRITE_5M))
# A compaction of the context is billed beside the answer that it was made for.
_COMPACTION: Final = ("anthropic.usage.compaction.", "gen_ai.usage.compaction.")
_STEPS: Final = "iterations"
_ALWAYS_SENT: Final = ("input_tokens", "output_tokens")
_NO_TOKENS: Final = Tokens()


class Counted(msgspec.Struct, frozen=True):
    """`tokens` as counted; `usage` is the provider's own object where the span holds it.

    `beside` are the input and output, inside `tokens`, of steps that are billed beside the answer
    itself: of several instrumentations of one call, not all tell them.
    """

    tokens: Tokens
    usage: dict[str, object] | None
    has_searches_apart: bool = False
    beside: tuple[int, int] = (0, 0)

    def fields(self) -> dict[str, object]:
        """Return the fields of an event that have these counts."""
        tokens = self.tokens
        if self.usage is not None:
            is_apart = self.has_searches_apart and tokens.web_searches
            return {"usage": self.usage} | (
                {"web_searches": tokens.web_searches} if is_apart else {}
            )
        # A token cannot be both read and written here: the flat fields have no overlap.
        written = min(tokens.cache_write_tokens, tokens.input_tokens - tokens.cache_read_tokens)
        counts = {name: getattr(tokens, name) for name in TOKEN_COUNTS} | {
            "cache_write_tokens": written,
            "cache_write_1h_tokens": min(tokens.cache_write_1h_tokens, written),
            "input_audio_tokens": min(tokens.input_audio_tokens, tokens.input_tokens),
            "output_audio_tokens": min(tokens.output_audio_tokens, tokens.output_tokens),
        }
        return {name: used for name, used in counts.items() if used or name in _ALWAYS_SENT}


class _Metadata(msgspec.Struct):
    anthropic: object = None


class _GoogleAnswer(msgspec.Struct):
    usage_metadata: object = None


class _ToolUse(msgspec.Struct):
    web_search_requests: object = None


class _AnswerMetadata(msgspec.Struct):
    """What OpenInference says of an Anthropic answer beside its attributes."""

    server_tool_use: _ToolUse | None = None


def count_tokens(attributes: Mapping[str, object], provider: str | None) -> Counted | None:
    """Return what the span says about tokens, None when it says nothing.

    Raises ValueError for counts that cannot be.
    """
    answer = answer_of(attributes)
    counted = _counted(attributes, provider, answer)
    if counted is None or counted.tokens.web_searches:
        return counted
    searches = _searches(attributes, answer)
    if not searches:
        return counted
    tokens = msgspec.structs.replace(counted.tokens, web_searches=searches)
    return msgspec.structs.replace(counted, tokens=tokens, has_searches_apart=True)


def _counted(
    attributes: Mapping[str, object], provider: str | None, answer: Answer
) -> Counted | None:
    flat = _flat(attributes, provider)
    for usage in _own_objects(attributes, answer):
        counted = _from_usage(usage, provider)
        if counted is not None and (flat is None or _covers(counted.tokens, flat.tokens)):
            return counted
    return flat or _from_langfuse(attributes)


def _own_objects(attributes: Mapping[str, object], answer: Answer) -> list[dict[str, object]]:
    usages: list[object] = [attributes.get("gen_ai.usage.raw")]
    if metadata := decode_text(attributes.get("ai.response.providerMetadata"), _Metadata):
        own = metadata.anthropic
        usages.append(own.get("usage") if isinstance(own, dict) else None)
    if google := decode_text(attributes.get("gcp.vertex.agent.llm_response"), _GoogleAnswer):
        usages.append(google.usage_metadata)
    usages += answer.usages
    usages.append(attributes.get("langsmith.metadata.usage_metadata"))
    objects = [decode_object(each if isinstance(each, str) else _encode(each)) for each in usages]
    return [each for each in objects if each]


def _searches(attributes: Mapping[str, object], answer: Answer) -> int:
    """Web searches that stand beside the counts, in whichever place the dialect has for them."""
    counted = count(first(attributes, TOKENS.web_searches))
    if counted is not None:
        return counted
    metadata = decode_text(attributes.get("metadata"), _AnswerMetadata)
    if metadata is not None and metadata.server_tool_use is not None:
        counted = count(metadata.server_tool_use.web_search_requests)
    return counted or answer.web_searches or searches_in_messages(attributes)


def _encode(usage: object) -> str | None:
    """JSON again, in which there is no NaN."""
    return msgspec.json.encode(usage).decode() if isinstance(usage, dict) else None


def _from_usage(usage: dict[str, object], provider: str | None) -> Counted | None:
    try:
        tokens = normalise_usage(usage, provider=provider)
        plain = tokens
        if usage.get(_STEPS):
            itself = {key: value for key, value in usage.items() if key != _STEPS}
            plain = normalise_usage(itself, provider=provider)
    except UnknownUsage:
        return None
    beside = (
        tokens.input_tokens - plain.input_tokens,
        tokens.output_tokens - plain.output_tokens,
    )
    return Counted(tokens, usage, beside=beside)


def _covers(own: Tokens, flat: Tokens) -> bool:
    """Return whether the provider's object has everything that the attributes beside it have."""
    return own.input_tokens >= flat.input_tokens and own.output_tokens >= flat.output_tokens


def _flat(attributes: Mapping[str, object], provider: str | None) -> Counted | None:
    given, output = count(first(attributes, TOKENS.input)), count(first(attributes, TOKENS.output))
    total = count(first(attributes, TOKENS.total))
    is_named = given is not None or output is not None
    is_claude_code = not is_named and attributes.get("span.type") == "llm_request"
    if is_claude_code:
        given, output = (count(attributes.get(key)) for key in _CLAUDE_CODE)
    if given is None and output is None:
        return None

    def used(keys: tuple[str, ...]) -> int:
        return count(first(attributes, keys)) or 0

    read, write, reasoning = (
        used(TOKENS.cache_read),
        used(TOKENS.cache_write),
        used(TOKENS.reasoning),
    )
    is_split = not attributes.keys().isdisjoint(_KEPT_BY_TIME)
    write_1h, write_5m = (
        (used(TOKENS.cache_write_1h), used(_CACHE_WRITE_5M)) if is_split else (0, 0)
    )
    write = max(write, write_1h + write_5m)
    given, output = given or 0, output or 0
    is_left_out = is_claude_code or _leaves_cache_out(attributes, provider)
    if is_left_out and total == given + output:
        total = None  # it leaves the cache out as well, and decides nothing
    reported = Reported(
        given,
        output,
        read,
        write,
        write_1h,
        reasoning,
        total or 0,
        is_cache_apart=read + write > given or is_left_out,
    )
    tokens = settle(
        reported,
        input_audio_tokens=used(TOKENS.input_audio),
        output_audio_tokens=used(TOKENS.output_audio),
    )
    beside = _compaction(attributes)
    return Counted(
        _plus(tokens, beside) if beside is not _NO_TOKENS else tokens,
        None,
        beside=(beside.input_tokens, beside.output_tokens),
    )


def _compaction(attributes: Mapping[str, object]) -> Tokens:
    def used(*names: str) -> int:
        keys = tuple(f"{prefix}{name}" for prefix in _COMPACTION for name in names)
        return count(first(attributes, keys)) or 0

    if not any(key.startswith(_COMPACTION) for key in attributes):
        return _NO_TOKENS
    return Tokens(
        used("input_tokens"),
        used("output_tokens"),
        used("cache_read.input_tokens", "cache_read_input_tokens"),
        used("cache_write.input_tokens", "cache_creation_input_tokens"),
    )


def _plus(tokens: Tokens, more: Tokens) -> Tokens:
    sums = {name: getattr(tokens, name) + getattr(more, name) for name in TOKEN_COUNTS}
    return msgspec.structs.replace(tokens, **sums)


def _leaves_cache_out(attributes: Mapping[str, object], provider: str | None) -> bool:
    """Vercel's SDK passes Anthropic's input on as it is, up to its version with details."""
    return (
        provider == "anthropic"
        and "ai.operationId" in attributes
        and "ai.usage.inputTokenDetails.noCacheTokens" not in attributes
    )


def _from_langfuse(attributes: Mapping[str, object]) -> Counted | None:
    """Langfuse's own attribute: counts by kind, beside one another where they fill the total."""
    details = attributes.get(_LANGFUSE)
    details = decode_object(details) if isinstance(details, str) else details
    if not isinstance(details, dict):
        return None
    counts = {str(key): count(value) or 0 for key, value in details.items()}
    if "input" not in counts and "output" not in counts:
        return _from_usage(details, None)
    total = counts.get("total", 0)
    by_way = {
        way: sum(used for key, used in counts.items() if key.startswith(way))
        for way in ("input", "output")
    }
    is_apart = sum(by_way.values()) == total
    reported = Reported(
        by_way["input"] if is_apart else counts.get("input", 0),
        by_way["output"] if is_apart else counts.get("output", 0),
        max(counts.get("input_cache_read", 0), counts.get("input_cached_tokens", 0)),
        counts.get("input_cache_creation", 0),
        0,
        max(counts.get("output_reasoning", 0), counts.get("output_reasoning_tokens", 0)),
        0 if is_apart else total,
    )
    return Counted(settle(reported), None)
