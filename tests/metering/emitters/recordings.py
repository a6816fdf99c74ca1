"""What real emitters sent: captured runs, traces of frameworks, and replayed recordings.

Three small captured runs lie in `tests/metering/data`. The others are beside the repository.
"""

import gzip
import json
import time
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from common.json_bodies import JsonObject
from tests.metering.emitters.pieces import (
    JSON,
    LITELLM,
    PROTOBUF,
    SECOND_NANOS,
    TRACES,
    Body,
    Piece,
    join,
    moved,
    split,
)
from tests.metering.usage.decoders.spans import fill
from tests.metering.usage.decoders.test_otlp_recorded import (
    DATA,
    FRAMEWORKS,
    RECORDED,
    attributes_of,
    parsed,
)

CAPTURED: Final = DATA / "emitters" / "captured"
COPIED: Final = Path(__file__).parents[1] / "data" / "captured"
# Logs and metrics have no address yet; what a run tells by them is not told here.
READ_PATHS: Final = (TRACES, LITELLM)
# One moment for the whole run of tests: what is sent again has the same times.
MOVED_TO_NANOS: Final = time.time_ns() - 60 * SECOND_NANOS


class Recording(NamedTuple):
    """Bodies in the order in which they were sent, moved to the present, and their pieces."""

    bodies: Sequence[Body]
    pieces: Sequence[Piece]


def to_the_present(bodies: Sequence[Body]) -> Recording:
    """All times moved by one offset, so that the last span ended a minute ago."""
    parts = [split(body) for body in bodies]
    last = max(piece.ended_at_nanos for part in parts for piece in part)
    by_nanos = MOVED_TO_NANOS - last
    present = [[moved(piece, by_nanos) for piece in part] for part in parts]
    return Recording([join(part) for part in present], [each for part in present for each in part])


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


# Captured runs.


def folder_of(run: str) -> Path:
    """Where a captured run lies; skips the test where it does not."""
    for root in (COPIED, CAPTURED):
        if (root / run / "meta.json").exists():
            return root / run
    pytest.skip(f"The captured run {run} is not beside the repository.")


@cache
def captured(run: str) -> Recording:
    """A captured run, without the bodies that have no address yet."""
    folder = folder_of(run)
    bodies = []
    for request in json.loads((folder / "meta.json").read_bytes())["requests"]:
        if request["path"] in READ_PATHS:
            kind = PROTOBUF if ".pb" in request["file"] else JSON
            bodies.append(Body(request["path"], kind, _unpacked(folder / request["file"])))
    return to_the_present(bodies)


def truth_of(run: str) -> list[JsonObject]:
    """The calls that the replayed providers served."""
    served: list[JsonObject] = json.loads((folder_of(run) / "meta.json").read_bytes())["truth"]
    return served


# Traces of frameworks, as Langfuse exports them.


@cache
def framework(name: str) -> Recording:
    """A framework's trace: Langfuse's observations as the spans that they were."""
    path = FRAMEWORKS / f"{name}.trace.json.gz"
    if not path.exists():
        pytest.skip("The traces of frameworks are not beside the repository.")
    observations = json.loads(_unpacked(path))["observations"]
    spans = [_export_of(observation) for observation in observations]
    return to_the_present([join([piece for span in spans for piece in split(span)])])


def _export_of(observation: JsonObject) -> Body:
    """An observation as an export of the one span that it was made of."""
    metadata = parsed(observation["metadata"])
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, value in parsed(metadata.get("resourceAttributes")).items():
        fill(group.resource.attributes.add(key=key).value, value)
    inner = group.scope_spans.add()
    inner.scope.name = parsed(metadata.get("scope")).get("name") or ""
    span = inner.spans.add(
        trace_id=bytes.fromhex(observation["traceId"]),
        span_id=bytes.fromhex(observation["id"]),
        parent_span_id=bytes.fromhex(observation["parentObservationId"] or ""),
        name=observation["name"] or "",
        start_time_unix_nano=_nanos(observation["startTime"]),
        end_time_unix_nano=_nanos(observation["endTime"] or observation["startTime"]),
    )
    for key, value in attributes_of(observation).items():
        fill(span.attributes.add(key=key).value, value)
    return Body(TRACES, PROTOBUF, request.SerializeToString())


def _nanos(written: str) -> int:
    return int(datetime.fromisoformat(written).timestamp() * 1000) * 10**6


# Recordings replayed under two instrumentations.


@cache
def replayed(*dialects: str) -> Recording:
    """The exports of one or more instrumentations that saw the same 80 calls."""
    if not RECORDED.exists():
        pytest.skip("The recorded traces are not beside the repository.")
    paths = [path for dialect in dialects for path in sorted(RECORDED.glob(f"{dialect}-*.pb.gz"))]
    return to_the_present([Body(TRACES, PROTOBUF, _unpacked(path)) for path in paths])
