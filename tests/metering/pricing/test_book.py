from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from itertools import count
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, Provider
from hypothesis import given, settings
from hypothesis import strategies as st

from common.json_bodies import JsonObject
from metering.models.prices import CataloguePrice, TenantPrice, ToolPrice
from metering.pricing.book import PriceBook, Rating
from metering.pricing.catalogue import CatalogueRow, catalogue_rows
from metering.pricing.model_names import CatalogueModel, canonical_provider, find_model
from metering.pricing.rates import CompiledRates, check_rates, parse_rates
from metering.pricing.schedule import Catalogue
from metering.usage.shapes import Tokens, normalise_usage
from tests.seed import dice

CONTEXTS: dict[str | None, dict[str, str]] = {
    None: {},
    "default": {"service_tier": "default"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
    "batch": {"service_tier": "batch", "processing": "batch"},
}
MODELS: list[tuple[Provider, ModelInfo]] = [
    (provider, model) for provider in get_snapshot().providers for model in provider.models
]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
YEAR = datetime(2026, 1, 1, tzinfo=UTC)


_numbers = count(1)


def tenant_price(rates: JsonObject, **given: object) -> TenantPrice:
    fields = {"model": "gpt-4o", "provider": "", "effective_from": YEAR, **given}
    return TenantPrice(id=next(_numbers), rates=rates, **fields)


def tool_price(call_nanos: int, **given: object) -> ToolPrice:
    fields = {"tool": "web_search", "effective_from": YEAR, **given}
    return ToolPrice(id=next(_numbers), call_nanos=call_nanos, **fields)


def catalogue_of(rows: Iterable[CatalogueRow]) -> Catalogue:
    return Catalogue(
        CataloguePrice(id=number, **row._asdict()) for number, row in enumerate(rows, 1)
    )


@cache
def catalogue() -> Catalogue:
    return catalogue_of(catalogue_rows())


def rate(book: PriceBook, provider: str | None, model: str | None, **given: object) -> Rating:
    arguments: JsonObject = {
        "at": NOON,
        "tokens": Tokens(1000, 100),
        "service_tier": None,
        "tool": None,
        "operation": "llm",
    }
    return book.rate(provider=provider, model=model, **{**arguments, **given})


@cache
def book() -> PriceBook:
    return PriceBook(catalogue=catalogue())


def flat(input_nanos: int, output_nanos: int, **more: int) -> JsonObject:
    """Rates in nano-dollars for a million tokens."""
    rates = {"input_tokens": input_nanos, "output_tokens": output_nanos, **more}
    return {key: {"nanos": str(nanos), "per": 1_000_000} for key, nanos in rates.items()}


@st.composite
def usages(draw: st.DrawFn) -> Tokens:
    """Usage of any class that agrees with itself: made of parts, which are then added up."""
    several = st.one_of(st.just(0), st.integers(0, 400_000))
    some = st.one_of(st.just(0), st.just(0), st.integers(0, 50_000))
    fresh, read, write, kept = draw(several), draw(several), draw(some), draw(some)
    audio, audio_read, image, image_read = draw(some), draw(some), draw(some), draw(some)
    video, video_read = draw(some), draw(some)
    text, reasoning, spoken, drawn, filmed = [draw(some) for _ in range(5)]
    extra: JsonObject = {
        "input_image_tokens": image + image_read,
        "input_video_tokens": video + video_read,
        "output_image_tokens": drawn,
        "output_video_tokens": filmed,
        "cache_audio_read_tokens": audio_read,
        "cache_image_read_tokens": image_read,
        "cache_video_read_tokens": video_read,
        "input_characters": draw(some),
        "input_text_messages": draw(some),
        "input_document_pages": (pages := draw(some)),
        "input_annotated_document_pages": draw(st.integers(0, pages)),
        "storage_searches": draw(some),
    }
    seconds = draw(st.one_of(some, st.floats(0, 10_000).map(lambda value: round(value, 2))))
    extra["audio_seconds"] = extra["input_audio_seconds"] = seconds
    kept_cached = read + audio_read + image_read + video_read
    return Tokens(
        input_tokens=fresh + kept_cached + write + kept + audio + image + video,
        output_tokens=text + reasoning + spoken + drawn + filmed,
        cache_read_tokens=kept_cached,
        cache_write_tokens=write + kept,
        cache_write_1h_tokens=kept,
        reasoning_tokens=reasoning,
        input_audio_tokens=audio + audio_read,
        output_audio_tokens=spoken,
        web_searches=draw(some),
        extra=draw(st.sampled_from([extra, None])) if audio + image + video == 0 else extra,
    )


def library_usage(tokens: Tokens) -> genai_prices.Usage:
    counts = {
        name: getattr(tokens, name)
        for name in Tokens.__struct_fields__
        if name not in ("reasoning_tokens", "extra")
    }
    more: Mapping[str, Any] = tokens.extra or {}
    return genai_prices.Usage(
        **counts, output_reasoning_tokens=tokens.reasoning_tokens, **_with_zero_joints(more)
    )


def _with_zero_joints(extra: Mapping[str, object]) -> JsonObject:
    # The library refuses to guess how much of cached input was audio; here none was.
    joints = {f"cache_{kind}_read_tokens": 0 for kind in ("audio", "image", "video")}
    return {**joints, **extra}


def nanos(usd: Decimal) -> int:
    return int((usd * 10**9).quantize(Decimal(1), ROUND_HALF_UP))


def agrees(
    provider: Provider, model: ModelInfo, tokens: Tokens, at: datetime, tier: str | None
) -> bool:
    """Whether the catalogue's rating of exactly this model is the library's."""
    if tokens.extra is None and tokens.input_audio_tokens:
        tokens = Tokens(tokens.input_tokens, tokens.output_tokens)
    reference = model.calc_price(
        library_usage(tokens),
        provider,
        genai_request_timestamp=at,
        price_context=CONTEXTS[tier] or None,
    )
    known = CatalogueModel(provider.id, model.id, has_variants=True)
    schedule = catalogue().schedule(known, tier)
    assert schedule is not None
    return schedule.at(at).cost_nanos(tokens) == nanos(reference.total_price)


moments = st.integers(0, 4 * 365 * 86400).map(
    lambda seconds: datetime(2023, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


@given(st.sampled_from(MODELS), usages(), moments, st.sampled_from([None, None, *CONTEXTS]))
@settings(max_examples=600, deadline=None)
def test_any_usage_of_any_model_costs_what_the_library_says(
    chosen: tuple[Provider, ModelInfo], tokens: Tokens, at: datetime, tier: str | None
) -> None:
    assert agrees(*chosen, tokens, at, tier)


def test_every_model_costs_what_the_library_says_at_every_boundary() -> None:
    seeded = dice("boundaries")
    boundaries = [128_000, 199_999, 200_000, 200_001, 272_001, 524_289]
    for provider, model in MODELS:
        for tier in CONTEXTS if model.price_variants else [None]:
            given_tokens = seeded.choice([*boundaries, seeded.randrange(1, 100_000)])
            read = seeded.randrange(given_tokens // 2)
            write = seeded.randrange(given_tokens // 2)
            tokens = Tokens(
                given_tokens,
                (output := seeded.randrange(9999)),
                read,
                write,
                seeded.randrange(write + 1),
                seeded.randrange(output + 1),
                web_searches=seeded.randrange(3),
            )
            at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(
                seconds=seeded.randrange(3 * 365 * 86400)
            )
            assert agrees(provider, model, tokens, at, tier), (provider.id, model.id, tier, at)


def test_every_model_is_found_by_its_own_name_as_the_library_finds_it() -> None:
    for provider, model in MODELS:
        result = find_model(provider.id, model.id)
        assert result is not None, (provider.id, model.id)
        try:
            reference = genai_prices.calc_price(
                genai_prices.Usage(input_tokens=1), model.id, provider_id=provider.id
            )
        except LookupError:
            assert (result.provider, result.model) == (provider.id, model.id)
            continue
        assert result.model == reference.model.id, (provider.id, model.id)


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", "gpt-4o-2024-08-06", ("openai", "gpt-4o")),
        ("openai", "gpt-5.2-20251211", ("openai", "gpt-5.2")),
        ("openai", "GPT-4o", ("openai", "gpt-4o")),
        ("azure", "gpt-4o", ("openai", "gpt-4o")),
        ("azure.ai.openai", "gpt-4o", ("openai", "gpt-4o")),
        ("azure_ai", "gpt-4o", ("openai", "gpt-4o")),
        (None, "gpt-4o", ("openai", "gpt-4o")),
        ("", "claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("litellm", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("litellm", "claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        (None, "anthropic/claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("openai", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("gcp.vertex_ai", "gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        ("gcp.gen_ai", "models/gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        ("google", "publishers/google/models/gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        ("generativelanguage.googleapis.com", "gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        (
            "aws.bedrock",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            ("aws", "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ),
        (
            None,
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            ("aws", "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ),
        ("x_ai", "grok-4", ("x-ai", "grok-4-0709")),
        ("api.x.ai", "grok-4", ("x-ai", "grok-4-0709")),
        ("openrouter", "openai/gpt-4o", ("openrouter", "openai/gpt-4o")),
        # A gateway's name is no obstacle to what only its maker sells.
        ("our-gateway", "gpt-4o", ("openai", "gpt-4o")),
        ("openai", "claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
    ],
)
def test_a_name_means_its_model(
    provider: str | None, model: str, expected: tuple[str, str]
) -> None:
    resolved = find_model(provider, model)
    assert resolved is not None
    assert (resolved.provider, resolved.model) == expected


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-9"),
        ("anthropic", "claude-99"),
        ("openai", "gpt-4oo"),
        ("openrouter", "openai/gpt-4o:free"),
        ("ollama", "llama3"),
        # Open weights, whose price is the host's own.
        ("our-gateway", "deepseek-r1"),
        ("ollama", "gpt-oss-120b"),
        ("deepinfra", "mistral-large-latest"),
        (None, "mistralai/Mistral-7B-Instruct-v0.2"),
        ("openai", "my-deployment"),
        (None, ""),
        ("nobody", "nothing"),
    ],
)
def test_an_unknown_name_is_unpriced_and_not_guessed(provider: str | None, model: str) -> None:
    assert rate(book(), provider, model) == Rating(0, None, "unpriced")


@pytest.mark.parametrize(
    ("provider", "model", "spelling"),
    [
        ("openai", "gpt-4o", "openai"),
        ("OpenAI", None, "openai"),
        ("azure-openai", "gpt-4o", "openai"),
        ("azure", "gpt-4o", "openai"),
        ("azure", "our-deployment", "openai"),
        ("azure", "claude-sonnet-4-5", "anthropic"),
        ("vertex_ai", "claude-sonnet-4-5", "anthropic"),
        ("gcp.vertex_ai", "gemini-2.5-pro", "google"),
        ("gemini", None, "google"),
        ("aws.bedrock", "us.amazon.nova-pro-v1:0", "aws"),
        (None, "gpt-4o", "openai"),
        (None, None, ""),
        ("Snowflake", "llama3", "snowflake"),
    ],
)
def test_a_provider_has_one_spelling(
    provider: str | None, model: str | None, spelling: str
) -> None:
    assert canonical_provider(provider, model) == spelling


def test_the_cost_is_rounded_once_and_half_up() -> None:
    # 1 token at 500 nano-dollars a thousand tokens is half a nano-dollar.
    compiled = CompiledRates(parse_rates(flat(500_000, 499_999)))
    assert compiled.cost_nanos(Tokens(1, 0)) == 1
    assert compiled.cost_nanos(Tokens(0, 1)) == 0
    assert compiled.cost_nanos(Tokens(1, 1)) == 1
    assert compiled.cost_nanos(Tokens(3, 0)) == 2


def test_a_class_without_a_rate_costs_what_its_whole_costs() -> None:
    compiled = CompiledRates(parse_rates(flat(2_000_000_000, 8_000_000_000)))
    whole = Tokens(1000, 500)
    parts = Tokens(1000, 500, 300, 200, 100, 50, 20, 30, 0, {"input_image_tokens": 10})
    assert compiled.cost_nanos(whole) == 1000 * 2000 + 500 * 8000
    assert compiled.cost_nanos(parts) == compiled.cost_nanos(whole)


def test_every_class_with_a_rate_costs_its_own() -> None:
    rates = flat(
        10_000_000,
        20_000_000,
        cache_read_tokens=1_000_000,
        cache_write_tokens=12_000_000,
        cache_write_1h_tokens=16_000_000,
        output_reasoning_tokens=30_000_000,
    )
    compiled = CompiledRates(parse_rates(rates))
    tokens = Tokens(1000, 500, 300, 200, 80, 100)
    assert compiled.cost_nanos(tokens) == (
        500 * 10 + 300 * 1 + 120 * 12 + 80 * 16 + 400 * 20 + 100 * 30
    )


def test_a_tier_changes_the_rate_of_the_whole_call() -> None:
    rates = flat(1_000_000, 5_000_000)
    rates["input_tokens"]["tiers"] = [{"above": 200_000, "nanos": "2000000"}]
    compiled = CompiledRates(parse_rates(rates))
    assert compiled.cost_nanos(Tokens(200_000, 10)) == 200_000 + 50
    assert compiled.cost_nanos(Tokens(200_001, 10)) == 400_002 + 50


def test_tokens_read_and_written_at_once_are_billed_as_both() -> None:
    # As recorded: the provider's own bill for this prompt was 0.00024701333333333335 dollars.
    recorded = {
        "prompt_tokens": 2168,
        "completion_tokens": 0,
        "total_tokens": 2168,
        "prompt_tokens_details": {"cached_tokens": 2161, "cache_write_tokens": 2161},
    }
    rates = flat(300_000_000, 0, cache_read_tokens=30_000_000)
    rates["cache_write_tokens"] = {"nanos": "83333333.3333", "per": 1_000_000}
    compiled = CompiledRates(parse_rates(rates))
    assert compiled.cost_nanos(normalise_usage(recorded, provider=None)) == 247_013


def test_cached_audio_of_an_unknown_share_is_no_more_than_must_be() -> None:
    audio = flat(1_000_000, 0, cache_read_tokens=100_000, input_audio_tokens=10_000_000)
    audio["cache_audio_read_tokens"] = {"nanos": "3000000", "per": 1_000_000}
    compiled = CompiledRates(parse_rates(audio))
    # They fit beside each other: 50 plain, 30 cached, 20 heard.
    assert compiled.cost_nanos(Tokens(100, 0, 30, input_audio_tokens=20)) == 50 + 3 + 200
    # Ten must be both: 60 cached text, 10 cached audio, 30 heard.
    assert compiled.cost_nanos(Tokens(100, 0, 70, input_audio_tokens=40)) == 6 + 30 + 300


def test_the_price_of_the_day_and_of_the_hour_applies() -> None:
    before = datetime(2025, 2, 9, 0, 30, tzinfo=UTC)
    deepseek = "deepseek-reasoner"
    peak = rate(book(), "deepseek", deepseek, at=before.replace(hour=1))
    off_peak = rate(book(), "deepseek", deepseek, at=before.replace(hour=20))
    assert peak.cost_nanos > off_peak.cost_nanos > 0
    assert peak.price_id != off_peak.price_id
    in_tokyo = before.replace(hour=1).astimezone(timezone(timedelta(hours=9)))
    assert rate(book(), "deepseek", deepseek, at=in_tokyo) == peak


def test_the_tier_of_service_chooses_the_price() -> None:
    standard = rate(book(), "openai", "gpt-4.1")
    batch = rate(book(), "openai", "gpt-4.1", service_tier="batch")
    assert batch.cost_nanos * 2 == standard.cost_nanos == 1000 * 2000 + 100 * 8000
    assert batch.price_id != standard.price_id
    assert rate(book(), "openai", "gpt-4.1", service_tier="standard") == standard
    assert rate(book(), "openai", "gpt-4.1", service_tier="never-heard-of") == standard
    # A reseller's tiers are not its maker's.
    assert rate(book(), "azure", "gpt-4.1", service_tier="batch") == standard


def test_an_advisor_is_rated_at_its_own_price() -> None:
    part = {"input_tokens": 500, "output_tokens": 40}
    together = Tokens(1500, 140, extra={"other_models": {"claude-opus-4-5": part}})
    executor = rate(book(), "anthropic", "claude-sonnet-4-5", tokens=Tokens(1000, 100))
    advisor = rate(book(), "anthropic", "claude-opus-4-5", tokens=Tokens(500, 40))
    rating = rate(book(), "anthropic", "claude-sonnet-4-5", tokens=together)
    assert rating.cost_nanos == executor.cost_nanos + advisor.cost_nanos
    assert rating.price_id == executor.price_id
    unknown = Tokens(1500, 140, extra={"other_models": {"claude-99": part}})
    assert rate(book(), "anthropic", "claude-sonnet-4-5", tokens=unknown).source == "unpriced"


def test_a_tenants_price_beats_the_catalogue_while_it_is_in_force() -> None:
    price = tenant_price(
        flat(1_000_000_000, 2_000_000_000),
        effective_from=NOON - timedelta(days=1),
        effective_to=NOON + timedelta(days=1),
    )
    own = PriceBook(catalogue=catalogue(), tenant_prices=[price])
    rating = Rating(1000 * 1000 + 100 * 2000, price.price_id, "override")
    assert rate(own, "openai", "gpt-4o") == rating
    assert rate(own, "openai", "GPT-4o", at=price.effective_from) == rating
    assert rate(own, "openai", "gpt-4o-2024-08-06") == rating
    by_catalogue = rate(book(), "openai", "gpt-4o")
    assert rate(own, "openai", "gpt-4o", at=NOON + timedelta(days=1)) == by_catalogue
    assert rate(own, "openai", "gpt-4o", at=NOON - timedelta(days=2)) == by_catalogue
    assert rate(own, "openai", "gpt-4.1").source == "catalogue"


def test_a_tenant_prices_a_model_that_the_catalogue_lacks() -> None:
    price = tenant_price(flat(1_000_000, 0), model="our-llama", provider="in-house")
    own = PriceBook(catalogue=catalogue(), tenant_prices=[price])
    assert rate(own, "In-House", "our-llama") == Rating(1000, price.price_id, "override")
    assert rate(own, "elsewhere", "our-llama") == Rating(0, None, "unpriced")


def test_the_price_that_names_the_call_most_closely_holds() -> None:
    general = tenant_price(flat(1_000_000, 0))
    by_provider = tenant_price(flat(2_000_000, 0), provider="azure")
    by_name = tenant_price(flat(3_000_000, 0), model="gpt-4o-2024-08-06")
    later = tenant_price(flat(4_000_000, 0), effective_from=NOON - timedelta(hours=1))
    own = PriceBook(catalogue=catalogue(), tenant_prices=[general, later, by_provider, by_name])
    assert rate(own, "azure", "gpt-4o").price_id == by_provider.price_id
    assert rate(own, "openai", "gpt-4o-2024-08-06").price_id == by_name.price_id
    assert rate(own, "openai", "gpt-4o").price_id == later.price_id
    early = NOON - timedelta(hours=2)
    assert rate(own, "openai", "gpt-4o", at=early).price_id == general.price_id


def test_a_tool_is_priced_by_the_call_or_is_free() -> None:
    old = tool_price(5_000_000, effective_to=NOON)
    new = tool_price(7_000_000, effective_from=NOON)
    own = PriceBook(catalogue=catalogue(), tool_prices=[old, new])
    assert rate(own, None, None, operation="tool", tool="web_search") == Rating(
        7_000_000, new.price_id, "override"
    )
    assert (
        rate(own, None, None, operation="tool", tool="web_search", at=NOON - timedelta(1)).price_id
        == old.price_id
    )
    free = Rating(0, None, "catalogue")
    assert rate(own, None, None, operation="tool", tool="Web_Search") == free
    assert rate(own, "openai", "gpt-4o", operation="tool", tool=None) == free


def test_hostile_names_do_not_fill_the_memory() -> None:
    own = PriceBook(catalogue=catalogue())
    for number in range(9000):
        rate(own, f"host-{number}", f"claude-sonnet-4-5-{number}")
    assert own.entry.cache_info().currsize <= 4096
    assert find_model.cache_info().currsize <= 8192


@pytest.mark.parametrize(
    ("rates", "problem"),
    [
        ({}, "at least one usage key"),
        ([], "at least one usage key"),
        ({"dreams": {"nanos": "1"}}, "not a usage key"),
        ({"input_tokens": "1"}, "an object with 'nanos'"),
        ({"input_tokens": {"nanos": "-1"}}, "between 0 and"),
        ({"input_tokens": {"nanos": "NaN"}}, "between 0 and"),
        ({"input_tokens": {"nanos": "a lot"}}, "decimal string"),
        ({"input_tokens": {"nanos": 0.1}}, "decimal string"),
        ({"input_tokens": {"nanos": "1", "per": 0}}, "must be a positive"),
        ({"input_tokens": {"nanos": "0.0000000000001"}}, "decimals"),
        ({"input_tokens": {"nanos": "1", "tiers": [{"nanos": "1"}]}}, "a tier needs 'above'"),
        (
            {
                "input_tokens": {
                    "nanos": "1",
                    "tiers": [{"above": 5, "nanos": "1"}, {"above": 5, "nanos": "2"}],
                }
            },
            "rise and not repeat",
        ),
        ({"cache_read_tokens": {"nanos": "1"}}, "Missing ancestor price"),
    ],
)
def test_rates_that_cannot_be_used_are_named(rates: object, problem: str) -> None:
    result = check_rates(rates)
    assert result is not None
    assert problem in result


def test_every_rate_of_the_catalogue_can_be_used() -> None:
    for row in catalogue_rows():
        if row.rates and not row.context:
            assert check_rates(row.rates) is None, (row.provider, row.model)
