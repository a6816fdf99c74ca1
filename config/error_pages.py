"""What is answered where no view answers: problem details to programs, pages to people."""

import sys
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.views import defaults

from metering.api.problems import is_api, problem, problem_of, problem_response


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """A request that Django itself refuses, as one for a host that is not ours."""
    if is_api(request):
        return problem_response(problem(400, detail="The request cannot be read."))
    return defaults.bad_request(request, exception)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """What a person may not do."""
    if is_api(request):
        return problem_response(problem(403, detail="This is not allowed."))
    return defaults.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """An address that does not exist."""
    if is_api(request):
        return problem_response(problem(404, detail="There is nothing at this address."))
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """What went wrong outside of any view, such as a database that cannot be reached."""
    if not is_api(request):
        return defaults.server_error(request)
    error: Any = sys.exception()
    facts = problem_of(error) if isinstance(error, Exception) else problem(500, detail="Failed.")
    response = problem_response(facts)
    if facts["status"] == 503:
        response["Retry-After"] = "1"
    return response
