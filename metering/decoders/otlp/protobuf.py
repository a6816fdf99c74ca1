"""Reading spans out of OTLP's protobuf encoding."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from metering.decoders.native import EVENTS_MAX
from metering.decoders.otlp.kinds import is_of_interest
from metering.decoders.otlp.spans import Attributes, Span
from metering.errors import MalformedBody, TooManyEvents


def read_protobuf(body: bytes) -> list[Span]:
    """All spans; those that speak of no model, tool or agent are without their attributes.

    Raises MalformedBody for what is not protobuf of this form, TooManyEvents beyond the limit.
    """
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except (DecodeError, RecursionError) as error:
        detail = "The body is not an OTLP export request in protobuf."
        raise MalformedBody("malformed_protobuf", detail) from error
    count = sum(
        len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans
    )
    if count > EVENTS_MAX:
        raise TooManyEvents(count)
    return list(_spans(request))


def _spans(request: ExportTraceServiceRequest) -> Iterable[Span]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for message in scope.spans:
                is_told = is_of_interest(pair.key for pair in message.attributes)
                attributes = _attributes(message.attributes) if is_told else {}
                yield _span(message, attributes, scope.scope.name, resource)


def _span(message: SpanMessage, attributes: Attributes, scope: str, resource: Attributes) -> Span:
    return Span(
        trace=message.trace_id.hex(),
        span=message.span_id.hex(),
        parent=message.parent_span_id.hex() or None,
        name=message.name,
        scope=scope,
        started_nanos=message.start_time_unix_nano,
        ended_nanos=message.end_time_unix_nano,
        status_code=message.status.code,
        status_message=message.status.message,
        exception=_exception(message),
        attributes=attributes,
        resource=resource,
    )


def _exception(message: SpanMessage) -> str | None:
    for event in message.events:
        for pair in event.attributes:
            if pair.key == "exception.type":
                return pair.value.string_value or None
    return None


def _attributes(pairs: Iterable[KeyValue]) -> Attributes:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    """The plain value. The protobuf library bounds the nesting: it refuses over 100 levels."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "array_value":
        return [_value(inner) for inner in found.values]
    if kind == "kvlist_value":
        return {pair.key: _value(pair.value) for pair in found.values}
    return None if kind == "bytes_value" else found
