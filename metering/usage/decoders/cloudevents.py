"""CloudEvents 1.0 that carry a usage event as their data, in structured, batch and binary mode.

The envelope identifies the event: its `id` and `source` are the event's, and so is its `time` where
it has one. Data may leave them out; when it repeats them, the envelope's count. `subject` is the
customer when the data names none. Data that count `tokens` of one `type`, as OpenMeter's do, are
read where it is plain which tokens they are.
"""

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec

from common.errors import EventRejected, MalformedBody
from common.json_bodies import require_shallow, require_utf8
from metering.usage.decoders.assembly import count, tags
from metering.usage.decoders.native import (
    Decoded,
    EventBody,
    decode_item,
    field_problem,
    require_json,
    split_array,
)
from metering.usage.decoders.samples import with_sample

SPEC_VERSION: Final = "1.0"


class _Envelope(msgspec.Struct):
    """The attributes that matter here. `type` and extensions may hold anything."""

    id: str | None = None
    source: str | None = None
    specversion: str | None = None
    time: str | None = None
    subject: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | None = None


# OpenMeter counts one kind of token an event, and names the kind so.
_OPENMETER: Final = ("tokens", "type")
_FIELD_BY_TYPE: Final = {
    "input": "input_tokens",
    "prompt": "input_tokens",
    "output": "output_tokens",
    "completion": "output_tokens",
}
_FIELDS: Final = frozenset(EventBody.__struct_fields__)
_COUNTS: Final = frozenset({"usage", "input_tokens", "output_tokens"})

_decode_any = msgspec.json.Decoder(object).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode_structured(body: bytes) -> list[Decoded]:
    """One CloudEvent (`application/cloudevents+json`)."""
    require_utf8(body)
    require_shallow(body)
    return [_decode_event(body)]


def decode_batch(body: bytes) -> list[Decoded]:
    """Decode an array of CloudEvents (`application/cloudevents-batch+json`)."""
    require_utf8(body)
    items = [bytes(item) for item in split_array(body)]
    for item in items:
        require_shallow(item, depth=1)
    return [_decode_event(item) for item in items]


def decode_binary(headers: Mapping[str, str], body: bytes) -> list[Decoded]:
    """Decode a CloudEvent whose attributes are the headers `ce-…` and whose data is the body."""
    attributes = {
        key.lower().removeprefix("ce-"): unquote(_text(value), errors="replace")
        for key, value in headers.items()
        if key.lower().startswith("ce-")
    }
    if attributes.get("source") == "":
        detail = (
            "The header 'ce-source' is empty, or not ASCII, of which nothing arrives: write other"
            " characters percent-encoded, as CloudEvents has it."
        )
        event_id = attributes.get("id")
        return [EventRejected("missing_field", detail, pointer="/source", event_id=event_id)]
    require_utf8(body)
    require_shallow(body)
    named = {key: attributes.get(key) for key in ("id", "source", "specversion", "time", "subject")}
    return [_open(_Envelope(**named, data=msgspec.Raw(body)))]


def _text(value: str) -> str:
    """Return a header's value. Its bytes come as Latin-1, and are UTF-8 if they are not ASCII."""
    try:
        return value if value.isascii() else value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _decode_event(raw: bytes) -> Decoded:
    try:
        envelope = _decode_envelope(raw)
    except msgspec.ValidationError as error:
        require_json(raw)
        _, detail, pointer = field_problem(error, _Envelope)
        return EventRejected("invalid_value", f"The envelope: {detail}", pointer=pointer)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBody("malformed_json", f"The body is not JSON: {error}.") from error
    return _open(envelope)


def _open(envelope: _Envelope) -> Decoded:
    if refusal := _refusal(envelope):
        return refusal
    data = _data(envelope)
    if isinstance(data, EventRejected):
        return data
    try:
        fields = _decode_fields(data)
    except msgspec.ValidationError:
        require_json(data)
        return _rejected(envelope, "/data", "The data is not a JSON object with an event.")
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBody("malformed_json", f"The data is not JSON: {error}.") from error
    if "tokens" in fields and (refusal := _read_openmeter(fields, envelope)):
        return refusal
    _name(fields, envelope)
    return with_sample(decode_item(msgspec.json.encode(fields)), data, source=envelope.source)


def _refusal(envelope: _Envelope) -> EventRejected | None:
    for attribute in ("specversion", "id", "source"):
        if not getattr(envelope, attribute):
            return EventRejected(
                "missing_field",
                f"The CloudEvent has no {attribute!r}.",
                pointer=f"/{attribute}",
                event_id=envelope.id,
            )
    if envelope.specversion != SPEC_VERSION:
        detail = f"specversion {envelope.specversion!r} is not {SPEC_VERSION!r}."
        return _rejected(envelope, "/specversion", detail)
    kind = (envelope.datacontenttype or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return _rejected(envelope, "/datacontenttype", f"Data of type {kind!r} is not JSON.")
    return None


def _data(envelope: _Envelope) -> bytes | EventRejected:
    if envelope.data is not msgspec.UNSET:
        return bytes(envelope.data)
    if envelope.data_base64 is None:
        return EventRejected(
            "missing_field",
            "The CloudEvent has neither 'data' nor 'data_base64'.",
            pointer="/data",
            event_id=envelope.id,
        )
    try:
        data = base64.b64decode(envelope.data_base64, validate=True)
        require_utf8(data)
        require_shallow(data)
        _decode_any(data)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError, MalformedBody):
        # The body around it is sound, so this is the fault of one event alone.
        return _rejected(envelope, "/data_base64", "data_base64 does not hold JSON.")
    return data


def _read_openmeter(fields: dict[str, msgspec.Raw], envelope: _Envelope) -> EventRejected | None:
    """Turn OpenMeter's own fields into an event's; what else the data hold become tags."""
    tokens, kind = (_plain(fields.pop(key, None)) for key in _OPENMETER)
    field = _FIELD_BY_TYPE.get(kind.lower()) if isinstance(kind, str) else None
    if field is None or not _COUNTS.isdisjoint(fields):
        detail = (
            'The data count \'tokens\' without saying which: send "type": "input" or'
            " \"type\": \"output\" with them, or 'input_tokens' and 'output_tokens' instead."
        )
        return _rejected(envelope, "/data/tokens", detail)
    try:
        used = count(tokens)
    except ValueError as error:
        return _rejected(envelope, "/data/tokens", f"{error}.")
    fields |= {"input_tokens": _raw(0), "output_tokens": _raw(0)} | {field: _raw(used)}
    free = {key: fields.pop(key) for key in fields.keys() - _FIELDS}
    pairs = tags({key: _plain(value) for key, value in free.items()})
    if pairs and "tags" not in fields:
        fields["tags"] = _raw(pairs)
    return None


def _plain(raw: msgspec.Raw | None) -> object:
    try:
        return None if raw is None else _decode_any(raw)
    except msgspec.ValidationError:  # a number that no computer holds
        return math.inf


def _name(fields: dict[str, msgspec.Raw], envelope: _Envelope) -> None:
    """Let the envelope say which event this is, and for whom when the data does not."""
    fields["id"] = _raw(envelope.id)
    fields["source"] = _raw(envelope.source)
    if envelope.time is not None:
        fields["time"] = _raw(envelope.time)
    if envelope.subject and bytes(fields.get("customer", b"null")).strip() == b"null":
        fields["customer"] = _raw(envelope.subject)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _rejected(envelope: _Envelope, pointer: str, detail: str) -> EventRejected:
    return EventRejected(
        "invalid_value", detail, pointer=pointer, event_id=envelope.id, source=envelope.source
    )
