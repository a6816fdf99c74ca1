"""What else stops the calls of a budget's group: halts, breakers and other budgets."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from django.db import connection

from metering.budgets.levels import REFUSING, Use
from metering.budgets.reading import read_budget_index
from metering.budgets.rules import BudgetRule
from metering.core.match import wanted_values
from metering.ledger.windows import WINDOW_COLUMNS, WindowState, used_percent
from metering.limits.halts import CODE_BY_KIND, ActiveHalt, match_of_group, read_halts
from metering.models import Mode

# No one reads more than these in one answer.
NAMED_MAX: Final = 20
# The most windows at a level that are looked at.
LOOKED_AT_MAX: Final = 1_000


class Obstacle(NamedTuple):
    """Something that refuses calls of the group, all of them or some."""

    # "halted", "breaker_open" or "locked_out" of a halt, which can be lifted; "budget_exceeded".
    code: str
    detail: str
    match: Mapping[str, object]
    halt_id: int | None = None
    breaker_id: int | None = None
    budget_id: int | None = None
    # Whether it refuses every such call, or may refuse some of them.
    is_for_all: bool = False


class Obstacles(NamedTuple):
    """What refuses calls of a tenant at one moment."""

    rules: Mapping[int, BudgetRule]
    all: Sequence[Obstacle]

    def of(self, budget_id: int, group_key: str) -> list[Obstacle]:
        """What refuses calls that a budget counts for a group ("": for every group): what stops all
        of them first, and halts before budgets. The budget's own window may be among them.
        """
        rule = self.rules.get(budget_id)
        if rule is None:
            return []
        group = json.loads(group_key) if group_key else []
        match = match_of_group(rule.match, rule.per[: len(group)], group)
        obstacles = [
            obstacle._replace(is_for_all=_covers(obstacle.match, match))
            for obstacle in self.all
            if may_meet(obstacle.match, match)
        ]
        return sorted(obstacles, key=lambda obstacle: not obstacle.is_for_all)[:NAMED_MAX]


def read_obstacles(tenant_id: int, *, now: datetime) -> Obstacles:
    """The halts in force, and the windows at a level that refuses."""
    rules = read_budget_index(tenant_id).rules
    with connection.cursor() as cursor:
        halts = read_halts(cursor, tenant_id)
    return Obstacles(rules, [*map(_of_halt, halts), *_of_budgets(tenant_id, rules, now)])


def may_meet(left: Mapping[str, object], right: Mapping[str, object]) -> bool:
    """Whether some call can match both."""
    return all(
        not wanted_values(left[name]).isdisjoint(wanted_values(right[name]))
        for name in left.keys() & right.keys()
    )


def _covers(wide: Mapping[str, object], match: Mapping[str, object]) -> bool:
    """Whether every call that matches `match` matches `wide`."""
    return all(
        name in match and wanted_values(match[name]) <= wanted_values(value)
        for name, value in wide.items()
    )


def _of_halt(halt: ActiveHalt) -> Obstacle:
    return Obstacle(
        code=CODE_BY_KIND[halt.kind],
        detail=halt.reason,
        match=halt.match,
        halt_id=halt.id,
        breaker_id=halt.breaker_id,
    )


def _of_budgets(
    tenant_id: int, rules: Mapping[int, BudgetRule], now: datetime
) -> Iterator[Obstacle]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {WINDOW_COLUMNS} FROM budget_window w WHERE w.tenant_id = %s"
            " AND w.budget_id = ANY(%s) AND w.level_percent > 0"
            " AND (w.ends_at IS NULL OR w.ends_at > %s) ORDER BY w.id DESC LIMIT %s",
            [tenant_id, list(rules), now, LOOKED_AT_MAX],
        )
        windows = [WindowState(*row) for row in cursor.fetchall()]
    for window in windows:
        rule = rules[window.budget_id]
        if rule.revision != window.revision or rule.mode != Mode.ENFORCE or rule.is_per_request:
            continue
        use = used_percent(rule, window, now=now)
        refuses = any(
            level.action in REFUSING and level.percent <= use.percent for level in rule.levels
        )
        if refuses:
            yield _of_budget(rule, window, use)


def _of_budget(rule: BudgetRule, window: WindowState, use: Use) -> Obstacle:
    counted = match_of_group(rule.match, rule.per, json.loads(window.group_key))
    part = "cost" if use.part == "cost_nanos" else use.part.replace("_", " ")
    return Obstacle(
        code="budget_exceeded",
        detail=f"The budget {rule.name!r} has used {use.percent}% of its limit on {part}.",
        match=counted,
        budget_id=rule.id,
    )
