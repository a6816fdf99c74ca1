"""The busiest endpoints as views: the same handlers reached through Django, and documented.

The web process answers these addresses before Django (`config.edge`); these views serve everything
else that speaks to Django directly, and put the endpoints into the schema.
"""

from typing import Any, Final

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from common.api.parsing import LARGE_BODY_BYTES_MAX, keep_body
from common.api.problems import CONTENT_TYPE
from metering.api import events
from metering.api.fast_path import (
    JSON,
    PROTOBUF,
    Begin,
    HotRequest,
    handle_events,
    handle_litellm,
    handle_traces,
    run,
)
from tenants.api.views import ApiView
from tenants.roles import Scope

EVENT: Final = {"$ref": "#/components/schemas/Event"}
CLOUD_EVENT: Final = {"$ref": "#/components/schemas/CloudEvent"}
PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}


def _many(item: dict[str, str]) -> dict[str, Any]:
    return {"type": "array", "items": item, "maxItems": 10_000}


EVENT_BODIES: Final[dict[str, Any]] = {
    JSON: {"oneOf": [EVENT, _many(EVENT)]},
    "application/x-ndjson": {"type": "string", "description": "One event a line."},
    "application/cloudevents+json": CLOUD_EVENT,
    "application/cloudevents-batch+json": _many(CLOUD_EVENT),
}
# OTLP is specified elsewhere; here its outermost member has to do.
OTLP_JSON: Final = {
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


class EventErrorAnswer(serializers.Serializer[Any]):
    """Why one event was not taken."""

    index = serializers.IntegerField()
    id = serializers.CharField(required=False)
    pointer = serializers.CharField(required=False)
    code = serializers.CharField()
    detail = serializers.CharField()


class EventWarningAnswer(serializers.Serializer[Any]):
    """Something that lost no event."""

    code = serializers.CharField()
    model = serializers.CharField()
    detail = serializers.CharField()


class IngestAnswer(serializers.Serializer[Any]):
    """What became of the events of a body, now that all that were accepted are durable."""

    accepted = serializers.IntegerField()
    merged = serializers.IntegerField(
        help_text="Reports of calls that were known, which added something to them."
    )
    duplicates = serializers.IntegerField(help_text="Reports that added nothing.")
    rejected = serializers.IntegerField()
    unpriced = serializers.IntegerField(help_text="Of the accepted ones.")
    # Django REST framework takes the name for something of its own, until it makes the class.
    errors = EventErrorAnswer(many=True)  # type: ignore[assignment]
    warnings = EventWarningAnswer(
        many=True, required=False, help_text="Models without a price that look misspelt."
    )


ALL_REJECTED: Final = {
    (422, CONTENT_TYPE): OpenApiResponse(PROBLEM, "Every event was rejected; nothing was stored.")
}
INGEST_ANSWERS: Final[dict[Any, Any]] = {200: IngestAnswer, **ALL_REJECTED}


class EventsView(events.EventsView):
    """Usage events: taken in, and listed."""

    write_scope = Scope.INGEST

    @extend_schema(
        summary="Report usage",
        description="One event, an array, NDJSON, or CloudEvents in structured or batch mode; in"
        " binary mode (`ce-` headers) the event is the body. A bad event never loses a good one.",
        request=EVENT_BODIES,
        responses=INGEST_ANSWERS,
    )
    def post(self, request: Request) -> HttpResponse:
        return answer_of(handle_events, request)


@extend_schema(exclude=True)
class OpenMeterEventsView(EventsView):
    """OpenMeter's address for events, which only takes them in."""

    http_method_names = ["post"]


class TracesView(ApiView):
    """OTLP over HTTP."""

    write_scope = Scope.INGEST

    @extend_schema(
        summary="Report usage as OpenTelemetry traces (OTLP/HTTP)",
        request={PROTOBUF: OpenApiTypes.BINARY, JSON: OTLP_JSON},
        responses={(200, JSON): OTLP_ANSWER, (200, PROTOBUF): OpenApiTypes.BINARY},
    )
    def post(self, request: Request) -> HttpResponse:
        return answer_of(handle_traces, request)


class LitellmView(ApiView):
    """LiteLLM's generic callback."""

    write_scope = Scope.INGEST

    @extend_schema(
        summary="Report usage as LiteLLM's StandardLoggingPayload",
        request={JSON: LITELLM_BODY},
        responses=INGEST_ANSWERS,
    )
    def post(self, request: Request) -> HttpResponse:
        return answer_of(handle_litellm, request)


def answer_of(begin: Begin, request: Request) -> HttpResponse:
    """A plain handler's answer to a request of Django's."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    with keep_body(request._request.read, LARGE_BODY_BYTES_MAX) as (body, size):
        answer = run(begin(HotRequest(headers, body.read, size)))
    return HttpResponse(answer.body, status=answer.status, headers=answer.headers)
