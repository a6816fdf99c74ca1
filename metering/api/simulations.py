"""`/v1/simulations`: what a proposed budget or breaker would have done in a past period."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from celery import current_app
from django.db import transaction
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Count, Moment, StrictSerializer, moment_text, problem_at
from common.api.pagination import (
    ID_MAX,
    PAGE_PARAMETERS,
    PAGE_SCHEMA,
    page_answer,
    page_of,
    page_serializer,
)
from common.errors import Conflict, NotFound
from metering.api.breakers import BreakerBody
from metering.api.budgets import BudgetBody, NewBudgetBody, find_budget, levels_of, new_budget
from metering.configuration.breakers import PER_DEFAULT
from metering.core.event_stretches import AT_ONCE_MAX
from metering.core.periods import EPOCH
from metering.models import Breaker, Budget, Simulation, SimulationStatus
from metering.simulation import Proposal, ProposedBudget, create_simulation
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of

RANGE_DEFAULT: Final = timedelta(days=30)
RANGE_MAX: Final = timedelta(days=400)
# Named, since the API must not import the workers' side.
WORK_OFF: Final = "metering.jobs.tasks.run_simulations"
PROPOSALS: Final = ("budget", "budget_id", "breaker")
PERIOD: Final = frozenset({"from", "to"})


@extend_schema_field(NewBudgetBody)
class BudgetMember(serializers.Field[ProposedBudget, Any, Any, Any]):
    """A budget as for `POST /v1/budgets`, presets included."""

    def to_internal_value(self, data: Any) -> ProposedBudget:
        fields, levels = new_budget(data)
        return ProposedBudget.of(Budget(counts_from=EPOCH, **fields), levels)


@extend_schema_field(BreakerBody)
class BreakerMember(serializers.Field[Breaker, Any, Any, Any]):
    """A breaker as for `POST /v1/breakers`."""

    def to_internal_value(self, data: Any) -> Breaker:
        body = BreakerBody(data=data)
        body.is_valid(raise_exception=True)
        return Breaker(**{"per": list(PER_DEFAULT), **body.validated_data})


class SimulationBody(StrictSerializer):
    """One proposal (`budget`, `budget_id` or `breaker`), and the period to hold it against."""

    budget = BudgetMember(required=False, help_text="A budget, as for `POST /v1/budgets`.")
    budget_id = Count(
        required=False, max_value=ID_MAX, help_text="A budget in force, with `changes`."
    )
    changes = serializers.DictField(
        required=False,
        help_text="Of `budget_id`, as for `PATCH /v1/budgets/{budget_id}`. None: as it is.",
    )
    breaker = BreakerMember(required=False, help_text="A breaker, as for `POST /v1/breakers`.")
    to = Moment(required=False, help_text="Not included. Now, if left out.")

    def get_fields(self) -> dict[str, Any]:
        # `from` is a word of Python's own, so it cannot be declared as the others are.
        from_ = Moment(required=False, help_text="Included. 30 days before `to`, if left out.")
        return {**super().get_fields(), "from": from_}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        named = [name for name in PROPOSALS if name in attrs]
        if len(named) != 1:
            message = f"needs one proposal: one of {', '.join(PROPOSALS)}"
            raise serializers.ValidationError(message, code="missing_field")
        if "changes" in attrs and "budget_id" not in attrs:
            raise problem_at("changes", "are of a budget that 'budget_id' names")
        ends_at = attrs.setdefault("to", timezone.now())
        starts_at = attrs.setdefault("from", ends_at - RANGE_DEFAULT)
        if starts_at >= ends_at:
            raise problem_at("to", "must be later than 'from'")
        if ends_at - starts_at > RANGE_MAX:
            raise problem_at("from", f"must be at most {RANGE_MAX.days} days before 'to'")
        return attrs


class RefusedAnswer(serializers.Serializer[Any]):
    """What would not have been made."""

    calls = serializers.IntegerField()
    cost_usd = serializers.CharField()
    tokens = serializers.IntegerField()


class GroupOutcome(serializers.Serializer[Any]):
    """What one group of the proposal would have met."""

    group = serializers.DictField(child=serializers.CharField(allow_blank=True))
    calls = serializers.IntegerField(help_text="That were made, refused ones included.")
    refused = serializers.IntegerField()
    saved_usd = serializers.CharField()
    first_refused_at = Moment(allow_null=True)
    lockout_at = Moment(allow_null=True, help_text="When a level first locked it out.")


class DayOutcome(serializers.Serializer[Any]):
    """A day with calls, in the budget's time zone."""

    date = serializers.DateField()
    cost_usd = serializers.CharField()
    would_have_cost_usd = serializers.CharField()
    refused = serializers.IntegerField()


class LevelOutcome(serializers.Serializer[Any]):
    """A level of the budget."""

    percent = serializers.IntegerField()
    action = serializers.CharField()
    crossed = serializers.IntegerField(help_text="By how many windows; each would have told.")


class OpeningAnswer(serializers.Serializer[Any]):
    """A breaker that opens for a group."""

    at = Moment()
    group = serializers.DictField(child=serializers.CharField(allow_blank=True))
    why = serializers.CharField()


class Outcome(serializers.Serializer[Any]):
    """What became of the calls that the proposal matches."""

    calls = serializers.IntegerField(help_text="That match, tool calls included.")
    cost_usd = serializers.CharField(help_text="What they cost.")
    would_have_cost_usd = serializers.CharField()
    saved_usd = serializers.CharField(help_text="By refusals and by cheaper models.")
    refused = RefusedAnswer(help_text="Throttled ones included.")
    throttled = serializers.IntegerField(help_text="Of the refused ones.")
    downgraded = serializers.IntegerField(help_text="For which a cheaper model is asked for.")
    unpriced = serializers.IntegerField(help_text="Whose cost nobody knows; they count as free.")
    first_refusal_at = Moment(allow_null=True)
    groups = GroupOutcome(
        many=True, help_text="The 50 that save most, of those for which anything changes."
    )
    days = DayOutcome(many=True)
    levels = LevelOutcome(many=True)
    opened = serializers.IntegerField(help_text="How often a breaker opens.")
    openings = OpeningAnswer(many=True, help_text="The first 50 of them.")
    assumptions = serializers.ListField(
        child=serializers.CharField(), help_text="What the figures take for granted."
    )


class PresentOutcome(Outcome):
    """What the budget in force would have done, in its own mode."""

    budget_id = serializers.IntegerField()
    name = serializers.CharField()
    mode = serializers.CharField()


class SimulationOutcome(Outcome):
    """What the proposal would have done, in mode enforce whatever mode it names."""

    compared_with = PresentOutcome(required=False, help_text="With `budget_id` alone.")


class SimulationAnswer(serializers.Serializer[Any]):
    """A simulation, and where it stands."""

    id = serializers.IntegerField()
    status = serializers.ChoiceField(choices=SimulationStatus.values)
    to = Moment()
    proposal = serializers.DictField(help_text="As it was sent.")
    created_at = Moment()
    finished_at = Moment(allow_null=True)
    detail = serializers.CharField(allow_blank=True, help_text="Why it failed.")

    def get_fields(self) -> dict[str, Any]:
        return {**super().get_fields(), "from": Moment()}


class SimulationResultAnswer(SimulationAnswer):
    """A simulation with its result, once there is one."""

    result = SimulationOutcome(allow_null=True)


class SimulationsView(ApiView):
    """All simulations of the tenant."""

    parameters = {"GET": PAGE_PARAMETERS}
    also_answers = {"POST": (404,)}

    @extend_schema(
        summary="List simulations, newest first, without their results",
        parameters=PAGE_SCHEMA,
        responses=page_serializer(SimulationAnswer),
    )
    def get(self, request: Request) -> Response:
        page = page_of(request, [int])
        simulations = Simulation.objects.filter(tenant=tenant_of(request)).defer("result")
        if page.after is not None:
            simulations = simulations.filter(id__lt=page.after[0])
        rows = list(simulations.order_by("-id")[: page.limit + 1])
        return Response(
            page_answer(rows, page=page, answer=simulation_answer, key=lambda row: [row.id])
        )

    @extend_schema(
        summary="Replay a past period against a proposed budget or breaker",
        description=f"201 with the result where the period holds at most {AT_ONCE_MAX:,} events;"
        " else 202, and the result is there once `status` is `done`. Nothing is changed by it.",
        request=SimulationBody,
        responses={201: SimulationResultAnswer, 202: SimulationResultAnswer},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        body = SimulationBody(data=request.data)
        body.is_valid(raise_exception=True)
        fields = body.validated_data
        simulation = create_simulation(
            tenant=tenant_of(request),
            actor=actor_of(request),
            asked={name: value for name, value in body.initial_data.items() if name not in PERIOD},
            proposal=proposal_of(fields, find=partial(find_budget, request)),
            period=(fields["from"], fields["to"]),
        )
        if simulation.status == SimulationStatus.DONE:
            return Response(_result_answer(simulation), status=201)
        # Where the broker is not there, the next beat finds the row all the same.
        transaction.on_commit(_wake_a_worker, robust=True)
        return Response(
            _result_answer(simulation),
            status=202,
            headers={"Location": f"/v1/simulations/{simulation.id}"},
        )


class SimulationView(ApiView):
    """One simulation."""

    @extend_schema(summary="Show a simulation, with its result", responses=SimulationResultAnswer)
    def get(self, request: Request, simulation_id: int) -> Response:
        simulation = Simulation.objects.filter(tenant=tenant_of(request), id=simulation_id).first()
        if simulation is None:
            raise NotFound(f"There is no simulation {simulation_id}.")
        return Response(_result_answer(simulation))


def _wake_a_worker() -> None:
    current_app.send_task(WORK_OFF, retry=False)


def proposal_of(fields: Mapping[str, Any], *, find: Callable[[int], Budget]) -> Proposal:
    """The proposal of a validated body. Raises ValidationError for changes that make no budget,
    Conflict for an archived budget, and what `find` does.
    """
    if "breaker" in fields:
        return Proposal(breaker=fields["breaker"])
    if "budget" in fields:
        return Proposal(budget=fields["budget"])
    budget = find(fields["budget_id"])
    if budget.archived_at is not None:
        raise Conflict("The budget is archived: it limits nothing.")
    return _changed(budget, fields.get("changes", {}))


def _changed(budget: Budget, changes: Mapping[str, Any]) -> Proposal:
    body = BudgetBody(budget, data=changes, partial=True)
    try:
        body.is_valid(raise_exception=True)
    except serializers.ValidationError as error:
        raise serializers.ValidationError({"changes": error.detail}) from error
    fields = dict(body.validated_data)
    levels = levels_of(fields.pop("levels")) if "levels" in fields else None
    present = ProposedBudget.stored(budget)
    return Proposal(budget=present.changed(fields, levels), present=present)


def simulation_answer(simulation: Simulation) -> dict[str, Any]:
    """A simulation as lists show it."""
    return {
        "id": simulation.id,
        "status": simulation.status,
        "from": moment_text(simulation.from_at),
        "to": moment_text(simulation.to_at),
        "proposal": simulation.proposal["asked"],
        "created_at": moment_text(simulation.created_at),
        "finished_at": _moment_or_none(simulation.finished_at),
        "detail": simulation.detail,
    }


def _result_answer(simulation: Simulation) -> dict[str, Any]:
    return {**simulation_answer(simulation), "result": simulation.result}


def _moment_or_none(at: datetime | None) -> str | None:
    return None if at is None else moment_text(at)
