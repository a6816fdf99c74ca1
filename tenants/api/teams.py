"""`/v1/teams`: the teams of a tenant, whose names events carry."""

from django.db import IntegrityError
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Moment, StrictSerializer, Value
from common.api.pagination import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import Conflict
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of
from tenants.models import Team
from tenants.people import create_team


class TeamBody(StrictSerializer):
    """A team."""

    id = serializers.IntegerField(read_only=True)
    name = Value(help_text="As events carry it in `team`.")
    created_at = Moment(read_only=True)


class TeamsView(ApiView):
    """All teams of the tenant."""

    parameters = {"GET": PAGE_PARAMETERS}

    @extend_schema(
        summary="List teams, oldest first",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(TeamBody),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        teams = Team.objects.filter(
            tenant=tenant_of(request), id__gt=page.after[0] if page.after else 0
        )
        rows = list(teams.order_by("id")[: page.limit + 1])
        return Response(
            page_answer(
                rows, page=page, answer=lambda row: TeamBody(row).data, key=lambda row: [row.id]
            )
        )

    @extend_schema(summary="Add a team", request=TeamBody, responses={201: TeamBody})
    @idempotent
    def post(self, request: Request) -> Response:
        body = TeamBody(data=request.data)
        body.is_valid(raise_exception=True)
        name = body.validated_data["name"]
        try:
            team = create_team(tenant=tenant_of(request), name=name, actor=actor_of(request))
        except IntegrityError as error:
            raise Conflict(f"There is a team named {name!r} already.") from error
        return Response(TeamBody(team).data, status=201)
