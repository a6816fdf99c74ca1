"""`/v1/simulations`: what a proposed budget or breaker would have done in a past period."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Final, Self

from celery import current_app
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from msgspec import field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import (
    Count,
    JsonMembers,
    Spoken,
    StrictSerializer,
    Timestamp,
    problem_at,
    read_body,
)
from common.api.structs import Answer, UtcTimestamp, about, one_of
from common.cursors import ID_MAX
from common.errors import Conflict
from common.json_bodies import JsonObject
from metering.api.breakers import BreakerBody
from metering.api.budgets import BudgetBody, NewBudgetBody, find_budget, levels_of, new_budget
from metering.configuration.breakers import PER_DEFAULT
from metering.core.event_stretches import AT_ONCE_MAX
from metering.core.periods import EPOCH
from metering.models import Breaker, Budget, Simulation, SimulationStatus
from metering.simulation import Proposal, ProposedBudget, create_simulation
from metering.simulation.outcome import SimulationOutcome
from tenants.api.idempotency import idempotent
from tenants.api.resources import Resource
from tenants.models import Tenant

RANGE_DEFAULT: Final = timedelta(days=30)
RANGE_MAX: Final = timedelta(days=400)
# Named, since the API must not import the workers' side.
WORK_OFF: Final = "metering.jobs.tasks.run_simulations"
PROPOSALS: Final = ("budget", "budget_id", "breaker")
PERIOD: Final = frozenset({"from", "to"})


@extend_schema_field(NewBudgetBody)
class BudgetMember(Spoken):
    """A budget as for `POST /v1/budgets`, presets included."""

    def to_internal_value(self, data: object) -> ProposedBudget:
        fields, levels = new_budget(data)
        return ProposedBudget.of(Budget(counts_from=EPOCH, **fields), levels)


@extend_schema_field(BreakerBody)
class BreakerMember(Spoken):
    """A breaker as for `POST /v1/breakers`."""

    def to_internal_value(self, data: object) -> Breaker:
        body = BreakerBody(data=data)
        body.is_valid(raise_exception=True)
        return Breaker(**{"per": list(PER_DEFAULT), **body.validated_data})


class SimulationBody(StrictSerializer):
    """One proposal (`budget`, `budget_id` or `breaker`), and the period to hold it against."""

    budget = BudgetMember(required=False, help_text="A budget, as for `POST /v1/budgets`.")
    budget_id = Count(
        required=False, max_value=ID_MAX, help_text="A budget in force, with `changes`."
    )
    changes = JsonMembers(
        required=False,
        help_text="Of `budget_id`, as for `PATCH /v1/budgets/{budget_id}`. None: as it is.",
    )
    breaker = BreakerMember(required=False, help_text="A breaker, as for `POST /v1/breakers`.")
    to = Timestamp(required=False, help_text="Not included. Now, if left out.")

    def get_fields(self) -> JsonObject:
        # `from` is a word of Python's own, so it cannot be declared as the others are.
        from_ = Timestamp(required=False, help_text="Included. 30 days before `to`, if left out.")
        return {**super().get_fields(), "from": from_}

    def validate(self, attrs: JsonObject) -> JsonObject:
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


class SimulationAnswer(Answer):
    """A simulation, and where it stands."""

    id: int
    status: Annotated[str, one_of(SimulationStatus.values)]
    from_: UtcTimestamp = field(name="from")
    to: UtcTimestamp
    proposal: Annotated[JsonObject, about("As it was sent.")]
    created_at: UtcTimestamp
    finished_at: UtcTimestamp | None
    detail: Annotated[str, about("Why it failed.")]

    @classmethod
    def telling(cls, simulation: Simulation) -> Self:
        """Return a simulation as it is answered."""
        return cls.of(
            simulation,
            from_=simulation.from_at,
            to=simulation.to_at,
            proposal=simulation.proposal["asked"],
        )


class SimulationResultAnswer(SimulationAnswer):
    """A simulation with its result, once there is one."""

    result: SimulationOutcome | None


@extend_schema_view(
    list=extend_schema(summary="List simulations, newest first, without their results"),
    retrieve=extend_schema(
        summary="Show a simulation, with its result", responses=SimulationResultAnswer
    ),
)
class Simulations(Resource[Simulation]):
    """The simulations of the tenant."""

    model = Simulation
    noun = "simulation"
    answer = SimulationAnswer
    order = ("-id",)
    also_answers = {"create": (404,)}

    def listed_rows(self) -> QuerySet[Simulation]:
        return self.rows().defer("result")

    def answers(self, rows: Sequence[Simulation]) -> Sequence[SimulationAnswer]:
        return [SimulationAnswer.telling(row) for row in rows]

    def retrieve(self, request: Request, **path: object) -> Response:
        return Response(SimulationResultAnswer.telling(self.row()))

    @extend_schema(
        summary="Replay a past period against a proposed budget or breaker",
        description=f"201 with the result where the period holds at most {AT_ONCE_MAX:,} events;"
        " else 202, and the result is there once `status` is `done`. Nothing is changed by it.",
        request=SimulationBody,
        responses={201: SimulationResultAnswer, 202: SimulationResultAnswer},
    )
    @idempotent
    def create(self, request: Request, **path: object) -> Response:
        fields = read_body(SimulationBody, request)
        assert isinstance(request.data, dict), "what is no object is no valid body"
        simulation = create_simulation(
            tenant=self.tenant,
            actor=self.actor,
            sent={name: value for name, value in request.data.items() if name not in PERIOD},
            proposal=proposal_of(fields, tenant=self.tenant),
            period=(fields["from"], fields["to"]),
        )
        answer = SimulationResultAnswer.telling(simulation)
        if simulation.status == SimulationStatus.DONE:
            return Response(answer, status=201)
        # Where the broker is not there, the next beat finds the row all the same.
        transaction.on_commit(_wake_worker, robust=True)
        location = f"/v1/simulations/{simulation.id}"
        return Response(answer, status=202, headers={"Location": location})


def _wake_worker() -> None:
    current_app.send_task(WORK_OFF, retry=False)


def proposal_of(fields: JsonObject, *, tenant: Tenant) -> Proposal:
    """Return the proposal of a validated body. Raises ValidationError for changes that make no
    budget, NotFound, and Conflict for an archived budget.
    """
    if "breaker" in fields:
        return Proposal(breaker=fields["breaker"])
    if "budget" in fields:
        return Proposal(budget=fields["budget"])
    budget = find_budget(tenant, fields["budget_id"])
    if budget.archived_at is not None:
        raise Conflict("The budget is archived: it limits nothing.")
    return _changed(budget, fields.get("changes", {}))


def _changed(budget: Budget, changes: Mapping[str, object]) -> Proposal:
    body = BudgetBody(budget, data=changes, partial=True)
    try:
        body.is_valid(raise_exception=True)
    except serializers.ValidationError as error:
        raise serializers.ValidationError({"changes": error.detail}) from error
    fields = dict(body.validated_data)
    levels = levels_of(fields.pop("levels")) if "levels" in fields else None
    present = ProposedBudget.stored(budget)
    return Proposal(budget=present.changed(fields, levels), present=present)
