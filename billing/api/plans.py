"""`/v1/plans`: what customers are charged."""

from collections.abc import Sequence
from typing import Annotated

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.plans_body import PlanBody, VersionBody
from billing.api.references import find_plan
from billing.models import Anchor, Interval, Plan, PlanVersion
from billing.plans import PLANS, add_version
from common.api.fields import StrictSerializer, Text, read_body
from common.api.structs import Answer, UtcTimestamp, about, one_of
from common.json_bodies import JsonObject
from tenants.api.idempotency import idempotent
from tenants.api.resources import Resource
from tenants.api.views import actor_of
from tenants.roles import Scope


class PlanVersionAnswer(Answer):
    """The terms of a plan from a moment on. A version never changes."""

    number: int
    starts_at: Annotated[UtcTimestamp | None, about("Null: of the first version.")]
    charges: Annotated[list[JsonObject], about("As they were sent.")]
    minimum_amount: str | None
    cap_amount: str | None
    created_at: UtcTimestamp

    @classmethod
    def telling(cls, version: PlanVersion) -> "PlanVersionAnswer":
        """Return a version as it is answered."""
        terms = {"minimum_amount": None, "cap_amount": None, **version.terms}
        return cls.of(version, **terms)


class PlanAnswer(Answer):
    """A plan with its versions, oldest first."""

    id: int
    name: str
    currency: str
    interval: Annotated[str, one_of(Interval.values)]
    anchor: Annotated[str, one_of(Anchor.values)]
    timezone: str
    trial_days: int
    versions: list[PlanVersionAnswer]
    archived_at: UtcTimestamp | None
    created_at: UtcTimestamp


class PlanChangesBody(StrictSerializer):
    """What may change of a plan; its terms change by a new version."""

    name = Text(required=False)


@extend_schema_view(
    list=extend_schema(summary="List plans, oldest first"),
    create=extend_schema(
        summary="Add a plan",
        description="Its terms are version 1. How charges are rated: `docs/billing.md`.",
        request=PlanBody,
    ),
    retrieve=extend_schema(summary="Show a plan"),
    partial_update=extend_schema(summary="Rename a plan", request=PlanChangesBody),
    destroy=extend_schema(
        summary="Archive a plan",
        description="No one can subscribe to it; who is on it stays.",
    ),
)
class Plans(Resource[Plan]):
    """The plans of the tenant. An address names one by its id or its name."""

    model = Plan
    noun = "plan"
    kind = PLANS
    body = PlanBody
    answer = PlanAnswer
    write_scope = Scope.BILLING

    def listed_rows(self) -> QuerySet[Plan]:
        return super().listed_rows().filter(archived_at=None)

    def row(self) -> Plan:
        return find_plan(self.tenant.id, str(self.kwargs["plan_id"]))

    def answers(self, rows: Sequence[Plan]) -> Sequence[object]:
        versions: dict[int, list[PlanVersionAnswer]] = {row.id: [] for row in rows}
        stored = PlanVersion.objects.filter(tenant=self.tenant, plan__in=rows)
        for version in stored.order_by("plan_id", "number"):
            versions[version.plan_id].append(PlanVersionAnswer.telling(version))
        return [PlanAnswer.of(row, versions=versions[row.id]) for row in rows]

    def partial_update(self, request: Request, **path: object) -> Response:
        changed = self.update_row(self.row(), read_body(PlanChangesBody, request))
        return Response(self.full_answer(changed))

    @extend_schema(
        summary="Add a version of a plan, in force from a moment on",
        description="Every event is priced under the version in force at its time; what final"
        " statements charged otherwise becomes an adjustment.",
        request=VersionBody,
        responses={201: PlanVersionAnswer},
    )
    @idempotent
    def add_version(self, request: Request, plan_id: str) -> Response:
        plan = self.row()
        fields = read_body(VersionBody, request, currency=plan.currency)
        version = add_version(
            plan, actor=actor_of(request), starts_at=fields["from"], terms=fields["terms"]
        )
        return Response(PlanVersionAnswer.telling(version), status=201)
