"""Gemini's and Vertex AI's `usageMetadata`, in its JSON names and in its SDK's.

The prompt includes cached content; thoughts are beside the candidates, and the results of the
provider's own tools beside the prompt.
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
    require_one,
)
from metering.usage.shapes.keys import KEYS
from metering.usage.shapes.tokens import ExtraValue, Tokens, UnknownUsage, with_unknown

MARKS: Final = frozenset({"promptTokenCount", "candidatesTokenCount", "totalTokenCount"})
_OUTPUT: Final = ("candidatesTokenCount", "responseTokenCount")
_KNOWN: Final = KEYS.common.information | {*KEYS.gemini_by_snake.values(), "promptTokenDetails"}
# A page of a document is seen as an image and priced as one. Numbers are the enum of protobuf.
_KIND_BY_MODALITY: Final[dict[str | int | None, str]] = {
    "IMAGE": "image",
    "DOCUMENT": "image",
    "VIDEO": "video",
    "AUDIO": "audio",
    2: "image",
    3: "video",
    4: "audio",
    5: "image",
}
_PLAIN_MODALITIES: Final = frozenset({"TEXT", 1, None, "MODALITY_UNSPECIFIED", 0})
_DETAILS: Final = (
    ("promptTokensDetails", "input_{}_tokens"),
    ("promptTokenDetails", "input_{}_tokens"),
    ("toolUsePromptTokensDetails", "input_{}_tokens"),
    ("cacheTokensDetails", "cache_{}_read_tokens"),
    ("candidatesTokensDetails", "output_{}_tokens"),
    ("responseTokensDetails", "output_{}_tokens"),
)


def from_snake_gemini(usage: Usage, provider: str | None) -> Tokens:
    names = KEYS.gemini_by_snake
    return from_gemini({names.get(key, key): usage[key] for key in usage}, provider)


def from_gemini(usage: Usage, provider: str | None) -> Tokens:
    require_one(usage, ("promptTokenCount", "totalTokenCount", *_OUTPUT))
    thoughts = count(usage, "thoughtsTokenCount")
    total = count(usage, "totalTokenCount")
    given = count(usage, "promptTokenCount") + count(usage, "toolUsePromptTokenCount")
    output = largest(usage, _OUTPUT) + thoughts
    unknown = judge_unknown(fills_total(total, given + output), (usage, _KNOWN))
    if not given and not output:
        given = total  # a cached content tells its size alone
    kinds = _by_kind(usage)
    heard = kinds.pop("input_audio_tokens", 0)
    spoken = kinds.pop("output_audio_tokens", 0)
    extra: dict[str, ExtraValue] = {**kinds}
    reported = Reported(
        given, output, count(usage, "cachedContentTokenCount"), 0, 0, thoughts, total
    )
    tokens = settle(
        reported, input_audio_tokens=heard, output_audio_tokens=spoken, extra=extra or None
    )
    return with_unknown(tokens, unknown)


def _by_kind(usage: Usage) -> dict[str, int]:
    """Tokens that are not text, by the price library's usage key."""
    kinds: dict[str, int] = {}
    for name, key in _DETAILS:
        details = usage.get(name)
        if details is None:
            continue
        if not isinstance(details, list):
            raise UnknownUsage(f"{name} must be a list")
        for entry in details:
            _add_entry(kinds, key, entry)
    return kinds


def _add_entry(kinds: dict[str, int], key: str, entry: object) -> None:
    if type(entry) is not dict and not isinstance(entry, Mapping):
        raise UnknownUsage("a detail of tokens must be an object")
    modality = entry.get("modality")
    if not isinstance(modality, str | int | None):
        raise UnknownUsage("modality must be a word")
    if modality in _PLAIN_MODALITIES:
        return
    used = count(entry, "tokenCount") or count(entry, "token_count")
    kind = _KIND_BY_MODALITY.get(modality)
    if kind is None:
        raise UnknownUsage(f"modality {modality!r} is not known")
    kinds[key.format(kind)] = kinds.get(key.format(kind), 0) + used
