"""OpenTelemetry traces as usage: what spans tell, in every dialect, and the calls they are of.

A trace comes whole or in pieces; `read_export` reads what each span tells by itself, and
`calls_of_spans` finds the calls among all spans of a trace that are known.
"""

from typing import Final

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from metering.usage.decoders.otlp.calls import SpanCall, calls_of_spans, may_be_one
from metering.usage.decoders.otlp.span_records import Export, SpanRecord, read_export

_MESSAGE_MAX: Final = 2_000


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
