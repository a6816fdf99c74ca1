"""`GET /v1/export/focus.csv`: a month as FOCUS 1.0."""

import re
from datetime import UTC, datetime
from typing import Final

from dateutil.relativedelta import relativedelta
from django.http import FileResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request

from common.api.parameters import InvalidParameter
from common.csv_downloads import csv_download
from metering.core.dimensions import MATCHABLE
from metering.fields.parameters import FILTER_PARAMETERS, read_filters
from metering.reporting import focus_rows, require_events
from metering.reporting.question import check_filters
from tenants.api.views import ApiView, holder_of
from tenants.models import Tenant
from tenants.scope import tenant_scope

A_MONTH: Final = relativedelta(months=1)
MONTH: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")


class FocusExportView(ApiView):
    """Usage of a month for finance tools."""

    filters = MATCHABLE
    parameters = {
        "GET": (
            OpenApiParameter(
                "month",
                {"type": "string", "pattern": f"^{MONTH.pattern}$"},
                required=True,
                description="As in 2026-11.",
            ),
            *FILTER_PARAMETERS,
        )
    }

    @extend_schema(
        summary="A month of usage as FOCUS 1.0, in CSV",
        description="By UTC day, provider, model, tool, team, customer, agent and feature. Sums to"
        " exactly what `/v1/usage` answers for the month in UTC and the same filters; usage that"
        " comes while it is read may be in it or not.",
        responses={(200, "text/csv"): OpenApiTypes.STR},
    )
    def get(self, request: Request) -> FileResponse:
        text = request.query_params.get("month", "")
        if not MONTH.fullmatch(text):
            detail = "'month' must be a month, as in 2026-11."
            raise InvalidParameter.of("month", "invalid_month", detail)
        filters = read_filters(request)
        check_filters(filters)
        year, month = text.split("-")
        tenant_id = holder_of(request).tenant_id
        first = datetime(int(year), int(month), 1, tzinfo=UTC)
        # In transactions of its own (see the middleware).
        with tenant_scope(tenant_id):
            require_events(tenant_id=tenant_id, starts_at=first)
            name = Tenant.objects.values_list("name", flat=True).get(id=tenant_id)
        rows = focus_rows(
            tenant_id=tenant_id,
            tenant_name=name,
            starts_at=first,
            ends_at=first + A_MONTH,
            filters=filters,
        )
        return csv_download(rows, name=f"focus-{text}.csv")
