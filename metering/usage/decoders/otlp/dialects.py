"""The attributes by which each dialect says the same: `dialects.toml`."""

from typing import Final, Literal

from metering.usage.tables import Table, read_table

Kind = Literal["llm", "embedding", "tool", "agent", "around", "unknown"]
Names = tuple[str, ...]


class _Kinds(Table, frozen=True):
    of_interest: Names
    also_of_interest: frozenset[str]
    unused: Names
    attributes: Names
    usage: Names
    words: dict[Kind, Names]


class _Tokens(Table, frozen=True):
    input: Names
    output: Names
    cache_read: Names
    cache_write: Names
    cache_write_1h: Names
    reasoning: Names
    input_audio: Names
    output_audio: Names
    total: Names
    web_searches: Names


class _Call(Table, frozen=True):
    provider: Names
    response_model: Names
    request_model: Names
    response_id: Names
    request_id: Names
    perhaps_request_id: Names
    ending: Names
    scopes_with_endings: Names
    service_tier: Names
    tool: Names
    tool_arguments: Names
    output: Names
    cost: Names
    first_token_seconds: Names
    environment: Names


class _Dimensions(Table, frozen=True):
    prefixes: Names
    noise: Names
    agent_itself: Names
    usual: dict[str, Names]
    words: dict[str, Names]


class _Dialects(Table, frozen=True):
    kinds: _Kinds
    tokens: _Tokens
    call: _Call
    dimensions: _Dimensions


_DIALECTS: Final = read_table(__file__, "dialects.toml", _Dialects)
KINDS: Final = _DIALECTS.kinds
TOKENS: Final = _DIALECTS.tokens
CALL: Final = _DIALECTS.call
DIMENSION_NAMES: Final = _DIALECTS.dimensions
