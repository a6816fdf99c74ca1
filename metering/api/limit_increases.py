"""`/v1/budgets/{id}/raises`: limits that are higher for a while, asked for by an agent and decided
by people.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Final

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import (
    OpenApiParameter,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
)
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import (
    Count,
    OptionalBody,
    Spoken,
    StrictSerializer,
    Text,
    Timestamp,
    Usd,
    read_body,
)
from common.api.pagination import PAGE_PARAMETERS
from common.api.parameters import read_choice
from common.api.structs import (
    AmountUsd,
    Answer,
    GroupValues,
    UtcTimestamp,
    about,
    one_of,
    usd_or_none,
)
from common.expectations import must_be_object
from common.json_bodies import JsonObject
from metering.api.budgets import find_budget
from metering.core.dimensions import VALUE_CHARACTERS_MAX, normal_match
from metering.core.match import group_key
from metering.core.validation import Problem, group_problems, require
from metering.fields.body import errors_at_members
from metering.limits.limit_increases import (
    Added,
    IncreaseAsk,
    approve_increase,
    ask_for_increase,
    end_increase,
    increase_problems,
    refuse_increase,
)
from metering.limits.obstacles import Obstacle, read_obstacles
from metering.models import Budget, LimitIncrease, LimitIncreaseStatus
from tenants.api.idempotency import idempotent
from tenants.api.resources import Resource
from tenants.roles import Scope

DURATION_SECONDS_MAX: Final = 31 * 86_400


@extend_schema_field(
    {
        "type": ["object", "null"],
        "description": "A value for each dimension of the budget's `per`; null or empty where it"
        " has none. Left out: every group.",
        "additionalProperties": {"type": ["string", "null"], "maxLength": VALUE_CHARACTERS_MAX},
        "example": {"agent": "researcher"},
    }
)
class Group(Spoken):
    """One group of a budget, by dimension."""

    example: ClassVar[dict[str, str]] = {"agent": "researcher"}

    def to_internal_value(self, data: object) -> dict[str, str]:
        if not isinstance(data, dict):
            raise serializers.ValidationError(must_be_object(self.example))
        values = {}
        for name, value in normal_match(data).items():
            text = value or ""
            if not isinstance(text, str) or len(text) > VALUE_CHARACTERS_MAX:
                most = f"at most {VALUE_CHARACTERS_MAX} characters"
                raise serializers.ValidationError({name: f"must be a string of {most}, or null"})
            values[name] = text
        return values


class RaisedByBody(StrictSerializer):
    """How much higher the limits become; the parts that are not named stay."""

    cost_usd = Usd(source="cost_nanos", required=False, allow_null=True)
    tokens = Count(required=False, allow_null=True)
    requests = Count(required=False, allow_null=True)
    tool_calls = Count(required=False, allow_null=True)
    seconds = Count(required=False, allow_null=True)


class LimitIncreaseBody(StrictSerializer):
    """What an agent asks for. Validated for the budget in the context."""

    by = RaisedByBody()
    group = Group(required=False, allow_null=True)
    ends_at = Timestamp(required=False, help_text="At most 31 days from now.")
    duration_seconds = Count(
        required=False,
        max_value=DURATION_SECONDS_MAX,
        help_text="Instead of `ends_at`: from the request on, however long the decision takes.",
    )
    reason = Text(max_length=1000)

    def validate(self, attrs: JsonObject) -> JsonObject:
        attrs["ask"] = self._ask(attrs)
        return attrs

    def judge_readable(self, faulty: Collection[str]) -> None:
        self._ask(self.readable, faulty)

    def _ask(self, attrs: JsonObject, faulty: Collection[str] = ()) -> IncreaseAsk:
        """Return what is asked for. Raises ValidationError with what is wrong with each member."""
        budget: Budget = self.context["budget"]
        group: Mapping[str, str] | None = attrs.get("group")
        now = timezone.now()
        seconds = timedelta(seconds=attrs.get("duration_seconds", 1))
        ask = IncreaseAsk(
            add=Added(**{part: amount or 0 for part, amount in attrs.get("by", {}).items()}),
            reason=attrs.get("reason", ""),
            ends_at=attrs.get("ends_at", now + seconds),
            group_key="" if group is None else group_key(list(group.values())),
        )
        with errors_at_members(self):
            require(
                [
                    *_end_problems(ask.ends_at, {*attrs, *faulty}, now),
                    *(() if group is None else group_problems(budget.per, group)),
                    *increase_problems(budget, ask),
                ]
            )
        if group is None:
            return ask
        return ask._replace(group_key=group_key([group[name] for name in budget.per]))


def _end_problems(ends_at: datetime, given: Collection[str], now: datetime) -> Iterator[Problem]:
    if ("ends_at" in given) == ("duration_seconds" in given):
        yield Problem("ends_at", "give this or 'duration_seconds', and not both", "required")
    elif ends_at > now + timedelta(seconds=DURATION_SECONDS_MAX):
        yield Problem("ends_at", "must be at most 31 days from now")


class NoteBody(OptionalBody):
    """A note from the person who decides."""

    note = Text(required=False, max_length=1000, allow_blank=True)


class RaisedByAnswer(Answer):
    """How much higher the limits become; null: as before."""

    cost_usd: AmountUsd | None
    tokens: int | None
    requests: int | None
    tool_calls: int | None
    seconds: int | None


class LimitIncreaseAnswer(Answer):
    """A raise as it was asked for, and what was decided."""

    id: int
    budget: int
    by: RaisedByAnswer
    group: Annotated[GroupValues | None, about("Null: every group.")]
    starts_at: Annotated[UtcTimestamp | None, about("When it was approved.")]
    ends_at: UtcTimestamp
    reason: str
    status: Annotated[str, one_of(LimitIncreaseStatus.values)]
    level: Annotated[int | None, about("The level, in percent, whose action `hold` asked for it.")]
    asked_at: UtcTimestamp
    asked_by: str
    decided_at: UtcTimestamp | None
    decided_by: str | None
    note: str


class ObstacleAnswer(Answer):
    """Something else that refuses calls of the group, all of them or some."""

    code: Annotated[str, one_of(["halted", "breaker_open", "locked_out", "budget_exceeded"])]
    detail: str
    match: Annotated[JsonObject, about("The calls that it refuses.")]
    affects: Annotated[
        str, one_of(["all", "some"], "Every call of the group, or maybe some of them.")
    ]
    halt: int | None
    breaker: int | None
    budget: int | None
    lift: Annotated[
        str | None,
        about(
            "The request that ends it, as in `DELETE /v1/halts/7`; null: none does, raise that"
            " budget's limit."
        ),
    ]


class ApprovedAnswer(LimitIncreaseAnswer):
    """A raise in force, and what stops its calls all the same."""

    still_stopped_by: Annotated[
        list[ObstacleAnswer],
        about("Halts, breakers and budgets that refuse such calls; 20 at most."),
    ]


@extend_schema_view(
    list=extend_schema(summary="List raises of all budgets, newest first"),
    retrieve=extend_schema(summary="Show a raise"),
    destroy=extend_schema(summary="End an approved raise now; it stays readable"),
)
class LimitIncreases(Resource[LimitIncrease]):
    """Raises of all budgets."""

    model = LimitIncrease
    noun = "raise"
    answer = LimitIncreaseAnswer
    order = ("-id",)
    parameters = {
        "list": (*PAGE_PARAMETERS, OpenApiParameter("status", str, enum=LimitIncreaseStatus.values))
    }
    also_answers = {"destroy": (409,)}

    def rows(self) -> QuerySet[LimitIncrease]:
        rows = super().rows().select_related("budget")
        if "budget_id" in self.kwargs:
            rows = rows.filter(budget_id=self.kwargs["budget_id"])
        return rows

    def listed_rows(self) -> QuerySet[LimitIncrease]:
        status = read_choice(self.request, "status", LimitIncreaseStatus.values)
        return self.rows() if status is None else self.rows().filter(status=status)

    def answer_of(self, row: LimitIncrease) -> LimitIncreaseAnswer:
        return raise_answer(row)

    def delete_row(self, row: LimitIncrease) -> object:
        return end_increase(limit_increase=row, actor=self.actor)

    @extend_schema(
        summary="Approve a raise: it counts from the next reservation on, until its end",
        description="The answer names what still stops such calls: other halts, breakers and"
        " budgets, and the request that lifts them.",
        request=NoteBody,
        responses={200: ApprovedAnswer},
    )
    @idempotent
    def approve(self, request: Request, **path: object) -> Response:
        row, note = self.row(), read_body(NoteBody, request).get("note", "")
        approved = approve_increase(limit_increase=row, actor=self.actor, note=note)
        obstacles = read_obstacles(approved.tenant_id, now=timezone.now())
        stopping = obstacles.of(approved.budget_id, approved.group_key)
        return Response(
            raise_answer(
                approved,
                ApprovedAnswer,
                still_stopped_by=[_obstacle_answer(obstacle) for obstacle in stopping],
            )
        )

    @extend_schema(summary="Refuse a raise", request=NoteBody, responses={200: LimitIncreaseAnswer})
    @idempotent
    def refuse(self, request: Request, **path: object) -> Response:
        row, note = self.row(), read_body(NoteBody, request).get("note", "")
        refused = refuse_increase(limit_increase=row, actor=self.actor, note=note)
        return Response(raise_answer(refused))


@extend_schema_view(list=extend_schema(summary="List a budget's raises, newest first"))
class RaisesOfBudget(LimitIncreases):
    """Raises of one budget. To ask for one takes the scope `enforce`, which decides nothing."""

    write_scope = Scope.ENFORCE

    def listed_rows(self) -> QuerySet[LimitIncrease]:
        find_budget(self.tenant, self.kwargs["budget_id"])
        return super().listed_rows()

    @extend_schema(
        summary="Ask for higher limits for a while",
        description="Moves nothing until a person, or a key with the scope `manage`, approves it.",
        request=LimitIncreaseBody,
        responses={201: LimitIncreaseAnswer},
    )
    @idempotent
    def create(self, request: Request, **path: object) -> Response:
        budget = find_budget(self.tenant, self.kwargs["budget_id"])
        ask = read_body(LimitIncreaseBody, request, budget=budget)["ask"]
        asked = ask_for_increase(budget=budget, actor=self.actor, ask=ask)
        return Response(raise_answer(asked), status=201)


def _obstacle_answer(obstacle: Obstacle) -> ObstacleAnswer:
    lift = None
    if obstacle.breaker_id is not None:
        lift = f"POST /v1/breakers/{obstacle.breaker_id}/close"
    elif obstacle.halt_id is not None:
        lift = f"DELETE /v1/halts/{obstacle.halt_id}"
    return ObstacleAnswer.of(
        obstacle,
        match=dict(obstacle.match),
        affects="all" if obstacle.is_for_all else "some",
        halt=obstacle.halt_id,
        breaker=obstacle.breaker_id,
        budget=obstacle.budget_id,
        lift=lift,
    )


def raise_answer(
    row: LimitIncrease, kind: type[LimitIncreaseAnswer] = LimitIncreaseAnswer, **computed: object
) -> LimitIncreaseAnswer:
    """Return a raise as it is answered."""
    group = None
    if row.group_key:
        # Not strict: the budget may have other dimensions today.
        group = dict(zip(row.budget.per, json.loads(row.group_key), strict=False))
    by = RaisedByAnswer(
        cost_usd=usd_or_none(row.add_cost_nanos or None),
        tokens=row.add_tokens or None,
        requests=row.add_requests or None,
        tool_calls=row.add_tool_calls or None,
        seconds=row.add_seconds or None,
    )
    return kind.of(
        row,
        budget=row.budget_id,
        by=by,
        group=group,
        level=row.level_percent,
        decided_by=row.decided_by or None,
        **computed,
    )
