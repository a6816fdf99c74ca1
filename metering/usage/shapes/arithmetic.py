"""Deciding from the total whether a part stands inside or beside its whole."""

from typing import NamedTuple

from metering.usage.shapes.tokens import OVERLAP, ExtraValue, Tokens


class Reported(NamedTuple):
    """Counts as a provider reports them, before it is known what contains what.

    `is_cache_apart` and `is_reasoning_apart` say what the shape means when no total decides it.
    """

    input_tokens: int
    output_tokens: int
    read_tokens: int = 0
    write_tokens: int = 0
    write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    is_cache_apart: bool = False
    is_reasoning_apart: bool = False


def settle(
    reported: Reported,
    *,
    input_audio_tokens: int = 0,
    output_audio_tokens: int = 0,
    web_searches: int = 0,
    extra: dict[str, ExtraValue] | None = None,
) -> Tokens:
    """Make the counts include their parts.

    Invariant: where a total is given and not below its parts, input and output add up to it.
    """
    given, output, read, write, write_1h, reasoning, total, cache_apart, reasoning_apart = reported
    spoken = given + output
    if total > spoken:
        given, output, reasoning = _place_gap(reported)
    elif total != spoken:
        given += read + write if cache_apart else 0
        output += reasoning if reasoning_apart else 0
    if read or write or reasoning:
        if read > given or write > given:
            given += read + write  # they cannot be inside, whatever the shape usually means
        if reasoning > output:
            # A total that leaves no room for it shows a rounding of the provider's own.
            reasoning, output = (output, output) if total else (reasoning, output + reasoning)
        if read + write > given:
            # One call read and wrote the same tokens: the fewer are all among the more.
            extra = {**(extra or {}), OVERLAP: min(read, write)}
    return Tokens(
        given,
        output,
        read,
        write,
        write_1h,
        reasoning,
        input_audio_tokens,
        output_audio_tokens,
        web_searches,
        extra,
    )


def _place_gap(reported: Reported) -> tuple[int, int, int]:
    """Find which part fills the gap up to the total; what none explains was generated unseen."""
    given, output, read, write, _, reasoning, total, *_ = reported
    gap = total - given - output
    cached = read + write
    if gap == cached and not (gap == reasoning and reported.is_reasoning_apart):
        return given + cached, output, reasoning
    if gap == reasoning:
        return given, output + reasoning, reasoning
    if gap == cached + reasoning:
        return given + cached, output + reasoning, reasoning
    if reported.is_cache_apart and gap > cached:
        given, gap = given + cached, gap - cached
    return given, output + gap, reasoning or gap
