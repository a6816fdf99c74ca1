"""`/v1/reconciliations`: whether bills, usage, statements and Stripe agree, and what differs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Final

from celery import current_app
from dateutil.relativedelta import relativedelta
from django.db import transaction
from django.db.models import QuerySet
from django.http import FileResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from msgspec import field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from billing.models import (
    Drift,
    Reconciliation,
    ReconciliationKind,
    ReconciliationSettings,
    ReconciliationState,
)
from billing.reconciliation.results import KindResult, Sums, decimal_string
from billing.reconciliation.runs import (
    DAYS_MAX,
    DRIFTS_MAX,
    change_settings,
    settings_of,
    start_reconciliation,
    threshold_of,
)
from common.api.days import Day
from common.api.fields import (
    Choice,
    Flag,
    Items,
    StrictSerializer,
    Text,
    Usd,
    problem_at,
    read_body,
)
from common.api.pagination import PAGE_PARAMETERS, page_of, paginate
from common.api.parameters import read_choice
from common.api.structs import AmountUsd, Answer, UtcTimestamp, about, one_of
from common.csv_downloads import csv_download
from common.json_bodies import JsonObject
from tenants.api.idempotency import idempotent
from tenants.api.resources import Resource
from tenants.api.views import ApiView, actor_of, tenant_of
from tenants.roles import Scope

# Named, because the API must not import the workers' side.
WORK_OFF: Final = "billing.tasks_reconciliation.reconcile"
MONTH: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")
PERCENT: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,2})?")
Figure = Annotated[str, about("A decimal string.")]


class ReconciliationBody(StrictSerializer):
    """Which days are compared, and with what. A month, or days; the last 31 days if left out."""

    period = Text(required=False, help_text="A month, as in 2026-11, in UTC.")
    to = Day(required=False, help_text="The last day, in UTC. Yesterday, if left out.")
    kinds = Items(
        child=Choice(ReconciliationKind.values),
        max_length=len(ReconciliationKind.values),
        required=False,
        allow_empty=False,
        help_text="All, if left out.",
    )

    def get_fields(self) -> JsonObject:
        # `from` is a word of Python's own, so it cannot be declared as the others are.
        from_ = Day(required=False, help_text="The first day. 30 days before `to`, if left out.")
        return {**super().get_fields(), "from": from_}

    def validate_period(self, value: str) -> str:
        if not MONTH.fullmatch(value):
            raise serializers.ValidationError("must be a month, as in 2026-11")
        return value

    def validate(self, attrs: JsonObject) -> JsonObject:
        if "period" in attrs and {"from", "to"} & attrs.keys():
            raise problem_at("period", "give this or 'from' and 'to', and not both")
        if "period" in attrs:
            first = date.fromisoformat(f"{attrs['period']}-01")
            last = first + relativedelta(months=1) - timedelta(days=1)
        else:
            last = attrs.get("to") or timezone.now().date() - timedelta(days=1)
            first = attrs.get("from") or last - timedelta(days=30)
        if first > last:
            raise problem_at("to", "must not be before 'from'")
        if (last - first).days >= DAYS_MAX:
            raise problem_at("from", f"must be at most {DAYS_MAX} days before 'to'")
        kinds = list(dict.fromkeys(attrs.get("kinds") or ReconciliationKind.values))
        return {"first_day": first, "last_day": last, "kinds": kinds}


class ComparedAnswer(Answer):
    """What was compared in one currency."""

    expected: Annotated[Figure, about("By usage; of invoices, by statements.")]
    found: Annotated[Figure, about("On bills, statements or invoices.")]
    difference: Annotated[Figure, about("Found less expected.")]
    absolute: Annotated[Figure, about("All differences without their signs.")]


class KindAnswer(Answer):
    """What one kind of comparison found."""

    state: Annotated[str, one_of(["done", "running", "not_connected"])]
    compared: Annotated[int, about("Days and models, lines, or invoices.")]
    drifts: Annotated[int, about(f"How many differ; the first {DRIFTS_MAX:,} are listed.")]
    skipped: Annotated[int, about("Statements whose usage is no longer kept.")]
    exceeds_threshold: bool
    sums: Annotated[dict[str, ComparedAnswer], about("By currency.")]
    providers: Annotated[dict[str, ComparedAnswer], about("Bills, by provider.")]


class ReconciliationAnswer(Answer):
    """A reconciliation, and where it stands."""

    id: int
    state: Annotated[str, one_of(ReconciliationState.values)]
    from_: Annotated[date, about("The first day, in UTC.")] = field(name="from")
    to: Annotated[date, about("The last day.")]
    kinds: Annotated[list[str], about("What is compared.")]
    threshold_percent: Figure
    threshold_usd: AmountUsd
    results: Annotated[dict[str, KindAnswer], about("By kind, as far as it is.")]
    actor: str
    error: Annotated[str | None, about("Why it failed, or is tried again.")]
    created_at: UtcTimestamp
    finished_at: UtcTimestamp | None


class DriftAnswer(Answer):
    """Something that differs."""

    kind: Annotated[str, one_of(ReconciliationKind.values)]
    day: Annotated[date | None, about("Of a bill.")]
    provider: str
    model: str
    line_item: Annotated[str, about("What the bill names that is no model.")]
    statement: Annotated[str | None, about("The number of the statement.")]
    line: Annotated[str, about("The name of its line, or the id of the invoice.")]
    unit: Annotated[str, about("A currency, or what a quantity counts.")]
    expected: Figure
    found: Figure
    difference: Figure
    note: str


@extend_schema_view(
    list=extend_schema(summary="List reconciliations, newest first"),
    retrieve=extend_schema(summary="Show a reconciliation"),
)
class Reconciliations(Resource[Reconciliation]):
    """The reconciliations of the tenant."""

    model = Reconciliation
    noun = "reconciliation"
    answer = ReconciliationAnswer
    body = ReconciliationBody
    order = ("-id",)
    write_scope = Scope.BILLING
    also_answers = {"create": (409,)}
    parameters = {
        "list": PAGE_PARAMETERS,
        "drifts": (
            *PAGE_PARAMETERS,
            OpenApiParameter("kind", {"type": "string", "enum": ReconciliationKind.values}),
        ),
    }

    def answer_of(self, row: Reconciliation) -> ReconciliationAnswer:
        return reconciliation_answer(row)

    @extend_schema(
        summary="Compare bills, usage, statements and Stripe",
        description="Done by workers: `state` says when. Bills: what providers billed with what"
        " usage cost, by day and model, on days that have a bill. Statements: what final ones"
        " charge for with the usage of now. Stripe: invoices with statements.",
        request=ReconciliationBody,
        responses={202: ReconciliationAnswer},
    )
    @idempotent
    def create(self, request: Request, **path: object) -> Response:
        fields = read_body(ReconciliationBody, request)
        row = start_reconciliation(tenant=self.tenant, actor=self.actor, **fields)
        # Where the broker is not there, the next beat finds the row all the same.
        transaction.on_commit(_wake_worker, robust=True)
        location = f"/v1/reconciliations/{row.id}"
        return Response(reconciliation_answer(row), status=202, headers={"Location": location})

    @extend_schema(summary="List what differs", responses=page_of(DriftAnswer))
    def drifts(self, request: Request, **path: object) -> Response:
        rows = drifts_of(self.row())
        if (kind := read_choice(request, "kind", ReconciliationKind.values)) is not None:
            rows = rows.filter(kind=kind)
        return Response(paginate(request, rows, lambda page: [drift_answer(row) for row in page]))

    @extend_schema(summary="What differs, as CSV", responses={(200, "text/csv"): OpenApiTypes.STR})
    def csv(self, request: Request, **path: object) -> FileResponse:
        row = self.row()
        return csv_download(_csv_rows(drifts_of(row)), name=f"reconciliation-{row.id}.csv")


def _wake_worker() -> None:
    current_app.send_task(WORK_OFF, retry=False)


def drifts_of(row: Reconciliation) -> QuerySet[Drift]:
    """Return what a reconciliation found that differs."""
    return Drift.objects.filter(reconciliation=row, tenant_id=row.tenant_id).select_related(
        "statement"
    )


def _csv_rows(drifts: QuerySet[Drift]) -> Iterator[Sequence[str]]:
    yield DriftAnswer.__struct_fields__
    for drift in drifts.order_by("id"):
        answer = drift_answer(drift)
        cells = (getattr(answer, name) for name in DriftAnswer.__struct_fields__)
        yield ["" if cell is None else str(cell) for cell in cells]


def drift_answer(drift: Drift) -> DriftAnswer:
    """A difference as the API shows it."""
    return DriftAnswer.of(
        drift,
        statement=drift.statement.number if drift.statement else None,
        **{
            name: decimal_string(getattr(drift, name))
            for name in ("expected", "found", "difference")
        },
    )


def reconciliation_answer(row: Reconciliation) -> ReconciliationAnswer:
    """A reconciliation as the API shows it."""
    return ReconciliationAnswer.of(
        row,
        from_=row.first_day,
        to=row.last_day,
        threshold_percent=decimal_string(Decimal(row.threshold_percent)),
        error=row.error or None,
        results={
            kind: _kind_answer(row, kind, row.results[kind])
            for kind in row.kinds
            if kind in row.results
        },
    )


def _kind_answer(row: Reconciliation, kind: str, stored: Mapping[str, object]) -> KindAnswer:
    result = KindResult.read(stored)
    is_done = row.kinds.index(kind) < row.kind_place
    state = "running" if not is_done else "done" if result.is_connected else "not_connected"
    return KindAnswer.of(
        result,
        state=state,
        exceeds_threshold=result.exceeds(threshold_of(row, kind)),
        sums=_compared(result.sums),
        providers=_compared(result.providers),
    )


def _compared(sums: Mapping[str, Sums]) -> dict[str, ComparedAnswer]:
    return {
        name: ComparedAnswer(
            expected=decimal_string(each.expected),
            found=decimal_string(each.found),
            difference=decimal_string(each.found - each.expected),
            absolute=decimal_string(each.absolute),
        )
        for name, each in sums.items()
    }


class ReconciliationSettingsBody(StrictSerializer):
    """When what differs is an incident. A PATCH changes the members it names."""

    threshold_percent = Text(
        required=False, help_text="Of what was expected, as a decimal string with two decimals."
    )
    threshold_usd = Usd(required=False, help_text="Both must be passed for an incident.")
    daily = Flag(
        required=False, help_text="Compare days by themselves after their bill was imported."
    )

    def validate_threshold_percent(self, value: str) -> Decimal:
        if not PERCENT.fullmatch(value):
            detail = "must be a percentage from 0 to 9,999 with two decimals at most"
            raise serializers.ValidationError(detail)
        return Decimal(value)


class ReconciliationSettingsAnswer(Answer):
    """When what differs is an incident."""

    threshold_percent: Figure
    threshold_usd: AmountUsd
    daily: bool


class ReconciliationSettingsView(ApiView):
    """When what differs is an incident."""

    write_scope = Scope.BILLING

    @extend_schema(summary="Show the settings", responses=ReconciliationSettingsAnswer)
    def get(self, request: Request) -> Response:
        return Response(_settings_answer(settings_of(tenant_of(request).id)))

    @extend_schema(
        summary="Change the settings",
        description="For reconciliations that begin from now on.",
        request=ReconciliationSettingsBody,
        responses=ReconciliationSettingsAnswer,
    )
    def patch(self, request: Request) -> Response:
        names = {"threshold_usd": "threshold_nanos", "daily": "is_daily"}
        changes = {
            names.get(name, name): value
            for name, value in read_body(ReconciliationSettingsBody, request).items()
        }
        changed = change_settings(
            tenant=tenant_of(request), actor=actor_of(request), changes=changes
        )
        return Response(_settings_answer(changed))


def _settings_answer(stored: ReconciliationSettings) -> ReconciliationSettingsAnswer:
    return ReconciliationSettingsAnswer.of(
        stored,
        threshold_percent=decimal_string(Decimal(stored.threshold_percent)),
        daily=stored.is_daily,
    )
