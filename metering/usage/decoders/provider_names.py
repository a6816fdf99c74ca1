"""Which provider an instrumentation or a gateway means: each has spellings of its own.

The same call reported twice is recognized by provider and response id, so both reports must end up
with one spelling, that of the price catalogue: `provider_names.toml`.
"""

from typing import Final

from metering.usage.tables import Table, read_table


class _ProviderNames(Table, frozen=True):
    """Spellings by the catalogue's name, and names that are of no provider."""

    spellings: dict[str, list[str]]
    no_providers: frozenset[str]


_TABLE: Final = read_table(__file__, "provider_names.toml", _ProviderNames)
_NAMES: Final = {word: name for name, words in _TABLE.spellings.items() for word in words}


def canonical_provider(given: object) -> str | None:
    """Return the catalogue's name of a provider; one that no one knows keeps its own, in lower
    case.
    """
    if not isinstance(given, str):
        return None
    written = given.strip().lower()
    if not written or written in _TABLE.no_providers:
        return None
    if written in _NAMES:
        return _NAMES[written]
    # Vercel's SDK writes the provider and its interface: `openai.responses`, `google.vertex.chat`.
    head, _, _ = written.rpartition(".")
    while head:
        if head in _NAMES:
            return _NAMES[head]
        head, _, _ = head.rpartition(".")
    return written[:200]
