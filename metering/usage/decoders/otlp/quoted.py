"""The provider's answer as some spans quote it: its id, its usage objects, and how it ended.

Instrumentations that have no attribute for an id or a count often quote the whole answer. LangChain
wraps it: the provider's own words are in the `response_metadata` of the first generation's message,
its own reading of the counts in `usage_metadata` beside them.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from common.errors import MalformedBody
from common.json_bodies import require_shallow
from metering.usage.decoders.json_items import Part, read_part

T = TypeVar("T")

# What providers' ids of responses begin with. LangChain's own ids of messages begin otherwise.
_ID_PREFIXES: Final = ("chatcmpl-", "resp_", "msg_", "gen-", "cmpl-")
_SEARCH_NAMES: Final = frozenset({"web_search", "web_search_preview", "web_search_20250305"})
# The ids of calls to tools that run at the provider: Anthropic's and OpenAI's.
_SEARCH_ID_PREFIXES: Final = ("srvtoolu_", "ws_")
_OUTPUT_PREFIXES: Final = ("llm.output_messages.", "gen_ai.completion.")
_FIRST_CALLS: Final = (
    "llm.output_messages.0.message.tool_calls.0.tool_call.id",
    "gen_ai.completion.0.tool_calls.0.id",
)
_CALL_TYPES: Final = frozenset({"tool_call", "server_tool_call", "server_tool_use"})


class Answer(msgspec.Struct, frozen=True):
    """What is of use in an answer. `has_ended` tells whether it says why it ended."""

    id: str | None = None
    model: str | None = None
    service_tier: str | None = None
    usages: tuple[dict[str, object], ...] = ()
    web_searches: int = 0
    has_ended: bool = False


class _Quoted(msgspec.Struct):
    """A provider's answer, or LangChain's `LLMResult` around one."""

    id: object = None
    model: object = None
    service_tier: object = None
    status: object = None
    stop_reason: object = None
    usage: Part = msgspec.UNSET
    usage_metadata: Part = msgspec.UNSET
    camel_usage_metadata: Part = msgspec.field(name="usageMetadata", default=msgspec.UNSET)
    choices: Part = msgspec.UNSET
    content: Part = msgspec.UNSET
    output: Part = msgspec.UNSET
    generations: Part = msgspec.UNSET


class _Choice(msgspec.Struct):
    finish_reason: object = None


class _Block(msgspec.Struct):
    type: object = None
    id: object = None
    name: object = None
    status: object = None
    action: object = None


class _Generation(msgspec.Struct):
    message: Part = msgspec.UNSET


class _Serialised(msgspec.Struct):
    kwargs: Part = msgspec.UNSET


class _Message(msgspec.Struct):
    id: object = None
    content: Part = msgspec.UNSET
    usage_metadata: Part = msgspec.UNSET
    response_metadata: Part = msgspec.UNSET


class _ResponseMetadata(msgspec.Struct):
    id: object = None
    model: object = None
    model_name: object = None
    service_tier: object = None
    status: object = None
    stop_reason: object = None
    finish_reason: object = None
    usage: Part = msgspec.UNSET
    token_usage: Part = msgspec.UNSET


class _Said(msgspec.Struct):
    parts: list[_Block] = msgspec.field(default_factory=list)


class _VercelCall(msgspec.Struct, rename="camel"):
    tool_call_id: object = None
    tool_name: object = None


NOTHING: Final = Answer()


def answer_of(attributes: Mapping[str, object]) -> Answer:
    """Return the answer that the span quotes; an empty one if none can be read."""
    text = attributes.get("output.value") if "openinference.span.kind" in attributes else None
    if text is None:
        text = attributes.get("gen_ai.completion")
    quoted = decode_text(text, _Quoted)
    if quoted is None:
        return NOTHING
    if quoted.generations is not msgspec.UNSET:
        return _of_langchain(quoted.generations)
    return Answer(
        id=_word(quoted.id),
        model=_word(quoted.model),
        service_tier=_word(quoted.service_tier),
        usages=_usages(quoted.usage, quoted.usage_metadata, quoted.camel_usage_metadata),
        web_searches=_searches_in(quoted.content) or _searches_in(quoted.output),
        has_ended=bool(quoted.stop_reason)
        or quoted.status == "completed"
        or any(choice.finish_reason for choice in _list(quoted.choices, _Choice)),
    )


def _of_langchain(generations: Part) -> Answer:
    listed = read_part(generations, list[list[_Generation]]) or [[]]
    if not listed or not listed[0]:
        return NOTHING
    raw = listed[0][0].message
    inner = read_part(raw, _Serialised)
    if inner is not None and inner.kwargs is not msgspec.UNSET:
        raw = inner.kwargs
    message = read_part(raw, _Message)
    if message is None:
        return NOTHING
    metadata = read_part(message.response_metadata, _ResponseMetadata) or _ResponseMetadata()
    own_id = _word(message.id)
    if own_id is not None and not own_id.startswith(_ID_PREFIXES):
        own_id = None
    return Answer(
        id=_word(metadata.id) or own_id,
        model=_word(metadata.model_name) or _word(metadata.model),
        service_tier=_word(metadata.service_tier),
        usages=_usages(metadata.usage, metadata.token_usage, message.usage_metadata),
        web_searches=_searches_in(message.content),
        has_ended=bool(metadata.stop_reason or metadata.finish_reason)
        or metadata.status == "completed",
    )


def searches_in_messages(attributes: Mapping[str, object]) -> int:
    """Return the number of web searches by the provider that the span's messages show."""
    for find in (_in_flat_messages, _in_messages, _in_vercels_calls):
        if searches := find(attributes):
            return len(searches)
    return 0


def _in_flat_messages(attributes: Mapping[str, object]) -> set[object]:
    if not any(key in attributes for key in _FIRST_CALLS):
        return set()
    return {
        value
        for key, value in attributes.items()
        if isinstance(value, str)
        and value.startswith(_SEARCH_ID_PREFIXES)
        and key.startswith(_OUTPUT_PREFIXES)
        and _names_a_search(attributes, key)
    }


def _in_messages(attributes: Mapping[str, object]) -> set[object]:
    said = attributes.get("gen_ai.output.messages")
    if not isinstance(said, str) or "web_search" not in said:
        return set()
    blocks = [block for message in _list(said, _Said) for block in message.parts]
    return {block.id for block in blocks if block.type in _CALL_TYPES and _is_search(block)}


def _in_vercels_calls(attributes: Mapping[str, object]) -> set[object]:
    calls = attributes.get("ai.response.toolCalls")
    if not isinstance(calls, str) or "web_search" not in calls:
        return set()
    listed = _list(calls, _VercelCall)
    blocks = [_Block(id=call.tool_call_id, name=call.tool_name) for call in listed]
    return {block.id for block in blocks if _is_search(block)}


def decode_text(text: object, form: type[T]) -> T | None:
    """Return the JSON object in an attribute; None for anything else. What the form lacks is
    skipped.
    """
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return None
    return read_part(text, form)


def decode_object(raw: object) -> dict[str, object] | None:
    """Return a whole object out of JSON, where it nests no deeper than a usage object may."""
    if not isinstance(raw, str | msgspec.Raw):
        return None
    try:
        require_shallow(raw.encode(errors="replace") if isinstance(raw, str) else bytes(raw))
    except MalformedBody:
        return None
    return read_part(raw, dict[str, object])


def _list(raw: str | Part, form: type[T]) -> list[T]:
    """Return the items of an array that have this form; others may stand between them."""
    items = read_part(raw, list[msgspec.Raw]) or []
    return [read for item in items if (read := read_part(item, form)) is not None]


def _usages(*parts: Part) -> tuple[dict[str, object], ...]:
    return tuple(usage for part in parts if (usage := decode_object(part)))


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _searches_in(blocks: Part) -> int:
    """Web searches among the blocks of an answer: what the provider ran, and no error."""
    return sum(
        (block.type == "server_tool_use" and block.name in _SEARCH_NAMES)
        or (block.type == "web_search_call" and _is_billed(block))
        for block in _list(blocks, _Block)
    )


def _is_billed(block: _Block) -> bool:
    """OpenAI bills searches; opening a page that was found and looking into it are free."""
    action = block.action.get("type") if isinstance(block.action, dict) else None
    return action in (None, "search") and block.status != "failed"


def _is_search(block: _Block) -> bool:
    is_remote = isinstance(block.id, str) and block.id.startswith(_SEARCH_ID_PREFIXES)
    return is_remote and block.name in _SEARCH_NAMES


def _names_a_search(attributes: Mapping[str, object], key: str) -> bool:
    """Return whether the tool call whose id stands under `key` is a web search."""
    holder = key.removesuffix("id")
    names = (attributes.get(f"{holder}function.name"), attributes.get(f"{holder}name"))
    return any(isinstance(name, str) and name in _SEARCH_NAMES for name in names)
