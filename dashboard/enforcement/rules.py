"""Breakers and rate limits: what they do, where they are open, how full they are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.access import PageRequest, cached_page
from dashboard.amounts import listed
from dashboard.budgets.history import group_words
from dashboard.budgets.visible import is_visible, teams_of
from dashboard.budgets.words import match_words
from dashboard.enforcement.concerned import read_concerned
from dashboard.enforcement.open_breakers import OpenBreaker, read_open_breakers
from dashboard.frame import filter_bar_of, frame
from metering.fields.limit_words import effect_of, rates_of, triggers_of
from metering.limits.rate_limits import RateRule
from metering.models import Breaker, RateLimit
from metering.reporting.rate_fill import RateFill, read_rate_fills

SHOWN_MAX: Final = 500

Rule = TypeVar("Rule", Breaker, RateLimit)


@dataclass(frozen=True)
class BreakerLine:
    """A breaker as the page shows it."""

    row: Breaker
    opened: Sequence[OpenBreaker]

    @property
    def trigger(self) -> str:
        """What opens it."""
        return listed(triggers_of(self.row), "or")

    @property
    def effect(self) -> str:
        """What happens then."""
        return effect_of(self.row)

    @property
    def scope(self) -> str:
        return scope_of(self.row.match, self.row.per)


@dataclass(frozen=True)
class RateLine:
    """A rate limit as the page shows it."""

    row: RateLimit
    fill: RateFill | None
    # Whether what others asked for is in its counts, which the person may not see.
    is_shared: bool = False

    @property
    def rates(self) -> str:
        """What may be asked for within any minute."""
        return listed(rates_of(self.row))

    @property
    def scope(self) -> str:
        return scope_of(self.row.match, self.row.per)

    @property
    def fullest(self) -> str:
        """Who has used most of the minute."""
        return group_words(self.row.per, self.fill.group_key) if self.fill else ""

    @property
    def width(self) -> int:
        """How much of its bar is filled."""
        return min(100, int(self.fill.percent)) if self.fill else 0


def scope_of(match: Mapping[str, object], per: Sequence[str]) -> str:
    """Which calls a rule watches, and what it tells apart."""
    each = f"each {listed([*per])}" if per else "all together"
    counted = match_words(match)
    return f"{each} of {counted}" if counted else each


@require_safe
@cached_page
def page(request: PageRequest) -> HttpResponse:
    """Every breaker, where it is open, and every rate limit with its fullest group."""
    bar, teams = filter_bar_of(request), teams_of(request)
    tenant_id = request.tenant.id
    breakers = Breaker.objects.filter(tenant_id=tenant_id).order_by("name", "id")[:SHOWN_MAX]
    by_id = {row.id: row for row in _concerning(tenant_id, teams, breakers)}
    opened = read_open_breakers(tenant_id, by_id, bar.now, teams)
    stored = RateLimit.objects.filter(tenant_id=tenant_id).order_by("name", "id")[:SHOWN_MAX]
    limits = _concerning(tenant_id, teams, stored)
    fills = read_rate_fills(
        tenant_id,
        map(RateRule.of, limits),
        now=bar.now,
        may_see=lambda match: is_visible(match, (), teams),
    )
    lines = [
        BreakerLine(row, [group for group in opened if group.breaker.id == row.id])
        for row in by_id.values()
    ]
    lines.sort(key=lambda line: not line.opened)
    context = frame(request, bar, page="breakers") | {
        "headline": headline_of(breakers=len(lines), opened=len(opened), limits=len(limits)),
        "breakers": lines,
        "opened": opened,
        "limits": [
            RateLine(row, fills.get(row.id), not is_visible(row.match, row.per, teams))
            for row in limits
        ],
    }
    return render(request, "dashboard/enforcement/rules.html", context)


def _concerning(tenant_id: int, teams: tuple[str, ...] | None, rows: Iterable[Rule]) -> list[Rule]:
    """The rules that may act on calls of the teams."""
    rules = list(rows)
    concerned = read_concerned(tenant_id, teams, [row.match for row in rules])
    return [row for row in rules if concerned.has(row.match)]


def headline_of(*, breakers: int, opened: int, limits: int) -> str:
    """Whether anything is stopped or slowed. Pure."""
    if opened:
        verb = "group is" if opened == 1 else "groups are"
        return f"{opened:,} {verb} stopped or slowed by an open breaker"
    if breakers:
        return f"{breakers:,} breaker{'' if breakers == 1 else 's'}, none open"
    return f"{limits:,} rate limit{'' if limits == 1 else 's'}" if limits else "No breakers yet"
