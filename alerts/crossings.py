"""Turn crossings into incidents: one for a budget's window while it is at a level, however many
levels it reaches.

Metering writes a crossing as a row in the transaction that caused it; claiming it, the incident and
its deliveries are one transaction, so a killed worker loses nothing. An open incident shows the
figures of now.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog
from django.db import connection, transaction
from django.db.models import F, Q
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
from alerts.incidents import Observation, end, observe, update_figures
from alerts.models import Incident, IncidentKind
from alerts.settings import settings_of
from common.formats import format_time
from metering.budgets.index import BudgetIndex
from metering.budgets.reading import read_budget_index
from metering.core.dimensions import REQUEST
from metering.limits.halts import match_of_group
from metering.models import Budget, BudgetWindow, Crossing, FellBy, Mode
from tenants.claims import ClaimSize
from tenants.runs import tenants_of
from tenants.scope import tenant_scope

log = structlog.get_logger(__name__)

# The number of crossings one transaction takes, and of incidents it checks for their end.
CLAIM_CROSSINGS: Final = ClaimSize(least=1, first=50, most=500)
CLAIM_INCIDENTS: Final = ClaimSize(least=1, first=100, most=1_000)
# One run checks this many incidents of a tenant.
CHECKED_MAX: Final = 2_000
# Windows that never end or age (a session's, a lifetime's) rest after this time without a level.
RESTS_AFTER: Final = timedelta(days=1)
# A crossing that fails is tried again after this, twice as long each time, up to the most.
RETRY_FIRST: Final = timedelta(seconds=4)
RETRY_MOST: Final = timedelta(hours=1)
UNRESOLVED: Final = Incident.objects.filter(kind=IncidentKind.CROSSING, resolved_at=None)
# Two workers that each had crossings of one window would both find no incident, and notify twice.
CROSSINGS_LOCK: Final = 7308
# An array, as PostgreSQL may ask a subquery after IN once a row, and then exceeds its limit.
CLAIM: Final = """
    UPDATE crossing SET claimed_at = now() WHERE id = ANY(ARRAY(
        SELECT id FROM crossing WHERE tenant_id = %s AND claimed_at IS NULL
            AND (retry_at IS NULL OR retry_at <= now())
        ORDER BY failures, id LIMIT %s FOR UPDATE SKIP LOCKED
    )) RETURNING id
"""


def tenants_with_crossings() -> list[int]:
    """Return tenants with unclaimed crossings that are due. Needs a platform scope."""
    is_due = Q(retry_at=None) | Q(retry_at__lte=timezone.now())
    return tenants_of(Crossing.objects.filter(is_due, claimed_at=None))


@transaction.atomic
def take_crossings(*, tenant_id: int) -> int:
    """Claim crossings and open, or update, the incidents of their windows.

    Return the number of crossings; zero if another worker takes those of this tenant. They are
    reported late rather than never: also when their period is over by then. They are not if a
    changed budget no longer counts in their window: the windows that count instead were judged by
    then. Those that fail are set aside for a while, and go after those that were not tried yet.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [CROSSINGS_LOCK, tenant_id])
        if not cursor.fetchone()[0]:
            return 0
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
    book, now = read_budget_index(tenant_id), timezone.now()
    taken = 0
    # In this order `end_crossings` takes them too: else two could wait for each other.
    for window_id, reached in sorted(by_window.items()):
        window = windows.get(window_id)
        is_old = window is None or window.revision != reached[0].budget.revision
        if is_old or window is None or _observe(window, reached, book, now):
            taken += len(reached)
    return taken


def _observe(
    window: BudgetWindow, reached: Sequence[Crossing], book: BudgetIndex, now: datetime
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
    """Let crossings that failed be tried again, later each time."""
    ids = [crossing.id for crossing in reached]
    failures = max(crossing.failures for crossing in reached) + 1
    retry_at = now + min(RETRY_MOST, RETRY_FIRST * 2 ** min(failures - 1, 20))
    log.exception(
        "crossings failed",
        tenant_id=tenant_id,
        crossings=ids,
        failures=failures,
        retry_at=retry_at.isoformat(),
    )
    Crossing.objects.filter(id__in=ids).update(
        claimed_at=None, failures=F("failures") + 1, retry_at=retry_at
    )


def _with_news(window: BudgetWindow, observation: Observation, now: datetime) -> Observation:
    """Decide whether people are notified of it.

    News are a level above those that were reported, and one that is reached again after a person or
    a correction had brought the window below it. What a rolling window loses and gains by itself is
    reported once within the tenant's cool-down. Of single calls, each of which has a window of its
    own, there may be thousands: for them, too, a level is reported once.
    """
    incidents = Incident.objects.filter(tenant_id=window.tenant_id, cause=observation.cause)
    last = incidents.order_by("-id").first()
    percent = observation.facts["level_percent"]
    if last is None:
        return observation._replace(facts={**observation.facts, "highest_level_percent": percent})
    reported_percent = last.facts.get("highest_level_percent", 0)
    is_same_window = last.facts["window_id"] == window.id
    is_later = is_same_window and observation.facts["episode"] > last.facts["episode"]
    is_by_itself = window.fell_by == FellBy.AGED
    is_again = is_later and (not is_by_itself or has_cooled(last, now))
    is_news = percent > reported_percent or is_again
    highest = percent if is_again else max(reported_percent, percent)
    observation = observation._replace(
        facts={**observation.facts, "highest_level_percent": highest},
        is_new_episode=percent > reported_percent or (is_later and not is_by_itself),
    )
    if is_news or last.resolved_at is not None:
        return observation
    return observation._replace(entry="", is_news=False)


def has_cooled(incident: Incident, now: datetime) -> bool:
    """Whether people were notified so long ago that they may be notified of the same again."""
    cool_down = timedelta(seconds=settings_of(incident.tenant_id).cool_down_seconds)
    return now - (incident.notified_at or incident.seen_at) >= cool_down


def tenants_with_incidents() -> list[int]:
    """Return tenants with an unresolved incident of a crossing. Needs a platform scope."""
    return tenants_of(UNRESOLVED)


def end_crossings(*, tenant_id: int, now: datetime) -> int:
    """Resolve the incidents of windows that are below all levels or over, and update the figures of
    the others. Return the number of resolved incidents.

    Of very many a random sample is checked: so each has its turn soon, and no run takes long.
    """
    with tenant_scope(tenant_id):
        ids = list(UNRESOLVED.filter(tenant_id=tenant_id).values_list("id", flat=True))
    chosen = random.sample(ids, min(len(ids), CHECKED_MAX))
    ended = 0
    while chosen:
        size = CLAIM_INCIDENTS.of(tenant_id)
        some, chosen = chosen[:size], chosen[size:]
        with CLAIM_INCIDENTS.measured(tenant_id, count=len(some)), tenant_scope(tenant_id):
            ended += _end_some(tenant_id, some, now)
    return ended


def _end_some(tenant_id: int, ids: Sequence[int], now: datetime) -> int:
    unresolved = list(UNRESOLVED.filter(tenant_id=tenant_id, id__in=ids))
    state = _State(
        now,
        read_budget_index(tenant_id),
        _windows(tenant_id, [incident.facts["window_id"] for incident in unresolved]),
        Budget.objects.in_bulk({incident.facts["budget_id"] for incident in unresolved}),
    )
    ordered = sorted(unresolved, key=lambda incident: incident.facts["window_id"])
    return sum(state.check(incident) for incident in ordered)


class _State(NamedTuple):
    """What incidents of crossings are compared with."""

    now: datetime
    book: BudgetIndex
    windows: Mapping[int, BudgetWindow]
    budgets: Mapping[int, Budget]

    def check(self, incident: Incident) -> bool:
        """End an incident, or update it; return whether it was ended. An error stops no other."""
        try:
            with transaction.atomic():
                reason = self._end_or_update(incident)
                if reason:
                    end(tenant_id=incident.tenant_id, cause=incident.cause, summary=reason)
                return bool(reason)
        except Exception:
            log.exception(
                "incident not checked", tenant_id=incident.tenant_id, incident_id=incident.id
            )
            return False

    def _end_or_update(self, incident: Incident) -> str:
        """Return why an incident is over; update it, and return nothing, while it is not."""
        window = self.windows.get(incident.facts["window_id"])
        budget = self.budgets.get(incident.facts["budget_id"])
        if budget is None or budget.archived_at is not None:
            return "The budget was archived."
        rule = self.book.rules.get(budget.id)
        if window is None or rule is None or window.revision != budget.revision:
            return "The budget was changed, and counts in new windows."
        figures = figures_of(rule, window, self.now)
        if reason := self._reason_to_end(incident, window, budget):
            return f"{reason} {figures.label}."
        self._update(incident, window, budget, figures)
        return ""

    def _reason_to_end(self, incident: Incident, window: BudgetWindow, budget: Budget) -> str:
        """Return why a crossing is no one's concern any more; nothing while it is."""
        if window.ends_at is not None and window.ends_at <= self.now:
            return f"The period ended {format_time(window.ends_at)}."
        if window.level_percent == 0:
            return FALLS.get(window.fell_by, "")
        has_rested = self.now - incident.seen_at > RESTS_AFTER
        if window.ends_at is None and not budget.is_rolling and has_rested:
            return "No further level was reached for a day."
        return ""

    def _update(
        self, incident: Incident, window: BudgetWindow, budget: Budget, figures: Figures
    ) -> None:
        facts, rule = incident.facts, self.book.rules[budget.id]
        percent = min(window.level_percent, facts["level_percent"])
        if window.fell_by == FellBy.AGED and not has_cooled(incident, self.now):
            # A rolling window that hovers at a level: what was reported stands for a while.
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
            observation = _observation(reached, self.now, changed)._replace(
                cause=incident.cause,
                match=incident.match,
                entry=f"{FALLS.get(window.fell_by, '')} {figures.label}." if has_fallen else "",
            )
            update_figures(incident=incident, observation=observation)


def observation_of(
    window: BudgetWindow, crossings: Sequence[Crossing], book: BudgetIndex, now: datetime
) -> Observation:
    """Return what is observed of one window's crossings: the highest level, with the figures of
    now.
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
    crossing_ids = [crossing.id for crossing in crossings]
    evidence = facts_of_level(reached, top.episode) | {"crossing_ids": crossing_ids}
    observation = _observation(reached, now, evidence)
    return observation._replace(
        cause=_cause(budget, group, window, top),
        match=budget.match if is_shadow else match_of_group(budget.match, budget.per, group),
        contacts=tuple(dict.fromkeys(name for crossing in crossings for name in crossing.notify)),
        entry="" if is_shadow else observation.summary,
        is_news=not is_shadow,
    )


def _observation(reached: Reached, now: datetime, facts: Mapping[str, object]) -> Observation:
    """Return what is observed of a level, but for the cause and its match."""
    return Observation(
        kind=IncidentKind.CROSSING,
        cause="",
        severity=severity_of(reached),
        title=title_of(reached),
        summary=summary_of(reached, now),
        match={},
        facts=facts,
        excess_nanos=reached.figures.excess_nanos,
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


def _windows(tenant_id: int, ids: Iterable[int]) -> dict[int, BudgetWindow]:
    windows = BudgetWindow.objects.filter(tenant_id=tenant_id, id__in=list(ids))
    return {window.id: window for window in windows}
