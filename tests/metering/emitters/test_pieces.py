"""Bodies are taken apart and put together without loss; the tests of orders rest on that."""

import json
from random import Random

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.metering.emitters.pieces import (
    JSON,
    LITELLM,
    PROTOBUF,
    TRACES,
    Body,
    Piece,
    at_random,
    in_order_of_end,
    join,
    moved,
    split,
)
from tests.metering.emitters.recordings import captured
from tests.metering.usage.decoders.spans import AGENT, CHAT, TOOL, Export


def three_spans() -> Export:
    made = Export("scope", service__name="svc")
    for attributes in (AGENT, CHAT, TOOL):
        made.add(attributes, parent=1 if attributes is not AGENT else 0)
    for number in (1, 2, 3):
        made.span(number).end_time_unix_nano += 10 - number
        made.span(number).events.add(name="said", time_unix_nano=5)
    other = made.request.resource_spans.add()
    other.resource.attributes.add(key="service.name").value.string_value = "other"
    inner = other.scope_spans.add()
    inner.spans.add().CopyFrom(made.span(2))
    inner.spans[0].span_id = bytes(range(8))
    return made


PAYLOADS = [
    {"id": "a", "startTime": 100.5, "endTime": 102.5, "completionStartTime": None},
    {"id": "b", "startTime": 100.5, "endTime": 101.5, "completionStartTime": 101.0},
]


def bodies() -> dict[str, Body]:
    spans = three_spans()
    resources = json.loads(spans.json(is_hex=False))
    return {
        "protobuf": Body(TRACES, PROTOBUF, spans.protobuf()),
        "json": Body(TRACES, JSON, json.dumps(resources).encode()),
        "litellm": Body(LITELLM, JSON, json.dumps(PAYLOADS).encode()),
    }


def meaning(body: Body) -> object:
    if body.content_type == PROTOBUF:
        return ExportTraceServiceRequest.FromString(body.content)
    return json.loads(body.content)


def told(pieces: list[Piece]) -> list[str]:
    """What pieces say together, in whatever order."""
    return sorted(repr((piece.around, piece.item)) for piece in pieces)


@pytest.mark.parametrize("kind", bodies())
def test_a_body_is_the_same_after_it_was_taken_apart(kind: str) -> None:
    body = bodies()[kind]
    pieces = split(body)
    assert len(pieces) == (2 if kind == "litellm" else 4)
    assert meaning(join(pieces)) == meaning(body)


@pytest.mark.parametrize("kind", bodies())
def test_random_bodies_hold_every_piece_once(kind: str) -> None:
    pieces = split(bodies()[kind])
    several = [at_random(pieces, Random(seed)) for seed in range(20)]
    for made in several:
        assert told([piece for body in made for piece in split(body)]) == told(pieces)
    assert len({len(made) for made in several}) > 1
    assert len({tuple(body.content for body in made) for made in several}) > 2


@pytest.mark.parametrize("kind", bodies())
def test_a_piece_a_body_comes_in_order_of_the_ends(kind: str) -> None:
    made = [split(body) for body in in_order_of_end(split(bodies()[kind]))]
    assert all(len(pieces) == 1 for pieces in made)
    ends = [piece.ended_at_nanos for (piece,) in made]
    assert ends == sorted(ends)
    assert ends != [piece.ended_at_nanos for piece in split(bodies()[kind])]


@pytest.mark.parametrize("kind", bodies())
def test_all_times_move_by_one_offset(kind: str) -> None:
    pieces = split(bodies()[kind])
    later = [moved(piece, 2 * 10**9) for piece in pieces]
    assert told(later) != told(pieces)
    assert told([moved(piece, -2 * 10**9) for piece in later]) == told(pieces)
    for before, after in zip(pieces, later, strict=True):
        assert after.ended_at_nanos - before.ended_at_nanos == 2 * 10**9
        assert split(join([after]))[0].ended_at_nanos == after.ended_at_nanos


def test_the_runs_in_the_repository_are_whole() -> None:
    sizes = {"python-otel/oai-v2b": 14, "python-otel/lc-ls": 28, "claude-code/cc-tool": 6}
    assert {run: len(captured(run).pieces) for run in sizes} == sizes
