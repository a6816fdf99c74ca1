"""What was used before a replay begins, and whether enough of it is still kept.

A window without end has the sums of its sealed usage; any other has its calls or nothing.
"""

import json
from datetime import datetime

from common.errors import Conflict
from metering.budgets.rules import BudgetRule
from metering.calls.seals import read_sealed, sealed_events
from metering.core.periods import EPOCH
from metering.limits.breakers.rules import BreakerRule
from metering.reporting.question import InvalidQuestion
from metering.simulation.budget_replay import BudgetReplay
from metering.simulation.proposals import Proposal
from metering.simulation.reading import Stretch, first_watched, read_earlier
from tenants.scope import tenant_scope


def require_kept(*, tenant_id: int, proposal: Proposal, starts_at: datetime) -> datetime:
    """Refuse a replay of calls that are gone; return from when on all are kept."""
    with tenant_scope(tenant_id):
        kept_from = read_sealed(tenant_id).sealed_until
    # What earlier periods left unused may be missing, which the answer says.
    reads_from = first_counted(proposal, starts_at, keeps_carried=False)
    if reads_from < kept_from:
        why = "" if reads_from == starts_at else ", and what the replay begins with is older"
        raise InvalidQuestion(
            "no_longer_kept",
            f"Calls before {kept_from:%Y-%m-%d} UTC are no longer kept{why}: replay from a later"
            f" time. This replay needs those from {reads_from:%Y-%m-%d %H:%M} UTC on.",
        )
    return kept_from


def require_unchanged(*, tenant_id: int, kept_from: datetime) -> None:
    """Refuse the result of a replay during which usage was sealed: some was counted twice or not
    at all.
    """
    with tenant_scope(tenant_id):
        if read_sealed(tenant_id).sealed_until != kept_from:
            raise Conflict("A month of usage was sealed meanwhile. Replay again in a few minutes.")


def first_counted(proposal: Proposal, starts_at: datetime, *, keeps_carried: bool) -> datetime:
    """Return the time from which calls count, since windows have begun before the period; with or
    without what earlier periods left unused.
    """
    if proposal.breaker is not None:
        return first_watched(BreakerRule.of(proposal.breaker), starts_at)
    starts = [
        budget.rule_from(
            starts_at, keeps_carried=keeps_carried and budget.keeps_carried(proposal.present)
        ).counts_from
        for budget in (proposal.budget, proposal.present)
        if budget is not None
    ]
    # Sums of a window without an end are kept for longer than calls.
    return min([starts_at, *(at for at in starts if keeps_carried or at > EPOCH)])


def remember_earlier(
    replay: BudgetReplay, stretch: Stretch, rule: BudgetRule, *, kept_from: datetime
) -> None:
    """Count what a budget's windows had spent when the stretch begins, which is replayed next."""
    if rule.counts_from >= stretch.starts_at:
        return
    if rule.counts_from == EPOCH and rule.id is not None:
        with tenant_scope(stretch.tenant_id):
            for seal in sealed_events(
                tenant_id=stretch.tenant_id, budget_id=rule.id, revision=rule.revision
            ):
                if any(seal.amounts):
                    first_at = seal.first_used_at or seal.starts_at
                    group = tuple(json.loads(seal.group_key))
                    replay.remember_sum(group, first_at, first_at, seal.amounts)
    earlier = stretch._replace(
        starts_at=max(rule.counts_from, kept_from), ends_at=stretch.starts_at, is_routed=False
    )
    for portion in read_earlier(earlier, rule):
        replay.remember(portion)
