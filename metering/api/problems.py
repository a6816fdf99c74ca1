"""Errors as RFC 9457 problem details. One table says which status each refusal has."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import InterfaceError, OperationalError, connection, transaction
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions
from rest_framework.response import Response

from metering.api.parsing import BodyTooLarge, UnsupportedEncoding
from metering.errors import (
    BudgetExceeded,
    Conflict,
    Halted,
    IdempotencyConflict,
    InvalidRequest,
    MalformedBody,
    MeteringError,
    NotFound,
    Throttled,
    TooManyEvents,
)

log = structlog.get_logger(__name__)

CONTENT_TYPE: Final = "application/problem+json"
STATUS_BY_ERROR: Final[dict[type[MeteringError], int]] = {
    MalformedBody: 400,
    InvalidRequest: 400,
    BudgetExceeded: 402,
    NotFound: 404,
    Conflict: 409,
    IdempotencyConflict: 409,
    TooManyEvents: 413,
    BodyTooLarge: 413,
    UnsupportedEncoding: 415,
    Halted: 423,
    Throttled: 429,
}
TITLE_BY_STATUS: Final = {
    400: "The request is not valid",
    401: "An API key is needed",
    402: "The budget does not allow this",
    403: "The API key does not allow this",
    404: "Not found",
    405: "Method not allowed",
    406: "No such representation",
    409: "The request contradicts what is stored",
    413: "The request is too large",
    415: "The content type is not understood",
    422: "Nothing was accepted",
    423: "Stopped",
    429: "Too many requests",
    500: "Something went wrong on our side",
    503: "Not available right now",
}
CODE_BY_STATUS: Final = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}


def problem(status: int, *, code: str | None = None, detail: str, **facts: Any) -> dict[str, Any]:
    """A problem as its JSON object. `facts` are the members beyond those of the standard."""
    code = code or CODE_BY_STATUS.get(status, "error")
    return {
        "type": f"urn:spendgate:problem:{code}",
        "title": TITLE_BY_STATUS.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
        **facts,
    }


def status_of(error: MeteringError) -> int:
    """The HTTP status of a refusal; its own class counts before its parents."""
    for kind in type(error).__mro__:
        if kind in STATUS_BY_ERROR:
            return STATUS_BY_ERROR[kind]
    return 400


def problem_of(error: Exception) -> dict[str, Any]:
    """The problem that an exception becomes. Never a stack trace: what is not known is logged."""
    if isinstance(error, MeteringError):
        return problem(status_of(error), code=error.code, detail=error.detail, **error.facts)
    if isinstance(error, OperationalError | InterfaceError):
        log.warning("database unavailable", error=str(error))
        return problem(
            503,
            code="database_unavailable",
            detail="The database cannot be reached. Send the request again:"
            " what was taken already is recognised.",
        )
    log.error("unexpected error", exc_info=error)
    return problem(
        500,
        detail="The error was logged. Sending the request again is safe:"
        " what was taken already is recognised.",
    )


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's hook: every error of a view becomes a problem, and its transaction is rolled back."""
    if connection.in_atomic_block:
        transaction.set_rollback(True)
    facts, headers = _facts_and_headers(error)
    return Response(facts, status=facts["status"], headers=headers, content_type=CONTENT_TYPE)


def _facts_and_headers(error: Exception) -> tuple[dict[str, Any], dict[str, str]]:
    if isinstance(error, Http404):
        return problem(404, detail="There is nothing at this address for this key."), {}
    if isinstance(error, DjangoPermissionDenied):
        return problem(403, detail="This is not allowed."), {}
    if isinstance(error, exceptions.ValidationError):
        errors = list(_validation_errors(error.detail))
        detail = "; ".join(f"{one['pointer'] or 'body'}: {one['detail']}" for one in errors[:5])
        return problem(400, code="invalid_request", detail=detail, errors=errors), {}
    if isinstance(error, DjangoValidationError):
        # A rule that only the domain can judge.
        return problem(400, detail=" ".join(error.messages)), {}
    if isinstance(error, exceptions.APIException):
        return _api_problem(error)
    facts = problem_of(error)
    return facts, retry_headers(facts)


def retry_headers(facts: Mapping[str, Any]) -> dict[str, str]:
    """When to ask again, where the problem says so."""
    if facts["status"] == 503:
        return {"Retry-After": "1"}
    seconds = facts.get("retry_after_seconds")
    return {"Retry-After": str(seconds)} if seconds else {}


def _api_problem(error: exceptions.APIException) -> tuple[dict[str, Any], dict[str, str]]:
    headers = {}
    if header := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = header
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait))
    status = 401 if isinstance(error, exceptions.NotAuthenticated) else error.status_code
    return problem(status, detail=str(error.detail)), headers


def _validation_errors(detail: Any, pointer: str = "") -> list[dict[str, str]]:
    """DRF's nested messages as a flat list with JSON pointers."""
    if isinstance(detail, Mapping):
        return [
            one
            for key, inner in detail.items()
            for one in _validation_errors(
                inner, pointer if key == "non_field_errors" else f"{pointer}/{key}"
            )
        ]
    if isinstance(detail, list):
        found = []
        for place, inner in enumerate(detail):
            is_message = isinstance(inner, str)
            found += _validation_errors(inner, pointer if is_message else f"{pointer}/{place}")
        return found
    code = getattr(detail, "code", "invalid")
    return [{"pointer": pointer, "code": str(code), "detail": str(detail)}]


def problem_response(facts: Mapping[str, Any]) -> HttpResponse:
    """A problem as a Django response, for what fails outside DRF."""
    return HttpResponse(
        msgspec.json.encode(facts), status=facts["status"], content_type=CONTENT_TYPE
    )


def is_api(request: HttpRequest) -> bool:
    """Whether errors of this request are for a program (problem details) rather than a person (a
    page).
    """
    return request.path.startswith(("/v1/", "/webhooks/"))
