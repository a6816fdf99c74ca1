"""OpenTelemetry traces: every dialect ends in the provider's true tokens, each call once."""

import hashlib
import json
import math
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from common.errors import EventRejected, MalformedBody, MeteringError, TooManyEvents
from metering.usage.decoders.native import EventBody
from metering.usage.decoders.otlp import encode_otlp_response, json_mapping
from metering.usage.decoders.otlp.token_counts import count_tokens
from metering.usage.shapes import Tokens, normalise_usage
from tests.metering.usage.decoders.spans import (
    AGENT,
    CHAT,
    STARTED_NANOS,
    TOOL,
    TRACE,
    Attributes,
    Export,
    chat,
    decode_otlp_json,
    decode_otlp_protobuf,
    export,
    without_id,
)


def tokens(event: EventBody) -> Tokens:
    if event.usage is not None:
        return normalise_usage(event.usage, provider=event.provider)
    names = Tokens.__struct_fields__[:-1]
    return msgspec.convert({name: getattr(event, name) or 0 for name in names}, Tokens)


def test_a_span_is_an_event() -> None:
    made = Export(service__name="api", deployment__environment__name="prod")
    made.add(CHAT | {"gen_ai.request.max_tokens": 100, "gen_ai.conversation.id": "s-1"})
    event = made.event()
    assert event.id == f"{TRACE}-0000000000000001"
    assert (event.source, event.trace, event.span) == ("otlp:api", TRACE, "0000000000000001")
    assert (event.parent_span, event.latency_ms) == (None, 1500)
    assert event.time == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        microseconds=STARTED_NANOS // 1000
    )
    assert (event.provider, event.operation, event.response_id) == ("anthropic", "llm", "msg_01")
    assert event.model == "claude-sonnet-4-5-20250929"
    assert event.requested_model == "claude-sonnet-4-5"
    assert (event.input_tokens, event.output_tokens) == (8855, 193)
    assert (event.max_output_tokens, event.session) == (100, "s-1")
    assert (event.status, event.error_type) == (None, None)
    assert event.tags == {"environment": "prod"}


ANTHROPIC_RAW = {
    "input_tokens": 4,
    "cache_read_input_tokens": 8845,
    "cache_creation_input_tokens": 6,
    "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 4},
    "output_tokens": 193,
}

DIALECTS: dict[str, tuple[Attributes, Tokens]] = {
    "conventions": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.input_tokens": 8855,
            "gen_ai.usage.output_tokens": 193,
            "gen_ai.usage.cache_read.input_tokens": 8845,
            "gen_ai.usage.cache_creation.input_tokens": 6,
            "gen_ai.usage.reasoning.output_tokens": 10,
        },
        Tokens(8855, 193, 8845, 6, 0, 10),
    ),
    "anthropic sdk": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.input_tokens": 8855,
            "gen_ai.usage.output_tokens": 193,
            "gen_ai.usage.cache_read.input_tokens": 8845,
            "gen_ai.usage.cache_write.input_tokens": 6,
            "anthropic.usage.cache_creation.ephemeral_5m_input_tokens": 2,
            "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 4,
        },
        Tokens(8855, 193, 8845, 6, 4),
    ),
    "first conventions": (
        {
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.prompt_tokens": 81,
            "gen_ai.usage.completion_tokens": 72,
        },
        Tokens(81, 72),
    ),
    "openllmetry": (
        {
            "llm.request.type": "chat",
            "gen_ai.system": "Anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.prompt_tokens": 8855,
            "gen_ai.usage.completion_tokens": 193,
            "llm.usage.total_tokens": 9048,
            "gen_ai.usage.cache_read_input_tokens": 8845,
            "gen_ai.usage.cache_creation_input_tokens": 6,
        },
        Tokens(8855, 193, 8845, 6),
    ),
    "cache left out of the input": (
        {
            "llm.request.type": "chat",
            "gen_ai.system": "Anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.input_tokens": 4,
            "gen_ai.usage.output_tokens": 193,
            "gen_ai.usage.cache_read_input_tokens": 8845,
            "gen_ai.usage.cache_creation_input_tokens": 6,
        },
        Tokens(8855, 193, 8845, 6),
    ),
    "cache left out, as the total tells": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "aws.bedrock",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.input_tokens": 1000,
            "gen_ai.usage.output_tokens": 10,
            "gen_ai.usage.cache_read_input_tokens": 500,
            "gen_ai.usage.total_tokens": 1510,
        },
        Tokens(1500, 10, 500),
    ),
    "oldest openllmetry": (
        {
            "llm.vendor": "OpenAI",
            "llm.request.type": "completion",
            "llm.request.model": "gpt-4",
            "llm.usage.prompt_tokens": 5,
            "llm.usage.completion_tokens": 6,
            "llm.usage.total_tokens": 11,
        },
        Tokens(5, 6),
    ),
    "openinference": (
        {
            "openinference.span.kind": "LLM",
            "llm.provider": "openai",
            "llm.model_name": "gpt-4o",
            "llm.token_count.prompt": 190,
            "llm.token_count.completion": 164,
            "llm.token_count.total": 354,
            "llm.token_count.prompt_details.cache_read": 128,
            "llm.token_count.completion_details.reasoning": 64,
            "llm.token_count.prompt_details.audio": 7,
        },
        Tokens(190, 164, 128, 0, 0, 64, 7),
    ),
    "openinference on vertex": (
        {
            "openinference.span.kind": "LLM",
            "llm.model_name": "projects/p/locations/l/publishers/google/models/gemini-2.5-flash",
            "llm.token_count.prompt": 5,
            "llm.token_count.completion": 845,
            "llm.token_count.total": 2023,
        },
        Tokens(5, 2018, 0, 0, 0, 1173),
    ),
    "logfire": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.input_tokens": 8855,
            "gen_ai.usage.output_tokens": 193,
            "gen_ai.usage.raw": json.dumps(ANTHROPIC_RAW),
            "operation.cost": 0.5,
        },
        Tokens(8855, 193, 8845, 6, 4),
    ),
    "logfire with an object": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.usage.raw": ANTHROPIC_RAW,
        },
        Tokens(8855, 193, 8845, 6, 4),
    ),
    "pydantic-ai": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "google-gla",
            "gen_ai.request.model": "gemini-2.5-flash",
            "gen_ai.usage.input_tokens": 40,
            "gen_ai.usage.output_tokens": 159,
            "gen_ai.usage.details.thoughts_tokens": 121,
            "gen_ai.usage.details.text_prompt_tokens": 40,
        },
        Tokens(40, 159, 0, 0, 0, 121),
    ),
    "google adk": (
        {
            "openinference.span.kind": "LLM",
            "gen_ai.system": "gcp.vertex.agent",
            "gen_ai.request.model": "gemini-2.5-flash",
            "gen_ai.usage.input_tokens": 39,
            "gen_ai.usage.output_tokens": 6,
            "gcp.vertex.agent.llm_response": json.dumps(
                {
                    "usage_metadata": {
                        "prompt_token_count": 39,
                        "candidates_token_count": 6,
                        "thoughts_token_count": 20,
                        "total_token_count": 65,
                    }
                }
            ),
        },
        Tokens(39, 26, 0, 0, 0, 20),
    ),
    "vercel": (
        {
            "ai.operationId": "ai.streamText.doStream",
            "ai.model.provider": "anthropic.messages",
            "ai.model.id": "claude-sonnet-4-5",
            "ai.usage.inputTokens": 4,
            "ai.usage.outputTokens": 193,
            "ai.usage.cachedInputTokens": 8845,
            "ai.response.providerMetadata": json.dumps({"anthropic": {"usage": ANTHROPIC_RAW}}),
        },
        Tokens(8855, 193, 8845, 6, 4),
    ),
    "vercel without the provider's object": (
        {
            "ai.operationId": "ai.generateText.doGenerate",
            "ai.model.provider": "anthropic.messages",
            "ai.model.id": "claude-sonnet-4-5",
            "ai.usage.inputTokens": 9000,
            "ai.usage.outputTokens": 193,
            "ai.usage.cachedInputTokens": 8845,
        },
        Tokens(17845, 193, 8845),
    ),
    "langfuse, parts beside one another": (
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "gpt-5-mini",
            "langfuse.observation.usage_details": json.dumps(
                {
                    "input": 179,
                    "output": 35,
                    "total": 298,
                    "input_cache_read": 20,
                    "output_reasoning": 64,
                }
            ),
        },
        Tokens(199, 99, 20, 0, 0, 64),
    ),
    "langfuse with the provider's object": (
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "gpt-4o",
            "langfuse.observation.usage_details": '{"prompt_tokens": 41, "completion_tokens": 3}',
        },
        Tokens(41, 3),
    ),
    "numbers as strings": (
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": "31",
            "gen_ai.usage.output_tokens": 96.0,
        },
        Tokens(31, 96),
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_means_the_same_tokens(dialect: str) -> None:
    attributes, used = DIALECTS[dialect]
    event = export(attributes).event()
    assert tokens(event) == used
    assert event.operation == "llm"
    assert event.model is not None


@pytest.mark.parametrize(
    ("attributes", "operation"),
    [
        ({"gen_ai.operation.name": "embeddings"}, "embedding"),
        ({"openinference.span.kind": "EMBEDDING"}, "embedding"),
        ({"llm.request.type": "embedding"}, "embedding"),
        ({"ai.operationId": "ai.embed.doEmbed"}, "embedding"),
        ({"gen_ai.operation.name": "text_completion"}, "llm"),
        ({"gen_ai.operation.name": "generate_content"}, "llm"),
        ({"langsmith.span.kind": "llm"}, "llm"),
        ({}, "llm"),
    ],
)
def test_operations_are_told_apart(attributes: Attributes, operation: str) -> None:
    usage = {"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 7}
    event = export(attributes | usage).event()
    assert (event.operation, event.input_tokens, event.output_tokens) == (operation, 7, 0)


@pytest.mark.parametrize(
    "attributes",
    [
        {"http.request.method": "GET"},
        {},
        AGENT | {"gen_ai.usage.input_tokens": 7, "gen_ai.request.model": "m"},
        {"gen_ai.operation.name": "create_agent", "gen_ai.request.model": "m"},
        {"gen_ai.operation.name": "invoke_workflow", "gen_ai.usage.input_tokens": 7},
        {"openinference.span.kind": "CHAIN", "llm.token_count.prompt": 7},
        {"openinference.span.kind": "AGENT", "llm.token_count.prompt": 7},
        {"openinference.span.kind": "RETRIEVER"},
        {"traceloop.span.kind": "workflow", "gen_ai.usage.input_tokens": 7},
        {"langsmith.span.kind": "chain", "gen_ai.operation.name": "chain"},
        {"ai.operationId": "ai.generateText", "ai.usage.promptTokens": 7, "ai.model.id": "m"},
        {"agent_name": "qa", "model_name": "gpt-4o", "gen_ai.usage.input_tokens": 7},
        CHAT | {"logfire.span_type": "pending_span"},
    ],
)
def test_spans_around_calls_are_passed_over(attributes: Attributes) -> None:
    assert export(attributes).decoded() == []


def test_a_tool_call_is_an_event() -> None:
    made = export(TOOL | {"gen_ai.tool.call.arguments": '{"q": "x"}'})
    event = made.event()
    assert (event.operation, event.tool, event.input_tokens) == ("tool", "web_search", None)
    assert event.tool_arguments_hash == hashlib.sha256(b'{"q": "x"}').hexdigest()


def test_a_tool_span_inside_one_of_the_same_tool_is_the_same_call() -> None:
    made = Export()
    outer = made.add(TOOL)
    inner = made.add(TOOL, parent=outer)
    made.add(TOOL | {"gen_ai.tool.name": "fetch"}, parent=inner)
    assert [event.tool for event in made.events()] == ["web_search", "fetch"]


def test_dimensions_come_from_the_span_what_is_around_it_and_the_process() -> None:
    made = Export(spendgate__team="growth", spendgate__feature="mail")
    root = made.add({"session.id": "s-1", "user.id": "u-1", "spendgate.customer": "acme"})
    agent = made.add(AGENT, parent=root)
    plain = made.add({"http.route": "/x"}, parent=agent)
    made.add(CHAT | {"spendgate.customer": "beta", "spendgate.task": "t-9"}, parent=plain)
    event = made.event()
    assert (event.team, event.feature, event.session, event.user) == (
        "growth",
        "mail",
        "s-1",
        "u-1",
    )
    assert (event.agent, event.customer, event.task) == ("researcher", "beta", "t-9")
    assert event.parent_span == "0000000000000003"


def test_the_nearest_agent_is_the_one_that_called() -> None:
    made = Export()
    outer = made.add(AGENT | {"gen_ai.agent.name": "planner"})
    inner = made.add(AGENT, parent=outer)
    made.add(CHAT, parent=inner)
    made.add(CHAT | {"gen_ai.response.id": "msg_02"}, parent=outer)
    assert [event.agent for event in made.events()] == ["researcher", "planner"]


@pytest.mark.parametrize(
    ("attributes", "field", "value"),
    [
        ({"traceloop.association.properties.user_id": "u"}, "user", "u"),
        ({"traceloop.association.properties.session_id": "s"}, "session", "s"),
        ({"traceloop.association.properties.customer": "c"}, "customer", "c"),
        ({"traceloop.workflow.name": "mail"}, "feature", "mail"),
        ({"ai.telemetry.functionId": "mail"}, "feature", "mail"),
        ({"ai.telemetry.metadata.userId": "u"}, "user", "u"),
        ({"langfuse.session.id": "s"}, "session", "s"),
        ({"enduser.id": "u"}, "user", "u"),
        ({"spendgate.user": 17}, "user", "17"),
        ({"spendgate.user": "x" * 300}, "user", "x" * 200),
        ({"spendgate.user": ""}, "user", None),
        ({"spendgate.user": True}, "user", None),
        ({"gen_ai.conversation.id": "resp_01"}, "session", None),
        ({"anthropic.response.service_tier": "standard"}, "service_tier", "standard"),
        ({"ai.response.msToFirstChunk": 140.4}, "time_to_first_token_ms", 140),
        ({"gen_ai.response.time_to_first_chunk": 0.14}, "time_to_first_token_ms", 140),
        ({"gen_ai.request.max_tokens": -1}, "max_output_tokens", None),
    ],
)
def test_attributes_fill_the_fields_of_an_event(
    attributes: Attributes, field: str, value: object
) -> None:
    assert getattr(export(CHAT | attributes).event(), field) == value


def test_further_properties_are_tags() -> None:
    event = export(
        CHAT
        | {
            "traceloop.association.properties.plan": "pro",
            "traceloop.association.properties.user_id": "u",
            "spendgate.tags.try": 2,
            "spendgate.tags.bad": math.nan,
            "spendgate.tags.list": ["x"],
            "deployment.environment": "prod",
        }
    ).event()
    assert event.tags == {"plan": "pro", "try": 2, "environment": "prod"}


@pytest.mark.parametrize(
    ("given", "provider"),
    [
        ("openai", "openai"),
        ("OpenAI", "openai"),
        ("openai.responses", "openai"),
        ("az.ai.openai", "azure"),
        ("azure.ai.openai", "azure"),
        ("aws.bedrock", "aws"),
        ("amazon-bedrock", "aws"),
        ("gcp.vertex_ai", "google"),
        ("google.vertex.chat", "google"),
        ("x_ai", "x-ai"),
        ("mistral_ai", "mistral"),
        ("my-gateway", "my-gateway"),
        ("langchain", None),
        (7, None),
    ],
)
def test_providers_have_the_catalogues_names(given: object, provider: str | None) -> None:
    assert export(CHAT | {"gen_ai.provider.name": given}).event().provider == provider


def test_a_failed_call_is_an_event_even_without_tokens() -> None:
    made = export({key: value for key, value in without_id().items() if "usage" not in key})
    span = made.span(1)
    span.status.code = span.status.STATUS_CODE_ERROR
    span.status.message = "overloaded"
    event = made.event()
    assert (event.status, event.error_type) == ("error", "overloaded")
    assert (event.input_tokens, event.output_tokens) == (0, 0)
    raised = span.events.add(name="exception").attributes.add(key="exception.type")
    raised.value.string_value = "asyncio.CancelledError"
    event = made.event()
    assert (event.status, event.error_type) == ("cancelled", "asyncio.CancelledError")


def test_a_call_without_tokens_is_a_call_whose_usage_is_missing() -> None:
    made = export({key: value for key, value in CHAT.items() if "usage" not in key})
    event = made.event()
    assert event.is_usage_missing is True
    assert event.input_tokens is None
    assert event.id == f"{TRACE}-0000000000000001"


def test_a_word_nobody_knows_is_refused_unless_a_response_shows_it_is_a_call() -> None:
    made = export(without_id() | {"gen_ai.operation.name": "ponder"})
    assert made.rejection().code == "unknown_operation"
    assert export(CHAT | {"gen_ai.operation.name": "ponder"}).event().operation == "llm"


def test_costs_are_ignored_unless_the_tenant_trusts_them() -> None:
    for key in ("operation.cost", "gen_ai.usage.cost", "llm.cost.total", "spendgate.cost_usd"):
        made = export(CHAT | {key: 0.0009225})
        assert made.event().cost_usd is None
        assert made.event(trusts_given_costs=True).cost_usd == "0.0009225"
    for bad in (-1.0, math.nan, math.inf, "much"):
        made = export(CHAT | {"operation.cost": bad})
        assert made.event().cost_usd is None
        assert made.rejection(trusts_given_costs=True).code == "invalid_value"


def test_openinference_quotes_the_response_whose_id_it_has_no_attribute_for() -> None:
    answer = {
        "id": "chatcmpl-BhGJDsZlpk55",
        "choices": [],
        "usage": {"prompt_tokens": 663, "completion_tokens": 225, "total_tokens": 888},
    }
    event = export(
        {
            "openinference.span.kind": "LLM",
            "llm.provider": "OpenAI",
            "llm.model_name": "gpt-4o-mini",
            "output.value": json.dumps(answer),
        }
    ).event()
    assert (event.provider, event.response_id) == ("openai", "chatcmpl-BhGJDsZlpk55")
    assert tokens(event) == Tokens(663, 225)


def test_a_usage_object_nobody_knows_gives_way_to_the_attributes() -> None:
    for raw in ('{"warp_tokens": 4}', "{", "[]", '{"input_tokens": -1}', "[" * 500, '{"a":' * 500):
        event = export(CHAT | {"gen_ai.usage.raw": raw}).event()
        assert (event.usage, event.input_tokens) == (None, 8855)


def test_a_compaction_is_counted_beside_the_answer_and_told_apart() -> None:
    step = {"type": "compaction", "input_tokens": 5000, "output_tokens": 9}
    raw = {"input_tokens": 8855, "output_tokens": 193, "cache_read_input_tokens": 0}
    span = CHAT | {"gen_ai.usage.raw": json.dumps(raw | {"iterations": [step]})}
    assert tokens(export(span).event()) == Tokens(13855, 202)
    counted = count_tokens(span, "anthropic")
    assert counted is not None
    assert counted.beside == (5000, 9)


@pytest.mark.parametrize(
    "bad",
    [
        {"gen_ai.usage.input_tokens": -1},
        {"gen_ai.usage.input_tokens": 2**53 + 1},
        {"gen_ai.usage.input_tokens": 1.5},
        {"gen_ai.usage.input_tokens": math.nan},
        {"gen_ai.usage.input_tokens": math.inf},
        {"gen_ai.usage.input_tokens": "many"},
        {"gen_ai.usage.input_tokens": "9" * 5000},
        {"gen_ai.usage.input_tokens": True},
        {"gen_ai.usage.input_tokens": [1]},
        {"gen_ai.usage.cache_read.input_tokens": {"a": 1}},
        {"spendgate.customer": "a\x00b"},
        {"gen_ai.response.model": "\x00"},
    ],
)
def test_a_bad_value_rejects_its_span_alone(bad: Attributes) -> None:
    items = export(chat(1, 2), without_id() | bad, chat(3, 4)).decoded()
    assert [item.code for item in items if isinstance(item, EventRejected)] == ["invalid_value"]
    assert [item.input_tokens for item in items if isinstance(item, EventBody)] == [1, 3]


@pytest.mark.parametrize("trace", ["", "ab", "00" * 16, "ab" * 20])
def test_ids_must_be_ids(trace: str) -> None:
    made = Export()
    made.add(CHAT, trace=trace)
    body = made.protobuf()
    (item,) = decode_otlp_protobuf(body, trusts_given_costs=False)
    assert isinstance(item, EventRejected)
    assert item.code == "invalid_value"
    (item,) = decode_otlp_json(made.json(), trusts_given_costs=False)
    assert isinstance(item, EventRejected)


def test_times_are_passed_on_for_the_next_step_to_judge() -> None:
    made = export(CHAT)
    made.span(1).start_time_unix_nano = 0
    made.span(1).end_time_unix_nano = 0
    event = made.event()
    assert (event.time, event.latency_ms) == (datetime(1970, 1, 1, tzinfo=UTC), None)
    made.span(1).start_time_unix_nano = 2**64 - 1
    event = made.event()
    assert event.time is not None
    assert (event.time.year, event.latency_ms) == (2554, None)


def test_huge_values_are_cut_or_hashed() -> None:
    event = export(
        CHAT
        | {
            "gen_ai.agent.name": "a" * 1_000_000,
            "gen_ai.response.id": "r" * 1_000_000,
            "spendgate.tags.note": "n" * 1_000_000,
            "gen_ai.output.messages": "o" * 1_000_000,
        }
    ).event()
    assert event.agent == "a" * 200
    assert event.response_id == "sha256:" + hashlib.sha256(b"r" * 1_000_000).hexdigest()
    assert event.tags == {"note": "n" * 1000}
    assert event.output_hash == hashlib.sha256(b"o" * 1_000_000).hexdigest()


def test_spans_that_are_each_others_parents_are_read_too() -> None:
    made = Export()
    made.add(chat(1, 2), parent=2)
    made.add(chat(3, 4), parent=1)
    made.add(chat(5, 6), parent=3)
    assert len(made.events()) == 3


def test_protobuf_that_is_none_fails_the_body() -> None:
    for body in (b"garbage", b"{}", b"\xff" * 50, export(CHAT).protobuf()[:-5]):
        with pytest.raises(MalformedBody) as caught:
            decode_otlp_protobuf(body, trusts_given_costs=False)
        assert caught.value.code == "malformed_protobuf"
    assert decode_otlp_protobuf(b"", trusts_given_costs=False) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b"[]", "malformed_json"),
        (b'{"resourceSpans": 5}', "malformed_json"),
        (b'{"resourceSpans": NaN}', "malformed_json"),
        (b'{"x": "\xff"}', "invalid_utf8"),
    ],
)
def test_json_that_is_no_export_fails_the_body(body: bytes, code: str) -> None:
    with pytest.raises(MalformedBody) as caught:
        decode_otlp_json(body, trusts_given_costs=False)
    assert caught.value.code == code


def test_a_span_of_wrong_types_is_rejected_alone() -> None:
    good = json.loads(export(CHAT).json())
    spans = good["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans += [7, spans[0] | {"attributes": 5}, spans[0] | {"startTimeUnixNano": "soon"}]
    items = decode_otlp_json(json.dumps(good).encode(), trusts_given_costs=False)
    assert [item.code for item in items if isinstance(item, EventRejected)] == ["invalid_value"] * 3
    assert len([item for item in items if isinstance(item, EventBody)]) == 1


def test_enumerations_and_integers_are_read_in_all_their_spellings() -> None:
    document = json.loads(export(without_id()).json())
    span = document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    for code in (2, "2", "STATUS_CODE_ERROR"):
        span["status"] = {"code": code}
        span["startTimeUnixNano"] = STARTED_NANOS
        span["traceId"] = TRACE.upper()
        span["attributes"][-1]["value"] = {"intValue": 193}
        (event,) = decode_otlp_json(json.dumps(document).encode(), trusts_given_costs=False)
        assert isinstance(event, EventBody)
        assert (event.status, event.trace, event.output_tokens) == ("error", TRACE, 193)


def test_more_spans_than_allowed_are_refused() -> None:
    made = Export()
    for _ in range(10_001):
        made.scope.spans.add()
    with pytest.raises(TooManyEvents):
        decode_otlp_protobuf(made.protobuf(), trusts_given_costs=False)
    body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b",".join([b"{}"] * 10_001) + b"]}]}]}"
    with pytest.raises(TooManyEvents):
        decode_otlp_json(body, trusts_given_costs=False)


def _nested(*numbers: int, count: int) -> bytes:
    """Protobuf of a message within a message, the innermost empty and there many times."""
    *outer, innermost = numbers
    body = bytes([innermost << 3 | 2, 0]) * count
    for number in reversed(outer):
        # The length, seven bits a byte, as long as a length may be.
        length = [len(body) >> 7 * index & 127 | 128 for index in range(4)]
        body = bytes([number << 3 | 2, *length, 0]) + body
    return body


MANY: Final = 200_000
EMPTY: Final = b",".join([b"{}"] * MANY)
MANY_PARTS: Final[dict[str, tuple[str, Callable[..., object], bytes]]] = {
    "resources": ("resources", decode_otlp_protobuf, _nested(1, count=MANY)),
    "scopes": ("scopes", decode_otlp_protobuf, _nested(1, 2, count=MANY)),
    "spans": ("spans", decode_otlp_protobuf, _nested(1, 2, 2, count=MANY)),
    "resources of scopes": ("scopes", decode_otlp_protobuf, _nested(1, 2, count=100) * 101),
    "unknown fields": ("further fields", decode_otlp_protobuf, _nested(9, count=MANY)),
    "unknown fields of a scope": (
        *("further fields", decode_otlp_protobuf, _nested(1, 2, 9, count=MANY)),
    ),
    "resources in JSON": ("resources", decode_otlp_json, b'{"resourceSpans":[%b]}' % EMPTY),
    "scopes in JSON": (
        *("scopes", decode_otlp_json, b'{"resource_spans":[{"scopeSpans":[%b]}]}' % EMPTY),
    ),
    "spans in JSON": (
        "spans",
        decode_otlp_json,
        b'{"resourceSpans":[{"scope_spans":[{"spans":[%b]}]}]}' % EMPTY,
    ),
    "resources of logs": (
        "resources",
        lambda body, **_: json_mapping.foreign_export(body),
        b'{"resourceLogs":[%b]}' % EMPTY,
    ),
}


@pytest.mark.parametrize(("what", "decode", "body"), MANY_PARTS.values(), ids=MANY_PARTS)
def test_an_export_of_too_many_parts_ends_at_the_first_too_many(
    what: str, decode: Callable[..., object], body: bytes
) -> None:
    tracemalloc.start()
    with pytest.raises(TooManyEvents) as caught:
        decode(body, trusts_given_costs=False)
    most = "50,000" if what == "further fields" else "10,000"
    assert caught.value.detail == (
        f"The body holds more than {most} {what}; send at most {most} in one body."
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (20 << 20)


def test_json_whose_parts_cannot_be_counted_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metering.usage.decoders.otlp.parts._COMMAS_MAX", 100)
    body = b'{"resourceSpans":[7,%b]}' % EMPTY
    with pytest.raises(MalformedBody, match="not an OTLP export request"):
        decode_otlp_json(body, trusts_given_costs=False)


def test_as_many_parts_as_are_allowed_are_read() -> None:
    made = Export()
    del made.request.resource_spans[:]
    for number in range(10_000):
        group = made.request.resource_spans.add(schema_url="https://example.com/schema")
        group.resource.attributes.add(key="number").value.int_value = number
        scope = group.scope_spans.add(schema_url="https://example.com/schema")
        scope.scope.name = "tests"
        scope.spans.add(name="x", trace_id=b"t" * 16, span_id=(number + 1).to_bytes(8, "big"))
    for decode, body in ((decode_otlp_protobuf, made.protobuf()), (decode_otlp_json, made.json())):
        assert decode(body, trusts_given_costs=False) == []


def test_the_answer_tells_what_was_rejected() -> None:
    assert encode_otlp_response("application/x-protobuf", 0, "") == b""
    assert encode_otlp_response("application/json", 0, "") == b"{}"
    response = ExportTraceServiceResponse()
    response.ParseFromString(encode_otlp_response("application/x-protobuf", 2, "two spans"))
    assert response.partial_success.rejected_spans == 2
    assert response.partial_success.error_message == "two spans"
    assert json.loads(encode_otlp_response("application/json; charset=utf-8", 2, "two spans")) == {
        "partialSuccess": {"rejectedSpans": "2", "errorMessage": "two spans"}
    }


VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["chat", "LLM", "execute_tool", '{"input_tokens": 1, "output_tokens": 2}'])
    | st.lists(st.integers(0, 5) | st.floats(), max_size=2)
    | st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "x"]), st.floats())
)
KEYS = sorted({key for attributes, _ in DIALECTS.values() for key in attributes} | set(TOOL))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), st.integers(0, 4)),
        max_size=4,
    )
)
def test_any_attributes_are_events_or_refusals(spans: list[tuple[Attributes, int]]) -> None:
    made = Export()
    for attributes, parent in spans:
        made.add(attributes, parent=parent)
    for trusts in (True, False):
        items = decode_otlp_protobuf(made.protobuf(), trusts_given_costs=trusts)
        assert all(isinstance(item, EventBody | EventRejected) for item in items)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 300))
def test_damaged_bodies_are_refused_or_read(noise: bytes, position: int) -> None:
    for body, decode in (
        (export(CHAT).protobuf(), decode_otlp_protobuf),
        (export(CHAT).json(), decode_otlp_json),
    ):
        damaged = body[:position] + noise + body[position + len(noise) :]
        try:
            decode(damaged, trusts_given_costs=True)
        except MeteringError:
            continue


def test_an_entry_that_cannot_be_read_loses_no_other() -> None:
    entry = json.loads(export(chat(1, 2)).json())["resourceSpans"][0]
    entries: list[Any] = [{"scopeSpans": "nope"}, {"scopeSpans": [{"spans": {}}]}, 7]
    for bad in entries:
        body = json.dumps({"resourceSpans": [bad, entry]}).encode()
        rejected, event = decode_otlp_json(body, trusts_given_costs=False)
        assert isinstance(rejected, EventRejected)
        assert rejected.code == "invalid_value"
        assert isinstance(event, EventBody)


def test_a_scope_that_is_null_loses_no_other_of_its_resource() -> None:
    entry = json.loads(export(chat(1, 2)).json())["resourceSpans"][0]
    entry["scopeSpans"].insert(0, None)
    body = json.dumps({"resourceSpans": [entry]}).encode()
    rejected, event = decode_otlp_json(body, trusts_given_costs=False)
    assert isinstance(rejected, EventRejected)
    assert rejected.detail == "An entry of scopeSpans must be an object."
    assert isinstance(event, EventBody)
