"""Budgets as configuration: made, changed, archived; each change counts what its period has spent
already.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone
from psycopg import sql

from metering.budget_reading import read_book
from metering.budget_rules import Amounts, BudgetBook, BudgetRule, LevelRule, WindowKey
from metering.crossings import Change, judge_windows_again
from metering.dimensions import MATCHABLE, REQUEST
from metering.enforcement.lockouts import lift_lockouts_of_budget
from metering.enforcement.raises import end_raises_of_groups
from metering.ledger import Posting, add_amounts, post
from metering.models import (
    Action,
    Budget,
    BudgetLevel,
    CostSource,
    EntryKind,
    FellBy,
    Operation,
    Status,
)
from metering.periods import EPOCH
from metering.seals import read_sealed
from metering.window_opening import open_windows
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
    """Make a budget that has already counted what its current period spent.

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
    _count_what_was_spent(budget)
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
        _count_what_was_spent(stored)
    elif (change := _change_of_levels(before, after)) is not None:
        book = read_book(stored.tenant_id)
        judge_windows_again(book=book, budget_id=stored.id, change=change)
    return stored


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


def _count_what_was_spent(budget: Budget) -> None:
    """Post what the budget's first period holds already, as one entry a window (and grain)."""
    book = read_book(budget.tenant_id)
    rule = book.rules[budget.id]
    if rule.is_per_request:
        return
    sums: dict[tuple[WindowKey, datetime | None], Amounts] = {}
    first_used_at: dict[WindowKey, datetime] = {}
    for at, group, amounts in stored_amounts(rule, tenant_id=budget.tenant_id):
        span = rule.span(at)
        if span is None:
            continue
        grain_at = rule.grain_at(at) if rule.is_rolling else None
        window = WindowKey(rule.id, group, span.starts_at)
        first_used_at[window] = min(at, first_used_at.get(window, at))
        key = (window, grain_at)
        sums[key] = add_amounts(sums[key], amounts) if key in sums else amounts
    # Nobody else posts to this budget yet, and the configuration lock keeps it so until commit.
    open_windows(book=book, keys=first_used_at)
    _note_first_use(book, first_used_at)
    post(
        book=book,
        sums={
            Posting(book.window_ids[window], grain_at): amounts
            for (window, grain_at), amounts in sums.items()
        },
        kind=EntryKind.BACKFILL,
        batch_id=None,
    )


def _note_first_use(book: BudgetBook, first_used_at: Mapping[WindowKey, datetime]) -> None:
    """Say since when windows have been used, to a quarter of an hour; before anything is posted."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE budget_window w SET first_used_at = n.at"
            " FROM unnest(%s::bigint[], %s::timestamptz[]) AS n (id, at)"
            " WHERE w.tenant_id = %s AND w.id = n.id",
            [
                [book.window_ids[window] for window in first_used_at],
                list(first_used_at.values()),
                book.tenant_id,
            ],
        )


def stored_amounts(
    rule: BudgetRule, *, tenant_id: int, since: datetime = EPOCH, without_held: bool = False
) -> Iterator[tuple[datetime, tuple[str, ...], Amounts]]:
    """What events stored `since` then add to a budget, by a portion of time and group: (its begin,
    group, amounts). `without_held` leaves out what counts where a reservation holds
    (`held_amounts`).

    A portion is a quarter of an hour, within which no period ends; a minute where an anchor or a
    rolling window is as fine as that.
    """
    minutes = 15 if rule.clock.is_aligned and not rule.is_rolling else 1
    columns = [_dimension_sql(name) for name in rule.per if name != REQUEST]
    conditions = [sql.SQL("tenant_id = {}").format(sql.Literal(tenant_id)), sql.SQL("NOT is_void")]
    if (first := max(rule.counts_from, since)) > EPOCH:
        conditions.append(sql.SQL("time >= {}").format(sql.Literal(first)))
    if without_held:
        conditions.append(_not_held(rule, tenant_id))
    for name, (_, wanted) in zip(rule.match, rule.wanted, strict=True):
        values = sql.Literal(sorted(wanted))
        conditions.append(sql.SQL("{} = ANY({})").format(_dimension_sql(name), values))
    portion = sql.SQL("date_bin({}::interval, time, {})").format(
        sql.Literal(f"{minutes} minutes"), sql.Literal(EPOCH)
    )
    grouped = sql.SQL(", ").join([portion, *columns])
    query = sql.SQL(
        "SELECT coalesce(sum(cost_nanos), 0), sum(input_tokens + output_tokens),"
        " count(*) FILTER (WHERE operation <> {tool}), count(*) FILTER (WHERE operation = {tool}),"
        " {grouped} FROM usage_event WHERE {conditions} GROUP BY {grouped}"
    ).format(
        tool=sql.Literal(Operation.TOOL.value),
        grouped=grouped,
        conditions=sql.SQL(" AND ").join(conditions),
    )
    with connection.cursor() as cursor:
        cursor.execute(query.as_string(cursor.cursor))
        for cost, tokens, requests, tool_calls, at, *group in cursor:
            yield at, tuple(group), Amounts(cost, tokens, requests, tool_calls)


def _not_held(rule: BudgetRule, tenant_id: int) -> sql.Composable:
    return sql.SQL(
        "(reservation_id IS NULL OR NOT EXISTS (SELECT FROM reservation r JOIN budget_window w"
        " ON w.tenant_id = r.tenant_id AND w.id = ANY(r.window_ids)"
        " WHERE r.tenant_id = {tenant} AND r.id = usage_event.reservation_id"
        " AND w.budget_id = {budget} AND w.revision = {revision}))"
    ).format(
        tenant=sql.Literal(tenant_id),
        budget=sql.Literal(rule.id),
        revision=sql.Literal(rule.revision),
    )


def held_amounts(
    rule: BudgetRule, *, tenant_id: int, since: datetime
) -> Iterator[tuple[datetime, str, datetime, Amounts]]:
    """What events of reservations `since` then add to the windows of a budget that these hold,
    whatever the events say of themselves: (event time to a minute, group key, the window's begin,
    amounts).
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT date_bin('1 minute', e.time, %s), w.group_key, w.starts_at,
                coalesce(sum(e.cost_nanos), 0),
                sum(e.input_tokens + e.output_tokens),
                count(*) FILTER (WHERE e.operation <> {Operation.TOOL.value}),
                count(*) FILTER (WHERE e.operation = {Operation.TOOL.value})
            FROM usage_event e
            JOIN reservation r ON r.tenant_id = e.tenant_id AND r.id = e.reservation_id
            JOIN budget_window w ON w.tenant_id = r.tenant_id AND w.id = ANY(r.window_ids)
            WHERE e.tenant_id = %s AND NOT e.is_void AND e.time >= %s AND w.budget_id = %s
                AND w.revision = %s
            GROUP BY 1, 2, 3
            """,  # noqa: S608 - numbers of this package's own
            [EPOCH, tenant_id, since, rule.id, rule.revision],
        )
        for at, key, starts_at, *amounts in cursor.fetchall():
            yield at, key, starts_at, Amounts(*amounts)


def _dimension_sql(name: str) -> sql.Composable:
    """A dimension's value as text; what is stored as a number is spelled out."""
    assert name in MATCHABLE, name
    if name == "operation":
        return _spelled("operation", Operation)
    if name == "status":
        return _spelled("status", Status)
    return sql.Identifier(name)


def _spelled(
    column: str, choices: type[Operation] | type[Status] | type[CostSource]
) -> sql.Composable:
    whens = [
        sql.SQL("WHEN {} THEN {}").format(sql.Literal(one.value), sql.Literal(one.label))
        for one in choices
    ]
    return sql.SQL("CASE {} {} END").format(sql.Identifier(column), sql.SQL(" ").join(whens))
