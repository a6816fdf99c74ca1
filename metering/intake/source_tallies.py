"""What a body that was taken in says of its sources. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from common.errors import MeteringError
from metering.calls.ingest_job import IngestJob
from metering.calls.prepared_event import PreparedEvent
from metering.models import CostSource, Route, SourceOutcome
from metering.usage.decoders.samples import redacted_sample
from metering.usage.shapes import UNKNOWN_PARTS
from metering.usage.sources import Tally

NO_PRICE: Final = "no_price"
NO_RATE: Final = "no_rate"
USAGE_MISSING: Final = "usage_missing"
UNKNOWN_PART: Final = "unknown_usage_part"
CONFLICT: Final = "conflict"


def tallies_of(job: IngestJob) -> list[Tally]:
    """Return the counts of a committed job."""
    events = list(job.reports)
    sources = {event.body.source or "" for event in events}
    lone = next(iter(sources)) if len(sources) == 1 else ""
    if len(sources) == 1:
        taken = _of_one(job, lone, events)
    elif job.counts == {SourceOutcome.ACCEPTED: len(events)}:
        taken = _accepted(job, events)
    else:
        taken = _of_several(job, events)
    return [*taken, *_unknown_parts(job, events), *_rejected(job, lone), *_passed_over(job)]


def refused_body(route: Route, error: MeteringError) -> Tally:
    """Return the count of a body that was refused, whose sources are unknown."""
    return Tally("", route, SourceOutcome.REJECTED, 1, error.code, error.detail)


def _of_one(job: IngestJob, source: str, events: Sequence[PreparedEvent]) -> Iterator[Tally]:
    """Yield what was taken of the only source, by the job's own counts."""
    for outcome, count in job.counts.items():
        if outcome is not SourceOutcome.UNPRICED:
            code = CONFLICT if outcome is SourceOutcome.CONFLICT else ""
            yield Tally(source, job.route, outcome, count, code)
    if unpriced := job.counts[SourceOutcome.UNPRICED]:
        codes = Counter(_unpriced_code(event) for event in events)
        missing = min(codes[USAGE_MISSING], unpriced)
        partly = min(codes[NO_RATE], unpriced - missing)
        rest = unpriced - missing - partly
        for code, count in ((USAGE_MISSING, missing), (NO_RATE, partly), (NO_PRICE, rest)):
            if count:
                yield Tally(source, job.route, SourceOutcome.UNPRICED, count, code)


def _unpriced_code(event: PreparedEvent) -> str:
    """Return why the event would have no price; empty where it has one."""
    if event.body.is_usage_missing:
        return USAGE_MISSING
    if event.cost_source is not CostSource.UNPRICED:
        return ""
    return NO_PRICE if event.price_id is None else NO_RATE


def _unknown_parts(job: IngestJob, events: Sequence[PreparedEvent]) -> Iterator[Tally]:
    """Yield what no one knows in usage objects that add up without it: passed over, and shown."""
    parts = [
        (event.body.source or "", extra[UNKNOWN_PARTS])
        for event in events
        if (extra := event.tokens.extra) is not None and UNKNOWN_PARTS in extra
    ]
    latest = dict(parts)
    for source, count in Counter(source for source, _ in parts).items():
        yield Tally(
            source,
            job.route,
            SourceOutcome.PASSED_OVER,
            count,
            code=UNKNOWN_PART,
            sample=redacted_sample(latest[source]),
        )


def _accepted(job: IngestJob, events: Sequence[PreparedEvent]) -> Iterator[Tally]:
    """Yield what was taken of each source, where nothing else need be said of any event."""
    for source, count in Counter([event.body.source or "" for event in events]).items():
        yield Tally(source, job.route, SourceOutcome.ACCEPTED, count)


def _of_several(job: IngestJob, events: Sequence[PreparedEvent]) -> Iterator[Tally]:
    """Yield what was taken of each source, by what became of each event."""
    taken: Counter[tuple[str, SourceOutcome]] = Counter()
    unpriced: Counter[tuple[str, str]] = Counter()
    for event in events:
        outcome = job.outcomes.get(id(event), SourceOutcome.ACCEPTED)
        if outcome is SourceOutcome.REJECTED:
            continue
        source = event.body.source or ""
        taken[source, outcome] += 1
        is_new = outcome in (SourceOutcome.ACCEPTED, SourceOutcome.CONFLICT)
        if is_new and event.cost_source is CostSource.UNPRICED:
            unpriced[source, _unpriced_code(event)] += 1
    for (source, outcome), count in taken.items():
        if outcome is SourceOutcome.CONFLICT:
            yield Tally(source, job.route, SourceOutcome.ACCEPTED, count)
            yield Tally(source, job.route, outcome, count, CONFLICT)
        else:
            yield Tally(source, job.route, outcome, count)
    for (source, code), count in unpriced.items():
        yield Tally(source, job.route, SourceOutcome.UNPRICED, count, code)


def _rejected(job: IngestJob, lone: str) -> Iterator[Tally]:
    """Yield what was rejected. What names no source is of the body's only one, if it has one."""
    for _, error in job.errors:
        source = lone if error.source is None else error.source
        yield Tally(
            source, job.route, SourceOutcome.REJECTED, 1, error.code, error.detail, error.sample
        )


def _passed_over(job: IngestJob) -> Iterator[Tally]:
    for item in job.passed_over:
        yield Tally(
            item.source,
            job.route,
            SourceOutcome.PASSED_OVER,
            item.count,
            code=item.reason,
            sample=item.sample,
        )
