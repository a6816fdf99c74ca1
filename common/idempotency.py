"""Answers that are kept for retries: a request with an `Idempotency-Key` is done once.

A key is claimed in the transaction that does the work, so both are there or neither is. An answer
is kept unreadable without SECRET_KEY, since one of them is a new API key.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from django.db.backends.utils import CursorWrapper

from common.errors import Conflict, IdempotencyConflict, InvalidRequest
from common.queries import TakesStatements
from common.sealing import Unreadable, seal, unseal

HEADER: Final = "Idempotency-Key"
KEY_MAX_CHARACTERS: Final = 200
PURPOSE: Final = "answers for retries"


class InvalidIdempotencyKey(InvalidRequest):
    """A key that is empty, too long, or not printable ASCII."""

    code = "invalid_idempotency_key"


class RequestKey(NamedTuple):
    """A request's key, and a hash of what the request asks for."""

    key: str
    request_hash: bytes


class KeptAnswer(NamedTuple):
    """An earlier answer to the same request."""

    status: int
    data: object


def require_key(key: str) -> None:
    """Raise InvalidIdempotencyKey for what cannot be a key."""
    if not key.isascii() or not key.isprintable() or not 1 <= len(key) <= KEY_MAX_CHARACTERS:
        raise InvalidIdempotencyKey(
            f"{HEADER} must be 1 to {KEY_MAX_CHARACTERS} printable ASCII characters."
        )


def hash_of(method: str, path: str, value: object) -> bytes:
    """What makes two requests the same: method, address and the value of the body."""
    body = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{method} {path}\n{body}".encode()).digest()


def claim_keys(
    cursor: CursorWrapper, tenant_id: int, wanted: Iterable[RequestKey]
) -> dict[str, KeptAnswer | IdempotencyConflict | Conflict]:
    """Claim keys for this transaction; answer those that were used before, with their answers.

    In the order of the keys, so that two transactions wait for each other in one direction only. A
    key that another transaction holds is waited for.
    """
    keys = {request.key: request.request_hash for request in wanted}
    if not keys:
        return {}
    names = sorted(keys)
    cursor.execute(
        "INSERT INTO idempotency_record (tenant_id, key, request_hash, body, created_at)"
        " SELECT %s, n.key, n.hash, '', now() FROM unnest(%s::text[], %s::bytea[])"
        " WITH ORDINALITY AS n (key, hash, place) ORDER BY n.place"
        " ON CONFLICT (tenant_id, key) DO NOTHING RETURNING key",
        [tenant_id, names, [keys[name] for name in names]],
    )
    first = {row[0] for row in cursor.fetchall()}
    used = [name for name in names if name not in first]
    if not used:
        return {}
    cursor.execute(
        "SELECT key, request_hash, status, body FROM idempotency_record"
        " WHERE tenant_id = %s AND key = ANY(%s)",
        [tenant_id, used],
    )
    return {
        key: _read(status, body)
        if bytes(request_hash) == keys[key]
        else IdempotencyConflict(f"This {HEADER} was used for another request.")
        for key, request_hash, status, body in cursor.fetchall()
    }


def keep_answers(
    cursor: TakesStatements, tenant_id: int, answers: Mapping[str, KeptAnswer]
) -> None:
    """Keep the answers of claimed keys."""
    for key, (status, data) in answers.items():
        cursor.execute(
            "UPDATE idempotency_record SET status = %s, body = %s"
            " WHERE tenant_id = %s AND key = %s",
            [status, seal(data, purpose=PURPOSE).decode(), tenant_id, key],
        )


def free_keys(cursor: TakesStatements, tenant_id: int, keys: Iterable[str]) -> None:
    """Give claimed keys back: a refusal leaves them free."""
    if names := list(keys):
        cursor.execute(
            "DELETE FROM idempotency_record WHERE tenant_id = %s AND key = ANY(%s)",
            [tenant_id, names],
        )


def _read(status: int, body: str) -> KeptAnswer | Conflict:
    try:
        return KeptAnswer(status, unseal(body.encode(), purpose=PURPOSE))
    except Unreadable:
        # The work was done and must not be done again.
        return Conflict(f"This {HEADER} was used, and its answer can no longer be read.")
