"""Reads figures, judges them by the plain rules, and keeps the rules' incidents in step.

An incident of a rule lasts as long as the rule is met. Where an incident of the detector is about
the same calls, the rule adds a line to that one instead of calling people twice; and a rule about a
budget is silent once a level of that budget has told it.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final, NamedTuple

from django.db import connection
from django.db.models import Q

from alerts import incidents, rules
from alerts.models import EntryKind, Incident, IncidentKind, Severity
from alerts.rules import Spend, Wish
from alerts.scans import claim_progress
from alerts.settings import settings_of
from common.formats import format_times, quote
from common.money import money
from metering.budgets.reading import read_book
from metering.budgets.rules import BudgetRule
from metering.core.periods import floor_seconds
from metering.ledger.windows import WindowState, state_of, used_percent
from metering.limits.halts import match_of_group
from metering.models import BudgetWindow
from metering.reporting.series import CostlyCall, costly_calls, first_usage_at, value_sums
from metering.rollups.sets import DAY_SECONDS, QUARTER_SECONDS
from tenants.scope import tenant_scope

# Of one rule so many incidents at once; more would be one cause, and a storm.
MET_MAX: Final = 50
WINDOWS_MAX: Final = 500
QUARTER: Final = timedelta(seconds=QUARTER_SECONDS)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)
# Batches that were committed out of order are looked at twice, which changes nothing.
OVERLAP: Final = timedelta(minutes=1)
# A single call is over when it is seen: its incident stays open for so long.
CALL_RESTS: Final = HOUR
PROFILE_WEEKS: Final = 4
CAUSE_START: Final = "rule"

# Tenants that were scanned since their rules were judged: there may be news.
_TO_JUDGE: Final = """
    SELECT tenant_id FROM scan_progress WHERE judged_at IS NULL OR judged_at < scanned_at
    ORDER BY judged_at NULLS FIRST, tenant_id
"""


class Met(NamedTuple):
    """A rule that is met, and by what."""

    # What tells one incident of the rule from another.
    subject: tuple[str, ...]
    title: str
    summary: str
    match: Mapping[str, Any]
    facts: Mapping[str, Any]
    excess_nanos: int | None = None


class _Moment(NamedTuple):
    """Whose figures are judged, and when."""

    tenant_id: int
    now: datetime
    judged_at: datetime | None

    @property
    def is_new_hour(self) -> bool:
        """Whether nothing was judged yet in this hour."""
        return self.judged_at is None or self.judged_at < floor_seconds(self.now, 3600)


def tenants_to_judge() -> list[int]:
    """Tenants whose figures may have changed, the longest waiting first. Needs a platform scope."""
    with connection.cursor() as cursor:
        cursor.execute(_TO_JUDGE)
        return [row[0] for row in cursor.fetchall()]


def judge_rules(*, tenant_id: int, now: datetime) -> int:
    """Judge every rule that is on, open or update the incidents of those that are met, and end the
    others. Answers how many are met.

    Each rule's figures are read in a transaction of their own; the incidents are written in the
    last. Safe to run twice and by several at once: the row of the tenant's progress is locked then,
    and whoever was slower leaves it at that.
    """
    with tenant_scope(tenant_id):
        progress = claim_progress(tenant_id=tenant_id, now=now)
        if progress is None:
            return 0
        moment = _Moment(tenant_id, now, progress.judged_at)
        wishes = rules.wishes(settings_of(tenant_id).rules)
    judged = [_read(name, wishes.get(name), moment) for name in rules.RULES]
    with tenant_scope(tenant_id):
        progress = claim_progress(tenant_id=tenant_id, now=now)
        if progress is None or progress.judged_at != moment.judged_at:
            return 0
        for one in judged:
            _note(one, moment)
        progress.judged_at = now
        progress.save(update_fields=["judged_at"])
    return sum(len(one.met) for one in judged)


class _Judged(NamedTuple):
    """A rule, and by what it is met; `is_new` where that was looked at now."""

    name: str
    wish: Wish | None
    met: Sequence[Met]
    is_new: bool = True


def _read(name: str, wish: Wish | None, moment: _Moment) -> _Judged:
    """Judge one rule; one that is off is met by nothing."""
    if wish is None:
        return _Judged(name, wish, [])
    if name in HOURLY and not moment.is_new_hour:
        return _Judged(name, wish, [], is_new=False)
    with tenant_scope(moment.tenant_id):
        return _Judged(name, wish, list(JUDGES[name](moment, wish.threshold))[:MET_MAX])


def _note(judged: _Judged, moment: _Moment) -> None:
    """Open or update the incidents of a rule, and end the others."""
    if not judged.is_new:
        return
    covering = _anomaly_incidents(moment) if judged.met else []
    causes = set()
    for one in judged.met:
        cover = next((other for other in covering if _covers(other, one)), None)
        if cover is not None:
            _mention(cover, judged.name)
            continue
        causes.add(_cause(judged.name, one.subject))
        _observe(moment.tenant_id, judged.name, judged.wish, one)
    _end_others(judged.name, causes, moment)


def _cause(name: str, subject: Iterable[str]) -> str:
    # As JSON, so that no value can be taken for the begin of the next.
    return f"{CAUSE_START}:{name}:{json.dumps(list(subject), ensure_ascii=False)}"


def _observe(tenant_id: int, name: str, wish: Wish | None, met: Met) -> None:
    assert wish is not None, "only a rule that is on is met"
    incidents.observe(
        tenant_id=tenant_id,
        observation=incidents.Observation(
            kind=IncidentKind.RULE,
            cause=_cause(name, met.subject),
            severity=Severity(wish.severity),
            title=met.title,
            summary=met.summary,
            match=met.match,
            facts={"rule": name, "threshold": float(wish.threshold), **met.facts},
            excess_nanos=met.excess_nanos,
        ),
    )


def _end_others(name: str, causes: set[str], moment: _Moment) -> None:
    """End the rule's incidents of causes that are not met any more."""
    standing = Incident.objects.filter(
        tenant_id=moment.tenant_id,
        kind=IncidentKind.RULE,
        cause__startswith=f"{CAUSE_START}:{name}:",
        resolved_at=None,
    )
    if name == rules.COSTLY_REQUEST:
        standing = standing.filter(seen_at__lt=moment.now - CALL_RESTS)
    for cause in standing.exclude(cause__in=causes).values_list("cause", flat=True):
        incidents.end(tenant_id=moment.tenant_id, cause=cause)


def _anomaly_incidents(moment: _Moment) -> list[Incident]:
    """The detector's incidents about money whose calls may be part of a rule's figures: those that
    ended within the hour too, since rules look as far back.
    """
    known = Incident.objects.filter(
        tenant_id=moment.tenant_id, kind=IncidentKind.ANOMALY, excess_nanos__gt=0
    )
    recent = Q(resolved_at=None) | Q(resolved_at__gt=moment.now - HOUR)
    return list(known.filter(recent).order_by("id"))


def _covers(incident: Incident, met: Met) -> bool:
    """Whether a detector's incident is about the calls that meet the rule, or makes up a sum of all
    calls.
    """
    about_budget = "window_id" in met.facts
    is_part = all(met.match.get(name) == value for name, value in incident.match.items())
    return not about_budget and (is_part or not met.match)


def _mention(incident: Incident, name: str) -> None:
    """Say once in the timeline that the rule is met too."""
    text = f"By the rule {name} as well. {rules.RULES[name].words}."
    if incident.resolved_at is None and not incident.entries.filter(text=text).exists():
        incidents.note(incident=incident, kind=EntryKind.UPDATED, text=text)


def _costly_requests(moment: _Moment, times: Fraction) -> Iterator[Met]:
    since = (moment.judged_at or moment.now - HOUR) - OVERLAP
    calls = costly_calls(
        tenant_id=moment.tenant_id,
        received_from=since,
        nanos_min=rules.REQUEST_NANOS_MIN,
        limit=WINDOWS_MAX,
    )
    for call in calls:
        if rules.is_costly_request(
            cost_nanos=call.cost_nanos, usual=Spend(*call.usual), times=times
        ):
            yield _costly_request(call)


def _costly_request(call: CostlyCall) -> Met:
    average_nanos = call.usual.cost_nanos // call.usual.requests
    who = f"agent {quote(call.agent)}" if call.agent else f"model {quote(call.model)}"
    session = f" in session {quote(call.session)}" if call.session else ""
    match = {
        name: value
        for name, value in (
            ("agent", call.agent),
            ("feature", call.feature),
            ("model", call.model),
        )
        if value
    }
    return Met(
        subject=(call.agent, call.feature, call.model),
        title=f"One request of {who} cost {money(call.cost_nanos)}",
        summary=(
            f"That is {format_times(call.cost_nanos, average_nanos)} what such requests cost on"
            f" average ({money(average_nanos)}). It is event {quote(call.sent_id)} of"
            f" {quote(call.source)}{session}."
        ),
        match=match,
        facts={
            "cost_nanos": call.cost_nanos,
            "average_nanos": average_nanos,
            "source": call.source,
            "event": call.sent_id,
            "session": call.session,
        },
        excess_nanos=call.cost_nanos - average_nanos,
    )


def _costly_quarters(moment: _Moment, times: Fraction) -> Iterator[Met]:
    """By the running quarter where it has requests enough already, else by the one before it."""
    running = floor_seconds(moment.now, QUARTER_SECONDS)
    bounds = [running - QUARTER - DAY, running - QUARTER, running, running + QUARTER]
    sums = value_sums(tenant_id=moment.tenant_id, dimension="agent", bounds=bounds)
    for agent, (day, last, present) in sorted(sums.items()):
        quarter = present if present.requests > rules.QUARTER_REQUESTS else last
        if rules.is_costly_quarter(quarter=Spend(*quarter), day=Spend(*day), times=times):
            yield _costly_quarter(agent, Spend(*quarter), Spend(*day))


def _costly_quarter(agent: str, quarter: Spend, day: Spend) -> Met:
    each_nanos = quarter.cost_nanos // quarter.requests
    usual_nanos = day.cost_nanos // day.requests
    who = f"agent {quote(agent)}" if agent else "calls without an agent"
    return Met(
        subject=(agent,),
        title=f"Requests of {who} cost {format_times(each_nanos, usual_nanos)} the day's average",
        summary=(
            f"{quarter.requests:,} requests of a quarter of an hour cost {money(each_nanos)} each,"
            f" those of the 24 hours before {money(usual_nanos)}."
        ),
        match={"agent": agent or None},
        facts={
            "requests": quarter.requests,
            "average_nanos": each_nanos,
            "usual_average_nanos": usual_nanos,
        },
        excess_nanos=quarter.cost_nanos - usual_nanos * quarter.requests,
    )


def _high_hour(moment: _Moment, times: Fraction) -> Iterator[Met]:
    """By the running quarter and the three before it."""
    hour_at = floor_seconds(moment.now, QUARTER_SECONDS) - 3 * QUARTER
    first = first_usage_at(tenant_id=moment.tenant_id, since=hour_at - rules.USUAL_WEEKS * WEEK)
    if first is None:
        return
    # Whole hours since the tenant began, or woke.
    count = max(0, (hour_at - first) // HOUR)
    bounds = [hour_at - place * HOUR for place in range(count, -2, -1)]
    sums = value_sums(tenant_id=moment.tenant_id, dimension="", bounds=bounds)
    *hours, hour_nanos = (spent.cost_nanos for spent in sums.get("", [Spend(0, 0)]))
    usual_nanos = rules.usual_hour_nanos(hours)
    if usual_nanos is not None and rules.is_high_hour(
        hour_nanos=hour_nanos, hours=hours, times=times
    ):
        yield Met(
            subject=(),
            title=f"An hour cost {format_times(hour_nanos, usual_nanos)} the usual",
            summary=(
                f"The last hour cost {money(hour_nanos)}; {money(usual_nanos)} is usual at this"
                " hour."
            ),
            match={},
            facts={"cost_nanos": hour_nanos, "usual_nanos": usual_nanos},
            excess_nanos=hour_nanos - usual_nanos,
        )


def _grown_features(moment: _Moment, percent: Fraction) -> Iterator[Met]:
    """By whole UTC days: the last seven against the seven before."""
    today = floor_seconds(moment.now, DAY_SECONDS)
    bounds = [today - 2 * WEEK, today - WEEK, today]
    sums = value_sums(tenant_id=moment.tenant_id, dimension="feature", bounds=bounds)
    for feature, (before, week) in sorted(sums.items()):
        if feature and rules.is_grown_week(
            week_nanos=week.cost_nanos, before_nanos=before.cost_nanos, percent=percent
        ):
            grown_nanos = week.cost_nanos - before.cost_nanos
            grown_percent = 100 * grown_nanos // before.cost_nanos
            yield Met(
                subject=(feature,),
                title=f"Feature {quote(feature)} cost {grown_percent:,}% more than a week before",
                summary=(
                    f"The seven days up to {today - DAY:%Y-%m-%d} cost {money(week.cost_nanos)},"
                    f" the seven before {money(before.cost_nanos)}."
                ),
                match={"feature": feature},
                facts={"cost_nanos": week.cost_nanos, "before_nanos": before.cost_nanos},
                excess_nanos=grown_nanos,
            )


def _nearly_spent_users(moment: _Moment, percent: Fraction) -> Iterator[Met]:
    """By windows of budgets on a user's day."""
    for rule in read_book(moment.tenant_id).rules.values():
        if rule.period != "day" or not {"user"} & {*rule.per, *rule.match}:
            continue
        for window in _windows(rule, moment, _reaches(rule, percent)):
            used = used_percent(rule, window, now=moment.now).percent
            has_told = any(percent <= level.percent <= used for level in rule.levels)
            if used >= percent and not has_told:
                yield _nearly_spent(rule, window, round(used))


def _nearly_spent(rule: BudgetRule, window: WindowState, used: int) -> Met:
    match = match_of_group(rule.match, rule.per, json.loads(window.group_key))
    user = match.get("user")
    who = f"User {quote(user)}" if isinstance(user, str) else "A user"
    return Met(
        subject=(str(window.id),),
        title=f"{who} has used {used}% of the daily budget {quote(rule.name)}",
        summary=(
            f"{money(window.spent_nanos)} spent since {window.starts_at:%Y-%m-%d %H:%M} UTC."
            " Nothing is stopped by this."
        ),
        match=match,
        facts={
            "budget_id": rule.id,
            "budget": rule.name,
            "window_id": window.id,
            "used_percent": used,
            "spent_nanos": window.spent_nanos,
        },
    )


def _reaches(rule: BudgetRule, percent: Fraction) -> Q:
    """Windows that may have reached so much of a limit; raises can only make it less."""
    reached = Q(pk__in=[])
    columns = {"cost_nanos": "spent_nanos"}
    for part, limit in rule.limits.items():
        if limit is not None:
            column = columns.get(part, f"spent_{part}")
            reached |= Q(**{f"{column}__gte": int(limit * percent / 100)})
    return reached


def _high_months(moment: _Moment, percent: Fraction) -> Iterator[Met]:
    """By windows of budgets on a calendar month, as they would end."""
    profile: tuple[int, ...] | None = None
    for rule in read_book(moment.tenant_id).rules.values():
        limit_nanos = rule.limits["cost_nanos"]
        if rule.period != "month" or rule.is_rolling or rule.is_per_request or not limit_nanos:
            continue
        profile = profile or _weekday_profile(moment)
        for window in _windows(rule, moment, Q(spent_nanos__gt=0)):
            whole = limit_nanos + rule.raised(window.group_key, moment.now)[0]
            whole += window.carried_nanos
            projected = _projected(rule, window, moment.now, profile)
            is_spent = window.spent_nanos >= whole
            if projected is not None and not is_spent and projected * 100 > percent * whole:
                yield _high_month(rule, window, projected, whole)


def _projected(
    rule: BudgetRule, window: WindowState, now: datetime, profile: tuple[int, ...]
) -> int | None:
    assert window.ends_at is not None, "a month ends"
    return rules.projected_nanos(
        spent_nanos=window.spent_nanos + window.reserved_nanos,
        passed_days=_days_by_weekday(window.starts_at, now, rule),
        all_days=_days_by_weekday(window.starts_at, window.ends_at, rule),
        profile=profile,
    )


def _days_by_weekday(starts_at: datetime, ends_at: datetime, rule: BudgetRule) -> list[float]:
    """How many days of each weekday, from Monday, lie between two moments in the budget's zone."""
    days = [0.0] * 7
    at = starts_at
    while at < ends_at:
        until = min(at + DAY, ends_at)
        days[at.astimezone(rule.clock.zone).weekday()] += (until - at) / DAY
        at = until
    return days


def _weekday_profile(moment: _Moment) -> tuple[int, ...]:
    """What the tenant's weekdays cost over some weeks, from Monday, by UTC days."""
    today = floor_seconds(moment.now, DAY_SECONDS)
    bounds = [today - days * DAY for days in range(7 * PROFILE_WEEKS, -1, -1)]
    sums = value_sums(tenant_id=moment.tenant_id, dimension="", bounds=bounds)
    profile = [0] * 7
    for starts_at, spent in zip(bounds, sums.get("", []), strict=False):
        profile[starts_at.astimezone(UTC).weekday()] += spent.cost_nanos
    return tuple(profile)


def _high_month(
    rule: BudgetRule, window: WindowState, projected_nanos: int, limit_nanos: int
) -> Met:
    match = match_of_group(rule.match, rule.per, json.loads(window.group_key))
    words = ", ".join(f"{name} {quote(str(value))}" for name, value in match.items() if value)
    return Met(
        subject=(str(window.id),),
        title=f"Budget {quote(rule.name)} will be exceeded this month at the present pace",
        summary=(
            f"{money(window.spent_nanos)} spent so far{f' by {words}' if words else ''};"
            f" {money(projected_nanos)} expected at the end of the month, of"
            f" {money(limit_nanos)}."
        ),
        match=match,
        facts={
            "budget_id": rule.id,
            "budget": rule.name,
            "window_id": window.id,
            "spent_nanos": window.spent_nanos,
            "projected_nanos": projected_nanos,
            "limit_nanos": limit_nanos,
        },
        excess_nanos=max(0, projected_nanos - limit_nanos),
    )


def _windows(rule: BudgetRule, moment: _Moment, condition: Q) -> list[WindowState]:
    """The budget's windows of now that fit, those with the highest cost first."""
    found = BudgetWindow.objects.filter(
        Q(ends_at=None) | Q(ends_at__gt=moment.now),
        condition,
        tenant_id=moment.tenant_id,
        budget_id=rule.id,
        revision=rule.revision,
        starts_at__lte=moment.now,
    ).order_by("-spent_nanos", "id")[:WINDOWS_MAX]
    return [state_of(one) for one in found]


# What is the same all hour long, or nearly so, is judged once an hour.
HOURLY: Final = frozenset({rules.FEATURE_WEEK, rules.MONTH_PROJECTION})
JUDGES: Final[Mapping[str, Callable[[_Moment, Fraction], Iterator[Met]]]] = {
    rules.COSTLY_REQUEST: _costly_requests,
    rules.COSTLY_QUARTER: _costly_quarters,
    rules.HOURLY_SPEND: _high_hour,
    rules.USER_DAY_BUDGET: _nearly_spent_users,
    rules.FEATURE_WEEK: _grown_features,
    rules.MONTH_PROJECTION: _high_months,
}
