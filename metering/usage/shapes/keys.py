"""The members of usage objects whose meaning is known: `keys.toml`."""

from typing import Final

from metering.usage.tables import Table, read_table

Names = tuple[str, ...]


class _Common(Table, frozen=True):
    wrappers: Names
    information: frozenset[str]
    units: frozenset[str]
    searches: frozenset[str]


class _Chat(Table, frozen=True):
    plain: frozenset[str]
    cache_read: Names
    cache_write: Names
    further: frozenset[str]
    prompt_details: frozenset[str]
    completion_details: frozenset[str]


class _Responses(Table, frozen=True):
    plain: frozenset[str]
    input_details: Names
    output_details: Names
    cache_read: Names
    cache_write: Names
    reasoning: Names
    further: frozenset[str]
    details: frozenset[str]


class _Keys(Table, frozen=True):
    common: _Common
    chat: _Chat
    responses: _Responses
    gemini_by_snake: dict[str, str]


KEYS: Final = read_table(__file__, "keys.toml", _Keys)
