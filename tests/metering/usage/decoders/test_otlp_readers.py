"""What single spans tell: whose call it was, which, what it used and how it ended."""

import json

import pytest

from common.json_bodies import JsonObject
from metering.usage.decoders.otlp.dialects import Kind
from metering.usage.decoders.otlp.dimension_keys import USUAL
from metering.usage.decoders.otlp.span_fields import (
    call_fields,
    dimensions_of,
    pairs_of,
    sample_of,
    tool_fields,
)
from metering.usage.decoders.otlp.span_kinds import has_model, has_usage, is_of_interest, kind_of
from metering.usage.decoders.otlp.spans import STATUS_ERROR, Span
from metering.usage.decoders.otlp.token_counts import Counted, count_tokens
from metering.usage.shapes import Tokens, normalise_usage
from tests.metering.usage.decoders.spans import (
    CHAT,
    STARTED_NANOS,
    TRACE,
    Attributes,
    chat,
    without_id,
)


def span(attributes: Attributes, *, scope: str = "test", name: str = "span") -> Span:
    return Span(
        trace=TRACE,
        span="0000000000000001",
        parent=None,
        name=name,
        scope=scope,
        started_nanos=STARTED_NANOS,
        ended_nanos=STARTED_NANOS + 1,
        status_code=0,
        status_message="",
        exception=None,
        attributes=attributes,
        resource={},
    )


def dimensions(attributes: Attributes, kind: Kind = "llm") -> dict[str, str]:
    return dimensions_of(attributes, kind, USUAL)


def counted(attributes: Attributes, provider: str | None = "anthropic") -> Counted:
    result = count_tokens(attributes, provider)
    assert result is not None
    return result


def is_estimate(attributes: Attributes, scope: str = "test") -> bool:
    return call_fields(span(attributes, scope=scope))["is_estimate"] is True


def langchain(
    metadata: JsonObject, used: JsonObject | None, content: object = "Paris.", **more: object
) -> str:
    """An `LLMResult` as LangChain writes it, with the parts that are read."""
    kwargs = {
        "content": content,
        "response_metadata": metadata,
        "id": "lc_run--01a227fc-aa5e-0",
        "usage_metadata": used,
    } | more
    message = {"lc": 1, "type": "constructor", "id": ["langchain"], "kwargs": kwargs}
    return json.dumps({"generations": [[{"text": "Paris.", "message": message}]]})


OPENINFERENCE: Attributes = {"openinference.span.kind": "LLM", "llm.provider": "anthropic"}
LANGSMITH: Attributes = {"langsmith.span.kind": "llm", "gen_ai.system": "anthropic"}
ANTHROPIC: JsonObject = {
    "id": "msg_01NH",
    "model_name": "claude-sonnet-4-5-20250929",
    "stop_reason": "end_turn",
    "usage": {
        "cache_creation": {"ephemeral_1h_input_tokens": 63, "ephemeral_5m_input_tokens": 12900},
        "cache_creation_input_tokens": 12963,
        "cache_read_input_tokens": 0,
        "input_tokens": 8,
        "output_tokens": 193,
        "server_tool_use": {"web_search_requests": 2},
    },
}


@pytest.mark.parametrize(
    "attributes",
    [
        OPENINFERENCE | {"output.value": langchain(ANTHROPIC, None)},
        LANGSMITH | {"gen_ai.completion": langchain(ANTHROPIC, None)},
    ],
)
def test_langchains_quoted_answer_gives_the_providers_own_words(attributes: Attributes) -> None:
    fields = call_fields(span(attributes))
    assert (fields["response_id"], fields["model"]) == ("msg_01NH", "claude-sonnet-4-5-20250929")
    result = counted(attributes)
    assert result.tokens == Tokens(12971, 193, 0, 12963, 63, web_searches=2)
    assert result.fields() == {"usage": ANTHROPIC["usage"]}


def test_langchains_own_reading_of_the_counts_is_read_with_its_parts() -> None:
    used = {
        "input_tokens": 13173,
        "output_tokens": 208,
        "total_tokens": 13381,
        "input_token_details": {
            "cache_read": 12963,
            "cache_creation": 0,
            "ephemeral_5m_input_tokens": 3,
            "ephemeral_1h_input_tokens": 2,
        },
        "output_token_details": {"reasoning": 7},
    }
    expected = Tokens(13173, 208, 12963, 5, 2, 7)
    quoted = OPENINFERENCE | {"output.value": langchain({}, used)}
    assert counted(quoted).tokens == expected
    told = LANGSMITH | {"langsmith.metadata.usage_metadata": json.dumps(used)}
    assert counted(told).tokens == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("lc_run--01a227fc", None),
        ("run-5f1c", None),
        ("resp_00974c", "resp_00974c"),
        ("msg_01NH", "msg_01NH"),
        ("chatcmpl-CIUB", "chatcmpl-CIUB"),
    ],
)
def test_an_id_of_langchains_own_is_no_response(own: str, expected: str | None) -> None:
    quoted = OPENINFERENCE | {"output.value": langchain({}, None, id=own)}
    assert call_fields(span(quoted))["response_id"] == expected


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"generations": 3}',
        '{"generations": [[]]}',
        '{"generations": [[{"message": 1}]]}',
    ],
)
def test_a_quote_that_cannot_be_read_says_nothing(text: str) -> None:
    assert call_fields(span(OPENINFERENCE | {"output.value": text}))["response_id"] is None
    assert count_tokens(OPENINFERENCE | {"output.value": text}, None) is None


def test_what_is_not_needed_of_a_quote_may_nest_deeply() -> None:
    deep = json.loads("[" * 200 + "]" * 200)
    quoted = langchain(ANTHROPIC, None, content=[deep, "text"])
    assert counted(OPENINFERENCE | {"output.value": quoted}).tokens.input_tokens == 12971


SEARCH = {"type": "server_tool_use", "name": "web_search", "id": "srvtoolu_01"}


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.usage.details.web_search_requests": 1},
        {"anthropic.usage.server_tool_use.web_search_requests": "1"},
        {"metadata": '{"server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 4}}'},
        {"gen_ai.completion": langchain({}, None, content=["text", SEARCH, {"type": "text"}])},
        {"gen_ai.completion": json.dumps({"content": [SEARCH]})},
        {
            "gen_ai.completion": json.dumps(
                {
                    "output": [
                        {"type": "web_search_call", "id": "ws_1", "action": {"type": "search"}},
                        {"type": "web_search_call", "id": "ws_2", "action": {"type": "open_page"}},
                        {"type": "web_search_call", "id": "ws_3", "status": "failed"},
                    ]
                }
            )
        },
        {
            "llm.output_messages.0.message.tool_calls.0.tool_call.id": "srvtoolu_01",
            "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "web_search",
            "llm.output_messages.0.message.contents.0.tool_call.id": "srvtoolu_01",
            "llm.output_messages.0.message.contents.0.tool_call.function.name": "web_search",
        },
        {
            "gen_ai.completion.0.tool_calls.0.id": "srvtoolu_01",
            "gen_ai.completion.0.tool_calls.0.name": "web_search",
        },
        {
            "gen_ai.output.messages": json.dumps(
                [
                    {
                        "role": "assistant",
                        "parts": [
                            {"type": "tool_call", "id": "srvtoolu_01", "name": "web_search"},
                            {"type": "tool_call_response", "id": "srvtoolu_01"},
                            {"type": "tool_call", "id": "toolu_02", "name": "web_search"},
                        ],
                    }
                ]
            )
        },
        {
            "ai.response.toolCalls": json.dumps(
                [{"toolCallId": "srvtoolu_01", "toolName": "web_search"}, {"toolCallId": "call_2"}]
            )
        },
    ],
)
def test_web_searches_are_read_in_every_dialect(attributes: Attributes) -> None:
    result = counted(chat(100, 10) | attributes)
    assert result.tokens == Tokens(100, 10, web_searches=1)
    assert result.fields() == {"input_tokens": 100, "output_tokens": 10, "web_searches": 1}


def test_searches_stand_beside_a_usage_object_that_cannot_tell_them() -> None:
    raw = {"input_tokens": 100, "output_tokens": 10}
    result = counted({"gen_ai.usage.raw": json.dumps(raw), "gen_ai.usage.web_searches": 2})
    assert result.fields() == {"usage": raw, "web_searches": 2}


def test_a_compaction_that_the_sdk_tells_comes_on_top() -> None:
    result = counted(
        chat(3000, 100)
        | {
            "anthropic.usage.compaction.input_tokens": 150_000,
            "anthropic.usage.compaction.output_tokens": 2500,
        }
    )
    assert (result.tokens, result.beside) == (Tokens(153_000, 2600), (150_000, 2500))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            {
                "gen_ai.usage.cached_input_tokens": 40,
                "gen_ai.usage.cache_write.input_tokens": 30,
            },
            Tokens(100, 10, 40, 30),
        ),
        ({"gen_ai.usage.cache_write_input_tokens": 30}, Tokens(100, 10, 0, 30)),
        ({"gen_ai.usage.cache_creation_tokens": 30}, Tokens(100, 10, 0, 30)),
        (
            {
                "anthropic.usage.cache_creation.ephemeral_5m_input_tokens": 20,
                "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 7,
            },
            Tokens(100, 10, 0, 27, 7),
        ),
        (
            {
                "gen_ai.usage.cache_creation_5m_tokens": 20,
                "gen_ai.usage.cache_creation_1h_tokens": 7,
            },
            Tokens(100, 10, 0, 27, 7),
        ),
        (
            {
                "cache_creation_tokens": 27,
                "cache_creation_5m_tokens": 20,
                "cache_creation_1h_tokens": 7,
            },
            Tokens(100, 10, 0, 27, 7),
        ),
        ({"codex.usage.reasoning_output_tokens": 3}, Tokens(100, 10, reasoning_tokens=3)),
    ],
)
def test_the_parts_are_read_under_their_new_names(attributes: Attributes, expected: Tokens) -> None:
    assert counted(chat(100, 10) | attributes).tokens == expected


def test_an_old_claude_code_tells_its_counts_in_its_own_names() -> None:
    attributes = {
        "span.type": "llm_request",
        "gen_ai.system": "anthropic",
        "gen_ai.request.model": "claude-sonnet-5",
        "input_tokens": 3,
        "output_tokens": 412,
        "cache_read_tokens": 15_230,
        "cache_creation_tokens": 7397,
    }
    assert kind_of(attributes) == "llm"
    assert counted(attributes).tokens == Tokens(22_630, 412, 15_230, 7397)


def test_an_old_claude_code_names_its_tools_in_its_own_words() -> None:
    attributes = {"span.type": "tool", "tool_name": "Bash", "gen_ai.tool.call.id": "toolu_01"}
    assert (kind_of(attributes), tool_fields(span(attributes))["tool"]) == ("tool", "Bash")


def test_a_sample_of_a_span_names_its_instrumentation_and_quotes_nothing() -> None:
    told = CHAT | {"gen_ai.output.messages": "a secret", "gen_ai.usage.input_tokens": -1}
    sample = json.loads(sample_of(span(told, scope="openinference.instrumentation.openai")))
    assert sample["scope"] == "openinference.instrumentation.openai"
    assert sample["attributes"]["gen_ai.usage.input_tokens"] == -1
    assert sample["attributes"]["gen_ai.request.model"] == "claude-sonnet-4-5"
    assert sample["attributes"]["gen_ai.output.messages"] == "str[8]"


def test_a_total_that_leaves_the_cache_out_does_not_take_it_away() -> None:
    attributes = {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.usage.inputTokens": 500,
        "ai.usage.outputTokens": 10,
        "ai.usage.totalTokens": 510,
        "ai.usage.cachedInputTokens": 300,
    }
    assert counted(attributes).tokens == Tokens(800, 10, 300)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"session.id": "s", "gen_ai.conversation.id": "agent-1"}, {"session": "s"}),
        (
            {"langsmith.metadata.session_id": "s", "langsmith.metadata.thread_id": "t"},
            {"session": "s"},
        ),
        ({"langsmith.metadata.thread_id": "t"}, {"session": "t"}),
        (
            {"langsmith.metadata.user_id": "u", "langsmith.metadata.agent": "a"},
            {"user": "u", "agent": "a"},
        ),
        ({"langsmith.metadata.lc_agent_name": "graph"}, {"agent": "graph"}),
        ({"langsmith.metadata.spendgate.team": "growth"}, {"team": "growth"}),
        ({"traceloop.association.properties.spendgate.team": "growth"}, {"team": "growth"}),
        ({"baggage.spendgate.customer": "acme"}, {"customer": "acme"}),
        (
            {
                "metadata": json.dumps(
                    {
                        "user_id": "u",
                        "thread_id": "t",
                        "agent": "a",
                        "team": "growth",
                        "customer": "acme",
                        "feature": "mail",
                        "task": 9,
                        "lc_versions": {"langchain": "1.5.2"},
                    }
                )
            },
            {
                "user": "u",
                "session": "t",
                "agent": "a",
                "team": "growth",
                "customer": "acme",
                "feature": "mail",
                "task": "9",
            },
        ),
        ({"metadata": '{"spendgate.team": "growth", "team": "other"}'}, {"team": "growth"}),
        ({"metadata": "{broken"}, {}),
        ({"metadata": '{"team": 1e999, "user": "u"}'}, {"user": "u"}),
        ({"query_source": "agent:builtin:general-purpose"}, {"agent": "general-purpose"}),
        ({"query_source_safe": "agent.builtin.general-purpose"}, {"agent": "general-purpose"}),
        ({"query_source": "agent:custom:my.own:one"}, {"agent": "my.own:one"}),
        ({"query_source": "agent:default"}, {"agent": "default"}),
        ({"query_source": "sdk"}, {}),
        ({"query_source": "repl_main_thread"}, {}),
        ({"query_source": "agent:builtin:x", "agent.name": "named"}, {"agent": "named"}),
        ({"turn.id": "t", "thread.id": "019e9bfe-7749"}, {"session": "019e9bfe-7749"}),
        ({"turn.id": "t", "thread.id": 3}, {}),
        ({"thread.id": "019e9bfe-7749"}, {}),
    ],
)
def test_dimensions_are_read_where_frameworks_put_them(
    attributes: Attributes, expected: dict[str, str]
) -> None:
    assert dimensions(attributes) == expected


def test_what_frameworks_put_among_the_properties_is_no_tag() -> None:
    prefix = "traceloop.association.properties."
    noise = (
        "lc_versions",
        "ls_provider",
        "langgraph_step",
        "checkpoint_ns",
        "spendgate.reservation",
    )
    attributes = {f"{prefix}{key}": "x" for key in noise}
    attributes |= {f"{prefix}plan": "pro", f"{prefix}spendgate.tags.region": "eu"}
    attributes |= {"agent_id": "a-2", "parent_agent_id": "a-1"}
    assert pairs_of(span(attributes)) == {
        "plan": "pro",
        "region": "eu",
        "agent_id": "a-2",
        "parent_agent_id": "a-1",
    }


@pytest.mark.parametrize(
    ("attributes", "response", "request_id"),
    [
        ({"gen_ai.response.id": "req_011"}, None, "req_011"),
        ({"gen_ai.response.id": "msg_01", "request_id": "req_011"}, "msg_01", "req_011"),
        ({"gen_ai.response.id": "msg_01", "request_id": "4711"}, "msg_01", None),
        ({"anthropic.request.id": "req_011"}, None, "req_011"),
        ({"openai.request_id": "f00-1"}, None, "f00-1"),
        ({"gen_ai.response.request_id": "f00-1"}, None, "f00-1"),
    ],
)
def test_the_id_of_a_request_is_told_from_that_of_an_answer(
    attributes: Attributes, response: str | None, request_id: str | None
) -> None:
    fields = call_fields(span(without_id() | attributes))
    assert (fields["response_id"], fields["request_id"]) == (response, request_id)


@pytest.mark.parametrize(
    "attributes",
    [
        {"spendgate.reservation": "r-1"},
        {"traceloop.association.properties.spendgate.reservation": "r-1"},
        {"metadata": '{"spendgate.reservation": "r-1"}'},
    ],
)
def test_the_reservation_is_read_of_calls_and_tools(attributes: Attributes) -> None:
    assert call_fields(span(CHAT | attributes))["reservation"] == "r-1"
    assert tool_fields(span(attributes))["reservation"] == "r-1"


BROKEN = {"stop_reason": None, "id": "msg_01"}
WHOLE = {"stop_reason": "end_turn", "id": "msg_01"}


@pytest.mark.parametrize(
    ("attributes", "scope", "expected"),
    [
        (chat(9000, 0), "com.anthropic.sdk.python", True),
        (chat(9000, 1), "com.anthropic.sdk.python", True),
        (chat(9000, 2), "com.anthropic.sdk.python", False),
        (chat(9000, 1), "some.instrumentation", False),
        (chat(9000, 1) | {"anthropic.message.stop_reason": "end_turn"}, "com.anthropic.sdk", False),
        (chat(9000, 0) | {"gen_ai.response.finish_reasons": ["stop"]}, "pydantic-ai", False),
        (chat(9000, 0) | {"error.type": "timeout"}, "com.anthropic.sdk.python", False),
        (chat(0, 0), "com.anthropic.sdk.python", False),
        (chat(17, 0) | {"gen_ai.operation.name": "embeddings"}, "pydantic-ai", False),
        (chat(17, 0) | {"gen_ai.response.model": "text-embedding-3-small"}, "pydantic-ai", False),
        (chat(13, 1) | {"gen_ai.provider.name": "openai"}, "pydantic-ai", False),
        (
            OPENINFERENCE
            | {"llm.token_count.prompt": 12971, "llm.token_count.completion": 1}
            | {"output.value": json.dumps(BROKEN)},
            "openinference.instrumentation.anthropic",
            True,
        ),
        (
            OPENINFERENCE
            | {"llm.token_count.prompt": 12971, "llm.token_count.completion": 1}
            | {"output.value": json.dumps(WHOLE)},
            "openinference.instrumentation.anthropic",
            False,
        ),
    ],
)
def test_only_a_stream_that_was_certainly_left_is_an_estimate(
    attributes: Attributes, scope: str, expected: bool
) -> None:
    assert is_estimate(attributes, scope) is expected


def test_a_failed_span_is_no_estimate() -> None:
    failed = span(chat(9000, 0), scope="com.anthropic.sdk.python")
    failed.status_code = STATUS_ERROR
    assert call_fields(failed)["is_estimate"] is None


CODEX_CALL = {"gen_ai.usage.input_tokens": 13, "gen_ai.usage.output_tokens": 7}
CODEX_TURN = {"turn.id": "t", "model": "gpt-5.5", "codex.turn.token_usage.total_tokens": 20}
GEMINI_CALL = {"gen_ai.operation.name": "llm_call", "gen_ai.request.model": "gemini-2.5-flash"}


@pytest.mark.parametrize(
    ("attributes", "name", "kind", "used", "modelled"),
    [
        (CODEX_CALL, "handle_responses", "llm", True, False),
        (
            CODEX_CALL
            | {"code.module.name": "codex_core::session::turn", "codex.usage.total_tokens": 20},
            "",
            "llm",
            True,
            False,
        ),
        (CODEX_CALL, "workflow", "around", True, False),
        (CODEX_TURN, "session_task.turn", "around", False, False),
        (GEMINI_CALL, "llm_call", "llm", False, True),
        (
            {"gen_ai.operation.name": "tool_call", "gen_ai.tool.name": "ls"},
            "",
            "tool",
            False,
            False,
        ),
        ({"gen_ai.operation.name": "agent_call"}, "", "agent", False, False),
        ({"gen_ai.operation.name": "upsert_memory"}, "", "around", False, False),
        (CHAT, "chat", "llm", True, True),
    ],
)
def test_calls_without_a_model_or_usage_are_known(
    attributes: Attributes, name: str, kind: str, used: bool, modelled: bool
) -> None:
    assert kind_of(attributes, name) == kind
    assert (has_usage(attributes), has_model(attributes)) == (used, modelled)
    assert is_of_interest(attributes)


def test_a_turn_of_codex_names_the_model_of_its_calls() -> None:
    assert call_fields(span(CODEX_TURN))["model"] == "gpt-5.5"


def test_gemini_cli_asks_google_without_saying_so() -> None:
    assert call_fields(span(GEMINI_CALL, scope="gemini-cli"))["provider"] == "google"


def test_langchains_counts_are_a_shape_of_their_own() -> None:
    used = {
        "input_tokens": 100,
        "output_tokens": 10,
        "total_tokens": 110,
        "input_token_details": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 7},
    }
    assert normalise_usage(used, provider="anthropic") == Tokens(100, 10, 0, 27, 7)
