"""`/v1/unit-counts`: numbers of finished work to divide costs by."""

from datetime import date
from typing import Annotated, Any, Final

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import Count, Spoken, StrictSerializer, Value, read_body
from common.api.pagination import PAGE_PARAMETERS, page_of, paginate
from common.api.parameters import InvalidParameter
from common.api.structs import Answer, UtcTimestamp, about
from metering.models import UnitCount
from metering.usage.unit_counts import report_unit_count
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, tenant_of
from tenants.roles import Scope

DAY_SCHEMA: Final = {"type": "string", "format": "date", "example": "2026-11-21"}
FIRST_DAY: Final = date(2000, 1, 1)
LAST_DAY: Final = date(2099, 12, 31)


@extend_schema_field(DAY_SCHEMA)
class Day(Spoken):
    """A calendar day, without a time."""

    example = "2026-11-21"

    def to_internal_value(self, data: object) -> date:
        day = read_day(data)
        if day is None:
            raise serializers.ValidationError("must be a day from 2000 to 2099, as in 2026-11-21")
        return day

    def to_representation(self, value: date) -> str:
        return value.isoformat()


def read_day(data: object) -> date | None:
    """Return a day written as 2026-11-21; None for anything else."""
    if not isinstance(data, str) or len(data) != len("2026-11-21"):
        return None
    try:
        day = date.fromisoformat(data)
    except ValueError:
        return None
    return day if FIRST_DAY <= day <= LAST_DAY else None


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
            OpenApiParameter("from", DAY_SCHEMA, description="The first day."),
            OpenApiParameter("to", DAY_SCHEMA, description="The last day."),
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
    query: Any = request.query_params
    if "name" in query:
        rows = rows.filter(name=query["name"])
    for parameter, condition in (("from", "day__gte"), ("to", "day__lte")):
        if parameter in query:
            day = read_day(query[parameter])
            if day is None:
                detail = "must be a day from 2000 to 2099, as in 2026-11-21"
                raise InvalidParameter.of(parameter, "invalid_day", detail)
            rows = rows.filter(**{condition: day})
    return rows
