"""The fields of a call that a span names beside the tokens: who, for whom, with what, and how it
went.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from common.values import COUNT_MAX
from metering.usage.decoders.assembly import count, digest, identity, milliseconds, name, usd
from metering.usage.decoders.otlp.dialects import CALL, DIMENSION_NAMES, Kind
from metering.usage.decoders.otlp.dimension_keys import OWN, USUAL, DimensionKeys, named_by
from metering.usage.decoders.otlp.quoted import Answer, answer_of, decode_text
from metering.usage.decoders.otlp.span_kinds import kind_of
from metering.usage.decoders.otlp.spans import STATUS_ERROR, Attributes, Span, first
from metering.usage.decoders.otlp.token_counts import count_tokens
from metering.usage.decoders.provider_names import canonical_provider
from metering.usage.decoders.samples import redacted_sample

_METADATA: Final = "metadata"
_TAGS: Final = (
    f"{OWN}tags.",
    *(f"{prefix}{OWN}tags." for prefix in DIMENSION_NAMES.prefixes),
    "traceloop.association.properties.",
    "ai.telemetry.metadata.",
)
# Some name a conversation by the response before, which is a new name in every turn.
_RESPONSE_PREFIX: Final = "resp_"
# Which part of Claude Code asked: `agent:builtin:general-purpose` or, made safe, with dots.
_QUERY_SOURCE: Final = ("query_source", "query_source_safe")
_AGENT_TAGS: Final = ("agent_id", "parent_agent_id")


_DIMENSION_KEYS: Final = frozenset(key for keys in USUAL.of_spans.values() for key in keys)
_RESERVATION: Final = (
    f"{OWN}reservation",
    *(f"{prefix}{OWN}reservation" for prefix in DIMENSION_NAMES.prefixes),
)

_VERTEX_PREFIX: Final = "projects/"
# Programs that trace themselves and leave out whom they ask.
_PROVIDER_BY_SCOPE: Final = {"gemini-cli": "google"}
_REQUEST_PREFIX: Final = "req_"
_VERCEL_SCOPE: Final = "ai"


def provider_of(attributes: Mapping[str, object]) -> str | None:
    """Return the provider in the catalogue's spelling, passing over names of frameworks."""
    for key in CALL.provider:
        if provider := canonical_provider(attributes.get(key)):
            return provider
    model = first(attributes, CALL.response_model)
    is_vertex = isinstance(model, str) and model.startswith(_VERTEX_PREFIX)
    return "google" if is_vertex else None


def models_of(attributes: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Return the model that answered and the one that was asked for."""
    requested = _model(first(attributes, CALL.request_model))
    return _model(first(attributes, CALL.response_model)) or requested, requested


def _model(given: object) -> str | None:
    """Return a model's name without the path that Vertex AI puts before it."""
    if isinstance(given, str) and given.startswith(("projects/", "publishers/", "models/")):
        given = given.rpartition("/")[2]
    return name(given)


def _response_id(attributes: Mapping[str, object], answer: Answer) -> str | None:
    # An id of the request is none of the answer.
    given = first(attributes, CALL.response_id)
    if isinstance(given, str) and given.startswith(_REQUEST_PREFIX):
        given = None
    return identity(given or answer.id)


def _request_id(attributes: Mapping[str, object]) -> str | None:
    """Return the provider's id of the request, by which logs and gateways know the call as well."""
    given = first(attributes, CALL.request_id)
    if given is None:
        perhaps = (attributes.get(key) for key in CALL.perhaps_request_id)
        words = (value for value in perhaps if isinstance(value, str))
        given = next((value for value in words if value.startswith(_REQUEST_PREFIX)), None)
    return identity(given)


def dimensions_of(attributes: Attributes, kind: Kind, keys: DimensionKeys) -> dict[str, str]:
    """Return the dimensions that the span itself names."""
    attributes = _with_metadata(attributes)
    dimensions = named_by(attributes, keys.of_spans)
    if dimensions.get("session", "").startswith(_RESPONSE_PREFIX):
        del dimensions["session"]
    if "session" not in dimensions and (session := _codex_conversation(attributes)):
        dimensions["session"] = session
    if "agent" not in dimensions and (agent := _agent_that_asks(attributes)):
        dimensions["agent"] = agent
    if kind == "agent" and "agent" not in dimensions:
        itself = name(first(attributes, DIMENSION_NAMES.agent_itself))
        if itself is not None:
            dimensions["agent"] = itself
    return dimensions


def _with_metadata(attributes: Attributes) -> Attributes:
    """Return the attributes, and the pairs of the one that OpenInference writes as JSON beside
    them.
    """
    pairs = decode_text(attributes.get(_METADATA), dict[str, msgspec.Raw])
    if not pairs:
        return attributes
    plain = {f"{_METADATA}.{key}": _plain(value) for key, value in pairs.items()}
    return plain | attributes


def _plain(raw: msgspec.Raw) -> object:
    """Return a plain value; None for what nests, and for a number that no computer holds."""
    if bytes(raw).startswith((b"{", b"[")):
        return None
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None


def _agent_that_asks(attributes: Attributes) -> str | None:
    """Return the agent of Claude Code's that made the call; its main loop is none."""
    source = first(attributes, _QUERY_SOURCE)
    if not isinstance(source, str):
        return None
    mark = ":" if ":" in source else "."
    kind, *origin_and_name = source.split(mark, 2)
    return name(origin_and_name[-1]) if kind == "agent" and origin_and_name else None


def _codex_conversation(attributes: Attributes) -> str | None:
    """On the span of a turn `thread.id` is Codex' conversation; elsewhere it is a thread."""
    if "turn.id" not in attributes:
        return None
    thread = attributes.get("thread.id")
    return name(thread) if isinstance(thread, str) and not thread.isdigit() else None


def pairs_of(span: Span) -> dict[str, object]:
    """Return the free pairs that callers set on the span or its process, for tags."""
    pairs: dict[str, object] = {}
    for key, value in span.attributes.items():
        if key.startswith(_TAGS) and key not in _DIMENSION_KEYS:
            prefix = next(prefix for prefix in _TAGS if key.startswith(prefix))
            word = key.removeprefix(prefix)
            if not word.startswith(DIMENSION_NAMES.noise):
                pairs[word] = value
    for key in _AGENT_TAGS:
        if isinstance(span.attributes.get(key), str):
            pairs.setdefault(key, span.attributes[key])
    environment = first(span.attributes, CALL.environment) or first(span.resource, CALL.environment)
    if environment is not None:
        pairs.setdefault("environment", environment)
    return pairs


def source_of(resource: Mapping[str, object]) -> str:
    service = name(resource.get("service.name"))
    return f"otlp:{service}"[:200] if service else "otlp"


def call_fields(span: Span) -> dict[str, object]:
    """Return the fields of a model call beside its tokens."""
    attributes = span.attributes
    answer = answer_of(attributes)
    model, requested = models_of(attributes)
    if answer.model is not None and first(attributes, CALL.response_model) is None:
        model = _model(answer.model)
    provider = provider_of(attributes) or _PROVIDER_BY_SCOPE.get(span.scope)
    return {
        "provider": provider,
        "model": model,
        "requested_model": requested if requested != model else None,
        "response_id": _response_id(attributes, answer),
        "request_id": _request_id(attributes),
        "reservation": _reservation(attributes),
        "service_tier": name(first(attributes, CALL.service_tier)) or name(answer.service_tier),
        "max_output_tokens": _max_output(attributes),
        "time_to_first_token_ms": _to_first_token(attributes),
        "output_hash": _hash(first(attributes, CALL.output)),
        "is_estimate": True if _has_broken_off(span, provider, answer) else None,
    }


def _has_broken_off(span: Span, provider: str | None, answer: Answer) -> bool:
    """Return whether this is a stream that was left before its end: its counts are those of its
    beginning.

    Only what is certain counts: no error, input but (next to) no output, and no reason for an end
    from an instrumentation that gives one for every whole answer. OpenAI tells no counts before
    the end, so its single token is one.
    """
    attributes = span.attributes
    if span.status_code == STATUS_ERROR or attributes.get("error.type"):
        return False
    if answer.has_ended or first(attributes, CALL.ending) or not _generates(span):
        return False
    try:
        counted = count_tokens(attributes, provider)
    except ValueError:
        return False
    if counted is None or not counted.tokens.input_tokens:
        return False
    if not counted.tokens.output_tokens:
        return True
    names_endings = span.scope == _VERCEL_SCOPE or span.scope.startswith(CALL.scopes_with_endings)
    return (
        counted.tokens.output_tokens == 1 and names_endings and provider not in ("openai", "azure")
    )


def _generates(span: Span) -> bool:
    """Return whether the call has an output at all."""
    model = models_of(span.attributes)[0] or ""
    return kind_of(span.attributes, span.name) == "llm" and "embed" not in model.lower()


def _reservation(attributes: Attributes) -> str | None:
    """Return the reservation that the call was made under, where its caller told the
    instrumentation.
    """
    return name(first(_with_metadata(attributes), _RESERVATION))


def tool_fields(span: Span) -> dict[str, object]:
    """Return the fields of a tool call."""
    return {
        "operation": "tool",
        "tool": name(first(span.attributes, CALL.tool)) or name(span.name) or "unknown",
        "tool_arguments_hash": _hash(first(span.attributes, CALL.tool_arguments)),
        "reservation": _reservation(span.attributes),
    }


def outcome_fields(span: Span) -> dict[str, object]:
    """Return how long a call took, and how it ended if not well."""
    fields: dict[str, object] = {}
    if span.started_nanos and span.ended_nanos >= span.started_nanos:
        fields["latency_ms"] = (span.ended_nanos - span.started_nanos) // 1_000_000
    error = span.attributes.get("error.type")
    if span.status_code == STATUS_ERROR or error:
        kind = name(error) or name(span.exception) or name(span.status_message) or "error"
        fields["status"] = "cancelled" if "cancel" in kind.lower() else "error"
        fields["error_type"] = kind
    return fields


def given_cost(attributes: Mapping[str, object]) -> str | None:
    """Return the cost that the sender worked out. Raises ValueError for what is no amount."""
    return usd(first(attributes, CALL.cost))


def _max_output(attributes: Mapping[str, object]) -> int | None:
    try:
        return count(attributes.get("gen_ai.request.max_tokens"))
    except ValueError:  # what was asked for does not change what was spent
        return None


def _to_first_token(attributes: Mapping[str, object]) -> int | None:
    in_milliseconds = attributes.get("ai.response.msToFirstChunk")
    if isinstance(in_milliseconds, int | float) and 0 <= in_milliseconds <= COUNT_MAX:
        return round(in_milliseconds)
    return milliseconds(first(attributes, CALL.first_token_seconds))


def sample_of(span: Span) -> str:
    """Return what a span looked like, redacted, for the page of sources."""
    return redacted_sample(
        {"scope": span.scope, "span_name": span.name, "attributes": span.attributes}
    )


def _hash(content: object) -> str | None:
    if content is None:
        return None
    if isinstance(content, str):
        return digest(content)
    return digest(msgspec.json.encode(content, order="deterministic").decode())
