"""LiteLLM's generic callback: its StandardLoggingPayload, one or many of them, becomes events.

LiteLLM counts tokens in OpenAI's way for every provider (cached input is inside `prompt_tokens`).
An answer out of LiteLLM's own cache reached no provider, so it is an event without tokens. LiteLLM
sends a batch once and never again, so a payload that cannot be read is rejected alone; messages,
tools and answers, which make payloads large, are skipped unread.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec

from common.errors import EventRejected, MalformedBody, TooManyEvents
from common.json_bodies import require_shallow, require_utf8
from metering.usage.decoders.assembly import (
    assemble,
    count,
    digest,
    identity,
    milliseconds,
    name,
    tags,
    usd,
)
from metering.usage.decoders.json_items import (
    Part,
    items_of,
    read_part,
    without_deep_parts,
    without_lone_surrogates,
)
from metering.usage.decoders.native import (
    EVENTS_MAX,
    Decoded,
    TagValue,
    field_problem,
    require_json,
)
from metering.usage.decoders.provider_names import canonical_provider
from metering.usage.decoders.samples import redacted_sample
from metering.usage.shapes import Tokens, UnknownUsage, normalise_usage

SOURCE: Final = "litellm"
_DIMENSIONS: Final = ("team", "customer", "agent", "user", "feature", "session", "task")
# What callers name with this before it is meant for this service, whatever else has the name.
_OWN: Final = "spendgate_"
_FIELDS_OF_TAGS: Final = frozenset(
    (*_DIMENSIONS, *(f"{_OWN}{field}" for field in (*_DIMENSIONS, "reservation")))
)
_SESSION_KEYS: Final = ("session_id", "litellm_session_id")
# Whom LiteLLM's proxy names where its keys have no users.
_NO_USERS: Final = frozenset({"default_user_id"})
_NOISE_TAG: Final = "user-agent"
# Ids that LiteLLM makes up itself: of traces that no one named, and of answers whose provider's id
# it drops when it brings them into OpenAI's form.
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{32}")
_MADE_UP_ID: Final = re.compile(r"chatcmpl-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_TRANSLATED: Final = frozenset(
    {"anthropic", "aws", "google", "cohere", "huggingface", "ollama", "replicate", "sagemaker"}
)

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
# What manages things at the provider and runs no model. All else costs something, known or not.
_UNBILLED: Final = re.compile(
    r"a?(moderation|(get|list|delete|cancel|add)_\w+|retrieve_(?!batch)\w+"
    r"|create_(batch|file|thread|assistants|skill|realtime_client_secret)|realtime_calls"
    r"|\w+_(retrieve|list|delete|content|create|update|get|retrieve_job)|upload_\w+)"
    r"|a_add_message|video_(create|get)_character"
)
_RETRIEVED_BATCH: Final = re.compile(r"a?retrieve_batch")
_TRANSCRIPTION: Final = re.compile(r"a?transcription")
_IMAGES: Final = re.compile(r"a?image_(generation|edit|variation)")
# Runs of the provider's tools among the items of an answer of the Responses API, by usage key.
_RUNS: Final = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
    "image_generation_call": "output_images",
}
T = TypeVar("T")


class _Payload(msgspec.Struct):
    """The fields of a StandardLoggingPayload that tell what was spent, by whom and on what."""

    id: object = None
    litellm_call_id: object = None
    trace_id: object = None
    session_id: object = None
    call_type: object = None
    stream: object = None
    status: object = None
    custom_llm_provider: object = None
    model: object = None
    model_group: object = None
    model_map_information: Part = msgspec.UNSET
    prompt_tokens: object = None
    completion_tokens: object = None
    total_tokens: object = None
    response_cost: object = None
    saved_cache_cost: object = None
    cache_hit: object = None
    started: object = msgspec.field(name="startTime", default=None)
    ended: object = msgspec.field(name="endTime", default=None)
    first_token: object = msgspec.field(name="completionStartTime", default=None)
    metadata: Part = msgspec.UNSET
    request_tags: object = None
    end_user: object = None
    error_str: object = None
    error_information: Part = msgspec.UNSET
    model_parameters: Part = msgspec.UNSET
    response: Part = msgspec.UNSET
    hidden_params: Part = msgspec.UNSET


class _Metadata(msgspec.Struct):
    session_id: object = None
    litellm_session_id: object = None
    spend_logs_metadata: Part = msgspec.UNSET
    requester_metadata: Part = msgspec.UNSET
    requester_custom_headers: Part = msgspec.UNSET
    user_api_key_team_alias: object = None
    user_api_key_team_id: object = None
    user_api_key_end_user_id: object = None
    user_api_key_user_id: object = None
    mcp_tool_call_metadata: object = None
    usage_object: Part = msgspec.UNSET


class _Response(msgspec.Struct):
    id: object = None
    service_tier: object = None
    usage: Part = msgspec.UNSET
    # As Mistral's document reading names it.
    usage_info: Part = msgspec.UNSET
    output: Part = msgspec.UNSET
    # The length of what was transcribed, and the pictures that were made.
    duration: object = None
    data: Part = msgspec.UNSET


class _Hidden(msgspec.Struct):
    additional_headers: Part = msgspec.UNSET
    usage_object: Part = msgspec.UNSET


class _MapInformation(msgspec.Struct):
    model_map_key: object = None


class _Error(msgspec.Struct):
    error_class: object = None
    error_code: object = None


class _Parameters(msgspec.Struct):
    max_completion_tokens: object = None
    max_tokens: object = None


_FIELDS: Final = (*_DIMENSIONS, "reservation")
_USUAL_KEYS: Final = (
    *((field, field) for field in _DIMENSIONS),
    *(("session", key) for key in _SESSION_KEYS),
    *((field, f"{field}_id") for field in _DIMENSIONS),
)
# What callers may have told, under every name that is read; the rest of their pairs is skipped.
_Told = msgspec.defstruct(
    "_Told",
    [
        (key, object, None)
        for key in dict.fromkeys(
            (
                *_DIMENSIONS,
                *(f"{field}_id" for field in _DIMENSIONS),
                *(f"{_OWN}{field}" for field in _FIELDS),
                *_SESSION_KEYS,
            )
        )
    ],
)
_Headers = msgspec.defstruct(
    "_Headers",
    [("litellm_session", object, None), *((field, object, None) for field in _FIELDS)],
    rename={"litellm_session": "x-litellm-session-id"}
    | {field: f"x-spendgate-{field}" for field in _FIELDS},
)


class _ProviderHeaders(msgspec.Struct):
    """Where LiteLLM keeps the provider's id of the request."""

    anthropic: object = msgspec.field(name="llm_provider-request-id", default=None)
    openai: object = msgspec.field(name="llm_provider-x-request-id", default=None)
    aws: object = msgspec.field(name="llm_provider-x-amzn-requestid", default=None)


class _Item(msgspec.Struct):
    type: object = None
    status: object = None
    action: object = None


_NOTHING: Final = Tokens()
_decode_payload = msgspec.json.Decoder(_Payload).decode


def decode_litellm(body: bytes, *, trusts_given_costs: bool) -> list[Decoded]:
    """Return an array of payloads, a single one, or one a line, which are LiteLLM's three log
    formats.
    """
    if body.lstrip()[:1] == b"[":
        try:
            return [_decode_alone(item, trusts_given_costs) for item in items_of(body)]
        except MalformedBody:
            require_utf8(body)
            raise
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > EVENTS_MAX and _are_payloads(lines):
        raise TooManyEvents(len(lines))
    if len(lines) > 1 and _are_payloads(lines):
        return [_decode_alone(line, trusts_given_costs) for line in lines]
    return [_decode_item(body, trusts_given_costs)]


def _are_payloads(lines: list[bytes]) -> bool:
    """Return whether each line is a payload, rather than all of them one payload, indented."""
    return all(line.strip()[:1] == b"{" for line in lines[:2])


def _decode_alone(raw: bytes, trusts_given_costs: bool) -> Decoded:
    """One payload of several. Whatever is wrong with it is its own fault."""
    try:
        return _decode_item(raw, trusts_given_costs)
    except MalformedBody as error:
        repaired = without_lone_surrogates(raw)
        if repaired != raw:
            return _decode_alone(repaired, trusts_given_costs)
        return _rejected(error.code, error.detail, raw)


def _decode_item(raw: bytes, trusts_given_costs: bool) -> Decoded:
    require_utf8(raw)
    try:
        payload = _read(raw)
    except msgspec.ValidationError as error:
        require_json(raw)
        detail = f"The payload: {field_problem(error, _Payload).detail}"
        return _rejected("invalid_value", detail, raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBody("malformed_json", f"The body is not JSON: {error}.") from error
    if not isinstance(payload.id, str) or not payload.id:
        return _rejected("missing_field", "The payload has no 'id'.", raw, pointer="/id")
    try:
        event = assemble(_fields(payload, trusts_given_costs))
    except RecursionError:
        return _rejected("too_deep", "A value of the payload nests too deeply.", raw, payload.id)
    except (ValueError, OverflowError, MalformedBody) as error:
        detail = error.detail if isinstance(error, MalformedBody) else f"{error}."
        code = error.code if isinstance(error, MalformedBody) else "invalid_value"
        return _rejected(code, detail, raw, payload.id)
    if isinstance(event, EventRejected):
        event.source, event.sample = SOURCE, redacted_sample(raw)
    return event


def _read(raw: bytes) -> _Payload:
    try:
        return _decode_payload(raw)
    except RecursionError:
        # Deeper than even skipping can go; what is needed stands far above.
        return _decode_payload(without_deep_parts(raw))


def _rejected(
    code: str, detail: str, raw: bytes, event_id: str | None = None, *, pointer: str | None = None
) -> EventRejected:
    return EventRejected(
        code,
        detail,
        pointer=pointer,
        event_id=event_id[:200] if event_id else None,
        source=SOURCE,
        sample=redacted_sample(raw),
    )


def _part(raw: Part, form: type[T]) -> T:
    """This part of a payload, empty where there is none or it has another form."""
    return read_part(raw, form) or form()


def _told(raw: Part) -> dict[str, object]:
    """Return what a caller's pairs tell of the fields of an event."""
    return {} if raw is msgspec.UNSET else _given(_part(raw, _Told))


def _given(pairs: msgspec.Struct) -> dict[str, object]:
    return {key: value for key, value in msgspec.structs.asdict(pairs).items() if value is not None}


def _usage(raw: Part) -> dict[str, object]:
    """Return a usage object. Raises MalformedBody for one that nests too deeply to be read."""
    if not isinstance(raw, msgspec.UnsetType):
        require_shallow(bytes(raw))
    return _part(raw, dict[str, object])


def _fields(payload: _Payload, trusts_given_costs: bool) -> dict[str, object]:
    metadata = _part(payload.metadata, _Metadata)
    response = _part(payload.response, _Response)
    hidden = _part(payload.hidden_params, _Hidden)
    provider = canonical_provider(payload.custom_llm_provider)
    is_cached = payload.cache_hit is True
    fields: dict[str, object] = {
        "source": SOURCE,
        "provider": provider,
        "model": _model(payload, provider),
        "requested_model": name(payload.model_group),
        "operation": _operation(payload.call_type),
        "max_output_tokens": _max_output(_part(payload.model_parameters, _Parameters)),
        "service_tier": name(response.service_tier),
    }
    fields |= _identity(payload, response, hidden, provider)
    fields |= _times(payload)
    fields |= _outcome(payload)
    fields |= _dimensions(payload, metadata)
    if trusts_given_costs:
        fields["cost_usd"] = usd(payload.response_cost)
    if fields["operation"] == "tool":
        fields |= _tool(metadata)
    elif is_cached:
        fields |= {
            "input_tokens": 0,
            "output_tokens": 0,
            "saved_usd": usd(payload.saved_cache_cost),
        }
    else:
        fields |= _tokens(payload, metadata, response, hidden, provider)
        if _is(_RETRIEVED_BATCH, payload.call_type) and fields.get("usage"):
            # The whole batch, told when it has ended, by its id however often it is looked at.
            fields |= {"operation": "llm", "service_tier": "batch"}
        fields |= _missing(payload.call_type, fields)
    return fields


def _is(kind: re.Pattern[str], call_type: object) -> bool:
    return isinstance(call_type, str) and kind.fullmatch(call_type) is not None


def _missing(call_type: object, fields: dict[str, object]) -> dict[str, object]:
    """Return a call that succeeded used something; where nothing is told, that is not known to be
    free.
    """
    is_unbilled = _is(_UNBILLED, call_type) or _is(_RETRIEVED_BATCH, call_type)
    if fields["status"] != "success" or is_unbilled:
        return {}
    is_told = any(fields.get(key) for key in ("usage", "input_tokens", "output_tokens"))
    is_paid = fields.get("cost_usd") not in (None, "0", "0.0")
    return {} if is_told or is_paid else {"is_usage_missing": True}


def _identity(
    payload: _Payload, response: _Response, hidden: _Hidden, provider: str | None
) -> dict[str, object]:
    if payload.status == "failure":
        # Attempts of one request share LiteLLM's id; each is a call of its own.
        return {"id": identity(f"{payload.id}:failure:{payload.started}")}
    fields: dict[str, object] = {"id": identity(payload.id)}
    if payload.cache_hit is True:
        return fields
    given = response.id or payload.id
    is_made_up = provider in _TRANSLATED and isinstance(given, str) and _MADE_UP_ID.fullmatch(given)
    if given != payload.litellm_call_id and not is_made_up:
        fields["response_id"] = identity(_provider_response_id(given))
    headers = _part(hidden.additional_headers, _ProviderHeaders)
    fields["request_id"] = identity(headers.anthropic or headers.openai or headers.aws)
    return fields


def _provider_response_id(given: object) -> object:
    """Return the provider's own id out of one that LiteLLM wrapped for routing (`resp_` and
    base64).
    """
    if not isinstance(given, str) or not given.startswith("resp_"):
        return given
    try:
        inner = base64.b64decode(given.removeprefix("resp_"), validate=True).decode()
    except (binascii.Error, ValueError):
        return given
    head, mark, own = inner.partition("response_id:")
    return own.partition(";")[0] if mark and head.startswith("litellm:") else given


def _model(payload: _Payload, provider: str | None) -> str | None:
    given = payload.model
    if provider == "azure":
        # There `model` is the name of a deployment; the price map's key says which model it runs.
        given = _part(payload.model_map_information, _MapInformation).model_map_key or given
    prefix = f"{payload.custom_llm_provider}/"
    return name(given.removeprefix(prefix)) if isinstance(given, str) else None


def _operation(call_type: object) -> str:
    if not isinstance(call_type, str):
        return "llm"
    if call_type in _OPERATIONS:
        return _OPERATIONS[call_type]
    return "llm" if _MODEL_CALLS.fullmatch(call_type) else "other"


def _times(payload: _Payload) -> dict[str, object]:
    started = payload.started
    fields: dict[str, object] = {}
    if started is None:
        return fields
    if isinstance(started, bool) or not isinstance(started, int | float):
        raise ValueError("startTime is no number of seconds")
    try:
        at = datetime.fromtimestamp(started, UTC)
        # Cut off rather than rounded up, perhaps into the next day.
        fields["time"] = at if at.timestamp() <= started else at - timedelta.resolution
    except (OverflowError, OSError, ValueError):
        raise ValueError(f"startTime {str(started)[:50]} is no time") from None
    fields["latency_ms"] = _between(started, payload.ended)
    if payload.stream is True:
        fields["time_to_first_token_ms"] = _between(started, payload.first_token)
    return fields


def _between(started: float, ended: object) -> int | None:
    if isinstance(ended, bool) or not isinstance(ended, int | float):
        return None
    return milliseconds(ended - started)


def _outcome(payload: _Payload) -> dict[str, object]:
    if payload.status != "failure":
        return {"status": "success"}
    error = _part(payload.error_information, _Error)
    kind = error.error_class or error.error_code or payload.error_str or "error"
    is_cancelled = "cancel" in str(kind).lower()
    return {"status": "cancelled" if is_cancelled else "error", "error_type": name(kind)}


def _dimensions(payload: _Payload, metadata: _Metadata) -> dict[str, object]:
    """Who spent it: as callers wrote into metadata, headers or tags, else as LiteLLM knows."""
    pairs = _tag_pairs(payload.request_tags)
    headers = _given(_part(metadata.requester_custom_headers, _Headers))
    holders: list[dict[str, object]] = [
        _told(payload.metadata),
        _told(metadata.spend_logs_metadata),
        _told(metadata.requester_metadata),
        {f"{_OWN}{field}": value for field, value in headers.items()},
        {key: value for key, value in pairs.items() if key in _FIELDS_OF_TAGS},
    ]
    user = metadata.user_api_key_user_id
    known = {
        "team": metadata.user_api_key_team_alias or metadata.user_api_key_team_id,
        "customer": payload.end_user or metadata.user_api_key_end_user_id,
        "user": None if user in _NO_USERS else user,
    }
    own = _first_of(holders, [(field, f"{_OWN}{field}") for field in _FIELDS])
    # LiteLLM's own metadata has ids of its own in it, so it is asked for ours alone.
    usual = _first_of(holders[1:], _USUAL_KEYS)
    fields: dict[str, object] = {
        field: own.get(field) or usual.get(field) or name(known.get(field)) for field in _DIMENSIONS
    }
    fields["reservation"] = own.get("reservation")
    fields |= _trace_and_session(payload, metadata, headers, name(fields["session"]))
    free = {key: value for key, value in pairs.items() if key not in _FIELDS_OF_TAGS}
    if payload.cache_hit is True:
        free["cache_hit"] = True
    fields["tags"] = tags(free)
    return fields


def _trace_and_session(
    payload: _Payload, metadata: _Metadata, headers: Mapping[str, object], told: str | None
) -> dict[str, object]:
    """LiteLLM also writes the session where the trace belongs; a trace of its own is a UUID."""
    trace = name(payload.trace_id)
    sessions = [
        name(payload.session_id),
        name(headers.get("litellm_session")),
        name(metadata.litellm_session_id),
        name(metadata.session_id),
    ]
    session = told or next((each for each in sessions if each), None)
    if session is None and trace is not None and not _UUID.fullmatch(trace):
        session = trace
    return {"session": session, "trace": None if trace == session else trace}


def _first_of(
    holders: list[dict[str, object]], keys: Iterable[tuple[str, str]]
) -> dict[str, str | None]:
    """Return what is said of each field first, in the order of the holders and then of the keys."""
    values: dict[str, str | None] = {}
    for holder in filter(None, holders):
        for field, key in keys:
            if key in holder and not values.get(field):
                values[field] = name(holder[key])
    return values


def _tag_pairs(given: object) -> dict[str, TagValue]:
    """LiteLLM's tags are words; `environment:prod` is read as a pair, a bare word as true."""
    pairs: dict[str, TagValue] = {}
    for word in given if isinstance(given, list) else []:
        if isinstance(word, str) and not word.lower().startswith(_NOISE_TAG):
            key, colon, value = word.partition(":")
            pairs[key.strip()] = value.strip() if colon else True
    return pairs


def _tool(metadata: _Metadata) -> dict[str, object]:
    call = metadata.mcp_tool_call_metadata
    call = call if isinstance(call, dict) else {}
    fields: dict[str, object] = {"tool": name(call.get("name")) or "unknown"}
    if arguments := call.get("arguments"):
        text = msgspec.json.encode(arguments, order="deterministic").decode()
        fields["tool_arguments_hash"] = digest(text)
    return fields


def _tokens(
    payload: _Payload,
    metadata: _Metadata,
    response: _Response,
    hidden: _Hidden,
    provider: str | None,
) -> dict[str, object]:
    flat_input, flat_output = count(payload.prompt_tokens), count(payload.completion_tokens)
    runs = _runs_in(response.output)
    searches = runs.pop("web_searches", 0)
    for raw in (metadata.usage_object, response.usage, hidden.usage_object, response.usage_info):
        usage = _usage(raw)
        tokens = _read_usage(usage, provider) if usage else None
        # It must not fall short of the payload's own count.
        if tokens is not None and tokens.input_tokens >= (flat_input or 0):
            if tokens == _NOTHING:
                continue
            is_apart = searches and not tokens.web_searches
            beside = {key: used for key, used in runs.items() if key not in (tokens.extra or {})}
            return {"usage": {**usage, **beside}} | ({"web_searches": searches} if is_apart else {})
    flat = {"input_tokens": flat_input or 0, "output_tokens": flat_output or 0}
    units = {**runs, **_units(payload, response)}
    counts: dict[str, object] = {"usage": {**flat, **units}} if units else {**flat}
    return counts | {"web_searches": searches or None}


def _units(payload: _Payload, response: _Response) -> dict[str, int | float]:
    """Return what an answer without a usage object shows of what is billed by something else."""
    if _is(_TRANSCRIPTION, payload.call_type):
        length = response.duration
        if isinstance(length, int | float) and not isinstance(length, bool) and length > 0:
            return {"input_audio_seconds": length}
        return {}
    if _is(_IMAGES, payload.call_type):
        images = len(_part(response.data, list[msgspec.Raw]))
        return {"output_images": images} if images else {}
    return {}


def _read_usage(usage: dict[str, object], provider: str | None) -> Tokens | None:
    try:
        return normalise_usage(usage, provider=provider)
    except UnknownUsage:
        return None


def _runs_in(output: Part) -> dict[str, int]:
    """Return how often the provider ran each of its tools, by the items of an answer.

    Of the steps of a web search it bills the searches.
    """
    runs: dict[str, int] = {}
    for raw in _part(output, list[msgspec.Raw]):
        item = _part(raw, _Item)
        key = _RUNS.get(item.type) if isinstance(item.type, str) else None
        action = item.action.get("type") if isinstance(item.action, dict) else None
        if key is not None and action in (None, "search") and item.status != "failed":
            runs[key] = runs.get(key, 0) + 1
    return runs


def _max_output(parameters: _Parameters) -> int | None:
    try:
        return count(parameters.max_completion_tokens or parameters.max_tokens)
    except ValueError:  # what was asked for does not change what was spent
        return None
