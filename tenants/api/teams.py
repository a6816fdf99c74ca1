"""`/v1/teams`: the teams of a tenant, whose names events carry."""

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers

from common.api.fields import StrictSerializer, Timestamp, Value
from common.json_bodies import JsonObject
from tenants.api.resources import Resource
from tenants.models import Team
from tenants.people import create_team


class TeamBody(StrictSerializer):
    """A team."""

    id = serializers.IntegerField(read_only=True)
    name = Value(help_text="As events carry it in `team`.")
    created_at = Timestamp(read_only=True)


@extend_schema_view(
    list=extend_schema(summary="List teams, oldest first"),
    create=extend_schema(summary="Add a team"),
)
class Teams(Resource[Team]):
    """The teams of the tenant."""

    model = Team
    noun = "team"
    body = TeamBody

    def create_row(self, fields: JsonObject) -> Team:
        return create_team(tenant=self.tenant, actor=self.actor, **fields)
