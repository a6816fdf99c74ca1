"""The endpoints that the web process answers before Django (`config.edge`), as views: they describe
them, and serve whatever speaks to Django directly.
"""

from collections.abc import Callable
from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from common.api.parsing import keep_body
from metering.api.fast_path import JSON, PROTOBUF, HotRequest, run
from metering.api.fast_reservations import find_endpoint
from metering.api.ingest import INGEST_ANSWERS, LITELLM_BODY, OTLP_ANSWER, OTLP_BODY
from tenants.api.views import ApiView
from tenants.roles import Scope


def answer_fast(request: Request) -> HttpResponse:
    """Return what the web process would have answered."""
    method = "GET" if request.method == "HEAD" else str(request.method)
    endpoint = find_endpoint(method, request.path)
    assert endpoint is not None, "a fast endpoint is found by its address"
    headers = {name.lower(): value for name, value in request.headers.items()}
    with keep_body(request._request.read, endpoint.body_bytes_max) as (body, size):
        answer = run(endpoint.begin(HotRequest(headers, body.read, size)))
    return HttpResponse(answer.body, status=answer.status, headers=answer.headers)


def fast_post(**described: Any) -> Callable[..., HttpResponse]:
    """Return the method of a view for a POST that the web process answers, and is described so."""

    @extend_schema(**described)
    def post(self: ApiView, request: Request, **path: object) -> HttpResponse:
        return answer_fast(request)

    return post


class TracesView(ApiView):
    """OTLP over HTTP."""

    write_scope = Scope.INGEST
    post = fast_post(
        summary="Report usage as OpenTelemetry traces (OTLP/HTTP)",
        request={PROTOBUF: OpenApiTypes.BINARY, JSON: OTLP_BODY},
        responses={(200, JSON): OTLP_ANSWER, (200, PROTOBUF): OpenApiTypes.BINARY},
    )


class LitellmView(ApiView):
    """LiteLLM's generic callback."""

    write_scope = Scope.INGEST
    post = fast_post(
        summary="Report usage as LiteLLM's StandardLoggingPayload",
        request={JSON: LITELLM_BODY},
        responses=INGEST_ANSWERS,
    )
