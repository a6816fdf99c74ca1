"""Calendar days, in bodies and in query parameters."""

from datetime import date
from typing import Final

from drf_spectacular.utils import OpenApiParameter, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request

from common.api.fields import Spoken
from common.api.parameters import InvalidParameter

DAY_SCHEMA: Final = {"type": "string", "format": "date", "example": "2026-11-21"}
FIRST_DAY: Final = date(2000, 1, 1)
LAST_DAY: Final = date(2099, 12, 31)
EXPECTED: Final = "must be a day from 2000 to 2099, as in 2026-11-21"
# A list of rows by day, both ends included.
DAY_PARAMETERS: Final = (
    OpenApiParameter("from", DAY_SCHEMA, description="The first day."),
    OpenApiParameter("to", DAY_SCHEMA, description="The last day."),
)


@extend_schema_field(DAY_SCHEMA)
class Day(Spoken):
    """A calendar day, without a time."""

    example = "2026-11-21"

    def to_internal_value(self, data: object) -> date:
        day = parse_day(data)
        if day is None:
            raise serializers.ValidationError(EXPECTED)
        return day

    def to_representation(self, value: date) -> str:
        return value.isoformat()


def parse_day(data: object) -> date | None:
    """Return a day written as 2026-11-21; None for anything else."""
    if not isinstance(data, str) or len(data) != len("2026-11-21"):
        return None
    try:
        day = date.fromisoformat(data)
    except ValueError:
        return None
    return day if FIRST_DAY <= day <= LAST_DAY else None


def read_day(request: Request, name: str) -> date | None:
    """Return the day of a query parameter, or None if it is not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    day = parse_day(text)
    if day is None:
        raise InvalidParameter.of(name, "invalid_day", EXPECTED)
    return day
