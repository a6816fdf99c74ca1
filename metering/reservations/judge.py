"""What becomes of a call that asks before spending: the one place that decides.

Runs within the transaction that holds the locks of every window and pace it looks at, so what it
compares cannot change before what it grants is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final, NamedTuple, Protocol

from common.errors import ApprovalNeeded, BudgetExceeded, Halted, MeteringError, Throttled, Unpriced
from common.formats import moment
from common.money import usd_from_nanos
from metering.budgets.index import WindowKey
from metering.budgets.levels import (
    REFUSING,
    SEVERITY,
    Passed,
    Room,
    pace_of,
    passed_level,
    use_of,
)
from metering.budgets.rules import BudgetRule
from metering.core.amounts import Amounts
from metering.ledger.windows import WindowState
from metering.limits.halts import StandingHalt, match_of_group
from metering.limits.rate_counters import PaceKey, PaceState
from metering.limits.rate_limits import RateRule
from metering.limits.throttles import StandingTightening
from metering.pricing.model_names import near_model
from metering.reservations.request import Ask, Offer
from metering.snapshot import Configuration
from tenants.models import UnpricedPolicy

ENFORCE: Final = "enforce"
SHADOW: Final = "shadow"


class Lockout(NamedTuple):
    """A level that locks out, passed by a call: the halt it asks for."""

    rule: BudgetRule
    window: WindowState | None
    percent: int
    match: dict[str, Any]
    reason: str


class RaiseWish(NamedTuple):
    """A level that holds, passed by a call: the raise that a person is asked for."""

    rule: BudgetRule
    window: WindowState
    percent: int
    asked: Amounts
    reason: str


@dataclass
class Verdict:
    """What was decided, and why. `offer` is what is granted; without one, `error` says why not."""

    ask: Ask
    offer: Offer | None = None
    error: MeteringError | None = None
    is_downgrade: bool = False
    reasons: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    budgets: list[dict[str, Any]] = field(default_factory=list)
    lockout: Lockout | None = None
    wish: RaiseWish | None = None

    @property
    def decision(self) -> str:
        """allow, downgrade or refuse."""
        if self.error is not None:
            return "refuse"
        return "downgrade" if self.is_downgrade else "allow"

    @property
    def is_plain(self) -> bool:
        """Whether nothing but an allow is to be told of it."""
        return self.error is None and not self.is_downgrade and not self.reasons


class _Objection(NamedTuple):
    """A level of one budget that an offer would pass; without a level, a cost nobody knows."""

    rule: BudgetRule
    key: WindowKey | None
    window: WindowState | None
    room: Room
    passed: Passed | None
    # Of a level that throttles: how long the call has to wait, and what a grant is counted by.
    wait_seconds: int = 0
    pace: PaceState | None = None

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


class _Weighed(NamedTuple):
    """An offer held against every budget: what objects, and refuses, the most severe first."""

    offer: Offer
    objections: Sequence[_Objection]
    refusals: Sequence[_Objection]
    wants_cheaper: bool


class Request(Protocol):
    """What is looked at of a reservation request; `cheaper` only if a level wants it."""

    @property
    def key_prefix(self) -> str: ...
    @property
    def offer(self) -> Offer: ...
    @property
    def cheaper(self) -> Offer | None: ...


class Ruling(NamedTuple):
    """What was decided on a request, before anything is put into words.

    `granted` is the offer that was asked for or a cheaper one. Without it, `refusals` refuse, the
    most severe first; or, if there are none, the rate limit does.
    """

    asked: _Weighed
    granted: _Weighed | None
    refusals: Sequence[_Objection] = ()
    # The rate limit that the offer would wait for longest.
    rate_limit: RateRule | None = None
    wait_seconds: int = 0

    @property
    def is_downgrade(self) -> bool:
        return self.granted is not None and self.granted is not self.asked


class Judge:
    """Decides the asks of one transaction, one after the other: each sees what those before hold.

    `rooms` are the locked windows by id. Grants are added to them and to the paces. A simulation
    drives `rule_on` alone, over windows in memory.
    """

    def __init__(
        self,
        *,
        configuration: Configuration,
        windows: Mapping[int, WindowState],
        rooms: Mapping[int, Room],
        paces: Mapping[PaceKey, PaceState],
        tightenings: Sequence[StandingTightening],
        now: datetime,
    ) -> None:
        self.configuration = configuration
        self.book = configuration.budgets
        self.windows = windows
        self.rooms = rooms
        self.paces = paces
        self.tightenings = tightenings
        self.now = now

    def decide(self, ask: Ask) -> Verdict:
        """Rule on a request, and say why."""
        ruling = self.rule_on(ask)
        verdict = Verdict(ask, is_downgrade=ruling.is_downgrade)
        if ruling.refusals:
            return self._refuse(verdict, ruling)
        if ruling.granted is None:
            return self._refuse_by_rate(verdict, ruling)
        return self._grant(verdict, ruling, ruling.granted)

    def rule_on(self, request: Request) -> Ruling:
        """Grant what is asked, or a cheaper model, or nothing; what is granted is held."""
        asked = chosen = self._weigh(request.offer)
        if asked.wants_cheaper and (cheaper := request.cheaper) is not None:
            weighed = self._weigh(cheaper)
            if not weighed.refusals:
                chosen = weighed
        if chosen.refusals:
            return Ruling(asked, None, asked.refusals)
        offer = chosen.offer
        if not self.configuration.rate_limits:
            self._hold(chosen, ())
            return Ruling(asked, chosen)
        limits = self._rate_paces(request, offer)
        wait_seconds, rate_limit = self._longest_wait(limits, offer, ENFORCE)
        if rate_limit is not None:
            return Ruling(asked, None, (), rate_limit, wait_seconds)
        wait_seconds, rate_limit = self._longest_wait(limits, offer, None)
        self._hold(chosen, limits)
        return Ruling(asked, chosen, (), rate_limit, wait_seconds)

    def _weigh(self, offer: Offer) -> _Weighed:
        limit_percent = 100
        if self.tightenings:
            matching = [one for one in self.tightenings if one.matches(offer.values)]
            limit_percent = min([one.limit_percent for one in matching], default=100)
        objections: list[_Objection] = []
        book = self.book
        for key in offer.windows:
            window_id = book.window_ids[key]
            window, room = self.windows[window_id], self.rooms[window_id]
            place = _Place(book.rules[key.budget_id], key, window, room)
            objections += self._object(offer, place, limit_percent)
        for rule in book.request_rules:
            if rule.group(offer.values) is not None and self.now >= rule.counts_from:
                place = _Place(rule, None, None, Room(raised=rule.raised("", self.now)))
                objections += self._object(offer, place, limit_percent)
        if not objections:
            return _Weighed(offer, (), (), wants_cheaper=False)
        refusals = [one for one in objections if one.refuses]
        refusals.sort(key=lambda one: -SEVERITY.get(one.action, SEVERITY["block"]))
        wants_cheaper = any([one.wants_cheaper for one in objections])  # noqa: C419 - faster
        return _Weighed(offer, objections, refusals, wants_cheaper)

    def _object(self, offer: Offer, place: "_Place", limit_percent: int) -> Sequence[_Objection]:
        """Return the objection of a budget, if it has one."""
        rule, _, window, room = place
        if offer.is_unpriced and self.refuses_unpriced(rule):
            return (_Objection(*place, None),)
        passed = passed_level(rule, room, offer.checked, now=self.now, limit_percent=limit_percent)
        if passed is None:
            return ()
        if passed.level.action != "throttle" or window is None:
            return (_Objection(*place, passed),)
        pace, wait_seconds = self._throttle(rule, passed, window, room, offer)
        return (_Objection(*place, passed, wait_seconds, pace),)

    def refuses_unpriced(self, rule: BudgetRule) -> bool:
        """Whether a call whose cost no one knows is refused by a budget that is enforced."""
        is_refused = self.configuration.unpriced_policy == UnpricedPolicy.REFUSE
        return is_refused and rule.refuses and rule.limit_parts[0] is not None

    def _throttle(
        self, rule: BudgetRule, passed: Passed, window: WindowState, room: Room, offer: Offer
    ) -> tuple[PaceState, int]:
        """The pace that a throttling level goes by, and how long the call has to wait for it."""
        pace = self.paces[throttle_key(window.id, passed.level.percent)]
        nanos, tokens = pace_of(rule, passed.level, room, ends_at=window.ends_at, now=self.now)
        minute = pace.minute
        minute.advance(int(self.now.timestamp()))
        waits = [0]
        if nanos is not None:
            waits.append(minute.seconds_until("nanos", offer.checked.cost_nanos, nanos))
        if tokens is not None:
            waits.append(minute.seconds_until("tokens", offer.checked.tokens, tokens))
        return pace, max(waits)

    def _hold(self, granted: _Weighed, limits: Sequence[tuple[RateRule, PaceState]]) -> None:
        offer = granted.offer
        throttles = [one.pace for one in granted.objections if one.pace is not None]
        for pace in (*throttles, *[pace for _, pace in limits]):
            pace.add(
                nanos=offer.amounts.cost_nanos,
                tokens=offer.amounts.tokens,
                requests=offer.amounts.requests + offer.amounts.tool_calls,
            )
        for key in offer.windows:
            room = self.rooms[self.book.window_ids[key]]
            room.hold(offer.amounts)
            if room.first_used_at is None:
                room.first_used_at = self.now

    def _grant(self, verdict: Verdict, ruling: Ruling, granted: _Weighed) -> Verdict:
        if verdict.is_downgrade:
            asked = ruling.asked
            verdict.reasons += [self._reason(one, asked.offer) for one in asked.objections]
        elif ruling.asked.wants_cheaper:
            verdict.warnings.append(
                {
                    "code": "no_cheaper_model",
                    "detail": "A budget asks for a cheaper model, and no route names one"
                    " for this call.",
                }
            )
        if ruling.rate_limit is not None:
            self._note_rate(verdict, ruling.rate_limit, ruling.wait_seconds)
        self._tell(verdict, granted)
        verdict.offer = granted.offer
        verdict.budgets = self._budgets(granted.offer, refusing=())
        return verdict

    def _tell(self, verdict: Verdict, weighed: _Weighed) -> None:
        """Record what objects without refusing; a shadow budget's objections are not told."""
        for objection in weighed.objections:
            if not verdict.is_downgrade or objection.rule.mode != ENFORCE:
                verdict.reasons.append(self._reason(objection, weighed.offer))
            if objection.rule.mode != SHADOW:
                verdict.warnings.append(self._warning(objection, weighed.offer))

    def _refuse(self, verdict: Verdict, ruling: Ruling) -> Verdict:
        refusals, offer = ruling.refusals, ruling.asked.offer
        first = refusals[0]
        verdict.reasons += [self._reason(one, offer) for one in ruling.asked.objections]
        verdict.budgets = self._budgets(offer, refusing=refusals)
        detail = self._detail(first, offer)
        facts = {"budgets": verdict.budgets, **wait_part(self._free_at(refusals), now=self.now)}
        if first.action == "throttle":
            verdict.error = Throttled(
                f"{detail} Ask again in {first.wait_seconds} s.",
                retry_after_seconds=first.wait_seconds,
                budgets=verdict.budgets,
            )
        elif first.action == "unpriced":
            verdict.error = Unpriced(detail, budgets=verdict.budgets)
        elif first.action == "hold":
            verdict.error = ApprovalNeeded(
                f"{detail} A person has been asked to raise the limit.", **facts
            )
            verdict.wish = self._wish(first, offer, detail)
        else:
            verdict.error = BudgetExceeded(detail, **facts)
            if first.action == "lockout":
                verdict.lockout = self._lockout(first, detail)
        return verdict

    def _free_at(self, refusals: Sequence[_Objection]) -> datetime | None:
        """When windows begin in which nothing is used yet, in place of all that refuse; None where
        time alone helps nothing, or where nobody knows when.
        """
        ends = []
        for each in refusals:
            if each.wait_seconds:
                ends.append(self.now + timedelta(seconds=each.wait_seconds))
                continue
            passed, ends_at = each.passed, each.window and each.window.ends_at
            # A call that is larger than the whole fits into no window.
            if passed is None or ends_at is None or passed.asked > passed.limit:
                return None
            ends.append(ends_at)
        return max(ends)

    def _lockout(self, objection: _Objection, detail: str) -> Lockout:
        assert objection.passed is not None
        rule, key = objection.rule, objection.key
        group = key.group if key is not None else ()
        match = match_of_group(rule.match, rule.per, group)
        return Lockout(rule, objection.window, objection.passed.level.percent, match, detail)

    def _wish(self, objection: _Objection, offer: Offer, detail: str) -> RaiseWish | None:
        if objection.window is None or objection.passed is None:
            return None
        return RaiseWish(
            objection.rule,
            objection.window,
            objection.passed.level.percent,
            offer.amounts,
            detail,
        )

    def _rate_paces(self, request: Request, offer: Offer) -> list[tuple[RateRule, PaceState]]:
        found = []
        for rule in self.configuration.rate_limits:
            key = rate_key(rule, request, offer)
            if key is not None:
                found.append((rule, self.paces[key]))
        return found

    def _longest_wait(
        self, limits: Sequence[tuple[RateRule, PaceState]], offer: Offer, mode: str | None
    ) -> tuple[int, RateRule | None]:
        """The rate limit that the offer waits for longest; of `mode`, or (None) of all others."""
        wait_seconds, slowest = 0, None
        for rule, pace in limits:
            if (rule.mode == ENFORCE) != (mode == ENFORCE):
                continue
            seconds = rule.wait_seconds(pace, offer.checked, now=self.now)
            if seconds > wait_seconds:
                wait_seconds, slowest = seconds, rule
        return wait_seconds, slowest

    def _refuse_by_rate(self, verdict: Verdict, ruling: Ruling) -> Verdict:
        rule, wait_seconds = ruling.rate_limit, ruling.wait_seconds
        assert rule is not None, "what no budget refuses, a rate limit does"
        detail = (
            f"The rate limit {rule.name!r} has no room for this call within this minute."
            f" Ask again in {wait_seconds} s."
        )
        verdict.error = Throttled(detail, retry_after_seconds=wait_seconds)
        verdict.reasons = [_rate_reason(rule, detail)]
        return verdict

    def _note_rate(self, verdict: Verdict, rule: RateRule, wait_seconds: int) -> None:
        detail = f"The rate limit {rule.name!r} would make this call wait for {wait_seconds} s."
        verdict.reasons.append(_rate_reason(rule, detail))
        if rule.mode != SHADOW:
            verdict.warnings.append({"code": "throttled", "detail": detail})

    def _budgets(self, offer: Offer, *, refusing: Sequence[_Objection]) -> list[dict[str, Any]]:
        """Every matching window as the contract shows it; with refusals, those are marked."""
        refused = {(one.rule.id, one.window.id if one.window else None) for one in refusing}
        rows = []
        for key in offer.windows:
            window_id = self.book.window_ids[key]
            rule = self.book.rules[key.budget_id]
            window, room = self.windows[window_id], self.rooms[window_id]
            row = budget_answer(rule, window, room, key, now=self.now)
            if refusing:
                row["refused"] = (rule.id, window_id) in refused
            rows.append(row)
        for one in refusing:
            if one.window is None:
                room = Room(reserved=offer.amounts, raised=one.room.raised)
                row = budget_answer(one.rule, None, room, None, now=self.now)
                rows.append({**row, "refused": True})
        return rows

    def _reason(self, objection: _Objection, offer: Offer) -> dict[str, Any]:
        rule, passed = objection.rule, objection.passed
        reason: dict[str, Any] = {
            "budget": rule.id,
            "name": rule.name,
            "group": group_answer(rule, objection.key),
            "window_start": moment(objection.window.starts_at) if objection.window else None,
            "mode": rule.mode,
            "action": objection.action,
            "detail": self._detail(objection, offer),
        }
        if passed is not None:
            reason |= {"level_percent": passed.level.percent, "part": _part_name(passed.part)}
            for name in ("limit", "spent", "reserved", "asked"):
                value = getattr(passed, name)
                is_cost = passed.part == "cost_nanos"
                reason[f"{name}_usd" if is_cost else name] = (
                    usd_from_nanos(value) if is_cost else value
                )
        if objection.wait_seconds:
            reason["wait_seconds"] = objection.wait_seconds
        return reason

    def _warning(self, objection: _Objection, offer: Offer) -> dict[str, Any]:
        return {
            "code": objection.action if objection.passed else "unpriced",
            "budget": objection.rule.id,
            "mode": objection.rule.mode,
            "detail": self._detail(objection, offer),
        }

    def _detail(self, objection: _Objection, offer: Offer) -> str:
        """The objection as a sentence for people."""
        who = f"The budget {objection.rule.name!r}"
        group = group_answer(objection.rule, objection.key)
        if group:
            who += f" ({', '.join(f'{name} {value!r}' for name, value in group.items())})"
        passed = objection.passed
        if passed is None:
            is_known = not offer.unknown.endswith("has no price")
            near = "" if is_known else near_model(offer.provider, offer.model)
            return (
                f"{who} limits cost, and {offer.unknown}."
                f"{near} Send 'input_tokens' and"
                " 'max_output_tokens' of a model that has a price, or the amount; or choose another"
                " 'unpriced_policy' in the settings."
            )
        if passed.part == "seconds":
            return (
                f"{who} has been in use for {passed.spent:,} s; its level of"
                f" {passed.level.percent} % is {passed.limit:,} s."
            )
        limit, spent, reserved, asked = (
            _amount_text(passed.part, value)
            for value in (passed.limit, passed.spent, passed.reserved, passed.asked)
        )
        return (
            f"{who} allows {limit} at its level of {passed.level.percent} %: {spent} are spent,"
            f" {reserved} reserved, and this call asks for {asked}."
        )


class _Place(NamedTuple):
    """Where a budget is judged: a locked window, or for a single call none."""

    rule: BudgetRule
    key: WindowKey | None
    window: WindowState | None
    room: Room


def refuse_by_halt(ask: Ask, halt: StandingHalt) -> Verdict:
    """The verdict on a call that a halt stops."""
    return Verdict(
        ask,
        error=halted_by(halt, now=ask.at),
        reasons=[
            {
                "halt": halt.id,
                "kind": halt.kind,
                "match": dict(halt.match),
                "since": moment(halt.since),
                "detail": halt.reason,
            }
        ],
    )


def halted_by(halt: StandingHalt, *, now: datetime, **facts: Any) -> Halted:
    """The refusal by a halt, with the time of a breaker's next trial or of a lockout's end, where
    that lies ahead.
    """
    wait = wait_part(halt.trial_from or halt.ends_at, now=now)
    return Halted(halt_detail(halt), code=halt.code, halt=halt.id, **facts, **wait)


def wait_part(until: datetime | None, *, now: datetime) -> dict[str, int]:
    """When to ask again, as a refusal says it; nothing where that is not known."""
    if until is None or until <= now:
        return {}
    return {"retry_after_seconds": ceil((until - now) / timedelta(seconds=1))}


def halt_detail(halt: StandingHalt) -> str:
    """Why a call is stopped, as a sentence."""
    who = {"manual": "by hand", "breaker": "by a breaker", "lockout": "by a budget's level"}
    return f"Halted {who[halt.kind]} since {moment(halt.since)}: {halt.reason}"


def throttle_key(window_id: int, percent: int) -> PaceKey:
    """The pace of a level that throttles, in one window."""
    return PaceKey(f"level:{window_id}:{percent}", "")


def rate_key(rule: RateRule, request: Request, offer: Offer) -> PaceKey | None:
    """The pace that a rate limit goes by for a call, None where it does not match it."""
    group = rule.group(offer.values, key_prefix=request.key_prefix)
    return None if group is None else PaceKey(rule.subject, group)


def budget_answer(
    rule: BudgetRule,
    window: WindowState | None,
    room: Room,
    key: WindowKey | None,
    *,
    now: datetime,
) -> dict[str, Any]:
    """A window as reservations, refusals and balances show it."""
    limit = room.whole(rule, 0)
    left = None if limit is None else limit - room.spent[0] - room.reserved[0]
    answer: dict[str, Any] = {
        "budget": rule.id,
        "name": rule.name,
        "mode": rule.mode,
        "group": group_answer(rule, key),
        "window_start": moment(window.starts_at) if window else None,
        "window_end": moment(window.ends_at) if window and window.ends_at else None,
        "limit_usd": None if limit is None else usd_from_nanos(limit),
        "spent_usd": usd_from_nanos(room.spent[0]),
        "reserved_usd": usd_from_nanos(room.reserved[0]),
        "remaining_usd": None if left is None else usd_from_nanos(left),
        "used_percent": float(use_of(rule, room, now=now).percent),
        "level": (window.level_percent or None) if window else None,
    }
    for place, part in ((1, "tokens"), (2, "requests"), (3, "tool_calls")):
        whole = room.whole(rule, place)
        if whole is not None:
            answer[f"limit_{part}"] = whole
            answer[f"spent_{part}"] = room.spent[place]
            answer[f"reserved_{part}"] = room.reserved[place]
            answer[f"remaining_{part}"] = whole - room.spent[place] - room.reserved[place]
    if rule.limit_seconds is not None:
        answer["limit_seconds"] = room.whole_seconds(rule)
        answer["first_used_at"] = moment(room.first_used_at) if room.first_used_at else None
    return answer


def group_answer(rule: BudgetRule, key: WindowKey | None) -> dict[str, str]:
    """The group as dimension to value."""
    if key is None:
        return {}
    return dict(zip(rule.dimensions, key.group, strict=False))


def _rate_reason(rule: RateRule, detail: str) -> dict[str, Any]:
    return {
        "rate_limit": rule.id,
        "name": rule.name,
        "mode": rule.mode,
        "action": "throttle",
        "detail": detail,
    }


def _part_name(part: str) -> str:
    return "cost_usd" if part == "cost_nanos" else part


def _amount_text(part: str, value: int) -> str:
    if part == "cost_nanos":
        return f"{usd_from_nanos(value)} USD"
    return f"{value:,} {part.replace('_', ' ')}"
