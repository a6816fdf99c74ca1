"""Calls along the time in which they ran. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from dashboard.sessions.addresses import call_address
from metering.models import CostSource, Operation, Status
from metering.reporting.events import cost_of
from metering.reporting.session_steps import Step

PERCENT: Final = Decimal(100)
# What is shorter could not be seen.
WIDTH_MIN: Final = Decimal("0.5")
# From here on there is no room for an amount behind a bar, or for a time on the axis.
LABEL_UNTIL: Final = Decimal(85)
# The steps of an axis of time, in milliseconds, up to a day; what is longer is counted in days.
STEPS: Final = (
    *(step * 10**power for power in range(4) for step in (1, 2, 5)),
    *(seconds * 1000 for seconds in (10, 15, 30)),
    *(minutes * 60_000 for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3_600_000 for hours in (1, 2, 3, 6, 12, 24)),
)
TICKS_MAX: Final = 4


@dataclass(frozen=True)
class Span:
    """The stretch of time that a waterfall shows."""

    starts_at: datetime
    ends_at: datetime

    @classmethod
    def of(cls, steps: Sequence[Step]) -> "Span":
        return cls(steps[0].time, max(end_of(step) for step in steps))

    @property
    def length(self) -> timedelta:
        return self.ends_at - self.starts_at

    @property
    def ticks(self) -> list[timedelta]:
        """The times that the axis names: round, few, and none so close to the end that its words
        would leave the axis.
        """
        length = self.length // timedelta(milliseconds=1)
        days = -(-length // (TICKS_MAX * STEPS[-1])) * STEPS[-1]
        step = next((tick for tick in STEPS if length <= tick * TICKS_MAX), days)
        passed = (timedelta(milliseconds=step * at) for at in range(TICKS_MAX))
        return [tick for tick in passed if self.place(self.starts_at + tick) <= LABEL_UNTIL]

    def place(self, at: datetime) -> Decimal:
        """Where an instant is, in percent of the width."""
        microsecond = timedelta(microseconds=1)
        whole = max(self.length // microsecond, 1)
        return round(((at - self.starts_at) // microsecond) * PERCENT / whole, 2)


def end_of(step: Step) -> datetime:
    """When a call ended, as far as it is known."""
    return step.time + timedelta(milliseconds=step.latency_ms or 0)


@dataclass(frozen=True)
class Line:
    """A call in a waterfall. `number` counts from 1; `repeat` is 0 for what is no repeat."""

    step: Step
    number: int
    span: Span
    running_nanos: int
    subtree_nanos: int
    repeat: int

    @property
    def name(self) -> str:
        return self.step.tool or self.step.model or Operation(self.step.operation).label

    @property
    def is_tool(self) -> bool:
        return self.step.operation == Operation.TOOL

    @property
    def is_error(self) -> bool:
        return self.step.status == Status.ERROR

    @property
    def status_words(self) -> str:
        return Status(self.step.status).label

    @property
    def is_unpriced(self) -> bool:
        return self.step.cost_source == CostSource.UNPRICED

    @property
    def cost_nanos(self) -> int:
        return cost_of(self.step)

    @property
    def has_subtree(self) -> bool:
        return self.subtree_nanos != self.cost_nanos

    @property
    def address(self) -> str:
        return call_address(self.step.source, self.step.sent_id)

    @property
    def x(self) -> Decimal:
        return min(self.span.place(self.step.time), PERCENT - WIDTH_MIN)

    @property
    def width(self) -> Decimal:
        """How far the bar reaches; a tick where no latency was reported."""
        return max(self.span.place(end_of(self.step)) - self.x, WIDTH_MIN)

    @property
    def label_x(self) -> Decimal | None:
        """Where the amount stands behind the bar; None where it has no room."""
        end = self.x + self.width
        return end if end <= LABEL_UNTIL and self.cost_nanos else None

    @property
    def tone(self) -> str:
        if self.step.is_void:
            return "f0"
        if self.repeat or self.is_error:
            return "fcrit"
        return "f6" if self.is_tool else "f1"


def lines_of(
    steps: Sequence[Step], *, times: Mapping[int, int], subtree_nanos: Mapping[int, int]
) -> list[Line]:
    """Lines of all calls, in order of time."""
    span = Span.of(steps)
    lines = []
    running_nanos = 0
    for number, step in enumerate(steps, 1):
        running_nanos += cost_of(step)
        lines.append(
            Line(
                step,
                number,
                span,
                running_nanos,
                subtree_nanos.get(step.id, cost_of(step)),
                times.get(step.id, 0),
            )
        )
    return lines
