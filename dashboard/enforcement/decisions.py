"""Decisions other than a plain allow: who asked, what was decided, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db import connection
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_safe

from common.cursors import InvalidCursor, read_sort_key, write_cursor
from dashboard.access import PageRequest, member_page
from dashboard.budgets.visible import budgets_of_reasons, is_visible, teams_of, withheld
from dashboard.curl_lines import curl_context
from dashboard.enforcement.matches import pairs_of
from dashboard.enforcement.reasons import amount_of, sentence_of
from dashboard.filter_bar import Choice, FilterBar
from dashboard.findings import decisions_headline
from dashboard.frame import filter_bar_of, frame
from dashboard.paging import number_of
from metering.budgets.levels import SEVERITY
from metering.core.dimensions import DIMENSIONS
from metering.limits.decisions import DecisionQuestion, list_decisions
from metering.limits.halts import CODE_BY_KIND
from metering.models import Budget, Decision, Reservation
from tenants.roles import Scope

PER_PAGE: Final = 50
# The newest of the period that are counted for the choices, however many there are.
COUNTED_MAX: Final = 10_000
DECISION_WORDS: Final = {
    "refuse": "Refused",
    "downgrade": "Cheaper model",
    "allow": "Allowed with warning",
    "open": "Breaker opened",
    "close": "Breaker closed",
}
HALT_WORDS: Final = {
    "manual": "Halted manually",
    "breaker": "Halted by a breaker",
    "lockout": "Locked out by a budget's level",
}
HALT_CODES: Final = frozenset(CODE_BY_KIND.values())
# What a reason says of itself, in the order in which it is shown.
FACT_WORDS: Final = {
    "mode": "Mode",
    "action": "Action",
    "level_percent": "Level",
    "part": "Part",
    "limit": "Limit at this level",
    "spent": "Spent",
    "reserved": "Reserved",
    "asked": "Requested",
    "wait_seconds": "Wait",
    "window_start": "Window since",
    "since": "Since",
}
TIMES: Final = frozenset({"window_start", "since"})
UNITS: Final = {"level_percent": " %", "wait_seconds": " s"}
_COUNTS: Final = """
    SELECT decision, code, agent, count(*) FROM (
        SELECT decision, code, agent FROM decision
        WHERE tenant_id = %s AND decided_at >= %s AND decided_at < %s
            AND (%s::text[] IS NULL OR dimensions ->> 'team' = ANY(%s))
        ORDER BY decided_at DESC, id DESC LIMIT %s
    ) newest GROUP BY decision, code, agent
"""


@dataclass(frozen=True)
class Filter:
    """What the page was asked to show. The agent is a chip of the filter bar."""

    bar: FilterBar
    decision: str = ""
    code: str = ""
    budget_id: int | None = None
    # Whose calls the person sees; None: everyone's.
    teams: tuple[str, ...] | None = None

    @property
    def agent(self) -> str | None:
        agents = self.bar.filters.get("agent", [])
        return agents[0] if len(agents) == 1 else None

    @property
    def further(self) -> dict[str, str]:
        """What is asked for besides the filter bar, as an address has it."""
        pairs = {"decision": self.decision, "code": self.code, "budget": str(self.budget_id or "")}
        return {name: value for name, value in pairs.items() if value}

    @property
    def is_narrow(self) -> bool:
        return bool(self.further) or self.agent is not None

    def query(self, **changes: Any) -> str:
        """This filter, changed, as a query string."""
        changed = replace(self, **changes)
        return changed.bar.with_further(changed.further).query()

    def question(self, tenant_id: int) -> DecisionQuestion:
        return DecisionQuestion(
            tenant_id=tenant_id,
            starts_at=self.bar.range.starts_at,
            ends_at=self.bar.range.ends_at,
            agent=self.agent,
            decision=self.decision or None,
            code=self.code or None,
            budget_id=self.budget_id,
            teams=self.teams,
        )


class Fact(NamedTuple):
    """Something that a reason says of itself; `at` where it is a time."""

    words: str
    text: str
    at: datetime | None = None


class Reason(NamedTuple):
    """One of a decision's reasons, for people."""

    title: str
    group: list[tuple[str, list[str]]]
    detail: str
    attributes: list[Fact]
    budget_query: str


@dataclass(frozen=True)
class DecisionLine:
    """A decision as the page shows it; of a cheaper model, what it was used instead of."""

    row: Decision
    reasons: list[Reason]
    reservation: Reservation | None

    @property
    def words(self) -> str:
        return DECISION_WORDS.get(self.row.decision, self.row.decision)

    @property
    def is_asked(self) -> bool:
        """Whether a call asked for it: breakers open and close by what was reported."""
        return self.row.decision not in {"open", "close"}

    @property
    def stopped_early(self) -> str:
        """Why there is no amount, in words; empty where there is one."""
        if not self.is_asked:
            return "Breakers act on reported usage"
        is_halted = self.row.code in HALT_CODES and not self.row.asked_nanos
        return "Stopped before its cost was checked" if is_halted else ""

    @property
    def further_dimensions(self) -> list[tuple[str, str]]:
        values = self.row.dimensions
        return [(name, values[name]) for name in DIMENSIONS if name != "agent" and name in values]

    @property
    def sentence(self) -> str:
        return self.reasons[0].detail if self.reasons else "No reason was recorded."


@require_safe
@member_page
def page(request: PageRequest) -> HttpResponse:
    """Decisions of the period, newest first."""
    chosen = _read_filter(request)
    after, chosen = _read_cursor(request.GET.get("cursor"), chosen)
    rows = list_decisions(chosen.question(request.tenant.id), limit=PER_PAGE + 1, after=after)
    counts = _counts(request.tenant.id, chosen)
    context = frame(request, chosen.bar.with_further(chosen.further), page="decisions") | {
        "headline": _headline(chosen, counts),
        "lines": _lines(request.tenant.id, chosen, rows[:PER_PAGE]),
        "older": _older_query(chosen, rows) if len(rows) > PER_PAGE else None,
        "newest": chosen.query() if after else None,
        "decisions": _decision_choices(chosen, counts),
        "codes": _code_choices(chosen, counts),
        "agents": _agent_choices(chosen, counts),
        "budget": _budget(request.tenant.id, chosen),
        "without_budget": chosen.query(budget_id=None),
        "is_narrow": chosen.is_narrow,
        "cleared": chosen.bar.without_chips().with_further({}).query(),
        "month": chosen.query(bar=chosen.bar.with_period("30d")),
    }
    if not rows and not chosen.is_narrow:
        context |= curl_context(request, Scope.ENFORCE)
    return render(request, "dashboard/enforcement/decisions.html", context)


def _read_filter(request: PageRequest) -> Filter:
    """The filter of an address. What is not understood is left out and said."""
    bar = filter_bar_of(request)
    notices = list(bar.notices)
    others = [name for name in bar.filters if name != "agent"]
    if others or len(bar.filters.get("agent", [])) > 1:
        notices.append(
            "Decisions can be filtered by one agent only; other filters are kept for other pages."
        )
    decision = request.GET.get("decision", "")
    if decision and decision not in DECISION_WORDS:
        notices.append("This kind of decision is not known, so all are shown.")
        decision = ""
    return Filter(
        bar=replace(bar, notices=tuple(notices)),
        decision=decision,
        code=request.GET.get("code", "").replace("\0", ""),
        budget_id=number_of(request.GET.get("budget", "")),
        teams=teams_of(request),
    )


def _read_cursor(text: str | None, chosen: Filter) -> tuple[tuple[datetime, int] | None, Filter]:
    """Where the page before ended. An address that was edited starts over."""
    if text is None:
        return None, chosen
    try:
        decided_at, decision_id = read_sort_key(text, [datetime, int])
    except InvalidCursor:
        notices = (*chosen.bar.notices, "This page is not known, so the newest are shown.")
        return None, replace(chosen, bar=replace(chosen.bar, notices=notices))
    return (decided_at, decision_id), chosen


def _older_query(chosen: Filter, rows: Sequence[Decision]) -> str:
    last = rows[PER_PAGE - 1]
    cursor = write_cursor([last.decided_at, last.id])
    return chosen.bar.with_further({**chosen.further, "cursor": cursor}).query()


# Decision, code and agent, and how many there are of them.
Counts = Mapping[tuple[str, str, str], int]


def _counts(tenant_id: int, chosen: Filter) -> Counts:
    span = chosen.bar.range
    teams = None if chosen.teams is None else list(chosen.teams)
    with connection.cursor() as cursor:
        cursor.execute(
            _COUNTS, [tenant_id, span.starts_at, span.ends_at, teams, teams, COUNTED_MAX]
        )
        return {(decision, code, agent): count for decision, code, agent, count in cursor}


def _totals(counts: Counts, index: int, **wanted: str | None) -> Counter[str]:
    """Sums by decision, code or agent (`place`), of those that agree with what is wanted."""
    names = ("decision", "code", "agent")
    totals: Counter[str] = Counter()
    for key, count in counts.items():
        if all(value in (None, key[names.index(name)]) for name, value in wanted.items()):
            totals[key[index]] += count
    return totals


def _headline(chosen: Filter, counts: Counts) -> str:
    decision = chosen.decision or "refuse"
    wanted = {"decision": decision, "code": chosen.code or None, "agent": chosen.agent}
    return decisions_headline(
        decision,
        _totals(counts, 2, **wanted),
        is_capped=sum(counts.values()) >= COUNTED_MAX,
    )


def _decision_choices(chosen: Filter, counts: Counts) -> list[Choice]:
    totals = _totals(counts, 0, code=chosen.code or None, agent=chosen.agent)
    choices = [Choice(chosen.query(decision=""), "All", totals.total(), not chosen.decision)]
    return choices + [
        Choice(chosen.query(decision=name), words, totals[name], name == chosen.decision)
        for name, words in DECISION_WORDS.items()
        if totals[name] or name == chosen.decision
    ]


def _code_choices(chosen: Filter, counts: Counts) -> list[Choice]:
    totals = _totals(counts, 1, decision=chosen.decision or None, agent=chosen.agent)
    known = [name for name, _ in totals.most_common() if name]
    if chosen.code and chosen.code not in known:
        known.append(chosen.code)
    choices = [Choice(chosen.query(code=""), "Any code", totals.total(), not chosen.code)]
    return choices + [
        Choice(chosen.query(code=name), name, totals[name], name == chosen.code) for name in known
    ]


def _agent_choices(chosen: Filter, counts: Counts) -> list[Choice]:
    totals = _totals(counts, 2, decision=chosen.decision or None, code=chosen.code or None)
    known = [name for name, _ in totals.most_common(100)]
    if chosen.agent is not None and chosen.agent not in known:
        known.append(chosen.agent)
    choices = [
        Choice(_agent_query(chosen, None), "Any agent", totals.total(), chosen.agent is None)
    ]
    return choices + [
        Choice(_agent_query(chosen, name), name, totals[name], name == chosen.agent)
        for name in known
    ]


def _agent_query(chosen: Filter, agent: str | None) -> str:
    return chosen.query(bar=chosen.bar.with_only("agent", agent))


def _budget(tenant_id: int, chosen: Filter) -> Budget | None:
    if chosen.budget_id is None:
        return None
    budget = Budget.objects.filter(tenant_id=tenant_id, id=chosen.budget_id).first()
    is_shown = budget is not None and is_visible(budget.match, budget.per, chosen.teams)
    return budget if is_shown else None


def _lines(tenant_id: int, chosen: Filter, rows: Sequence[Decision]) -> list[DecisionLine]:
    ids = [row.reservation_id for row in rows if row.decision == "downgrade" and row.reservation_id]
    reservations: dict[UUID | None, Reservation] = {
        reservation.id: reservation
        for reservation in Reservation.objects.filter(tenant_id=tenant_id, id__in=ids)
    }
    budgets = budgets_of_reasons(tenant_id, [reason for row in rows for reason in row.reasons])
    return [
        DecisionLine(
            row,
            [_reason(reason, chosen, budgets) for reason in sorted(row.reasons, key=_weight)],
            reservations.get(row.reservation_id),
        )
        for row in rows
    ]


def _weight(reason: Mapping[str, object]) -> tuple[bool, int]:
    """What decided comes before what only objects, and the most severe first."""
    action = "block" if reason.get("action") == "unpriced" else reason.get("action")
    return reason.get("mode", "enforce") != "enforce", -SEVERITY.get(str(action), 0)


def _reason(reason: Mapping[str, Any], chosen: Filter, budgets: Mapping[int, Budget]) -> Reason:
    if words := withheld(reason, budgets, chosen.teams):
        return Reason(title="Another rule", group=[], detail=words, attributes=[], budget_query="")
    detail = sentence_of(reason)
    if "halt" in reason and "kind" in reason:
        detail = f"{HALT_WORDS.get(reason['kind'], 'Halted')}: {detail}"
    elif "breaker" in reason:
        detail = f"Breaker “{reason.get('name', '')}”: {detail}"
    kinds = {"budget": "Budget", "breaker": "Breaker", "rate_limit": "Rate limit", "halt": "Halt"}
    kind = next((words for name, words in kinds.items() if name in reason), "Reason")
    name = reason.get("name")
    budget_id = reason.get("budget")
    return Reason(
        title=f"{kind} “{name}”" if name else kind,
        group=pairs_of(reason.get("group") or reason.get("match") or {}),
        detail=detail,
        attributes=[fact for key in FACT_WORDS if (fact := _fact(reason, key)) is not None],
        budget_query=chosen.query(budget_id=budget_id) if isinstance(budget_id, int) else "",
    )


def _fact(reason: Mapping[str, object], key: str) -> Fact | None:
    """A fact in words; None where the reason does not have it."""
    words, value = FACT_WORDS[key], reason.get(key)
    if f"{key}_usd" in reason:
        return Fact(words, amount_of(reason, key))
    if value is None:
        return None
    if key in TIMES:
        return Fact(words, str(value), parse_datetime(str(value)))
    if key == "part":
        return Fact(words, "cost" if value == "cost_usd" else str(value).replace("_", " "))
    return Fact(words, f"{value:,}{UNITS.get(key, '')}" if isinstance(value, int) else str(value))
