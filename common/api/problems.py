"""Errors as RFC 9457 problem details. One table says which status each refusal has."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec
import structlog
from django.conf import settings
from django.core.exceptions import BadRequest, SuspiciousOperation, TooManyFieldsSent
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import connection, transaction
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from rest_framework import exceptions

from common.api.parsing import BodyTooLarge, UnsupportedEncoding
from common.database_errors import is_away, is_cut_short
from common.errors import (
    DETAIL_CHARACTERS_MAX,
    QUOTED_CHARACTERS_MAX,
    BudgetExceeded,
    Conflict,
    Halted,
    IdempotencyConflict,
    InvalidRequest,
    LimitReached,
    MalformedBody,
    MeteringError,
    NotFound,
    Throttled,
    TooManyEvents,
    shortened,
)
from common.json_bodies import JsonObject

log = structlog.get_logger(__name__)

CONTENT_TYPE: Final = "application/problem+json"
# A problem names this many errors; of the others it gives the count.
ERRORS_MAX: Final = 100
# Addresses that programs call. `/api/v1/` is where OpenMeter's clients post.
API_PREFIXES: Final = ("/v1/", "/api/v1/", "/webhooks/")
# How long to wait where nothing is known but that it is not forever.
UNAVAILABLE_SECONDS: Final = 1
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


def problem(status: int, *, code: str | None = None, detail: str, **members: Any) -> JsonObject:
    """Return a problem as its JSON object. `members` are those beyond the standard's.

    Of more than ERRORS_MAX `errors` the first are kept, and `error_count` is their number.
    """
    code = code or CODE_BY_STATUS.get(status, "error")
    if errors := members.get("errors"):
        members["errors"] = [_shortened_error(each) for each in errors[:ERRORS_MAX]]
        if len(errors) > ERRORS_MAX:
            members["error_count"] = len(errors)
    if status == 503:
        members.setdefault("retry_after_seconds", UNAVAILABLE_SECONDS)
    return {
        "type": f"urn:spendgate:problem:{code}",
        "title": TITLE_BY_STATUS.get(status, "Error"),
        "status": status,
        "detail": shortened(detail),
        "code": code,
        **members,
    }


def _shortened_error(error: Mapping[str, object]) -> JsonObject:
    return {
        name: shortened(value, DETAIL_CHARACTERS_MAX if name == "detail" else QUOTED_CHARACTERS_MAX)
        if isinstance(value, str)
        else value
        for name, value in error.items()
    }


def status_of(error: MeteringError) -> int:
    """The HTTP status of a refusal; its own class counts before its parents."""
    for kind in type(error).__mro__:
        if kind in STATUS_BY_ERROR:
            return STATUS_BY_ERROR[kind]
    return 400


def problem_of(error: Exception) -> JsonObject:
    """The problem that an exception becomes. Never a stack trace: what is not known is logged."""
    if isinstance(error, MeteringError):
        return problem(status_of(error), code=error.code, detail=error.detail, **error.members)
    if is_cut_short(error):
        log.warning("a statement took too long", error=str(error))
        return problem(
            503,
            code="took_too_long",
            detail="This took too long and was stopped. Ask for less, such as a shorter time or"
            " fewer groups, or send the request again later.",
        )
    if is_away(error):
        log.warning("database unavailable", error=str(error))
        return problem(
            503,
            code="database_unavailable",
            detail="The database cannot be reached. Send the request again:"
            " what was already accepted is recognized.",
        )
    log.error("unexpected error", exc_info=error)
    return problem(
        500,
        detail="The error was logged. Sending the request again is safe:"
        " what was already accepted is recognized.",
    )


def exception_handler(error: Exception, context: Mapping[str, object]) -> HttpResponse:
    """DRF's hook: every error of a view becomes a problem, whatever the view renders, and its
    transaction is rolled back.
    """
    if connection.in_atomic_block:
        transaction.set_rollback(True)
    return problem_response(*_problem_and_headers(error))


def _problem_and_headers(error: Exception) -> tuple[JsonObject, dict[str, str]]:
    if isinstance(error, exceptions.ValidationError):
        return _validation_problem(error), {}
    if isinstance(error, exceptions.APIException):
        return _api_problem(error)
    return _problem_of_djangos(error) or problem_of(error), {}


def _problem_of_djangos(error: Exception) -> JsonObject | None:
    """The problem that one of Django's own exceptions becomes, None for any other."""
    if isinstance(error, Http404):
        return problem(404, detail="There is nothing at this address for this key.")
    if isinstance(error, DjangoPermissionDenied):
        return problem(403, detail="This is not allowed.")
    if isinstance(error, DjangoValidationError):
        return _domain_problem(error)
    if isinstance(error, SuspiciousOperation | BadRequest | UnreadablePostError):
        return unreadable_problem(error)
    return None


def unreadable_problem(error: Exception) -> JsonObject:
    """A request that Django itself refuses to read."""
    if isinstance(error, TooManyFieldsSent):
        return problem(
            400,
            code="too_many_parameters",
            detail=f"Send at most {settings.DATA_UPLOAD_MAX_NUMBER_FIELDS:,} query parameters.",
        )
    return problem(400, detail="The request cannot be read.")


def _domain_problem(error: DjangoValidationError) -> JsonObject:
    """A rule that only the domain can judge."""
    detail = " ".join(error.messages)
    if isinstance(error, LimitReached):
        named = {"limit": error.name, "allowed": error.allowed}
        return problem(409, code="limit_reached", detail=detail, **named)
    return problem(400, detail=detail)


def retry_headers(body: Mapping[str, object]) -> dict[str, str]:
    """When to ask again, where the problem says so."""
    seconds = body.get("retry_after_seconds")
    return {"Retry-After": str(seconds)} if seconds else {}


def _api_problem(error: exceptions.APIException) -> tuple[JsonObject, dict[str, str]]:
    headers = {}
    if header := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = header
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(max(1, int(wait)))
    status = 401 if isinstance(error, exceptions.NotAuthenticated) else error.status_code
    return problem(status, detail=str(error.detail)), headers


class CountedCode(str):
    """The code of a message that stands for several errors, which are counted, not named."""

    stands_for: int

    @classmethod
    def of(cls, code: str, *, stands_for: int) -> "CountedCode":
        """Return the code with the number of errors that have it."""
        counted = cls(code)
        counted.stands_for = stands_for
        return counted


def _validation_problem(error: exceptions.ValidationError) -> JsonObject:
    named = list(islice(_validation_errors(error.detail), ERRORS_MAX))
    codes = (getattr(message, "code", None) for _, message in _messages(error.detail))
    count = sum(getattr(code, "stands_for", 1) for code in codes)
    wrong = (f"{each['pointer'] or 'body'}: {each['detail'].removesuffix('.')}" for each in named)
    detail = "; ".join(islice(wrong, 5))
    members: JsonObject = {"errors": named}
    if count > len(named):
        members["error_count"] = count
    end = "" if detail.endswith(("?", "…")) else "."
    return problem(400, code="invalid_request", detail=f"{detail}{end}", **members)


def _validation_errors(detail: object) -> Iterator[dict[str, str]]:
    for pointer, message in _messages(detail):
        code = str(getattr(message, "code", "invalid"))
        yield _shortened_error({"pointer": pointer, "code": code, "detail": str(message)})


def _messages(detail: object, pointer: str = "") -> Iterator[tuple[str, object]]:
    """DRF's nested messages one by one, each with its JSON pointer."""
    if isinstance(detail, Mapping):
        for key, inner in detail.items():
            is_whole = key == "non_field_errors"
            yield from _messages(inner, pointer if is_whole else f"{pointer}/{_escaped(key)}")
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            is_message = isinstance(inner, str)
            yield from _messages(inner, pointer if is_message else f"{pointer}/{index}")
    else:
        yield pointer, detail


def _escaped(key: object) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def problem_response(
    body: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """A problem as a Django response."""
    return HttpResponse(
        msgspec.json.encode(body),
        status=body["status"],
        content_type=CONTENT_TYPE,
        headers={**retry_headers(body), **(headers or {})},
    )


def is_api(request: HttpRequest) -> bool:
    """Whether errors of this request are for a program (problem details) rather than a person (a
    page).
    """
    return f"{request.path}/".startswith(API_PREFIXES)
