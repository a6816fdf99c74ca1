"""`GET /v1/estimates`: how far what was reserved was from what it cost."""

from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.pagination import PAGE_PARAMETERS, PAGE_SCHEMA
from common.money import usd_from_nanos
from metering.api.usage import USD
from metering.fields.parameters import RANGE_SCHEMA, limit_of, moment_of
from metering.reporting import EstimateError, EstimateQuestion, estimate_errors
from metering.reporting.cursors import range_of_cursor
from metering.reporting.estimates import GROUPS
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

RANGE_DEFAULT: Final = timedelta(days=7)
# Clocks of processes differ; what was reserved just now is in the answer.
CLOCKS_DIFFER: Final = timedelta(minutes=1)
COUNTS: Final = ("settled", "released", "expired", "open", "late", "over")
AMOUNTS: Final = ("reserved", "cost", "overrun")
ROW_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "group": {"type": "object", "additionalProperties": {"type": "string"}},
        "estimate": {"type": "string", "enum": ["amount", "expected", "max"]},
        **{name: {"type": "integer"} for name in COUNTS},
        **{f"{name}_usd": USD for name in AMOUNTS},
        "used_percent": {
            "type": "object",
            "description": "Percentiles of cost in percent of what was reserved.",
            "properties": {name: {"type": "integer", "nullable": True} for name in ("p50", "p95")},
        },
        "mean_absolute_error_percent": {
            "type": "number",
            "nullable": True,
            "description": "The mean distance between what was reserved and what it cost, in"
            " percent of the mean cost.",
        },
    },
}
ROW_SCHEMA["required"] = list(ROW_SCHEMA["properties"])
ESTIMATES_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "data": {"type": "array", "items": ROW_SCHEMA},
        "next_cursor": {"type": "string", "nullable": True},
    },
    "required": ["data", "next_cursor"],
}


class EstimatesView(ApiView):
    """The errors of estimates."""

    read_scope = Scope.READ
    parameters = {"GET": PAGE_PARAMETERS | {"from", "to", "group_by"}}

    @extend_schema(
        summary="How far what was reserved was from what it cost",
        description="By group and kind of estimate, of the reservations asked for in the range"
        " (default: the last 7 days). Amounts are those of settled reservations; `over` of them"
        " cost more than was reserved, together by `overrun_usd`; `late` came after their time.",
        parameters=[
            *PAGE_SCHEMA,
            *RANGE_SCHEMA,
            OpenApiParameter("group_by", str, enum=list(GROUPS), default="agent"),
        ],
        responses={200: ESTIMATES_SCHEMA},
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
            question, limit=limit_of(request), cursor=request.query_params.get("cursor")
        )
        return Response(
            {
                "data": [_row(question, row) for row in page.rows],
                "next_cursor": page.next_cursor,
            }
        )


def _range_of(request: Request) -> tuple[datetime, datetime]:
    cursor = request.query_params.get("cursor")
    first, end = range_of_cursor(cursor) if cursor else (None, timezone.now() + CLOCKS_DIFFER)
    ends_at = moment_of(request, "to") or end
    return moment_of(request, "from") or first or ends_at - RANGE_DEFAULT, ends_at


def _row(question: EstimateQuestion, row: EstimateError) -> dict[str, Any]:
    error_percent = row.mean_absolute_error_percent
    return {
        "group": {question.group_by: row.value},
        "estimate": row.estimate,
        **{name: getattr(row, name) for name in COUNTS},
        **{f"{name}_usd": usd_from_nanos(getattr(row, f"{name}_nanos")) for name in AMOUNTS},
        "used_percent": {"p50": row.p50, "p95": row.p95},
        "mean_absolute_error_percent": None if error_percent is None else float(error_percent),
    }
