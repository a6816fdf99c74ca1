"""Objects that count `prompt_tokens` and `completion_tokens`, as OpenAI's chat API began.

Most providers fill the same fields. They differ in where cached input is told, and in whether
reasoning is inside the completion (OpenAI, Groq, DeepSeek) or beside it (xAI, Perplexity).
"""

from metering.usage.shapes.arithmetic import Reported, settle
from metering.usage.shapes.counts import (
    Usage,
    count,
    fills_total,
    judge_unknown,
    largest,
    part,
    require_one,
    seconds,
)
from metering.usage.shapes.keys import KEYS
from metering.usage.shapes.searches import searches
from metering.usage.shapes.tokens import ExtraValue, Tokens, with_unknown

_CHAT = KEYS.chat
_PLAIN = KEYS.common.information | _CHAT.plain
_KNOWN = _PLAIN | KEYS.common.searches | {*_CHAT.cache_read, *_CHAT.cache_write} | _CHAT.further
# LiteLLM's place for the searches of every provider.
_SEARCHES_INSIDE = "web_search_requests"


def from_chat(usage: Usage, provider: str | None) -> Tokens:
    require_one(usage, ("prompt_tokens", "completion_tokens", "total_tokens"))
    prompt_details = part(usage, "prompt_tokens_details")
    completion_details = part(usage, "completion_tokens_details")
    prompt = count(usage, "prompt_tokens")
    completion = count(usage, "completion_tokens")
    total = count(usage, "total_tokens")
    read = count(prompt_details, "cached_tokens")
    write = count(prompt_details, "cache_write_tokens")
    reasoning = count(completion_details, "reasoning_tokens")
    reported = Reported(
        prompt,
        completion,
        read,
        write,
        0,
        reasoning,
        total,
        is_reasoning_apart=provider is not None and _bills_reasoning_apart(provider),
    )
    unknown = judge_unknown(
        # Parts that no one knows are harmless only while the total leaves no room beside them.
        fills_total(total, prompt + completion, prompt + completion + reasoning),
        (prompt_details, _CHAT.prompt_details),
        (completion_details, _CHAT.completion_details),
        (usage, _KNOWN),
    )
    if usage.keys() <= _PLAIN:
        web = count(prompt_details, _SEARCHES_INSIDE)
        tokens = _with_modalities(reported, prompt_details, completion_details, web, {})
    else:
        tokens = _with_more_keys(reported, usage, prompt_details, completion_details)
    return with_unknown(tokens, unknown)


def _with_more_keys(
    reported: Reported, usage: Usage, prompt_details: Usage, completion_details: Usage
) -> Tokens:
    """Read what providers tell beside the fields that all share."""
    # How long the written tokens are kept, under Anthropic's name for it or LiteLLM's.
    creation = part(usage, "cache_creation") or part(prompt_details, "cache_creation_token_details")
    kept_an_hour = count(creation, "ephemeral_1h_input_tokens")
    written = kept_an_hour + count(creation, "ephemeral_5m_input_tokens")
    reasoning = count(usage, "reasoning_tokens")
    extra: dict[str, ExtraValue] = {}
    reported = reported._replace(
        read_tokens=max(reported.read_tokens, largest(usage, _CHAT.cache_read)),
        write_tokens=max(
            reported.write_tokens,
            largest(usage, _CHAT.cache_write),
            count(prompt_details, "cache_creation_tokens"),
            written,
        ),
        write_1h_tokens=kept_an_hour,
        reasoning_tokens=max(reported.reasoning_tokens, reasoning),
    )
    if "citation_tokens" in usage or "num_search_queries" in usage:
        reported, extra = _with_perplexity(reported, usage, reasoning)
    if heard := seconds(usage, "prompt_audio_seconds"):
        extra["audio_seconds"] = extra["input_audio_seconds"] = heard
    web, more = searches(usage)
    web = max(web, count(prompt_details, _SEARCHES_INSIDE))
    extra.update(more)
    return _with_modalities(reported, prompt_details, completion_details, web, extra)


def _with_perplexity(
    reported: Reported, usage: Usage, reasoning: int
) -> tuple[Reported, dict[str, ExtraValue]]:
    """Perplexity bills reasoning and citations beside the completion, and totals neither."""
    cited = count(usage, "citation_tokens")
    output = reported.output_tokens + reasoning + cited
    extra: dict[str, ExtraValue] = {"output_citation_tokens": cited} if cited else {}
    return reported._replace(output_tokens=output, total_tokens=0), extra


def _with_modalities(
    reported: Reported,
    prompt_details: Usage,
    completion_details: Usage,
    web: int,
    extra: dict[str, ExtraValue],
) -> Tokens:
    heard = count(prompt_details, "audio_tokens")
    spoken = count(completion_details, "audio_tokens")
    for details, kind, key in (
        (prompt_details, "image_tokens", "input_image_tokens"),
        (prompt_details, "video_tokens", "input_video_tokens"),
        (completion_details, "image_tokens", "output_image_tokens"),
        (completion_details, "video_tokens", "output_video_tokens"),
    ):
        if kind in details and (used := count(details, kind)):
            extra[key] = used
    if heard:
        cached = part(prompt_details, "cached_tokens_details")
        if cached_audio := count(cached, "audio_tokens"):
            extra["cache_audio_read_tokens"] = cached_audio
    return settle(
        reported,
        input_audio_tokens=heard,
        output_audio_tokens=spoken,
        web_searches=web,
        extra=extra or None,
    )


def _bills_reasoning_apart(provider: str) -> bool:
    name = provider.lower()
    return "xai" in name or "x-ai" in name or "x_ai" in name or "x.ai" in name or "grok" in name
