"""What a form of prices may not mean: numbers far from what is in force."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from common.json_bodies import JsonObject
from common.money import NANOS_PER_USD, usd_words
from metering.snapshot import known_configuration, read_configuration
from metering.usage.shapes import Tokens

MILLION: Final = 1_000_000
# A rate for one token or for a thousand is a thousand times off, or more.
TIMES_OFF: Final = 100
# No model on any price list costs more for a million tokens, or less unless it is free.
MILLION_TOKENS_NANOS_MAX: Final = 1000 * NANOS_PER_USD
MILLION_TOKENS_NANOS_MIN: Final = NANOS_PER_USD // 1000
TOOL_CALL_NANOS_MAX: Final = NANOS_PER_USD
COMPARED: Final = {"input_tokens": "Input tokens", "output_tokens": "Output tokens"}
# What is compared, small enough for the rates of short inputs.
SAMPLE_TOKENS: Final = 1000


def rate_slips(
    *, tenant_id: int, provider: str, model: str, rates: JsonObject, now: datetime
) -> list[str]:
    """Rates that may be for one token, or for a thousand, in place of a million."""
    per_million = {key: int(rate["nanos"]) for key, rate in rates.items() if rate["per"] == MILLION}
    if not any(int(rate["nanos"]) for rate in rates.values()):
        return [f"Every call of {model} is free: no limit of cost stops it."]
    known = _known_rates(tenant_id, provider, model, now)
    slips = [*_far_off(per_million, known), *_implausible(per_million, known)]
    return [*slips, "Rates are in USD per million tokens."] if slips else []


def _known_rates(tenant_id: int, provider: str, model: str, now: datetime) -> dict[str, int]:
    """What a million tokens of the model cost now, in nano-dollars; nothing without a price."""
    configuration = read_configuration(tenant_id, known=known_configuration(tenant_id))
    price = configuration.prices.price_at(provider=provider, model=model, at=now)
    if price is None:
        return {}
    samples = {
        "input_tokens": Tokens(input_tokens=SAMPLE_TOKENS),
        "output_tokens": Tokens(output_tokens=SAMPLE_TOKENS),
    }
    scale = MILLION // SAMPLE_TOKENS
    return {key: price.compiled.cost_nanos(tokens) * scale for key, tokens in samples.items()}


def _far_off(rates: Mapping[str, int], known: Mapping[str, int]) -> Iterator[str]:
    for key, words in COMPARED.items():
        rate, usual = rates.get(key), known.get(key)
        if rate is None or not usual or rate * TIMES_OFF > usual > rate / TIMES_OFF:
            continue
        if not rate:
            beside = "nothing against"
        elif rate > usual:
            beside = f"{rate // usual:,} times"
        else:
            beside = f"1/{usual // rate:,} of"
        yield (
            f"{words}: {usd_words(rate)} per million is {beside} the present price of "
            f"{usd_words(usual)}."
        )


def _implausible(rates: Mapping[str, int], known: Mapping[str, int]) -> Iterator[str]:
    for key, rate in rates.items():
        words = key.replace("_", " ").capitalize()
        if known.get(key):
            continue
        if rate > MILLION_TOKENS_NANOS_MAX:
            yield f"{words}: {usd_words(rate)} per million is more than any model costs."
        elif 0 < rate < MILLION_TOKENS_NANOS_MIN:
            yield f"{words}: {usd_words(rate)} per million is less than any model costs."


def tool_price_slips(tool: str, call_nanos: int) -> list[str]:
    """A price that may be for a thousand calls."""
    if call_nanos <= TOOL_CALL_NANOS_MAX:
        return []
    return [f"Each single call of {tool} costs {usd_words(call_nanos)}."]
