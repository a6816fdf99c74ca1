"""One request body being committed: its events, and what became of each."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from msgspec import UNSET

from common.errors import EventRejected, RejectEvent
from metering.calls.answers import EventErrorAnswer, EventWarningAnswer, IngestAnswer
from metering.calls.merge_transaction import MergeResult
from metering.calls.prepared_event import MISSING, PreparedEvent
from metering.core.match import POSITION
from metering.models import CostSource, Route, SourceOutcome
from metering.pricing.model_names import near_model
from metering.snapshot import Configuration
from metering.usage.decoders.native import PassedOver
from metering.usage.decoders.otlp import SpanRecord

# Unpriced models of a body that are looked up among those with a price.
WARNINGS_MAX: Final = 20
PROVIDER: Final = POSITION["provider"]
MODEL: Final = POSITION["model"]
# Transactions of one body that may fail because of a value before the rest is refused unseen.
FAILED_TRANSACTIONS_MAX: Final = 200
NOT_STORABLE: Final = "The event holds a value that cannot be stored."
NOT_TRIED: Final = (
    "Too many events of this body hold values that cannot be stored; this one may be among them."
    " Send it again by itself."
)


@dataclass
class Attempts:
    """The number of transactions of a body that may still fail because of a value."""

    left: int = FAILED_TRANSACTIONS_MAX


@dataclass
class IngestJob:
    """One request body: events that fit the contract, and what became of each."""

    tenant_id: int
    route: Route
    event_count: int
    events: list[PreparedEvent]
    # What the events were judged by; the transaction that writes compares it with what is in force.
    configuration: Configuration
    errors: list[tuple[int, EventRejected]] = field(default_factory=list)
    # Spans, whose calls are found among all that is known of their traces when they are written:
    # `traced` are the reports that follow, as far as they are events.
    spans: Sequence[SpanRecord] = ()
    traced: list[PreparedEvent] = field(default_factory=list)
    traced_errors: list[tuple[int, EventRejected]] = field(default_factory=list)
    # What was read and is no usage, such as a span of a database: not an error.
    passed_over: list[PassedOver] = field(default_factory=list)
    # Events by outcome. Those that conflict or have no price are among the accepted.
    counts: Counter[SourceOutcome] = field(default_factory=Counter)
    # Provider and name of models without a price, the first of them.
    unpriced_models: set[tuple[str, str]] = field(default_factory=set)
    # The outcomes of events that were not simply accepted, by `id(event)`: a body may hold the
    # events of several sources.
    outcomes: dict[int, SourceOutcome] = field(default_factory=dict)
    # What was committed in its place because it was too large for one transaction or failed.
    parts: list["IngestJob"] = field(default_factory=list)
    attempts: Attempts = field(default_factory=Attempts)

    @property
    def weight(self) -> int:
        """How much of a transaction it makes up, in events."""
        return len(self.events) + len(self.spans)

    @property
    def reports(self) -> Iterable[PreparedEvent]:
        """Its events, those of its spans included."""
        return (*self.events, *self.traced)

    def pieces(self, weight_max: int) -> list["IngestJob"]:
        """Cut the job into parts with no more events each."""
        self.forget_outcome()
        self.parts = [
            IngestJob(
                self.tenant_id,
                self.route,
                0,
                self.events[at : at + weight_max],
                self.configuration,
                spans=self.spans[at : at + weight_max],
                attempts=self.attempts,
            )
            for at in range(0, max(len(self.events), len(self.spans)), weight_max)
        ]
        return self.parts

    def without_what_failed(self) -> list["IngestJob"]:
        """Return two halves to commit instead after a transaction failed because of a value.

        A single event is refused, and so are all once too many transactions have failed.
        """
        self.forget_outcome()
        self.attempts.left -= 1
        if self.weight > 1 and self.attempts.left > 0:
            return self.pieces(-(-max(len(self.events), len(self.spans)) // 2))
        detail = NOT_STORABLE if self.weight == 1 else NOT_TRIED
        self.errors += [
            (
                event.index,
                EventRejected(
                    "invalid_value", detail, event_id=event.body.id, source=event.body.source
                ),
            )
            for event in self.events
        ]
        self.errors += [
            (0, EventRejected("invalid_value", detail, event_id="-".join(span.key)))
            for span in self.spans
        ]
        self.events, self.spans, self.traced, self.traced_errors = [], (), [], []
        return []

    def collect(self) -> None:
        """Count what became of its parts, once all are committed."""
        if not self.parts:
            return
        parts, self.parts = self.parts, []
        self.events, self.traced = [], []
        for part in parts:
            part.collect()
            self.events += part.events
            self.traced += part.traced
            self.counts += part.counts
            self.outcomes |= part.outcomes
            self.unpriced_models.update(sorted(part.unpriced_models)[: self._warnings_left()])
            self.errors += part.errors

    def judge(self, configuration: Configuration) -> None:
        """Judge the events by this configuration if they were judged by another one."""
        if self.configuration.version == configuration.version:
            return
        self.configuration = configuration
        for event in list(self.events):
            try:
                event.judge(configuration)
            except RejectEvent as error:
                rejection = error.rejection
                rejection.event_id, rejection.source = event.body.id, event.body.source
                self.errors.append((event.index, rejection))
                self.events.remove(event)

    def accept(self, event: PreparedEvent) -> None:
        """Count an event that was stored."""
        self.counts[SourceOutcome.ACCEPTED] += 1
        if event.cost_source is CostSource.UNPRICED:
            self.counts[SourceOutcome.UNPRICED] += 1
            is_priceable = event.body.model and event.completeness != MISSING
            if is_priceable and self._warnings_left():
                self.unpriced_models.add((event.values[PROVIDER], event.values[MODEL]))

    def _warnings_left(self) -> int:
        return max(0, WARNINGS_MAX - len(self.unpriced_models))

    def count(self, event: PreparedEvent, outcome: SourceOutcome) -> None:
        """Count an event that was not simply accepted. REJECTED: its id belongs to another one."""
        self.outcomes[id(event)] = outcome
        if outcome is SourceOutcome.REJECTED:
            self.errors.append((event.index, _id_conflict(event)))
            return
        self.counts[outcome] += 1
        if outcome is SourceOutcome.CONFLICT:
            self.accept(event)

    def forget_outcome(self) -> None:
        """Forget what a transaction that was rolled back found out, before another attempt."""
        self.counts.clear()
        self.outcomes.clear()
        self.unpriced_models.clear()
        self.errors = [item for item in self.errors if item[1].code != "id_conflict"]

    def keep_traced_errors(self) -> None:
        """Count the errors of spans like those of events, once the job is committed."""
        self.errors += self.traced_errors
        self.traced_errors = []

    def answer(self) -> IngestAnswer:
        """Return the counts and errors of the contract, and a warning for each misspelled model."""
        self.collect()
        self.errors.sort(key=itemgetter(0))
        warnings = [
            EventWarningAnswer("unpriced", model, f"{model!r} has no price.{near}")
            for provider, model in sorted(self.unpriced_models)
            if (near := near_model(provider, model))
        ]
        return IngestAnswer(
            accepted=self.counts[SourceOutcome.ACCEPTED],
            merged=self.counts[SourceOutcome.MERGED],
            duplicates=self.counts[SourceOutcome.DUPLICATE],
            rejected=len(self.errors),
            unpriced=self.counts[SourceOutcome.UNPRICED],
            errors=[EventErrorAnswer(**error.as_error(index)) for index, error in self.errors],
            warnings=warnings or UNSET,
        )


def _id_conflict(event: PreparedEvent) -> EventRejected:
    return EventRejected(
        "id_conflict",
        f"The id {event.body.id!r} of this source was used for an event with other content; what is"
        " stored stays. To change it, post a correction.",
        event_id=event.body.id,
        source=event.body.source,
    )


class BatchReports:
    """The reports of a transaction, and the jobs that brought them."""

    def __init__(self, jobs: Sequence[IngestJob]) -> None:
        self._job_of = {id(event): job for job in jobs for event in job.reports}
        first: dict[str, PreparedEvent] = {}
        # If one transaction holds an id twice the first counts, as if they had come one by one.
        self._repeats: list[tuple[PreparedEvent, PreparedEvent]] = []
        for job in jobs:
            for event in job.reports:
                earlier = first.setdefault(event.key, event)
                if earlier is not event:
                    self._repeats.append((event, earlier))
        self.unique = list(first.values())

    def count(self, event: PreparedEvent, outcome: SourceOutcome) -> None:
        """Count an event that was not simply accepted."""
        self._job_of[id(event)].count(event, outcome)

    def settle(self, fresh: Iterable[PreparedEvent], merged: MergeResult) -> None:
        """Count what was stored and merged, and judge repeats by the first of their kind."""
        for event in fresh:
            self._job_of[id(event)].accept(event)
        for event in self.unique if merged.outcomes else ():
            if (outcome := merged.outcomes.get(id(event))) is not None:
                self.count(event, outcome)
        for event, earlier in self._repeats:
            is_same = event.fingerprint == earlier.fingerprint
            self.count(event, SourceOutcome.DUPLICATE if is_same else SourceOutcome.REJECTED)
