"""What a body that was taken in says of its sources. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from metering.errors import MeteringError
from metering.events import PreparedEvent
from metering.job import Job
from metering.models import CostSource, Route, SourceOutcome
from metering.sources import Tally

NO_PRICE: Final = "no_price"
USAGE_MISSING: Final = "usage_missing"
CONFLICT: Final = "conflict"


def tallies_of(job: Job) -> list[Tally]:
    """The counts of a committed job."""
    events = [*job.events, *job.traced]
    sources = {event.body.source or "" for event in events}
    lone = next(iter(sources)) if len(sources) == 1 else ""
    if len(sources) == 1:
        taken = _of_one(job, lone, events)
    elif job.accepted == len(events) and not job.conflicts and not job.unpriced:
        taken = _accepted(job, events)
    else:
        taken = _of_several(job, events)
    return [*taken, *_rejected(job, lone), *_passed_over(job)]


def refused_body(route: Route, error: MeteringError) -> Tally:
    """A body that was refused as a whole, of whose sources nothing is known."""
    return Tally("", route, SourceOutcome.REJECTED, 1, error.code, error.detail)


def _of_one(job: Job, source: str, events: Sequence[PreparedEvent]) -> Iterator[Tally]:
    """What was taken of the only source, by the job's own counts."""
    for outcome, count, code in (
        (SourceOutcome.ACCEPTED, job.accepted, ""),
        (SourceOutcome.MERGED, job.merged, ""),
        (SourceOutcome.DUPLICATE, job.duplicates, ""),
        (SourceOutcome.CONFLICT, job.conflicts, CONFLICT),
    ):
        if count:
            yield Tally(source, job.route, outcome, count, code)
    if job.unpriced:
        missing = sum(bool(event.body.is_usage_missing) for event in events)
        missing = min(missing, job.unpriced)
        for code, count in ((USAGE_MISSING, missing), (NO_PRICE, job.unpriced - missing)):
            if count:
                yield Tally(source, job.route, SourceOutcome.UNPRICED, count, code)


def _accepted(job: Job, events: Sequence[PreparedEvent]) -> Iterator[Tally]:
    """What was taken of each source, where nothing else need be said of any event."""
    for source, count in Counter([event.body.source or "" for event in events]).items():
        yield Tally(source, job.route, SourceOutcome.ACCEPTED, count)


def _of_several(job: Job, events: Sequence[PreparedEvent]) -> Iterator[Tally]:
    """What was taken of each source, by what became of each event."""
    fates: Counter[tuple[str, SourceOutcome]] = Counter()
    unpriced: Counter[tuple[str, str]] = Counter()
    for event in events:
        fate = job.fates.get(id(event), SourceOutcome.ACCEPTED)
        if fate is SourceOutcome.REJECTED:
            continue
        source = event.body.source or ""
        fates[source, fate] += 1
        is_new = fate in (SourceOutcome.ACCEPTED, SourceOutcome.CONFLICT)
        if is_new and event.cost_source is CostSource.UNPRICED:
            unpriced[source, USAGE_MISSING if event.body.is_usage_missing else NO_PRICE] += 1
    for (source, fate), count in fates.items():
        if fate is SourceOutcome.CONFLICT:
            yield Tally(source, job.route, SourceOutcome.ACCEPTED, count)
            yield Tally(source, job.route, fate, count, CONFLICT)
        else:
            yield Tally(source, job.route, fate, count)
    for (source, code), count in unpriced.items():
        yield Tally(source, job.route, SourceOutcome.UNPRICED, count, code)


def _rejected(job: Job, lone: str) -> Iterator[Tally]:
    """What was rejected. What names no source is of the body's only one, where there is one."""
    for _, error in job.errors:
        source = lone if error.source is None else error.source
        yield Tally(
            source, job.route, SourceOutcome.REJECTED, 1, error.code, error.detail, error.sample
        )


def _passed_over(job: Job) -> Iterator[Tally]:
    for one in job.passed_over:
        yield Tally(
            one.source,
            job.route,
            SourceOutcome.PASSED_OVER,
            one.count,
            code=one.reason,
            sample=one.sample,
        )
