"""`/v1/routes`: which models do a kind of task, from the cheapest to the best."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Count, Moment, StrictSerializer, Text, Value, problem_at
from common.api.pagination import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import NotFound
from metering.configuration.routes import (
    COMPLEXITY_MAX,
    TIERS_MAX,
    create_route,
    delete_route,
    update_route,
    validate_tiers,
)
from metering.fields.body import errors_at_members
from metering.limits.routes import Tier
from metering.models import ModelRoute
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of


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

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        # Left out of a PATCH, whose members are optional; those of a tier are not.
        for name in ("provider", "model"):
            if name not in attrs:
                raise problem_at(name, "This field is required.", "required")
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
    created_at = Moment(read_only=True)

    def validate_task_type(self, value: str | None) -> str:
        return value or ""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "tiers" in attrs:
            attrs["tiers"] = [
                Tier(tier["provider"], tier["model"], tier.get("max_complexity"))
                for tier in attrs["tiers"]
            ]
            with errors_at_members(self):
                validate_tiers(attrs["tiers"])
        return attrs

    def to_representation(self, instance: Any) -> dict[str, Any]:
        shown: dict[str, Any] = super().to_representation(instance)
        return {**shown, "task_type": shown["task_type"] or None}


class RoutesView(ApiView):
    """The tenant's routing table."""

    parameters = {"GET": PAGE_PARAMETERS}

    @extend_schema(
        summary="List routes, oldest first",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(RouteBody),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        routes = ModelRoute.objects.filter(
            tenant=tenant_of(request), id__gt=page.after[0] if page.after else 0
        )
        rows = list(routes.order_by("id")[: page.limit + 1])
        return Response(
            page_answer(
                rows, page=page, answer=lambda row: RouteBody(row).data, key=lambda row: [row.id]
            )
        )

    @extend_schema(summary="Add a route", request=RouteBody, responses={201: RouteBody})
    @idempotent
    def post(self, request: Request) -> Response:
        body = RouteBody(data=request.data)
        body.is_valid(raise_exception=True)
        route = create_route(
            tenant=tenant_of(request), actor=actor_of(request), **body.validated_data
        )
        return Response(RouteBody(route).data, status=201)


class RouteView(ApiView):
    """One route."""

    @extend_schema(summary="Show a route", responses=RouteBody)
    def get(self, request: Request, route_id: int) -> Response:
        return Response(RouteBody(_find(request, route_id)).data)

    @extend_schema(summary="Change a route", request=RouteBody, responses=RouteBody)
    def patch(self, request: Request, route_id: int) -> Response:
        route = _find(request, route_id)
        body = RouteBody(route, data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        changed = update_route(route=route, actor=actor_of(request), changes=body.validated_data)
        return Response(RouteBody(changed).data)

    @extend_schema(summary="Remove a route", request=None, responses={204: None})
    def delete(self, request: Request, route_id: int) -> Response:
        delete_route(route=_find(request, route_id), actor=actor_of(request))
        return Response(status=204)


def _find(request: Request, route_id: int) -> ModelRoute:
    route = ModelRoute.objects.filter(tenant=tenant_of(request), id=route_id).first()
    if route is None:
        raise NotFound(f"There is no route {route_id}.")
    return route
