"""Query parameters of reading: which there are, and what they mean."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from common.api.fields import Moment
from common.api.pagination import LIMIT_DEFAULT, LIMIT_MAX
from common.values import normal_value
from metering.core.dimensions import MATCHABLE
from metering.core.periods import floor_seconds
from metering.reporting import InvalidQuestion
from metering.reporting.question import is_tag
from metering.rollups.sets import QUARTER_SECONDS
from tenants.api.views import FILTER

RANGE_DEFAULT: Final = timedelta(days=30)
QUARTER: Final = timedelta(seconds=QUARTER_SECONDS)
# A zone's plus sign that was not escaped in an address arrives as a space.
UNESCAPED_PLUS: Final = re.compile(r" (?=\d\d:?\d\d$)")

MOMENT_SCHEMA: Final = {"type": "string", "format": "date-time"}
RANGE_SCHEMA: Final = [
    OpenApiParameter("from", MOMENT_SCHEMA, description="Included; RFC 3339 with a zone."),
    OpenApiParameter("to", MOMENT_SCHEMA, description="Not included; RFC 3339 with a zone."),
]
FILTER_SCHEMA: Final = [
    OpenApiParameter(
        f"filter[{name}]",
        {"type": "array", "items": {"type": "string", "maxLength": 200}},
        description="Repeated: any of these values. Empty: without a value. Tags as `tags.<key>`.",
    )
    for name in MATCHABLE
]


def filters_of(request: Request) -> Mapping[str, tuple[str, ...]]:
    """The filters by dimension; the values of one are alternatives."""
    return {
        found[1]: tuple(values if is_tag(found[1]) else map(value_of, values))
        for name, values in request.query_params.lists()
        if (found := FILTER.fullmatch(name))
    }


def value_of(text: str) -> str:
    """A dimension's value as events have it. Raises InvalidQuestion where nothing can be seen."""
    value = normal_value(text)
    if text and not value:
        raise InvalidQuestion("invalid_value", "A value must have visible characters.")
    return value


def moment_of(request: Request, name: str) -> datetime | None:
    """A time, or None when it is not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return Moment().to_internal_value(UNESCAPED_PLUS.sub("+", text))
    except ValidationError as error:
        raise InvalidQuestion(
            "invalid_time",
            f"{name!r} must be RFC 3339 with a zone, as in 2026-11-21T12:00:00Z.",
        ) from error


def range_of(
    request: Request, default: tuple[datetime, datetime] | None
) -> tuple[datetime, datetime]:
    """The range that is asked for: else `default` (of the page before), else the last 30 days.

    It ends after the latest time that an event may have now, so that what was just acknowledged is
    in it, and both ends are whole quarters of an hour, which roll-ups answer without events.
    """
    now = timezone.now()
    latest = floor_seconds(now + settings.EVENT_MAX_AHEAD + QUARTER, QUARTER_SECONDS)
    ends_at = moment_of(request, "to")
    starts_at = moment_of(request, "from")
    if starts_at is None:
        earliest = now if ends_at is None else ends_at
        starts_at = default[0] if default else _days_before(earliest)
    if ends_at is None:
        ends_at = default[1] if default else latest
    return starts_at, ends_at


def _days_before(moment: datetime) -> datetime:
    try:
        return floor_seconds(moment - RANGE_DEFAULT, QUARTER_SECONDS)
    except OverflowError as error:
        raise InvalidQuestion("time_out_of_range", "Times are from 2000 to 2100.") from error


def limit_of(request: Request) -> int:
    """How many rows a page has."""
    text = request.query_params.get("limit", str(LIMIT_DEFAULT))
    is_number = text.isascii() and text.isdecimal() and len(text) <= 3
    if not is_number or not 1 <= int(text) <= LIMIT_MAX:
        raise InvalidQuestion(
            "invalid_limit", f"'limit' must be a whole number from 1 to {LIMIT_MAX}."
        )
    return int(text)


def flag_of(request: Request, name: str) -> bool | None:
    """True, false, or None when it is not given."""
    text = request.query_params.get(name)
    if text not in (None, "true", "false"):
        raise InvalidQuestion("invalid_flag", f"{name!r} must be true or false.")
    return None if text is None else text == "true"
