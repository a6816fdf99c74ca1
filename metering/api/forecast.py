"""`GET /v1/forecast`: what the present period will have cost when it ends."""

from typing import Annotated

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.parameters import read_choice
from common.api.structs import AmountUsd, Answer, UtcTimestamp, about, one_of
from common.money import usd_from_nanos
from metering.core.dimensions import MATCHABLE
from metering.fields.parameters import FILTER_PARAMETERS, read_filters
from metering.reporting import forecast
from metering.reporting.forecast import PERIODS
from metering.reporting.run_rate import METHODS
from tenants.api.views import ApiView, tenant_of


class ForecastAnswer(Answer):
    """What was spent in a period so far, and what is expected at its end."""

    period_start: UtcTimestamp
    period_end: UtcTimestamp
    spent_usd: AmountUsd
    forecast_usd: AmountUsd
    low_usd: Annotated[AmountUsd, about("The low end of a band of 80%; never below what is spent.")]
    high_usd: Annotated[AmountUsd, about("The high end of the band.")]
    method: Annotated[
        str,
        one_of(
            METHODS,
            "`day_of_week` with four weeks of usage or more, `run_rate` with less, `none` without a"
            " day that is over: then the forecast is what is spent.",
        ),
    ]


class ForecastView(ApiView):
    """The forecast of a period."""

    filters = MATCHABLE
    parameters = {
        "GET": (
            OpenApiParameter("period", str, enum=PERIODS, default="month"),
            OpenApiParameter(
                "timezone", str, description="As in Europe/Berlin; the tenant's, unless given."
            ),
            *FILTER_PARAMETERS,
        )
    }

    @extend_schema(
        summary="What the present day, week, month or quarter will have cost",
        description="By the run rate of the last four to eight weeks, by day of the week.",
        responses={200: ForecastAnswer},
    )
    def get(self, request: Request) -> Response:
        tenant = tenant_of(request)
        result = forecast(
            tenant_id=tenant.id,
            period=read_choice(request, "period", PERIODS) or "month",
            timezone=request.query_params.get("timezone", tenant.timezone),
            filters=read_filters(request),
        )
        return Response(
            ForecastAnswer.of(
                result,
                spent_usd=usd_from_nanos(result.spent_nanos),
                forecast_usd=usd_from_nanos(result.forecast_nanos),
                low_usd=usd_from_nanos(result.low_nanos),
                high_usd=usd_from_nanos(result.high_nanos),
            )
        )
