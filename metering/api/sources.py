"""`GET /v1/sources`: which emitters send, what arrives, what is lost, and what to set."""

from datetime import datetime
from typing import Any, Final

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import moment_text
from common.api.pagination import PAGE_PARAMETERS, PAGE_SCHEMA
from metering.fields.parameters import RANGE_SCHEMA, limit_of, moment_of
from metering.models import Route, SourceOutcome
from metering.reporting.cursors import range_of_cursor
from metering.reporting.source_counts import (
    SourceQuestion,
    SourceReason,
    SourceRow,
    last_days,
    read_sources,
)
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

COUNTS: Final = {
    "accepted": SourceOutcome.ACCEPTED,
    "merged": SourceOutcome.MERGED,
    "duplicates": SourceOutcome.DUPLICATE,
    "conflicts": SourceOutcome.CONFLICT,
    "unpriced": SourceOutcome.UNPRICED,
    "rejected": SourceOutcome.REJECTED,
    "passed_over": SourceOutcome.PASSED_OVER,
}
_MOMENT: Final = {"type": "string", "format": "date-time"}
_REASON_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "outcome": {"type": "string", "enum": SourceOutcome.labels},
        "code": {"type": "string", "description": "Stable, for programs."},
        "detail": {"type": "string", "description": "Of the latest report."},
        "count": {"type": "integer"},
        "last_at": _MOMENT,
        "sample": {
            "type": "string",
            "nullable": True,
            "description": "The latest report, redacted; 2 KB at most.",
        },
        "what_to_set": {"type": "string"},
    },
}
_REASON_SCHEMA["required"] = list(_REASON_SCHEMA["properties"])
ROW_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "source": {"type": "string", "description": "Empty: reports that name no source."},
        "route": {"type": "string", "enum": Route.labels},
        "first_at": _MOMENT,
        "last_at": _MOMENT,
        **{name: {"type": "integer"} for name in COUNTS},
        "reasons": {"type": "array", "items": _REASON_SCHEMA},
    },
}
ROW_SCHEMA["required"] = list(ROW_SCHEMA["properties"])
SOURCES_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "data": {"type": "array", "items": ROW_SCHEMA},
        "next_cursor": {"type": "string", "nullable": True},
    },
    "required": ["data", "next_cursor"],
}


class SourcesView(ApiView):
    """What each source sends."""

    read_scope = Scope.READ
    parameters = {"GET": PAGE_PARAMETERS | {"from", "to"}}

    @extend_schema(
        summary="What each source sends, what is lost of it, and what to set",
        description="By source and route, over the UTC days that the range touches (default: the"
        f" last 7 days). Counts can be read for {settings.RETENTION_DECISIONS.days} days."
        " `conflicts` and `unpriced` are among the accepted. The reports of further sources than"
        " 200 a day count as `(other)`, those that name no source as an empty one. What this"
        " process has taken in is in its next answer; what other processes have, within a second.",
        parameters=[*PAGE_SCHEMA, *RANGE_SCHEMA],
        responses={200: SOURCES_SCHEMA},
    )
    def get(self, request: Request) -> Response:
        starts_at, ends_at = _range_of(request)
        question = SourceQuestion(
            tenant_id=tenant_of(request).id, starts_at=starts_at, ends_at=ends_at
        )
        page = read_sources(
            question, limit=limit_of(request), cursor=request.query_params.get("cursor")
        )
        return Response(
            {"data": [source_answer(row) for row in page.rows], "next_cursor": page.next_cursor}
        )


def _range_of(request: Request) -> tuple[datetime, datetime]:
    cursor = request.query_params.get("cursor")
    first, end = range_of_cursor(cursor) if cursor else last_days()
    return moment_of(request, "from") or first, moment_of(request, "to") or end


def source_answer(row: SourceRow) -> dict[str, Any]:
    """A source and route as answered."""
    return {
        "source": row.source,
        "route": row.route.label,
        "first_at": moment_text(row.first_at),
        "last_at": moment_text(row.last_at),
        **{name: row.count(outcome) for name, outcome in COUNTS.items()},
        "reasons": [_reason_answer(reason) for reason in row.reasons],
    }


def _reason_answer(reason: SourceReason) -> dict[str, Any]:
    return {
        "outcome": reason.outcome.label,
        "code": reason.code,
        "detail": reason.detail,
        "count": reason.count,
        "last_at": moment_text(reason.last_at),
        "sample": reason.sample,
        "what_to_set": reason.what_to_set,
    }
