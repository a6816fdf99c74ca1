"""Query parameters of reading usage: filters by dimension, and ranges of time."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from common.api.parameters import FILTER, TIMESTAMP_SCHEMA, InvalidParameter, read_timestamp
from common.values import normal_value
from metering.core.dimensions import MATCHABLE
from metering.core.periods import floor_seconds
from metering.reporting.question import is_tag
from metering.rollups.sets import QUARTER_SECONDS

RANGE_DEFAULT: Final = timedelta(days=30)
QUARTER: Final = timedelta(seconds=QUARTER_SECONDS)
RANGE_PARAMETERS: Final = (
    OpenApiParameter("from", TIMESTAMP_SCHEMA, description="Included; RFC 3339 with a zone."),
    OpenApiParameter("to", TIMESTAMP_SCHEMA, description="Not included; RFC 3339 with a zone."),
)
FILTER_PARAMETERS: Final = tuple(
    OpenApiParameter(
        f"filter[{name}]",
        {"type": "array", "items": {"type": "string", "maxLength": 200}},
        description="Repeated: any of these values. Empty: without a value. Tags as `tags.<key>`.",
    )
    for name in MATCHABLE
)


def read_filters(request: Request) -> Mapping[str, tuple[str, ...]]:
    """Return the filters by dimension; the values of one are alternatives."""
    filters = {}
    for name, values in request.query_params.lists():
        if (match := FILTER.fullmatch(name)) is not None:
            dimension = match[1]
            is_raw = is_tag(dimension)
            filters[dimension] = tuple(
                values if is_raw else [read_value(name, value) for value in values]
            )
    return filters


def read_value(name: str, text: str) -> str:
    """Return a dimension's value as events have it. Raises InvalidParameter if nothing of it can be
    seen.
    """
    value = normal_value(text)
    if text and not value:
        detail = "A value must have visible characters."
        raise InvalidParameter.of(name, "invalid_value", detail)
    return value


def read_range(
    request: Request, default: tuple[datetime, datetime] | None
) -> tuple[datetime, datetime]:
    """Return the range that is asked for, else `default` (of the page before) or the last 30 days.

    It ends after the latest time that an event may have now, so that what was just acknowledged is
    in it, and both ends are whole quarters of an hour, which roll-ups answer without events.
    """
    now = timezone.now()
    latest = floor_seconds(now + settings.EVENT_MAX_AHEAD + QUARTER, QUARTER_SECONDS)
    ends_at = read_timestamp(request, "to")
    starts_at = read_timestamp(request, "from")
    if starts_at is None:
        earliest = now if ends_at is None else ends_at
        month_ago = floor_seconds(earliest - RANGE_DEFAULT, QUARTER_SECONDS)
        starts_at = default[0] if default else month_ago
    if ends_at is None:
        ends_at = default[1] if default else latest
    return starts_at, ends_at
