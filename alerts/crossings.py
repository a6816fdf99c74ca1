"""Crossings become incidents: one for a budget's window while it is at a level, however many levels
it reaches.

Metering leaves a crossing as a row in the transaction that caused it; claiming it, the incident
and what is to be told of it are one transaction, so a killed worker loses nothing. The figures of
an incident are those of the moment, as long as it is open.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from alerts.crossing_texts import (
    FALLS,
    Figures,
    Reached,
    facts_of_level,
    figures_of,
    severity_of,
    summary_of,
    title_of,
)
from alerts.incidents import Observation, bring_up_to_date, end, observe
from alerts.models import Incident, IncidentKind
from alerts.settings import settings_of
from metering.budgets.index import BudgetBook
from metering.budgets.reading import read_book
from metering.core.dimensions import REQUEST
from metering.limits.halts import match_of_group
from metering.models import Budget, BudgetWindow, Crossing, FellBy, Mode
from tenants.claims import ClaimSize
from tenants.scope import tenant_scope

log = structlog.get_logger(__name__)

# How many crossings one transaction tells, and of how many incidents it sees whether they are over.
CLAIM_CROSSINGS: Final = ClaimSize(least=1, first=50, most=500)
CLAIM_INCIDENTS: Final = ClaimSize(least=1, first=100, most=1_000)
# So many incidents of a tenant are looked at in one run.
LOOKED_AT_MAX: Final = 2_000
# Windows that never end or age (a session's, a lifetime's) rest when no level was reached so long.
RESTS_AFTER: Final = timedelta(days=1)
# What cannot be told is tried again after this, twice as long each time, up to the most.
RETRY_FIRST: Final = timedelta(seconds=4)
RETRY_MOST: Final = timedelta(hours=1)
CLAIM: Final = """
    UPDATE crossing SET claimed_at = now() WHERE id IN (
        SELECT id FROM crossing WHERE tenant_id = %s AND claimed_at IS NULL
            AND (retry_at IS NULL OR retry_at <= now())
        ORDER BY failures, id LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING id
"""


def tenants_with_crossings() -> list[int]:
    """Tenants with crossings that nobody has claimed and that are due. Needs a platform scope."""
    is_due = Q(retry_at=None) | Q(retry_at__lte=timezone.now())
    unclaimed = Crossing.objects.filter(is_due, claimed_at=None)
    return sorted(unclaimed.values_list("tenant_id", flat=True).distinct())


@transaction.atomic
def take_crossings(*, tenant_id: int) -> int:
    """Claim crossings and open, or bring up to date, the incidents of their windows.

    Return how many were taken. A crossing is told late rather than never: also when its period is
    over by then. It is not told where a changed budget no longer counts in its window: the windows
    that count instead were judged by then. One that something stumbles over is set aside for a
    while, and goes after those that were not tried yet.
    """
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, [tenant_id, CLAIM_CROSSINGS.of(tenant_id)])
        ids = [row[0] for row in cursor.fetchall()]
    if not ids:
        return 0
    with CLAIM_CROSSINGS.measured(tenant_id, count=len(ids)):
        return _take(tenant_id, ids)


def _take(tenant_id: int, ids: Sequence[int]) -> int:
    by_window: dict[int, list[Crossing]] = {}
    for crossing in Crossing.objects.filter(id__in=ids).select_related("budget").order_by("id"):
        by_window.setdefault(crossing.window_id, []).append(crossing)
    windows = _windows(tenant_id, by_window)
    book, now = read_book(tenant_id), timezone.now()
    taken = 0
    # In this order `end_crossings` takes them too: else two could wait for each other.
    for window_id, reached in sorted(by_window.items()):
        window = windows.get(window_id)
        is_old = window is None or window.revision != reached[0].budget.revision
        if is_old or window is None or _tell(window, reached, book, now):
            taken += len(reached)
    return taken


def _tell(
    window: BudgetWindow, reached: Sequence[Crossing], book: BudgetBook, now: datetime
) -> bool:
    """Observe the crossings of one window. False: it failed, and they are set aside."""
    try:
        with transaction.atomic():
            observation = observation_of(window, reached, book, now)
            observation = _with_news(window, observation, now)
            observe(tenant_id=window.tenant_id, observation=observation)
    except Exception:
        _set_aside(window.tenant_id, reached, now)
        return False
    return True


def _set_aside(tenant_id: int, reached: Sequence[Crossing], now: datetime) -> None:
    """Let crossings that cannot be told be tried again, later each time."""
    ids = [crossing.id for crossing in reached]
    failures = max(crossing.failures for crossing in reached) + 1
    retry_at = now + min(RETRY_MOST, RETRY_FIRST * 2 ** min(failures - 1, 20))
    log.exception(
        "crossings not told",
        tenant_id=tenant_id,
        crossings=ids,
        failures=failures,
        retry_at=retry_at.isoformat(),
    )
    Crossing.objects.filter(id__in=ids).update(
        claimed_at=None, failures=F("failures") + 1, retry_at=retry_at
    )


def _with_news(window: BudgetWindow, observation: Observation, now: datetime) -> Observation:
    """Whether people are to hear of it.

    News are a level above those that were told, and one that is reached again after a person or a
    correction had brought the window below it. What a rolling window loses and gains by itself is
    told once within the tenant's cool-down. Of single calls, each of which has a window of its own,
    there may be thousands: for them, too, a level is told once.
    """
    incidents = Incident.objects.filter(tenant_id=window.tenant_id, cause=observation.cause)
    last = incidents.order_by("-id").first()
    percent = observation.facts["level_percent"]
    if last is None:
        return observation._replace(facts={**observation.facts, "highest_level_percent": percent})
    told_percent = last.facts.get("highest_level_percent", 0)
    is_same_window = last.facts["window_id"] == window.id
    is_later = is_same_window and observation.facts["episode"] > last.facts["episode"]
    is_by_itself = window.fell_by == FellBy.AGED
    is_again = is_later and (not is_by_itself or has_cooled(last, now))
    is_news = percent > told_percent or is_again
    highest = percent if is_again else max(told_percent, percent)
    observation = observation._replace(
        facts={**observation.facts, "highest_level_percent": highest},
        starts_anew=percent > told_percent or (is_later and not is_by_itself),
    )
    if is_news or last.resolved_at is not None:
        return observation
    return observation._replace(entry="", is_news=False)


def has_cooled(incident: Incident, now: datetime) -> bool:
    """Whether people were last told so long ago that they may be told the same again."""
    cool_down = timedelta(seconds=settings_of(incident.tenant_id).cool_down_seconds)
    return now - (incident.notified_at or incident.seen_at) >= cool_down


def tenants_with_incidents() -> list[int]:
    """Tenants with an unresolved incident of a crossing. Needs a platform scope."""
    unresolved = Incident.objects.filter(kind=IncidentKind.CROSSING, resolved_at=None)
    return sorted(unresolved.values_list("tenant_id", flat=True).distinct())


def end_crossings(*, tenant_id: int, now: datetime) -> int:
    """Resolve the incidents of windows that are below all levels or over, and bring the figures of
    the others up to date. Return how many were resolved.

    Of very many some are looked at, by chance: so each has its turn soon, and no run takes long.
    """
    with tenant_scope(tenant_id):
        ids = list(_unresolved(tenant_id).values_list("id", flat=True))
    chosen = random.sample(ids, min(len(ids), LOOKED_AT_MAX))
    ended = 0
    while chosen:
        size = CLAIM_INCIDENTS.of(tenant_id)
        some, chosen = chosen[:size], chosen[size:]
        with CLAIM_INCIDENTS.measured(tenant_id, count=len(some)), tenant_scope(tenant_id):
            ended += _end_some(tenant_id, some, now)
    return ended


def _unresolved(tenant_id: int) -> QuerySet[Incident]:
    return Incident.objects.filter(
        tenant_id=tenant_id, kind=IncidentKind.CROSSING, resolved_at=None
    )


def _end_some(tenant_id: int, ids: Sequence[int], now: datetime) -> int:
    unresolved = list(_unresolved(tenant_id).filter(id__in=ids))
    sight = _Sight(
        now,
        read_book(tenant_id),
        _windows(tenant_id, [incident.facts["window_id"] for incident in unresolved]),
        Budget.objects.in_bulk({incident.facts["budget_id"] for incident in unresolved}),
    )
    ordered = sorted(unresolved, key=lambda incident: incident.facts["window_id"])
    return sum(_attempted(sight.settle, incident) for incident in ordered)


def _attempted(settle: Callable[[Incident], bool], incident: Incident) -> bool:
    """Settle one incident; its error stops no other."""
    try:
        with transaction.atomic():
            return settle(incident)
    except Exception:
        log.exception("incident not settled", tenant_id=incident.tenant_id, incident_id=incident.id)
        return False


class _Sight(NamedTuple):
    """What incidents of crossings are held against."""

    now: datetime
    book: BudgetBook
    windows: Mapping[int, BudgetWindow]
    budgets: Mapping[int, Budget]

    def settle(self, incident: Incident) -> bool:
        """End an incident, or bring it up to date; whether it was ended."""
        window = self.windows.get(incident.facts["window_id"])
        budget = self.budgets.get(incident.facts["budget_id"])
        if budget is None or budget.archived_at is not None:
            return _end(incident, "The budget was archived.")
        rule = self.book.rules.get(budget.id)
        if window is None or rule is None or window.revision != budget.revision:
            return _end(incident, "The budget was changed, and counts in new windows.")
        figures = figures_of(rule, window, self.now)
        if reason := self._reason_to_end(incident, window, budget):
            return _end(incident, f"{reason} {figures.words}.")
        self._bring_up_to_date(incident, window, budget, figures)
        return False

    def _reason_to_end(self, incident: Incident, window: BudgetWindow, budget: Budget) -> str:
        """Why a crossing is nobody's concern any more; empty while it is."""
        if window.ends_at is not None and window.ends_at <= self.now:
            return f"The period ended {window.ends_at:%Y-%m-%d %H:%M} UTC."
        if window.level_percent == 0:
            return FALLS.get(window.fell_by, "")
        has_rested = self.now - incident.seen_at > RESTS_AFTER
        if window.ends_at is None and not budget.is_rolling and has_rested:
            return "No further level was reached for a day."
        return ""

    def _bring_up_to_date(
        self, incident: Incident, window: BudgetWindow, budget: Budget, figures: Figures
    ) -> None:
        facts, rule = incident.facts, self.book.rules[budget.id]
        percent = min(window.level_percent, facts["level_percent"])
        if window.fell_by == FellBy.AGED and not has_cooled(incident, self.now):
            # A rolling window that hovers at a level: what was told stands for a while.
            percent = facts["level_percent"]
        actions = {level.percent: level.action for level in rule.levels}
        has_fallen = percent < facts["level_percent"]
        reached = Reached(
            budget=budget,
            window=window,
            percent=percent,
            action=actions.get(percent, facts["action"]),
            mode=rule.mode,
            figures=figures,
        )
        changed = facts | facts_of_level(reached, facts["episode"])
        severity = severity_of(reached)
        if changed != facts or severity != incident.severity:
            observation = Observation(
                kind=IncidentKind.CROSSING,
                cause=incident.cause,
                severity=severity,
                title=title_of(reached),
                summary=summary_of(reached, self.now),
                match=incident.match,
                facts=changed,
                excess_nanos=figures.excess_nanos,
                entry=f"{FALLS.get(window.fell_by, '')} {figures.words}." if has_fallen else "",
            )
            bring_up_to_date(incident=incident, observation=observation)


def _end(incident: Incident, reason: str) -> bool:
    end(tenant_id=incident.tenant_id, cause=incident.cause, summary=reason)
    return True


def observation_of(
    window: BudgetWindow, crossings: Sequence[Crossing], book: BudgetBook, now: datetime
) -> Observation:
    """What these crossings of one window say; the highest level speaks for all, and its figures are
    those of now.
    """
    top = max(crossings, key=lambda crossing: (crossing.episode, crossing.percent))
    budget = top.budget
    rule = book.rules.get(budget.id)
    figures = (
        figures_of(rule, window, now)
        if rule is not None
        else Figures(float(top.used_percent), top.spent_nanos, top.limit_nanos, "as of its end")
    )
    reached = Reached(budget, window, top.percent, top.action, top.mode, figures)
    group: list[str] = json.loads(top.group_key)
    is_shadow = top.mode == Mode.SHADOW
    summary = summary_of(reached, now)
    return Observation(
        kind=IncidentKind.CROSSING,
        cause=_cause(budget, group, window, top),
        severity=severity_of(reached),
        title=title_of(reached),
        summary=summary,
        match=budget.match if is_shadow else match_of_group(budget.match, budget.per, group),
        facts=facts_of_level(reached, top.episode)
        | {"crossing_ids": [crossing.id for crossing in crossings]},
        excess_nanos=figures.excess_nanos,
        contacts=tuple(dict.fromkeys(name for crossing in crossings for name in crossing.notify)),
        entry="" if is_shadow else summary,
        is_news=not is_shadow,
    )


def _cause(budget: Budget, group: Sequence[str], window: BudgetWindow, top: Crossing) -> str:
    """A window; for single calls, each with a window, the rest of the group; all windows of a
    budget in shadow mode, of which one incident says enough.
    """
    if top.mode == Mode.SHADOW:
        return f"budget:{budget.id}:shadow"
    if REQUEST in budget.per:
        named = [value for name, value in zip(budget.per, group, strict=True) if name != REQUEST]
        return f"budget:{budget.id}:{json.dumps(named)}"[:700]
    return f"budget:{budget.id}:{window.id}"


def _windows(tenant_id: int, ids: Iterable[Any]) -> dict[int, BudgetWindow]:
    found = BudgetWindow.objects.filter(tenant_id=tenant_id, id__in=list(ids))
    return {window.id: window for window in found}
