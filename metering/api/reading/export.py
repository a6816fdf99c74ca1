"""`GET /v1/export/focus.csv`: a month as FOCUS 1.0."""

import csv
import re
from collections.abc import Iterable, Iterator
from datetime import date
from io import StringIO
from itertools import islice
from typing import Final

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request

from metering.api.reading.parameters import ReadingView
from metering.api.views import tenant_of
from metering.queries import InvalidQuestion, focus_rows
from tenants.roles import Scope
from tenants.scope import tenant_scope

MONTH: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")
LINES_AT_ONCE: Final = 500


class FocusExportView(ReadingView):
    """Usage of a month for finance tools."""

    read_scope = Scope.READ
    parameters = {"GET": frozenset({"month"})}

    @extend_schema(
        summary="A month of usage as FOCUS 1.0, in CSV",
        description="By UTC day, provider, model, tool, team, customer, agent and feature. Sums to"
        " exactly what `/v1/usage` answers for the month in UTC.",
        parameters=[
            OpenApiParameter(
                "month",
                {"type": "string", "pattern": "^20[0-9]{2}-(0[1-9]|1[0-2])$"},
                required=True,
                description="As in 2026-11.",
            )
        ],
        responses={(200, "text/csv"): OpenApiTypes.STR},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        text = request.query_params.get("month", "")
        if not MONTH.fullmatch(text):
            raise InvalidQuestion("invalid_month", "'month' must be a month, as in 2026-11.")
        year, month = text.split("-")
        tenant = tenant_of(request)
        return StreamingHttpResponse(
            _stream(tenant.id, tenant.name, date(int(year), int(month), 1)),
            content_type="text/csv; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="focus-{text}.csv"',
                "X-Opens-Own-Scope": "focus export",
            },
        )


def _stream(tenant_id: int, tenant_name: str, month: date) -> Iterator[bytes]:
    """The lines, read in a transaction of their own: the request's is over when they are sent."""
    with tenant_scope(tenant_id, is_snapshot=True):
        yield from _lines(focus_rows(tenant_id=tenant_id, tenant_name=tenant_name, month=month))


def _lines(rows: Iterable[list[str]]) -> Iterator[bytes]:
    remaining = iter(rows)
    while portion := list(islice(remaining, LINES_AT_ONCE)):
        buffer = StringIO()
        csv.writer(buffer).writerows(portion)
        yield buffer.getvalue().encode()
