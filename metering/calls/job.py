"""One body on its way into the service: what it holds, and what became of each part."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from common.errors import EventRejected, RejectEvent
from metering.calls.events import MISSING, PreparedEvent
from metering.core.match import PLACE
from metering.models import CostSource, Route, SourceOutcome
from metering.pricing.model_names import near_model
from metering.snapshot import Configuration
from metering.usage.decoders.native import PassedOver
from metering.usage.decoders.otlp import ToldSpan

# How many models of a body are looked up among those that have a price.
WARNINGS_MAX: Final = 20
PROVIDER: Final = PLACE["provider"]
MODEL: Final = PLACE["model"]
# How many transactions of one body may fail by a value before the rest is refused unseen.
FAILED_TURNS_MAX: Final = 200
NOT_STORABLE: Final = "The event holds a value that cannot be stored."
NOT_TRIED: Final = (
    "Too many events of this body hold values that cannot be stored; this one may be among them."
    " Send it again by itself."
)


@dataclass
class Tries:
    """How often a body may still fail by a value, over all its pieces."""

    left: int = FAILED_TURNS_MAX


@dataclass
class Job:
    """One body on its way: events that fit the contract, and what became of each."""

    tenant_id: int
    route: Route
    event_count: int
    events: list[PreparedEvent]
    # What the events were judged by; compared with what is in force by the transaction that writes.
    configuration: Configuration
    errors: list[tuple[int, EventRejected]] = field(default_factory=list)
    # Spans, whose calls are found among all that is known of their traces when they are written:
    # `traced` are the reports that follow, as far as they are events.
    spans: Sequence[ToldSpan] = ()
    traced: list[PreparedEvent] = field(default_factory=list)
    traced_errors: list[tuple[int, EventRejected]] = field(default_factory=list)
    # What was read and is no usage, such as a span of a database: not an error.
    passed_over: list[PassedOver] = field(default_factory=list)
    accepted: int = 0
    # Reports of calls that were known and that added something to them.
    merged: int = 0
    duplicates: int = 0
    unpriced: int = 0
    conflicts: int = 0
    # Provider and name of models without a price, the first of them.
    unpriced_models: set[tuple[str, str]] = field(default_factory=set)
    # What became of events that were not simply accepted, by `id(event)`: bodies may hold the
    # events of several sources.
    fates: dict[int, SourceOutcome] = field(default_factory=dict)
    # What was committed in its place, where it was too large for one transaction or failed.
    parts: list["Job"] = field(default_factory=list)
    tries: Tries = field(default_factory=Tries)

    @property
    def weight(self) -> int:
        """How much of a transaction it makes up, in events."""
        return len(self.events) + len(self.spans)

    def pieces(self, weight_max: int) -> list["Job"]:
        """The job as several, none of more events."""
        self.forget_outcome()
        self.parts = [
            Job(
                self.tenant_id,
                self.route,
                0,
                self.events[at : at + weight_max],
                self.configuration,
                spans=self.spans[at : at + weight_max],
                tries=self.tries,
            )
            for at in range(0, max(len(self.events), len(self.spans)), weight_max)
        ]
        return self.parts

    def without_what_failed(self) -> list["Job"]:
        """Two halves to commit instead, where one transaction failed by a value; of a single event
        none: it is refused. So are all of them once too many transactions have failed.
        """
        self.forget_outcome()
        self.tries.left -= 1
        if self.weight > 1 and self.tries.left > 0:
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
        """Once all its parts are committed: count what became of them."""
        if not self.parts:
            return
        parts, self.parts = self.parts, []
        self.events, self.traced = [], []
        for part in parts:
            part.collect()
            self.events += part.events
            self.traced += part.traced
            self.accepted += part.accepted
            self.merged += part.merged
            self.conflicts += part.conflicts
            self.duplicates += part.duplicates
            self.unpriced += part.unpriced
            self.fates |= part.fates
            self.errors += part.errors

    def judge(self, configuration: Configuration) -> None:
        """Judge the events by this configuration, where they were judged by another one."""
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
        self.accepted += 1
        if event.cost_source is CostSource.UNPRICED:
            self.unpriced += 1
            is_priceable = event.body.model and event.completeness != MISSING
            if is_priceable and len(self.unpriced_models) < WARNINGS_MAX:
                self.unpriced_models.add((event.values[PROVIDER], event.values[MODEL]))

    def forget_outcome(self) -> None:
        """Before another attempt: what a transaction that was rolled back had found out."""
        self.accepted = self.merged = self.duplicates = self.unpriced = self.conflicts = 0
        self.fates.clear()
        self.unpriced_models.clear()
        self.errors = [one for one in self.errors if one[1].code != "id_conflict"]

    def keep_traced_errors(self) -> None:
        """Once it is committed: what was found out about spans counts like what was read."""
        self.errors += self.traced_errors
        self.traced_errors = []

    def answer(self) -> dict[str, Any]:
        """The counts and errors, as the contract has them, and a warning of each misspelt model."""
        self.collect()
        self.errors.sort(key=lambda one: one[0])
        warnings = [
            {"code": "unpriced", "model": model, "detail": f"{model!r} has no price.{near}"}
            for provider, model in sorted(self.unpriced_models)
            if (near := near_model(provider, model))
        ]
        return {
            "accepted": self.accepted,
            "merged": self.merged,
            "duplicates": self.duplicates,
            "rejected": len(self.errors),
            "unpriced": self.unpriced,
            "errors": [error.as_error(index) for index, error in self.errors],
            **({"warnings": warnings} if warnings else {}),
        }
