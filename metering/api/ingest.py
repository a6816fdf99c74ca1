"""What bodies of usage look like in the OpenAPI document, and what is answered to them."""

from typing import Annotated, Any, Final

from drf_spectacular.utils import OpenApiResponse
from msgspec import UNSET, UnsetType

from common.api.problems import CONTENT_TYPE
from common.api.structs import Answer, about
from common.json_bodies import JsonObject
from metering.api.fast_path import JSON

EVENT: Final = {"$ref": "#/components/schemas/Event"}
CLOUD_EVENT: Final = {"$ref": "#/components/schemas/CloudEvent"}
PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}


def _many(item: dict[str, str]) -> JsonObject:
    return {"type": "array", "items": item, "maxItems": 10_000}


EVENT_BODIES: Final[JsonObject] = {
    JSON: {"oneOf": [EVENT, _many(EVENT)]},
    "application/x-ndjson": {"type": "string", "description": "One event a line."},
    "application/cloudevents+json": CLOUD_EVENT,
    "application/cloudevents-batch+json": _many(CLOUD_EVENT),
}
# OTLP is specified elsewhere; here its outermost member has to do.
OTLP_BODY: Final = {
    "type": "object",
    "properties": {"resourceSpans": {"type": "array", "items": {"type": "object"}}},
}
OTLP_ANSWER: Final = {
    "type": "object",
    "properties": {
        "partialSuccess": {
            "type": "object",
            "properties": {
                "rejectedSpans": {"type": ["string", "integer"]},
                "errorMessage": {"type": "string"},
            },
        }
    },
}
LITELLM_BODY: Final = {"type": "array", "items": {"type": "object"}, "maxItems": 10_000}


class EventErrorAnswer(Answer):
    """Why one event was not taken."""

    index: int
    code: str
    detail: str
    id: str | UnsetType = UNSET
    pointer: str | UnsetType = UNSET


class EventWarningAnswer(Answer):
    """Something that lost no event."""

    code: str
    model: str
    detail: str


class IngestAnswer(Answer):
    """What became of the events of a body, now that all that were accepted are durable."""

    accepted: int
    merged: Annotated[
        int, about("Reports of calls that were known, which added something to them.")
    ]
    duplicates: Annotated[int, about("Reports that added nothing.")]
    rejected: int
    unpriced: Annotated[int, about("Of the accepted ones.")]
    errors: list[EventErrorAnswer]
    warnings: Annotated[
        list[EventWarningAnswer] | UnsetType,
        about("Models without a price that look misspelt."),
    ] = UNSET


INGEST_ANSWERS: Final[dict[Any, Any]] = {
    200: IngestAnswer,
    (422, CONTENT_TYPE): OpenApiResponse(PROBLEM, "Every event was rejected; nothing was stored."),
}
