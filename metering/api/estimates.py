"""`GET /v1/estimates`: how far what was reserved was from what it cost."""

from datetime import datetime, timedelta
from typing import Annotated, Final

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.pagination import PAGE_PARAMETERS, page_of, read_limit
from common.api.parameters import read_timestamp
from common.api.structs import AmountUsd, Answer, GroupValues, about, one_of
from metering.fields.parameters import RANGE_PARAMETERS
from metering.reporting import EstimateError, EstimateQuestion, estimate_errors
from metering.reporting.cursors import range_of_cursor
from metering.reporting.estimates import GROUPS
from tenants.api.views import ApiView, tenant_of

RANGE_DEFAULT: Final = timedelta(days=7)
# Clocks of processes differ; what was reserved just now is in the answer.
CLOCKS_DIFFER: Final = timedelta(minutes=1)


class UsedPercentAnswer(Answer):
    """Percentiles of cost in percent of what was reserved."""

    p50: int | None
    p95: int | None


class EstimateErrorAnswer(Answer):
    """How far reservations of one group and kind of estimate were from what they cost."""

    group: GroupValues
    estimate: Annotated[str, one_of(["amount", "expected", "max"])]
    settled: int
    released: int
    expired: int
    open: int
    late: int
    over: int
    reserved_usd: AmountUsd
    cost_usd: AmountUsd
    overrun_usd: AmountUsd
    used_percent: UsedPercentAnswer
    mean_absolute_error_percent: Annotated[
        float | None,
        about(
            "The mean distance between what was reserved and what it cost, in percent of the mean"
            " cost."
        ),
    ]


class EstimatesView(ApiView):
    """The errors of estimates."""

    parameters = {
        "GET": (
            *PAGE_PARAMETERS,
            *RANGE_PARAMETERS,
            OpenApiParameter("group_by", str, enum=list(GROUPS), default="agent"),
        )
    }

    @extend_schema(
        summary="Compare what was reserved with what it cost",
        description="By group and kind of estimate, of the reservations asked for in the range"
        " (default: the last 7 days). Amounts are those of settled reservations; `over` of them"
        " cost more than was reserved, together by `overrun_usd`; `late` came after their time.",
        responses=page_of(EstimateErrorAnswer),
    )
    def get(self, request: Request) -> Response:
        starts_at, ends_at = _range_of(request)
        question = EstimateQuestion(
            tenant_id=tenant_of(request).id,
            starts_at=starts_at,
            ends_at=ends_at,
            group_by=request.query_params.get("group_by", "agent"),
        )
        page = estimate_errors(
            question, limit=read_limit(request), cursor=request.query_params.get("cursor")
        )
        data = [_row_answer(question, row) for row in page.rows]
        return Response({"data": data, "next_cursor": page.next_cursor})


def _range_of(request: Request) -> tuple[datetime, datetime]:
    cursor = request.query_params.get("cursor")
    first, end = range_of_cursor(cursor) if cursor else (None, timezone.now() + CLOCKS_DIFFER)
    ends_at = read_timestamp(request, "to") or end
    return read_timestamp(request, "from") or first or ends_at - RANGE_DEFAULT, ends_at


def _row_answer(question: EstimateQuestion, row: EstimateError) -> EstimateErrorAnswer:
    error_percent = row.mean_absolute_error_percent
    return EstimateErrorAnswer.of(
        row,
        group={question.group_by: row.value},
        used_percent=UsedPercentAnswer.of(row),
        mean_absolute_error_percent=None if error_percent is None else float(error_percent),
    )
