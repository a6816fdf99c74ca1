"""Export requests in both encodings: what is wrong with one span costs that span alone."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from common.errors import EventRejected, MalformedBody
from metering.usage.decoders.native import PassedOver
from metering.usage.decoders.otlp import json_mapping, protobuf
from metering.usage.decoders.otlp.spans import Span
from metering.usage.decoders.otlp.wire import fields_of
from tests.metering.usage.decoders.spans import CHAT, TRACE, Attributes, Export

Read = Callable[[Export], list[Span | EventRejected]]
BOTH = pytest.mark.parametrize(
    "read",
    [
        lambda made: protobuf.read_protobuf(made.protobuf()),
        lambda made: json_mapping.read_json(made.json()),
        lambda made: json_mapping.read_json(made.json(is_hex=False)),
        lambda made: json_mapping.read_json(snake(made)),
    ],
    ids=["protobuf", "hex", "base64", "snake"],
)


def snake(made: Export) -> bytes:
    """The export with the names of protobuf's own fields, as some exporters write them."""

    def renamed(value: object) -> Any:
        if isinstance(value, list):
            return [renamed(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        return {
            re.sub("[A-Z]", lambda result: "_" + result[0].lower(), key): renamed(inner)
            for key, inner in value.items()
        }

    return json.dumps(renamed(json.loads(made.json()))).encode()


def nest(levels: int, make: Callable[[object], object] = lambda inner: [inner]) -> object:
    value: Any = "x"
    for _ in range(levels):
        value = make(value)
    return value


def fill_deeply(holder: AnyValue, levels: int) -> None:
    for _ in range(levels):
        holder = holder.array_value.values.add()
    holder.string_value = "x"


def spans_of(items: list[Span | EventRejected]) -> list[Span]:
    result = [item for item in items if isinstance(item, Span)]
    assert len(result) == len(items)
    return result


@BOTH
def test_every_spelling_of_an_export_reads_alike(read: Read) -> None:
    made = Export("scope-1", service__name="api")
    made.add(CHAT | {"list": ["a", {"b": [1, 2.5, True]}]}, name="chat")
    made.add(CHAT, parent=1)
    first, second = spans_of(read(made))
    assert (first.trace, first.span, first.parent) == (TRACE, "0000000000000001", None)
    assert (second.parent, first.name, first.scope) == ("0000000000000001", "chat", "scope-1")
    assert first.resource == {"service.name": "api"}
    assert first.attributes == CHAT | {"list": ["a", {"b": [1, 2.5, True]}]}
    assert first.ended_nanos - first.started_nanos == 1_500_000_000


@BOTH
@pytest.mark.parametrize("levels", [8, 20, 30])
def test_structured_messages_of_ordinary_depth_are_read(read: Read, levels: int) -> None:
    made = Export()
    made.add(CHAT | {"gen_ai.output.messages": nest(levels)})
    (result,) = spans_of(read(made))
    assert result.attributes["gen_ai.output.messages"] == nest(levels)


@pytest.mark.parametrize("levels", [45, 80, 400])
def test_what_nests_deeper_than_anybody_needs_is_left_out_of_protobuf(levels: int) -> None:
    made = Export(service__name="api")
    made.add(CHAT)
    fill_deeply(made.span(1).attributes.add(key="gen_ai.output.messages").value, levels)
    made.span(1).events.add(name="message")
    fill_deeply(made.span(1).events[0].attributes.add(key="deep").value, levels)
    made.add(CHAT)
    first, second = spans_of(protobuf.read_protobuf(made.protobuf()))
    assert {key: first.attributes[key] for key in CHAT} == CHAT
    assert second.attributes == CHAT


@pytest.mark.parametrize("levels", [45, 300, 5000, 100_000])
def test_what_nests_deeper_than_anybody_needs_is_left_out_of_json(levels: int) -> None:
    made = Export(service__name="api")
    made.add(CHAT | {"gen_ai.output.messages": "HERE"})
    made.add(CHAT)
    deep = b'{"arrayValue":{"values":[' * levels + b"]}}" * levels
    body = made.json().replace(b'{"stringValue": "HERE"}', deep)
    assert deep in body
    first, second = spans_of(json_mapping.read_json(body))
    assert {key: first.attributes[key] for key in CHAT} == CHAT
    assert second.attributes == CHAT


def test_a_resource_that_nests_too_deeply_loses_that_attribute_alone() -> None:
    made = Export(service__name="api")
    fill_deeply(made.request.resource_spans[0].resource.attributes.add(key="deep").value, 200)
    made.add(CHAT)
    (result,) = spans_of(protobuf.read_protobuf(made.protobuf()))
    assert result.resource == {"service.name": "api"}


@BOTH
def test_prompts_are_not_kept(read: Read) -> None:
    made = Export()
    made.add(CHAT | {"gen_ai.input.messages": "long", "llm.tools.0.tool.json_schema": "{}"})
    (result,) = spans_of(read(made))
    assert result.attributes == CHAT


def test_a_span_that_is_no_message_is_rejected_alone() -> None:
    made = Export("scope-1", service__name="api")
    for _ in range(3):
        made.add(CHAT)
    body = made.protobuf()
    # The second span's name, five bytes long, becomes no text.
    at = body.index(b"span", body.index(b"span") + 1)
    body = body[:at] + b"\xff\xfe\xff\xfe" + body[at + 4 :]
    before, broken, after = protobuf.read_protobuf(body)
    assert isinstance(before, Span)
    assert isinstance(after, Span)
    assert isinstance(broken, EventRejected)
    assert (broken.code, broken.source) == ("invalid_value", "otlp:api")
    assert broken.event_id == f"{TRACE}-0000000000000002"
    assert json.loads(broken.sample or "")["scope"] == "scope-1"


@pytest.mark.parametrize(
    "change",
    [
        {"attributes": 5},
        {"startTimeUnixNano": "soon"},
        {"status": []},
        {"name": {"a": 1}},
        {"attributes": [{"key": 3}]},
    ],
)
def test_a_span_of_wrong_types_names_itself_and_its_source(change: Attributes) -> None:
    made = Export("scope-1", service__name="api")
    for _ in range(3):
        made.add(CHAT | {"gen_ai.prompt": "a secret"})
    body = json.loads(made.json())
    body["resourceSpans"][0]["scopeSpans"][0]["spans"][1].update(change)
    before, broken, after = json_mapping.read_json(json.dumps(body).encode())
    assert isinstance(before, Span)
    assert isinstance(after, Span)
    assert isinstance(broken, EventRejected)
    assert (broken.code, broken.source) == ("invalid_value", "otlp:api")
    assert broken.event_id == f"{TRACE}-0000000000000002"
    assert "secret" not in (broken.sample or "")


def test_a_span_with_bytes_that_are_no_text_is_rejected_alone() -> None:
    made = Export()
    made.add(CHAT | {"text": "HERE"})
    made.add(CHAT)
    broken, after = json_mapping.read_json(made.json().replace(b"HERE", b"\xff\xfe"))
    assert isinstance(broken, EventRejected)
    assert isinstance(after, Span)


def logs() -> ExportLogsServiceRequest:
    made = ExportLogsServiceRequest()
    scope = made.resource_logs.add().scope_logs.add()
    record = scope.log_records.add(time_unix_nano=1, observed_time_unix_nano=2, event_name="e")
    record.body.string_value = "text"
    record.attributes.add(key="k").value.string_value = "v"
    scope.log_records.add(observed_time_unix_nano=2, trace_id=b"x" * 16, span_id=b"y" * 8)
    return made


def metrics(name: str = "claude_code.cost") -> ExportMetricsServiceRequest:
    made = ExportMetricsServiceRequest()
    scope = made.resource_metrics.add().scope_metrics.add()
    metric = scope.metrics.add(name=name, description="Cost", unit="USD")
    metric.sum.data_points.add(as_double=0.5, time_unix_nano=5)
    return made


def observed_only() -> ExportLogsServiceRequest:
    made = logs()
    made.resource_logs[0].scope_logs[0].log_records[0].time_unix_nano = 0
    return made


@pytest.mark.parametrize(
    ("body", "address"),
    [
        (logs().SerializeToString(), "/v1/logs"),
        (observed_only().SerializeToString(), "/v1/logs"),
        (metrics().SerializeToString(), "/v1/metrics"),
        (metrics("short").SerializeToString(), "/v1/metrics"),
    ],
)
def test_another_signal_in_protobuf_is_known_and_holds_no_span(body: bytes, address: str) -> None:
    assert protobuf.read_protobuf(body) == []
    foreign = protobuf.foreign_export(body)
    assert foreign is not None
    assert address in foreign.sentence


@pytest.mark.parametrize("key", ["resourceLogs", "resource_logs"])
def test_logs_in_json_are_known_and_hold_no_span(key: str) -> None:
    service = [{"key": "service.name", "value": {"stringValue": "claude-code"}}]
    body = json.dumps({key: [{"resource": {"attributes": service}, "scopeLogs": []}]}).encode()
    result = json_mapping.foreign_export(body)
    assert result is not None
    assert result.passed_over() == PassedOver("otlp:claude-code", "logs_at_traces")
    assert json_mapping.read_json(body) == []
    foreign = json_mapping.foreign_export(body)
    assert foreign is not None
    assert "/v1/logs" in foreign.sentence


@pytest.mark.parametrize("key", ["resourceMetrics", "resource_metrics"])
def test_metrics_in_json_are_known_and_hold_no_span(key: str) -> None:
    body = json.dumps({key: [{"scopeMetrics": []}]}).encode()
    assert json_mapping.read_json(body) == []
    foreign = json_mapping.foreign_export(body)
    assert foreign is not None
    assert "/v1/metrics" in foreign.sentence


def test_traces_are_no_other_signal() -> None:
    made = Export()
    made.add(CHAT)
    assert protobuf.foreign_export(made.protobuf()) is None
    assert json_mapping.foreign_export(made.json()) is None
    for body in (b"", b"{}", b"\xff"):
        assert protobuf.foreign_export(body) is None
        assert json_mapping.foreign_export(body) is None


@pytest.mark.parametrize(
    "raw", [b"\x0a", b"\x0a\x05ab", b"\x00", b"\x0b", b"\x08" + b"\xff" * 11, b"\x09abc", b"\x80"]
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"message|number|wire type"):
        list(fields_of(memoryview(raw)))
    with pytest.raises(MalformedBody):
        protobuf.read_protobuf(raw)


def test_text_that_was_cut_through_a_character_costs_no_span() -> None:
    made = Export()
    made.add(CHAT | {"spendgate.agent": "HERE"})
    body = made.json().replace(b"HERE", b"a \\ud83d \\\\ud83d \\uD83D\\uDE00")
    (result,) = spans_of(json_mapping.read_json(body))
    assert result.attributes["spendgate.agent"] == "a \ufffd \\ud83d \U0001f600"


def test_a_resource_with_a_value_that_cannot_be_read_costs_no_span() -> None:
    made = Export(service__name="api", size=1.5)
    made.add(CHAT)
    (result,) = spans_of(json_mapping.read_json(made.json().replace(b"1.5", b"1e999")))
    assert result.resource == {"service.name": "api"}
