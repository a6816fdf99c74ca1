"""What one call used, in the service's own meaning of each count."""

from typing import Any

import msgspec

# A count; parts of the call by model; what no one knows; or a word that changes the price.
ExtraValue = int | float | str | dict[str, Any]

OVERLAP = "cache_overlap_tokens"
OTHER_MODELS = "other_models"
UNKNOWN_PARTS = "unknown_parts"
INFERENCE_GEO = "inference_geo"


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """Counts of one call.

    `input_tokens` is all input, cache reads and writes included; `output_tokens` is all output,
    reasoning included; `cache_write_tokens` is all writes, of which `cache_write_1h_tokens` are
    kept for an hour. The other fields are parts of these two.

    `extra` holds what has no field: further usage keys of the price library (such as
    `input_image_tokens` or `audio_seconds`), units that it does not know (`images`), and four of
    our own. `cache_overlap_tokens` were read from the cache and written to it by the same call, so
    they stand in both counts. `other_models` maps a model's name to the usage keys of the part of
    this call that another model served; that part is included in the fields and is rated at that
    model's price. `unknown_parts` are members of a usage object that adds up without them, kept as
    they came. `inference_geo` is where the call was bound to run, which some models bill for.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    web_searches: int = 0
    extra: dict[str, ExtraValue] | None = None


def with_unknown(tokens: Tokens, unknown: dict[str, Any]) -> Tokens:
    """Return the counts, with what no one knows kept beside them."""
    if not unknown:
        return tokens
    return msgspec.structs.replace(tokens, extra={**(tokens.extra or {}), UNKNOWN_PARTS: unknown})


class UnknownUsage(ValueError):
    """A usage object whose meaning no one knows, or with a count that cannot be one."""


def check_tokens(tokens: Tokens) -> str | None:
    """Say what contradicts itself in these counts, or None when they agree."""
    if (
        tokens.extra is None
        and tokens.cache_read_tokens + tokens.cache_write_tokens <= tokens.input_tokens
        and tokens.cache_write_1h_tokens <= tokens.cache_write_tokens
        and tokens.reasoning_tokens <= tokens.output_tokens
        and tokens.input_audio_tokens <= tokens.input_tokens
        and tokens.output_audio_tokens <= tokens.output_tokens
    ):
        return None
    return _first_contradiction(tokens)


def _first_contradiction(tokens: Tokens) -> str | None:
    extra = tokens.extra or {}
    for part, whole in _PARTS:
        if _value(tokens, extra, part) > _value(tokens, extra, whole):
            return f"{part} exceed {whole}"
    overlap = _value(tokens, extra, OVERLAP)
    cached = tokens.cache_read_tokens + tokens.cache_write_tokens - overlap
    if cached > tokens.input_tokens:
        return "cache_read_tokens and cache_write_tokens together exceed input_tokens"
    for direction in ("input", "output"):
        whole = f"{direction}_tokens"
        modal = sum(_value(tokens, extra, f"{direction}_{kind}_tokens") for kind in _MODALITIES)
        if modal > _value(tokens, extra, whole):
            return f"{direction} tokens by modality together exceed {whole}"
    return None


def _value(tokens: Tokens, extra: dict[str, ExtraValue], name: str) -> int | float:
    value = extra.get(name, 0) if name not in Tokens.__struct_fields__ else getattr(tokens, name)
    return value if isinstance(value, int | float) else 0


_MODALITIES = ("audio", "image", "video")

_PARTS = (
    ("cache_read_tokens", "input_tokens"),
    ("cache_write_tokens", "input_tokens"),
    ("cache_write_1h_tokens", "cache_write_tokens"),
    ("reasoning_tokens", "output_tokens"),
    ("input_audio_tokens", "input_tokens"),
    ("output_audio_tokens", "output_tokens"),
    ("input_image_tokens", "input_tokens"),
    ("input_video_tokens", "input_tokens"),
    ("output_image_tokens", "output_tokens"),
    ("output_video_tokens", "output_tokens"),
    ("output_citation_tokens", "output_tokens"),
    ("cache_audio_read_tokens", "cache_read_tokens"),
    ("cache_image_read_tokens", "cache_read_tokens"),
    ("cache_video_read_tokens", "cache_read_tokens"),
    ("cache_audio_read_tokens", "input_audio_tokens"),
    ("cache_image_read_tokens", "input_image_tokens"),
    ("cache_video_read_tokens", "input_video_tokens"),
    (OVERLAP, "cache_read_tokens"),
    (OVERLAP, "cache_write_tokens"),
)
