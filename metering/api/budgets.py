"""`/v1/budgets`: limits on what matches, and the windows that they count in."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.fields import empty
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import (
    Choice,
    Count,
    Flag,
    Items,
    Moment,
    StrictSerializer,
    Text,
    Timezone,
    Usd,
    moment_text,
    problem_at,
)
from common.api.pagination import (
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    flag_parameter,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import Conflict, NotFound
from common.money import usd_from_nanos
from metering.budgets.levels import WindowBalance
from metering.budgets.presets import PRESETS, Preset
from metering.budgets.reading import read_book
from metering.budgets.rules import BudgetRule, LevelRule
from metering.configuration.budgets import (
    LEVEL_RATE_FIELDS,
    LEVELS_MAX,
    NOTIFY_CHARACTERS_MAX,
    NOTIFY_MAX,
    PER_NAMES,
    PERCENT_MAX,
    ROLLOVER_PERCENT_MAX,
    archive_budget,
    create_budget,
    update_budget,
    validate_budget,
)
from metering.core.dimensions import MATCHABLE, REQUEST
from metering.fields.body import Match, RowBody, errors_at_members
from metering.ledger.windows import state_of, used_percent
from metering.models import Action, Budget, BudgetWindow, Mode, Period
from metering.reporting.unknown_holds import unknown_by_window, window_from
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of


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


class ThrottleBody(StrictSerializer):
    """What a level that throttles lets through within any minute."""

    cost_usd_per_minute = Usd(source="cost_nanos_per_minute", required=False, allow_null=True)
    tokens_per_minute = Count(required=False, allow_null=True, help_text="Input and output.")

    def run_validation(self, data: Any = empty) -> Any:
        """Null names no rate."""
        return {} if data is None else super().run_validation(data)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
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

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "percent" not in attrs:
            # Left out of a PATCH, whose members are optional; those of a level are not.
            raise problem_at("percent", "This field is required.", "required")
        return attrs

    def to_representation(self, instance: Any) -> dict[str, Any]:
        shown: dict[str, Any] = super().to_representation(instance)
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
    anchor = Moment(
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
        help_text="None named: one at 100 percent that blocks, since a limit that nobody enforces"
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
    created_at = Moment(read_only=True)
    archived_at = Moment(read_only=True, allow_null=True)

    model = Budget

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
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
    limit = LimitBody()
    mode = serializers.CharField()
    levels = LevelBody(many=True)


class WindowAnswer(serializers.Serializer[Any]):
    """One group and period of a budget: what was spent, what is held, and what is left."""

    group = serializers.DictField(child=serializers.CharField(allow_blank=True))
    window_start = Moment()
    window_end = Moment(allow_null=True)
    limit_usd = Usd(
        allow_null=True,
        help_text="With what the period before left, where that is added, and what raises in force"
        " add now.",
    )
    spent_usd = Usd()
    reserved_usd = Usd()
    remaining_usd = serializers.CharField(allow_null=True, help_text="Below zero when overspent.")
    overrun_usd = Usd()
    carried_usd = Usd()
    unknown_usd = Usd(
        required=False,
        help_text="Where above zero: what was held for calls that may have run, until their time"
        " was over. It is neither spent nor reserved.",
    )
    limit_tokens = serializers.IntegerField(allow_null=True)
    spent_tokens = serializers.IntegerField()
    reserved_tokens = serializers.IntegerField()
    remaining_tokens = serializers.IntegerField(allow_null=True)
    limit_requests = serializers.IntegerField(allow_null=True)
    spent_requests = serializers.IntegerField()
    reserved_requests = serializers.IntegerField()
    remaining_requests = serializers.IntegerField(allow_null=True)
    limit_tool_calls = serializers.IntegerField(allow_null=True)
    spent_tool_calls = serializers.IntegerField()
    reserved_tool_calls = serializers.IntegerField()
    remaining_tool_calls = serializers.IntegerField(allow_null=True)
    limit_seconds = serializers.IntegerField(allow_null=True)
    spent_seconds = serializers.IntegerField(help_text="Since the window's first use.")
    first_used_at = Moment(allow_null=True)
    used_percent = serializers.FloatField(help_text="Of the fullest part of the limit.")
    level = serializers.IntegerField(
        allow_null=True, help_text="The highest level that was reached, in percent."
    )


class BudgetsView(ApiView):
    """All budgets of the tenant."""

    parameters = {"GET": PAGE_PARAMETERS | {"archived"}}

    @extend_schema(
        summary="List budgets, oldest first",
        parameters=[
            *PAGE_SCHEMA,
            OpenApiParameter("archived", bool, description="Archived ones (true) or the others."),
        ],
        responses=page_serializer(BudgetBody),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        is_archived = flag_parameter(request, "archived")
        budgets = Budget.objects.filter(
            tenant=tenant_of(request),
            archived_at__isnull=not is_archived,
            id__gt=page.after[0] if page.after else 0,
        ).prefetch_related("levels")
        rows = list(budgets.order_by("id")[: page.limit + 1])
        return Response(
            page_answer(
                rows, page=page, answer=lambda row: BudgetBody(row).data, key=lambda row: [row.id]
            )
        )

    @extend_schema(
        summary="Make a budget, which counts what its period has spent already",
        description="Over a long past it is `counting` at first.",
        request=NewBudgetBody,
        responses={201: BudgetBody},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        fields, levels = new_budget(request.data)
        budget = create_budget(
            tenant=tenant_of(request), actor=actor_of(request), levels=levels, **fields
        )
        return Response(BudgetBody(budget).data, status=201)


class PresetsView(ApiView):
    """Budgets that are ready to use."""

    parameters = {"GET": PAGE_PARAMETERS}

    @extend_schema(
        summary="List presets of budgets",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(PresetAnswer),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        first = page.after[0] if page.after else 0
        rows = list(enumerate(PRESETS.items(), start=1))[max(0, first) :]
        return Response(
            page_answer(
                rows, page=page, answer=lambda row: preset_answer(*row[1]), key=lambda row: [row[0]]
            )
        )


class BudgetView(ApiView):
    """One budget."""

    @extend_schema(summary="Show a budget", responses=BudgetBody)
    def get(self, request: Request, budget_id: int) -> Response:
        return Response(BudgetBody(find_budget(request, budget_id)).data)

    @extend_schema(
        summary="Change a budget",
        description="Of `limit`, the parts that are named change, and null removes one; every other"
        " member is replaced. A change of what is counted starts a new revision with new windows.",
        request=BudgetBody,
        responses=BudgetBody,
    )
    def patch(self, request: Request, budget_id: int) -> Response:
        budget = find_budget(request, budget_id)
        if budget.archived_at is not None:
            raise Conflict("The budget is archived and cannot be changed.")
        body = BudgetBody(budget, data=request.data, partial=True)
        body.is_valid(raise_exception=True)
        changes = dict(body.validated_data)
        levels = levels_of(changes.pop("levels")) if "levels" in changes else None
        changed = update_budget(
            budget=budget, actor=actor_of(request), changes=changes, levels=levels
        )
        return Response(BudgetBody(changed).data)

    @extend_schema(
        summary="Archive a budget: it counts no more, and its windows stay",
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, budget_id: int) -> Response:
        archive_budget(budget=find_budget(request, budget_id), actor=actor_of(request))
        return Response(status=204)


class WindowsView(ApiView):
    """The windows of a budget's present revision."""

    parameters = {"GET": PAGE_PARAMETERS}

    @extend_schema(
        summary="List a budget's windows, newest first",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(WindowAnswer),
    )
    def get(self, request: Request, budget_id: int) -> Response:
        page = page_of(request, [datetime, int])
        budget = find_budget(request, budget_id)
        windows = BudgetWindow.objects.filter(
            tenant=tenant_of(request), budget_id=budget.id, revision=budget.revision
        )
        if page.after is not None:
            starts_at, window_id = page.after
            windows = windows.filter(
                Q(starts_at__lt=starts_at) | Q(starts_at=starts_at, id__lt=window_id)
            )
        rows = list(windows.order_by("-starts_at", "-id")[: page.limit + 1])
        # With its raises, which an archived budget has none of.
        rule = read_book(budget.tenant_id).rules.get(budget.id) or BudgetRule(budget, [])
        now = timezone.now()
        unknown = unknown_by_window(
            budget.tenant_id,
            [window_from(rule, row.id, row.starts_at, now) for row in rows],
            now=now,
        )
        return Response(
            page_answer(
                rows,
                page=page,
                answer=lambda row: (
                    window_answer(rule, row, now=now) | _unknown_part(unknown.get(row.id, 0))
                ),
                key=lambda row: [row.starts_at, row.id],
            )
        )


def window_answer(rule: BudgetRule, window: BudgetWindow, *, now: datetime) -> dict[str, Any]:
    """A window as the API shows it."""
    raised = rule.raised(window.group_key, now)
    limits = {
        part: None if limit is None else limit + raised[place]
        for place, (part, limit) in enumerate(rule.limits.items())
    }
    if limits["cost_nanos"] is not None:
        limits["cost_nanos"] += window.carried_nanos
    return {
        "group": group_of(rule, window.group_key),
        "window_start": moment_text(window.starts_at),
        "window_end": moment_text(window.ends_at) if window.ends_at else None,
        **_money_parts(limits["cost_nanos"], window),
        **_counted_parts("tokens", limits["tokens"], window),
        **_counted_parts("requests", limits["requests"], window),
        **_counted_parts("tool_calls", limits["tool_calls"], window),
        "limit_seconds": None if rule.limit_seconds is None else rule.limit_seconds + raised[4],
        "spent_seconds": WindowBalance(first_used_at=window.first_used_at).used_seconds(now),
        "first_used_at": moment_text(window.first_used_at) if window.first_used_at else None,
        "used_percent": float(used_percent(rule, state_of(window), now=now).percent),
        "level": window.level_percent or None,
    }


def group_of(rule: BudgetRule, group_key: str) -> dict[str, str]:
    """A window's group as dimension to value; a single call's own mark comes last."""
    names = [name for name in rule.per if name != REQUEST]
    if rule.is_per_request:
        names.append(REQUEST)
    return dict(zip(names, json.loads(group_key), strict=True))


def _money_parts(limit: int | None, window: BudgetWindow) -> dict[str, str | None]:
    left = None if limit is None else limit - window.spent_nanos - window.reserved_nanos
    return {
        "limit_usd": None if limit is None else usd_from_nanos(limit),
        "spent_usd": usd_from_nanos(window.spent_nanos),
        "reserved_usd": usd_from_nanos(window.reserved_nanos),
        "remaining_usd": None if left is None else usd_from_nanos(left),
        "overrun_usd": usd_from_nanos(window.overrun_nanos),
        "carried_usd": usd_from_nanos(window.carried_nanos),
    }


def _unknown_part(nanos: int) -> dict[str, str]:
    return {"unknown_usd": usd_from_nanos(nanos)} if nanos else {}


def _counted_parts(part: str, limit: int | None, window: BudgetWindow) -> dict[str, int | None]:
    spent = getattr(window, f"spent_{part}")
    reserved = getattr(window, f"reserved_{part}")
    return {
        f"limit_{part}": limit,
        f"spent_{part}": spent,
        f"reserved_{part}": reserved,
        f"remaining_{part}": None if limit is None else limit - spent - reserved,
    }


def preset_answer(name: str, preset: Preset) -> dict[str, Any]:
    """A preset as the API shows it."""
    budget = Budget(**preset.fields)
    return {
        "preset": name,
        "description": preset.description,
        "name": budget.name,
        "per": budget.per,
        "period": budget.period,
        "limit": LimitBody(budget).data,
        "mode": budget.mode,
        "levels": [LevelBody(level).data for level in preset.levels],
    }


def new_budget(data: Any) -> tuple[dict[str, Any], Sequence[LevelRule]]:
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


def find_budget(request: Request, budget_id: int) -> Budget:
    budget = (
        Budget.objects.filter(tenant=tenant_of(request), id=budget_id)
        .prefetch_related("levels")
        .first()
    )
    if budget is None:
        raise NotFound(f"There is no budget {budget_id}.")
    return budget


def levels_of(levels: Sequence[Mapping[str, Any]]) -> list[LevelRule]:
    return sorted(map(level_of, levels), key=lambda level: level.percent)


def level_of(level: Mapping[str, Any]) -> LevelRule:
    """Return a level of a body as a rule."""
    return LevelRule(
        level["percent"],
        level.get("action", Action.NONE.value),
        tuple(level.get("notify", ())),
        level.get("cost_nanos_per_minute"),
        level.get("tokens_per_minute"),
    )
