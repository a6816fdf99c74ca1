"""Read the figures that rules are about, and find what meets each rule."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final, NamedTuple

from django.db.models import BooleanField, Q
from django.db.models.expressions import RawSQL

from alerts import rules
from alerts.rules import Spend
from common.formats import format_time, format_times, quote
from common.json_bodies import JsonObject
from common.money import money
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule
from metering.core.periods import floor_seconds
from metering.ledger.windows import (
    WindowState,
    balance_of,
    may_have_reached,
    state_of,
    used_percent,
)
from metering.limits.halts import match_of_group
from metering.models import BudgetWindow
from metering.reporting.series import CostlyCall, costly_calls, first_usage_at, value_sums
from metering.rollups.sets import DAY_SECONDS, QUARTER_SECONDS

ROWS_MAX: Final = 500
QUARTER: Final = timedelta(seconds=QUARTER_SECONDS)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
WEEK: Final = timedelta(days=7)
# Batches that were committed out of order are looked at twice, which changes nothing.
OVERLAP: Final = timedelta(minutes=1)
PROFILE_WEEKS: Final = 4


class Check(NamedTuple):
    """One check of a tenant's figures: when, and when the last one was."""

    tenant_id: int
    now: datetime
    judged_at: datetime | None

    @property
    def is_new_hour(self) -> bool:
        """Whether nothing was judged yet in this hour."""
        return self.judged_at is None or self.judged_at < floor_seconds(self.now, 3600)

    def sums(self, dimension: str, bounds: list[datetime]) -> dict[str, list[Spend]]:
        """Return what each value of a dimension cost between these bounds."""
        sums = value_sums(tenant_id=self.tenant_id, dimension=dimension, bounds=bounds)
        return {value: [Spend(*spent) for spent in spans] for value, spans in sorted(sums.items())}


class Met(NamedTuple):
    """What meets a rule. `subject` tells one incident of the rule from another."""

    subject: tuple[str, ...]
    title: str
    summary: str
    match: Mapping[str, object]
    facts: Mapping[str, object]
    excess_nanos: int | None = None


def _costly_requests(check: Check, times: Fraction) -> Iterator[Met]:
    calls = costly_calls(
        tenant_id=check.tenant_id,
        received_from=(check.judged_at or check.now - HOUR) - OVERLAP,
        nanos_min=rules.REQUEST_NANOS_MIN,
        limit=ROWS_MAX,
    )
    for call in calls:
        usual = Spend(*call.usual)
        if rules.is_costly_request(cost_nanos=call.cost_nanos, usual=usual, times=times):
            yield _costly_request(call, usual.cost_nanos // usual.requests)


def _costly_request(call: CostlyCall, average_nanos: int) -> Met:
    values = {"agent": call.agent, "feature": call.feature, "model": call.model}
    who = f"agent {quote(call.agent)}" if call.agent else f"model {quote(call.model)}"
    session = f" in session {quote(call.session)}" if call.session else ""
    return Met(
        subject=tuple(values.values()),
        title=f"One request of {who} cost {money(call.cost_nanos)}",
        summary=(
            f"That is {format_times(call.cost_nanos, average_nanos)} what such requests cost on"
            f" average ({money(average_nanos)}). It is event {quote(call.sent_id)} of"
            f" {quote(call.source)}{session}."
        ),
        match={name: value for name, value in values.items() if value},
        facts={
            "cost_nanos": call.cost_nanos,
            "average_nanos": average_nanos,
            "source": call.source,
            "event": call.sent_id,
            "session": call.session,
        },
        excess_nanos=call.cost_nanos - average_nanos,
    )


def _costly_quarters(check: Check, times: Fraction) -> Iterator[Met]:
    """By the running quarter if it has enough requests already, else by the one before it."""
    running = floor_seconds(check.now, QUARTER_SECONDS)
    bounds = [running - QUARTER - DAY, running - QUARTER, running, running + QUARTER]
    for agent, (day, last, present) in check.sums("agent", bounds).items():
        quarter = present if present.requests > rules.QUARTER_REQUESTS else last
        if not rules.is_costly_quarter(quarter=quarter, day=day, times=times):
            continue
        each_nanos = quarter.cost_nanos // quarter.requests
        usual_nanos = day.cost_nanos // day.requests
        who = f"agent {quote(agent)}" if agent else "calls without an agent"
        yield Met(
            subject=(agent,),
            title=f"Requests of {who} cost {format_times(each_nanos, usual_nanos)}"
            " the day's average",
            summary=(
                f"{quarter.requests:,} requests of a quarter of an hour cost {money(each_nanos)}"
                f" each, those of the 24 hours before {money(usual_nanos)}."
            ),
            match={"agent": agent or None},
            facts={
                "requests": quarter.requests,
                "average_nanos": each_nanos,
                "usual_average_nanos": usual_nanos,
            },
            excess_nanos=quarter.cost_nanos - usual_nanos * quarter.requests,
        )


def _high_hour(check: Check, times: Fraction) -> Iterator[Met]:
    """By the running quarter and the three before it."""
    hour_at = floor_seconds(check.now, QUARTER_SECONDS) - 3 * QUARTER
    first = first_usage_at(tenant_id=check.tenant_id, since=hour_at - rules.USUAL_WEEKS * WEEK)
    if first is None:
        return
    # Whole hours since the tenant began, or woke.
    count = max(0, (hour_at - first) // HOUR)
    bounds = [hour_at - hours * HOUR for hours in range(count, -2, -1)]
    spans = check.sums("", bounds).get("", [Spend(0, 0)])
    *hours, hour_nanos = (spent.cost_nanos for spent in spans)
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


def _grown_features(check: Check, percent: Fraction) -> Iterator[Met]:
    """By whole UTC days: the last seven against the seven before."""
    today = floor_seconds(check.now, DAY_SECONDS)
    sums = check.sums("feature", [today - 2 * WEEK, today - WEEK, today])
    for feature, (before, week) in sums.items():
        before_nanos, week_nanos = before.cost_nanos, week.cost_nanos
        if feature and rules.is_grown_week(
            week_nanos=week_nanos, before_nanos=before_nanos, percent=percent
        ):
            grown_percent = 100 * (week_nanos - before_nanos) // before_nanos
            yield Met(
                subject=(feature,),
                title=f"Feature {quote(feature)} cost {grown_percent:,}% more than a week before",
                summary=(
                    f"The seven days up to {today - DAY:%b %-d} cost {money(week_nanos)}, the"
                    f" seven before {money(before_nanos)}."
                ),
                match={"feature": feature},
                facts={"cost_nanos": week_nanos, "before_nanos": before_nanos},
                excess_nanos=week_nanos - before_nanos,
            )


def _nearly_spent_users(check: Check, percent: Fraction) -> Iterator[Met]:
    """By windows of budgets on a user's day."""
    for rule in read_budget_index(check.tenant_id).rules.values():
        if rule.period != "day" or not {"user"} & {*rule.per, *rule.match}:
            continue
        reached = RawSQL(*may_have_reached(rule, percent), BooleanField())  # noqa: S611 - a column
        for window in _windows(rule, check, reached):
            used = used_percent(rule, window, now=check.now).percent
            is_reported = any(percent <= level.percent <= used for level in rule.levels)
            if used < percent or is_reported:
                continue
            user = _match(rule, window).get("user")
            who = f"User {quote(user)}" if isinstance(user, str) else "A user"
            yield _met_by_window(
                rule,
                window,
                title=f"{who} has used {round(used)}% of the daily budget {quote(rule.name)}",
                summary=(
                    f"{money(window.spent_nanos)} spent since {format_time(window.starts_at)}."
                    " Nothing is stopped by this."
                ),
                facts={"used_percent": round(used)},
            )


def _high_months(check: Check, percent: Fraction) -> Iterator[Met]:
    """By windows of budgets on a calendar month, as they would end."""
    profile: tuple[int, ...] | None = None
    for rule in read_budget_index(check.tenant_id).rules.values():
        if rule.period != "month" or rule.is_rolling or rule.is_per_request:
            continue
        if not rule.limits["cost_nanos"]:
            continue
        profile = profile or _weekday_profile(check)
        for window in _windows(rule, check, Q(spent_nanos__gt=0)):
            limit_nanos = balance_of(rule, window, now=check.now).limit(rule, 0) or 0
            projected = _projected_nanos(rule, window, check.now, profile)
            is_spent = window.spent_nanos >= limit_nanos
            if projected is not None and not is_spent and projected * 100 > percent * limit_nanos:
                yield _high_month(rule, window, projected, limit_nanos)


def _high_month(
    rule: BudgetRule, window: WindowState, projected_nanos: int, limit_nanos: int
) -> Met:
    values = [
        f"{name} {quote(str(value))}" for name, value in _match(rule, window).items() if value
    ]
    by = f" by {', '.join(values)}" if values else ""
    return _met_by_window(
        rule,
        window,
        title=f"Budget {quote(rule.name)} will be exceeded this month at the present pace",
        summary=(
            f"{money(window.spent_nanos)} spent so far{by}; {money(projected_nanos)} expected at"
            f" the end of the month, of {money(limit_nanos)}."
        ),
        facts={"projected_nanos": projected_nanos, "limit_nanos": limit_nanos},
        excess_nanos=max(0, projected_nanos - limit_nanos),
    )


def _projected_nanos(
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
    """Count the days of each weekday, from Monday, in the budget's zone."""
    days = [0.0] * 7
    at = starts_at
    while at < ends_at:
        until = min(at + DAY, ends_at)
        days[at.astimezone(rule.clock.zone).weekday()] += (until - at) / DAY
        at = until
    return days


def _weekday_profile(check: Check) -> tuple[int, ...]:
    """Return what the tenant's weekdays cost over some weeks, from Monday, by UTC days."""
    today = floor_seconds(check.now, DAY_SECONDS)
    bounds = [today - days * DAY for days in range(7 * PROFILE_WEEKS, -1, -1)]
    profile = [0] * 7
    for starts_at, spent in zip(bounds, check.sums("", bounds).get("", []), strict=False):
        profile[starts_at.astimezone(UTC).weekday()] += spent.cost_nanos
    return tuple(profile)


def _windows(rule: BudgetRule, check: Check, condition: Q | RawSQL) -> list[WindowState]:
    """Return the budget's present windows that fit, those with the highest cost first."""
    windows = BudgetWindow.objects.filter(
        Q(ends_at=None) | Q(ends_at__gt=check.now),
        condition,
        tenant_id=check.tenant_id,
        budget_id=rule.id,
        revision=rule.revision,
        starts_at__lte=check.now,
    ).order_by("-spent_nanos", "id")[:ROWS_MAX]
    return [state_of(window) for window in windows]


def _match(rule: BudgetRule, window: WindowState) -> JsonObject:
    return match_of_group(rule.match, rule.per, json.loads(window.group_key))


def _met_by_window(
    rule: BudgetRule, window: WindowState, *, facts: Mapping[str, object], **described: Any
) -> Met:
    return Met(
        subject=(str(window.id),),
        match=_match(rule, window),
        facts={
            "budget_id": rule.id,
            "budget": rule.name,
            "window_id": window.id,
            "spent_nanos": window.spent_nanos,
            **facts,
        },
        **described,
    )


# What is the same all hour long, or nearly so, is judged once an hour.
HOURLY: Final = frozenset({rules.FEATURE_WEEK, rules.MONTH_PROJECTION})
CHECKS: Final[Mapping[str, Callable[[Check, Fraction], Iterator[Met]]]] = {
    rules.COSTLY_REQUEST: _costly_requests,
    rules.COSTLY_QUARTER: _costly_quarters,
    rules.HOURLY_SPEND: _high_hour,
    rules.USER_DAY_BUDGET: _nearly_spent_users,
    rules.FEATURE_WEEK: _grown_features,
    rules.MONTH_PROJECTION: _high_months,
}
