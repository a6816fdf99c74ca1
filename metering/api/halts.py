"""`/v1/halts`: the kill switch."""

from typing import Final

from django.http import HttpResponse
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from common.api.fields import StrictSerializer, Text
from common.json_bodies import JsonObject
from metering.api.fast_halts import READERS, HaltAnswer, HaltsAnswer
from metering.api.fast_views import answer_fast
from metering.core.validation import require_known_before_call
from metering.fields.body import Match, errors_at_members
from metering.limits.halts import halt, is_wide, lift_halt
from metering.models import Halt
from tenants.api.resources import Resource
from tenants.api.views import holder_of
from tenants.roles import Scope

ETAG_PARAMETER: Final = OpenApiParameter(
    "If-None-Match",
    str,
    OpenApiParameter.HEADER,
    description="The `ETag` of the last answer: 304 while no halt began or ended.",
)


class HaltBody(StrictSerializer):
    """What to halt, and why."""

    match = Match(required=False, help_text="Empty: the whole tenant.")
    reason = Text(max_length=1000)

    def validate(self, attrs: JsonObject) -> JsonObject:
        with errors_at_members(self):
            require_known_before_call(attrs.get("match", {}))
        return attrs


@extend_schema_view(
    create=extend_schema(
        summary="Halt what matches, everywhere within a second",
        description="Calls in flight finish, and are settled. A match that may be about every call"
        " (empty, or of nothing but null) needs the scope `manage`.",
    )
)
class Halts(Resource[Halt]):
    """The halts in force."""

    model = Halt
    noun = "halt"
    body = HaltBody
    answer = HaltAnswer
    read_scopes = READERS
    write_scope = Scope.ENFORCE
    parameters = {"list": (ETAG_PARAMETER,)}

    @extend_schema(
        summary="The halts in force, oldest first",
        description="Answered from memory while the database is away.",
        responses={200: HaltsAnswer, 304: OpenApiResponse(description="As the `ETag` says.")},
    )
    def list(self, request: Request, **path: object) -> HttpResponse:
        return answer_fast(request)

    def create_row(self, fields: JsonObject) -> Halt:
        match = fields.get("match", {})
        if is_wide(match) and Scope.MANAGE.value not in holder_of(self.request).scopes:
            raise PermissionDenied("To halt everything this key lacks the scope 'manage'.")
        return halt(tenant=self.tenant, match=match, reason=fields["reason"], actor=self.actor)


@extend_schema_view(destroy=extend_schema(summary="Lift a halt, everywhere within a second"))
class HaltLifting(Resource[Halt]):
    """One halt. An agent never lifts its own: that needs `manage`."""

    model = Halt
    noun = "halt"

    def delete_row(self, row: Halt) -> object:
        return lift_halt(halt=row, actor=self.actor)
