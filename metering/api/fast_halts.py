"""`GET /v1/halts` as a plain handler: clients that poll learn of halts even while the database is
away, when Django could not open its transaction.
"""

from typing import Annotated, Any, Final

import msgspec
from django.core.exceptions import SynchronousOnlyOperation
from django.db import InterfaceError, OperationalError, connection
from msgspec import Meta

from common.api.problems import problem, problem_of
from common.api.structs import Answer, UtcTimestamp, about, one_of
from metering.api.fast_path import (
    JSON,
    HotRequest,
    HotResponse,
    Steps,
    bearer,
    problem_answer,
    refuse,
)
from metering.fields.body import MATCH_REFERENCE
from metering.limits.halt_watch import is_database_silent, known_halts
from metering.limits.halts import ActiveHalts, read_halts, remembered_halts
from metering.models import HaltKind
from tenants.authentication import lacks_scopes
from tenants.keys import KeyHolder, find_key_holder, remembered_key_holder
from tenants.roles import Scope
from tenants.scope import tenant_scope

# Agents ask whether they are stopped with the key that they reserve with.
READERS: Final = (Scope.READ, Scope.ENFORCE)
READ_TIMEOUT: Final = "1s"


class HaltAnswer(Answer):
    """A halt: no reservation is given or extended to what matches until it is lifted."""

    id: int
    match: Annotated[Any, Meta(extra_json_schema=MATCH_REFERENCE)]
    reason: str
    kind: Annotated[str, one_of(HaltKind.values)]
    since: UtcTimestamp
    ends_at: Annotated[
        UtcTimestamp | None,
        about("When a lockout ends by itself, with its period; null: until it is lifted."),
    ]


class HaltsAnswer(Answer):
    """The halts in force."""

    version: Annotated[int, about("Rises when a halt begins or ends.")]
    halts: list[HaltAnswer]


def handle_halts(request: HotRequest) -> Steps:
    """Answer `GET /v1/halts`."""
    yield from ()  # a handler is a generator, also one that commits nothing
    try:
        holder = find_holder(bearer(request.headers))
        if holder is None:
            return refuse(None, Scope.READ)
        if (lack := lacks_scopes(holder, READERS)) is not None:
            return problem_answer(problem(403, detail=lack))
        halts = _read_halts(holder.tenant_id)
    except SynchronousOnlyOperation:
        raise
    except Exception as error:
        return problem_answer(problem_of(error))
    return _answer(halts, request.headers.get("if-none-match", ""))


def find_holder(text: str) -> KeyHolder | None:
    """Who asks about halts, or may be stopped by one. While the database is away that is
    the last known holder of the key, as long as it has not expired: nothing else can be known.
    """
    remembered = remembered_key_holder(text)
    if remembered is not None and is_database_silent():
        return remembered
    try:
        return find_key_holder(text)
    except (OperationalError, InterfaceError):
        if remembered is None:
            raise
        return remembered


def _read_halts(tenant_id: int) -> ActiveHalts:
    """The halts as they are stored; while the database is away, as this process knows them."""
    known_halts(tenant_id)
    remembered = remembered_halts(tenant_id)
    if remembered is not None and is_database_silent():
        return remembered
    try:
        with tenant_scope(tenant_id), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = '{READ_TIMEOUT}'")
            return read_halts(cursor, tenant_id)
    except (OperationalError, InterfaceError):
        if remembered is None:
            raise
        return remembered


def _answer(halts: ActiveHalts, known_tags: str) -> HotResponse:
    tag = '"' + "-".join(map(str, halts.mark)) + '"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in [known.strip().removeprefix("W/") for known in known_tags.split(",")]:
        return HotResponse(304, headers, b"")
    answer = HaltsAnswer(version=halts.mark.version, halts=[HaltAnswer.of(halt) for halt in halts])
    return HotResponse(200, {"Content-Type": JSON, **headers}, msgspec.json.encode(answer))
