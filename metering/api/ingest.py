"""What bodies of usage look like in the OpenAPI document, and what is answered to them."""

from typing import Final

from drf_spectacular.utils import OpenApiResponse

from common.api.problems import CONTENT_TYPE
from common.json_bodies import JsonObject
from metering.api.fast_path import JSON
from metering.calls.answers import IngestAnswer

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


INGEST_ANSWERS: Final[dict[object, object]] = {
    200: IngestAnswer,
    (422, CONTENT_TYPE): OpenApiResponse(PROBLEM, "Every event was rejected; nothing was stored."),
}
