"""Safe retries: a POST with an `Idempotency-Key` is done once and answered alike every time.

The key is claimed in the transaction that does the work, so both are there or neither is: a
refusal leaves the key free. An answer is kept unreadable without SECRET_KEY, since one of them is a
new API key.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Final, TypeVar

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.db import OperationalError, connection
from django.utils.crypto import salted_hmac
from psycopg.errors import LockNotAvailable
from rest_framework.request import Request
from rest_framework.response import Response

from metering.api.views import tenant_of
from metering.errors import Conflict, IdempotencyConflict, InvalidRequest
from tenants.models import IdempotencyRecord

View = TypeVar("View", bound=Callable[..., Response])
HEADER: Final = "Idempotency-Key"
KEY_MAX_CHARACTERS: Final = 200
# How long a retry waits for the first request with its key to finish.
WAIT_SECONDS: Final = 10


class InvalidIdempotencyKey(InvalidRequest):
    """A key that is empty, too long, or not printable ASCII."""

    code = "invalid_idempotency_key"


class RequestInProgress(Conflict):
    """The first request with this key has not finished yet."""

    code = "request_in_progress"


def idempotent(view: View) -> View:
    """Make a view's POST safe to send again. Its answer must be a success; refusals are raised."""

    @wraps(view)
    def once(self: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get(HEADER)
        if key is None:
            return view(self, request, *args, **kwargs)
        _require_key(key)
        record, is_first = _claim(tenant_of(request).id, key, _hash_of(request))
        if not is_first:
            return _answer_again(record)
        response = view(self, request, *args, **kwargs)
        assert response.status_code < 300, "a refusal is raised, so that it frees the key"
        record.status = response.status_code
        record.body = _cipher().encrypt(json.dumps(response.data).encode()).decode()
        record.save(update_fields=["status", "body"])
        return response

    once.takes_idempotency_key = True  # type: ignore[attr-defined]
    return once  # type: ignore[return-value]


def _require_key(key: str) -> None:
    if not key.isascii() or not key.isprintable() or not 1 <= len(key) <= KEY_MAX_CHARACTERS:
        raise InvalidIdempotencyKey(
            f"{HEADER} must be 1 to {KEY_MAX_CHARACTERS} printable ASCII characters."
        )


def _hash_of(request: Request) -> bytes:
    """What makes two requests the same: method, address and the value of the body."""
    body = json.dumps(request.data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{request.method} {request.path}\n{body}".encode()).digest()


def _claim(tenant_id: int, key: str, request_hash: bytes) -> tuple[IdempotencyRecord, bool]:
    """The record of a key, and whether this request is the first with it.

    The insert waits for another transaction that holds the key: once that has committed, its
    answer is there to be given again, and where it was rolled back, this request is the first.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'")
            cursor.execute(
                "INSERT INTO idempotency_record (tenant_id, key, request_hash, body, created_at)"
                " VALUES (%s, %s, %s, '', now()) ON CONFLICT (tenant_id, key) DO NOTHING",
                [tenant_id, key, request_hash],
            )
            is_first = cursor.rowcount == 1
            cursor.execute("SET LOCAL lock_timeout TO DEFAULT")
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            detail = f"The first request with this {HEADER} is still at work; try again later."
            raise RequestInProgress(detail) from error
        raise
    record = IdempotencyRecord.objects.get(tenant_id=tenant_id, key=key)
    if bytes(record.request_hash) != request_hash:
        raise IdempotencyConflict(f"This {HEADER} was used for another request.")
    return record, is_first


def _answer_again(record: IdempotencyRecord) -> Response:
    try:
        data = json.loads(_cipher().decrypt(record.body.encode()))
    except InvalidToken as error:
        # SECRET_KEY was replaced since; the work was done and must not be done again.
        raise Conflict(f"This {HEADER} was used, and its answer can no longer be read.") from error
    return Response(data, status=record.status)


@cache
def _cipher() -> Fernet:
    digest = salted_hmac(
        __name__, "answers", secret=settings.SECRET_KEY, algorithm="sha256"
    ).digest()
    return Fernet(base64.urlsafe_b64encode(digest))
