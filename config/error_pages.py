"""What is answered where no view answers: problem details to programs, pages to people."""

import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

from django.http import HttpRequest, HttpResponseBase
from django.urls import URLPattern, URLResolver, get_resolver
from django.views import defaults

from common.api.problems import (
    API_PREFIXES,
    is_api,
    problem,
    problem_of,
    problem_response,
    unreadable_problem,
)
from common.errors import NotFound
from common.spelling import did_you_mean

# What names an object, in an address that was asked for and in the pattern of one.
_OBJECT: Final = re.compile(r"/(?:[0-9]+|[0-9a-fA-F-]{32,36})(?=/|$)")
_PLACEHOLDER: Final = re.compile(r"<[^>]+>")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer a request that Django itself refuses, as one for a host that is not ours."""
    if is_api(request):
        return problem_response(unreadable_problem(exception))
    return defaults.bad_request(request, exception)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer what a person may not do."""
    if is_api(request):
        return problem_response(problem(403, detail="This is not allowed."))
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """Answer an address that does not exist."""
    if is_api(request):
        return problem_response(problem(404, detail=_nothing_at(request.path)))
    return defaults.page_not_found(request, exception)


def _nothing_at(path: str) -> str:
    parts = path.split("/")
    for index in range(3, len(parts)):
        address = "/".join([*parts[:index], "{id}", *parts[index + 1 :]])
        if address in api_paths():
            noun = parts[index - 1].replace("-", " ").replace("ies", "ys").removesuffix("s")
            return NotFound.of(noun, parts[index]).detail
    near = did_you_mean(_OBJECT.sub("/{id}", path), api_paths())
    return f"There is nothing at this address.{near}"


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Answer what failed outside of any view, such as a database that cannot be reached."""
    if not is_api(request):
        return defaults.server_error(request)
    error = sys.exception()
    body = problem_of(error) if isinstance(error, Exception) else problem(500, detail="Failed.")
    return problem_response(body)


@cache
def api_paths() -> tuple[str, ...]:
    """Return the addresses of the API, with `{id}` for what names an object."""
    return tuple(sorted(_paths(get_resolver().url_patterns)))


def _paths(patterns: Iterable[URLPattern | URLResolver], above: str = "/") -> Iterator[str]:
    for pattern in patterns:
        path = above + _PLACEHOLDER.sub("{id}", str(pattern.pattern))
        if not f"{path}/".startswith(API_PREFIXES):
            continue
        if isinstance(pattern, URLResolver):
            yield from _paths(pattern.url_patterns, path)
        else:
            yield path
