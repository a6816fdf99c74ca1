"""Safe retries: a POST with an `Idempotency-Key` is done once and answered alike every time.

The key is claimed in the transaction that does the work, so both are there or neither is: a
refusal leaves the key free.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar, cast

from django.db import OperationalError, connection
from django.db.backends.utils import CursorWrapper
from psycopg.errors import LockNotAvailable
from rest_framework.request import Request
from rest_framework.response import Response

from common.errors import Conflict, MeteringError
from common.idempotency import (
    HEADER,
    KeptAnswer,
    RequestKey,
    claim_keys,
    hash_of,
    keep_answers,
    require_key,
)
from tenants.api.views import tenant_of

View = TypeVar("View", bound=Callable[..., Response])
# How long a retry waits for the first request with its key to finish.
WAIT_SECONDS: Final = 10


class RequestInProgress(Conflict):
    """The first request with this key has not finished yet."""

    code = "request_in_progress"


def idempotent(view: View) -> View:
    """Make a view's POST safe to send again. Its answer must be a success; refusals are raised."""

    @wraps(view)
    def once(self: object, request: Request, *args: object, **kwargs: object) -> Response:
        key = request.headers.get(HEADER)
        if key is None:
            return view(self, request, *args, **kwargs)
        require_key(key)
        tenant_id = tenant_of(request).id
        wanted = RequestKey(key, hash_of(str(request.method), request.path, request.data))
        with connection.cursor() as cursor:
            earlier = _claim(cursor, tenant_id, wanted)
            if isinstance(earlier, KeptAnswer):
                return Response(earlier.data, status=earlier.status)
            response = view(self, request, *args, **kwargs)
            assert response.status_code < 300, "a refusal is raised, so that it frees the key"
            keep_answers(cursor, tenant_id, {key: KeptAnswer(response.status_code, response.data)})
        return response

    marked: Any = once
    marked.takes_idempotency_key = True
    return cast(View, marked)


def _claim(cursor: CursorWrapper, tenant_id: int, wanted: RequestKey) -> KeptAnswer | None:
    """Claim a key, or return the answer of the first request with it. Raises what refuses it.

    The insert waits for another transaction that holds the key: once that has committed, its
    answer is there to be given again, and where it was rolled back, this request is the first.
    """
    try:
        cursor.execute(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'")
        earlier = claim_keys(cursor, tenant_id, [wanted]).get(wanted.key)
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            detail = f"The first request with this {HEADER} is still at work; try again later."
            raise RequestInProgress(detail) from error
        raise
    if isinstance(earlier, MeteringError):
        raise earlier
    return earlier
