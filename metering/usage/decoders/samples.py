"""A redacted form of what a sender sent, so that a person sees its shape and nothing else.

Keys and numbers stay. Strings become their length, unless they stand under a key whose values are
names of models, operations or programs, and look like such a name.
"""

import math
import re
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from common.errors import EventRejected

SAMPLE_BYTES_MAX: Final = 2048
# Tried in turn until the sample is short enough: levels, and members of each object or array.
_SHAPES: Final = ((6, 60), (5, 30), (4, 20), (3, 12), (2, 8), (1, 5))
_MEMBERS_MAX: Final = 400
_NAMES: Final = frozenset(
    {
        "ai.model.id",
        "ai.model.provider",
        "ai.operationid",
        "ai.response.model",
        "call_type",
        "custom_llm_provider",
        "embedding.model_name",
        "event.name",
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "gen_ai.system",
        "gen_ai.tool.name",
        "langsmith.span.kind",
        "llm.model_name",
        "llm.provider",
        "llm.request.type",
        "llm.system",
        "model",
        "model_group",
        "openinference.span.kind",
        "operation",
        "provider",
        "requested_model",
        "scope",
        "service.name",
        "span_name",
        "status",
        "telemetry.sdk.language",
        "traceloop.span.kind",
        "type",
    }
)
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,100}(?: [A-Za-z0-9_.:/-]{1,60}){0,2}")
# A key that is no name of a field may be data: a person's address, a sentence.
_KEY: Final = re.compile(r"[A-Za-z0-9_.:/$-]{1,100}")


T = TypeVar("T")


class _Source(msgspec.Struct):
    source: object = None


def with_sample(item: T, raw: bytes, *, source: str | None = None) -> T:
    """Return what became of an item, with its source and a sample of it where it was rejected."""
    if isinstance(item, EventRejected) and item.sample is None:
        item.source = item.source or source or _source_in(raw)
        item.sample = redacted_sample(raw)
    return item


def _source_in(raw: bytes) -> str | None:
    try:
        source = msgspec.json.decode(raw, type=_Source).source
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return source[:200] if isinstance(source, str) else None


def redacted_sample(value: object) -> str:
    """Return the value as JSON of at most 2 KiB. Bytes that are no JSON become their length."""
    if isinstance(value, bytes | msgspec.Raw):
        value = _decoded(bytes(value))
    for levels, members in _SHAPES:
        budget = [_MEMBERS_MAX]
        text = msgspec.json.encode(_redacted(value, "", levels, members, budget))
        if len(text) <= SAMPLE_BYTES_MAX:
            return text.decode()
    return '"…"'


def _decoded(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw


def _redacted(value: object, key: str, levels: int, members: int, budget: list[int]) -> object:
    budget[0] -= 1
    if isinstance(value, str):
        is_name = key.lower() in _NAMES and _NAME.fullmatch(value)
        return value if is_name else f"str[{len(value)}]"
    if isinstance(value, Mapping):
        return _redacted_object(value, levels, members, budget)
    if isinstance(value, list | tuple):
        if not levels or budget[0] <= 0:
            return f"array[{len(value)}]"
        kept = [_redacted(each, key, levels - 1, members, budget) for each in value[:members]]
        return kept if len(value) <= members else [*kept, f"+{len(value) - members}"]
    return _redacted_scalar(value)


def _redacted_scalar(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        is_plain = abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)
        return value if is_plain else "number"
    return f"bytes[{len(value)}]" if isinstance(value, bytes) else type(value).__name__


def _redacted_object(
    value: Mapping[object, object], levels: int, members: int, budget: list[int]
) -> object:
    if not levels or budget[0] <= 0:
        return f"object[{len(value)}]"
    kept: dict[str, object] = {}
    for key, inner in value.items():
        if len(kept) == members:
            kept["…"] = f"+{len(value) - members}"
            break
        word = str(key) if _KEY.fullmatch(str(key)) else f"key[{len(str(key))}]"
        kept[word] = _redacted(inner, str(key), levels - 1, members, budget)
    return kept
