"""What a span tells about its call beside the tokens: who, for whom, with what, and how it went."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from metering.decoders.assembly import count, digest, identity, milliseconds, name, usd
from metering.decoders.native import COUNT_MAX
from metering.decoders.otlp.kinds import Kind
from metering.decoders.otlp.spans import STATUS_ERROR, Attributes, Span, first
from metering.decoders.otlp.token_counts import response_of
from metering.decoders.provider_names import canonical_provider

DIMENSIONS: Final = ("team", "customer", "agent", "user", "feature", "session", "task")

# Attributes that callers set by hand; each is followed by a dimension's name.
_OWN: Final = "spendgate."
_FREE: Final = (
    "traceloop.association.properties.",
    "ai.telemetry.metadata.",
    "langfuse.trace.metadata.",
    "langfuse.observation.metadata.",
)
_TAGS: Final = ("spendgate.tags.", "traceloop.association.properties.", "ai.telemetry.metadata.")
_USUAL: Final[dict[str, tuple[str, ...]]] = {
    "agent": ("gen_ai.agent.name", "agent.name", "agent_name"),
    "user": ("user.id", "enduser.id", "enduser.pseudo.id", "langfuse.user.id"),
    "feature": ("gen_ai.workflow.name", "traceloop.workflow.name", "ai.telemetry.functionId"),
    "session": (
        "gen_ai.conversation.id",
        "session.id",
        "langfuse.session.id",
        "langsmith.trace.session_id",
        "gcp.vertex.agent.session_id",
    ),
}
# Some name a conversation by the response before, which is a new name in every turn.
_RESPONSE_PREFIX: Final = "resp_"
# How the span of an agent names it, beside the usual ways.
_AGENT_ITSELF: Final = ("graph.node.id", "traceloop.entity.name", "gen_ai.agent.id")


def _spellings(dimension: str) -> tuple[str, ...]:
    words = (dimension, f"{dimension}_id", f"{dimension}Id")
    free = tuple(f"{prefix}{word}" for prefix in _FREE for word in words)
    return (f"{_OWN}{dimension}", *free, *_USUAL.get(dimension, ()))


_SPELLINGS: Final = {dimension: _spellings(dimension) for dimension in DIMENSIONS}
_DIMENSION_KEYS: Final = frozenset(key for keys in _SPELLINGS.values() for key in keys)

_PROVIDER: Final = (
    "gen_ai.provider.name",
    "gen_ai.system",
    "llm.provider",
    "llm.system",
    "llm.vendor",
    "ai.model.provider",
)
_RESPONSE_MODEL: Final = (
    "gen_ai.response.model",
    "llm.response.model",
    "ai.response.model",
    "llm.model_name",
    "embedding.model_name",
    "langfuse.observation.model.name",
)
_REQUEST_MODEL: Final = ("gen_ai.request.model", "llm.request.model", "ai.model.id")
_VERTEX_PREFIX: Final = "projects/"
_RESPONSE_ID: Final = ("gen_ai.response.id", "llm.response.id", "ai.response.id")
_SERVICE_TIER: Final = (
    "gen_ai.response.service_tier",
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "anthropic.response.service_tier",
)
_TOOL: Final = (
    "gen_ai.tool.name",
    "tool.name",
    "tool_call.function.name",
    "ai.toolCall.name",
    "traceloop.entity.name",
)
_ARGUMENTS: Final = (
    "gen_ai.tool.call.arguments",
    "tool.parameters",
    "tool_arguments",
    "ai.toolCall.args",
    "gcp.vertex.agent.tool_call_args",
    "traceloop.entity.input",
    "input.value",
)
_OUTPUT: Final = (
    "gen_ai.output.messages",
    "gen_ai.completion.0.content",
    "llm.output_messages.0.message.content",
    "ai.response.text",
)
_COST: Final = (
    "spendgate.cost_usd",
    "operation.cost",
    "gen_ai.usage.cost",
    "llm.cost.total",
)
_TO_FIRST_SECONDS: Final = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.server.time_to_first_token",
)
_ENVIRONMENT: Final = ("deployment.environment.name", "deployment.environment")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def provider_of(attributes: Mapping[str, Any]) -> str | None:
    """The provider in the catalogue's spelling, passing over names of frameworks."""
    for key in _PROVIDER:
        if found := canonical_provider(attributes.get(key)):
            return found
    model = first(attributes, _RESPONSE_MODEL)
    is_vertex = isinstance(model, str) and model.startswith(_VERTEX_PREFIX)
    return "google" if is_vertex else None


def models_of(attributes: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The model that answered and the one that was asked for."""
    asked = _model(first(attributes, _REQUEST_MODEL))
    return _model(first(attributes, _RESPONSE_MODEL)) or asked, asked


def _model(given: object) -> str | None:
    """A model's name without the path that Vertex AI puts before it."""
    if isinstance(given, str) and given.startswith(("projects/", "publishers/", "models/")):
        given = given.rpartition("/")[2]
    return name(given)


def response_id_of(attributes: Mapping[str, Any]) -> str | None:
    return identity(first(attributes, _RESPONSE_ID) or response_of(attributes).id)


def dimensions_of(span: Span, kind: Kind) -> dict[str, str]:
    """The dimensions that the span itself names."""
    if span.dimensions is None:
        span.dimensions = _read_dimensions(span.attributes, kind) if span.attributes else {}
    return span.dimensions


def _read_dimensions(attributes: Attributes, kind: Kind) -> dict[str, str]:
    found = {
        dimension: value
        for dimension, keys in _SPELLINGS.items()
        if (value := name(first(attributes, keys))) is not None
    }
    if found.get("session", "").startswith(_RESPONSE_PREFIX):
        del found["session"]
    if kind == "agent" and "agent" not in found:
        itself = name(first(attributes, _AGENT_ITSELF))
        if itself is not None:
            found["agent"] = itself
    return found


def dimensions_of_resource(resource: Mapping[str, Any]) -> dict[str, str]:
    """What a process says of all its calls, by resource attributes."""
    keys = ((dimension, f"{_OWN}{dimension}") for dimension in DIMENSIONS)
    return {
        dimension: value
        for dimension, key in keys
        if (value := name(resource.get(key))) is not None
    }


def pairs_of(span: Span) -> dict[str, object]:
    """The free pairs that callers set on the span or its process, for tags."""
    pairs: dict[str, object] = {}
    for key, value in span.attributes.items():
        if key.startswith(_TAGS) and key not in _DIMENSION_KEYS:
            prefix = next(prefix for prefix in _TAGS if key.startswith(prefix))
            pairs[key.removeprefix(prefix)] = value
    environment = first(span.attributes, _ENVIRONMENT) or first(span.resource, _ENVIRONMENT)
    if environment is not None:
        pairs.setdefault("environment", environment)
    return pairs


def source_of(resource: Mapping[str, Any]) -> str:
    service = name(resource.get("service.name"))
    return f"otlp:{service}"[:200] if service else "otlp"


def call_facts(span: Span) -> dict[str, object]:
    """What is told of a model call beside its tokens."""
    attributes = span.attributes
    model, asked = models_of(attributes)
    return {
        "provider": provider_of(attributes),
        "model": model,
        "requested_model": asked if asked != model else None,
        "response_id": response_id_of(attributes),
        "service_tier": name(first(attributes, _SERVICE_TIER)),
        "max_output_tokens": _max_output(attributes),
        "time_to_first_token_ms": _to_first_token(attributes),
        "output_hash": _hash(first(attributes, _OUTPUT)),
    }


def tool_facts(span: Span) -> dict[str, object]:
    """What is told of a tool call."""
    return {
        "operation": "tool",
        "tool": name(first(span.attributes, _TOOL)) or name(span.name) or "unknown",
        "tool_arguments_hash": _hash(first(span.attributes, _ARGUMENTS)),
    }


def span_facts(span: Span) -> dict[str, object]:
    """What every span tells: which it is, when, how long, and how it ended."""
    started = span.started_nanos or span.ended_nanos
    facts: dict[str, object] = {
        "id": span.event_id,
        "source": source_of(span.resource),
        "time": _EPOCH + timedelta(microseconds=started // 1000),
        "trace": span.trace,
        "span": span.span,
        "parent_span": span.parent,
    }
    if span.started_nanos and span.ended_nanos >= span.started_nanos:
        facts["latency_ms"] = (span.ended_nanos - span.started_nanos) // 1_000_000
    error = span.attributes.get("error.type")
    if span.status_code == STATUS_ERROR or error:
        kind = name(error) or name(span.exception) or name(span.status_message) or "error"
        facts["status"] = "cancelled" if "cancel" in kind.lower() else "error"
        facts["error_type"] = kind
    return facts


def given_cost(attributes: Mapping[str, Any]) -> str | None:
    """The cost that the sender worked out. Raises ValueError for what is no amount."""
    return usd(first(attributes, _COST))


def _max_output(attributes: Mapping[str, Any]) -> int | None:
    try:
        return count(attributes.get("gen_ai.request.max_tokens"))
    except ValueError:  # what was asked for does not change what was spent
        return None


def _to_first_token(attributes: Mapping[str, Any]) -> int | None:
    in_milliseconds = attributes.get("ai.response.msToFirstChunk")
    if isinstance(in_milliseconds, int | float) and 0 <= in_milliseconds <= COUNT_MAX:
        return round(in_milliseconds)
    return milliseconds(first(attributes, _TO_FIRST_SECONDS))


def _hash(content: object) -> str | None:
    if content is None:
        return None
    if isinstance(content, str):
        return digest(content)
    return digest(msgspec.json.encode(content, order="deterministic").decode())
