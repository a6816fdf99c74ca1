"""`GET /v1/sources`: which emitters send, what arrives, what is lost, and what to set."""

from datetime import datetime
from typing import Annotated, Final

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.pagination import PAGE_PARAMETERS, page_of, read_limit
from common.api.parameters import read_timestamp
from common.api.structs import Answer, UtcTimestamp, about, one_of
from metering.fields.parameters import RANGE_PARAMETERS
from metering.models import Route, SourceOutcome
from metering.reporting.cursors import range_of_cursor
from metering.reporting.source_counts import SourceQuestion, SourceRow, last_days, read_sources
from tenants.api.views import ApiView, tenant_of

COUNTS: Final = {
    "accepted": SourceOutcome.ACCEPTED,
    "merged": SourceOutcome.MERGED,
    "duplicates": SourceOutcome.DUPLICATE,
    "conflicts": SourceOutcome.CONFLICT,
    "unpriced": SourceOutcome.UNPRICED,
    "rejected": SourceOutcome.REJECTED,
    "passed_over": SourceOutcome.PASSED_OVER,
}


class SourceReasonAnswer(Answer):
    """Why reports of a source were rejected, passed over or counted as something else."""

    outcome: Annotated[str, one_of(SourceOutcome.labels)]
    code: Annotated[str, about("Stable, for programs.")]
    detail: Annotated[str, about("Of the latest report.")]
    count: int
    last_at: UtcTimestamp
    sample: Annotated[str | None, about("The latest report, redacted; 2 KB at most.")]
    what_to_set: str


class SourceAnswer(Answer):
    """What one source sent by one route."""

    source: Annotated[str, about("Empty: reports that name no source.")]
    route: Annotated[str, one_of(Route.labels)]
    first_at: UtcTimestamp
    last_at: UtcTimestamp
    accepted: int
    merged: int
    duplicates: int
    conflicts: int
    unpriced: int
    rejected: int
    passed_over: int
    reasons: list[SourceReasonAnswer]


class SourcesView(ApiView):
    """What each source sends."""

    parameters = {"GET": (*PAGE_PARAMETERS, *RANGE_PARAMETERS)}

    @extend_schema(
        summary="Show what each source sends, what is lost, and what to set",
        description="By source and route, over the UTC days that the range touches (default: the"
        f" last 7 days). Counts can be read for {settings.RETENTION_DECISIONS.days} days."
        " `conflicts` and `unpriced` are among the accepted. The reports of further sources than"
        " 200 a day count as `(other)`, those that name no source as an empty one. What this"
        " process has taken in is in its next answer; what other processes have, within a second.",
        responses=page_of(SourceAnswer),
    )
    def get(self, request: Request) -> Response:
        starts_at, ends_at = _range_of(request)
        question = SourceQuestion(
            tenant_id=tenant_of(request).id, starts_at=starts_at, ends_at=ends_at
        )
        page = read_sources(
            question, limit=read_limit(request), cursor=request.query_params.get("cursor")
        )
        return Response(
            {"data": [_source_answer(row) for row in page.rows], "next_cursor": page.next_cursor}
        )


def _range_of(request: Request) -> tuple[datetime, datetime]:
    cursor = request.query_params.get("cursor")
    first, end = range_of_cursor(cursor) if cursor else last_days()
    return read_timestamp(request, "from") or first, read_timestamp(request, "to") or end


def _source_answer(row: SourceRow) -> SourceAnswer:
    return SourceAnswer.of(
        row,
        route=row.route.label,
        reasons=[
            SourceReasonAnswer.of(reason, outcome=reason.outcome.label) for reason in row.reasons
        ],
        **{name: row.count(outcome) for name, outcome in COUNTS.items()},
    )
