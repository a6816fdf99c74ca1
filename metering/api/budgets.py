"""`/v1/budgets`: limits on what matches."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import (
    Choice,
    Count,
    Flag,
    Items,
    OptionalBody,
    StrictSerializer,
    Text,
    Timestamp,
    Timezone,
    Usd,
    problem_at,
)
from common.api.pagination import PAGE_PARAMETERS, page_answer, page_of, paginate, read_page
from common.api.parameters import read_flag
from common.errors import Conflict, NotFound
from common.json_bodies import JsonObject
from metering.api.windows import WindowAnswer, window_answers
from metering.budgets.presets import PRESETS, Preset
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule, LevelRule
from metering.configuration.budgets import (
    BUDGETS,
    LEVEL_RATE_FIELDS,
    LEVELS_MAX,
    NOTIFY_CHARACTERS_MAX,
    NOTIFY_MAX,
    PER_NAMES,
    PERCENT_MAX,
    ROLLOVER_PERCENT_MAX,
    create_budget,
    update_budget,
    validate_budget,
)
from metering.core.dimensions import MATCHABLE
from metering.fields.body import Match, RowBody, errors_at_members
from metering.models import Action, Budget, BudgetWindow, Mode, Period
from tenants.api.idempotency import idempotent
from tenants.api.resources import Resource
from tenants.models import Tenant


class LimitBody(StrictSerializer):
    """One or more parts, all of which hold."""

    cost_usd = Usd(source="limit_cost_nanos", required=False, allow_null=True)
    tokens = Count(
        source="limit_tokens", required=False, allow_null=True, help_text="Input and output."
    )
    requests = Count(source="limit_requests", required=False, allow_null=True)
    tool_calls = Count(source="limit_tool_calls", required=False, allow_null=True)
    seconds = Count(
        source="limit_seconds",
        required=False,
        allow_null=True,
        help_text="Since the first use within the window.",
    )


class ThrottleBody(OptionalBody):
    """What a level that throttles lets through within any minute."""

    cost_usd_per_minute = Usd(source="cost_nanos_per_minute", required=False, allow_null=True)
    tokens_per_minute = Count(required=False, allow_null=True, help_text="Input and output.")

    def validate(self, attrs: JsonObject) -> JsonObject:
        if all(value is None for value in attrs.values()):
            raise serializers.ValidationError("needs at least one rate")
        return attrs


class LevelBody(StrictSerializer):
    """A share of the limit, whom to tell when it is reached, and what to do."""

    percent = Count(max_value=PERCENT_MAX)
    notify = Items(
        child=Text(max_length=NOTIFY_CHARACTERS_MAX), max_length=NOTIFY_MAX, required=False
    )
    action = Choice(
        choices=Action.values,
        required=False,
        help_text="`none` only notifies; `throttle` lets calls through at a rate; `downgrade` names"
        " the cheaper model of a route; `hold` refuses like `block` and asks people for a raise;"
        " `lockout` halts what matches until a person lifts it.",
    )
    throttle = ThrottleBody(
        source="*",
        required=False,
        allow_null=True,
        help_text="For the action `throttle` alone. Null: what is left of the limit, spread evenly"
        " over what is left of the period.",
    )

    def validate(self, attrs: JsonObject) -> JsonObject:
        if "percent" not in attrs:
            # Left out of a PATCH, whose members are optional; those of a level are not.
            raise problem_at("percent", "is required", "required")
        return attrs

    def to_representation(self, instance: Any) -> JsonObject:
        shown: JsonObject = super().to_representation(instance)
        if all(getattr(instance, rate) is None for rate in LEVEL_RATE_FIELDS):
            shown["throttle"] = None
        return shown


class BudgetBody(RowBody):
    """A budget. A PATCH changes the members it names, and of `limit` the parts."""

    id = serializers.IntegerField(read_only=True)
    name = Text()
    match = Match(required=False)
    per = Items(child=Choice(choices=PER_NAMES), required=False, max_length=len(MATCHABLE))
    period = Choice(choices=Period.values)
    timezone = Timezone(required=False)
    anchor = Timestamp(
        source="anchor_at",
        required=False,
        allow_null=True,
        help_text="Periods begin at this moment and its repetitions. Whole minutes.",
    )
    rolling = Flag(
        source="is_rolling", required=False, help_text="Count the trailing period instead."
    )
    rollover = Flag(
        source="has_rollover",
        required=False,
        help_text="Add what a period leaves unused to the next one's limit.",
    )
    rollover_max_percent = Count(
        required=False,
        max_value=ROLLOVER_PERCENT_MAX,
        help_text="The most carried over, of the limit.",
    )
    limit = LimitBody(source="*")
    mode = Choice(choices=Mode.values, required=False)
    levels = LevelBody(  # type: ignore[call-arg]  # of the list that `many` makes
        many=True,
        max_length=LEVELS_MAX,
        required=False,
        help_text="None named: one at 100% that blocks, since a limit that is not enforced"
        " would be a trap. The action `none` only watches.",
    )
    revision = serializers.IntegerField(
        read_only=True, help_text="Rises when what the budget counts is changed."
    )
    counting = serializers.BooleanField(
        source="is_counting",
        read_only=True,
        help_text="Whether what was spent before the budget was made is still being added: its"
        " windows then hold less than was spent, and refuse by what they hold. `/v1/jobs` tells how"
        " far it is.",
    )
    created_at = Timestamp(read_only=True)
    archived_at = Timestamp(read_only=True, allow_null=True)

    model = Budget

    def validate(self, attrs: JsonObject) -> JsonObject:
        levels = [level_of(level) for level in attrs.get("levels", ())]
        with errors_at_members(self):
            validate_budget(self.proposed_row(attrs), levels)
        return attrs


class NewBudgetBody(BudgetBody):
    """A budget to make. With a preset, what is left out is taken from it; of `limit` by parts."""

    name = Text(required=False, help_text="Needed without a preset.")
    period = Choice(choices=Period.values, required=False, help_text="Needed without a preset.")
    limit = LimitBody(source="*", required=False, help_text="Needed without a preset.")
    preset = Choice(
        choices=list(PRESETS), required=False, help_text="As `GET /v1/budgets/presets` lists them."
    )


class PresetAnswer(serializers.Serializer[Any]):
    """A budget that is ready to use: `POST /v1/budgets {"preset": …}` makes it."""

    preset = serializers.CharField()
    description = serializers.CharField()
    name = serializers.CharField()
    per = serializers.ListField(child=serializers.CharField())
    period = serializers.CharField()
    limit = LimitBody(source="*")
    mode = serializers.CharField()
    levels = LevelBody(many=True)


@extend_schema_view(
    list=extend_schema(summary="List budgets, oldest first"),
    retrieve=extend_schema(summary="Show a budget"),
    partial_update=extend_schema(
        summary="Change a budget",
        description="Of `limit`, the parts that are named change, and null removes one; every other"
        " member is replaced. A change of what is counted starts a new revision with new windows.",
    ),
    destroy=extend_schema(summary="Archive a budget: it counts no more, and its windows stay"),
)
class Budgets(Resource[Budget]):
    """The budgets of the tenant."""

    model = Budget
    noun = "budget"
    kind = BUDGETS
    body = BudgetBody
    parameters = {
        "list": (
            *PAGE_PARAMETERS,
            OpenApiParameter("archived", bool, description="Archived ones (true) or the others."),
        ),
        "windows": PAGE_PARAMETERS,
        "presets": PAGE_PARAMETERS,
    }

    def rows(self) -> QuerySet[Budget]:
        return super().rows().prefetch_related("levels")

    def listed_rows(self) -> QuerySet[Budget]:
        is_archived = read_flag(self.request, "archived") or False
        return self.rows().filter(archived_at__isnull=not is_archived)

    @extend_schema(
        summary="Create a budget; it includes what its period has already spent",
        description="Over a long past it is `counting` at first.",
        request=NewBudgetBody,
        responses={201: BudgetBody},
    )
    @idempotent
    def create(self, request: Request, **path: object) -> Response:
        fields, levels = new_budget(request.data)
        budget = create_budget(tenant=self.tenant, actor=self.actor, levels=levels, **fields)
        return Response(BudgetBody(budget).data, status=201)

    def update_row(self, row: Budget, changes: JsonObject) -> Budget:
        if row.archived_at is not None:
            raise Conflict("The budget is archived and cannot be changed.")
        levels = levels_of(changes.pop("levels")) if "levels" in changes else None
        return update_budget(budget=row, actor=self.actor, changes=changes, levels=levels)

    @extend_schema(summary="List presets of budgets", responses=page_of(PresetAnswer))
    def presets(self, request: Request) -> Response:
        page = read_page(request)
        first = page.after[0] if page.after else 0
        answer = page_answer(
            list(enumerate(PRESETS.items(), start=1))[max(0, first) :],
            page=page,
            answers=lambda rows: [
                PresetAnswer(
                    {
                        **vars(Budget(**preset.fields)),
                        "preset": name,
                        "description": preset.description,
                        "levels": preset.levels,
                    }
                ).data
                for _, (name, preset) in rows
            ],
            key=lambda row: [row[0]],
        )
        return Response(answer)

    @extend_schema(
        summary="List a budget's windows, newest first",
        description="Those of its present revision.",
        responses=page_of(WindowAnswer),
    )
    def windows(self, request: Request, budget_id: int) -> Response:
        budget = self.row()
        windows = BudgetWindow.objects.filter(
            tenant=self.tenant, budget_id=budget.id, revision=budget.revision
        )
        # With its raises, which an archived budget has none of.
        rule = read_budget_index(budget.tenant_id).rules.get(budget.id) or BudgetRule(budget, [])
        answer = partial(window_answers, rule, now=timezone.now())
        return Response(paginate(request, windows, answer, order=("-starts_at", "-id")))


def new_budget(data: object) -> tuple[JsonObject, Sequence[LevelRule]]:
    """The fields and levels of a budget to make; a preset fills what the body leaves out."""
    if not isinstance(data, dict) or "preset" not in data:
        body = BudgetBody(data=data)
        preset = Preset("", {}, ())
    else:
        name = data["preset"]
        if not isinstance(name, str) or name not in PRESETS:
            raise problem_at("preset", f"must be one of {', '.join(PRESETS)}", "invalid_choice")
        preset = PRESETS[name]
        given = {member: value for member, value in data.items() if member != "preset"}
        body = BudgetBody(Budget(**preset.fields), data=given, partial=True)
    body.is_valid(raise_exception=True)
    fields = {**preset.fields, **body.validated_data}
    levels = levels_of(fields.pop("levels")) if "levels" in fields else preset.levels
    return fields, levels


def find_budget(tenant: Tenant, budget_id: int) -> Budget:
    """Return a budget of the tenant. Raises NotFound."""
    budgets = Budget.objects.filter(tenant=tenant, id=budget_id)
    if (budget := budgets.prefetch_related("levels").first()) is None:
        raise NotFound.of("budget", budget_id)
    return budget


def levels_of(levels: Sequence[JsonObject]) -> list[LevelRule]:
    return sorted(map(level_of, levels), key=lambda level: level.percent)


def level_of(level: JsonObject) -> LevelRule:
    """Return a level of a body as a rule."""
    return LevelRule(
        level["percent"],
        level.get("action", Action.NONE.value),
        tuple(level.get("notify", ())),
        level.get("cost_nanos_per_minute"),
        level.get("tokens_per_minute"),
    )
