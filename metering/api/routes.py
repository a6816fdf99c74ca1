"""`/v1/routes`: which models do a kind of task, from the cheapest to the best."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers

from common.api.fields import Count, StrictSerializer, Text, Timestamp, Value, problem_at
from common.json_bodies import JsonObject
from metering.configuration.routes import COMPLEXITY_MAX, ROUTES, TIERS_MAX, validate_tiers
from metering.fields.body import errors_at_members
from metering.limits.routes import Tier
from metering.models import ModelRoute
from tenants.api.resources import Resource


class TierBody(StrictSerializer):
    """A model, and up to which complexity it is good enough."""

    provider = Value()
    model = Value()
    max_complexity = Count(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=COMPLEXITY_MAX,
        help_text="Larger from tier to tier. Null for the last one alone, which takes everything.",
    )

    def validate(self, attrs: JsonObject) -> JsonObject:
        # Left out of a PATCH, whose members are optional; those of a tier are not.
        for name in ("provider", "model"):
            if name not in attrs:
                raise problem_at(name, "is required", "required")
        return attrs


class RouteBody(StrictSerializer):
    """A route. A PATCH changes the members it names, the tiers as a whole.

    A level whose action is `downgrade` names the cheapest tier that is good enough for the
    reservation's `complexity`, or the one below the best where that is not said.
    """

    id = serializers.IntegerField(read_only=True)
    name = Text()
    task_type = Text(
        required=False, allow_null=True, help_text="Null: every task that no other route names."
    )
    tiers = TierBody(  # type: ignore[call-arg]  # of the list that `many` makes
        many=True, max_length=TIERS_MAX, help_text="From the cheapest to the best, which is last."
    )
    created_at = Timestamp(read_only=True)

    def validate_task_type(self, value: str | None) -> str:
        return value or ""

    def validate(self, attrs: JsonObject) -> JsonObject:
        if "tiers" in attrs:
            attrs["tiers"] = [
                Tier(tier["provider"], tier["model"], tier.get("max_complexity"))
                for tier in attrs["tiers"]
            ]
            with errors_at_members(self):
                validate_tiers(attrs["tiers"])
        return attrs

    def to_representation(self, instance: Any) -> JsonObject:
        shown: JsonObject = super().to_representation(instance)
        return {**shown, "task_type": shown["task_type"] or None}


@extend_schema_view(
    list=extend_schema(summary="List routes, oldest first"),
    create=extend_schema(summary="Add a route"),
    retrieve=extend_schema(summary="Show a route"),
    partial_update=extend_schema(summary="Change a route"),
    destroy=extend_schema(summary="Remove a route"),
)
class Routes(Resource[ModelRoute]):
    """The tenant's routing table."""

    model = ModelRoute
    noun = "route"
    kind = ROUTES
    body = RouteBody
