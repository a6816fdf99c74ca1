"""Reading spans out of OTLP's JSON encoding.

The specification writes ids in hex, but some exporters write base64, as plain protobuf JSON does.
Enumerations come as numbers or names and 64-bit integers as strings or numbers.
"""

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from metering.decoders.native import EVENTS_MAX, require_shallow, require_utf8
from metering.decoders.otlp.kinds import is_of_interest
from metering.decoders.otlp.spans import SPAN_LENGTH, STATUS_ERROR, TRACE_LENGTH, Attributes, Span
from metering.errors import EventRejected, MalformedBody, TooManyEvents

_NANOS_MAX: Final = 2**64 - 1


class _Pair(msgspec.Struct):
    key: str = ""
    value: dict[str, Any] | None = None


class _Holder(msgspec.Struct):
    attributes: list[_Pair] | None = None


class _Scope(msgspec.Struct):
    name: str | None = None


class _Status(msgspec.Struct):
    code: int | str | None = None
    message: str | None = None


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    name: str | None = None
    start_time_unix_nano: int | str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: list[_Pair] | None = None
    events: list[_Holder] | None = None
    status: _Status | None = None


class _ScopeSpans(msgspec.Struct):
    scope: _Scope | None = None
    spans: list[msgspec.Raw] | None = None


class _ResourceSpans(msgspec.Struct, rename="camel"):
    resource: _Holder | None = None
    scope_spans: list[_ScopeSpans] | None = None


class _Request(msgspec.Struct, rename="camel"):
    resource_spans: list[_ResourceSpans] | None = None


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_span = msgspec.json.Decoder(_Span).decode


def read_json(body: bytes) -> list[Span | EventRejected]:
    """All spans, and why one cannot be read.

    Spans that speak of no model, tool or agent are without their attributes.

    Raises MalformedBody for what is not JSON of this form, TooManyEvents beyond the limit.
    """
    require_utf8(body)
    require_shallow(body)
    try:
        request = _decode_request(body)
    except msgspec.ValidationError as error:
        detail = f"The body is not an OTLP export request: {error}."
        raise MalformedBody("malformed_json", detail) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBody("malformed_json", f"The body is not JSON: {error}.") from error
    groups = request.resource_spans or []
    count = sum(len(s.spans or []) for group in groups for s in group.scope_spans or [])
    if count > EVENTS_MAX:
        raise TooManyEvents(count)
    return [span for group in groups for span in _spans(group)]


def _spans(group: _ResourceSpans) -> Iterator[Span | EventRejected]:
    resource = _attributes(group.resource.attributes if group.resource else None)
    for scope in group.scope_spans or []:
        scope_name = (scope.scope.name if scope.scope else None) or ""
        for raw in scope.spans or []:
            yield _read(bytes(raw), scope_name, resource)


def _read(raw: bytes, scope: str, resource: Attributes) -> Span | EventRejected:
    try:
        message = _decode_span(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        return EventRejected("invalid_value", f"A span cannot be read: {error}.")
    is_told = is_of_interest(pair.key for pair in message.attributes or [])
    status = message.status or _Status()
    try:
        return Span(
            trace=_id(message.trace_id, TRACE_LENGTH),
            span=_id(message.span_id, SPAN_LENGTH),
            parent=_id(message.parent_span_id, SPAN_LENGTH) or None,
            name=message.name or "",
            scope=scope,
            started_nanos=_nanos(message.start_time_unix_nano),
            ended_nanos=_nanos(message.end_time_unix_nano),
            status_code=_status(status.code),
            status_message=status.message or "",
            exception=_exception(message.events or []),
            attributes=_attributes(message.attributes) if is_told else {},
            resource=resource,
        )
    except ValueError as error:
        return EventRejected("invalid_value", f"A span cannot be read: {error}.")


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
    return {pair.key: _value(pair.value) for pair in pairs or []}


def _value(value: object) -> Any:
    """The plain value of OTLP's AnyValue; what is none of its kinds is left out."""
    if not isinstance(value, Mapping):
        return None
    for kind, found in value.items():
        if kind in _READERS:
            return _READERS[kind](found)
    return None


def _plain(found: object) -> Any:
    return found if isinstance(found, str | bool) else None


def _integer(found: object) -> Any:
    if isinstance(found, str) and len(found) <= 20 and found.removeprefix("-").isdecimal():
        return int(found)
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _double(found: object) -> Any:
    if found in ("NaN", "Infinity", "-Infinity"):
        return math.nan if found == "NaN" else math.inf
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None


def _array(found: object) -> Any:
    values = found.get("values") if isinstance(found, Mapping) else None
    return [_value(inner) for inner in values] if isinstance(values, list) else []


def _pairs(found: object) -> Any:
    values = found.get("values") if isinstance(found, Mapping) else None
    pairs = [inner for inner in values or [] if isinstance(inner, Mapping)]
    return {str(pair.get("key")): _value(pair.get("value")) for pair in pairs}


_READERS: Final = {
    "stringValue": _plain,
    "boolValue": _plain,
    "intValue": _integer,
    "doubleValue": _double,
    "arrayValue": _array,
    "kvlistValue": _pairs,
}
