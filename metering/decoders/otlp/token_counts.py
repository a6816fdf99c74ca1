"""How many tokens a span says its call used, in the service's meaning of each count.

The dialects name the counts differently, and some leave cached input out of the input. A usage
object of the provider's own beside them is believed before them.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from metering.decoders.assembly import count
from metering.decoders.native import require_shallow
from metering.decoders.otlp.spans import first
from metering.errors import MalformedBody
from metering.usage_shapes import Tokens, UnknownUsage, normalise_usage
from metering.usage_shapes.arithmetic import Reported, settle

_INPUT: Final = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.usage.prompt_tokens",
    "llm.token_count.prompt",
    "ai.usage.inputTokens",
    "ai.usage.promptTokens",
    "ai.usage.tokens",
)
_OUTPUT: Final = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
    "ai.usage.outputTokens",
    "ai.usage.completionTokens",
)
_CACHE_READ: Final = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.cache_read_tokens",
    "gen_ai.usage.cached_tokens",
    "gen_ai.usage.input_tokens.cached",
    "gen_ai.usage.details.cache_read_tokens",
    "gen_ai.usage.details.cache_read_input_tokens",
    "gen_ai.usage.details.cached_tokens",
    "llm.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
    "ai.usage.inputTokenDetails.cacheReadTokens",
    "ai.usage.cachedInputTokens",
)
_CACHE_WRITE: Final = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "gen_ai.usage.cache_write_tokens",
    "gen_ai.usage.input_tokens.cache_write",
    "gen_ai.usage.details.cache_write_tokens",
    "gen_ai.usage.details.cache_creation_input_tokens",
    "llm.usage.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
    "ai.usage.inputTokenDetails.cacheWriteTokens",
)
_CACHE_WRITE_1H: Final = (
    "anthropic.usage.cache_creation.ephemeral_1h_input_tokens",
    "gen_ai.usage.cache_creation.ephemeral_1h_input_tokens",
)
_REASONING: Final = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.output_tokens.reasoning",
    "gen_ai.usage.details.reasoning_tokens",
    "gen_ai.usage.details.thoughts_tokens",
    "llm.usage.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
    "ai.usage.outputTokenDetails.reasoningTokens",
    "ai.usage.reasoningTokens",
)
_INPUT_AUDIO: Final = (
    "gen_ai.usage.input_audio_tokens",
    "gen_ai.usage.details.input_audio_tokens",
    "llm.token_count.prompt_details.audio",
)
_OUTPUT_AUDIO: Final = (
    "gen_ai.usage.output_audio_tokens",
    "gen_ai.usage.details.output_audio_tokens",
    "llm.token_count.completion_details.audio",
)
_TOTAL: Final = (
    "gen_ai.usage.total_tokens",
    "llm.usage.total_tokens",
    "llm.token_count.total",
    "ai.usage.totalTokens",
)
_LANGFUSE: Final = "langfuse.observation.usage_details"
# The steps that Anthropic bills beside a response. Of three instrumentations of one call only one
# tells them, and a call must come to the same tokens whichever of its spans arrives first.
_STEPS: Final = "iterations"


class Counted(msgspec.Struct, frozen=True):
    """`tokens` as counted; `usage` is the provider's own object where the span holds it."""

    tokens: Tokens
    usage: dict[str, Any] | None
    details: int

    def facts(self) -> dict[str, object]:
        """The fields of an event that tell these counts."""
        if self.usage is not None:
            return {"usage": self.usage}
        used = self.tokens
        facts: dict[str, object] = {
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "cache_read_tokens": used.cache_read_tokens,
            # A token cannot be both read and written here: the flat fields have no overlap.
            "cache_write_tokens": min(
                used.cache_write_tokens, used.input_tokens - used.cache_read_tokens
            ),
            "reasoning_tokens": used.reasoning_tokens,
            "input_audio_tokens": min(used.input_audio_tokens, used.input_tokens),
            "output_audio_tokens": min(used.output_audio_tokens, used.output_tokens),
        }
        written = facts["cache_write_tokens"]
        assert isinstance(written, int)
        facts["cache_write_1h_tokens"] = min(used.cache_write_1h_tokens, written)
        kept = ("input_tokens", "output_tokens")
        return {key: value for key, value in facts.items() if value or key in kept}


class _Metadata(msgspec.Struct):
    anthropic: dict[str, Any] | None = None


class _Response(msgspec.Struct):
    """What is of use in a provider's whole answer, where a span quotes it."""

    id: Any = None
    usage: Any = None
    usage_metadata: Any = None
    usageMetadata: Any = None  # noqa: N815 -- Gemini's own spelling


def count_tokens(attributes: Mapping[str, Any], provider: str | None) -> Counted | None:
    """What the span says about tokens, None when it says nothing.

    Raises ValueError for counts that cannot be.
    """
    flat = _flat(attributes, provider)
    for usage in _own_objects(attributes):
        counted = _from_usage(usage, provider)
        if counted is not None and (flat is None or _covers(counted.tokens, flat.tokens)):
            return counted
    return flat or _from_langfuse(attributes)


def response_of(attributes: Mapping[str, Any]) -> _Response:
    """The provider's answer as OpenInference quotes it, which has no attribute for its id."""
    quoted = attributes.get("output.value")
    if "openinference.span.kind" in attributes and isinstance(quoted, str):
        return _decode(quoted, _Response) or _Response()
    return _Response()


def _own_objects(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[object] = [attributes.get("gen_ai.usage.raw")]
    if metadata := _decode(attributes.get("ai.response.providerMetadata"), _Metadata):
        found.append((metadata.anthropic or {}).get("usage"))
    if answer := _decode(attributes.get("gcp.vertex.agent.llm_response"), _Response):
        found.append(answer.usage_metadata)
    quoted = response_of(attributes)
    found += [quoted.usage, quoted.usage_metadata, quoted.usageMetadata]
    objects = [_decode(each if isinstance(each, str) else _encode(each), dict) for each in found]
    return [each for each in objects if each]


def _encode(found: object) -> str | None:
    """JSON again, in which there is no NaN."""
    return msgspec.json.encode(found).decode() if isinstance(found, dict) else None


def _decode(text: object, form: type) -> Any:
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return None
    try:
        require_shallow(text.encode())
        return msgspec.json.decode(text, type=form)
    except (msgspec.DecodeError, MalformedBody):
        return None


def _from_usage(usage: dict[str, Any], provider: str | None) -> Counted | None:
    usage = {key: value for key, value in usage.items() if key != _STEPS}
    try:
        tokens = normalise_usage(usage, provider=provider)
    except UnknownUsage:
        return None
    return Counted(tokens, usage, len(Tokens.__struct_fields__))


def _covers(own: Tokens, flat: Tokens) -> bool:
    """Whether the provider's object leaves nothing out that the attributes beside it tell."""
    return own.input_tokens >= flat.input_tokens and own.output_tokens >= flat.output_tokens


def _flat(attributes: Mapping[str, Any], provider: str | None) -> Counted | None:
    given, output = count(first(attributes, _INPUT)), count(first(attributes, _OUTPUT))
    total = count(first(attributes, _TOTAL))
    if given is None and output is None:
        return None
    parts = [
        count(first(attributes, keys))
        for keys in (_CACHE_READ, _CACHE_WRITE, _CACHE_WRITE_1H, _REASONING)
    ]
    audio = [count(first(attributes, keys)) or 0 for keys in (_INPUT_AUDIO, _OUTPUT_AUDIO)]
    read, write, write_1h, reasoning = (part or 0 for part in parts)
    write = max(write, write_1h)
    given, output = given or 0, output or 0
    reported = Reported(
        given,
        output,
        read,
        write,
        write_1h,
        reasoning,
        total or 0,
        is_cache_apart=read + write > given or _leaves_cache_out(attributes, provider),
    )
    tokens = settle(reported, input_audio_tokens=audio[0], output_audio_tokens=audio[1])
    return Counted(tokens, None, sum(part is not None for part in parts))


def _leaves_cache_out(attributes: Mapping[str, Any], provider: str | None) -> bool:
    """Vercel's SDK passes Anthropic's input on as it is, up to its version with details."""
    return (
        provider == "anthropic"
        and "ai.operationId" in attributes
        and "ai.usage.inputTokenDetails.noCacheTokens" not in attributes
    )


def _from_langfuse(attributes: Mapping[str, Any]) -> Counted | None:
    """Langfuse's own attribute: counts by kind, beside one another where they fill the total."""
    details = attributes.get(_LANGFUSE)
    details = _decode(details, dict) if isinstance(details, str) else details
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
    return Counted(settle(reported), None, 2)
