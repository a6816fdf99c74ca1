"""What recorded usage objects mean, computed apart from the service and in another way.

The service looks at an object's keys. This looks at which API answered, and takes the output from
the provider's own total where it gives one: what is not input was generated.
"""

from common.json_bodies import JsonObject

Usage = JsonObject
KINDS = {
    "AUDIO": "audio",
    "IMAGE": "image",
    "DOCUMENT": "image",
    "VIDEO": "video",
    2: "image",  # as protobuf numbers it
}


def expected_counts(url_path: str | None, usage: Usage) -> JsonObject:
    """The fields of Tokens that are not zero."""
    if "generateContent" in (url_path or "") or "promptTokenCount" in usage:
        counts = _gemini(usage)
    elif "inputTokens" in usage:
        counts = _bedrock(usage)
    elif "billed_units" in usage:
        billed = usage["billed_units"]
        counts = {
            "input_tokens": billed["input_tokens"],
            "output_tokens": billed.get("output_tokens"),
        }
    elif "prompt_tokens" in usage:
        counts = _chat(usage)
    elif "total_tokens" in usage:
        counts = _responses(usage)
    elif "totalTokenCount" in usage:
        counts = {"input_tokens": usage["totalTokenCount"]}
    else:
        counts = _anthropic(usage)
    return {name: value for name, value in counts.items() if value}


def _chat(usage: Usage) -> Usage:
    prompt, completion = usage["prompt_tokens"], usage.get("completion_tokens", 0)
    into = usage.get("prompt_tokens_details") or {}
    out = usage.get("completion_tokens_details") or {}
    output = usage.get("total_tokens", prompt + completion) - prompt
    reasoning = out.get("reasoning_tokens") or output - completion
    read = max(into.get("cached_tokens", 0), *(usage.get(key, 0) for key in CHAT_CACHE_KEYS))
    write = into.get("cache_write_tokens", 0)
    extra = {"input_video_tokens": into.get("video_tokens", 0)}
    if read + write > prompt:
        extra["cache_overlap_tokens"] = min(read, write)
    searched = usage.get("server_tool_use_details") or {}
    return {
        "input_tokens": prompt,
        "output_tokens": output,
        "cache_read_tokens": read,
        "cache_write_tokens": write,
        "reasoning_tokens": min(reasoning, output),
        "input_audio_tokens": into.get("audio_tokens", 0),
        "web_searches": searched.get("web_search_requests", 0),
        "extra": _positive(extra),
    }


CHAT_CACHE_KEYS = ("cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens")


def _responses(usage: Usage) -> Usage:
    given = usage.get("input_tokens", usage["total_tokens"])
    into = usage.get("input_tokens_details") or usage.get("input_token_details") or {}
    out = usage.get("output_tokens_details") or {}
    return {
        "input_tokens": given,
        "output_tokens": usage["total_tokens"] - given,
        "cache_read_tokens": into.get("cached_tokens", 0),
        "cache_write_tokens": into.get("cache_write_tokens", 0),
        "reasoning_tokens": out.get("reasoning_tokens", 0),
        "input_audio_tokens": into.get("audio_tokens", 0),
    }


def _bedrock(usage: Usage) -> Usage:
    read = usage.get("cacheReadInputTokens", usage.get("cacheReadInputTokenCount", 0))
    write = usage.get("cacheWriteInputTokens", usage.get("cacheWriteInputTokenCount", 0))
    output = usage["outputTokens"]
    return {
        "input_tokens": usage.get("totalTokens", usage["inputTokens"] + output) - output,
        "output_tokens": output,
        "cache_read_tokens": read,
        "cache_write_tokens": write,
    }


def _gemini(usage: Usage) -> Usage:
    thoughts = usage.get("thoughtsTokenCount", 0)
    output = usage.get("candidatesTokenCount", 0) + thoughts
    kinds: dict[str, int] = {}
    for direction, names in (
        ("input_{}_tokens", ("promptTokensDetails", "toolUsePromptTokensDetails")),
        ("output_{}_tokens", ("candidatesTokensDetails",)),
        ("cache_{}_read_tokens", ("cacheTokensDetails",)),
    ):
        for name in names:
            for entry in usage.get(name, ()):
                if entry["modality"] in KINDS:
                    key = direction.format(KINDS[entry["modality"]])
                    kinds[key] = kinds.get(key, 0) + entry.get("tokenCount", 0)
    return {
        "input_tokens": usage.get("totalTokenCount", usage["promptTokenCount"]) - output,
        "output_tokens": output,
        "cache_read_tokens": usage.get("cachedContentTokenCount", 0),
        "reasoning_tokens": thoughts,
        "input_audio_tokens": kinds.pop("input_audio_tokens", 0),
        "extra": _positive(kinds),
    }


def _anthropic(usage: Usage) -> Usage:
    # Its advisors' and compactions' steps are billed beside the top level; its messages are in it.
    steps = [step for step in usage.get("iterations", ()) if step["type"] != "message"]
    parts = [usage, *steps]
    read = sum(part.get("cache_read_input_tokens", 0) for part in parts)
    write = sum(part.get("cache_creation_input_tokens", 0) for part in parts)
    elsewhere = {
        step["model"]: _positive(
            {"input_tokens": step["input_tokens"], "output_tokens": step["output_tokens"]}
        )
        for step in steps
        if "model" in step
    }
    return {
        "input_tokens": sum(part.get("input_tokens", 0) for part in parts) + read + write,
        "output_tokens": sum(part["output_tokens"] for part in parts),
        "cache_read_tokens": read,
        "cache_write_tokens": write,
        "reasoning_tokens": (usage.get("output_tokens_details") or {}).get("thinking_tokens", 0),
        "web_searches": (usage.get("server_tool_use") or {}).get("web_search_requests", 0),
        "extra": {"other_models": elsewhere} if elsewhere else None,
    }


def _positive(counts: dict[str, int]) -> dict[str, int]:
    return {name: used for name, used in counts.items() if used}
