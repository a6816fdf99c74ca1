"""The web process: the busiest endpoints answered at once, everything else by Django."""

import gc
import io
import os
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django_application = get_wsgi_application()

# Models can be imported only once Django is set up.
from config.metrics import note_answer  # noqa: E402
from metering.api.hot import HotRequest  # noqa: E402
from metering.api.hot_reservations import find_handler  # noqa: E402
from metering.api.parsing import read_body  # noqa: E402

# A batch makes tens of thousands of short-lived objects without cycles; looking for cycles among
# them as often as Python does by default took two fifths of the process's time. What start-up made
# stays.
gc.collect()
gc.freeze()
gc.set_threshold(200_000, 50, 50)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """WSGI entry point."""
    method = environ["REQUEST_METHOD"]
    found = find_handler(method, environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
    if found is None:
        response: Iterable[bytes] = django_application(_with_length(environ), start_response)
        return response
    handler, route = found
    started_at = time.perf_counter()
    answer = handler(HotRequest(_headers(environ), environ["wsgi.input"].read))
    seconds = time.perf_counter() - started_at
    note_answer(method=method, route=route, status=answer.status, seconds=seconds)
    headers = list(answer.headers.items())
    if answer.status != HTTPStatus.NOT_MODIFIED:
        headers.append(("Content-Length", str(len(answer.body))))
    start_response(REASONS[answer.status], headers)
    return [answer.body]


def _with_length(environ: Environ) -> Environ:
    """A body that comes in chunks names no length, and without one Django reads nothing."""
    if environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" not in environ:
        return environ
    body = read_body(environ["wsgi.input"].read)
    return {**environ, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}


def _headers(environ: Environ) -> dict[str, str]:
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    return headers
