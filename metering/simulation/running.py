"""A proposal held against a past period: read, replayed, and answered."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from metering.budgets.rules import RaiseRule
from metering.limits.breakers.rules import BreakerRule
from metering.models import BudgetRaise, Mode, RaiseStatus
from metering.simulation.breaker_replay import BreakerReplay, breaker_assumptions
from metering.simulation.budget_replay import BudgetReplay, budget_assumptions
from metering.simulation.calls import no_cheaper
from metering.simulation.earlier import remember_earlier, require_kept, require_unchanged
from metering.simulation.proposals import Proposal, ProposedBudget
from metering.simulation.reading import (
    Stretch,
    cheaper_by_routes,
    dimensions_of_rule,
    first_watched,
    read_calls,
)
from metering.simulation.tally import Tally
from metering.snapshot import Configuration, known_configuration, read_configuration
from tenants.models import UnpricedPolicy
from tenants.scope import tenant_scope

COMMON_ASSUMPTIONS: Final = (
    "Each call is asked for at its true cost, at the moment it happened; in force, an estimate is"
    " held until the cost is known, so that a limit is reached a little earlier.",
    "A refused call is not made again, and what came after it is taken as it was.",
    "It is replayed alone: other budgets, halts, breakers, rate limits and tightenings are left"
    " out.",
)


class Replayed(NamedTuple):
    """A stretch of time that is judged, and who may stop the replay by raising."""

    starts_at: datetime
    ends_at: datetime
    check: Callable[[], None] = lambda: None


def simulate(*, tenant_id: int, proposal: Proposal, period: Replayed) -> dict[str, Any]:
    """What the proposal would have refused and saved in the period, as JSON values.

    Reads in many short transactions, unless the caller has one. The proposal acts whatever its
    mode; what is in force is held against the same period in its own mode, as `compared_with`.
    Raises InvalidQuestion where calls that it needs are no longer kept.
    """
    kept_from = require_kept(tenant_id=tenant_id, proposal=proposal, starts_at=period.starts_at)
    answer = _simulate(tenant_id, proposal, period, kept_from)
    require_unchanged(tenant_id=tenant_id, kept_from=kept_from)
    return answer


def _simulate(
    tenant_id: int, proposal: Proposal, period: Replayed, kept_from: datetime
) -> dict[str, Any]:
    # As it is now, not as it was within the last second.
    configuration = read_configuration(tenant_id, known=known_configuration(tenant_id))
    if proposal.breaker is not None:
        return _replay_breaker(tenant_id, BreakerRule.of(proposal.breaker), configuration, period)
    assert proposal.budget is not None, "a budget or a breaker is proposed"
    present = proposal.present
    answer = _replay_budget(
        configuration,
        proposal.budget,
        period,
        keeps_carried=proposal.budget.keeps_carried(present),
        kept_from=kept_from,
        acts=True,
    )
    if present is not None:
        answer["compared_with"] = {
            "budget_id": present.budget.id,
            "name": present.budget.name,
            "mode": present.budget.mode,
            **_replay_budget(
                configuration,
                present,
                period,
                keeps_carried=present.keeps_carried(present),
                kept_from=kept_from,
                acts=present.budget.mode == Mode.ENFORCE,
            ),
        }
    return answer


def _replay_budget(
    configuration: Configuration,
    proposed: ProposedBudget,
    period: Replayed,
    *,
    keeps_carried: bool,
    kept_from: datetime,
    acts: bool,
) -> dict[str, Any]:
    tenant_id = configuration.tenant_id
    raises = read_raises(tenant_id, proposed.budget.id, period)
    rule = proposed.rule_from(
        period.starts_at, keeps_carried=keeps_carried, kept_from=kept_from, raises=raises
    )
    is_routed = bool(configuration.routes) and any(
        level.action == "downgrade" for level in rule.levels
    )
    replay = BudgetReplay(
        rule,
        acts=acts,
        refuses_unpriced=configuration.unpriced_policy == UnpricedPolicy.REFUSE,
        cheaper=cheaper_by_routes(configuration) if is_routed else no_cheaper,
    )
    stretch = Stretch(
        tenant_id, period.starts_at, period.ends_at, rule.match, dimensions_of_rule(rule), is_routed
    )
    remember_earlier(replay, stretch, rule, kept_from=kept_from)
    period.check()
    replay.begin(period.starts_at)
    for call in read_calls(stretch, assumed_nanos=configuration.assumed_nanos, check=period.check):
        replay.ask(call)
    own = budget_assumptions(replay, keeps_carried=keeps_carried, kept_from=kept_from)
    return replay.tally.answer(
        levels=replay.levels_answer(),
        assumptions=[
            *COMMON_ASSUMPTIONS,
            *_mode_sentences(proposed.budget.mode, acts=acts),
            *_unpriced_sentences(replay.tally, is_refused=replay.refuses_unpriced),
            *own,
        ],
        group_answer=replay.group_answer,
    )


def _replay_breaker(
    tenant_id: int, rule: BreakerRule, configuration: Configuration, period: Replayed
) -> dict[str, Any]:
    replay = BreakerReplay(rule)
    stretch = Stretch(
        tenant_id,
        first_watched(rule, period.starts_at),
        period.ends_at,
        rule.grouping.match,
        rule.grouping.per,
    )
    for call in read_calls(stretch, assumed_nanos=configuration.assumed_nanos, check=period.check):
        if call.at < period.starts_at:
            replay.remember(call)
        else:
            replay.ask(call)
    return replay.tally.answer(
        levels=[],
        assumptions=[
            *COMMON_ASSUMPTIONS,
            *_mode_sentences(rule.mode, acts=True),
            *breaker_assumptions(replay),
        ],
        group_answer=replay.group_answer,
    )


def read_raises(tenant_id: int, budget_id: int | None, period: Replayed) -> list[RaiseRule]:
    """The raises that were in force in the period, over or not."""
    if budget_id is None:
        return []
    with tenant_scope(tenant_id):
        found = list(
            BudgetRaise.objects.filter(
                tenant_id=tenant_id,
                budget_id=budget_id,
                status=RaiseStatus.APPROVED,
                starts_at__lt=period.ends_at,
                ends_at__gt=period.starts_at,
            ).order_by("id")
        )
    return [
        RaiseRule(
            budget_id=one.budget_id,
            group_key=one.group_key,
            starts_at=one.starts_at,
            ends_at=one.ends_at,
            cost_nanos=one.add_cost_nanos,
            tokens=one.add_tokens,
            requests=one.add_requests,
            tool_calls=one.add_tool_calls,
            seconds=one.add_seconds,
        )
        for one in found
        if one.starts_at is not None
    ]


def _mode_sentences(mode: str, *, acts: bool) -> Sequence[str]:
    if mode == Mode.ENFORCE:
        return ()
    sentence = f"It is in mode {mode!r}, in which it refuses nothing"
    return (f"{sentence}; this is what it would do in 'enforce'." if acts else f"{sentence}.",)


def _unpriced_sentences(tally: Tally, *, is_refused: bool) -> Sequence[str]:
    if not tally.unpriced:
        return ()
    sentence = f"{tally.unpriced:,} calls have no price and count as costing nothing"
    why = "; by the present 'unpriced_policy' they are refused for it" if is_refused else ""
    return (f"{sentence}{why}.",)
