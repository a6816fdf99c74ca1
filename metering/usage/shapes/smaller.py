"""Shapes of single providers and of APIs that count something else than text."""

from typing import Final

from metering.usage.shapes.arithmetic import Reported, settle
from metering.usage.shapes.counts import (
    Usage,
    count,
    largest,
    part,
    refuse_unknown,
    require_one,
    seconds,
)
from metering.usage.shapes.keys import KEYS
from metering.usage.shapes.tokens import ExtraValue, Tokens

UNITS: Final = KEYS.common.units
_BILLED: Final = (
    "input_tokens",
    "output_tokens",
    "image_tokens",
    "images",
    "search_units",
    "classifications",
)


def from_cohere(usage: Usage, provider: str | None) -> Tokens:
    """Cohere: what it bills, where it says so.

    `tokens` also counts the provider's own prompt, which is not billed; `cached_tokens` is a part
    of that count and not of the billed one, so it is placed only where nothing is billed apart.
    """
    refuse_unknown(usage, frozenset({"billed_units", "tokens", "cached_tokens", "api_version"}))
    billed = part(usage, "billed_units")
    if not billed:
        tokens = part(usage, "tokens")
        require_one(tokens, ("input_tokens", "output_tokens"))
        return settle(
            Reported(
                count(tokens, "input_tokens"),
                count(tokens, "output_tokens"),
                count(usage, "cached_tokens"),
            )
        )
    require_one(billed, _BILLED)
    refuse_unknown(billed, frozenset(_BILLED))
    seen = count(billed, "image_tokens")
    extra: dict[str, ExtraValue] = {"input_image_tokens": seen} if seen else {}
    if ranked := count(billed, "search_units"):
        extra["rerank_searches"] = ranked
    if sorted_ := count(billed, "classifications"):
        extra["classifications"] = sorted_
    if not seen and (pictures := count(billed, "images")):
        extra["input_images"] = pictures
    return settle(
        Reported(count(billed, "input_tokens") + seen, count(billed, "output_tokens")),
        extra=extra or None,
    )


def from_ollama(usage: Usage, provider: str | None) -> Tokens:
    return _two(usage, ("prompt_eval_count",), ("eval_count",))


def from_input_count(usage: Usage, provider: str | None) -> Tokens:
    """watsonx and Replicate."""
    return _two(usage, ("input_token_count",), ("generated_token_count", "output_token_count"))


def _two(usage: Usage, given: tuple[str, ...], output: tuple[str, ...]) -> Tokens:
    require_one(usage, (*given, *output))
    refuse_unknown(usage, frozenset((*given, *output)))
    return settle(Reported(largest(usage, given), largest(usage, output)))


def from_total(usage: Usage, provider: str | None) -> Tokens:
    """Embedding and reranking APIs tell one total, which is all input."""
    names = ("total_tokens", "totalTokens")
    require_one(usage, names)
    # Voyage breaks its total down; pixels are in it as tokens already.
    refuse_unknown(usage, frozenset((*names, "text_tokens", "image_tokens")))
    return settle(Reported(largest(usage, names), 0))


def from_pages(usage: Usage, provider: str | None) -> Tokens:
    """Mistral's document reading bills pages."""
    require_one(usage, ("pages_processed",))
    refuse_unknown(usage, frozenset({"pages_processed", "pages_processed_annotation"}))
    extra: dict[str, ExtraValue] = {"input_document_pages": count(usage, "pages_processed")}
    if annotated := count(usage, "pages_processed_annotation"):
        extra["input_annotated_document_pages"] = annotated
    return settle(Reported(0, 0), extra=extra)


def from_duration(usage: Usage, provider: str | None) -> Tokens:
    """Transcription that is billed by the time of the sound."""
    require_one(usage, ("seconds",))
    refuse_unknown(usage, frozenset())
    heard = seconds(usage, "seconds")
    return settle(Reported(0, 0), extra={"audio_seconds": heard, "input_audio_seconds": heard})


def from_units(usage: Usage, provider: str | None) -> Tokens:
    """Return what is billed by something else than tokens, each under its own name; see `UNITS`."""
    refuse_unknown(usage, UNITS)
    return Tokens()
