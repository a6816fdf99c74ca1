"""What may be asked about usage, and what is refused before anything is read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from common.errors import InvalidRequest
from common.times import zone_names
from metering.core import dimensions
from metering.core.dimensions import MATCHABLE
from metering.models import Operation, Status
from metering.reporting.intervals import Bucket, buckets

INTERVALS: Final = ("15min", "hour", "day", "week", "month", "none")
GROUP_BY_MAX: Final = 5
VALUES_MAX: Final = 100
# The longest range of each interval, so that no question has more buckets than anyone reads.
RANGE_MAX: Final = {"15min": timedelta(days=93), "hour": timedelta(days=366)}
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
TAG_PREFIX: Final = "tags."
# Dimensions that events store as numbers, and the names of these.
NUMBERED: Final[dict[str, dict[str, int]]] = {
    "operation": {kind.label: kind.value for kind in Operation},
    "status": {status.label: status.value for status in Status},
}

Filters = Mapping[str, tuple[str, ...]]
EVERYTHING: Final[Filters] = MappingProxyType({})


class InvalidQuestion(InvalidRequest):
    """What was asked makes no sense; `code` says which part."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class UsageQuestion:
    """Usage of a tenant from `starts_at` up to but not including `ends_at`.

    One row per bucket of `interval` in `timezone` and combination of the `group_by` values; an
    event counts when, for each filter, its value is one of those named. Raises InvalidQuestion.
    """

    tenant_id: int
    starts_at: datetime
    ends_at: datetime
    group_by: tuple[str, ...] = ()
    interval: str = "day"
    timezone: str = "UTC"
    filters: Filters = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range(self.starts_at, self.ends_at)
        if self.timezone not in zone_names():
            raise InvalidQuestion("unknown_timezone", "timezone is a name as in Europe/Berlin.")
        check_filters(self.filters)
        for name in self.group_by:
            if name not in MATCHABLE:
                raise unknown_dimension(name)
        if len(self.group_by) > GROUP_BY_MAX or len(set(self.group_by)) != len(self.group_by):
            raise InvalidQuestion(
                "invalid_group_by", f"group_by names up to {GROUP_BY_MAX} different dimensions."
            )
        if self.interval not in INTERVALS:
            raise InvalidQuestion("unknown_interval", f"interval is one of {', '.join(INTERVALS)}.")
        longest = RANGE_MAX.get(self.interval)
        if longest is not None and self.ends_at - self.starts_at > longest:
            raise InvalidQuestion(
                "range_too_long",
                f"With interval {self.interval} a range is at most {longest.days} days long.",
            )

    def __hash__(self) -> int:
        filters = frozenset((name, tuple(values)) for name, values in self.filters.items())
        return hash((self.tenant_id, self.starts_at, self.ends_at, self.group_by, filters))

    @property
    def dimensions(self) -> frozenset[str]:
        """Every dimension that the answer depends on."""
        return frozenset(self.group_by) | frozenset(self.filters)

    @property
    def whole(self) -> Bucket:
        """The range as one bucket."""
        return Bucket(self.starts_at, self.starts_at, self.ends_at)

    def buckets(
        self, *, starts_at: datetime | None = None, ends_at: datetime | None = None
    ) -> Iterator[Bucket]:
        """Yield the buckets of the range, or of a part of it; without interval the whole."""
        if self.interval == "none":
            return iter([self.whole])
        return buckets(
            interval=self.interval,
            timezone=self.timezone,
            starts_at=starts_at or self.starts_at,
            ends_at=ends_at or self.ends_at,
        )


def check_range(starts_at: datetime, ends_at: datetime) -> None:
    """Refuse a range that is empty or far outside of what can be stored."""
    if starts_at >= ends_at:
        raise InvalidQuestion("invalid_range", "from must be before to.")
    if starts_at < EARLIEST or ends_at > LATEST:
        raise InvalidQuestion("time_out_of_range", "Times are from 2000 to 2100.")


def check_filters(filters: Filters) -> None:
    """Refuse filters on what is no dimension, and values that no event can have."""
    for name, values in filters.items():
        if name not in MATCHABLE and not is_tag(name):
            raise unknown_dimension(name)
        if not 1 <= len(values) <= VALUES_MAX:
            raise InvalidQuestion("too_many_values", f"A filter names 1 to {VALUES_MAX} values.")
        for value in values:
            if value not in NUMBERED.get(name, {value: 0}):
                known = ", ".join(NUMBERED[name])
                raise InvalidQuestion("unknown_value", f"{name} is one of {known}.")
            if "\x00" in value:
                raise InvalidQuestion("invalid_value", f"A value of {name} holds a NUL character.")


def is_tag(name: str) -> bool:
    """Whether a filter is on a tag, as in `tags.environment`."""
    return name.startswith(TAG_PREFIX) and len(name) > len(TAG_PREFIX) and "\x00" not in name


def unknown_dimension(name: str) -> InvalidQuestion:
    """Return the refusal of a name that is no dimension."""
    return InvalidQuestion("unknown_dimension", dimensions.unknown_dimension(name))
