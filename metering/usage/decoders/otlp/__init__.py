"""OpenTelemetry traces as usage: what spans tell, in every dialect, and the calls they are of.

A trace comes whole or in pieces; `read_export` reads what each span tells by itself, and
`calls_of_spans` finds the calls among all spans of a trace that are known.
"""

from typing import Final

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from metering.usage.decoders.native import Decoded
from metering.usage.decoders.otlp.calls import SpanCall, calls_of_spans, may_be_one
from metering.usage.decoders.otlp.json_mapping import read_json
from metering.usage.decoders.otlp.protobuf import read_protobuf
from metering.usage.decoders.otlp.span_records import Export, SpanRecord, read_export

__all__ = [
    "Export",
    "SpanCall",
    "SpanRecord",
    "calls_of_spans",
    "decode_otlp_json",
    "decode_otlp_protobuf",
    "encode_otlp_response",
    "may_be_one",
    "read_otlp_json",
    "read_otlp_protobuf",
]
_MESSAGE_MAX: Final = 2_000


def read_otlp_protobuf(body: bytes, *, trusts_given_costs: bool) -> Export:
    """Return the spans of an export request (`application/x-protobuf`)."""
    return read_export(read_protobuf(body), trusts_given_costs=trusts_given_costs)


def read_otlp_json(body: bytes, *, trusts_given_costs: bool) -> Export:
    """Return the spans of an export request (`application/json`)."""
    return read_export(read_json(body), trusts_given_costs=trusts_given_costs)


def decode_otlp_protobuf(body: bytes, *, trusts_given_costs: bool) -> list[Decoded]:
    """Return the events of an export that is a whole by itself (`application/x-protobuf`)."""
    return _events(read_otlp_protobuf(body, trusts_given_costs=trusts_given_costs))


def decode_otlp_json(body: bytes, *, trusts_given_costs: bool) -> list[Decoded]:
    """Return the events of an export that is a whole by itself (`application/json`)."""
    return _events(read_otlp_json(body, trusts_given_costs=trusts_given_costs))


def _events(export: Export) -> list[Decoded]:
    return [*export.rejected, *(call.body for call in calls_of_spans(export.spans))]


def encode_otlp_response(content_type: str, rejected_spans: int, message: str) -> bytes:
    """Encode the answer to an export as the request was; full success has no message."""
    message = message[:_MESSAGE_MAX]
    if "protobuf" in content_type.lower():
        response = ExportTraceServiceResponse()
        if rejected_spans or message:
            response.partial_success.rejected_spans = rejected_spans
            response.partial_success.error_message = message
        return bytes(response.SerializeToString())
    if not rejected_spans and not message:
        return b"{}"
    # 64-bit integers are strings in protobuf's JSON.
    partial = {"rejectedSpans": str(rejected_spans), "errorMessage": message}
    return msgspec.json.encode({"partialSuccess": partial})
