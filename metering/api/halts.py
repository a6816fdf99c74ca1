"""`/v1/halts`: the kill switch. Listed for clients that poll, also while the database is away."""

from typing import Any, Final

import msgspec
from django.core.exceptions import SynchronousOnlyOperation
from django.db import InterfaceError, OperationalError, connection
from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Moment, StrictSerializer, Text, moment_text
from common.api.problems import problem, problem_of
from common.errors import NotFound
from metering.api.fast_path import (
    JSON,
    HotRequest,
    HotResponse,
    Steps,
    bearer,
    problem_answer,
    refuse,
    request_of,
    run,
)
from metering.core.validation import require_askable
from metering.fields.body import Match, errors_at_members
from metering.limits.halt_watch import is_database_silent, known_halts
from metering.limits.halts import (
    ActiveHalt,
    ActiveHalts,
    halt,
    is_wide,
    lift_halt,
    read_halts,
    remembered_halts,
)
from metering.models import Halt, HaltKind
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, holder_of, tenant_of
from tenants.authentication import lacks_scopes
from tenants.keys import KeyHolder, find_key_holder, remembered_key_holder
from tenants.roles import Scope
from tenants.scope import tenant_scope

# Agents ask whether they are stopped with the key that they reserve with.
READERS: Final = (Scope.READ, Scope.ENFORCE)
READ_TIMEOUT: Final = "1s"
ETAG_PARAMETER: Final = OpenApiParameter(
    "If-None-Match",
    str,
    OpenApiParameter.HEADER,
    description="The `ETag` of the last answer: 304 while no halt began or ended.",
)


class HaltBody(StrictSerializer):
    """A halt: no reservation is given or extended to what matches until it is lifted."""

    id = serializers.IntegerField(read_only=True)
    match = Match(required=False, help_text="Empty: the whole tenant.")
    reason = Text(max_length=1000)
    kind = serializers.ChoiceField(choices=HaltKind.values, read_only=True)
    since = Moment(read_only=True)
    ends_at = Moment(
        read_only=True,
        allow_null=True,
        help_text="When a lockout ends by itself, with its period; null: until it is lifted.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        with errors_at_members(self):
            require_askable(attrs.get("match", {}))
        return attrs


class HaltsAnswer(serializers.Serializer[Any]):
    """The halts in force."""

    version = serializers.IntegerField(help_text="Rises when a halt begins or ends.")
    halts = HaltBody(many=True)


class HaltsView(ApiView):
    """The halts in force."""

    read_scopes = READERS
    write_scope = Scope.ENFORCE

    @extend_schema(
        summary="The halts in force, oldest first",
        description="Answered from memory while the database is away.",
        parameters=[ETAG_PARAMETER],
        responses={200: HaltsAnswer, 304: OpenApiResponse(description="As the `ETag` says.")},
    )
    def get(self, request: Request) -> HttpResponse:
        answer = run(handle_halts(request_of(dict(request.headers), b"")))
        return HttpResponse(answer.body, status=answer.status, headers=answer.headers)

    @extend_schema(
        summary="Halt what matches, everywhere within a second",
        description="Calls in flight finish, and are settled. A match that may be about every call"
        " (empty, or of nothing but null) needs the scope `manage`.",
        request=HaltBody,
        responses={201: HaltBody},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = HaltBody(data=request.data)
        body.is_valid(raise_exception=True)
        match = body.validated_data.get("match", {})
        if is_wide(match) and Scope.MANAGE.value not in holder_of(request).scopes:
            raise PermissionDenied("To halt everything this key lacks the scope 'manage'.")
        made = halt(
            tenant=tenant_of(request),
            match=match,
            reason=body.validated_data["reason"],
            actor=actor_of(request),
        )
        return Response(HaltBody(made).data, status=201)


class HaltView(ApiView):
    """One halt. An agent never lifts its own: that needs `manage`."""

    @extend_schema(
        summary="Lift a halt, everywhere within a second", request=None, responses={204: None}
    )
    def delete(self, request: Request, halt_id: int) -> Response:
        found = Halt.objects.filter(tenant=tenant_of(request), id=halt_id).first()
        if found is None:
            raise NotFound(f"There is no halt {halt_id}.")
        lift_halt(halt=found, actor=actor_of(request))
        return Response(status=204)


def handle_halts(request: HotRequest) -> Steps:
    """`GET /v1/halts` as a plain handler, since Django's transaction needs the database."""
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
    """Who asks about halts, or may be stopped by one. While the database is away that is whoever
    the key stood for last, as long as it has not expired: nothing else can be known.
    """
    if is_database_silent() and (remembered := remembered_key_holder(text)) is not None:
        return remembered
    try:
        return find_key_holder(text)
    except (OperationalError, InterfaceError):
        if (remembered := remembered_key_holder(text)) is None:
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
    if tag in [one.strip().removeprefix("W/") for one in known_tags.split(",")]:
        return HotResponse(304, headers, b"")
    body = {"version": halts.mark.version, "halts": [_halt_answer(one) for one in halts]}
    return HotResponse(200, {"Content-Type": JSON, **headers}, msgspec.json.encode(body))


def _halt_answer(halt: ActiveHalt) -> dict[str, Any]:
    return {
        "id": halt.id,
        "match": halt.match,
        "reason": halt.reason,
        "kind": halt.kind,
        "since": moment_text(halt.since),
        "ends_at": moment_text(halt.ends_at) if halt.ends_at else None,
    }
