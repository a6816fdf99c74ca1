"""LiteLLM's callback: its payloads become events, whatever it logs of a call."""

import base64
import hashlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EventRejected, MalformedBody, MeteringError, TooManyEvents
from common.json_bodies import JsonObject
from metering.usage.decoders.litellm import decode_litellm
from metering.usage.decoders.native import EventBody
from metering.usage.shapes import Tokens, normalise_usage

# LiteLLM's own form of Anthropic's usage: cached input is inside the prompt.
USAGE = {
    "prompt_tokens": 8855,
    "completion_tokens": 193,
    "total_tokens": 9048,
    "completion_tokens_details": {"reasoning_tokens": 10, "audio_tokens": None},
    "prompt_tokens_details": {
        "cached_tokens": 8845,
        "cache_write_tokens": 6,
        "cache_creation_tokens": 6,
        "cache_creation_token_details": {
            "ephemeral_5m_input_tokens": 2,
            "ephemeral_1h_input_tokens": 4,
        },
        "audio_tokens": None,
        "web_search_requests": None,
    },
    "cache_creation_input_tokens": 6,
    "cache_read_input_tokens": 8845,
    "server_tool_use": {"web_search_requests": 2},
}
PAYLOAD: JsonObject = {
    "id": "msg_01ABC",
    "litellm_call_id": "5b1c3e0e-9e4b-4f7c-9d57-0d9c4a1e9d11",
    "trace_id": "trace-1",
    "session_id": "s-1",
    "call_type": "acompletion",
    "stream": True,
    "status": "success",
    "custom_llm_provider": "anthropic",
    "model": "anthropic/claude-sonnet-4-5",
    "model_group": "smart",
    "prompt_tokens": 8855,
    "completion_tokens": 193,
    "total_tokens": 9048,
    "response_cost": 0.00123456,
    "saved_cache_cost": 0.0,
    "cache_hit": None,
    "startTime": 1795305007.5,
    "endTime": 1795305009.75,
    "completionStartTime": 1795305007.9,
    "end_user": "acme",
    "request_tags": ["environment:prod", "beta", "feature:email_writer", "User-Agent: curl/8"],
    "metadata": {
        "usage_object": USAGE,
        "user_api_key_team_alias": "growth",
        "user_api_key_team_id": "3f",
        "user_api_key_user_id": "u-17",
        "spend_logs_metadata": {"agent": "researcher", "task_id": "t-9"},
        "requester_metadata": {"agent": "not-this", "session": "mine"},
    },
    "model_parameters": {"max_tokens": 512},
    "response": {"id": "msg_01ABC", "usage": {"prompt_tokens": 1}, "service_tier": "standard"},
    "messages": [{"role": "user", "content": "x" * 100}],
}


def decoded(trusts_given_costs: bool = False, **changes: object) -> EventBody | EventRejected:
    body = json.dumps([PAYLOAD | changes]).encode()
    (item,) = decode_litellm(body, trusts_given_costs=trusts_given_costs)
    return item


def event(trusts_given_costs: bool = False, **changes: object) -> EventBody:
    item = decoded(trusts_given_costs, **changes)
    assert isinstance(item, EventBody)
    return item


def tokens(item: EventBody) -> Tokens:
    assert item.usage is not None
    return normalise_usage(item.usage, provider=item.provider)


def test_a_payload_is_an_event() -> None:
    item = event()
    assert (item.id, item.source, item.response_id) == ("msg_01ABC", "litellm", "msg_01ABC")
    assert (item.provider, item.model) == ("anthropic", "claude-sonnet-4-5")
    assert (item.requested_model, item.operation, item.status) == ("smart", "llm", "success")
    assert item.time == datetime.fromtimestamp(1795305007.5, UTC)
    assert (item.latency_ms, item.time_to_first_token_ms) == (2250, 400)
    assert (item.team, item.customer, item.agent, item.user) == (
        "growth",
        "acme",
        "researcher",
        "u-17",
    )
    assert (item.session, item.task, item.trace) == ("mine", "t-9", "trace-1")
    assert item.feature == "email_writer"
    assert item.tags == {"environment": "prod", "beta": True}
    assert (item.max_output_tokens, item.service_tier) == (512, "standard")
    assert item.cost_usd is None


def test_cached_input_is_counted_once() -> None:
    assert tokens(event()) == Tokens(8855, 193, 8845, 6, 4, 10, 0, 0, 2)


def test_flat_counts_stand_in_for_a_usage_nobody_knows() -> None:
    metadata = PAYLOAD["metadata"] | {"usage_object": {"warp_tokens": 9}}
    item = event(metadata=metadata, response="redacted-by-litellm")
    assert (item.usage, item.input_tokens, item.output_tokens) == (None, 8855, 193)


def test_a_usage_that_falls_short_of_the_flat_counts_is_not_believed() -> None:
    metadata = PAYLOAD["metadata"] | {"usage_object": {"prompt_tokens": 0, "completion_tokens": 0}}
    item = event(metadata=metadata, response=None)
    assert (item.usage, item.input_tokens, item.output_tokens) == (None, 8855, 193)


@pytest.mark.parametrize("counts", [{}, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_a_success_that_tells_no_tokens_lacks_its_usage_and_is_not_free(
    counts: JsonObject,
) -> None:
    nothing: JsonObject = {"prompt_tokens": None, "completion_tokens": None, "response": None}
    usage = {"usage_object": {"prompt_tokens": 0, "completion_tokens": 0}} if counts else None
    item = event(**nothing | counts, metadata=usage)
    assert (item.is_usage_missing, item.usage) == (True, None)
    assert (item.input_tokens, item.output_tokens) == (0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "failure", "error_str": "timeout"},
        {"cache_hit": True},
        {"call_type": "amoderation"},
        {"trusts_given_costs": True},
    ],
)
def test_what_failed_or_was_cached_lacks_nothing(changes: JsonObject) -> None:
    nothing: JsonObject = {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "metadata": None,
        "response": None,
    }
    assert event(**nothing | changes).is_usage_missing is None


def test_costs_are_ignored_unless_the_tenant_trusts_them() -> None:
    assert event().cost_usd is None
    assert event(trusts_given_costs=True).cost_usd == "0.00123456"
    assert event(trusts_given_costs=True, response_cost=1e-07).cost_usd == "0.0000001"
    assert event(response_cost="nonsense").cost_usd is None
    for bad in (-1.0, "nonsense", True, [1]):
        assert isinstance(decoded(trusts_given_costs=True, response_cost=bad), EventRejected)


def test_an_answer_from_litellms_cache_used_no_tokens() -> None:
    item = event(cache_hit=True, id="msg_01ABC_cache_hit1795305009.7", saved_cache_cost=0.0321)
    assert (item.input_tokens, item.output_tokens, item.usage) == (0, 0, None)
    assert (item.saved_usd, item.response_id) == ("0.0321", None)
    assert item.tags is not None
    assert item.tags["cache_hit"] is True


def test_failures_of_one_request_are_events_of_their_own() -> None:
    failure: JsonObject = {
        "id": PAYLOAD["litellm_call_id"],
        "status": "failure",
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "metadata": {},
        "response": {},
        "error_information": {"error_class": "RateLimitError", "error_code": "429"},
    }
    first, second = event(**failure), event(**failure, startTime=1795305001.0)
    assert (first.status, first.error_type) == ("error", "RateLimitError")
    assert (first.input_tokens, first.output_tokens, first.response_id) == (0, 0, None)
    assert first.id != second.id
    assert event(**failure | {"error_information": {"error_class": "CancelledError"}}).status == (
        "cancelled"
    )


def test_a_response_id_that_litellm_wrapped_is_the_providers_again() -> None:
    inner = "litellm:custom_llm_provider:openai;model_id:None;response_id:resp_68123"
    wrapped = "resp_" + base64.b64encode(inner.encode()).decode()
    assert event(response={"id": wrapped}, id=wrapped).response_id == "resp_68123"
    assert event(response={"id": "resp_68123"}).response_id == "resp_68123"


def test_azure_names_a_model_by_litellms_price_map() -> None:
    item = event(
        custom_llm_provider="azure",
        model="azure/my-deployment",
        model_map_information={"model_map_key": "azure/gpt-4o"},
    )
    assert (item.provider, item.model) == ("azure", "gpt-4o")


@pytest.mark.parametrize(
    ("given", "provider"),
    [("bedrock", "aws"), ("vertex_ai", "google"), ("xai", "x-ai"), ("hosted_vllm", "hosted_vllm")],
)
def test_providers_have_the_catalogues_names(given: str, provider: str) -> None:
    assert event(custom_llm_provider=given).provider == provider


@pytest.mark.parametrize(
    ("call_type", "operation"),
    [
        ("completion", "llm"),
        ("aresponses", "llm"),
        ("anthropic_messages", "llm"),
        ("pass_through_endpoint", "llm"),
        (None, "llm"),
        ("aembedding", "embedding"),
        ("image_generation", "other"),
        ("atranscription", "other"),
    ],
)
def test_call_types_are_operations(call_type: str | None, operation: str) -> None:
    assert event(call_type=call_type).operation == operation


def test_a_tool_call_through_mcp_is_a_tool() -> None:
    call = {"name": "search", "arguments": {"b": 1, "a": 2}}
    item = event(call_type="call_mcp_tool", metadata={"mcp_tool_call_metadata": call})
    assert (item.operation, item.tool, item.input_tokens, item.usage) == (
        "tool",
        "search",
        None,
        None,
    )
    assert item.tool_arguments_hash == hashlib.sha256(b'{"a":2,"b":1}').hexdigest()


def test_a_header_names_the_agent() -> None:
    metadata = {"usage_object": USAGE, "requester_custom_headers": {"x-spendgate-agent": "scout"}}
    assert event(metadata=metadata).agent == "scout"


def test_the_three_log_formats_are_read() -> None:
    line = json.dumps(PAYLOAD).encode()
    wide = json.dumps(PAYLOAD, indent=2).encode()
    each = decode_litellm(line, trusts_given_costs=False)
    assert each == decode_litellm(wide, trusts_given_costs=False)
    assert each == decode_litellm(b"[" + line + b"]", trusts_given_costs=False)
    assert decode_litellm(line + b"\n" + line + b"\n", trusts_given_costs=False) == each * 2
    assert decode_litellm(b"[]", trusts_given_costs=False) == []


def test_a_bad_payload_leaves_the_others() -> None:
    line = json.dumps(PAYLOAD).encode()
    bad = [
        b"7",
        b"{}",
        b'{"id": 5}',
        json.dumps(PAYLOAD | {"prompt_tokens": -1}).encode(),
        json.dumps(PAYLOAD | {"startTime": 1e300}).encode(),
        json.dumps(PAYLOAD | {"startTime": "now"}).encode(),
        json.dumps(PAYLOAD | {"end_user": "a\x00b"}).encode(),
    ]
    items = decode_litellm(b"[" + b",".join([line, *bad, line]) + b"]", trusts_given_costs=False)
    codes = [item.code if isinstance(item, EventRejected) else "fine" for item in items]
    assert codes == [
        "fine",
        "invalid_value",
        "missing_field",
        "missing_field",
        "invalid_value",
        "invalid_value",
        "invalid_value",
        "invalid_value",
        "fine",
    ]
    lines = decode_litellm(b"\n".join([line, b'{"id": ', line]), trusts_given_costs=False)
    assert [isinstance(item, EventBody) for item in lines] == [True, False, True]


def test_what_is_no_json_fails_the_body() -> None:
    for body, code in (
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b'{"id": "a", "x": NaN}', "malformed_json"),
        (b'{"id": "\xff"}', "invalid_utf8"),
        (b'[{"id": "a"}, {"id": ]', "malformed_json"),
        (b'[{"id": "a"}, {"id": "b"}', "malformed_json"),
        (b'[{"id": NaN}, 3]', "malformed_json"),
        (b'[{"id": NaN}] [', "malformed_json"),
        (b'[{"id": "\xff"}, 3', "invalid_utf8"),
    ):
        with pytest.raises(MalformedBody) as caught:
            decode_litellm(body, trusts_given_costs=False)
        assert caught.value.code == code
    for body in (b"[" + b",".join([b"{}"] * 10_001) + b"]", b"{}\n" * 10_001):
        with pytest.raises(TooManyEvents):
            decode_litellm(body, trusts_given_costs=False)


def test_long_names_are_cut_rather_than_losing_the_spend() -> None:
    item = event(end_user="x" * 300, request_tags=["k" * 300 + ":v"])
    assert item.customer == "x" * 200
    assert item.tags == {"k" * 200: "v"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(PAYLOAD)), JSON, max_size=5), st.booleans())
def test_any_payload_is_an_event_or_a_refusal(changes: JsonObject, trusts: bool) -> None:
    body = json.dumps([PAYLOAD | changes]).encode()
    try:
        (item,) = decode_litellm(body, trusts_given_costs=trusts)
    except MeteringError:
        return
    assert isinstance(item, EventBody | EventRejected)


GOOD = json.dumps(PAYLOAD).encode()
DEEP_TOOLS = json.dumps(
    PAYLOAD | {"model_parameters": {"max_tokens": 512, "tools": [json.loads("[" * 60 + "]" * 60)]}}
).encode()


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b'{"id": "a", "response_cost": NaN}', "malformed_json"),
        (b'{"id": "a", "x": "\xff"}', "invalid_utf8"),
        (b'{"id": "a", "x": 01}', "malformed_json"),
        (b'{"id": 3}', "missing_field"),
        (b'{"id": "a", "response_cost": 1e999}', "invalid_value"),
        (b'{"id": "a", "startTime": 5.5, "endTime": ' + b"9" * 400 + b"}", "invalid_value"),
        (b'{"id": "a", "prompt_tokens": ' + b"[" * 900 + b"]" * 900 + b"}", "invalid_value"),
        (
            b'{"id": "a", "status": "success", "metadata": {"usage_object": {"prompt_tokens": 1,'
            b' "x": ' + b"[" * 40 + b"]" * 40 + b"}}}",
            "too_deep",
        ),
    ],
)
def test_a_payload_that_cannot_be_read_is_rejected_alone(bad: bytes, code: str) -> None:
    for body in (b"[%s, %s, %s]" % (GOOD, bad, GOOD), b"\n".join([GOOD, bad, GOOD])):
        before, rejected, after = decode_litellm(body, trusts_given_costs=False)
        assert isinstance(before, EventBody)
        assert before == after
        assert isinstance(rejected, EventRejected)
        assert (rejected.code, rejected.source) == (code, "litellm")
        assert rejected.sample is not None


@pytest.mark.parametrize("levels", [14, 60, 900, 5000, 100_000])
def test_tools_and_messages_may_nest_as_they_like(levels: int) -> None:
    deep = b"[" * levels + b"]" * levels
    body = GOOD[:-1] + b', "messages": ' + deep + b', "model_parameters": {"tools": ' + deep + b"}}"
    (item,) = decode_litellm(b"[" + body + b"]", trusts_given_costs=False)
    assert isinstance(item, EventBody)
    assert tokens(item) == Tokens(8855, 193, 8845, 6, 4, 10, 0, 0, 2)


def test_a_rejected_payload_shows_its_shape_and_no_words() -> None:
    item = decoded(startTime="yesterday", messages=[{"content": "my secret"}])
    assert isinstance(item, EventRejected)
    sample = json.loads(item.sample or "")
    assert (sample["model"], sample["prompt_tokens"]) == ("anthropic/claude-sonnet-4-5", 8855)
    assert "secret" not in (item.sample or "")
    assert "acme" not in (item.sample or "")


@pytest.mark.parametrize(
    ("provider", "given", "expected"),
    [
        ("anthropic", "chatcmpl-648cddfd-04d3-44da-8810-abbdad3596a8", None),
        ("bedrock", "chatcmpl-648cddfd-04d3-44da-8810-abbdad3596a8", None),
        ("groq", "chatcmpl-648cddfd-04d3-44da-8810-abbdad3596a8", "same"),
        ("anthropic", "msg_01ABC", "same"),
        ("openai", "chatcmpl-CIUBKYMLJqwjgzNrzX48F", "same"),
    ],
)
def test_an_id_that_litellm_made_up_is_no_response(
    provider: str, given: str, expected: str | None
) -> None:
    item = event(id=given, response={"id": given}, custom_llm_provider=provider)
    assert (item.id, item.response_id) == (given, given if expected else None)


def test_the_providers_id_of_the_request_is_kept() -> None:
    headers = {"llm_provider-request-id": "req_011C", "llm_provider-server": "x"}
    assert event(hidden_params={"additional_headers": headers}).request_id == "req_011C"


@pytest.mark.parametrize(
    ("changes", "session", "trace"),
    [
        ({"trace_id": "ls-1"}, "ls-1", None),
        (
            {"trace_id": "a919d0c9-d85d-4e85-9d8e-bc08f4d17741"},
            None,
            "a919d0c9-d85d-4e85-9d8e-bc08f4d17741",
        ),
        (
            {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"},
            None,
            "4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        ({"trace_id": "tr", "session_id": "s-1"}, "s-1", "tr"),
        ({"trace_id": "s-1", "session_id": "s-1"}, "s-1", None),
        ({"metadata": {"session_id": "s-2"}}, "s-2", None),
        ({"metadata": {"litellm_session_id": "s-2"}}, "s-2", None),
        ({"metadata": {"requester_metadata": {"litellm_session_id": "s-2"}}}, "s-2", None),
        (
            {
                "trace_id": "a919d0c9-d85d-4e85-9d8e-bc08f4d17741",
                "metadata": {
                    "requester_custom_headers": {
                        "x-litellm-session-id": "a919d0c9-d85d-4e85-9d8e-bc08f4d17741"
                    }
                },
            },
            "a919d0c9-d85d-4e85-9d8e-bc08f4d17741",
            None,
        ),
    ],
)
def test_a_session_is_known_wherever_litellm_puts_it(
    changes: JsonObject, session: str | None, trace: str | None
) -> None:
    nothing: JsonObject = {"session_id": "", "trace_id": None, "metadata": None}
    item = event(**nothing | changes)
    assert (item.session, item.trace) == (session, trace)


def test_what_is_meant_for_this_service_wins() -> None:
    metadata = {
        "spendgate_reservation": "r-1",
        "spend_logs_metadata": {"team": "other", "spendgate_team": "growth"},
        "requester_custom_headers": {"x-spendgate-agent": "mailer"},
        "user_api_key_user_id": "default_user_id",
    }
    item = event(metadata=metadata, request_tags=["spendgate_feature:mail", "plan:pro"])
    assert (item.reservation, item.team, item.agent) == ("r-1", "growth", "mailer")
    assert (item.user, item.feature, item.tags) == (None, "mail", {"plan": "pro"})


def test_searches_are_read_of_the_usage_or_of_what_was_put_out() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "total_tokens": 110,
        "prompt_tokens_details": {"web_search_requests": 3, "cached_tokens": 0},
    }
    flat: JsonObject = {"prompt_tokens": 100, "completion_tokens": 10}
    item = event(**flat, metadata={"usage_object": usage})
    assert (tokens(item), item.web_searches) == (Tokens(100, 10, web_searches=3), None)
    output = [
        {"type": "web_search_call", "action": {"type": "search", "query": "x"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "message", "content": []},
    ]
    item = event(**flat, metadata=None, response={"output": output, "usage": {"total_tokens": 0}})
    assert (item.input_tokens, item.web_searches) == (100, 1)


def test_a_prompt_that_was_cut_through_a_character_costs_nothing() -> None:
    body = GOOD[:-1] + b', "messages": "half \\ud83d", "end_user": "\\ud83d\\ude00 \\udc00"}'
    (item,) = decode_litellm(b"[" + body + b"]", trusts_given_costs=False)
    assert isinstance(item, EventBody)
    assert item.customer == "\U0001f600 \ufffd"


def test_a_cost_beyond_all_floats_rejects_its_payload() -> None:
    item = decoded(trusts_given_costs=True, response_cost=10**400)
    assert isinstance(item, EventBody)
    body = json.dumps([PAYLOAD | {"response_cost": -(10**400)}]).encode()
    (item,) = decode_litellm(body, trusts_given_costs=True)
    assert isinstance(item, EventRejected)
    assert item.code == "invalid_value"


SILENT: JsonObject = {
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "metadata": None,
    "response": {},
}


@pytest.mark.parametrize(
    "call_type",
    [
        "aspeech",
        "atranscription",
        "aocr",
        "aimage_generation",
        "arerank",
        "asearch",
        "acreate_video",
    ],
)
def test_a_call_of_any_kind_that_tells_nothing_is_not_free(call_type: str) -> None:
    assert event(**SILENT, call_type=call_type).is_usage_missing is True
    failed = event(**SILENT, call_type=call_type, status="failure")
    assert failed.is_usage_missing is None


@pytest.mark.parametrize(
    "call_type",
    [
        *("amoderation", "acreate_batch", "aretrieve_batch", "alist_batches", "acancel_batch"),
        *("afile_content", "acreate_file", "aget_assistants", "avector_store_create"),
        *("list_mcp_tools", "avideo_retrieve", "a_add_message"),
    ],
)
def test_what_only_manages_things_costs_nothing(call_type: str) -> None:
    item = event(**SILENT, call_type=call_type)
    assert (item.is_usage_missing, item.operation) == (None, "other")


@pytest.mark.parametrize(
    ("call_type", "response", "extra"),
    [
        (
            "atranscription",
            {"usage": {"type": "duration", "seconds": 9.5}},
            {"audio_seconds": 9.5, "input_audio_seconds": 9.5},
        ),
        ("atranscription", {"duration": 9.5}, {"input_audio_seconds": 9.5}),
        ("aocr", {"usage_info": {"pages_processed": 3}}, {"input_document_pages": 3}),
        ("aimage_generation", {"data": [{"url": "x"}, {"url": "y"}]}, {"output_images": 2}),
    ],
)
def test_units_that_are_no_tokens_are_counted(
    call_type: str, response: JsonObject, extra: JsonObject
) -> None:
    item = event(**SILENT | {"call_type": call_type, "response": response})
    assert tokens(item) == Tokens(extra=extra)
    assert item.is_usage_missing is None


def test_a_retrieved_batch_is_one_call_at_its_tier() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    response = {"id": "batch_1", "usage": usage}
    first, second = (
        event(
            id=id_, call_type="aretrieve_batch", metadata=None, response=response, prompt_tokens=0
        )
        for id_ in ("look-1", "look-2")
    )
    assert (first.operation, first.service_tier) == ("llm", "batch")
    assert first.response_id == second.response_id == "batch_1"
    assert tokens(first) == Tokens(100, 10)


def test_tools_that_the_provider_ran_are_read_of_what_was_put_out() -> None:
    output = [
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "web_search_call", "action": {"type": "search"}, "status": "failed"},
        {"type": "file_search_call", "queries": ["x"]},
        {"type": "code_interpreter_call"},
        {"type": "image_generation_call"},
    ]
    usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
    flat: JsonObject = {"prompt_tokens": 100, "completion_tokens": 10, "metadata": None}
    extra: JsonObject = {"storage_searches": 1, "code_executions": 1, "output_images": 1}
    told = event(**flat, response={"output": output, "usage": usage})
    untold = event(**flat, response={"output": output})
    for item in (told, untold):
        assert (tokens(item), item.web_searches) == (Tokens(100, 10, extra=extra), 1)


def test_a_start_is_cut_to_microseconds_and_not_rounded_into_the_next_day() -> None:
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    at = event(startTime=midnight.timestamp() - 0.0000003).time
    assert at is not None
    assert at < midnight
