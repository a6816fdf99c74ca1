"""Budgets as configuration: made, changed, archived."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from metering.budgets.reading import read_book
from metering.budgets.rules import BudgetRule, LevelRule
from metering.calls.seals import read_sealed
from metering.core.periods import EPOCH
from metering.ledger.counting import count_what_was_spent
from metering.ledger.crossings import NO_LEVEL_CHANGES, Change, judge_windows_again
from metering.limits.limit_increases import end_raises_of_groups
from metering.limits.lockouts import follow_levels, lift_lockouts_of_budget
from metering.models import Action, Budget, BudgetLevel, FellBy
from tenants.audit import facts_of, record_change
from tenants.limits import require_room
from tenants.models import Tenant
from tenants.scope import change_configuration

# A change of one of these changes what is counted, so the budget starts a new revision.
COUNTING_FIELDS: Final = (
    "match",
    "per",
    "period",
    "timezone",
    "anchor_at",
    "is_rolling",
    "has_rollover",
    "rollover_max_percent",
)
LIMIT_FIELDS: Final = (
    "limit_cost_nanos",
    "limit_tokens",
    "limit_requests",
    "limit_tool_calls",
    "limit_seconds",
)
# What a budget has that names no levels.
DEFAULT_LEVELS: Final = (LevelRule(100, Action.BLOCK.value, ()),)


@transaction.atomic
def create_budget(
    *, tenant: Tenant, actor: str, levels: Sequence[LevelRule], **fields: Any
) -> Budget:
    """Make a budget that counts what its current period spent already: at once, or by a job where
    that is much (`is_counting` until it is done).

    Invariant: no batch falls between the count and the budget. The configuration lock waits for
    every batch in flight and holds new ones back until this commits.
    """
    change_configuration(tenant.id)
    require_room(tenant.id, "budgets", Budget.objects.filter(tenant_id=tenant.id, archived_at=None))
    budget = Budget(tenant=tenant, counts_from=EPOCH, **fields)
    budget.counts_from = first_counted(budget)
    budget.save()
    _write_levels(budget, levels)
    record_change(
        tenant_id=tenant.id,
        actor=actor,
        action="create",
        subject=budget,
        after=budget_facts(budget),
    )
    _count_past(budget, actor=actor)
    return budget


@transaction.atomic
def update_budget(
    *,
    budget: Budget,
    actor: str,
    changes: Mapping[str, Any],
    levels: Sequence[LevelRule] | None = None,
) -> Budget:
    """Change a budget. What changes its counting starts a new revision with windows of its own."""
    change_configuration(budget.tenant_id)
    stored = Budget.objects.select_for_update().get(tenant_id=budget.tenant_id, id=budget.id)
    before = budget_facts(stored)
    for name, value in changes.items():
        setattr(stored, name, value)
    is_new_revision = any(
        facts_of(stored).get(name) != before.get(name) for name in COUNTING_FIELDS
    )
    if is_new_revision:
        stored.revision += 1
        stored.counts_from = first_counted(stored)
    stored.save()
    if "per" in changes and list(before["per"]) != list(stored.per):
        end_raises_of_groups(budget=stored, actor=actor)
    if levels is not None:
        BudgetLevel.objects.filter(tenant_id=stored.tenant_id, budget=stored).delete()
        _write_levels(stored, levels)
    after = budget_facts(stored)
    record_change(
        tenant_id=stored.tenant_id,
        actor=actor,
        action="update",
        subject=stored,
        before=before,
        after=after,
    )
    if is_new_revision:
        lift_lockouts_of_budget(tenant_id=stored.tenant_id, budget_id=stored.id)
        _count_past(stored, actor=actor)
    elif (change := _change_of_levels(before, after)) is not None:
        book = read_book(stored.tenant_id, budget_id=stored.id)
        follow_levels(book, judge_windows_again(book=book, budget_id=stored.id, change=change))
    return stored


def _count_past(budget: Budget, *, actor: str) -> None:
    changes = count_what_was_spent(budget, actor=actor)
    if changes != NO_LEVEL_CHANGES:
        follow_levels(read_book(budget.tenant_id, budget_id=budget.id), changes)


def _change_of_levels(before: Mapping[str, Any], after: Mapping[str, Any]) -> Change | None:
    """What a change of a budget means for the levels of its windows; None: nothing. Pure."""
    limits = [(before[name], after[name]) for name in LIMIT_FIELDS if before[name] != after[name]]
    is_other_mode = before["mode"] != after["mode"]
    if not limits and not is_other_mode and before["levels"] == after["levels"]:
        return None
    actions = {level["percent"]: level["action"] for level in before["levels"]}
    new_actions = {level["percent"]: level["action"] for level in after["levels"]}
    is_higher = any(new is None or (old is not None and new > old) for old, new in limits)
    locks_less = any(
        action == Action.LOCKOUT and new_actions.get(percent) != action
        for percent, action in actions.items()
    )
    is_other_action = any(
        new_actions.get(percent, action) != action for percent, action in actions.items()
    )
    is_of_time = before["limit_seconds"] != after["limit_seconds"]
    return Change(
        by=FellBy.LIMIT if limits else FellBy.LEVELS,
        lifts=is_higher or locks_less,
        is_anew=is_other_mode or is_other_action,
        is_of_time=is_of_time or actions.keys() != new_actions.keys(),
    )


@transaction.atomic
def archive_budget(*, budget: Budget, actor: str) -> Budget:
    """End a budget: nothing is counted in it any more; its windows and entries stay."""
    change_configuration(budget.tenant_id)
    before = budget_facts(budget)
    if budget.archived_at is None:
        budget.archived_at = timezone.now()
        budget.save(update_fields=["archived_at"])
        lift_lockouts_of_budget(tenant_id=budget.tenant_id, budget_id=budget.id)
    record_change(
        tenant_id=budget.tenant_id,
        actor=actor,
        action="archive",
        subject=budget,
        before=before,
        after=budget_facts(budget),
    )
    return budget


def budget_facts(budget: Budget) -> dict[str, Any]:
    """A budget with its levels as JSON values, for the audit log."""
    levels = BudgetLevel.objects.filter(tenant_id=budget.tenant_id, budget_id=budget.id)
    return {
        **facts_of(budget),
        "levels": [
            {
                "percent": one.percent,
                "action": one.action,
                "notify": one.notify,
                "cost_nanos_per_minute": one.cost_nanos_per_minute,
                "tokens_per_minute": one.tokens_per_minute,
            }
            for one in levels
        ],
    }


def first_counted(budget: Budget) -> datetime:
    """From when a budget made now counts: the beginning of its current period, but no usage that is
    sealed.
    """
    rule = BudgetRule(budget, [])
    now = timezone.now()
    if budget.is_rolling:
        return rule.counted_from(now)
    if rule.is_per_request:
        # Calls are judged one by one as they arrive, whatever their time.
        return EPOCH
    return max(rule.clock.span(now).starts_at, read_sealed(budget.tenant_id).frozen_until)


def _write_levels(budget: Budget, levels: Sequence[LevelRule]) -> None:
    """Where none are named the limit blocks: one that nobody enforces would be a trap."""
    BudgetLevel.objects.bulk_create(
        BudgetLevel(
            tenant_id=budget.tenant_id,
            budget=budget,
            percent=level.percent,
            action=level.action,
            notify=list(level.notify),
            cost_nanos_per_minute=level.cost_nanos_per_minute,
            tokens_per_minute=level.tokens_per_minute,
        )
        for level in levels or DEFAULT_LEVELS
    )
