"""Objects that count `input_tokens` and `output_tokens`, all input and all output included.

OpenAI's Responses, Realtime, transcription and image APIs, those who follow them, and the flat
names of the service's own contract and of client libraries.
"""

from typing import Final

from metering.usage.shapes.arithmetic import Reported, settle
from metering.usage.shapes.counts import (
    Usage,
    count,
    fills_total,
    judge_unknown,
    largest,
    merged_parts,
    part,
    require_one,
    seconds,
)
from metering.usage.shapes.keys import KEYS
from metering.usage.shapes.searches import searches
from metering.usage.shapes.tokens import Tokens, with_unknown

_RESPONSES: Final = KEYS.responses
_PLAIN: Final = KEYS.common.information | _RESPONSES.plain
_READ_INSIDE: Final = ("cached_tokens", "cache_read_input_tokens", "cache_read")
_WRITE_INSIDE: Final = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation")
# LangChain splits what Anthropic wrote by how long it is kept.
_WRITE_5M: Final = "ephemeral_5m_input_tokens"
_WRITE_1H: Final = "ephemeral_1h_input_tokens"
_REASONING_INSIDE: Final = ("reasoning_tokens", "thinking_tokens", "reasoning")
_COMMON_INTO: Final = frozenset({"cached_tokens", "cache_write_tokens"})
_COMMON_OUT: Final = frozenset({"reasoning_tokens"})
_KINDS: Final = ("audio", "image", "video")
_EXTRA_KEYS: Final = frozenset(
    {
        f"{name}_tokens"
        for kind in ("image", "video")
        for name in (f"input_{kind}", f"output_{kind}")
    }
    | {f"cache_{kind}_read_tokens" for kind in _KINDS}
)
_KNOWN: Final = (
    _PLAIN
    | KEYS.common.searches
    | _EXTRA_KEYS
    | {*_RESPONSES.input_details, *_RESPONSES.output_details, *_RESPONSES.reasoning}
    | {*_RESPONSES.cache_read, *_RESPONSES.cache_write}
    | _RESPONSES.further
)
_DETAILS: Final = _RESPONSES.details.union(
    (*_READ_INSIDE, *_WRITE_INSIDE, _WRITE_5M, _WRITE_1H, *_REASONING_INSIDE),
    (*_KINDS, *(f"{kind}_tokens" for kind in _KINDS)),
)


def from_responses(usage: Usage, provider: str | None) -> Tokens:
    require_one(usage, ("input_tokens", "output_tokens", "total_tokens"))
    given = count(usage, "input_tokens")
    output = count(usage, "output_tokens")
    total = count(usage, "total_tokens")
    is_plain = usage.keys() <= _PLAIN
    if is_plain:
        into = part(usage, "input_tokens_details")
        out = part(usage, "output_tokens_details")
    else:
        into = merged_parts(usage, _RESPONSES.input_details)
        out = merged_parts(usage, _RESPONSES.output_details)
    unknown = judge_unknown(
        fills_total(total, given + output), (usage, _KNOWN), (into, _DETAILS), (out, _DETAILS)
    )
    reported = Reported(
        given,
        output,
        count(into, "cached_tokens"),
        count(into, "cache_write_tokens"),
        0,
        count(out, "reasoning_tokens"),
        total,
    )
    if is_plain and into.keys() <= _COMMON_INTO and out.keys() <= _COMMON_OUT:
        return settle(reported)
    return with_unknown(_with_more_keys(reported, usage, into, out), unknown)


def _with_more_keys(
    reported: Reported,
    usage: Usage,
    into: Usage,
    out: Usage,
) -> Tokens:
    web, extra = searches(usage)
    kept_an_hour = max(count(usage, "cache_write_1h_tokens"), count(into, _WRITE_1H))
    written = kept_an_hour + max(count(usage, "cache_write_5m_tokens"), count(into, _WRITE_5M))
    reported = reported._replace(
        read_tokens=max(largest(into, _READ_INSIDE), largest(usage, _RESPONSES.cache_read)),
        write_tokens=max(
            largest(into, _WRITE_INSIDE), largest(usage, _RESPONSES.cache_write), written
        ),
        write_1h_tokens=kept_an_hour,
        reasoning_tokens=max(largest(out, _REASONING_INSIDE), largest(usage, _RESPONSES.reasoning)),
    )
    heard = max(largest(into, ("audio_tokens", "audio")), count(usage, "input_audio_tokens"))
    spoken = max(largest(out, ("audio_tokens", "audio")), count(usage, "output_audio_tokens"))
    cached = part(into, "cached_tokens_details")
    by_kind = {
        "input_image_tokens": max(count(into, "image_tokens"), count(usage, "image_tokens")),
        "input_video_tokens": count(into, "video_tokens"),
        "output_image_tokens": count(out, "image_tokens"),
        "output_video_tokens": count(out, "video_tokens"),
        **{f"cache_{kind}_read_tokens": count(cached, f"{kind}_tokens") for kind in _KINDS},
    }
    for key, used in by_kind.items():
        if most := max(used, count(usage, key)):
            extra[key] = most
    if "image_tokens" in out and (written := count(out, "text_tokens")):
        extra["output_text_tokens"] = written
    if sounded := seconds(usage, "billable_audio_seconds"):
        extra["audio_seconds"] = sounded
    if messages := count(usage, "input_text_messages"):
        extra["input_text_messages"] = messages
    return settle(
        reported,
        input_audio_tokens=heard,
        output_audio_tokens=spoken,
        web_searches=max(web, count(usage, "web_searches")),
        extra=extra or None,
    )
