"""Admission ruled on: whether a call may be made that asks before spending, and by what.

Runs within the transaction that holds the locks of every window and pace it looks at, so what it
compares cannot change before what it grants is written.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from metering.budgets.index import WindowKey
from metering.budgets.levels import (
    REFUSING,
    SEVERITY,
    Passed,
    WindowBalance,
    passed_level,
    passes_a_level,
    throttle_rate,
)
from metering.budgets.rules import BudgetRule
from metering.ledger.windows import WindowState
from metering.limits.limit_reductions import ActiveLimitReduction
from metering.limits.rate_counters import RateCounterKey, RateCounterState
from metering.limits.rate_limits import RateRule
from metering.reservations.answers import BudgetRoom
from metering.reservations.request import Candidate
from metering.snapshot import Configuration
from tenants.models import UnpricedPolicy

ENFORCE: Final = "enforce"


class Request(Protocol):
    """What is looked at of a reservation request; `cheaper` only if a level wants it."""

    @property
    def key_prefix(self) -> str: ...
    @property
    def candidate(self) -> Candidate: ...
    @property
    def cheaper(self) -> Candidate | None: ...


class Objection(NamedTuple):
    """A level of one budget that a candidate would pass; without a level, its cost is unknown.

    `key` and `window` are of a locked window; a budget on single calls has none.
    """

    rule: BudgetRule
    key: WindowKey | None
    window: WindowState | None
    balance: WindowBalance
    passed: Passed | None
    # Of a level that throttles: how long the call has to wait, and what counts a grant.
    wait_seconds: int = 0
    pace: RateCounterState | None = None

    @property
    def action(self) -> str:
        return "unpriced" if self.passed is None else self.passed.level.action

    @property
    def refuses(self) -> bool:
        if self.rule.mode != ENFORCE:
            return False
        passed = self.passed
        return passed is None or passed.level.action in REFUSING or self.wait_seconds > 0

    @property
    def wants_cheaper(self) -> bool:
        """Whether a level asks for a cheaper model: the one that is passed, or one below it."""
        passed, percent = self.passed, self.rule.downgrade_percent
        if passed is None or percent is None or self.rule.mode != ENFORCE:
            return False
        return percent <= passed.level.percent


class Assessment(NamedTuple):
    """A candidate held against every budget: what objects, and refuses, the most severe first."""

    candidate: Candidate
    objections: Sequence[Objection]
    refusals: Sequence[Objection]
    wants_cheaper: bool


class _Place(NamedTuple):
    """A budget, and the locked window that it is judged by; a budget on single calls has none."""

    rule: BudgetRule
    key: WindowKey | None
    window: WindowState | None
    balance: WindowBalance


class Ruling(NamedTuple):
    """What was decided on a request, before anything is put into words.

    `granted` is the candidate that was asked for or a cheaper one. Without it, `refusals` refuse,
    the most severe first; or, if there are none, the rate limit does.
    """

    asked: Assessment
    granted: Assessment | None
    refusals: Sequence[Objection] = ()
    # The rate limit that the candidate would wait for longest.
    rate_limit: RateRule | None = None
    wait_seconds: int = 0

    @property
    def is_downgrade(self) -> bool:
        return self.granted is not None and self.granted is not self.asked


class Judge:
    """Rules on the requests of one transaction, one after the other: each sees what those before
    it hold.

    `balances` are the locked windows by id. Grants are added to them and to the paces. A
    simulation drives `rule_on` over windows in memory.
    """

    def __init__(
        self,
        *,
        configuration: Configuration,
        windows: Mapping[int, WindowState],
        balances: Mapping[int, WindowBalance],
        rate_counters: Mapping[RateCounterKey, RateCounterState],
        limit_reductions: Sequence[ActiveLimitReduction],
        now: datetime,
    ) -> None:
        self.configuration = configuration
        self.book = configuration.budgets
        self.windows = windows
        self.balances = balances
        self.rate_counters = rate_counters
        self.limit_reductions = limit_reductions
        self.now = now
        # By window, what the answers to this transaction's calls say of it alike.
        self.answers: dict[int, BudgetRoom] = {}

    def rule_on(self, request: Request) -> Ruling:
        """Grant what is asked, or a cheaper model, or nothing; what is granted is held."""
        asked = chosen = self._assess(request.candidate)
        if asked.wants_cheaper and (cheaper := request.cheaper) is not None:
            assessment = self._assess(cheaper)
            if not assessment.refusals:
                chosen = assessment
        if chosen.refusals:
            return Ruling(asked, None, asked.refusals)
        candidate = chosen.candidate
        if not self.configuration.rate_limits:
            self._hold(chosen, ())
            return Ruling(asked, chosen)
        limits = self._rate_paces(request, candidate)
        wait_seconds, rate_limit = self._longest_wait(limits, candidate, is_enforced=True)
        if rate_limit is not None:
            return Ruling(asked, None, (), rate_limit, wait_seconds)
        wait_seconds, rate_limit = self._longest_wait(limits, candidate, is_enforced=False)
        self._hold(chosen, [pace for _, pace in limits])
        return Ruling(asked, chosen, (), rate_limit, wait_seconds)

    def _assess(self, candidate: Candidate) -> Assessment:
        limit_percent = 100
        if self.limit_reductions:
            limit_percent = min(
                [
                    limit_reduction.limit_percent
                    for limit_reduction in self.limit_reductions
                    if limit_reduction.matches(candidate.values)
                ],
                default=100,
            )
        objections: list[Objection] = []
        book, balances, now = self.book, self.balances, self.now
        rules, window_ids, asked = book.rules, book.window_ids, candidate.checked
        is_priced = not candidate.is_unpriced
        for key in candidate.windows:
            rule, window_id = rules[key[0]], window_ids[key]
            balance = balances[window_id]
            if is_priced and not passes_a_level(
                rule, balance, asked, now=now, limit_percent=limit_percent
            ):
                continue
            assessed = _Place(rule, key, self.windows[window_id], balance)
            objections += self._object(candidate, assessed, limit_percent)
        for rule in book.request_rules:
            if rule.group(candidate.values) is not None and self.now >= rule.counts_from:
                balance = WindowBalance(raised=rule.raised("", self.now))
                assessed = _Place(rule, None, None, balance)
                objections += self._object(candidate, assessed, limit_percent)
        if not objections:
            return Assessment(candidate, (), (), wants_cheaper=False)
        refusals = [objection for objection in objections if objection.refuses]
        refusals.sort(key=lambda refusal: -SEVERITY.get(refusal.action, SEVERITY["block"]))
        wants_cheaper = any([objection.wants_cheaper for objection in objections])  # noqa: C419 - faster
        return Assessment(candidate, objections, refusals, wants_cheaper)

    def _object(
        self, candidate: Candidate, assessed: _Place, limit_percent: int
    ) -> Sequence[Objection]:
        """Return the objection of a budget, if it has one."""
        rule, _, window, balance = assessed
        if candidate.is_unpriced and self.refuses_unpriced(rule):
            return (Objection(*assessed, None),)
        passed = passed_level(
            rule, balance, candidate.checked, now=self.now, limit_percent=limit_percent
        )
        if passed is None:
            return ()
        if passed.level.action != "throttle" or window is None:
            return (Objection(*assessed, passed),)
        pace, wait_seconds = self._throttle(rule, passed, window, balance, candidate)
        return (Objection(*assessed, passed, wait_seconds, pace),)

    def refuses_unpriced(self, rule: BudgetRule) -> bool:
        """Whether a call whose cost no one knows is refused by a budget that is enforced."""
        is_refused = self.configuration.unpriced_policy == UnpricedPolicy.REFUSE
        return is_refused and rule.refuses and rule.limit_parts[0] is not None

    def _throttle(
        self,
        rule: BudgetRule,
        passed: Passed,
        window: WindowState,
        balance: WindowBalance,
        candidate: Candidate,
    ) -> tuple[RateCounterState, int]:
        """Return the pace that a throttling level counts in, and how long the call has to wait."""
        pace = self.rate_counters[throttle_key(window.id, passed.level.percent)]
        nanos, tokens = throttle_rate(
            rule, passed.level, balance, ends_at=window.ends_at, now=self.now
        )
        minute = pace.minute
        minute.advance(int(self.now.timestamp()))
        waits = [0]
        if nanos is not None:
            waits.append(minute.seconds_until("nanos", candidate.checked.cost_nanos, nanos))
        if tokens is not None:
            waits.append(minute.seconds_until("tokens", candidate.checked.tokens, tokens))
        return pace, max(waits)

    def _hold(self, granted: Assessment, limits: Iterable[RateCounterState]) -> None:
        candidate = granted.candidate
        amounts = candidate.amounts
        throttles = [each.pace for each in granted.objections if each.pace is not None]
        for pace in (*throttles, *limits):
            pace.add(
                nanos=amounts.cost_nanos,
                tokens=amounts.tokens,
                requests=amounts.requests + amounts.tool_calls,
            )
        for key in candidate.windows:
            balance = self.balances[self.book.window_ids[key]]
            balance.hold(amounts)
            if balance.first_used_at is None:
                balance.first_used_at = self.now

    def _rate_paces(
        self, request: Request, candidate: Candidate
    ) -> list[tuple[RateRule, RateCounterState]]:
        return [
            (rule, self.rate_counters[key])
            for rule in self.configuration.rate_limits
            if (key := rate_key(rule, request, candidate)) is not None
        ]

    def _longest_wait(
        self,
        limits: Sequence[tuple[RateRule, RateCounterState]],
        candidate: Candidate,
        *,
        is_enforced: bool,
    ) -> tuple[int, RateRule | None]:
        """Return the rate limit that the candidate waits for longest, of those that are enforced
        or of those that are not.
        """
        longest: tuple[int, RateRule | None] = (0, None)
        for rule, pace in limits:
            if (rule.mode == ENFORCE) is is_enforced:
                seconds = rule.wait_seconds(pace, candidate.checked, now=self.now)
                if seconds > longest[0]:
                    longest = (seconds, rule)
        return longest


def throttle_key(window_id: int, percent: int) -> RateCounterKey:
    """Return the pace of a level that throttles, in one window."""
    return RateCounterKey(f"level:{window_id}:{percent}", "")


def rate_key(rule: RateRule, request: Request, candidate: Candidate) -> RateCounterKey | None:
    """Return the pace that a rate limit counts a call in; None if it does not match the call."""
    group = rule.group(candidate.values, key_prefix=request.key_prefix)
    return None if group is None else RateCounterKey(rule.subject, group)
