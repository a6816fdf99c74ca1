"""What a span stands for: one model call, one tool call, an agent around them, or nothing of ours.

Every dialect says it in words of its own. A span of an agent, a chain or a workflow adds up what
its children used, so it is never a call; its name and session still tell whose calls those are.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from metering.usage.decoders.otlp.dialects import CALL, KINDS, Kind

_KIND_BY_WORD: Final = {word: kind for kind, words in KINDS.words.items() for word in words}
_MODEL_KEYS: Final = frozenset({*CALL.response_model, *CALL.request_model} - {"model"})
# Codex tells what a request used where it reads the answer, and the model in a span around that.
_CODEX_CALL: Final = "handle_responses"
_CODEX_MODULE: Final = "codex_core"


def is_of_interest(keys: Iterable[str], mapped: Collection[str] = ()) -> bool:
    """Return whether a span with these attributes can be a call or tell of the calls below it, as
    those do that a tenant has mapped to dimensions.
    """
    return any(
        key.startswith(KINDS.of_interest) or key in KINDS.also_of_interest or key in mapped
        for key in keys
    )


def has_usage(attributes: Mapping[str, object]) -> bool:
    """Return whether the span tells tokens that were used."""
    return any(key.startswith(KINDS.usage) for key in attributes)


def has_model(attributes: Mapping[str, object]) -> bool:
    """Return whether the span itself names a model."""
    return not _MODEL_KEYS.isdisjoint(attributes)


def kind_of(attributes: Mapping[str, object], span_name: str = "") -> Kind:
    """Return what the span stands for. `unknown` uses tokens of a model under a word no one knows.

    A call may name no model (Codex's: the spans around it do) or no usage (Gemini CLI's streams).
    """
    if attributes.get("logfire.span_type") == "pending_span":
        return "around"  # sent when a call begins, and again as a whole when it ends
    vercel = attributes.get("ai.operationId")
    if isinstance(vercel, str):
        return _kind_of_vercel(vercel)
    for key in KINDS.attributes:
        word = attributes.get(key)
        if isinstance(word, str) and (kind := _KIND_BY_WORD.get(word.lower())):
            return kind
    if attributes.get("span.type") == "llm_request":
        return "llm"  # Claude Code's, before it named the operation
    if attributes.get("span.type") == "tool" and "tool_name" in attributes:
        return "tool"
    return _kind_by_shape(attributes, span_name)


def _kind_of_vercel(operation: str) -> Kind:
    if operation.endswith((".doGenerate", ".doStream")):
        return "llm"
    if operation.endswith(".doEmbed"):
        return "embedding"
    return "tool" if operation == "ai.toolCall" else "around"


def _kind_by_shape(attributes: Mapping[str, object], span_name: str) -> Kind:
    is_used, is_modelled = has_usage(attributes), has_model(attributes)
    if is_used and is_modelled:
        # A response of its own marks a call even where the word for it is new.
        is_named = attributes.get("gen_ai.operation.name") is not None
        return "unknown" if is_named and "gen_ai.response.id" not in attributes else "llm"
    if is_used:
        return "llm" if _is_codex_call(attributes, span_name) else "around"
    return "tool" if "gen_ai.tool.name" in attributes else "around"


def _is_codex_call(attributes: Mapping[str, object], span_name: str) -> bool:
    module = attributes.get("code.module.name")
    is_codex = isinstance(module, str) and module.startswith(_CODEX_MODULE)
    return span_name == _CODEX_CALL or (is_codex and "codex.usage.total_tokens" in attributes)
