"""Safe retries: a POST with an `Idempotency-Key` is done once and answered alike every time.

The key is claimed in the transaction that does the work, so both are there or neither is: a
refusal leaves the key free.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

from django.db import OperationalError, connection
from psycopg.errors import LockNotAvailable
from rest_framework.request import Request
from rest_framework.response import Response

from common.errors import Conflict, IdempotencyConflict
from common.idempotency import HEADER, hash_of, opened, require_key, sealed
from tenants.api.views import tenant_of
from tenants.models import IdempotencyRecord

View = TypeVar("View", bound=Callable[..., Response])
# How long a retry waits for the first request with its key to finish.
WAIT_SECONDS: Final = 10


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
        require_key(key)
        record, is_first = _claim(
            tenant_of(request).id, key, hash_of(str(request.method), request.path, request.data)
        )
        if not is_first:
            return _answer_again(record)
        response = view(self, request, *args, **kwargs)
        assert response.status_code < 300, "a refusal is raised, so that it frees the key"
        record.status = response.status_code
        record.body = sealed(response.data)
        record.save(update_fields=["status", "body"])
        return response

    once.takes_idempotency_key = True  # type: ignore[attr-defined]
    return once  # type: ignore[return-value]


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
    return Response(opened(record.body), status=record.status)
