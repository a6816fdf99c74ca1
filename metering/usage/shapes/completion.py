"""What a call used by everything that was told of it: the most complete usage that is consistent.

Pure, and a function of what was told in one stated order, the most believed first.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from metering.usage.shapes.tokens import Tokens, check_tokens

# Instrumentations that count a stream themselves are off by one.
MISCOUNT_MAX: Final = 1
_NOTHING: Final = Tokens()
# Classes that are taken together, since one report tells all of them or none.
_CLASSES: Final = (
    ("cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    ("reasoning_tokens",),
    ("input_audio_tokens",),
    ("output_audio_tokens",),
    ("extra",),
)
_COUNTED_CLASSES: Final = (*(name for names in _CLASSES[:-1] for name in names), "web_searches")


class Usage(NamedTuple):
    """What one report told, and how complete that is: less is better (`Completeness`)."""

    tokens: Tokens
    completeness: int


def known_classes(tokens: Tokens) -> int:
    """Return the number of known classes of usage beside input and output."""
    return sum(1 for name in _COUNTED_CLASSES if getattr(tokens, name)) + bool(tokens.extra)


def most_complete(usages: Sequence[Usage]) -> Usage:
    """Return the most complete usage that is consistent.

    Input is the most that any report knows. Output is the final figure, which is the largest; a
    difference of one is a miscount, and the report that is believed more is right. Each class of
    tokens is taken from the report that knows most of it, as long as it fits into its whole.
    """
    telling = [usage for usage in usages if usage.tokens.input_tokens or usage.tokens.output_tokens]
    if not telling:
        used = next((usage.tokens for usage in usages if usage.tokens != _NOTHING), _NOTHING)
        # A call that failed, or came out of a cache, used nothing: that is known.
        return Usage(used, min(usage.completeness for usage in usages))
    whole = max(usage.tokens.input_tokens for usage in telling)
    base = next(usage for usage in telling if usage.tokens.input_tokens == whole)
    output = max(usage.tokens.output_tokens for usage in telling)
    if output - base.tokens.output_tokens <= MISCOUNT_MAX:
        output = base.tokens.output_tokens
    tokens = msgspec.structs.replace(
        base.tokens,
        output_tokens=output,
        web_searches=max(usage.tokens.web_searches for usage in telling),
    )
    for names in _CLASSES:
        tokens = _completed(tokens, telling, names)
    final = [usage for usage in telling if usage.tokens.output_tokens == output]
    return Usage(tokens, min(usage.completeness for usage in final))


def _completed(tokens: Tokens, usages: Sequence[Usage], names: tuple[str, ...]) -> Tokens:
    best = max(usages, key=lambda usage: sum(1 for name in names if getattr(usage.tokens, name)))
    for usage in (best, *usages):
        known = {name: getattr(usage.tokens, name) for name in names}
        if any(known.values()):
            completed = msgspec.structs.replace(tokens, **known)
            if check_tokens(completed) is None:
                return completed
    return tokens


def inputs_of(tokens: Tokens) -> set[int]:
    """All input, and what a source tells that leaves out the cache, or a part of it."""
    read, write = tokens.cache_read_tokens, tokens.cache_write_tokens
    whole = tokens.input_tokens
    return {whole, whole - read - write, whole - read, whole - write}


def do_outputs_agree(first: Tokens, second: Tokens) -> bool:
    """Return whether two outputs are the same, with or without reasoning, but for a miscount."""
    outputs = [
        (tokens.output_tokens, tokens.output_tokens - tokens.reasoning_tokens)
        for tokens in (first, second)
    ]
    return any(abs(a - b) <= MISCOUNT_MAX for a in outputs[0] for b in outputs[1])
