"""The service as a WSGI application, as `config.edge` serves it from its event loop: the busiest
endpoints by their plain handlers, everything else by Django.
"""

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from common.api.parsing import BODY_BYTES_MAX, keep_body
from common.json_bodies import JsonObject
from config.django_answers import django_application
from config.metrics import note_answer
from metering.api.fast_path import Endpoint, HotRequest, HotResponse, run
from metering.api.fast_reservations import find_endpoint

Environ = JsonObject
StartResponse = Callable[..., Any]
REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """WSGI entry point."""
    method = environ["REQUEST_METHOD"]
    endpoint = find_endpoint(method, environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
    bytes_max = endpoint.body_bytes_max if endpoint else BODY_BYTES_MAX
    with keep_body(environ["wsgi.input"].read, bytes_max) as (body, size):
        if endpoint is None:
            known = {**environ, "CONTENT_LENGTH": str(size), "wsgi.input": body}
            response: Any = django_application(known, start_response)
            try:
                return [b"".join(response)]
            finally:
                response.close()
        answer = _answer(endpoint, HotRequest(_headers(environ), body.read, size), method)
    headers = list(answer.headers.items())
    if answer.status != HTTPStatus.NOT_MODIFIED:
        headers.append(("Content-Length", str(len(answer.body))))
    start_response(REASONS[answer.status], headers)
    return [answer.body]


def _answer(endpoint: Endpoint, request: HotRequest, method: str) -> HotResponse:
    started_at = time.perf_counter()
    answer = run(endpoint.begin(request))
    seconds = time.perf_counter() - started_at
    note_answer(method=method, route=endpoint.route, status=answer.status, seconds=seconds)
    return answer


def _headers(environ: Environ) -> dict[str, str]:
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    return headers
