import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from common.json_bodies import JsonObject
from metering.usage.shapes import (
    OTHER_MODELS,
    Tokens,
    UnknownUsage,
    check_tokens,
    normalise_usage,
    service_tier,
)
from tests.metering.usage_oracle import expected_counts

DATA = Path(__file__).parents[1] / "data" / "recorded_usages.jsonl"
ALL_RECORDED = (
    Path(__file__).parents[4] / "shared" / "data" / "provider_usages" / "responses.jsonl.gz"
)
# A guardrail counts the policies that it checked: no model ran, so there is nothing to meter.
GUARDRAIL = {"at": "invocationMetrics", "shape": "topicPolicyUnits"}


def counts_of(tokens: Tokens) -> JsonObject:
    named = {name: getattr(tokens, name) for name in Tokens.__struct_fields__}
    return {name: value for name, value in named.items() if value}


def normalised(usage: JsonObject, provider: str | None = None) -> JsonObject:
    tokens = normalise_usage(usage, provider=provider)
    assert check_tokens(tokens) is None
    return counts_of(tokens)


RECORDED: list[JsonObject] = [json.loads(line) for line in DATA.read_text().splitlines()]


@pytest.mark.parametrize("call", RECORDED, ids=lambda call: call["host"])
def test_each_recorded_shape_gives_exactly_its_counts(call: JsonObject) -> None:
    assert normalised(call["usage"]) == call["counts"]


def test_every_recorded_call_gives_exactly_its_counts() -> None:
    if not ALL_RECORDED.exists():
        pytest.skip("The full set of 2,094 recorded calls is not beside this checkout.")
    outcomes: Counter[str] = Counter()
    with gzip.open(ALL_RECORDED, "rt") as lines:
        for line in lines:
            call = json.loads(line)
            for usage in [call["final_usage"], *(each["usage"] for each in call["usages"])]:
                if usage is None:
                    # Bedrock's InvokeModel: these answers carry no usage object, only headers.
                    assert call["host"].startswith("bedrock-runtime.")
                    assert call["url_path"].endswith(("/invoke", "/invoke-with-response-stream"))
                    outcomes["no usage"] += 1
                elif GUARDRAIL["shape"] in usage:
                    with pytest.raises(UnknownUsage):
                        normalise_usage(usage, provider=None)
                    outcomes["guardrail"] += 1
                else:
                    assert normalised(usage) == expected_counts(call["url_path"], usage)
                    outcomes["counted"] += 1
    assert outcomes["no usage"] == 38
    assert outcomes["guardrail"] == 2
    # One for each other call, and 2,159 that their streams and parts told on the way.
    assert outcomes["counted"] == 2056 + 2159


HAND_MADE: list[tuple[str, str | None, JsonObject, JsonObject]] = [
    (
        "xAI totals reasoning beside the completion",
        "xai",
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {"text_tokens": 32, "cached_tokens": 6},
            "completion_tokens_details": {"reasoning_tokens": 94},
            "num_sources_used": 0,
        },
        {
            "input_tokens": 32,
            "output_tokens": 103,
            "cache_read_tokens": 6,
            "reasoning_tokens": 94,
        },
    ),
    (
        "xAI without a total, by its name",
        "xai",
        {
            "prompt_tokens": 32,
            "completion_tokens": 100,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        {"input_tokens": 32, "output_tokens": 194, "reasoning_tokens": 94},
    ),
    (
        "the same of anyone else is inside",
        "openai",
        {
            "prompt_tokens": 32,
            "completion_tokens": 100,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        {"input_tokens": 32, "output_tokens": 100, "reasoning_tokens": 94},
    ),
    (
        "the total outweighs xAI's name",
        "x-ai",
        {
            "prompt_tokens": 32,
            "completion_tokens": 100,
            "total_tokens": 132,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        {"input_tokens": 32, "output_tokens": 100, "reasoning_tokens": 94},
    ),
    (
        "xAI's own searches",
        "xai",
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "total_tokens": 15,
            "input_tokens_details": {"cached_tokens": 2},
            "output_tokens_details": {"reasoning_tokens": 3},
            "server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 1},
        },
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_tokens": 2,
            "reasoning_tokens": 3,
            "web_searches": 2,
            "extra": {"social_searches": 1},
        },
    ),
    (
        "Perplexity bills reasoning and citations beside what it totals",
        "perplexity",
        {
            "prompt_tokens": 33,
            "completion_tokens": 7163,
            "total_tokens": 7196,
            "citation_tokens": 20016,
            "num_search_queries": 18,
            "reasoning_tokens": 73997,
        },
        {
            "input_tokens": 33,
            "output_tokens": 7163 + 20016 + 73997,
            "reasoning_tokens": 73997,
            "web_searches": 18,
            "extra": {"output_citation_tokens": 20016},
        },
    ),
    (
        "Gemini's compatible API leaves its thoughts out of all but the total",
        None,
        {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109},
        {"input_tokens": 35, "output_tokens": 74, "reasoning_tokens": 62},
    ),
    (
        "an Anthropic object as in the contract, without the sum of its writes",
        "anthropic",
        {
            "input_tokens": 4,
            "cache_read_input_tokens": 8845,
            "cache_creation": {"ephemeral_5m_input_tokens": 6},
            "output_tokens": 193,
        },
        {
            "input_tokens": 8855,
            "output_tokens": 193,
            "cache_read_tokens": 8845,
            "cache_write_tokens": 6,
        },
    ),
    (
        "Anthropic's writes that are kept for an hour",
        "anthropic",
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 556,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 456,
                "ephemeral_1h_input_tokens": 100,
            },
            "output_tokens": 5,
        },
        {
            "input_tokens": 566,
            "output_tokens": 5,
            "cache_write_tokens": 556,
            "cache_write_1h_tokens": 100,
        },
    ),
    (
        "Anthropic's names with a total that shows the cache inside the input",
        None,
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 60,
            "output_tokens": 5,
            "total_tokens": 105,
        },
        {"input_tokens": 100, "output_tokens": 5, "cache_read_tokens": 60},
    ),
    (
        "Anthropic's names with a total that shows the cache beside the input",
        None,
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 60,
            "output_tokens": 5,
            "total_tokens": 165,
        },
        {"input_tokens": 160, "output_tokens": 5, "cache_read_tokens": 60},
    ),
    (
        "LiteLLM on Anthropic",
        None,
        {
            "prompt_tokens": 1000,
            "completion_tokens": 10,
            "total_tokens": 1010,
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 600,
            "prompt_tokens_details": {
                "cached_tokens": 600,
                "cache_creation_tokens": 300,
                "cache_creation_token_details": {
                    "ephemeral_5m_input_tokens": 100,
                    "ephemeral_1h_input_tokens": 200,
                },
            },
        },
        {
            "input_tokens": 1000,
            "output_tokens": 10,
            "cache_read_tokens": 600,
            "cache_write_tokens": 300,
            "cache_write_1h_tokens": 200,
        },
    ),
    (
        "a prompt smaller than its cached part leaves it out",
        None,
        {"prompt_tokens": 10, "completion_tokens": 5, "cache_read_input_tokens": 90},
        {"input_tokens": 100, "output_tokens": 5, "cache_read_tokens": 90},
    ),
    (
        "OpenAI Realtime",
        "openai",
        {
            "total_tokens": 253,
            "input_tokens": 132,
            "output_tokens": 121,
            "input_token_details": {
                "text_tokens": 119,
                "audio_tokens": 13,
                "image_tokens": 0,
                "cached_tokens": 64,
                "cached_tokens_details": {"text_tokens": 60, "audio_tokens": 4, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
        },
        {
            "input_tokens": 132,
            "output_tokens": 121,
            "cache_read_tokens": 64,
            "input_audio_tokens": 13,
            "output_audio_tokens": 91,
            "extra": {"cache_audio_read_tokens": 4},
        },
    ),
    (
        "OpenAI images",
        "openai",
        {
            "total_tokens": 100,
            "input_tokens": 50,
            "output_tokens": 50,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
            "output_tokens_details": {"image_tokens": 50, "text_tokens": 0},
        },
        {
            "input_tokens": 50,
            "output_tokens": 50,
            "extra": {"input_image_tokens": 40, "output_image_tokens": 50},
        },
    ),
    (
        "transcription by the time of the sound",
        "openai",
        {"type": "duration", "seconds": 7.5},
        {"extra": {"audio_seconds": 7.5, "input_audio_seconds": 7.5}},
    ),
    (
        "Gemini's names in its Python SDK",
        "google",
        {
            "prompt_token_count": 100,
            "candidates_token_count": 20,
            "thoughts_token_count": 30,
            "tool_use_prompt_token_count": 7,
            "cached_content_token_count": 40,
            "total_token_count": 157,
            "prompt_tokens_details": [{"modality": "AUDIO", "token_count": 60}],
            "cache_tokens_details": [{"modality": "AUDIO", "token_count": 25}],
            "candidates_tokens_details": None,
        },
        {
            "input_tokens": 107,
            "output_tokens": 50,
            "cache_read_tokens": 40,
            "reasoning_tokens": 30,
            "input_audio_tokens": 60,
            "extra": {"cache_audio_read_tokens": 25},
        },
    ),
    (
        "Gemini Live names its output otherwise",
        "google",
        {
            "promptTokenCount": 10,
            "responseTokenCount": 20,
            "totalTokenCount": 30,
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": 20}],
        },
        {"input_tokens": 10, "output_tokens": 20, "output_audio_tokens": 20},
    ),
    (
        "Bedrock writes that are kept for an hour",
        "aws",
        {
            "inputTokens": 3,
            "outputTokens": 2,
            "cacheReadInputTokens": 10,
            "cacheWriteInputTokens": 30,
            "cacheDetails": [
                {"ttl": "5m", "inputTokens": 10},
                {"ttl": "1h", "inputTokens": 20},
            ],
            "totalTokens": 45,
        },
        {
            "input_tokens": 43,
            "output_tokens": 2,
            "cache_read_tokens": 10,
            "cache_write_tokens": 30,
            "cache_write_1h_tokens": 20,
        },
    ),
    (
        "the metrics that close a Bedrock stream",
        "aws",
        {
            "amazon-bedrock-invocationMetrics": {
                "inputTokenCount": 5,
                "outputTokenCount": 10,
                "cacheReadInputTokenCount": 7,
                "invocationLatency": 900,
            }
        },
        {"input_tokens": 12, "output_tokens": 10, "cache_read_tokens": 7},
    ),
    (
        "Titan",
        "aws",
        {"inputTextTokenCount": 5, "results": [{"tokenCount": 8, "outputText": "…"}]},
        {"input_tokens": 5, "output_tokens": 8},
    ),
    (
        "Llama on Bedrock",
        "aws",
        {"prompt_token_count": 31, "generation_token_count": 12, "stop_reason": "stop"},
        {"input_tokens": 31, "output_tokens": 12},
    ),
    (
        "the Vercel AI SDK has the cache inside",
        None,
        {
            "inputTokens": 100,
            "outputTokens": 20,
            "totalTokens": 120,
            "reasoningTokens": 5,
            "cachedInputTokens": 80,
        },
        {
            "input_tokens": 100,
            "output_tokens": 20,
            "cache_read_tokens": 80,
            "reasoning_tokens": 5,
        },
    ),
    (
        "Ollama",
        "ollama",
        {"prompt_eval_count": 26, "eval_count": 298, "eval_duration": 4709213000, "done": True},
        {"input_tokens": 26, "output_tokens": 298},
    ),
    (
        "Cohere says what it bills; the rest is its own prompt",
        "cohere",
        {
            "billed_units": {"input_tokens": 41, "output_tokens": 28},
            "tokens": {"input_tokens": 1442, "output_tokens": 29},
            "cached_tokens": 1040,
        },
        {"input_tokens": 41, "output_tokens": 28},
    ),
    (
        "Cohere's reranking",
        "cohere",
        {"meta": {"billed_units": {"search_units": 3}}},
        {"extra": {"rerank_searches": 3}},
    ),
    ("Voyage", "voyage", {"total_tokens": 12}, {"input_tokens": 12}),
    (
        "Mistral's reading of documents",
        "mistral",
        {"pages_processed": 4, "doc_size_bytes": 12345},
        {"extra": {"input_document_pages": 4}},
    ),
    (
        "DeepSeek",
        "deepseek",
        {
            "prompt_tokens": 563,
            "completion_tokens": 116,
            "total_tokens": 679,
            "prompt_cache_hit_tokens": 512,
            "prompt_cache_miss_tokens": 51,
        },
        {"input_tokens": 563, "output_tokens": 116, "cache_read_tokens": 512},
    ),
    (
        "the contract's own names",
        None,
        {
            "input_tokens": 100,
            "output_tokens": 50,
            "cache_read_tokens": 20,
            "cache_write_tokens": 30,
            "cache_write_1h_tokens": 10,
            "reasoning_tokens": 5,
            "input_audio_tokens": 2,
            "web_searches": 1,
        },
        {
            "input_tokens": 100,
            "output_tokens": 50,
            "cache_read_tokens": 20,
            "cache_write_tokens": 30,
            "cache_write_1h_tokens": 10,
            "reasoning_tokens": 5,
            "input_audio_tokens": 2,
            "web_searches": 1,
        },
    ),
    (
        "LangChain",
        None,
        {
            "input_tokens": 350,
            "output_tokens": 240,
            "total_tokens": 590,
            "input_token_details": {"audio": 10, "cache_creation": 200, "cache_read": 100},
            "output_token_details": {"audio": 10, "reasoning": 200},
        },
        {
            "input_tokens": 350,
            "output_tokens": 240,
            "cache_read_tokens": 100,
            "cache_write_tokens": 200,
            "reasoning_tokens": 200,
            "input_audio_tokens": 10,
            "output_audio_tokens": 10,
        },
    ),
    (
        "DashScope tells its cache under another API's name",
        None,
        {
            "input_tokens": 30,
            "output_tokens": 5,
            "total_tokens": 35,
            "input_tokens_details": {"text_tokens": 30},
            "prompt_tokens_details": {"cached_tokens": 20},
        },
        {"input_tokens": 30, "output_tokens": 5, "cache_read_tokens": 20},
    ),
    (
        "an agent library's split by request",
        None,
        {
            "requests": 2,
            "input_tokens": 30,
            "output_tokens": 5,
            "total_tokens": 35,
            "request_usage_entries": [{"input_tokens": 10}, {"input_tokens": 20}],
        },
        {"input_tokens": 30, "output_tokens": 5},
    ),
    (
        "Voxtral hears",
        "mistral",
        {"prompt_tokens": 30, "completion_tokens": 5, "prompt_audio_seconds": 8},
        {
            "input_tokens": 30,
            "output_tokens": 5,
            "extra": {"audio_seconds": 8, "input_audio_seconds": 8},
        },
    ),
    (
        "Mistral heard nothing",
        "mistral",
        {"prompt_tokens": 30, "completion_tokens": 5, "prompt_audio_seconds": {}},
        {"input_tokens": 30, "output_tokens": 5},
    ),
    ("nothing was used", "openai", {"prompt_tokens": 0, "completion_tokens": 0}, {}),
    (
        "a breakdown nobody knows, of a prompt that is whole",
        "openai",
        {
            "prompt_tokens": 9,
            "completion_tokens": 1,
            "total_tokens": 10,
            "prompt_tokens_details": {"holographic_tokens": 4},
        },
        {
            "input_tokens": 9,
            "output_tokens": 1,
            "extra": {"unknown_parts": {"holographic_tokens": 4}},
        },
    ),
    (
        "limits and speeds count nothing",
        None,
        {
            "prompt_tokens": 9,
            "completion_tokens": 1,
            "max_tokens": 4096,
            "tokens_per_second": 88.5,
            "cost": 0.1,
        },
        {"input_tokens": 9, "output_tokens": 1},
    ),
]


@pytest.mark.parametrize(
    ("provider", "usage", "counts"), [case[1:] for case in HAND_MADE], ids=[c[0] for c in HAND_MADE]
)
def test_a_documented_shape_gives_exactly_its_counts(
    provider: str | None, usage: JsonObject, counts: JsonObject
) -> None:
    assert normalised(usage, provider) == counts


def test_an_advisor_and_a_compaction_are_counted_beside_the_messages() -> None:
    usage = {
        "input_tokens": 30,
        "output_tokens": 7,
        "cache_read_input_tokens": 0,
        "iterations": [
            {"type": "compaction", "input_tokens": 100, "output_tokens": 9},
            {"type": "message", "input_tokens": 10, "output_tokens": 3},
            {
                "type": "advisor_message",
                "model": "claude-opus-4-8",
                "input_tokens": 50,
                "output_tokens": 5,
            },
            {"type": "message", "input_tokens": 20, "output_tokens": 4},
        ],
    }
    assert normalised(usage) == {
        "input_tokens": 180,
        "output_tokens": 21,
        "extra": {OTHER_MODELS: {"claude-opus-4-8": {"input_tokens": 50, "output_tokens": 5}}},
    }


@pytest.mark.parametrize(
    "wrapped",
    [
        {"id": "chatcmpl-1", "model": "gpt-4o", "usage": {"prompt_tokens": 3, "total_tokens": 3}},
        {"type": "response.done", "response": {"usage": {"input_tokens": 3, "output_tokens": 0}}},
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 0}}},
        {"usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3}},
        {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 0, "totalTokens": 3}}},
    ],
)
def test_the_object_is_found_where_its_provider_puts_it(wrapped: JsonObject) -> None:
    assert normalised(wrapped) == {"input_tokens": 3}


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"foo": 1},
        {"tokens": 5},
        {"usage": {}},
        {"usage": None},
        {"usage": {"usage": {"usage": {"usage": {"prompt_tokens": 1}}}}},
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
        {"input_tokens": None, "output_tokens": None},
        {"promptTokenCount": None},
        {"inputTokens": None, "outputTokens": None},
        {"billed_units": {}},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": "12", "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": 2**53 + 1, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": 5},
        {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": []},
        {"input_tokens": 1, "output_tokens": 1, "cache_creation": [1]},
        {"input_tokens": 1, "output_tokens": 1, "iterations": 3},
        {"input_tokens": 1, "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": -1}},
        {"promptTokenCount": 1, "promptTokensDetails": {"modality": "TEXT"}},
        {"promptTokenCount": 1, "promptTokensDetails": [{"modality": ["A"], "tokenCount": 1}]},
        {"promptTokenCount": 1, "promptTokensDetails": [{"modality": "SCENT", "tokenCount": 1}]},
        {"type": "duration", "seconds": float("nan")},
        {"topicPolicyUnits": 1, "wordPolicyUnits": 0},
    ],
)
def test_what_nobody_can_read_is_refused(usage: JsonObject) -> None:
    with pytest.raises(UnknownUsage):
        normalise_usage(usage, provider=None)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 15, "dream_tokens": 5},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "dream_tokens": 5},
        {"prompt_tokens": 9, "completion_tokens": 1, "dreams": {"lucid_tokens": 5}},
        {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"new_tokens": 5}},
        {"input_tokens": 9, "output_tokens": 1, "dream_tokens": 5},
        {"input_tokens": 9, "output_tokens": 1, "cache_creation": {"ephemeral_9h_tokens": 5}},
        {"promptTokenCount": 9, "totalTokenCount": 14, "dreamTokenCount": 5},
        {"inputTokens": 9, "outputTokens": 1, "dreamTokens": 5},
        {"total_tokens": 9, "dream_tokens": 5},
    ],
)
def test_tokens_that_nobody_can_place_are_refused(usage: JsonObject) -> None:
    with pytest.raises(UnknownUsage, match="not known"):
        normalise_usage(usage, provider=None)


@pytest.mark.parametrize(
    ("provider", "usage", "counts"),
    [
        (
            "x-ai",
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "total_tokens": 120,
                "input_tokens_details": {"cached_tokens": 40},
                "output_tokens_details": {"reasoning_tokens": 5},
                "context_details": {"system_tokens": 30, "history_tokens": 60},
            },
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "cache_read_tokens": 40,
                "reasoning_tokens": 5,
                "extra": {
                    "unknown_parts": {
                        "context_details": {"system_tokens": 30, "history_tokens": 60}
                    }
                },
            },
        ),
        (
            "x-ai",
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 125,
                "completion_tokens_details": {"reasoning_tokens": 5},
                "context_tokens": 30,
            },
            {
                "input_tokens": 100,
                "output_tokens": 25,
                "reasoning_tokens": 5,
                "extra": {"unknown_parts": {"context_tokens": 30}},
            },
        ),
        (
            None,
            {
                "input_tokens": 8,
                "output_tokens": 2,
                "cache_read_input_tokens": 90,
                "total_tokens": 100,
                "context_tokens": 30,
            },
            {
                "input_tokens": 98,
                "output_tokens": 2,
                "cache_read_tokens": 90,
                "extra": {"unknown_parts": {"context_tokens": 30}},
            },
        ),
        (
            None,
            {
                "promptTokenCount": 9,
                "candidatesTokenCount": 1,
                "totalTokenCount": 10,
                "dreamTokenCount": 5,
            },
            {
                "input_tokens": 9,
                "output_tokens": 1,
                "extra": {"unknown_parts": {"dreamTokenCount": 5}},
            },
        ),
        (
            None,
            {"promptTokens": 9, "completionTokens": 1, "totalTokens": 10, "dreamTokens": 5},
            {
                "input_tokens": 9,
                "output_tokens": 1,
                "extra": {"unknown_parts": {"dreamTokens": 5}},
            },
        ),
        (
            "x-ai",
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 125,
                "completion_tokens_details": {"reasoning_tokens": 5, "dream_tokens": 2},
            },
            {
                "input_tokens": 100,
                "output_tokens": 25,
                "reasoning_tokens": 5,
                "extra": {"unknown_parts": {"dream_tokens": 2}},
            },
        ),
        (
            None,
            {"inputTokens": 9, "outputTokens": 1, "totalTokens": 10, "dreamTokens": 5},
            {
                "input_tokens": 9,
                "output_tokens": 1,
                "extra": {"unknown_parts": {"dreamTokens": 5}},
            },
        ),
    ],
)
def test_what_nobody_knows_is_kept_where_the_total_leaves_it_no_room(
    provider: str | None, usage: JsonObject, counts: JsonObject
) -> None:
    assert normalised(usage, provider) == counts


def test_a_fallback_is_the_message_and_not_a_second_one() -> None:
    message = {"input_tokens": 412, "output_tokens": 20, "cache_read_input_tokens": 0}
    fallback = {"type": "fallback_message", "model": "claude-sonnet-4-5", **message}
    refused = {"type": "message", "input_tokens": 412, "output_tokens": 0}
    compaction = {"type": "compaction", "input_tokens": 150_000, "output_tokens": 2500}
    for steps in ([fallback], [refused, fallback]):
        assert normalised(message | {"iterations": steps}) == {
            "input_tokens": 412,
            "output_tokens": 20,
        }
    assert normalised(message | {"iterations": [compaction, fallback]}) == {
        "input_tokens": 150_412,
        "output_tokens": 2520,
    }


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        (Tokens(input_tokens=10, cache_read_tokens=11), "cache_read_tokens exceed input_tokens"),
        (
            Tokens(input_tokens=10, cache_read_tokens=6, cache_write_tokens=6),
            "cache_read_tokens and cache_write_tokens together exceed input_tokens",
        ),
        (
            Tokens(input_tokens=10, cache_write_1h_tokens=1),
            "cache_write_1h_tokens exceed cache_write_tokens",
        ),
        (Tokens(output_tokens=1, reasoning_tokens=2), "reasoning_tokens exceed output_tokens"),
        (Tokens(input_audio_tokens=1), "input_audio_tokens exceed input_tokens"),
        (Tokens(output_audio_tokens=1), "output_audio_tokens exceed output_tokens"),
        (
            Tokens(input_tokens=1, extra={"input_image_tokens": 2}),
            "input_image_tokens exceed input_tokens",
        ),
        (
            Tokens(input_tokens=3, input_audio_tokens=2, extra={"input_image_tokens": 2}),
            "input tokens by modality together exceed input_tokens",
        ),
    ],
)
def test_counts_that_contradict_each_other_are_named(tokens: Tokens, problem: str) -> None:
    assert check_tokens(tokens) == problem


def test_counts_that_agree_pass() -> None:
    assert check_tokens(Tokens()) is None
    assert check_tokens(Tokens(10, 5, 6, 4, 4, 5, 10, 5, 3)) is None


@pytest.mark.parametrize(
    ("usage", "tier"),
    [
        ({"service_tier": "priority"}, "priority"),
        ({"serviceTier": "FLEX"}, "flex"),
        ({"service_tier": "standard", "speed": "fast"}, "fast"),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"trafficType": "ON_DEMAND"}, None),
        ({"service_tier": None}, None),
        ({}, None),
    ],
)
def test_the_tier_is_read_from_the_object(usage: JsonObject, tier: str | None) -> None:
    assert service_tier(usage) == tier


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (
            {"input_characters": 50_000_000},
            {"extra": {"input_characters": 50_000_000}},
        ),
        ({"output_images": 3}, {"extra": {"output_images": 3}}),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "input_characters": 7},
            {"input_tokens": 5, "output_tokens": 1, "extra": {"input_characters": 7}},
        ),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 1, "web_searches": 2},
            {"input_tokens": 5, "output_tokens": 1, "web_searches": 2},
        ),
        (
            {"response": {"usage": {"input_tokens": 5, "output_tokens": 1, "code_executions": 2}}},
            {"input_tokens": 5, "output_tokens": 1, "extra": {"code_executions": 2}},
        ),
        (
            {"input_tokens": 5, "output_tokens": 1, "inference_geo": "US"},
            {"input_tokens": 5, "output_tokens": 1, "extra": {"inference_geo": "us"}},
        ),
        (
            {"input_tokens": 5, "output_tokens": 1, "inference_geo": "not_available"},
            {"input_tokens": 5, "output_tokens": 1},
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 1,
                "num_sources_used": 9,
                "server_side_tool_usage_details": {
                    "web_search_calls": 2,
                    "x_search_calls": 3,
                    "code_interpreter_calls": 4,
                    "document_search_calls": 5,
                    "mcp_calls": 6,
                    "telepathy_calls": 7,
                },
            },
            {
                "input_tokens": 5,
                "output_tokens": 1,
                "web_searches": 2,
                "extra": {
                    "social_searches": 3,
                    "code_executions": 4,
                    "document_searches": 5,
                    "telepathy_calls": 7,
                },
            },
        ),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 1,
                "server_side_tool_usage": {
                    "SERVER_SIDE_TOOL_WEB_SEARCH": 2,
                    "SERVER_SIDE_TOOL_VIEW_IMAGE": 1,
                },
            },
            {"input_tokens": 5, "output_tokens": 1, "web_searches": 2},
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 1, "num_sources_used": 4},
            {"input_tokens": 5, "output_tokens": 1, "extra": {"search_sources": 4}},
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 1,
                "tool_calls_details": {
                    "search_web": {"invocation": 2},
                    "fetch_url": {"invocation": 3},
                },
            },
            {
                "input_tokens": 5,
                "output_tokens": 1,
                "web_searches": 2,
                "extra": {"url_fetches": 3},
            },
        ),
        (
            {"inputTokens": 5, "outputTokens": 1, "serverToolUsage": {"webSearchRequests": 2}},
            {"input_tokens": 5, "output_tokens": 1, "web_searches": 2},
        ),
        ({"billed_units": {"images": 4}}, {"extra": {"input_images": 4}}),
        ({"billed_units": {"classifications": 4}}, {"extra": {"classifications": 4}}),
    ],
)
def test_what_is_billed_beside_tokens_is_counted_in_every_shape(
    usage: JsonObject, counts: JsonObject
) -> None:
    assert normalised(usage) == counts


def test_bedrocks_tier_is_read_out_of_its_object() -> None:
    assert service_tier({"serviceTier": {"type": "flex"}}) == "flex"
    assert service_tier({"serviceTier": {}}) is None
