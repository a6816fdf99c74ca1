"""Nothing without a rate reads as $0, and what the price library lacks has a source and a date."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

import pytest

from common.json_bodies import JsonObject
from metering.pricing.book import PriceBook, Rating
from metering.pricing.catalogue import CatalogueRow, catalogue_rows
from metering.pricing.rates import CompiledRates, check_rates, parse_rates, units
from metering.pricing.schedule import Catalogue
from metering.pricing.supplement import supplement_lines, supplemented_rows
from metering.usage.shapes import Tokens, normalise_usage
from tests.metering.pricing.test_book import NOON, catalogue_of, flat, rate, tenant_price

# One of everything that a usage object can hold, by usage key.
EVERY_UNIT: dict[str, Tokens] = {
    "input_tokens": Tokens(input_tokens=10),
    "output_tokens": Tokens(output_tokens=10),
    "cache_read_tokens": Tokens(input_tokens=10, cache_read_tokens=10),
    "cache_write_tokens": Tokens(input_tokens=10, cache_write_tokens=10),
    "cache_write_1h_tokens": Tokens(
        input_tokens=10, cache_write_tokens=10, cache_write_1h_tokens=10
    ),
    "output_reasoning_tokens": Tokens(output_tokens=10, reasoning_tokens=10),
    "input_audio_tokens": Tokens(input_tokens=10, input_audio_tokens=10),
    "output_audio_tokens": Tokens(output_tokens=10, output_audio_tokens=10),
    "web_searches": Tokens(web_searches=3),
    "input_image_tokens": Tokens(input_tokens=10, extra={"input_image_tokens": 10}),
    "output_image_tokens": Tokens(output_tokens=10, extra={"output_image_tokens": 10}),
    "output_video_tokens": Tokens(output_tokens=10, extra={"output_video_tokens": 10}),
    **{
        key: Tokens(extra={key: 3})
        for key in units().units
        if key != "requests" and not key.endswith(("_tokens", "web_searches"))
    },
    "telepathy_calls": Tokens(extra={"telepathy_calls": 3}),
}


@cache
def supplemented() -> tuple[CatalogueRow, ...]:
    return tuple(supplemented_rows())


@cache
def book() -> PriceBook:
    return PriceBook(catalogue=catalogue_of(supplemented()))


def is_rated(key: str, rates: Mapping[str, object]) -> bool:
    known = units().units
    return key in rates or (key in known and bool(units().ancestor_usage_keys(key) & rates.keys()))


def test_each_unit_that_each_price_has_no_rate_for_is_named() -> None:
    seen = set()
    kinds = {frozenset(row.rates): row for row in supplemented() if not row.context}
    for row in kinds.values():
        compiled = CompiledRates(parse_rates(row.rates) if row.rates else {})
        for key, tokens in EVERY_UNIT.items():
            unrated = compiled.unrated(tokens)
            assert (key in unrated) is not is_rated(key, row.rates), (row.provider, row.model, key)
            seen.add(bool(unrated))
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("provider", "model", "usage", "unrated"),
    [
        ("openai", "tts-1", {"input_tokens": 50_000_000, "output_tokens": 0}, ("input_tokens",)),
        ("openai", "tts-1", {"input_tokens": 0, "output_tokens": 0}, ("input_characters",)),
        ("openai", "whisper-1", {"input_tokens": 5, "output_tokens": 0}, ("input_tokens",)),
        ("openai", "gpt-4o", {"seconds": 9}, ("audio_seconds", "input_audio_seconds")),
        ("openai", "gpt-4o", {"output_images": 2}, ("output_images",)),
        ("openai", "gpt-4o", {"pages_processed": 4}, ("input_document_pages",)),
        ("openai", "o1", {"input_tokens": 5, "output_tokens": 1, "web_searches": 2}, None),
        ("openai", "text-embedding-3-small", {"output_tokens": 3}, ("output_tokens",)),
        ("cerebras", "qwen-3-coder-480b", {"input_tokens": 5}, ("input_tokens",)),
        (
            "x-ai",
            "grok-4",
            {"prompt_tokens": 5, "completion_tokens": 1, "num_sources_used": 4},
            ("search_sources",),
        ),
    ],
)
def test_use_without_a_rate_is_unpriced(
    provider: str, model: str, usage: JsonObject, unrated: tuple[str, ...] | None
) -> None:
    rating = rate(book(), provider, model, tokens=normalise_usage(usage, provider=provider))
    assert rating.source == "unpriced"
    assert rating.price_id is not None
    assert rating.unrated == (("web_searches",) if unrated is None else unrated)


def test_what_has_a_rate_is_kept_of_a_call_that_is_partly_unpriced() -> None:
    tokens = Tokens(1000, 100, web_searches=2)
    rating = rate(book(), "openai", "o1", tokens=tokens)
    assert rating.cost_nanos == rate(book(), "openai", "o1").cost_nanos == 1000 * 15_000 + 6_000_000


def test_a_part_of_another_model_without_a_rate_is_unpriced_too() -> None:
    part = {"input_tokens": 500, "output_tokens": 40}
    tokens = Tokens(1500, 140, extra={"other_models": {"tts-1": part}})
    rating = rate(book(), None, "claude-sonnet-4-5", tokens=tokens)
    assert (rating.source, rating.unrated) == ("unpriced", ("input_tokens", "output_tokens"))


def test_a_tenants_price_without_the_rate_is_no_free_price() -> None:
    price = tenant_price(flat(1_000_000_000, 2_000_000_000))
    own = PriceBook(catalogue=Catalogue([]), tenant_prices=[price])
    rating = rate(own, "openai", "gpt-4o", tokens=Tokens(1000, 100, web_searches=1))
    assert rating == Rating(1_200_000, price.price_id, "unpriced", ("web_searches",))


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openrouter", "deepseek/deepseek-r1:free"),
        ("openrouter", "meta-llama/llama-3.3-70b-instruct:free"),
    ],
)
def test_a_model_that_is_free_stays_free(provider: str, model: str) -> None:
    if (provider, model) not in {(row.provider, row.model) for row in supplemented()}:
        pytest.skip("the installed library does not list it")
    rating = rate(book(), provider, model)
    assert (rating.cost_nanos, rating.source) == (0, "catalogue")


@pytest.mark.parametrize(
    ("provider", "model", "usage", "nanos"),
    [
        # 1,000 tokens in and 100 out, beside 4 searches.
        ("openai", "gpt-4.1", {"web_searches": 4}, 1000 * 2000 + 100 * 8000 + 4 * 10_000_000),
        (
            "x-ai",
            "grok-4.3",
            {
                "server_side_tool_usage_details": {
                    "web_search_calls": 2,
                    "x_search_calls": 3,
                    "code_interpreter_calls": 1,
                    "file_search_calls": 4,
                    "document_search_calls": 1,
                }
            },
            1000 * 1250 + 100 * 2500 + 6 * 5_000_000 + 4 * 2_500_000 + 10_000_000,
        ),
        # Perplexity's fee of a request includes its searches.
        ("perplexity", "sonar", {"web_searches": 3}, 1000 * 1000 + 100 * 1000 + 12_000_000),
    ],
)
def test_searches_and_tools_are_billed_beside_tokens(
    provider: str, model: str, usage: JsonObject, nanos: int
) -> None:
    counts = {"input_tokens": 1000, "output_tokens": 100, **usage}
    rating = rate(book(), provider, model, tokens=normalise_usage(counts, provider=provider))
    assert (rating.cost_nanos, rating.source) == (nanos, "catalogue")


def test_a_call_bound_to_the_us_costs_a_tenth_more_where_the_model_has_it() -> None:
    usage = {
        "input_tokens": 700,
        "cache_read_input_tokens": 200,
        "cache_creation_input_tokens": 100,
        "output_tokens": 100,
        "server_tool_use": {"web_search_requests": 2},
    }
    plain = normalise_usage(usage, provider="anthropic")
    bound = normalise_usage({**usage, "inference_geo": "us"}, provider="anthropic")
    fee = 2 * 10_000_000
    for tier in (None, "batch", "fast"):
        for model in ("claude-opus-4-8", "claude-sonnet-5"):
            base = rate(book(), "anthropic", model, tokens=plain, service_tier=tier)
            more = rate(book(), "anthropic", model, tokens=bound, service_tier=tier)
            assert (more.cost_nanos - fee) * 10 == (base.cost_nanos - fee) * 11, (model, tier)
            assert more.source == "catalogue"
    for provider, model in (("anthropic", "claude-sonnet-4-5"), ("azure", "claude-opus-4-8")):
        base = rate(book(), provider, model, tokens=plain)
        assert rate(book(), provider, model, tokens=bound).cost_nanos == base.cost_nanos
    elsewhere = normalise_usage({**usage, "inference_geo": "mars"}, provider="anthropic")
    base = rate(book(), "anthropic", "claude-opus-4-8", tokens=plain)
    assert rate(book(), "anthropic", "claude-opus-4-8", tokens=elsewhere) == base


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("azure", "gpt-4.1"),
        ("openai", "gpt-4.1"),
        ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("aws", "us.amazon.nova-pro-v1:0"),
        ("gcp.vertex_ai", "claude-sonnet-4-5"),
        ("gcp.vertex_ai", "gemini-2.5-pro"),
        ("anthropic", "claude-sonnet-4-5"),
    ],
)
def test_a_batch_costs_half_wherever_it_runs(provider: str, model: str) -> None:
    standard = rate(book(), provider, model)
    batch = rate(book(), provider, model, service_tier="batch")
    assert batch.source == "catalogue"
    assert batch.cost_nanos * 2 == standard.cost_nanos > 0
    assert batch.price_id != standard.price_id


@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        ({}, 100 * 32_000),
        ({"output_tokens_details": {"image_tokens": 100, "text_tokens": 0}}, 100 * 32_000),
        (
            {"output_tokens_details": {"image_tokens": 60, "text_tokens": 40}},
            60 * 32_000 + 40 * 10_000,
        ),
        ({"output_tokens_details": {"image_tokens": 0, "text_tokens": 100}}, 100 * 10_000),
    ],
)
def test_output_of_an_image_model_without_a_breakdown_is_images(
    usage: JsonObject, nanos: int
) -> None:
    counts = {"input_tokens": 10, "output_tokens": 100, "total_tokens": 110, **usage}
    tokens = normalise_usage(counts, provider="openai")
    assert rate(book(), "openai", "gpt-image-1.5", tokens=tokens).cost_nanos == 50_000 + nanos
    batch = rate(book(), "openai", "gpt-image-1.5", tokens=tokens, service_tier="batch")
    assert batch.cost_nanos * 2 == 50_000 + nanos


def test_the_supplement_adds_and_never_overrides() -> None:
    own: defaultdict[tuple[str, str], list[CatalogueRow]] = defaultdict(list)
    for row in supplemented():
        own[row.provider, row.model].append(row)
    for row in catalogue_rows():
        kept = [
            each
            for each in own[row.provider, row.model]
            if each.context == row.context
            and each.effective_from == row.effective_from
            and each.daily_from == row.daily_from
        ]
        assert any(
            all(_same(each.rates.get(key), value) for key, value in row.rates.items())
            for each in kept
        ), row
    for row in supplemented():
        if row.rates and not row.context:
            assert check_rates(row.rates) is None, row


def _same(left: Any, right: Any) -> bool:
    return left is not None and all(left[name] == right[name] for name in right)


def test_every_line_of_the_supplement_has_a_source_and_a_date_and_is_of_use() -> None:
    rows = catalogue_rows()
    for line in supplement_lines():
        assert line.source.startswith("https://"), line
        assert date(2026, 1, 1) <= line.read_on <= date(2026, 12, 31), line
        assert line.kind in ("rate", "factor", "unsplit"), line
        for pattern in line.models:
            only = line._replace(models=(pattern,))
            assert any(only.is_for(row.provider, row.model) for row in rows), (line, pattern)


def test_a_fee_begins_on_its_day() -> None:
    tokens = Tokens(web_searches=1)
    before = datetime(2025, 11, 20, 23, 59, tzinfo=UTC)
    assert rate(book(), "x-ai", "grok-4", tokens=tokens, at=before).source == "unpriced"
    assert rate(book(), "x-ai", "grok-4", tokens=tokens, at=NOON).cost_nanos == 5_000_000
