"""Crossings become incidents: one for a budget's window, however many levels it reaches.

Metering leaves a crossing as a row in the transaction that caused it; claiming it, the incident
and what is to be told of it are one transaction, so a killed worker loses nothing.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from django.db import connection, transaction
from django.utils import timezone

from alerts.incidents import Observation, end, observe
from alerts.models import Incident, IncidentKind, Severity
from metering.dimensions import REQUEST
from metering.enforcement.halts import match_of_group
from metering.models import Action, Budget, BudgetWindow, Crossing, Mode
from metering.money import money

log = structlog.get_logger(__name__)

CLAIMED_MAX: Final = 500
# So many incidents of a tenant are looked at in one run, whether they are over.
LOOKED_AT_MAX: Final = 2_000
# Windows without an end (a session's, a lifetime's) are over when nothing was reached for so long.
RESTS_AFTER: Final = timedelta(days=1)
STOPPING: Final = frozenset({Action.HOLD, Action.BLOCK, Action.LOCKOUT})
CONSEQUENCES: Final[Mapping[str, str]] = {
    Action.NONE: "Calls go on.",
    Action.THROTTLE: "New calls are slowed down.",
    Action.DOWNGRADE: "New calls get a cheaper model.",
    Action.HOLD: "New calls wait until a person allows more.",
    Action.BLOCK: "New calls are refused.",
    Action.LOCKOUT: "New calls are refused until somebody lifts the halt.",
}
MODE_WORDS: Final[Mapping[str, str]] = {
    Mode.SHADOW: "The budget is in shadow mode: nothing was stopped.",
    Mode.WARN: "The budget only warns: nothing was stopped.",
}
CLAIM: Final = """
    UPDATE crossing SET claimed_at = now() WHERE id IN (
        SELECT id FROM crossing WHERE tenant_id = %s AND claimed_at IS NULL
        ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING id
"""


def tenants_with_crossings() -> list[int]:
    """Tenants with crossings that nobody has claimed. Needs a platform scope."""
    unclaimed = Crossing.objects.filter(claimed_at=None)
    return sorted(unclaimed.values_list("tenant_id", flat=True).distinct())


@transaction.atomic
def take_crossings(*, tenant_id: int) -> int:
    """Claim crossings and open, or bring up to date, the incidents of their windows.

    Answers how many were taken. Of windows that are over nobody needs to hear: old usage that is
    sent later reaches levels too. Nor of those that a changed budget no longer counts in. A
    crossing that something stumbles over is left for another time, and stops no other.
    """
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, [tenant_id, CLAIMED_MAX])
        ids = [row[0] for row in cursor.fetchall()]
    crossings = Crossing.objects.filter(id__in=ids).select_related("budget").order_by("id")
    by_window: dict[tuple[int, int], list[Crossing]] = {}
    for crossing in crossings:
        by_window.setdefault((crossing.window_id, crossing.episode), []).append(crossing)
    windows = _windows(tenant_id, [window_id for window_id, _ in by_window])
    now = timezone.now()
    taken = 0
    # In this order `end_crossings` takes them too: else two could wait for each other.
    for (window_id, _), reached in sorted(by_window.items()):
        window = windows.get(window_id)
        if window is None or not _counts(window, reached[0].budget, now) or _tell(window, reached):
            taken += len(reached)
    return taken


def _counts(window: BudgetWindow, budget: Budget, now: datetime) -> bool:
    """Whether the budget, as it is now, counts in this window."""
    return window.revision == budget.revision and (window.ends_at is None or window.ends_at > now)


def _tell(window: BudgetWindow, reached: Sequence[Crossing]) -> bool:
    """Observe the crossings of one window. False: it failed, and they are free again."""
    try:
        with transaction.atomic():
            observation = _unless_repeated(window.tenant_id, observation_of(window, reached))
            observe(tenant_id=window.tenant_id, observation=observation)
    except Exception:
        ids = [one.id for one in reached]
        log.exception("crossings not told", tenant_id=window.tenant_id, crossings=ids)
        Crossing.objects.filter(id__in=ids).update(claimed_at=None)
        return False
    return True


def _unless_repeated(tenant_id: int, observation: Observation) -> Observation:
    """News only where no crossing of the incident reached as high a level before: each of single
    calls has a window of its own, and there may be thousands of them.
    """
    unresolved = Incident.objects.filter(
        tenant_id=tenant_id, cause=observation.cause, resolved_at=None
    )
    before = unresolved.values_list("facts__highest_level_percent", flat=True).first()
    percent = observation.facts["level_percent"]
    highest = max(before or 0, percent)
    told = observation._replace(facts={**observation.facts, "highest_level_percent": highest})
    if before is None or percent > before:
        return told
    return told._replace(entry="", is_news=False)


def tenants_with_incidents() -> list[int]:
    """Tenants with an unresolved incident of a crossing. Needs a platform scope."""
    unresolved = Incident.objects.filter(kind=IncidentKind.CROSSING, resolved_at=None)
    return sorted(unresolved.values_list("tenant_id", flat=True).distinct())


@transaction.atomic
def end_crossings(*, tenant_id: int, now: datetime) -> int:
    """Resolve the incidents of windows that are over. Answers how many.

    Of very many some are looked at, by chance: so each has its turn soon, and no run takes long.
    """
    of_crossings = Incident.objects.filter(tenant_id=tenant_id, kind=IncidentKind.CROSSING)
    ids = list(of_crossings.filter(resolved_at=None).values_list("id", flat=True))
    if not ids:
        return 0
    chosen = random.sample(ids, LOOKED_AT_MAX) if len(ids) > LOOKED_AT_MAX else ids
    unresolved = list(of_crossings.filter(id__in=chosen, resolved_at=None))
    windows = _windows(tenant_id, [one.facts["window_id"] for one in unresolved])
    budgets = Budget.objects.in_bulk({one.facts["budget_id"] for one in unresolved})
    ended = 0
    for incident in sorted(unresolved, key=_place):
        reason = _reason_to_end(
            incident,
            windows.get(incident.facts["window_id"]),
            budgets.get(incident.facts["budget_id"]),
            now,
        )
        if reason:
            end(tenant_id=tenant_id, cause=incident.cause, summary=reason)
            ended += 1
    return ended


def _place(incident: Incident) -> tuple[int, int]:
    """By window and episode: the order in which incidents are locked."""
    return incident.facts["window_id"], incident.facts["episode"]


def _reason_to_end(
    incident: Incident, window: BudgetWindow | None, budget: Budget | None, now: datetime
) -> str:
    """Why a crossing is nobody's concern any more; empty while it is."""
    if budget is None or budget.archived_at is not None:
        return "The budget was archived."
    if window is None or window.revision != budget.revision:
        return "The budget was changed, and counts in new windows."
    if window.ends_at is not None and window.ends_at <= now:
        return "The budget's period is over."
    if window.episode != incident.facts["episode"]:
        return "The spend of the rolling period fell below the budget's levels."
    if window.ends_at is None and now - incident.seen_at > RESTS_AFTER:
        return "No further level was reached for a day."
    return ""


def observation_of(window: BudgetWindow, reached: Sequence[Crossing]) -> Observation:
    """What these crossings of one window say; the highest level speaks for all."""
    top = max(reached, key=lambda one: one.percent)
    budget = top.budget
    group: list[str] = json.loads(top.group_key)
    is_shadow = top.mode == Mode.SHADOW
    match = budget.match if is_shadow else match_of_group(budget.match, budget.per, group)
    contacts = dict.fromkeys(name for one in reached for name in one.notify)
    summary = _summary(top, window)
    return Observation(
        kind=IncidentKind.CROSSING,
        cause=_cause(budget, group, window, top),
        severity=severity_of(top),
        title=_title(budget, group, top),
        summary=summary,
        match=match,
        facts={
            "budget_id": budget.id,
            "budget": budget.name,
            "window_id": window.id,
            "episode": top.episode,
            "level_percent": top.percent,
            "used_percent": float(top.used_percent),
            "action": top.action,
            "mode": top.mode,
            "spent_nanos": top.spent_nanos,
            "limit_nanos": top.limit_nanos,
            "window_start": window.starts_at.isoformat(),
            "window_end": window.ends_at.isoformat() if window.ends_at else None,
            "crossing_ids": [one.id for one in reached],
        },
        excess_nanos=_excess(top),
        contacts=tuple(contacts),
        entry="" if is_shadow else summary,
        is_news=not is_shadow,
    )


def severity_of(crossing: Crossing) -> Severity:
    """Critical where calls are stopped, information where the budget only watches."""
    if crossing.mode == Mode.SHADOW:
        return Severity.INFO
    if crossing.mode == Mode.ENFORCE and crossing.action in STOPPING:
        return Severity.CRITICAL
    return Severity.WARNING


def _cause(budget: Budget, group: Sequence[str], window: BudgetWindow, top: Crossing) -> str:
    """A window and its episode; for single calls, each with a window, the rest of the group; all
    windows of a budget in shadow mode, of which one incident says enough.
    """
    if top.mode == Mode.SHADOW:
        return f"budget:{budget.id}:shadow"
    if REQUEST in budget.per:
        named = [value for name, value in zip(budget.per, group, strict=True) if name != REQUEST]
        return f"budget:{budget.id}:{json.dumps(named)}"[:700]
    return f"budget:{budget.id}:{window.id}:{top.episode}"


def _title(budget: Budget, group: Sequence[str], top: Crossing) -> str:
    named = [
        f"{name} {value!r}" if value else f"no {name}"
        for name, value in zip(budget.per, group, strict=True)
        if name != REQUEST
    ]
    subject = f" for {', '.join(named)}" if named else ""
    return f"Budget {budget.name!r} reached {top.percent} %{subject}"


def _summary(top: Crossing, window: BudgetWindow) -> str:
    # Rounded down, so that nobody reads of a limit that is reached before it is.
    spent = f"{int(top.used_percent):,} % of its limit is used"
    if top.limit_nanos is not None:
        spent += f": {money(top.spent_nanos)} of {money(top.limit_nanos)}"
    # A window without an end begins at the epoch.
    since = f" since {window.starts_at:%Y-%m-%d %H:%M} UTC" if window.ends_at else ""
    until = f" The period ends {window.ends_at:%Y-%m-%d %H:%M} UTC." if window.ends_at else ""
    consequence = MODE_WORDS.get(top.mode) or CONSEQUENCES[top.action]
    return f"{spent}{since}. {consequence}{until}"


def _excess(top: Crossing) -> int | None:
    if top.limit_nanos is None:
        return None
    return max(0, top.spent_nanos - top.limit_nanos)


def _windows(tenant_id: int, ids: Iterable[Any]) -> dict[int, BudgetWindow]:
    found = BudgetWindow.objects.filter(tenant_id=tenant_id, id__in=list(ids))
    return {window.id: window for window in found}
