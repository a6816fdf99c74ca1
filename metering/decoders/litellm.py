"""LiteLLM's generic callback: its StandardLoggingPayload, one or many of them, becomes events.

LiteLLM counts tokens in OpenAI's way for every provider (cached input is inside `prompt_tokens`).
An answer out of LiteLLM's own cache reached no provider, so it is an event without tokens.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from metering.decoders.assembly import (
    assemble,
    count,
    digest,
    identity,
    milliseconds,
    name,
    tags,
    usd,
)
from metering.decoders.native import (
    EVENTS_MAX,
    Decoded,
    TagValue,
    require_json,
    require_shallow,
    require_utf8,
    split_array,
)
from metering.decoders.provider_names import canonical_provider
from metering.errors import EventRejected, MalformedBody, TooManyEvents
from metering.usage_shapes import Tokens, UnknownUsage, normalise_usage

SOURCE: Final = "litellm"
_DIMENSIONS: Final = ("team", "customer", "agent", "user", "feature", "session", "task")
_FIELDS_OF_TAGS: Final = frozenset(_DIMENSIONS)

_OPERATIONS: Final = {
    "embedding": "embedding",
    "aembedding": "embedding",
    "call_mcp_tool": "tool",
}
# What runs a model and is counted in tokens. Anything else is neither a model call nor a tool.
_MODEL_CALLS: Final = re.compile(
    r"a?(text_)?completion|a?responses|_?a?responses_websocket|a?anthropic_messages"
    r"|a?generate_content(_stream)?|a?create_interaction|a?send_message|a?run_thread(_stream)?"
    r"|pass_through_endpoint|a?llm_passthrough_route|_?a?realtime|"
)


class _Payload(msgspec.Struct):
    """The fields of a StandardLoggingPayload that tell what was spent, by whom and on what."""

    id: Any = None
    litellm_call_id: Any = None
    trace_id: Any = None
    session_id: Any = None
    call_type: Any = None
    stream: Any = None
    status: Any = None
    custom_llm_provider: Any = None
    model: Any = None
    model_group: Any = None
    model_map_information: Any = None
    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    response_cost: Any = None
    saved_cache_cost: Any = None
    cache_hit: Any = None
    startTime: Any = None  # noqa: N815 -- LiteLLM's own spelling
    endTime: Any = None  # noqa: N815
    completionStartTime: Any = None  # noqa: N815
    metadata: Any = None
    request_tags: Any = None
    end_user: Any = None
    error_str: Any = None
    error_information: Any = None
    model_parameters: Any = None
    response: Any = None
    hidden_params: Any = None


_decode_payload = msgspec.json.Decoder(_Payload).decode


def decode_litellm(body: bytes, *, trusts_given_costs: bool) -> list[Decoded]:
    """An array of payloads, a single one, or one a line, which are LiteLLM's three log formats."""
    require_utf8(body)
    if body.lstrip()[:1] == b"[":
        items = [bytes(item) for item in split_array(body)]
        return [_decode_item(item, trusts_given_costs, depth=1) for item in items]
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > EVENTS_MAX and _are_payloads(lines):
        raise TooManyEvents(len(lines))
    if len(lines) > 1 and _are_payloads(lines):
        return [_decode_line(line, trusts_given_costs) for line in lines]
    return [_decode_item(body, trusts_given_costs)]


def _are_payloads(lines: list[bytes]) -> bool:
    """Whether each line is a payload, rather than all of them one payload in a wide print."""
    return all(line.strip()[:1] == b"{" for line in lines[:2])


def _decode_line(line: bytes, trusts_given_costs: bool) -> Decoded:
    try:
        return _decode_item(line, trusts_given_costs)
    except MalformedBody as error:
        return EventRejected(error.code, error.detail)


def _decode_item(raw: bytes, trusts_given_costs: bool, *, depth: int = 0) -> Decoded:
    require_shallow(raw, depth=depth)
    try:
        payload = _decode_payload(raw)
    except msgspec.ValidationError as error:
        require_json(raw)
        return EventRejected("invalid_value", f"The payload: {error}.")
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBody("malformed_json", f"The body is not JSON: {error}.") from error
    if not isinstance(payload.id, str) or not payload.id:
        return EventRejected("missing_field", "The payload has no 'id'.", pointer="/id")
    try:
        return assemble(_facts(payload, trusts_given_costs))
    except ValueError as error:
        return EventRejected("invalid_value", f"{error}.", event_id=payload.id[:200])


def _facts(payload: _Payload, trusts_given_costs: bool) -> dict[str, object]:
    metadata = _mapping(payload.metadata)
    response = _mapping(payload.response)
    provider = canonical_provider(payload.custom_llm_provider)
    is_cached = payload.cache_hit is True
    facts: dict[str, object] = {
        "source": SOURCE,
        "provider": provider,
        "model": _model(payload, provider),
        "requested_model": name(payload.model_group),
        "operation": _operation(payload.call_type),
        "trace": name(payload.trace_id),
        "max_output_tokens": _max_output(payload.model_parameters),
        "service_tier": name(response.get("service_tier")),
    }
    facts |= _identity(payload, response, is_cached)
    facts |= _times(payload)
    facts |= _outcome(payload)
    facts |= _dimensions(payload, metadata)
    if facts["operation"] == "tool":
        facts |= _tool(metadata)
    elif is_cached:
        facts |= {"input_tokens": 0, "output_tokens": 0, "saved_usd": usd(payload.saved_cache_cost)}
    else:
        facts |= _tokens(payload, metadata, response, provider)
    if trusts_given_costs:
        facts["cost_usd"] = usd(payload.response_cost)
    return facts


def _identity(
    payload: _Payload, response: Mapping[str, object], is_cached: bool
) -> dict[str, object]:
    if payload.status == "failure":
        # Attempts of one request share LiteLLM's id; each is a call of its own.
        return {"id": identity(f"{payload.id}:failure:{payload.startTime}")}
    facts: dict[str, object] = {"id": identity(payload.id)}
    if not is_cached:
        given = response.get("id") or payload.id
        if given != payload.litellm_call_id:
            facts["response_id"] = identity(_provider_response_id(given))
    return facts


def _provider_response_id(given: object) -> object:
    """The provider's own id out of one that LiteLLM wrapped for routing (`resp_` and base64)."""
    if not isinstance(given, str) or not given.startswith("resp_"):
        return given
    try:
        inner = base64.b64decode(given.removeprefix("resp_"), validate=True).decode()
    except (binascii.Error, ValueError):
        return given
    head, found, own = inner.partition("response_id:")
    return own.partition(";")[0] if found and head.startswith("litellm:") else given


def _model(payload: _Payload, provider: str | None) -> str | None:
    given = payload.model
    if provider == "azure":
        # There `model` is the name of a deployment; the price map's key says which model it runs.
        given = _mapping(payload.model_map_information).get("model_map_key") or given
    prefix = f"{payload.custom_llm_provider}/"
    return name(given.removeprefix(prefix)) if isinstance(given, str) else None


def _operation(call_type: object) -> str:
    if not isinstance(call_type, str):
        return "llm"
    if call_type in _OPERATIONS:
        return _OPERATIONS[call_type]
    return "llm" if _MODEL_CALLS.fullmatch(call_type) else "other"


def _times(payload: _Payload) -> dict[str, object]:
    started = payload.startTime
    facts: dict[str, object] = {}
    if started is None:
        return facts
    if isinstance(started, bool) or not isinstance(started, int | float):
        raise ValueError("startTime is no number of seconds")
    try:
        facts["time"] = datetime.fromtimestamp(started, UTC)
    except (OverflowError, OSError, ValueError):
        raise ValueError(f"startTime {str(started)[:50]} is no time") from None
    facts["latency_ms"] = _between(started, payload.endTime)
    if payload.stream is True:
        facts["time_to_first_token_ms"] = _between(started, payload.completionStartTime)
    return facts


def _between(started: float, ended: object) -> int | None:
    if isinstance(ended, bool) or not isinstance(ended, int | float):
        return None
    return milliseconds(ended - started)


def _outcome(payload: _Payload) -> dict[str, object]:
    if payload.status != "failure":
        return {"status": "success"}
    error = _mapping(payload.error_information)
    kind = error.get("error_class") or error.get("error_code") or payload.error_str or "error"
    is_cancelled = "cancel" in str(kind).lower()
    return {"status": "cancelled" if is_cancelled else "error", "error_type": name(kind)}


def _dimensions(payload: _Payload, metadata: Mapping[str, object]) -> dict[str, object]:
    """Who spent it: as callers wrote into metadata, headers or tags, else as LiteLLM knows."""
    pairs = _tag_pairs(payload.request_tags)
    headers = _mapping(metadata.get("requester_custom_headers"))
    told = [
        _mapping(metadata.get("spend_logs_metadata")),
        _mapping(metadata.get("requester_metadata")),
        {field: headers.get(f"x-spendgate-{field}") for field in _DIMENSIONS},
        {key: value for key, value in pairs.items() if key in _FIELDS_OF_TAGS},
        {
            "team": metadata.get("user_api_key_team_alias") or metadata.get("user_api_key_team_id"),
            "customer": payload.end_user or metadata.get("user_api_key_end_user_id"),
            "user": metadata.get("user_api_key_user_id"),
            "session": payload.session_id,
        },
    ]
    facts: dict[str, object] = {}
    for field in _DIMENSIONS:
        facts[field] = next((found for each in told if (found := _dimension(each, field))), None)
    free = {key: value for key, value in pairs.items() if key not in _FIELDS_OF_TAGS}
    if payload.cache_hit is True:
        free["cache_hit"] = True
    facts["tags"] = tags(free)
    return facts


def _dimension(told: Mapping[str, object], field: str) -> str | None:
    return name(told.get(field)) or name(told.get(f"{field}_id"))


def _tag_pairs(given: object) -> dict[str, TagValue]:
    """LiteLLM's tags are words; `environment:prod` is read as a pair, a bare word as true."""
    pairs: dict[str, TagValue] = {}
    for word in given if isinstance(given, list) else []:
        if isinstance(word, str):
            key, colon, value = word.partition(":")
            pairs[key.strip()] = value.strip() if colon else True
    return pairs


def _tool(metadata: Mapping[str, object]) -> dict[str, object]:
    call = _mapping(metadata.get("mcp_tool_call_metadata"))
    facts: dict[str, object] = {"tool": name(call.get("name")) or "unknown"}
    if arguments := call.get("arguments"):
        text = msgspec.json.encode(arguments, order="deterministic").decode()
        facts["tool_arguments_hash"] = digest(text)
    return facts


def _tokens(
    payload: _Payload,
    metadata: Mapping[str, object],
    response: Mapping[str, object],
    provider: str | None,
) -> dict[str, object]:
    flat_input, flat_output = count(payload.prompt_tokens), count(payload.completion_tokens)
    for usage in (
        metadata.get("usage_object"),
        response.get("usage"),
        _mapping(payload.hidden_params).get("usage_object"),
    ):
        if isinstance(usage, dict) and _agrees(usage, provider, flat_input):
            return {"usage": usage}
    if flat_input is None and flat_output is None and payload.status != "failure":
        raise ValueError("the payload says neither 'prompt_tokens' nor 'completion_tokens'")
    return {"input_tokens": flat_input or 0, "output_tokens": flat_output or 0}


def _agrees(usage: dict[str, object], provider: str | None, flat_input: int | None) -> bool:
    """Whether the usage object can be read and does not fall short of the payload's own count."""
    try:
        tokens: Tokens = normalise_usage(usage, provider=provider)
    except UnknownUsage:
        return False
    return tokens.input_tokens >= (flat_input or 0)


def _max_output(parameters: object) -> int | None:
    given = _mapping(parameters)
    try:
        return count(given.get("max_completion_tokens") or given.get("max_tokens"))
    except ValueError:  # what was asked for does not change what was spent
        return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
