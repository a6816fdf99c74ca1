"""The members of usage objects whose meaning is known: `keys.toml`."""

from typing import Final

import msgspec

from metering.usage.tables import read_table

Names = tuple[str, ...]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the file."""


class _Common(_Table, frozen=True):
    wrappers: Names
    information: frozenset[str]
    units: frozenset[str]
    searches: frozenset[str]


class _Chat(_Table, frozen=True):
    plain: frozenset[str]
    cache_read: Names
    cache_write: Names
    further: frozenset[str]
    prompt_details: frozenset[str]
    completion_details: frozenset[str]


class _Responses(_Table, frozen=True):
    plain: frozenset[str]
    input_details: Names
    output_details: Names
    cache_read: Names
    cache_write: Names
    reasoning: Names
    further: frozenset[str]
    details: frozenset[str]


class _Keys(_Table, frozen=True):
    common: _Common
    chat: _Chat
    responses: _Responses
    gemini_by_snake: dict[str, str]


KEYS: Final = read_table(__file__, "keys.toml", _Keys)
