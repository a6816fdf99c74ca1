"""What a span stands for: one model call, one tool call, an agent around them, or nothing of ours.

Every dialect says it in words of its own. A span of an agent, a chain or a workflow adds up what
its children used, so it is never a call; its name and session still tell whose calls those are.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

Kind = Literal["llm", "embedding", "tool", "agent", "around", "unknown"]

_PREFIXES: Final = (
    "gen_ai.",
    "llm.",
    "openinference.",
    "traceloop.",
    "ai.",
    "langfuse.",
    "langsmith.",
    "spendgate.",
    "session.",
    "user.",
    "enduser.",
    "agent",
)

_WORDS: Final[dict[str, Kind]] = {
    "llm": "llm",
    "chat": "llm",
    "acompletion": "llm",
    "atext_completion": "llm",
    "aresponses": "llm",
    "anthropic_messages": "llm",
    "aembedding": "embedding",
    "completion": "llm",
    "completions": "llm",
    "text_completion": "llm",
    "text-completion": "llm",
    "generate_content": "llm",
    "generation": "llm",
    "message": "llm",
    "messages": "llm",
    "response": "llm",
    "responses": "llm",
    "embed": "embedding",
    "embedding": "embedding",
    "embeddings": "embedding",
    "tool": "tool",
    "execute_tool": "tool",
    "agent": "agent",
    "create_agent": "agent",
    "invoke_agent": "agent",
    "handoff": "agent",
    "chain": "around",
    "decision": "around",
    "evaluator": "around",
    "event": "around",
    "guardrail": "around",
    "invoke_workflow": "around",
    "parser": "around",
    "plan": "around",
    "prompt": "around",
    "rerank": "around",
    "reranker": "around",
    "retrieval": "around",
    "retriever": "around",
    "search_memory": "around",
    "span": "around",
    "task": "around",
    "workflow": "around",
}
# The first of these that a span carries decides.
_KEYS: Final = (
    "gen_ai.operation.name",
    "openinference.span.kind",
    "llm.request.type",
    "traceloop.span.kind",
    "langsmith.span.kind",
    "langfuse.observation.type",
    "gen_ai.span.kind",
)
_MODEL_KEYS: Final = (
    "gen_ai.request.model",
    "gen_ai.response.model",
    "llm.request.model",
    "llm.response.model",
    "llm.model_name",
)
_USAGE_PREFIXES: Final = ("gen_ai.usage.", "llm.usage.", "llm.token_count.")


def is_of_interest(keys: Iterable[str]) -> bool:
    """Whether a span with these attributes can be a call or tell of the calls below it."""
    return any(key.startswith(_PREFIXES) for key in keys)


def kind_of(attributes: Mapping[str, Any]) -> Kind:
    """What the span stands for. `unknown` uses tokens of a model under a word nobody knows."""
    if attributes.get("logfire.span_type") == "pending_span":
        return "around"  # sent when a call begins, and again as a whole when it ends
    vercel = attributes.get("ai.operationId")
    if isinstance(vercel, str):
        return _kind_of_vercel(vercel)
    for key in _KEYS:
        word = attributes.get(key)
        if isinstance(word, str) and (kind := _WORDS.get(word.lower())):
            return kind
    return _kind_by_shape(attributes)


def _kind_of_vercel(operation: str) -> Kind:
    if operation.endswith((".doGenerate", ".doStream")):
        return "llm"
    if operation.endswith(".doEmbed"):
        return "embedding"
    return "tool" if operation == "ai.toolCall" else "around"


def _kind_by_shape(attributes: Mapping[str, Any]) -> Kind:
    has_usage = any(key.startswith(_USAGE_PREFIXES) for key in attributes)
    has_model = any(key in attributes for key in _MODEL_KEYS)
    if has_usage and has_model:
        # A response of its own marks a call even where the word for it is new.
        is_named = attributes.get("gen_ai.operation.name") is not None
        return "unknown" if is_named and "gen_ai.response.id" not in attributes else "llm"
    return "tool" if "gen_ai.tool.name" in attributes and not has_usage else "around"
