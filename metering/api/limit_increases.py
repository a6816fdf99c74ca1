"""`/v1/budgets/{id}/raises`: limits that are higher for a while, asked for by an agent and decided
by people.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.fields import empty
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Count, Moment, StrictSerializer, Text, Usd, moment_text, problem_at
from common.api.pagination import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import InvalidRequest, NotFound
from common.money import usd_from_nanos
from metering.api.budgets import find_budget
from metering.core.dimensions import VALUE_CHARACTERS_MAX, normal_match
from metering.core.validation import group_key_of
from metering.fields.body import errors_at_members
from metering.limits.limit_increases import (
    Added,
    RaiseAsk,
    approve_raise,
    ask_for_raise,
    end_raise,
    refuse_raise,
    validate_raise,
)
from metering.limits.obstacles import Obstacle, read_obstacles
from metering.models import Budget, BudgetRaise, RaiseStatus
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of
from tenants.roles import Scope

DURATION_SECONDS_MAX: Final = 31 * 86_400
STATUS_PARAMETER: Final = OpenApiParameter("status", str, enum=RaiseStatus.values)


@extend_schema_field(
    {
        "type": ["object", "null"],
        "description": "A value for each dimension of the budget's `per`; null or empty where it"
        " has none. Left out: every group.",
        "additionalProperties": {"type": ["string", "null"], "maxLength": VALUE_CHARACTERS_MAX},
        "example": {"agent": "researcher"},
    }
)
class Group(serializers.Field[dict[str, str], Any, Any, Any]):
    """One group of a budget, by dimension."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict):
            raise serializers.ValidationError('must be an object, as in {"agent": "researcher"}')
        values = {name: value or "" for name, value in normal_match(data).items()}
        for name, value in values.items():
            if not isinstance(value, str) or len(value) > VALUE_CHARACTERS_MAX:
                most = f"at most {VALUE_CHARACTERS_MAX} characters"
                raise serializers.ValidationError({name: f"must be a string of {most}, or null"})
        return values


class RaisedByBody(StrictSerializer):
    """How much higher the limits become; the parts that are not named stay."""

    cost_usd = Usd(source="cost_nanos", required=False, allow_null=True)
    tokens = Count(required=False, allow_null=True)
    requests = Count(required=False, allow_null=True)
    tool_calls = Count(required=False, allow_null=True)
    seconds = Count(required=False, allow_null=True)


class RaiseBody(StrictSerializer):
    """What an agent asks for. Validated for the budget in the context."""

    by = RaisedByBody()
    group = Group(required=False, allow_null=True)
    ends_at = Moment(required=False, help_text="At most 31 days from now.")
    duration_seconds = Count(
        required=False,
        max_value=DURATION_SECONDS_MAX,
        help_text="Instead of `ends_at`: from the request on, however long the decision takes.",
    )
    reason = Text(max_length=1000)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("ends_at" in attrs) == ("duration_seconds" in attrs):
            raise problem_at("ends_at", "give this or 'duration_seconds', and not both", "required")
        now = timezone.now()
        if "duration_seconds" in attrs:
            attrs["ends_at"] = now + timedelta(seconds=attrs.pop("duration_seconds"))
        if attrs["ends_at"] > now + timedelta(seconds=DURATION_SECONDS_MAX):
            raise problem_at("ends_at", "must be at most 31 days from now")
        with errors_at_members(self):
            attrs["ask"] = self._ask(attrs)
        return attrs

    def _ask(self, attrs: dict[str, Any]) -> RaiseAsk:
        budget: Budget = self.context["budget"]
        group = attrs.get("group")
        ask = RaiseAsk(
            add=Added(**{part: amount or 0 for part, amount in attrs["by"].items()}),
            reason=attrs["reason"],
            ends_at=attrs["ends_at"],
            group_key="" if group is None else group_key_of(budget.per, group),
        )
        validate_raise(budget, ask)
        return ask


class NoteBody(StrictSerializer):
    """What whoever decides wants to say about it."""

    note = Text(required=False, min_length=0, max_length=1000, allow_blank=True)

    def run_validation(self, data: Any = empty) -> Any:
        """Null says nothing."""
        return {} if data is None else super().run_validation(data)


class RaisedByAnswer(serializers.Serializer[Any]):
    """How much higher the limits become; null: as before."""

    cost_usd = Usd(allow_null=True)
    tokens = serializers.IntegerField(allow_null=True)
    requests = serializers.IntegerField(allow_null=True)
    tool_calls = serializers.IntegerField(allow_null=True)
    seconds = serializers.IntegerField(allow_null=True)


class RaiseAnswer(serializers.Serializer[Any]):
    """A raise as it was asked for, and what was decided."""

    id = serializers.IntegerField()
    budget = serializers.IntegerField()
    by = RaisedByAnswer()
    group = serializers.DictField(
        child=serializers.CharField(allow_blank=True),
        allow_null=True,
        help_text="Null: every group.",
    )
    starts_at = Moment(allow_null=True, help_text="When it was approved.")
    ends_at = Moment()
    reason = serializers.CharField()
    status = serializers.ChoiceField(choices=RaiseStatus.values)
    level = serializers.IntegerField(
        allow_null=True, help_text="The level, in percent, whose action `hold` asked for it."
    )
    asked_at = Moment()
    asked_by = serializers.CharField()
    decided_at = Moment(allow_null=True)
    decided_by = serializers.CharField(allow_null=True)
    note = serializers.CharField(allow_blank=True)


class ObstacleAnswer(serializers.Serializer[Any]):
    """Something else that refuses calls of the group, all of them or some."""

    code = serializers.ChoiceField(
        choices=["halted", "breaker_open", "locked_out", "budget_exceeded"]
    )
    detail = serializers.CharField()
    match = serializers.DictField(help_text="The calls that it refuses.")
    affects = serializers.ChoiceField(
        choices=["all", "some"], help_text="Every call of the group, or maybe some of them."
    )
    halt = serializers.IntegerField(allow_null=True)
    breaker = serializers.IntegerField(allow_null=True)
    budget = serializers.IntegerField(allow_null=True)
    lift = serializers.CharField(
        allow_null=True,
        help_text="The request that ends it, as in `DELETE /v1/halts/7`; null: none does, raise"
        " that budget's limit.",
    )


class ApprovedAnswer(RaiseAnswer):
    """A raise in force, and what stops its calls all the same."""

    still_stopped_by = ObstacleAnswer(
        many=True, help_text="Halts, breakers and budgets that refuse such calls; 20 at most."
    )


class AllRaisesView(ApiView):
    """Raises of all budgets."""

    parameters = {"GET": PAGE_PARAMETERS | {"status"}}

    @extend_schema(
        summary="List raises of all budgets, newest first",
        parameters=[*PAGE_SCHEMA, STATUS_PARAMETER],
        responses=page_serializer(RaiseAnswer),
    )
    def get(self, request: Request) -> Response:
        return _page(request, BudgetRaise.objects.filter(tenant=tenant_of(request)))


class RaisesView(ApiView):
    """Raises of one budget. To ask for one takes the scope `enforce`, which decides nothing."""

    parameters = {"GET": PAGE_PARAMETERS | {"status"}}
    write_scope = Scope.ENFORCE

    @extend_schema(
        summary="List a budget's raises, newest first",
        parameters=[*PAGE_SCHEMA, STATUS_PARAMETER],
        responses=page_serializer(RaiseAnswer),
    )
    def get(self, request: Request, budget_id: int) -> Response:
        budget = find_budget(request, budget_id)
        return _page(request, BudgetRaise.objects.filter(tenant=tenant_of(request), budget=budget))

    @extend_schema(
        summary="Ask for higher limits for a while",
        description="Moves nothing until a person, or a key with the scope `manage`, approves it.",
        request=RaiseBody,
        responses={201: RaiseAnswer},
    )
    @idempotent
    def post(self, request: Request, budget_id: int) -> Response:
        budget = find_budget(request, budget_id)
        body = RaiseBody(data=request.data, context={"budget": budget})
        body.is_valid(raise_exception=True)
        asked = ask_for_raise(
            budget=budget, actor=actor_of(request), ask=body.validated_data["ask"]
        )
        return Response(raise_answer(asked), status=201)


class RaiseView(ApiView):
    """One raise."""

    also_answers = {"DELETE": (409,)}

    @extend_schema(summary="Show a raise", responses=RaiseAnswer)
    def get(self, request: Request, budget_id: int, raise_id: int) -> Response:
        return Response(raise_answer(_find(request, budget_id, raise_id)))

    @extend_schema(
        summary="End an approved raise now; it stays to be read",
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, budget_id: int, raise_id: int) -> Response:
        found = _find(request, budget_id, raise_id)
        end_raise(budget_raise=found, actor=actor_of(request))
        return Response(status=204)


class ApproveView(ApiView):
    """A decision for a raise."""

    @extend_schema(
        summary="Approve a raise: it counts from the next reservation on, until its end",
        description="The answer names what still stops such calls: other halts, breakers and"
        " budgets, and the request that lifts them.",
        request=NoteBody,
        responses={200: ApprovedAnswer},
    )
    @idempotent
    def post(self, request: Request, budget_id: int, raise_id: int) -> Response:
        approved = _decide(request, approve_raise, _find(request, budget_id, raise_id))
        obstacles = read_obstacles(approved.tenant_id, now=timezone.now())
        stopping = [
            _obstacle_answer(obstacle)
            for obstacle in obstacles.of(approved.budget_id, approved.group_key)
        ]
        return Response({**raise_answer(approved), "still_stopped_by": stopping})


class RefuseView(ApiView):
    """A decision against a raise."""

    @extend_schema(summary="Refuse a raise", request=NoteBody, responses={200: RaiseAnswer})
    @idempotent
    def post(self, request: Request, budget_id: int, raise_id: int) -> Response:
        refused = _decide(request, refuse_raise, _find(request, budget_id, raise_id))
        return Response(raise_answer(refused))


def _decide(
    request: Request, decide: Callable[..., BudgetRaise], found: BudgetRaise
) -> BudgetRaise:
    body = NoteBody(data=request.data)
    body.is_valid(raise_exception=True)
    return decide(
        budget_raise=found, actor=actor_of(request), note=body.validated_data.get("note", "")
    )


def _obstacle_answer(obstacle: Obstacle) -> dict[str, Any]:
    lift = None
    if obstacle.breaker_id is not None:
        lift = f"POST /v1/breakers/{obstacle.breaker_id}/close"
    elif obstacle.halt_id is not None:
        lift = f"DELETE /v1/halts/{obstacle.halt_id}"
    return {
        "code": obstacle.code,
        "detail": obstacle.detail,
        "match": dict(obstacle.match),
        "affects": "all" if obstacle.is_for_all else "some",
        "halt": obstacle.halt_id,
        "breaker": obstacle.breaker_id,
        "budget": obstacle.budget_id,
        "lift": lift,
    }


def _page(request: Request, raises: QuerySet[BudgetRaise]) -> Response:
    page = page_of(request, [int])
    status = request.query_params.get("status")
    if status is not None:
        if status not in RaiseStatus.values:
            raise InvalidRequest(f"'status' must be one of {', '.join(RaiseStatus.values)}.")
        raises = raises.filter(status=status)
    if page.after is not None:
        raises = raises.filter(id__lt=page.after[0])
    rows = list(raises.select_related("budget").order_by("-id")[: page.limit + 1])
    return Response(page_answer(rows, page=page, answer=raise_answer, key=lambda row: [row.id]))


def _find(request: Request, budget_id: int, raise_id: int) -> BudgetRaise:
    found = (
        BudgetRaise.objects.filter(tenant=tenant_of(request), budget_id=budget_id, id=raise_id)
        .select_related("budget")
        .first()
    )
    if found is None:
        raise NotFound(f"Budget {budget_id} has no raise {raise_id}.")
    return found


def raise_answer(found: BudgetRaise) -> dict[str, Any]:
    """A raise as the API shows it."""
    return {
        "id": found.id,
        "budget": found.budget_id,
        "by": {
            "cost_usd": usd_from_nanos(found.add_cost_nanos) if found.add_cost_nanos else None,
            "tokens": found.add_tokens or None,
            "requests": found.add_requests or None,
            "tool_calls": found.add_tool_calls or None,
            "seconds": found.add_seconds or None,
        },
        "group": _group_answer(found),
        "starts_at": _moment_or_none(found.starts_at),
        "ends_at": moment_text(found.ends_at),
        "reason": found.reason,
        "status": found.status,
        "level": found.level_percent,
        "asked_at": moment_text(found.asked_at),
        "asked_by": found.asked_by,
        "decided_at": _moment_or_none(found.decided_at),
        "decided_by": found.decided_by or None,
        "note": found.note,
    }


def _group_answer(found: BudgetRaise) -> dict[str, str] | None:
    if not found.group_key:
        return None
    # Not strict: the budget may have other dimensions today.
    return dict(zip(found.budget.per, json.loads(found.group_key), strict=False))


def _moment_or_none(moment: datetime | None) -> str | None:
    return moment_text(moment) if moment else None
