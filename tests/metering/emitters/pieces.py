"""Bodies taken apart into single spans or callback payloads, and put together again in any groups.

A piece keeps what stands around it (resource and scope), so a span that is sent alone says what it
said in the middle of its export.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from common.json_bodies import JsonObject

TRACES: Final = "/v1/traces"
LITELLM: Final = "/v1/integrations/litellm"
JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"

SECOND_NANOS: Final = 10**9
# Times of a span in OTLP's JSON, and of its events.
SPAN_TIMES: Final = ("startTimeUnixNano", "endTimeUnixNano")
CALLBACK_TIMES: Final = ("startTime", "endTime", "completionStartTime")


class Body(NamedTuple):
    """One request as a client posts it."""

    path: str
    content_type: str
    content: bytes


class Piece(NamedTuple):
    """One span or one callback payload. `around` is its resource and scope without other spans."""

    path: str
    content_type: str
    around: Any
    item: Any
    ended_at_nanos: int


def split(body: Body) -> list[Piece]:
    """The pieces of a body, in its order."""
    if body.path == LITELLM:
        return list(_split_callback(body))
    if body.content_type == JSON:
        return list(_split_json(body))
    return list(_split_protobuf(body))


def join(pieces: Sequence[Piece]) -> Body:
    """One body of these pieces, in this order. They must be of one path and one content type."""
    ((path, content_type),) = {(piece.path, piece.content_type) for piece in pieces}
    if path == LITELLM:
        content = json.dumps([piece.item for piece in pieces]).encode()
    elif content_type == JSON:
        content = _join_json(pieces)
    else:
        content = _join_protobuf(pieces)
    return Body(path, content_type, content)


def moved(piece: Piece, by_nanos: int) -> Piece:
    """The piece with every one of its times moved."""
    item: Any
    if piece.path == LITELLM:
        item = _moved_payload(piece.item, by_nanos)
    elif piece.content_type == JSON:
        item = _moved_json(piece.item, by_nanos)
    else:
        item = _moved_span(piece.item, by_nanos)
    return piece._replace(item=item, ended_at_nanos=piece.ended_at_nanos + by_nanos)


def in_order_of_end(pieces: Sequence[Piece]) -> list[Body]:
    """A body a piece, as exporters that do not batch send them: children before their parents."""
    return [join([piece]) for piece in sorted(pieces, key=lambda piece: piece.ended_at_nanos)]


def at_random(pieces: Sequence[Piece], random: Random) -> list[Body]:
    """The pieces in a random order, cut into bodies at random places."""
    mixed = random.sample(pieces, len(pieces))
    bodies, start = [], 0
    while start < len(mixed):
        size = random.choice((1, 1, 2, 3, 5, 8, len(mixed)))
        bodies.append(join(mixed[start : start + size]))
        start += size
    return bodies


# OTLP's protobuf.


def _split_protobuf(body: Body) -> Iterator[Piece]:
    request = ExportTraceServiceRequest.FromString(body.content)
    for resource in request.resource_spans:
        outer = ResourceSpans()
        outer.CopyFrom(resource)
        outer.ClearField("scope_spans")
        for scope in resource.scope_spans:
            inner = ScopeSpans()
            inner.CopyFrom(scope)
            inner.ClearField("spans")
            for span in scope.spans:
                yield Piece(*body[:2], (outer, inner), span, span.end_time_unix_nano)


def _join_protobuf(pieces: Sequence[Piece]) -> bytes:
    request = ExportTraceServiceRequest()
    last: Any = None
    for piece in pieces:
        outer, inner = piece.around
        if last is None or outer != last[0]:
            request.resource_spans.append(outer)
        if last is None or (outer, inner) != last:
            request.resource_spans[-1].scope_spans.append(inner)
        request.resource_spans[-1].scope_spans[-1].spans.append(piece.item)
        last = piece.around
    return request.SerializeToString()


def _moved_span(span: Span, by_nanos: int) -> Span:
    result = Span()
    result.CopyFrom(span)
    result.start_time_unix_nano += by_nanos
    result.end_time_unix_nano += by_nanos
    for event in result.events:
        event.time_unix_nano += by_nanos
    return result


# OTLP's JSON, left as the emitter wrote it but for the times.


def _split_json(body: Body) -> Iterator[Piece]:
    for resource in json.loads(body.content)["resourceSpans"]:
        outer = {key: value for key, value in resource.items() if key != "scopeSpans"}
        for scope in resource["scopeSpans"]:
            inner = {key: value for key, value in scope.items() if key != "spans"}
            for span in scope["spans"]:
                yield Piece(*body[:2], (outer, inner), span, int(span["endTimeUnixNano"]))


def _join_json(pieces: Sequence[Piece]) -> bytes:
    resources: list[JsonObject] = []
    last: Any = None
    for piece in pieces:
        outer, inner = piece.around
        if last is None or outer != last[0]:
            resources.append({**outer, "scopeSpans": []})
        if last is None or (outer, inner) != last:
            resources[-1]["scopeSpans"].append({**inner, "spans": []})
        resources[-1]["scopeSpans"][-1]["spans"].append(piece.item)
        last = piece.around
    return json.dumps({"resourceSpans": resources}).encode()


def _moved_json(span: JsonObject, by_nanos: int) -> JsonObject:
    result = copy.deepcopy(span)
    for holder in (result, *result.get("events", ())):
        for name in (*SPAN_TIMES, "timeUnixNano"):
            if name in holder:
                # Written as a number or as a string, and left so.
                kind = type(holder[name])
                holder[name] = kind(int(holder[name]) + by_nanos)
    return result


# LiteLLM's callback.


def _split_callback(body: Body) -> Iterator[Piece]:
    for payload in json.loads(body.content):
        ended_at_nanos = int(payload["endTime"] * SECOND_NANOS)
        yield Piece(*body[:2], None, payload, ended_at_nanos)


def _moved_payload(payload: JsonObject, by_nanos: int) -> JsonObject:
    times = {name: payload[name] for name in CALLBACK_TIMES if payload.get(name)}
    return {
        **payload,
        **{name: at + by_nanos / SECOND_NANOS for name, at in times.items()},
    }
