"""What moved the total: its change by volume, mix and price, and the groups that made it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from metering.reporting.change import Change, GroupChange

GROUPS_SHOWN: Final = 5


class Part(NamedTuple):
    """One of the three parts of a change, with what it means."""

    words: str
    nanos: int
    meaning: str


@dataclass(frozen=True)
class Moved:
    """A change of spending. What is shown adds up: parts to the change, groups and others too."""

    change: Change
    groups: Sequence[GroupChange]
    others: int
    others_nanos: int

    @property
    def change_nanos(self) -> int:
        return self.change.after_nanos - self.change.before_nanos

    @property
    def parts(self) -> list[Part]:
        """The largest first."""
        parts = [
            Part("Volume", self.change.volume_nanos, "the number of requests"),
            Part("Mix", self.change.mix_nanos, "which of them are made"),
            Part("Price", self.change.price_nanos, "what each of them costs"),
        ]
        return sorted(parts, key=lambda part: -abs(part.nanos))

    @property
    def bars(self) -> list[tuple[GroupChange, int]]:
        """The groups, each with how long its bar is."""
        return [(group, abs(group.change_nanos)) for group in self.groups]

    @property
    def largest_nanos(self) -> int:
        """What the longest bar stands for."""
        shown = [abs(group.change_nanos) for group in self.groups]
        return max([*shown, abs(self.others_nanos)], default=0)


def moved_by(change: Change | None) -> Moved | None:
    """What to show of a change; None where there was nothing before, or nothing changed. Pure."""
    if change is None or not change.before_nanos:
        return None
    shown = [group for group in change.groups[:GROUPS_SHOWN] if group.change_nanos]
    if not shown:
        return None
    further = change.groups[len(shown) :]
    return Moved(
        change=change,
        groups=shown,
        others=sum(group.change_nanos != 0 for group in further),
        others_nanos=sum(group.change_nanos for group in further),
    )
