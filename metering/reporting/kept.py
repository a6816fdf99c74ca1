"""What can still be read of usage whose events are gone: sums of whole days in UTC, and no more."""

from collections.abc import Sequence
from datetime import datetime

from django.conf import settings
from django.utils import timezone

from common.queries import fetch_rows
from metering.calls.seals import read_sealed
from metering.core.periods import EPOCH
from metering.reporting.intervals import Bucket
from metering.reporting.question import InvalidQuestion, UsageQuestion
from metering.reporting.sources import sets_for, stretches
from metering.reporting.usage_branches import hides_values
from metering.rollups.sets import DAY_SECONDS
from tenants.scope import once_a_snapshot


@once_a_snapshot
def first_event_at(tenant_id: int) -> datetime | None:
    """Return the time of the first event; None if there is none, or if older ones were removed."""
    if read_sealed(tenant_id).sealed_until > EPOCH:
        return None
    # The partitions are read in order, each by its index, and the first that has a row ends it.
    rows = fetch_rows(
        "SELECT time FROM usage_event WHERE tenant_id = %s ORDER BY time LIMIT 1", [tenant_id]
    )
    return rows[0][0] if rows else None


def require_events(*, tenant_id: int, starts_at: datetime) -> None:
    """Refuse a question to events that are gone; an answer without them would be wrong."""
    kept_from = read_sealed(tenant_id).sealed_until
    if starts_at < kept_from:
        raise InvalidQuestion(
            "no_longer_kept",
            f"Calls before {kept_from:%Y-%m-%d} UTC are no longer kept: ask for a range from then"
            " on. Sums of whole days in UTC are kept for longer; see GET /v1/usage.",
        )


def require_sums(question: UsageQuestion, portion: Sequence[Bucket] | None = None) -> None:
    """Refuse a question of which some part can be answered neither from events nor from sums of
    days. `portion` has its buckets unless they are those of its interval.
    """
    # A month that is being sealed still has its events: its first day is not cut.
    events_from = read_sealed(question.tenant_id).sealed_until.replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    if question.starts_at >= events_from:
        return
    days_from = timezone.now() - settings.RETENTION_HISTORY
    if question.starts_at < days_from:
        raise InvalidQuestion(
            "no_longer_kept",
            f"Usage before {days_from:%Y-%m-%d} UTC is no longer kept: ask for a range from then"
            " on.",
        )
    # The total is of the filters alone, over the whole range.
    of_rows = portion or [*question.buckets(ends_at=min(question.ends_at, events_from))]
    for dimensions, buckets in (
        (question.dimensions, of_rows),
        (frozenset(question.filters), [question.whole]),
    ):
        sets = sets_for(dimensions)
        parts = [part for part in stretches(buckets, sets) if part.starts_at < events_from]
        grains = {part.source and part.source.grain_seconds for part in parts}
        if grains - {DAY_SECONDS} or hides_values(question, sets):
            raise InvalidQuestion(
                "no_longer_kept",
                f"Before {events_from:%Y-%m-%d} UTC, only sums of whole days in UTC are kept, by"
                " one dimension or a pair of team, customer, agent, feature and model: ask for days"
                " of UTC, or for a range from then on.",
            )
