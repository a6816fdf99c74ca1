"""`/v1/teams`: the teams of a tenant, whose names events carry."""

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers

from common.api.fields import StrictSerializer, Timestamp, Value
from common.json_bodies import JsonObject
from tenants.api.resources import Resource
from tenants.models import Team
from tenants.people import FORMER_NAMES_MAX, create_team, rename_team


class TeamBody(StrictSerializer):
    """A team."""

    id = serializers.IntegerField(read_only=True)
    name = Value(help_text="As events carry it in `team`.")
    former_names = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        help_text="What it was called before, the latest first. They stay this team's.",
    )
    created_at = Timestamp(read_only=True)


@extend_schema_view(
    list=extend_schema(summary="List teams, oldest first"),
    create=extend_schema(summary="Add a team"),
    retrieve=extend_schema(summary="Show a team"),
    partial_update=extend_schema(
        summary="Rename a team",
        description="Calls until now, and budgets, rules and API keys that name the old name, keep"
        " it: update them and whatever sends events. The team's members see the usage of all its"
        " names, and no other team may take one. A team has at most"
        f" {FORMER_NAMES_MAX} former names.",
    ),
)
class Teams(Resource[Team]):
    """The teams of the tenant."""

    model = Team
    noun = "team"
    body = TeamBody

    def create_row(self, fields: JsonObject) -> Team:
        return create_team(tenant=self.tenant, actor=self.actor, **fields)

    def update_row(self, row: Team, changes: JsonObject) -> Team:
        return rename_team(team=row, actor=self.actor, **{"name": row.name, **changes})
