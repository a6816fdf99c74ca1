"""Export requests as instrumentations send them, made of a few words in tests."""

import base64
import json

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from common.errors import EventRejected
from common.json_bodies import JsonObject
from metering.usage.decoders.native import Decoded, EventBody
from metering.usage.decoders.otlp import calls_of_spans, read_export
from metering.usage.decoders.otlp.dimension_keys import USUAL, DimensionKeys
from metering.usage.decoders.otlp.json_mapping import read_json
from metering.usage.decoders.otlp.protobuf import read_protobuf
from metering.usage.decoders.otlp.spans import Span as ReadSpan

STARTED_NANOS = 1_795_305_007_049_640_164
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"

Attributes = JsonObject


def decode_otlp_protobuf(
    body: bytes, *, trusts_given_costs: bool, keys: DimensionKeys = USUAL
) -> list[Decoded]:
    """Return the events of an export that is whole by itself (`application/x-protobuf`)."""
    return _events(read_protobuf(body, keys.mapped), trusts_given_costs, keys)


def decode_otlp_json(
    body: bytes, *, trusts_given_costs: bool, keys: DimensionKeys = USUAL
) -> list[Decoded]:
    """Return the events of an export that is whole by itself (`application/json`)."""
    return _events(read_json(body, keys.mapped), trusts_given_costs, keys)


def _events(
    items: list[ReadSpan | EventRejected], trusts_given_costs: bool, keys: DimensionKeys
) -> list[Decoded]:
    export = read_export(items, trusts_given_costs=trusts_given_costs, keys=keys)
    return [*export.rejected, *(call.body for call in calls_of_spans(export.spans))]


class Export:
    """One export request in the making. Spans get ids 1, 2, 3 … in the order they are added."""

    def __init__(self, scope: str = "test", **resource: object) -> None:
        self.request = ExportTraceServiceRequest()
        group = self.request.resource_spans.add()
        for key, value in resource.items():
            fill(group.resource.attributes.add(key=key.replace("__", ".")).value, value)
        self.scope = group.scope_spans.add()
        self.scope.scope.name = scope

    def add(
        self, attributes: Attributes, *, parent: int = 0, trace: str = TRACE, name: str = "span"
    ) -> int:
        """Add a span and answer its number, by which it is named as a parent."""
        number = len(self.scope.spans) + 1
        span = self.scope.spans.add(
            trace_id=bytes.fromhex(trace),
            span_id=number.to_bytes(8, "big"),
            parent_span_id=parent.to_bytes(8, "big") if parent else b"",
            name=name,
            start_time_unix_nano=STARTED_NANOS,
            end_time_unix_nano=STARTED_NANOS + 1_500_000_000,
        )
        for key, value in attributes.items():
            fill(span.attributes.add(key=key).value, value)
        return number

    def span(self, number: int) -> Span:
        return self.scope.spans[number - 1]

    def protobuf(self) -> bytes:
        return self.request.SerializeToString()

    def json(self, *, is_hex: bool = True) -> bytes:
        """OTLP's JSON, with ids in hex as specified, or in base64 as protobuf's JSON has them."""
        document = MessageToDict(self.request)
        if is_hex:
            spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
            for span in spans:
                for key in span.keys() & {"traceId", "spanId", "parentSpanId"}:
                    span[key] = base64.b64decode(span[key]).hex()
        return json.dumps(document).encode()

    def decoded(
        self, *, trusts_given_costs: bool = False, keys: DimensionKeys = USUAL
    ) -> list[Decoded]:
        """What the protobuf decodes to; both forms of JSON must decode to the same."""
        items = decode_otlp_protobuf(
            self.protobuf(), trusts_given_costs=trusts_given_costs, keys=keys
        )
        for body in (self.json(), self.json(is_hex=False)):
            again = decode_otlp_json(body, trusts_given_costs=trusts_given_costs, keys=keys)
            assert [shown(item) for item in again] == [shown(item) for item in items]
        return items

    def events(
        self, *, trusts_given_costs: bool = False, keys: DimensionKeys = USUAL
    ) -> list[EventBody]:
        items = self.decoded(trusts_given_costs=trusts_given_costs, keys=keys)
        events = [item for item in items if isinstance(item, EventBody)]
        assert len(events) == len(items), [shown(item) for item in items]
        return events

    def event(self, *, trusts_given_costs: bool = False, keys: DimensionKeys = USUAL) -> EventBody:
        (event,) = self.events(trusts_given_costs=trusts_given_costs, keys=keys)
        return event

    def rejection(self, *, trusts_given_costs: bool = False) -> EventRejected:
        (item,) = self.decoded(trusts_given_costs=trusts_given_costs)
        assert isinstance(item, EventRejected)
        return item


def shown(item: Decoded) -> object:
    return item if isinstance(item, EventBody) else (item.code, item.detail, item.event_id)


def fill(holder: AnyValue, value: object) -> None:
    """Put a plain value into OTLP's own form."""
    if isinstance(value, list):
        holder.array_value.SetInParent()
        for inner in value:
            fill(holder.array_value.values.add(), inner)
    elif isinstance(value, dict):
        holder.kvlist_value.SetInParent()
        for key, inner in value.items():
            fill(holder.kvlist_value.values.add(key=key).value, inner)
    elif value is not None:
        kinds = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}
        setattr(holder, kinds[type(value)], value)


CHAT: Attributes = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-sonnet-4-5",
    "gen_ai.response.model": "claude-sonnet-4-5-20250929",
    "gen_ai.response.id": "msg_01",
    "gen_ai.usage.input_tokens": 8855,
    "gen_ai.usage.output_tokens": 193,
}
TOOL: Attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "web_search"}
AGENT: Attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "researcher"}


def without_id() -> Attributes:
    """A chat span that names no response."""
    return {key: value for key, value in CHAT.items() if key != "gen_ai.response.id"}


def chat(used_input: int, used_output: int) -> Attributes:
    return without_id() | {
        "gen_ai.usage.input_tokens": used_input,
        "gen_ai.usage.output_tokens": used_output,
    }


def export(*spans: Attributes) -> Export:
    made = Export()
    for attributes in spans:
        made.add(attributes)
    return made
