"""`/budgets/{id}`: when does it run out, who uses it, who asked for more?"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, NamedTuple

from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from billing.models import Wallet
from common.csv_files import csv_lines
from common.errors import InvalidRequest
from common.money import usd_from_nanos
from dashboard.access import PageRequest, cached_page, may_manage
from dashboard.budgets.bars import bar_of
from dashboard.budgets.burn import Burn, burn_rows, question_of, read_burn
from dashboard.budgets.burn_chart import burn_figure
from dashboard.budgets.history import (
    crossings_of,
    group_words,
    history_figure,
    history_headline,
    increases_of,
    limit_changes,
    past_windows,
)
from dashboard.budgets.listing import day_words
from dashboard.budgets.visible import TEAM, find_budget, teams_of, values_shown
from dashboard.budgets.words import MODE_BADGES, rule_words
from dashboard.buttons import button_of
from dashboard.enforcement.concerned import told_of
from dashboard.enforcement.raises import LimitIncreaseLine
from dashboard.enforcement.reasons import sentence_of
from dashboard.filter_bar import Choice, FilterBar
from dashboard.findings import shortened
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of
from dashboard.spend import local
from metering.budgets.index import BudgetIndex
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule, LevelRule
from metering.configuration.budgets import archive_budget
from metering.ledger.windows import state_of
from metering.limits.decisions import DecisionQuestion, list_decisions
from metering.limits.obstacles import read_obstacles
from metering.models import Budget, BudgetWindow, Decision
from metering.reporting.budget_windows import WatchedWindow, watched_window, watched_windows
from metering.reporting.fullest_windows import WindowFilter
from metering.reporting.usage import UsageRow, usage
from tenants.admin_site import actor_of

WINDOWS_OFFERED: Final = 5
USERS_SHOWN: Final = 6
REFUSALS_COUNTED: Final = 200
REFUSALS_SHOWN: Final = 5
HOUR: Final = timedelta(hours=1)
# What a window without end used within its first day may have been reported late.
RATED_FROM: Final = timedelta(days=1)
# By what the users of a budget are told apart, the most telling first.
ASKED: Final = ("agent", "customer", "feature", "user", "session", "model", "team")
DIMENSIONS_OFFERED: Final = 4


class Subject(NamedTuple):
    """A budget as the page is about it; no window where nothing was spent yet."""

    budget: Budget
    rule: BudgetRule
    window: WatchedWindow | None
    offered: Sequence[WatchedWindow]


@require_safe
@cached_page
def page(request: PageRequest, budget_id: int) -> HttpResponse:
    """The budget's chosen window, its past, and what was decided about it."""
    bar = filter_bar_of(request)
    subject = _subject(request, budget_id, bar)
    budget, window = subject.budget, subject.window
    further = {name: request.GET[name] for name in ("window", "by") if name in request.GET}
    group_key = window.state.group_key if window else None
    only = group_key if subject.rule.dimensions else None
    increases = [LimitIncreaseLine(row, bar.now) for row in increases_of(budget, only)]
    context = frame(request, bar.with_further(further), page="budgets") | {
        "headline": _headline(subject, bar),
        "budget": budget,
        "rule": subject.rule,
        "sentence": rule_words(budget, subject.rule.levels),
        "badge": MODE_BADGES[budget.mode],
        "wallet": Wallet.objects.filter(budget=budget).select_related("customer").first(),
        "window": window,
        "drawn": bar_of(window) if window else None,
        "left": max(0, window.limit - window.spent - window.reserved) if window else 0,
        "rate": _rate(window, bar),
        "window_choices": _window_choices(subject, bar),
        "has_chart": window is not None and _question(request, window, bar) is not None,
        "query": f"?window={window.state.id}" if window else "",
        "crossings": crossings_of(budget, only),
        "increases": [line for line in increases if line.state != "waiting"],
        "waiting": _with_obstacles(
            request, [increase for increase in increases if increase.state == "waiting"]
        ),
        "changes": limit_changes(budget),
        "refusals": _refusals(request, subject),
        **_history(request, subject, bar),
        **_users(request, subject, bar),
    }
    return render(request, "dashboard/budgets/budget.html", context)


def _subject(request: PageRequest, budget_id: int, bar: FilterBar) -> Subject:
    budget = find_budget(request, budget_id)
    book = read_budget_index(request.tenant.id, budget_id=budget.id)
    rule = book.rules.get(budget.id)
    if rule is None:
        levels = [LevelRule.of(row) for row in budget.levels.order_by("percent")]
        rule = BudgetRule(budget, levels)
    offered = _offered(request, budget, book, bar)
    asked = number_of(request.GET.get("window", ""))
    if asked is None and offered:
        return Subject(budget, rule, offered[0], offered)
    row = _row(request, budget, asked)
    if row is None:
        if asked is not None:
            raise Http404
        return Subject(budget, rule, None, offered)
    window = watched_window(
        tenant_id=request.tenant.id, rule=rule, state=state_of(row), now=bar.now
    )
    teams = teams_of(request)
    if teams is not None and dict(window.group).get(TEAM, teams[0]) not in teams:
        raise Http404
    return Subject(budget, rule, window, offered)


def _offered(
    request: PageRequest, budget: Budget, book: BudgetIndex, bar: FilterBar
) -> list[WatchedWindow]:
    only = WindowFilter([budget.id], "", values_shown({}, teams_of(request)))
    return watched_windows(
        tenant_id=request.tenant.id,
        book=book,
        now=bar.now,
        per_budget=WINDOWS_OFFERED,
        only=only,
    ).windows


def _row(request: PageRequest, budget: Budget, window_id: int | None) -> BudgetWindow | None:
    """The window that was asked for, or the newest; of a team's member none that is not named."""
    rows = BudgetWindow.objects.filter(
        tenant=request.tenant, budget_id=budget.id, revision=budget.revision
    )
    if window_id is not None:
        return rows.filter(id=window_id).first()
    is_told_apart = teams_of(request) is not None and TEAM in budget.per
    return None if is_told_apart else rows.order_by("-id").first()


def _headline(subject: Subject, bar: FilterBar) -> str:
    window, name = subject.window, shortened(subject.budget.name)
    if subject.budget.archived_at is not None:
        return f"{name} is archived"
    if subject.rule.is_per_request:
        return f"{name} checks each call by itself"
    if window is None:
        return f"Nothing has been spent under {name} yet"
    who = group_words(window.rule.dimensions, window.state.group_key) or name
    return f"{who} {_going(window, bar)}"


def _going(window: WatchedWindow, bar: FilterBar) -> str:
    """Where a window stands and where it is going, as the rest of a sentence."""
    outlook = window.outlook
    if outlook.is_over:
        return f"is over its limit, at {window.percent:.0f}%"
    if outlook.runs_out_at is not None:
        at = local(outlook.runs_out_at, bar)
        when = f"at {at:%-I:%M %p}" if at.date() == local(bar.now, bar).date() else ""
        when = when or day_words(outlook.runs_out_at, now=bar.now, zone=bar.zone)
        return f"runs out {when}{_before_reset(window)}"
    if outlook.end_percent is not None:
        return f"will end at about {outlook.end_percent:.0f}% of its limit"
    return f"has used {window.percent:.0f}% of its limit"


def _before_reset(window: WatchedWindow) -> str:
    """Return how long before the next period the budget runs out."""
    if window.state.ends_at is None or window.outlook.runs_out_at is None:
        return ""
    hours = round((window.state.ends_at - window.outlook.runs_out_at) / HOUR)
    if hours < 1:
        return ""
    number, unit = (hours, "hour") if hours < 48 else (hours // 24, "day")
    return f", {number} {unit}{'' if number == 1 else 's'} before the budget resets"


def _rate(window: WatchedWindow | None, bar: FilterBar) -> int | None:
    """What is used in an hour, so far; None where that says nothing."""
    if window is None or window.part == "seconds" or window.rule.is_rolling:
        return None
    is_endless = window.state.ends_at is None
    first = window.state.first_used_at if is_endless else window.state.starts_at
    elapsed = bar.now - (first or bar.now)
    is_over = window.state.ends_at is not None and window.state.ends_at <= bar.now
    if is_over or elapsed < (RATED_FROM if is_endless else HOUR / 4):
        return None
    return window.spent * 3600 // int(elapsed.total_seconds())


def _window_choices(subject: Subject, bar: FilterBar) -> list[Choice]:
    """The fullest windows to choose from, and the chosen one."""
    if not subject.rule.dimensions or subject.window is None:
        return []
    shown = list(subject.offered)
    if subject.window.state.id not in {window.state.id for window in shown}:
        shown.append(subject.window)
    return [
        Choice(
            bar.with_further({"window": str(window.state.id)}).query(),
            f"{group_words(subject.rule.dimensions, window.state.group_key)} {window.percent:.0f}%",
            0,
            window.state.id == subject.window.state.id,
        )
        for window in shown
    ]


def _question(request: PageRequest, window: WatchedWindow, bar: FilterBar) -> Any:
    return question_of(window, tenant_id=request.tenant.id, now=bar.now)


def _history(request: PageRequest, subject: Subject, bar: FilterBar) -> dict[str, object]:
    window = subject.window
    past = past_windows(window, tenant_id=request.tenant.id, now=bar.now) if window else []
    if window is None or len(past) < 2:
        return {"past": []}
    figure = history_figure(
        past, part=window.part, limit=window.limit, zone=subject.rule.clock.zone, now=bar.now
    )
    return {
        "past": [(earlier, local(earlier.state.starts_at, bar)) for earlier in reversed(past)],
        "history": figure,
        "history_finding": history_headline(past, subject.rule.period),
    }


def _users(request: PageRequest, subject: Subject, bar: FilterBar) -> dict[str, Any]:
    """Who used the window: the greatest values of a dimension that it does not fix."""
    window = subject.window
    question = _question(request, window, bar) if window else None
    if window is None or question is None:
        return {"users": []}
    filters = question.filters
    names = [name for name in ASKED if len(filters.get(name, ())) != 1][:DIMENSIONS_OFFERED]
    by = request.GET.get("by", "")
    by = by if by in names else names[0]
    report = usage(replace(question, group_by=(by,)), limit=USERS_SHOWN)
    kept = {"window": str(window.state.id)}
    shown = [row for row in report.rows if not row.is_other and row.measures.cost_nanos]
    total = report.total.cost_nanos
    return {
        "users": [_user(row, by) for row in shown],
        "users_by": by,
        "users_total": total,
        "users_rest": total - sum(row.measures.cost_nanos for row in shown),
        "user_choices": [
            Choice(bar.with_further({**kept, "by": name}).query(), name.capitalize(), 0, name == by)
            for name in names
        ],
    }


def _user(row: UsageRow, by: str) -> tuple[str, int]:
    return row.group[by], row.measures.cost_nanos


def _refusals(request: PageRequest, subject: Subject) -> dict[str, object]:
    """What the budget refused in the window."""
    window = subject.window
    if window is None:
        return {"rows": [], "number": 0, "is_capped": False}
    decisions = list_decisions(
        DecisionQuestion(
            tenant_id=request.tenant.id,
            starts_at=window.state.starts_at,
            ends_at=window.state.ends_at,
            decision="refuse",
            budget_id=subject.budget.id,
        ),
        limit=REFUSALS_COUNTED,
    )
    group = dict(window.group)
    rows = [row for row in decisions if _is_about(row, subject.budget.id, group)]
    return {
        "rows": [(row, _detail(row, subject.budget.id)) for row in rows[:REFUSALS_SHOWN]],
        "number": len(rows),
        "is_capped": len(decisions) == REFUSALS_COUNTED,
    }


def _is_about(row: Decision, budget_id: int, group: dict[str, str]) -> bool:
    """Whether the budget refused a call of this group."""
    reasons = [reason for reason in row.reasons if reason.get("budget") == budget_id]
    return any((reason.get("group") or {}).items() >= group.items() for reason in reasons)


def _detail(row: Decision, budget_id: int) -> str:
    return next(sentence_of(reason) for reason in row.reasons if reason.get("budget") == budget_id)


def _with_obstacles(
    request: PageRequest, lines: list[LimitIncreaseLine]
) -> list[LimitIncreaseLine]:
    """Requests with what stops their calls even if they are approved."""
    if not lines:
        return []
    obstacles = read_obstacles(request.tenant.id, now=lines[0].now)
    return [
        replace(
            line,
            obstacles=told_of(
                obstacles.of(line.row.budget_id, line.row.group_key), teams_of(request)
            ),
        )
        for line in lines
    ]


@require_safe
@cached_page
def chart(request: PageRequest, budget_id: int) -> HttpResponse:
    """The figure of a window."""
    bar = filter_bar_of(request)
    window, burn = _burn(request, budget_id, bar)
    return JsonResponse(burn_figure(burn, window, bar.zone))


@require_safe
@cached_page
def table(request: PageRequest, budget_id: int) -> HttpResponse:
    """The numbers behind the figure."""
    bar = filter_bar_of(request)
    window, burn = _burn(request, budget_id, bar)
    rows = [(local(at, bar), amount, share) for at, amount, share in burn_rows(burn, window)]
    context = {"bar": bar, "window": window, "rows": rows}
    return render(request, "dashboard/budgets/burn_table.html", context)


@require_safe
@cached_page
def csv(request: PageRequest, budget_id: int) -> HttpResponse:
    """The same, exact, for spreadsheets."""
    bar = filter_bar_of(request)
    window, burn = _burn(request, budget_id, bar)
    is_money = window.part == "cost_nanos"
    rows = [
        [at.isoformat(), usd_from_nanos(amount) if is_money else str(amount)]
        for at, amount in zip(burn.times, burn.used, strict=True)
    ]
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="budget-{budget_id}.csv"'
    name = "spent_usd" if is_money else f"spent_{window.part}"
    response.writelines(csv_lines([["until", name], *rows]))
    return response


def _burn(request: PageRequest, budget_id: int, bar: FilterBar) -> tuple[WatchedWindow, Burn]:
    window = _subject(request, budget_id, bar).window
    if window is None:
        raise Http404
    burn = read_burn(window, tenant_id=request.tenant.id, zone=bar.zone, now=bar.now)
    if burn is None:
        raise Http404
    return window, burn


@button_of("budgets", may=may_manage)
def archive(request: PageRequest, budget_id: int) -> str:
    """End a budget."""
    budget = find_budget(request, budget_id)
    if budget.archived_at is not None:
        raise InvalidRequest(f"“{budget.name}” is archived already.")
    archive_budget(budget=budget, actor=actor_of(request))
    return f"“{budget.name}” is archived. It stopped counting and blocking."
