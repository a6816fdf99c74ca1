"""Anthropic's objects: `input_tokens` leaves out what was read from or written to the cache."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from metering.usage.shapes.arithmetic import Reported, settle
from metering.usage.shapes.counts import (
    Usage,
    count,
    fills_total,
    judge_unknown,
    part,
    refuse_unknown,
    require_one,
)
from metering.usage.shapes.keys import KEYS
from metering.usage.shapes.searches import searches
from metering.usage.shapes.tokens import OTHER_MODELS, Tokens, UnknownUsage, with_unknown

MARKS: Final = frozenset(
    {"cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "iterations"}
)
_KNOWN: Final = (
    MARKS
    | KEYS.common.information
    | KEYS.common.searches
    | frozenset({"input_tokens", "output_tokens", "output_tokens_details", "total_tokens"})
)
# What the types of steps hold that are billed beside the answer.
_BESIDE: Final = ("compaction", "advisor")
_CREATION: Final = frozenset({"ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"})


class _Counts(NamedTuple):
    fresh: int
    output: int
    read: int
    write: int
    write_1h: int
    reasoning: int

    def plus(self, other: "_Counts") -> "_Counts":
        return _Counts(*map(sum, zip(self, other, strict=True)))

    def as_keys(self) -> dict[str, int]:
        """By the price library's usage keys."""
        keys = {
            "input_tokens": self.fresh + self.read + self.write,
            "output_tokens": self.output,
            "cache_read_tokens": self.read,
            "cache_write_tokens": self.write,
            "cache_write_1h_tokens": self.write_1h,
            "output_reasoning_tokens": self.reasoning,
        }
        return {key: used for key, used in keys.items() if used}


_NOTHING: Final = _Counts(0, 0, 0, 0, 0, 0)


def from_messages(usage: Usage, provider: str | None) -> Tokens:
    require_one(usage, ("input_tokens", "output_tokens", *MARKS))
    counts = _read(usage)
    total = count(usage, "total_tokens")
    spoken = counts.fresh + counts.output
    unknown = judge_unknown(
        fills_total(total, spoken, spoken + counts.read + counts.write), (usage, _KNOWN)
    )
    web, more = searches(usage)
    if usage.get("iterations"):
        elsewhere: dict[str, dict[str, int]] = {}
        counts = _with_iterations(counts, usage["iterations"], elsewhere)
        total = 0
        if elsewhere:
            more[OTHER_MODELS] = elsewhere
    tokens = settle(
        Reported(*counts, total, is_cache_apart=True), web_searches=web, extra=more or None
    )
    return with_unknown(tokens, unknown)


def _read(usage: Usage) -> _Counts:
    write = count(usage, "cache_creation_input_tokens")
    write_1h = 0
    creation = part(usage, "cache_creation")
    if creation:
        write_1h = count(creation, "ephemeral_1h_input_tokens")
        by_time = write_1h + count(creation, "ephemeral_5m_input_tokens")
        if not write:
            refuse_unknown(creation, _CREATION)
        write = max(write, by_time)
    details = part(usage, "output_tokens_details")
    return _Counts(
        count(usage, "input_tokens"),
        count(usage, "output_tokens"),
        count(usage, "cache_read_input_tokens"),
        write,
        write_1h,
        count(details, "thinking_tokens") if details else 0,
    )


def _with_iterations(
    counts: _Counts, iterations: object, elsewhere: dict[str, dict[str, int]]
) -> _Counts:
    """Add the steps that the top level leaves out: messages are its sum, and a fallback, where
    another model had to answer, is the message.

    A compaction of the context is billed beside it, and so is an advisor, which is another model;
    `elsewhere` receives the latter's part by model.
    """
    if not isinstance(iterations, list):
        raise UnknownUsage("iterations must be a list")
    steps = [step for step in iterations if isinstance(step, Mapping)]
    whole = counts if _is_sum_of_all(counts, steps) else None
    for step in steps:
        if not _is_beside(step):
            continue
        used = _read(step)
        model = step.get("model")
        if isinstance(model, str):
            _add(elsewhere.setdefault(model, {}), used.as_keys())
        elif whole is not None:
            continue
        counts = counts.plus(used)
    return counts


def _is_beside(step: Usage) -> bool:
    kind = step.get("type")
    return isinstance(kind, str) and any(word in kind for word in _BESIDE)


def _is_sum_of_all(counts: _Counts, steps: list[Usage]) -> bool:
    """Return whether the top level already includes every step of its model, compactions too."""
    own = [
        _read(step)
        for step in steps
        if step.get("type") == "message"
        or (_is_beside(step) and not isinstance(step.get("model"), str))
    ]
    total = _NOTHING
    for used in own:
        total = total.plus(used)
    return total[:4] == counts[:4]


def _add(keys: dict[str, int], more: dict[str, int]) -> None:
    for key, used in more.items():
        keys[key] = keys.get(key, 0) + used
