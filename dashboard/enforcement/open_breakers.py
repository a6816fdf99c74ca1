"""Open breakers, as the pages of halts and of rules show them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from dashboard.enforcement.concerned import read_concerned, reason_words
from dashboard.enforcement.matches import calls_of, pairs_of
from metering.limits.breakers import BreakerRule
from metering.limits.breakers.rules import cool_down
from metering.limits.breakers.states import OpenGroup, match_of, open_groups
from metering.models import Breaker, BreakerClose


@dataclass(frozen=True)
class OpenBreaker:
    """A group for which a breaker is open, as the page shows it."""

    breaker: Breaker
    group: OpenGroup
    # Whom the page is for.
    teams: tuple[str, ...] | None = None

    @property
    def rule(self) -> BreakerRule:
        return BreakerRule.of(self.breaker)

    @property
    def match(self) -> Mapping[str, Any]:
        return match_of(self.rule.grouping, self.group.group_key)

    @property
    def pairs(self) -> list[tuple[str, list[str]]]:
        return pairs_of(self.match)

    @property
    def calls(self) -> str:
        return calls_of(self.match)

    @property
    def why(self) -> str:
        """Why it opened, in words."""
        return reason_words(self.match, self.group.why, self.teams, is_manual=False)

    @property
    def closes_from(self) -> datetime | None:
        """From when it lets a probe through, or closes with the next one."""
        if not self.rule.cools_down and self.breaker.close != BreakerClose.PROBE:
            return None
        return self.group.opened_at + cool_down(self.breaker.cool_down_seconds)


def read_open_breakers(
    tenant_id: int,
    breakers: Mapping[int, Breaker],
    now: datetime,
    teams: tuple[str, ...] | None,
) -> list[OpenBreaker]:
    """The groups for which these breakers are open, of those that concern the teams."""
    with connection.cursor() as cursor:
        opened = open_groups(cursor, tenant_id, breakers, now=now)
    lines = [
        OpenBreaker(breakers[breaker_id], group, teams)
        for breaker_id, groups in opened.items()
        for group in groups
    ]
    concerned = read_concerned(tenant_id, teams, [line.match for line in lines], since=now)
    return [line for line in lines if concerned.has(line.match)]
