"""Reading spans out of OTLP's protobuf encoding.

An export is cut into spans on the wire, and each is read by itself: a span that cannot be read is
rejected alone, and no more than one is in memory as a message. An attribute that nests deeper than
the protobuf library reads (100 levels) is left out.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from common.errors import EventRejected, MalformedBody
from metering.usage.decoders.otlp.parts import Parts
from metering.usage.decoders.otlp.signals import Foreign, Signal
from metering.usage.decoders.otlp.span_fields import source_of
from metering.usage.decoders.otlp.span_kinds import is_of_interest
from metering.usage.decoders.otlp.spans import (
    SPAN_LENGTH,
    TRACE_LENGTH,
    VALUE_LEVELS_MAX,
    Attributes,
    Span,
    is_needed,
)
from metering.usage.decoders.otlp.wire import FIXED64, LENGTH, Field, fields_of
from metering.usage.decoders.samples import redacted_sample

# Of `ExportTraceServiceRequest`, `ResourceSpans`, `ScopeSpans`; logs and metrics have the same.
_GROUPS: Final = 1
_RESOURCE: Final = 1
_SCOPE_GROUPS: Final = 2
_SCOPE: Final = 1
_ITEMS: Final = 2
# The repeated messages of a span that hold attributes, and those of a resource.
_IN_A_SPAN: Final[dict[int, type[Message]]] = {9: KeyValue, 11: SpanMessage.Event}
_IN_A_RESOURCE: Final[dict[int, type[Message]]] = {1: KeyValue}
M = TypeVar("M", bound=Message)
_TRACE_BYTES: Final = TRACE_LENGTH // 2
_SPAN_BYTES: Final = SPAN_LENGTH // 2


class _Group:
    """The spans of one scope in one process, still on the wire."""

    __slots__ = ("resource", "scope", "spans")

    def __init__(self, resource: Attributes, scope: str, spans: list[memoryview]) -> None:
        self.resource = resource
        self.scope = scope
        self.spans = spans


def read_protobuf(body: bytes, mapped: Collection[str] = ()) -> list[Span | EventRejected]:
    """All spans, and why one cannot be read. A request of another signal holds none.

    Spans that speak of no model, tool or agent, and have none of the mapped attributes, are without
    their attributes.

    Raises MalformedBody for what is not protobuf of this form, TooManyEvents beyond the limit.
    """
    try:
        groups = list(_groups(memoryview(body)))
    except (ValueError, DecodeError) as error:
        detail = "The body is not an OTLP export request in protobuf."
        raise MalformedBody("malformed_protobuf", detail) from error
    if _signal_of(groups) is not None:
        return []
    return [_read(raw, group, mapped) for group in groups for raw in group.spans]


def foreign_export(body: bytes) -> Foreign | None:
    """Return what a body is that holds logs or metrics instead of spans."""
    try:
        groups = list(_groups(memoryview(body)))
    except (ValueError, DecodeError):
        return None
    signal = _signal_of(groups)
    return None if signal is None else Foreign(signal, source_of(groups[0].resource))


def _groups(body: memoryview) -> Iterator[_Group]:
    parts = Parts()
    for number, group in _messages_of(parts, body, _GROUPS, "resources"):
        if number != _GROUPS:
            continue
        resource: Attributes = {}
        scopes: list[memoryview] = []
        for inner, content in _messages_of(parts, group, _SCOPE_GROUPS, "scopes"):
            if inner == _RESOURCE:
                message = _parse(Resource, content, _IN_A_RESOURCE)
                resource = _attributes(message.attributes)
            elif inner == _SCOPE_GROUPS:
                scopes.append(content)
        for scope in scopes:
            yield _scope_group(parts, scope, resource)


def _scope_group(parts: Parts, scope: memoryview, resource: Attributes) -> _Group:
    name = ""
    spans: list[memoryview] = []
    for number, content in _messages_of(parts, scope, _ITEMS, "spans"):
        if number == _SCOPE:
            name = _scope_name(content)
        elif number == _ITEMS:
            spans.append(content)
    return _Group(resource, name, spans)


def _messages_of(
    parts: Parts, message: memoryview, number: int, what: str
) -> Iterator[tuple[int, memoryview]]:
    """Yield the messages in a message by the number of their field, those of one number counted."""
    for field in fields_of(message):
        is_message = field.wire_type == LENGTH
        parts.count(what if is_message and field.number == number else "further fields")
        if is_message:
            yield field.number, field.content


def _scope_name(raw: memoryview) -> str:
    try:
        return InstrumentationScope.FromString(bytes(raw)).name
    except DecodeError:
        return ""


def _signal_of(groups: list[_Group]) -> Signal | None:
    """Return which other signal this is: the three have one form down to their items."""
    item = next((raw for group in groups for raw in group.spans), None)
    if item is None:
        return None
    try:
        fields = list(fields_of(item))
    except ValueError:
        return None
    wire_types = {field.number: field.wire_type for field in fields}
    lengths = {field.number: len(field.content) for field in fields}
    if wire_types.get(1) == FIXED64 or (1 not in wire_types and wire_types.get(11) == FIXED64):
        return "logs"
    is_span = lengths.get(1) == _TRACE_BYTES and lengths.get(2) == _SPAN_BYTES
    has_points = any(wire_types.get(number) == LENGTH for number in (5, 7, 9, 10, 11))
    has_times = FIXED64 in (wire_types.get(7), wire_types.get(8))
    is_metric = wire_types.get(1) == LENGTH and has_points and not has_times and not is_span
    return "metrics" if is_metric else None


def _read(raw: memoryview, group: _Group, mapped: Collection[str]) -> Span | EventRejected:
    try:
        message = _parse(SpanMessage, raw, _IN_A_SPAN)
    except (ValueError, DecodeError):
        return EventRejected(
            "invalid_value",
            "A span cannot be read: it is not protobuf of OTLP's form.",
            event_id=_event_id(raw),
            source=source_of(group.resource),
            sample=redacted_sample({"scope": group.scope, "span": bytes(raw)}),
        )
    is_told = is_of_interest((pair.key for pair in message.attributes), mapped)
    return Span(
        trace=message.trace_id.hex(),
        span=message.span_id.hex(),
        parent=message.parent_span_id.hex() or None,
        name=message.name,
        scope=group.scope,
        started_nanos=message.start_time_unix_nano,
        ended_nanos=message.end_time_unix_nano,
        status_code=message.status.code,
        status_message=message.status.message,
        exception=_exception(message),
        attributes=_attributes(message.attributes) if is_told else {},
        resource=group.resource,
    )


def _parse(form: type[M], raw: memoryview, holders: dict[int, type[Message]]) -> M:
    """Return the message, without the attributes that cannot be read. Raises DecodeError or
    ValueError.
    """
    try:
        return form.FromString(bytes(raw))
    except DecodeError:
        kept = [field.whole for field in fields_of(raw) if _can_be_read(field, holders)]
        return form.FromString(b"".join(kept))


def _can_be_read(field: Field, holders: dict[int, type[Message]]) -> bool:
    form = holders.get(field.number)
    if form is None or field.wire_type != LENGTH:
        return True
    try:
        form.FromString(bytes(field.content))
    except DecodeError:
        return False
    return True


def _event_id(raw: memoryview) -> str | None:
    try:
        fields = {field.number: bytes(field.content) for field in fields_of(raw)}
    except ValueError:
        return None
    trace, span = fields.get(1, b""), fields.get(2, b"")
    is_named = len(trace) == _TRACE_BYTES and len(span) == _SPAN_BYTES
    return f"{trace.hex()}-{span.hex()}" if is_named else None


def _exception(message: SpanMessage) -> str | None:
    for event in message.events:
        for pair in event.attributes:
            if pair.key == "exception.type":
                return pair.value.string_value or None
    return None


def _attributes(pairs: Iterable[KeyValue]) -> Attributes:
    return {pair.key: _value(pair.value) for pair in pairs if is_needed(pair.key)}


def _value(value: AnyValue, levels: int = VALUE_LEVELS_MAX) -> object:
    """Return the plain value. What nests deeper than anyone needs is left out."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(value, kind)
    if kind in ("array_value", "kvlist_value"):
        if not levels:
            return None
        if kind == "array_value":
            return [_value(inner, levels - 1) for inner in content.values]
        return {pair.key: _value(pair.value, levels - 1) for pair in content.values}
    return None if kind == "bytes_value" else content
