"""Rulings put into words: errors, reasons, warnings and budgets, as callers see them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Final, NamedTuple

import msgspec

from common.api.structs import usd_or_none
from common.errors import ApprovalNeeded, BudgetExceeded, Halted, MeteringError, Throttled, Unpriced
from common.formats import moment
from common.json_bodies import JsonObject
from common.money import usd_from_nanos
from metering.budgets.index import WindowKey
from metering.budgets.levels import PARTS, WindowBalance, use_of
from metering.budgets.rules import BudgetRule
from metering.core.amounts import Amounts
from metering.ledger.windows import WindowState
from metering.limits.halts import ActiveHalt, match_of_group
from metering.limits.rate_limits import RateRule
from metering.pricing.model_names import near_model
from metering.reservations.answers import BudgetRoom, WarningAnswer
from metering.reservations.judge import ENFORCE, Assessment, Judge, Objection, Ruling
from metering.reservations.request import Candidate, ReservationRequest

SHADOW: Final = "shadow"


class LockoutRequest(NamedTuple):
    """The halt that a level asks for which locks out, passed by a call."""

    rule: BudgetRule
    window: WindowState | None
    percent: int
    match: dict[str, object]
    reason: str


class IncreaseRequest(NamedTuple):
    """The limit increase that a level asks a person for which holds, passed by a call."""

    rule: BudgetRule
    window: WindowState
    percent: int
    asked: Amounts
    reason: str


@dataclass
class Verdict:
    """What was decided, and why. Without a `candidate` that is granted, `error` says why not."""

    request: ReservationRequest
    candidate: Candidate | None = None
    error: MeteringError | None = None
    is_downgrade: bool = False
    reasons: list[dict[str, object]] = field(default_factory=list)
    warnings: list[WarningAnswer] = field(default_factory=list)
    budgets: list[BudgetRoom] = field(default_factory=list)
    lockout: LockoutRequest | None = None
    increase: IncreaseRequest | None = None

    @property
    def decision(self) -> str:
        """allow, downgrade or refuse."""
        if self.error is not None:
            return "refuse"
        return "downgrade" if self.is_downgrade else "allow"

    @property
    def is_plain(self) -> bool:
        """True for a plain allow, of which no decision is recorded."""
        return self.error is None and not self.is_downgrade and not self.reasons

    @property
    def granted(self) -> Candidate:
        """The candidate of a grant."""
        assert self.candidate is not None, "only a grant has a candidate"
        return self.candidate


def decide(judge: Judge, request: ReservationRequest) -> Verdict:
    """Rule on a request, and say why."""
    ruling = judge.rule_on(request)
    if ruling.granted is not None:
        return _grant(judge, request, ruling, ruling.granted)
    if ruling.refusals:
        return _refuse(judge, request, ruling)
    assert ruling.rate_limit is not None, "what no budget refuses, a rate limit does"
    detail = (
        f"The rate limit {ruling.rate_limit.name!r} has no room for this call within this minute."
        f" Ask again in {ruling.wait_seconds} s."
    )
    return Verdict(
        request,
        error=Throttled(detail, retry_after_seconds=ruling.wait_seconds),
        reasons=[_rate_reason(ruling.rate_limit, detail)],
    )


def _grant(
    judge: Judge, request: ReservationRequest, ruling: Ruling, granted: Assessment
) -> Verdict:
    asked, candidate = ruling.asked, granted.candidate
    verdict = Verdict(request, candidate, is_downgrade=ruling.is_downgrade)
    if verdict.is_downgrade:
        verdict.reasons += [_reason(each, asked.candidate) for each in asked.objections]
    elif asked.wants_cheaper:
        detail = "A budget asks for a cheaper model, and no route names one for this call."
        verdict.warnings.append(WarningAnswer(code="no_cheaper_model", detail=detail))
    if (rule := ruling.rate_limit) is not None:
        detail = (
            f"The rate limit {rule.name!r} would make this call wait for {ruling.wait_seconds} s."
        )
        verdict.reasons.append(_rate_reason(rule, detail))
        if rule.mode != SHADOW:
            verdict.warnings.append(WarningAnswer(code="throttled", detail=detail))
    # What objects without refusing. Callers are not told of a budget in shadow.
    for objection in granted.objections:
        if not verdict.is_downgrade or objection.rule.mode != ENFORCE:
            verdict.reasons.append(_reason(objection, candidate))
        if objection.rule.mode != SHADOW:
            verdict.warnings.append(_warning(objection, candidate))
    verdict.budgets = _budgets(judge, candidate, refusals=())
    return verdict


def _refuse(judge: Judge, request: ReservationRequest, ruling: Ruling) -> Verdict:
    refusals, candidate = ruling.refusals, ruling.asked.candidate
    first = refusals[0]
    detail = _detail(first, candidate)
    verdict = Verdict(
        request,
        reasons=[_reason(objection, candidate) for objection in ruling.asked.objections],
        budgets=_budgets(judge, candidate, refusals=refusals),
    )
    wait = _retry_after(_free_at(refusals, now=judge.now), now=judge.now)
    if first.action == "throttle":
        verdict.error = Throttled(
            f"{detail} Ask again in {first.wait_seconds} s.",
            retry_after_seconds=first.wait_seconds,
            budgets=verdict.budgets,
        )
    elif first.action == "unpriced":
        verdict.error = Unpriced(detail, budgets=verdict.budgets)
    elif first.action == "hold":
        detail_for_caller = f"{detail} A person has been asked to raise the limit."
        verdict.error = ApprovalNeeded(detail_for_caller, budgets=verdict.budgets, **wait)
        if first.window is not None and first.passed is not None:
            percent = first.passed.level.percent
            verdict.increase = IncreaseRequest(
                first.rule, first.window, percent, candidate.amounts, detail
            )
    else:
        verdict.error = BudgetExceeded(detail, budgets=verdict.budgets, **wait)
        if first.action == "lockout":
            verdict.lockout = _lockout_of(first, detail)
    return verdict


def _lockout_of(objection: Objection, detail: str) -> LockoutRequest:
    assert objection.passed is not None, "a level locks out"
    rule, key = objection.rule, objection.key
    match = match_of_group(rule.match, rule.per, key.group if key is not None else ())
    return LockoutRequest(rule, objection.window, objection.passed.level.percent, match, detail)


def _free_at(refusals: Sequence[Objection], *, now: datetime) -> datetime | None:
    """Return when all windows that refuse have given way to empty ones; None if time alone does
    not help, or no one knows when.
    """
    ends = []
    for refusal in refusals:
        if refusal.wait_seconds:
            ends.append(now + timedelta(seconds=refusal.wait_seconds))
            continue
        passed, ends_at = refusal.passed, refusal.window and refusal.window.ends_at
        # A call that is larger than the whole limit fits into no window.
        if passed is None or ends_at is None or passed.asked > passed.limit:
            return None
        ends.append(ends_at)
    return max(ends)


def _budgets(
    judge: Judge, candidate: Candidate, *, refusals: Sequence[Objection]
) -> list[BudgetRoom]:
    """Return every matching window as the contract shows it; if any refuse, those are marked."""
    refusing = {(each.rule.id, each.window.id if each.window else None) for each in refusals}
    rows = []
    for key in candidate.windows:
        window_id = judge.book.window_ids[key]
        rule = judge.book.rules[key.budget_id]
        window, balance = judge.windows[window_id], judge.balances[window_id]
        row = judge.answers.get(window_id)
        if row is None:
            row = budget_answer(rule, window, balance, key, now=judge.now)
            judge.answers[window_id] = row
        row = msgspec.structs.replace(row, **_reserved_answer(rule, balance))
        if refusals:
            row.refused = (rule.id, window_id) in refusing
        rows.append(row)
    for refusal in refusals:
        if refusal.window is None:
            balance = WindowBalance(reserved=candidate.amounts, raised=refusal.balance.raised)
            row = budget_answer(refusal.rule, None, balance, None, now=judge.now)
            row.refused = True
            rows.append(row)
    return rows


def _reason(objection: Objection, candidate: Candidate) -> dict[str, object]:
    rule, passed = objection.rule, objection.passed
    reason: dict[str, object] = {
        "budget": rule.id,
        "name": rule.name,
        "group": group_answer(rule, objection.key),
        "window_start": moment(objection.window.starts_at) if objection.window else None,
        "mode": rule.mode,
        "action": objection.action,
        "detail": _detail(objection, candidate),
    }
    if passed is not None:
        is_cost = passed.part == "cost_nanos"
        reason["level_percent"] = passed.level.percent
        reason["part"] = "cost_usd" if is_cost else passed.part
        for name in ("limit", "spent", "reserved", "asked"):
            value = getattr(passed, name)
            reason[f"{name}_usd" if is_cost else name] = usd_from_nanos(value) if is_cost else value
    if objection.wait_seconds:
        reason["wait_seconds"] = objection.wait_seconds
    return reason


def _warning(objection: Objection, candidate: Candidate) -> WarningAnswer:
    return WarningAnswer(
        code=objection.action,
        budget=objection.rule.id,
        mode=objection.rule.mode,
        detail=_detail(objection, candidate),
    )


def _rate_reason(rule: RateRule, detail: str) -> dict[str, object]:
    return {
        "rate_limit": rule.id,
        "name": rule.name,
        "mode": rule.mode,
        "action": "throttle",
        "detail": detail,
    }


def _detail(objection: Objection, candidate: Candidate) -> str:
    """Return the objection as a sentence for people."""
    budget = f"The budget {objection.rule.name!r}"
    group = group_answer(objection.rule, objection.key)
    if group:
        budget += f" ({', '.join(f'{name} {value!r}' for name, value in group.items())})"
    passed = objection.passed
    if passed is None:
        is_unnamed = candidate.unknown.endswith("has no price")
        near = near_model(candidate.provider, candidate.model) if is_unnamed else ""
        return (
            f"{budget} limits cost, and {candidate.unknown}.{near} Send 'input_tokens' and"
            " 'max_output_tokens' of a model that has a price, or the amount; or choose another"
            " 'unpriced_policy' in the settings."
        )
    if passed.part == "seconds":
        return (
            f"{budget} has been in use for {passed.spent:,} s; its level of"
            f" {passed.level.percent}% is {passed.limit:,} s."
        )
    limit, spent, reserved, asked = (
        _format_amount(passed.part, value)
        for value in (passed.limit, passed.spent, passed.reserved, passed.asked)
    )
    return (
        f"{budget} allows {limit} at its level of {passed.level.percent}%: {spent} are spent,"
        f" {reserved} reserved, and this call asks for {asked}."
    )


def _format_amount(part: str, value: int) -> str:
    if part == "cost_nanos":
        return f"{usd_from_nanos(value)} USD"
    return f"{value:,} {part.replace('_', ' ')}"


def refuse_by_halt(request: ReservationRequest, halt: ActiveHalt) -> Verdict:
    """Return the verdict on a call that a halt stops."""
    reason = {
        "halt": halt.id,
        "kind": halt.kind,
        "match": dict(halt.match),
        "since": moment(halt.since),
        "detail": halt.reason,
    }
    return Verdict(request, error=halted_by(halt, now=request.at), reasons=[reason])


def halted_by(halt: ActiveHalt, *, now: datetime, **details: object) -> Halted:
    """Return the refusal by a halt, with the time of a breaker's next probe or of a lockout's end
    if that lies ahead.
    """
    cause = {"manual": "manually", "breaker": "by a breaker", "lockout": "by a budget's level"}
    detail = f"Halted {cause[halt.kind]} since {moment(halt.since)}: {halt.reason}"
    wait = _retry_after(halt.probe_from or halt.ends_at, now=now)
    return Halted(detail, code=halt.code, halt=halt.id, **details, **wait)


def _retry_after(until: datetime | None, *, now: datetime) -> dict[str, int]:
    """Return when to ask again, as a refusal says it; nothing if that is not known."""
    if until is None or until <= now:
        return {}
    return {"retry_after_seconds": ceil((until - now) / timedelta(seconds=1))}


def budget_answer(
    rule: BudgetRule,
    window: WindowState | None,
    balance: WindowBalance,
    key: WindowKey | None,
    *,
    now: datetime,
) -> BudgetRoom:
    """Return a window as reservations, refusals and balances show it."""
    answer = BudgetRoom(
        budget=rule.id,
        name=rule.name,
        mode=rule.mode,
        group=group_answer(rule, key),
        window_start=window.starts_at if window else None,
        window_end=window.ends_at if window else None,
        limit_usd=usd_or_none(balance.limit(rule, 0)),
        spent_usd=usd_from_nanos(balance.spent[0]),
        used_percent=float(use_of(rule, balance, now=now).percent),
        level=(window.level_percent or None) if window else None,
        **_reserved_answer(rule, balance),
    )
    for index in rule.limited_indexes:
        if index:
            setattr(answer, f"limit_{PARTS[index]}", balance.limit(rule, index))
            setattr(answer, f"spent_{PARTS[index]}", balance.spent[index])
    if (limit_seconds := balance.limit_seconds(rule)) is not None:
        answer.limit_seconds = limit_seconds
    return answer


def _reserved_answer(rule: BudgetRule, balance: WindowBalance) -> JsonObject:
    """Return the part of a window's answer that changes with every call of a batch."""
    spent, reserved = balance.spent, balance.reserved
    limit = balance.limit(rule, 0)
    answer: JsonObject = {
        "reserved_usd": usd_from_nanos(reserved[0]),
        "remaining_usd": usd_or_none(None if limit is None else limit - spent[0] - reserved[0]),
    }
    for index in rule.limited_indexes:
        if index:
            part, limit = PARTS[index], balance.limit(rule, index)
            assert limit is not None, "the part is limited"
            answer[f"reserved_{part}"] = reserved[index]
            answer[f"remaining_{part}"] = limit - spent[index] - reserved[index]
    if rule.limit_seconds is not None:
        answer["first_used_at"] = balance.first_used_at
    return answer


def group_answer(rule: BudgetRule, key: WindowKey | None) -> dict[str, str]:
    """Return the group as dimension to value."""
    if key is None:
        return {}
    return dict(zip(rule.dimensions, key.group, strict=False))
