"""`/v1/unit-counts`: numbers of finished work to divide costs by."""

from datetime import date
from typing import Annotated

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.days import DAY_PARAMETERS, Day, read_day
from common.api.fields import Count, StrictSerializer, Value, read_body
from common.api.pagination import PAGE_PARAMETERS, page_of, paginate
from common.api.structs import Answer, UtcTimestamp, about
from metering.models import UnitCount
from metering.usage.unit_counts import report_unit_count
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope


class UnitCountBody(StrictSerializer):
    """How many units of work were finished on a day."""

    name = Value(help_text="What is counted, as in `tickets solved`.")
    day = Day(help_text="A day of the tenant's time zone.")
    count = Count(min_value=0)


class UnitCountAnswer(Answer):
    """A count as it is stored."""

    name: str
    day: Annotated[date, about("A day of the tenant's time zone.")]
    count: int
    updated_at: UtcTimestamp


class UnitCountsView(ApiView):
    """Counts of finished work."""

    write_scope = Scope.INGEST
    parameters = {
        "GET": (
            *PAGE_PARAMETERS,
            OpenApiParameter("name", str),
            *DAY_PARAMETERS,
        )
    }

    @extend_schema(
        summary="List the counts of finished work, by when they were first posted",
        responses=page_of(UnitCountAnswer),
    )
    def get(self, request: Request) -> Response:
        return Response(
            paginate(
                request,
                _asked_for(request),
                lambda rows: [UnitCountAnswer.of(row) for row in rows],
                order=("id",),
            )
        )

    @extend_schema(
        summary="Post how much work was finished on a day",
        description="Costs are divided by it under Unit economics. One count per name and day: the"
        " last one counts, so a count that was sent twice is the same, and a wrong one is sent"
        " again. Takes the scope `ingest`, like the usage that it belongs to.",
        request=UnitCountBody,
        responses={200: UnitCountAnswer},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        fields = read_body(UnitCountBody, request)
        row = report_unit_count(tenant_id=tenant_of(request).id, **fields)
        return Response(UnitCountAnswer.of(row))


def _asked_for(request: Request) -> QuerySet[UnitCount]:
    rows = UnitCount.objects.filter(tenant=tenant_of(request))
    if (name := request.query_params.get("name")) is not None:
        rows = rows.filter(name=name)
    if (first := read_day(request, "from")) is not None:
        rows = rows.filter(day__gte=first)
    if (last := read_day(request, "to")) is not None:
        rows = rows.filter(day__lte=last)
    return rows
