"""Which halts and rules concern the teams whose usage a person may see, and what of them they read.

A halt of an agent names no team. It concerns the teams that have used the agent lately: to others
its name would tell what another team runs.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from dashboard.budgets.visible import TEAM, is_visible
from metering.core.match import wanted_values
from metering.limits.halts import CODE_BY_KIND
from metering.limits.obstacles import Obstacle
from metering.models import Halt, HaltKind
from metering.reporting.search import find_used

# What was used this long before a halt may be what it stops.
LOOK_BACK: Final = timedelta(days=30)
# The newest halts in force that are held against a team's usage.
HALTS_MAX: Final = 1_000
# Dimensions whose values are the same for every team.
SHARED: Final = frozenset({"provider", "operation", "status"})
OF_OTHERS: Final = "Its rule counts more than your teams' calls."

Match = Mapping[str, Any]


class Concerned:
    """What some teams used lately, of the values that matches name. `teams` None: everything."""

    def __init__(
        self, teams: Collection[str] | None, used: Mapping[str, frozenset[str]] | None = None
    ) -> None:
        self.teams = teams
        self._used = used or {}

    def has(self, match: Match) -> bool:
        """Whether calls of the teams can match."""
        if self.teams is None or not match:
            return True
        if TEAM in match:
            return not wanted_values(match[TEAM]).isdisjoint(self.teams)
        return all(self._known(name, wanted) for name, wanted in match.items())

    def shown(self, match: Match) -> Match:
        """The match; one that names no team, without the values that the teams do not use."""
        if self.teams is None or TEAM in match:
            return match
        return {name: list(self._known(name, wanted)) for name, wanted in match.items()}

    def _known(self, name: str, wanted: object) -> frozenset[str]:
        """Those of the values that are no other team's business."""
        values = wanted_values(wanted)
        if name in SHARED:
            return values
        return values & (self._used.get(name, frozenset()) | {""})


def read_concerned(
    tenant_id: int,
    teams: Collection[str] | None,
    matches: Iterable[Match],
    *,
    since: datetime | None = None,
) -> Concerned:
    """What these teams used of the values that the matches name, from a month before `since` (now,
    if it is not given).
    """
    if teams is None:
        return Concerned(None)
    values: dict[str, set[str]] = {}
    for match in matches:
        for name, wanted in match.items():
            if name != TEAM and name not in SHARED:
                values.setdefault(name, set()).update(wanted_values(wanted))
    begin = (since or timezone.now()) - LOOK_BACK
    used = {
        name: find_used(
            tenant_id=tenant_id, dimension=name, values=wanted, teams=teams, since=begin
        )
        for name, wanted in values.items()
    }
    return Concerned(teams, used)


def of_halts(
    tenant_id: int, teams: Collection[str] | None, halts: Sequence[Halt], *, actor: str
) -> tuple[list[Halt], Concerned]:
    """Those of the halts that concern the teams or that `actor` made, and what the teams used."""
    since = min((row.since for row in halts), default=None)
    concerned = read_concerned(tenant_id, teams, [row.match for row in halts], since=since)
    return [row for row in halts if concerned.has(row.match) or is_by(row, actor)], concerned


def is_by(halt: Halt, actor: str) -> bool:
    """Whether this person halted it by hand."""
    return halt.kind == HaltKind.MANUAL and halt.actor == actor


def count_halts(tenant_id: int, teams: Collection[str] | None, *, actor: str) -> int:
    """How many halts in force concern the teams."""
    rows = Halt.objects.filter(tenant_id=tenant_id, lifted_at=None)
    if teams is None:
        return rows.count()
    newest = list(rows.order_by("-since", "-id")[:HALTS_MAX])
    return len(of_halts(tenant_id, teams, newest, actor=actor)[0])


def reason_words(
    match: Match, reason: str, teams: Collection[str] | None, *, is_manual: bool
) -> str:
    """Why calls are stopped, in words. What a rule writes names money, which members of other teams
    may not read.
    """
    return reason if is_manual or is_visible(match, (), teams) else OF_OTHERS


def told_of(obstacles: Iterable[Obstacle], teams: Collection[str] | None) -> tuple[Obstacle, ...]:
    """The obstacles, each with as much of its reason as members of these teams may read."""
    by_hand = CODE_BY_KIND[HaltKind.MANUAL]
    return tuple(
        obstacle._replace(
            detail=reason_words(
                obstacle.match, obstacle.detail, teams, is_manual=obstacle.code == by_hand
            )
        )
        for obstacle in obstacles
    )
