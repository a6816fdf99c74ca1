"""One session: what it cost, why, and whether that is usual."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.dateparse import parse_datetime
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from alerts.incident_lists import visible_to
from alerts.models import Incident
from common.errors import NotFound
from common.values import normal_value
from dashboard.access import PageRequest, cached_page, may_halt
from dashboard.budgets.visible import budgets_of_reasons, is_visible, withheld
from dashboard.counted_later import are_read_later
from dashboard.enforcement.decisions import DECISION_WORDS
from dashboard.enforcement.reasons import sentence_of
from dashboard.filter_bar import FilterBar
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of, numbered_page
from dashboard.sessions.columns import Chart, chart_of, histogram_of, jumps_of
from dashboard.sessions.findings import Loop, Usual, headline, times_usual
from dashboard.sessions.repeats import Repeats, repeats_of
from dashboard.sessions.waterfall import Line, lines_of
from metering.core.match import POSITION
from metering.limits.decisions import DecisionQuestion, list_decisions
from metering.models import Decision, Operation
from metering.reporting.events import cost_of
from metering.reporting.reservations import Balance, read_balances
from metering.reporting.session_list import USUAL_LOOK_BACK, earlier_costs
from metering.reporting.session_steps import Step, read_steps
from metering.reporting.sessions import EVENTS_MAX, SessionTotals, read_totals
from metering.reporting.traces import CallNode, build_tree

LINES_MAX: Final = 200
COSTLIEST_MAX: Final = 10
DECISIONS_MAX: Final = 20
JUMPS_MAX: Final = 3
# A session whose last call is older has nothing left to stop.
RUNS_WITHIN: Final = timedelta(minutes=15)
# What a session's calls usually have in common, in the order of its subline.
SHARED: Final = ("agent", "team", "customer", "feature", "user")


class DecisionLine(NamedTuple):
    """A decision on a call of the session, and why, as far as the person may know."""

    row: Decision
    reasons: list[str]

    @property
    def words(self) -> str:
        return DECISION_WORDS.get(self.row.decision, self.row.decision)


class BudgetLine(NamedTuple):
    """A budget window in which the session counts: (part, spent, limit) of what it limits."""

    balance: Balance

    @property
    def parts(self) -> list[tuple[str, int, int | None]]:
        rule, balance = self.balance.rule, self.balance.balance
        names = list(rule.limits)
        return [
            (names[index], balance.spent[index], balance.limit(rule, index))
            for index in rule.limited_indexes
        ]


class Facts(NamedTuple):
    """What the page is made of."""

    steps: list[Step]
    totals: SessionTotals
    repeats: Repeats
    # None where that is read after the page.
    usual: Usual | None
    main: tuple[str, str]
    incident: Incident | None

    @property
    def loop(self) -> Loop | None:
        """What the incident found; None without one."""
        if self.incident is None:
            return None
        told = self.incident.facts
        return Loop(
            words=next((str(finding["words"]) for finding in told.get("findings", [])), ""),
            cost_nanos=int(told.get("wasted_nanos") or 0),
            began_at=parse_datetime(str(told.get("began_at", ""))),
        )


@require_safe
@cached_page
def page(request: PageRequest, session: str) -> HttpResponse:
    """Why did it cost that?"""
    bar = filter_bar_of(request)
    session = normal_value(session)
    parts = _facts(request.tenant.id, session, bar.teams)
    if parts.usual is None:
        later = bar.query(path=reverse("dashboard:session_usual", args=[session]))
    else:
        later = ""
    lines = lines_of(
        parts.steps,
        times=parts.repeats.times,
        subtree_nanos=_subtrees(parts.steps),
    )
    pages = numbered_page(
        _page_number(request, len(lines)),
        len(lines),
        per_page=LINES_MAX,
        address=lambda number: _page_query(bar, number),
    )
    context = (
        frame(request, bar, page="sessions")
        | _figures(parts, lines)
        | {
            "session": session,
            "later": later,
            "is_limited": bar.teams is not None,
            "lines": lines[pages.rows],
            "pages": pages,
            "decisions": _decisions(request.tenant.id, session, bar.teams),
            "balances": _balances(request.tenant.id, parts.steps, bar.teams),
            "incident": parts.incident,
            "halt_query": _halt_query(request, session, parts.steps[-1].time, bar.now),
            "sessions": bar.query(path=reverse("dashboard:sessions")),
        }
    )
    return render(request, "dashboard/sessions/session.html", context)


@require_safe
@cached_page
def compared(request: PageRequest, session: str) -> HttpResponse:
    """What is usual, of a page that was shown without it: a fragment that is read after it."""
    teams = filter_bar_of(request).teams
    facts = _facts(request.tenant.id, normal_value(session), teams, may_wait=False)
    context = _compared(facts) | {"total": facts.totals.total}
    return render(request, "dashboard/sessions/later_usual.html", context)


def _facts(
    tenant_id: int, session: str, teams: tuple[str, ...] | None, *, may_wait: bool = True
) -> Facts:
    """What the page is made of; where what is usual `may_wait`, without that if it takes long."""
    try:
        rows = read_steps(
            tenant_id=tenant_id, dimension="session", value=session, teams=teams, limit=EVENTS_MAX
        )
    except NotFound as error:
        raise Http404 from error
    steps = rows[:EVENTS_MAX]
    main = _main(steps)
    last_at = steps[-1].time
    usual = None
    if not may_wait or not are_read_later(tenant_id, last_at - USUAL_LOOK_BACK, last_at):
        costs = earlier_costs(
            tenant_id=tenant_id,
            session=session,
            agent=main[0],
            feature=main[1],
            until=last_at,
            teams=teams,
        )
        usual = Usual(costs)
    totals = read_totals(tenant_id=tenant_id, session=session, teams=teams)
    return Facts(
        steps,
        totals,
        repeats_of(steps),
        usual,
        main,
        _incident(tenant_id, session, teams),
    )


def _main(steps: Sequence[Step]) -> tuple[str, str]:
    """The agent and feature of the costliest part, as the list of sessions has them."""
    costs: Counter[tuple[str, str]] = Counter()
    for step in steps:
        if not step.is_void:
            costs[step.agent, step.feature] += cost_of(step)
    return min(costs, key=lambda pair: (-costs[pair], pair), default=("", ""))


def _subtrees(steps: Sequence[Step]) -> dict[int, int]:
    """What each call and everything below it cost."""
    costs: dict[int, int] = {}
    waiting: list[CallNode[Step]] = build_tree(steps)
    while waiting:
        node = waiting.pop()
        costs[node.event.id] = node.subtree_cost_nanos
        waiting += node.children
    return costs


def _figures(parts: Facts, lines: Sequence[Line]) -> dict[str, object]:
    """The headline, tiles and charts."""
    total, loop = parts.totals.total, parts.loop
    began_at = loop.began_at if loop is not None else None
    looping = {line.number for line in lines if began_at and line.step.time >= began_at}
    models = [(line.number, line.step) for line in lines if line.step.operation != Operation.TOOL]
    traces = {line.step.trace for line in lines if line.step.trace}
    return _compared(parts) | {
        "total": total,
        "calls": total.requests + total.tool_calls,
        "is_truncated": total.requests + total.tool_calls > len(lines),
        "repeats": parts.repeats,
        "loop": loop,
        "loop_begins": min(looping, default=0),
        "shares": [
            (f"By {name}", [row for row in rows if row.key[0]])
            for name, rows in parts.totals.by_dimension.items()
        ],
        "outcome": parts.totals.outcome,
        "shared": _shared(parts.steps),
        "span": lines[0].span,
        "costliest": _costliest(lines),
        "running": chart_of(
            [
                (line.number, line.running_nanos, "fcrit" if line.number in looping else "f1")
                for line in lines
            ]
        ),
        "inputs": chart_of(
            [
                (number, step.input_tokens, "fcrit" if step.id in parts.repeats.times else "f1")
                for number, step in models
            ]
        ),
        "jumps": jumps_of(models, limit=JUMPS_MAX),
        "trace": traces.pop() if len(traces) == 1 else "",
    }


def _compared(facts: Facts) -> dict[str, object]:
    """The headline, and the cost beside what is usual, as far as that is read."""
    usual, nanos = facts.usual, facts.totals.total.cost_nanos
    context: dict[str, Any] = {
        "usual": usual,
        "headline": headline(
            facts.steps,
            cost_nanos=nanos,
            repeats=facts.repeats,
            loop=facts.loop,
            usual=usual,
            whose="/".join(filter(None, facts.main)),
        ),
    }
    if usual is not None:
        context["times_usual"] = times_usual(nanos, usual.median) if usual.is_known else ""
        context["histogram"] = _histogram(usual, nanos)
        context["dearer"] = usual.dearer_than(nanos)
    return context


def _costliest(lines: Sequence[Line]) -> list[Line]:
    """The costliest calls of a session that is too long for one page."""
    ordered = sorted(lines, key=lambda line: (-line.cost_nanos, line.number))
    return ordered[:COSTLIEST_MAX] if len(lines) > LINES_MAX else []


def _histogram(usual: Usual, cost_nanos: int) -> Chart | None:
    if not usual.is_known:
        return None
    marks = [("p50", usual.median), ("p95", usual.p95)]
    return histogram_of(usual.costs, marks, own_nanos=cost_nanos)


def _shared(steps: Sequence[Step]) -> list[tuple[str, list[str]]]:
    """The values of the calls, by dimension; those that have many say how many."""
    return [
        (name, sorted({value for step in steps if (value := getattr(step, name))}))
        for name in SHARED
    ]


def _page_number(request: PageRequest, lines: int) -> int:
    """Which two hundred calls are shown: those with the call that the address names."""
    number = number_of(request.GET.get("call", "")) or 1
    return (min(number, lines) - 1) // LINES_MAX + 1


def _page_query(bar: FilterBar, number: int) -> str:
    return bar.with_further({"call": str((number - 1) * LINES_MAX + 1)}).query()


def _decisions(tenant_id: int, session: str, teams: tuple[str, ...] | None) -> list[DecisionLine]:
    question = DecisionQuestion(tenant_id=tenant_id, session=session, teams=teams)
    rows = list_decisions(question, limit=DECISIONS_MAX)
    budgets = budgets_of_reasons(tenant_id, [reason for row in rows for reason in row.reasons])
    return [
        DecisionLine(
            row,
            [withheld(reason, budgets, teams) or sentence_of(reason) for reason in row.reasons],
        )
        for row in rows
    ]


def _balances(
    tenant_id: int, steps: Sequence[Step], teams: tuple[str, ...] | None
) -> list[BudgetLine]:
    """The budget windows that its last call counts in; a window that others share with a team is
    not shown to those who may see that team alone.
    """
    last = steps[-1]
    values = [""] * len(POSITION)
    for name in POSITION:
        if name in Step._fields and isinstance(value := getattr(last, name), str):
            values[POSITION[name]] = value
    values[POSITION["operation"]] = Operation(last.operation).label
    balances = read_balances(tenant_id, tuple(values), at=last.time)
    return [
        BudgetLine(balance)
        for balance in balances
        if balance.window is not None and is_visible(balance.rule.match, balance.rule.per, teams)
    ]


def _incident(tenant_id: int, session: str, teams: tuple[str, ...] | None) -> Incident | None:
    """The latest incident about this session."""
    rows = Incident.objects.filter(visible_to(teams), tenant_id=tenant_id, cause=f"loop:{session}")
    return rows.order_by("-id").first()


def _halt_query(request: PageRequest, session: str, last_at: datetime, now: datetime) -> str:
    """Where a session that still runs can be halted; empty where there is nothing to stop."""
    if not may_halt(request) or now - last_at > RUNS_WITHIN:
        return ""
    return urlencode({"dimension": "session", "value": session})
