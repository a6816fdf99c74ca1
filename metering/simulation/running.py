"""A proposal held against a past period: read, replayed, and answered."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from metering.budgets.rules import BudgetRule, LimitIncreaseRule
from metering.limits.breakers.rules import BreakerRule
from metering.models import Breaker, LimitIncrease, LimitIncreaseStatus, Mode
from metering.simulation.assumptions import breaker_assumptions, budget_assumptions
from metering.simulation.breaker_replay import BreakerReplay
from metering.simulation.budget_replay import BudgetReplay
from metering.simulation.earlier import remember_earlier, require_kept, require_unchanged
from metering.simulation.outcome import PresentOutcome, SimulationOutcome
from metering.simulation.proposals import Proposal, ProposedBudget
from metering.simulation.reading import Stretch, cheaper_by_routes, first_watched, read_calls
from metering.snapshot import Configuration, known_configuration, read_configuration
from tenants.scope import tenant_scope


class TooManyCalls(Exception):
    """The period holds more calls than can be replayed in time."""


class Replayed(NamedTuple):
    """A stretch of time that is judged, and who may stop the replay by raising."""

    starts_at: datetime
    ends_at: datetime
    check: Callable[[], None] = lambda: None


def time_limit(seconds: float) -> Callable[[], None]:
    """Return a check that raises TooManyCalls once the time is over."""
    ends_at = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > ends_at:
            raise TooManyCalls

    return check


def simulate(*, tenant_id: int, proposal: Proposal, period: Replayed) -> SimulationOutcome:
    """Return what the proposal would have refused and saved in the period.

    Reads in many short transactions, unless the caller has one. The proposal acts whatever its
    mode; what is in force is replayed over the same period in its own mode, as `compared_with`.
    Raises InvalidQuestion if calls that it needs are no longer kept.
    """
    kept_from = require_kept(tenant_id=tenant_id, proposal=proposal, starts_at=period.starts_at)
    # As it is now, not as it was within the last second.
    configuration = read_configuration(tenant_id, known=known_configuration(tenant_id))
    if proposal.breaker is not None:
        outcome = _replay_breaker(proposal.breaker, configuration, period)
    else:
        outcome = _replay_budgets(proposal, configuration, period, kept_from)
    require_unchanged(tenant_id=tenant_id, kept_from=kept_from)
    return outcome


def _replay_budgets(
    proposal: Proposal, configuration: Configuration, period: Replayed, kept_from: datetime
) -> SimulationOutcome:
    proposed, present = proposal.budget, proposal.present
    assert proposed is not None, "a budget or a breaker is proposed"

    def replay(budget: ProposedBudget, mode: str) -> SimulationOutcome:
        keeps_carried = budget.keeps_carried(present)
        rule = budget.rule_from(
            period.starts_at,
            keeps_carried=keeps_carried,
            kept_from=kept_from,
            mode=mode,
            raises=read_increases(configuration.tenant_id, budget.budget.id, period),
        )
        replayed = _replay_budget(rule, configuration, period, kept_from)
        return replayed.tally.outcome(
            levels=replayed.level_outcomes(),
            assumptions=budget_assumptions(
                replayed,
                mode=budget.budget.mode,
                keeps_carried=keeps_carried,
                kept_from=kept_from,
            ),
            group_answer=replayed.group_answer,
        )

    outcome = replay(proposed, Mode.ENFORCE)
    if present is not None:
        budget = present.budget
        outcome.compared_with = PresentOutcome.of(
            replay(present, budget.mode), budget_id=budget.id, name=budget.name, mode=budget.mode
        )
    return outcome


def _replay_budget(
    rule: BudgetRule, configuration: Configuration, period: Replayed, kept_from: datetime
) -> BudgetReplay:
    is_routed = bool(configuration.routes) and any(
        level.action == "downgrade" for level in rule.levels
    )
    cheaper = cheaper_by_routes(configuration) if is_routed else None
    replay = BudgetReplay(rule, configuration, cheaper=cheaper)
    stretch = Stretch(
        *(configuration.tenant_id, period.starts_at, period.ends_at),
        match=rule.match,
        dimensions=rule.dimensions,
        is_routed=is_routed,
    )
    remember_earlier(replay, stretch, rule, kept_from=kept_from)
    period.check()
    replay.begin(period.starts_at)
    for call in read_calls(stretch, assumed_nanos=configuration.assumed_nanos, check=period.check):
        replay.ask(call)
    return replay


def _replay_breaker(
    breaker: Breaker, configuration: Configuration, period: Replayed
) -> SimulationOutcome:
    rule = BreakerRule.of(breaker)
    replay = BreakerReplay(rule)
    stretch = Stretch(
        *(configuration.tenant_id, first_watched(rule, period.starts_at), period.ends_at),
        match=rule.grouping.match,
        dimensions=rule.grouping.per,
    )
    for call in read_calls(stretch, assumed_nanos=configuration.assumed_nanos, check=period.check):
        if call.at < period.starts_at:
            replay.remember(call)
        else:
            replay.ask(call)
    return replay.tally.outcome(
        levels=[],
        assumptions=breaker_assumptions(rule, mode=breaker.mode),
        group_answer=replay.group_answer,
    )


def read_increases(
    tenant_id: int, budget_id: int | None, period: Replayed
) -> list[LimitIncreaseRule]:
    """Return the limit increases that were in force in the period, over or not."""
    if budget_id is None:
        return []
    with tenant_scope(tenant_id):
        raises = LimitIncrease.objects.filter(
            tenant_id=tenant_id,
            budget_id=budget_id,
            status=LimitIncreaseStatus.APPROVED,
            starts_at__lt=period.ends_at,
            ends_at__gt=period.starts_at,
        )
        return [LimitIncreaseRule.of(row) for row in raises.order_by("id")]
