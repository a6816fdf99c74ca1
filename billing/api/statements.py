"""`/v1/statements`: what customers owe."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from dateutil.relativedelta import relativedelta
from django.db import OperationalError, transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from msgspec import UNSET, UnsetType
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.references import CUSTOMER_PARAMETER, OfCustomers, customers_named
from billing.currencies import amount_of
from billing.models import Customer, LineKind, Statement, StatementState
from billing.statement_files import file_response
from billing.statement_periods import open_drafts
from billing.statement_views import LineView, StatementView, views_of
from billing.statements import finalize, find_statement, void
from common.api.fields import Count, OptionalBody, read_body
from common.api.pagination import PAGE_PARAMETERS
from common.api.parameters import InvalidParameter
from common.api.structs import Answer, UtcTimestamp, about, one_of
from common.database_errors import is_conflict
from tenants.api.views import actor_of, holder_of
from tenants.scope import tenant_scope

MONTH: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")
Amount = Annotated[str, about("A decimal string in the statement's currency.")]


class StatementTaxAnswer(Answer):
    """A tax of a statement."""

    name: str
    percent: str
    amount: Amount


class StatementLineAnswer(Answer):
    """A line of a statement. The amounts of all lines add up to the subtotal."""

    name: str
    kind: Annotated[str, one_of(LineKind.values)]
    quantity: Annotated[str, about("What was used, in the unit of the charge's metric.")]
    amount: Amount
    starts_at: UtcTimestamp
    ends_at: UtcTimestamp
    rate: Annotated[str, about("How the amount came about, in words.")]
    events_url: Annotated[str | None, about("The events behind a usage line.")]
    adjusts: Annotated[str | UnsetType, about("The statement that an adjustment is for.")] = UNSET


class StatementAnswer(Answer):
    """A statement. A draft is computed when it is read; what is final never changes."""

    id: int
    number: Annotated[str | None, about("Null while it is a draft.")]
    state: Annotated[str, one_of(StatementState.values)]
    customer: Annotated[str, about("The customer's key.")]
    period_start: UtcTimestamp
    period_end: UtcTimestamp
    timezone: str
    currency: str
    lines: list[StatementLineAnswer]
    unpriced: Annotated[int, about("Calls without a price in lines that charge their cost.")]
    subtotal: Amount
    coupon_amount: Annotated[Amount, about("What coupons take off lines and adjustments.")]
    taxable: Amount
    taxes: list[StatementTaxAnswer]
    total: Amount
    credit_notes_applied: Amount
    credit_applied: Annotated[Amount, about("Prepaid credit.")]
    amount_due: Amount
    due_on: Annotated[str | None, about("A date; null while it is a draft.")]
    finalized_at: UtcTimestamp | None
    voided_at: UtcTimestamp | None


# Of a hundred lines each they take about half a second.
DRAFTS_A_PAGE: Final = 50


class FinalizeBody(OptionalBody):
    """What is accepted of a statement that becomes final."""

    accept_unpriced = Count(
        required=False,
        min_value=0,
        help_text="Calls without a price whose cost is then not charged, at most this many.",
    )


@extend_schema_view(
    list=extend_schema(
        summary="List statements, newest period first",
        description=f"A draft is rated when it is listed. So a page ends after {DRAFTS_A_PAGE} of"
        " them, also if its limit is higher; `next_cursor` leads on.",
    ),
    retrieve=extend_schema(summary="Show a statement"),
)
class Statements(OfCustomers[Statement]):
    """The statements of the tenant."""

    model = Statement
    noun = "statement"
    answer = StatementAnswer
    order = ("-period_start", "-id")
    parameters = {
        "list": (
            *PAGE_PARAMETERS,
            CUSTOMER_PARAMETER,
            OpenApiParameter(
                "period",
                {"type": "string", "pattern": f"^{MONTH.pattern}$"},
                description="A month as in 2026-11, in the statement's time zone: statements whose"
                " period has a part of it.",
            ),
            OpenApiParameter("state", {"type": "string", "enum": StatementState.values}),
        )
    }

    def listed_rows(self) -> QuerySet[Statement]:
        query = self.request.query_params
        if (key := query.get("customer")) is not None:
            # The one who asks for a customer sees the period that has just begun.
            customers = customers_named(self.tenant.id, key)
            for customer in customers.filter(next_draft_at__lte=timezone.now()):
                _open_drafts(customer)
        rows = super().listed_rows()
        if (state := query.get("state")) is not None:
            if state not in StatementState.values:
                words = ", ".join(StatementState.values)
                raise InvalidParameter.of("state", "invalid_state", f"'state' is one of {words}.")
            rows = rows.filter(state=state)
        if (period := query.get("period")) is not None:
            first = _month(period)
            end = first + relativedelta(months=1)
            # No zone is a day from UTC, and no period longer than a year: what an index finds.
            near = (first - relativedelta(years=1, days=2), end + timedelta(days=1))
            rows = rows.filter(period_start__range=near).extra(
                where=[
                    "timezone(statement.timezone, period_start) < %s::timestamp"
                    " AND timezone(statement.timezone, period_end) > %s::timestamp"
                ],
                params=[f"{end:%Y-%m-%d}", f"{first:%Y-%m-%d}"],
            )
        return rows

    def fitting(self, rows: Sequence[Statement]) -> Sequence[Statement]:
        """Return as many rows as have no more drafts than one answer rates."""
        drafts = 0
        for number, row in enumerate(rows):
            drafts += row.state == StatementState.DRAFT
            if drafts > DRAFTS_A_PAGE:
                return rows[:number]
        return rows

    def answers(self, rows: Sequence[Statement]) -> Sequence[object]:
        return [statement_answer(view) for view in views_of(rows)]

    @extend_schema(
        summary="Finalize a statement",
        description="It gets its number and never changes again. Finalizing it a second time"
        " changes nothing. What is used or corrected later is an adjustment of the next statement.",
        request=FinalizeBody,
        responses=StatementAnswer,
    )
    def finalise(self, request: Request, statement_id: int) -> Response:
        body = read_body(FinalizeBody, request)
        tenant_id = holder_of(request).tenant_id
        finalize(
            tenant_id,
            statement_id,
            actor=actor_of(request),
            accepted_unpriced=body.get("accept_unpriced", 0),
        )
        return Response(_shown(tenant_id, statement_id))

    @extend_schema(
        summary="Void a final statement",
        description="It keeps its number. Its period has a draft again.",
        request=None,
        responses=StatementAnswer,
    )
    def void(self, request: Request, statement_id: int) -> Response:
        tenant_id = holder_of(request).tenant_id
        void(tenant_id, statement_id, actor=actor_of(request))
        return Response(_shown(tenant_id, statement_id))

    @extend_schema(
        summary="Show a statement as CSV",
        description="The file of a final statement never changes.",
        responses={(200, "text/csv"): OpenApiTypes.STR},
    )
    def csv(self, request: Request, statement_id: int) -> HttpResponse:
        return file_response(self.row(), "csv")

    @extend_schema(
        summary="Show a statement as a page that prints on A4",
        description="The file of a final statement never changes.",
        responses={(200, "text/html"): OpenApiTypes.STR},
    )
    def html(self, request: Request, statement_id: int) -> HttpResponse:
        return file_response(self.row(), "html")


def _open_drafts(customer: Customer) -> None:
    """Open the drafts of a customer, unless someone else does at this moment: what was written
    since the snapshot is in the next answer.
    """
    try:
        with transaction.atomic():
            open_drafts(customer)
    except OperationalError as error:
        if not is_conflict(error):
            raise


def _shown(tenant_id: int, statement_id: int) -> object:
    with tenant_scope(tenant_id, is_snapshot=True):
        return statement_answer(views_of([find_statement(tenant_id, statement_id)])[0])


def _month(text: str) -> datetime:
    if not MONTH.fullmatch(text):
        raise InvalidParameter.of(
            "period", "invalid_month", "'period' must be a month, as in 2026-11."
        )
    return datetime(int(text[:4]), int(text[5:]), 1, tzinfo=UTC)


def statement_answer(view: StatementView) -> StatementAnswer:
    """Return a statement as it is answered."""
    statement = view.statement
    currency = statement.currency
    amounts = {
        name: amount_of(amount, currency)
        for name, amount in view.totals._asdict().items()
        if name != "taxes"
    }
    return StatementAnswer.of(
        statement,
        **amounts,
        number=statement.number or None,
        customer=statement.customer.key,
        lines=[_line_answer(line, currency) for line in view.lines],
        unpriced=view.unpriced,
        taxes=[
            StatementTaxAnswer(tax.name, f"{tax.percent}", amount_of(tax.amount, currency))
            for tax in view.totals.taxes
        ],
        due_on=None if statement.due_on is None else statement.due_on.isoformat(),
    )


def _line_answer(line: LineView, currency: str) -> StatementLineAnswer:
    return StatementLineAnswer.of(
        line, amount=amount_of(line.amount, currency), adjusts=line.adjusts or UNSET
    )
