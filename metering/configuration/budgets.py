"""Budgets as configuration: their rules, and how they are made, changed and archived."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.db import transaction
from django.utils import timezone

from common.errors import Conflict
from common.json_bodies import JsonObject
from common.money import USD_NANOS_MAX
from common.times import zone_names
from common.values import COUNT_MAX
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule, LevelRule
from metering.calls.seals import read_sealed
from metering.core.dimensions import MATCHABLE, REQUEST
from metering.core.periods import EPOCH
from metering.core.validation import (
    Problem,
    amount_problems,
    match_problems,
    per_problems,
    require,
    require_row,
)
from metering.ledger.counting import count_what_was_spent
from metering.ledger.crossings import NO_LEVEL_CHANGES, Change, judge_windows_again
from metering.limits.limit_increases import end_increases_of_groups
from metering.limits.lockouts import follow_levels, lift_lockouts_of_budget
from metering.models import Action, Budget, BudgetLevel, FellBy, Period
from tenants.audit import audited_change, facts_of, record_change
from tenants.kinds import Kind
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
PER_NAMES: Final = (*MATCHABLE, REQUEST)
LEVELS_MAX: Final = 20
PERCENT_MAX: Final = 1000
NOTIFY_MAX: Final = 20
NOTIFY_CHARACTERS_MAX: Final = 100
LEVEL_RATE_FIELDS: Final = ("cost_nanos_per_minute", "tokens_per_minute")
# A rollover of more could pass what the ledger's columns hold.
ROLLOVER_PERCENT_MAX: Final = 500
# What a budget has that names no levels.
DEFAULT_LEVELS: Final = (LevelRule(100, Action.BLOCK.value, ()),)


def validate_budget(budget: Budget, levels: Sequence[LevelRule] = ()) -> None:
    """Raise ValidationError with an error for each field of a budget or of its levels that is
    wrong, by itself or beside the others.
    """
    require_row(budget, (*_problems(budget), *_problems_of_levels(levels)))


def _problems(budget: Budget) -> Iterator[Problem]:
    yield from match_problems(budget.match)
    yield from per_problems(budget.per, PER_NAMES, most=len(MATCHABLE))
    if all(getattr(budget, name) is None for name in LIMIT_FIELDS):
        yield Problem(
            "limit",
            ("Give at least one limit: cost, tokens, requests, tool calls or seconds."),
            "missing_limit",
        )
    counts = dict.fromkeys(LIMIT_FIELDS, (0, COUNT_MAX))
    yield from amount_problems(
        budget,
        **{**counts, "limit_cost_nanos": (0, USD_NANOS_MAX)},
        rollover_max_percent=(0, ROLLOVER_PERCENT_MAX),
    )
    yield from _time_problems(budget)
    yield from _period_problems(budget)


def _time_problems(budget: Budget) -> Iterator[Problem]:
    if budget.timezone not in zone_names():
        yield Problem("timezone", "There is no such time zone.", "unknown_timezone")
    if budget.anchor_at is not None and (budget.anchor_at.second or budget.anchor_at.microsecond):
        yield Problem("anchor_at", "Periods begin at whole minutes.")


def _period_problems(budget: Budget) -> Iterator[Problem]:
    if budget.period == Period.LIFETIME or REQUEST in budget.per:
        kind = "lifetime" if budget.period == Period.LIFETIME else "per-request"
        for name in ("is_rolling", "has_rollover", "anchor_at"):
            if getattr(budget, name):
                yield Problem(name, f"A {kind} budget has no periods that follow each other.")
    elif budget.is_rolling:
        if budget.anchor_at:
            yield Problem("anchor_at", "A rolling budget has no periods that begin.")
        if budget.has_rollover:
            yield Problem("has_rollover", "A rolling budget has no periods that end.")
    if budget.has_rollover and budget.limit_cost_nanos is None:
        yield Problem("has_rollover", "Only a limit of cost is carried over.")


def validate_level(level: LevelRule) -> None:
    """Raise ValidationError with an error for each field that is wrong."""
    require(_level_problems(level))


def _level_problems(level: LevelRule) -> Iterator[Problem]:
    if level.action not in Action.values:
        yield Problem("action", f"Must be one of {', '.join(Action.values)}.", "invalid_choice")
    lengths = [len(address) for address in level.notify]
    if len(lengths) > NOTIFY_MAX or any(not 1 <= n <= NOTIFY_CHARACTERS_MAX for n in lengths):
        yield Problem(
            "notify", f"Give at most {NOTIFY_MAX} of 1 to {NOTIFY_CHARACTERS_MAX} characters each."
        )
    yield from amount_problems(
        level,
        percent=(1, PERCENT_MAX),
        cost_nanos_per_minute=(1, USD_NANOS_MAX),
        tokens_per_minute=(1, COUNT_MAX),
    )
    for name in LEVEL_RATE_FIELDS:
        if getattr(level, name) is not None and level.action != Action.THROTTLE:
            yield Problem(name, "Only the action “throttle” has a rate.")


def validate_levels(levels: Sequence[LevelRule]) -> None:
    """Raise ValidationError with an error for each field of the levels, and for them together."""
    require(_problems_of_levels(levels))


def _problems_of_levels(levels: Sequence[LevelRule]) -> Iterator[Problem]:
    if len(levels) > LEVELS_MAX:
        yield Problem("levels", f"Give at most {LEVELS_MAX} levels.")
    if len({level.percent for level in levels}) < len(levels):
        yield Problem("levels", "Two levels are at the same percentage.")
    for index, level in enumerate(levels):
        for problem in _level_problems(level):
            yield problem._replace(field=f"levels.{index}.{problem.field}")


@transaction.atomic
def create_budget(
    *,
    tenant: Tenant,
    actor: str,
    levels: Sequence[LevelRule],
    starts_at: datetime = EPOCH,
    **fields: Any,
) -> Budget:
    """Make a budget that counts what its current period spent already, but not before `starts_at`:
    immediately, or by a job if that is a lot (`is_counting` until it is done). Raises
    ValidationError.

    Invariant: no batch falls between the count and the budget. The configuration lock waits for
    every batch in flight and holds new ones back until this commits.
    """
    change_configuration(tenant.id)
    require_room(tenant.id, "budgets", Budget.objects.filter(tenant_id=tenant.id, archived_at=None))
    budget = Budget(tenant=tenant, counts_from=EPOCH, **fields)
    validate_budget(budget, levels)
    budget.counts_from = max(first_counted(budget), starts_at)
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
    budget: Budget,
    *,
    actor: str,
    changes: Mapping[str, object],
    levels: Sequence[LevelRule] | None = None,
    manager: str = "",
) -> Budget:
    """Change a budget. What changes its counting starts a new revision with windows of its own.
    Raises ValidationError, and Conflict for a budget that is managed by someone else.
    """
    change_configuration(budget.tenant_id)
    with audited_change(budget, actor=actor, changes=changes, details=budget_facts) as change:
        stored = change.row
        _require_manager(stored, manager)
        validate_budget(stored, levels or ())
        is_new_revision = change.concerns(COUNTING_FIELDS)
        if is_new_revision:
            stored.revision += 1
            stored.counts_from = first_counted(stored)
        if change.concerns(["per"]):
            end_increases_of_groups(budget=stored, actor=actor)
        if levels is not None:
            BudgetLevel.objects.filter(tenant_id=stored.tenant_id, budget=stored).delete()
            _write_levels(stored, levels)
    if is_new_revision:
        lift_lockouts_of_budget(tenant_id=stored.tenant_id, budget_id=stored.id)
        _count_past(stored, actor=actor)
    elif (effect := _change_of_levels(dict(change.before), budget_facts(stored))) is not None:
        book = read_budget_index(stored.tenant_id, budget_id=stored.id)
        follow_levels(book, judge_windows_again(book=book, budget_id=stored.id, change=effect))
    return stored


def _count_past(budget: Budget, *, actor: str) -> None:
    changes = count_what_was_spent(budget, actor=actor)
    if changes != NO_LEVEL_CHANGES:
        follow_levels(read_budget_index(budget.tenant_id, budget_id=budget.id), changes)


def _change_of_levels(before: JsonObject, after: JsonObject) -> Change | None:
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
        is_reset=is_other_mode or is_other_action,
        is_of_time=is_of_time or actions.keys() != new_actions.keys(),
    )


@transaction.atomic
def archive_budget(budget: Budget, *, actor: str, manager: str = "") -> Budget:
    """End a budget: nothing is counted in it any more; its windows and entries stay. Raises
    Conflict for a budget that is managed by someone else.
    """
    change_configuration(budget.tenant_id)
    with audited_change(budget, actor=actor, action="archive") as change:
        _require_manager(change.row, manager)
        if change.row.archived_at is None:
            change.row.archived_at = timezone.now()
            lift_lockouts_of_budget(tenant_id=budget.tenant_id, budget_id=budget.id)
    return change.row


def _require_manager(stored: Budget, manager: str) -> None:
    if stored.managed_by != manager:
        raise Conflict(
            f"“{stored.name}” belongs to a {stored.managed_by or 'person'}: it changes and ends"
            " there."
        )


def budget_facts(budget: Budget) -> JsonObject:
    """A budget with its levels as JSON values, for the audit log."""
    levels = BudgetLevel.objects.filter(tenant_id=budget.tenant_id, budget_id=budget.id)
    return {
        **facts_of(budget),
        "levels": [
            {
                "percent": level.percent,
                "action": level.action,
                "notify": level.notify,
                "cost_nanos_per_minute": level.cost_nanos_per_minute,
                "tokens_per_minute": level.tokens_per_minute,
            }
            for level in levels
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
    """Without levels the limit blocks: one that no one enforces would be a trap."""
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


# A budget is archived, not deleted.
BUDGETS: Final = Kind(create_budget, update_budget, archive_budget)
