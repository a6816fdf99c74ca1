"""`/v1/margins`: what customers are charged against what their usage cost."""

import re
from datetime import date
from typing import Annotated, Any, Final

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from billing.currencies import amount_of
from billing.margin_months import months_between
from billing.margins import GROUPS, MONTHS_MAX, Margin, MarginRow, read_margins
from common.api.parameters import InvalidParameter, read_choice, read_flag
from common.api.structs import AmountUsd, Answer, about, one_of, usd_or_none
from common.money import usd_from_nanos
from tenants.api.views import ApiView, tenant_of

MONTH: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")
MONTH_SCHEMA: Final = {"type": "string", "pattern": f"^{MONTH.pattern}$", "example": "2026-11"}


class MarginAnswer(Answer):
    """Revenue, cost, and what is left."""

    currency: str
    revenue: Annotated[
        str, about("In the currency: what is charged less coupons, before taxes and credit.")
    ]
    cost_usd: Annotated[AmountUsd, about("What the usage cost at its providers.")]
    margin_usd: Annotated[AmountUsd | None, about("Null where the revenue is in another currency.")]
    margin_share: Annotated[
        str | None, about("Of the revenue, six decimals. Null where there is none.")
    ]
    allocated: Annotated[
        bool, about("Some revenue is shared out by cost, since its charge names no feature.")
    ]
    has_drafts: Annotated[bool, about("Some revenue is of drafts, which still move.")]


class MarginRowAnswer(MarginAnswer):
    """A group's margin."""

    key: Annotated[
        str | None,
        about(
            "A customer's key, a plan's id, a feature or a month. Null: usage without a customer;"
            " empty: without a plan or feature."
        ),
    ]
    name: str


class MarginsAnswer(Answer):
    """Margins of groups, and their sums."""

    from_month: Annotated[str, about("The first month.")]
    to_month: Annotated[str, about("The last month.")]
    group_by: Annotated[str, one_of(GROUPS)]
    data: Annotated[list[MarginRowAnswer], about("Those at a loss first; months in their order.")]
    totals: Annotated[list[MarginAnswer], about("By currency.")]


class MarginsView(ApiView):
    """Margins."""

    parameters = {
        "GET": (
            OpenApiParameter("period", MONTH_SCHEMA, description="A month; this one by default."),
            OpenApiParameter("from", MONTH_SCHEMA, description="Instead: the first month."),
            OpenApiParameter("to", MONTH_SCHEMA, description="The last month."),
            OpenApiParameter(
                "group_by", {"type": "string", "enum": list(GROUPS), "default": GROUPS[0]}
            ),
            OpenApiParameter(
                "drafts",
                {"type": "boolean", "default": True},
                description="false: only what is final counts as revenue.",
            ),
        )
    }

    @extend_schema(
        summary="Margins by customer, plan, feature or month",
        description="Revenue is spread over the months that a line covers, in the statement's time"
        " zone; costs are of usage in the months in UTC. The costs add up to that of all usage.",
        responses=MarginsAnswer,
    )
    def get(self, request: Request) -> Response:
        first, last = _months(request)
        group_by = read_choice(request, "group_by", GROUPS) or GROUPS[0]
        margins = read_margins(
            tenant_of(request).id,
            first,
            last,
            group_by=group_by,
            with_drafts=read_flag(request, "drafts") is not False,
        )
        return Response(
            MarginsAnswer(
                from_month=f"{first:%Y-%m}",
                to_month=f"{last:%Y-%m}",
                group_by=group_by,
                data=[_row_answer(row) for row in margins.rows],
                totals=[MarginAnswer(**_members(total)) for total in margins.totals],
            )
        )


def _row_answer(row: MarginRow) -> MarginRowAnswer:
    return MarginRowAnswer(key=row.key, name=row.name, **_members(row.margin))


def _members(margin: Margin) -> dict[str, Any]:
    share = margin.margin_share
    return {
        "currency": margin.currency,
        "revenue": amount_of(margin.revenue, margin.currency),
        "cost_usd": usd_from_nanos(margin.cost_nanos),
        "margin_usd": usd_or_none(margin.margin_nanos),
        "margin_share": None if share is None else f"{share:f}",
        "allocated": margin.is_allocated,
        "has_drafts": margin.has_drafts,
    }


def _months(request: Request) -> tuple[date, date]:
    """Return the first and the last month that are asked for."""
    period = _month(request, "period")
    first, last = _month(request, "from"), _month(request, "to")
    if period is not None and (first is not None or last is not None):
        detail = "Give 'period', or 'from' and 'to', and not both."
        raise InvalidParameter.of("period", "invalid_request", detail)
    last = period or last or timezone.now().date().replace(day=1)
    first = period or first or last
    if first > last:
        raise InvalidParameter.of("to", "invalid_range", "'to' must not be before 'from'.")
    if len(months_between(first, last)) > MONTHS_MAX:
        detail = f"A range has at most {MONTHS_MAX} months."
        raise InvalidParameter.of("from", "range_too_long", detail)
    return first, last


def _month(request: Request, name: str) -> date | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not MONTH.fullmatch(text):
        detail = f"{name!r} must be a month, as in 2026-11."
        raise InvalidParameter.of(name, "invalid_month", detail)
    return date.fromisoformat(f"{text}-01")
