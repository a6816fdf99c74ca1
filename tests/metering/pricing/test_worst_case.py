"""A hold covers the dearest call of its request's shape, for every price of the catalogue."""

import random
from typing import Any

import msgspec
import pytest

from common.json_bodies import JsonObject
from metering.pricing.rates import CompiledRates, parse_rates, units
from metering.pricing.worst_case import Shape, worst_case_nanos
from metering.usage.shapes import Tokens
from tests.metering.intake.test_unrated import supplemented
from tests.metering.pricing.test_book import flat
from tests.seed import dice

RATES = flat(
    1_000_000,
    4_000_000,
    cache_read_tokens=100_000,
    cache_write_tokens=1_250_000,
    cache_write_1h_tokens=2_000_000,
    input_audio_tokens=10_000_000,
    output_image_tokens=40_000_000,
)
RATES["web_searches"] = {"nanos": "10000", "per": 1000}


def held(rates: JsonObject, **fields: Any) -> int:
    shape = Shape(**{"input_tokens": 100, "output_tokens": 10, "units": {}, **fields})
    return worst_case_nanos(CompiledRates(parse_rates(rates)), shape)


@pytest.mark.parametrize(
    ("fields", "nanos"),
    [
        ({}, 100 * 10 + 10 * 40),
        ({"output_modalities": frozenset({"text"})}, 100 * 10 + 10 * 4),
        ({"input_modalities": frozenset({"text", "image"})}, 100 * 2 + 10 * 40),
        ({"input_modalities": frozenset({"text"}), "cache": "5m"}, 125 + 10 * 40),
        ({"input_modalities": frozenset({"text"}), "cache": "none"}, 100 + 10 * 40),
        ({"units": {"web_searches": 20}}, 100 * 10 + 10 * 40 + 20 * 10),
        ({"input_tokens": 0, "output_tokens": 0}, 0),
    ],
)
def test_what_the_request_says_narrows_what_is_held(fields: JsonObject, nanos: int) -> None:
    assert held(RATES, **fields) == nanos


def test_each_tier_that_the_input_reaches_counts() -> None:
    rates = flat(2_000_000, 0)
    rates["input_tokens"]["tiers"] = [{"above": 100, "nanos": "3000000"}]
    assert [held(rates, input_tokens=size) for size in (100, 101)] == [200, 303]
    # Should more ever be cheaper, the call may stay below the step.
    rates["input_tokens"]["tiers"] = [{"above": 100, "nanos": "1000000"}]
    assert [held(rates, input_tokens=size) for size in (101, 250)] == [200, 250]


def test_the_sum_is_rounded_once() -> None:
    rates = flat(500_000, 0)
    rates["web_searches"] = {"nanos": "300", "per": 1000}
    # 0.5 and 0.3 nano-dollars; and 0.4 beside 0.3, of which neither is one by itself.
    assert held(rates, input_tokens=1, units={"web_searches": 1}) == 1
    rates["input_tokens"]["nanos"] = "400000"
    assert held(rates, input_tokens=1, units={"web_searches": 1}) == 1


def test_no_call_within_its_request_costs_more_than_is_held() -> None:
    seeded = dice("worst case")
    kinds = {(frozenset(row.rates), bool(row.context)): row for row in supplemented() if row.rates}
    for row in kinds.values():
        if row.context:
            continue  # variants are priced together with their standard price
        compiled = CompiledRates(parse_rates(row.rates))
        counted = {
            key: seeded.randrange(1, 50)
            for key in row.rates
            if units().units[key].dimensions["family"] not in ("tokens", "requests")
        }
        for _ in range(20):
            tokens = _some_tokens(seeded)
            shape = Shape(tokens.input_tokens, tokens.output_tokens, counted)
            used = {key: seeded.randrange(most + 1) for key, most in counted.items()}
            web = used.pop("web_searches", 0)
            extra = {**(tokens.extra or {}), **used}
            call = msgspec.structs.replace(tokens, web_searches=web, extra=extra)
            cost = compiled.cost_nanos(call)
            assert cost <= worst_case_nanos(compiled, shape), (row.provider, row.model, call)


def _some_tokens(seeded: random.Random) -> Tokens:
    size = seeded.choice([10, 1000, 150_000, 250_000, 600_000])
    parts = [seeded.randrange(size) for _ in range(5)]
    read, write, audio, image, _ = parts
    written = [seeded.randrange(1000) for _ in range(4)]
    return Tokens(
        sum(parts),
        sum(written),
        read,
        write,
        seeded.randrange(write + 1),
        written[0],
        audio,
        written[1],
        0,
        {"input_image_tokens": image, "output_image_tokens": written[2]},
    )
