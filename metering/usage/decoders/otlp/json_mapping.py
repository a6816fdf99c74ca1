"""Reading spans out of OTLP's JSON encoding.

The specification writes ids in hex, but some exporters write base64, as plain protobuf JSON does.
Enumerations come as numbers or names and 64-bit integers as strings or numbers, fields in camel
case or as protobuf names them. A span that cannot be read is rejected alone.
"""

import base64
import binascii
import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from common.errors import EventRejected, MalformedBody, TooManyEvents
from common.expectations import must_be_object
from common.json_bodies import require_utf8
from metering.usage.decoders.json_items import Part, without_deep_parts, without_lone_surrogates
from metering.usage.decoders.native import EVENTS_MAX
from metering.usage.decoders.otlp.parts import json_parts, require_few_parts
from metering.usage.decoders.otlp.signals import Foreign
from metering.usage.decoders.otlp.span_fields import source_of
from metering.usage.decoders.otlp.span_kinds import is_of_interest
from metering.usage.decoders.otlp.spans import (
    SPAN_LENGTH,
    STATUS_ERROR,
    TRACE_LENGTH,
    VALUE_LEVELS_MAX,
    Attributes,
    Span,
    is_id,
    is_needed,
)
from metering.usage.decoders.samples import redacted_sample

_NANOS_MAX: Final = 2**64 - 1
# Beyond what Python can read of nested JSON; each level of a value takes up to four.
_LEVELS_KEPT: Final = 400


class _Pair(msgspec.Struct):
    key: str = ""
    value: Part = msgspec.UNSET


class _Holder(msgspec.Struct):
    attributes: list[_Pair] | None = None


class _Scope(msgspec.Struct):
    name: str | None = None


class _Status(msgspec.Struct):
    code: int | str | None = None
    message: str | None = None


class _Span(msgspec.Struct):
    """A span. Some exporters write the names of protobuf's fields as they are."""

    trace_id: str | None = msgspec.field(name="traceId", default=None)
    snake_trace_id: str | None = msgspec.field(name="trace_id", default=None)
    span_id: str | None = msgspec.field(name="spanId", default=None)
    snake_span_id: str | None = msgspec.field(name="span_id", default=None)
    parent_id: str | None = msgspec.field(name="parentSpanId", default=None)
    snake_parent_id: str | None = msgspec.field(name="parent_span_id", default=None)
    name: str | None = None
    started: int | str | None = msgspec.field(name="startTimeUnixNano", default=None)
    snake_started: int | str | None = msgspec.field(name="start_time_unix_nano", default=None)
    ended: int | str | None = msgspec.field(name="endTimeUnixNano", default=None)
    snake_ended: int | str | None = msgspec.field(name="end_time_unix_nano", default=None)
    attributes: list[_Pair] | None = None
    events: list[_Holder] | None = None
    status: _Status | None = None


class _Ids(msgspec.Struct):
    """Which span it is, where nothing else of it can be read."""

    trace_id: object = msgspec.field(name="traceId", default=None)
    snake_trace_id: object = msgspec.field(name="trace_id", default=None)
    span_id: object = msgspec.field(name="spanId", default=None)
    snake_span_id: object = msgspec.field(name="span_id", default=None)


class _ScopeSpans(msgspec.Struct):
    scope: _Scope | None = None
    spans: list[msgspec.Raw] | None = None


class _ResourceSpans(msgspec.Struct):
    resource: _Holder | None = None
    scopes: list[_ScopeSpans | None] | None = msgspec.field(name="scopeSpans", default=None)
    snake_scopes: list[_ScopeSpans | None] | None = msgspec.field(name="scope_spans", default=None)

    @property
    def all_scopes(self) -> list[_ScopeSpans | None]:
        return [*(self.scopes or []), *(self.snake_scopes or [])]


class _Request(msgspec.Struct):
    groups: list[msgspec.Raw] | None = msgspec.field(name="resourceSpans", default=None)
    snake_groups: list[msgspec.Raw] | None = msgspec.field(name="resource_spans", default=None)

    @property
    def all_groups(self) -> list[_ResourceSpans | EventRejected]:
        return [_group(bytes(raw)) for raw in (*(self.groups or []), *(self.snake_groups or []))]


def _group(raw: bytes) -> _ResourceSpans | EventRejected:
    """Return the spans of one process, or why they cannot be read, which loses no others."""
    try:
        return _decode_group(raw)
    except RecursionError:
        raw = without_deep_parts(raw, levels=_LEVELS_KEPT)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        return EventRejected("invalid_value", f"An entry of resourceSpans: {error}.")
    try:
        return _decode_group(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return EventRejected("invalid_value", f"An entry of resourceSpans: {error}.")


class _ForeignGroup(msgspec.Struct):
    resource: _Holder | None = None

    def __post_init__(self) -> None:
        json_parts.count("resources")


class _Foreign(msgspec.Struct):
    """What a request of another signal is known by."""

    logs: list[_ForeignGroup] | None = msgspec.field(name="resourceLogs", default=None)
    snake_logs: list[_ForeignGroup] | None = msgspec.field(name="resource_logs", default=None)
    metrics: list[_ForeignGroup] | None = msgspec.field(name="resourceMetrics", default=None)
    snake_metrics: list[_ForeignGroup] | None = msgspec.field(name="resource_metrics", default=None)


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_group = msgspec.json.Decoder(_ResourceSpans).decode
_decode_span = msgspec.json.Decoder(_Span).decode
_decode_ids = msgspec.json.Decoder(_Ids).decode
_decode_value = msgspec.json.Decoder(object).decode


def read_json(body: bytes, mapped: Collection[str] = ()) -> list[Span | EventRejected]:
    """All spans, and why one cannot be read. A request of another signal holds none.

    Spans that speak of no model, tool or agent, and have none of the mapped attributes, are without
    their attributes.

    Raises MalformedBody for what is not JSON of this form, TooManyEvents beyond the limit.
    """
    require_few_parts(body)
    entries = _request(body).all_groups
    groups = [entry for entry in entries if isinstance(entry, _ResourceSpans)]
    rejected = [entry for entry in entries if isinstance(entry, EventRejected)]
    scopes = [scope for group in groups for scope in group.all_scopes if scope is not None]
    count = sum(len(scope.spans or []) for scope in scopes)
    if count > EVENTS_MAX:
        raise TooManyEvents(count, what="spans")
    if not count:
        require_utf8(body)
    return [*rejected, *(span for group in groups for span in _spans(group, mapped))]


def foreign_export(body: bytes) -> Foreign | None:
    """Return what a body is that holds logs or metrics instead of spans."""
    json_parts.begin()
    try:
        foreign = msgspec.json.decode(body, type=_Foreign)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if logs := foreign.logs or foreign.snake_logs:
        return Foreign("logs", _source(logs[0]))
    if metrics := foreign.metrics or foreign.snake_metrics:
        return Foreign("metrics", _source(metrics[0]))
    return None


def _source(group: _ForeignGroup) -> str:
    return source_of(_resource(group.resource))


def _request(body: bytes) -> _Request:
    try:
        return _decode_request(body)
    except RecursionError:
        body = without_deep_parts(body, levels=_LEVELS_KEPT)
    except (msgspec.DecodeError, UnicodeDecodeError):
        require_utf8(body)  # says more where it is the reason
        body = without_lone_surrogates(body)
    try:
        return _decode_request(body)
    except msgspec.ValidationError as error:
        detail = f"The body is not an OTLP export request: {error}."
        raise MalformedBody("malformed_json", detail) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBody("malformed_json", f"The body is not JSON: {error}.") from error


def _spans(group: _ResourceSpans, mapped: Collection[str]) -> Iterator[Span | EventRejected]:
    resource = _resource(group.resource)
    for scope in group.all_scopes:
        if scope is None:
            yield EventRejected("invalid_value", f"An entry of scopeSpans {must_be_object()}.")
            continue
        scope_name = (scope.scope.name if scope.scope else None) or ""
        for raw in scope.spans or []:
            yield _read(bytes(raw), scope_name, resource, mapped)


def _read(
    raw: bytes, scope: str, resource: Attributes, mapped: Collection[str]
) -> Span | EventRejected:
    try:
        require_utf8(raw)
        message = _span_message(raw)
        is_told = is_of_interest((pair.key for pair in message.attributes or []), mapped)
        status = message.status or _Status()
        return Span(
            trace=_id(message.trace_id or message.snake_trace_id, TRACE_LENGTH),
            span=_id(message.span_id or message.snake_span_id, SPAN_LENGTH),
            parent=_id(message.parent_id or message.snake_parent_id, SPAN_LENGTH) or None,
            name=message.name or "",
            scope=scope,
            started_nanos=_nanos(message.started or message.snake_started),
            ended_nanos=_nanos(message.ended or message.snake_ended),
            status_code=_status(status.code),
            status_message=status.message or "",
            exception=_exception(message.events or []),
            attributes=_attributes(message.attributes) if is_told else {},
            resource=resource,
        )
    except (MalformedBody, msgspec.DecodeError, RecursionError, ValueError) as error:
        reason = error.detail if isinstance(error, MalformedBody) else f"{error}."
        return EventRejected(
            "invalid_value",
            f"A span cannot be read: {reason}",
            event_id=_event_id(raw),
            source=source_of(resource),
            sample=redacted_sample({"scope": scope, "span": msgspec.Raw(raw)}),
        )


def _span_message(raw: bytes) -> _Span:
    try:
        return _decode_span(raw)
    except RecursionError:
        return _decode_span(without_deep_parts(raw, levels=_LEVELS_KEPT))


def _event_id(raw: bytes) -> str | None:
    try:
        ids = _decode_ids(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    trace, span = ids.trace_id or ids.snake_trace_id, ids.span_id or ids.snake_span_id
    if not isinstance(trace, str) or not isinstance(span, str):
        return None
    trace, span = _id(trace, TRACE_LENGTH), _id(span, SPAN_LENGTH)
    is_named = is_id(trace, TRACE_LENGTH) and is_id(span, SPAN_LENGTH)
    return f"{trace}-{span}" if is_named else None


def _id(given: str | None, length: int) -> str:
    """Lower-case hex out of hex or base64, which differ in length; else as given, to be refused."""
    if not given or len(given) == length:
        return (given or "").lower()
    try:
        return base64.b64decode(given, validate=True).hex()
    except (binascii.Error, ValueError):
        return given


def _nanos(given: int | str | None) -> int:
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= 20:
        given = int(given)
    if not given:
        return 0
    if isinstance(given, str) or not 0 < given <= _NANOS_MAX:
        raise ValueError(f"{str(given)[:50]!r} is no time in nanoseconds")
    return given


def _status(code: int | str | None) -> int:
    is_error = code in (STATUS_ERROR, str(STATUS_ERROR), "STATUS_CODE_ERROR")
    return STATUS_ERROR if is_error else 0


def _exception(events: list[_Holder]) -> str | None:
    for event in events:
        kind = _attributes(event.attributes).get("exception.type")
        if isinstance(kind, str) and kind:
            return kind
    return None


def _attributes(pairs: list[_Pair] | None) -> Attributes:
    return {pair.key: _read_value(pair.value) for pair in pairs or [] if is_needed(pair.key)}


def _resource(holder: _Holder | None) -> Attributes:
    """Return what a process says of itself. What cannot be read of it is no fault of its spans."""
    attributes: Attributes = {}
    for pair in (holder and holder.attributes) or []:
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            attributes[pair.key] = _read_value(pair.value)
    return attributes


def _read_value(raw: Part) -> object:
    if isinstance(raw, msgspec.UnsetType):
        return None
    try:
        return _value(_decode_value(raw))
    except RecursionError:
        return _value(_decode_value(without_deep_parts(bytes(raw), levels=_LEVELS_KEPT)))


def _value(value: object, levels: int = VALUE_LEVELS_MAX) -> object:
    """Return the plain value of OTLP's AnyValue. What is none of its kinds, or deeper than anyone
    needs, is left out.
    """
    if not isinstance(value, Mapping):
        return None
    for kind, inner in value.items():
        if kind in _READERS:
            return _READERS[kind](inner)
        if kind in _HOLDERS:
            return _HOLDERS[kind](inner, levels - 1) if levels else None
    return None


def _plain(inner: object) -> object:
    return inner if isinstance(inner, str | bool) else None


_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")


def _integer(inner: object) -> object:
    if isinstance(inner, str) and _INTEGER.fullmatch(inner):
        return int(inner)
    return inner if isinstance(inner, int | float) and not isinstance(inner, bool) else None


def _double(inner: object) -> object:
    if inner in ("NaN", "Infinity", "-Infinity"):
        return math.nan if inner == "NaN" else math.inf
    return inner if isinstance(inner, int | float) and not isinstance(inner, bool) else None


def _array(inner: object, levels: int) -> object:
    values = inner.get("values") if isinstance(inner, Mapping) else None
    return [_value(inner, levels) for inner in values] if isinstance(values, list) else []


def _pairs(inner: object, levels: int) -> object:
    values = inner.get("values") if isinstance(inner, Mapping) else None
    pairs = [inner for inner in values or [] if isinstance(inner, Mapping)]
    return {str(pair.get("key")): _value(pair.get("value"), levels) for pair in pairs}


_READERS: Final = {
    "stringValue": _plain,
    "string_value": _plain,
    "boolValue": _plain,
    "bool_value": _plain,
    "intValue": _integer,
    "int_value": _integer,
    "doubleValue": _double,
    "double_value": _double,
}
_HOLDERS: Final = {
    "arrayValue": _array,
    "array_value": _array,
    "kvlistValue": _pairs,
    "kvlist_value": _pairs,
}
