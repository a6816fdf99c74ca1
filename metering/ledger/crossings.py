"""The level that a window has reached: what is noted when it rises, and what ends when it falls.

Whatever moves a window's spend or its limit ends here, with the window locked or with the tenant's
configuration to itself: usage, corrections, new prices, what leaves a rolling window, what is
carried over, a changed budget, and limit increases that begin or end.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from common.queries import Parameter
from metering.budgets.index import BudgetIndex
from metering.budgets.levels import Use
from metering.budgets.rules import BudgetRule, LevelRule
from metering.core.background_jobs import finish_job, start_job
from metering.ledger.windows import (
    WINDOW_COLUMNS,
    WindowState,
    balance_of,
    may_have_reached,
    used_percent,
)
from metering.models import BY_LEVEL, Action, BackgroundJob, BudgetWindow, Crossing, FellBy, JobKind

# Windows that one transaction reads, and of these judges again: few enough to be done within a
# second.
PORTION_WINDOWS: Final = 20_000
JUDGED_MAX: Final = 500
ID_MAX: Final = 2**63 - 1
YOUNG: Final = timedelta(days=1)


class Change(NamedTuple):
    """What was done to a budget, as far as the levels of its windows go by it."""

    by: FellBy
    # Whether lockouts of calls that asked for too much have lost their cause: a limit is higher, or
    # a level locks out no more.
    lifts: bool = False
    # Whether what levels do is not what it was: all that is reached is news.
    is_reset: bool = False
    # Whether the limit on time, or the levels of it, changed.
    is_of_time: bool = False


class Lockout(NamedTuple):
    """A level that locks out, and the window that reached it; percentages are of its limit."""

    rule: BudgetRule
    window: WindowState
    level_percent: int
    used_percent: Decimal


class LevelChanges(NamedTuple):
    """What a change of levels asks of halts."""

    # By window, the level above which lockouts have lost their cause.
    lifts_above: Mapping[int, int]
    lockouts: Sequence[Lockout]

    def plus(self, other: "LevelChanges") -> "LevelChanges":
        return LevelChanges(
            {**self.lifts_above, **other.lifts_above}, [*self.lockouts, *other.lockouts]
        )


NO_LEVEL_CHANGES: Final = LevelChanges({}, ())


def settle_levels(
    *,
    book: BudgetIndex,
    windows: Iterable[WindowState],
    by: FellBy,
    change: Change | None = None,
    now: datetime | None = None,
) -> LevelChanges:
    """Bring windows to the highest level that their present spend reaches of their present limit.

    Return the lockouts that this asks for; the caller passes them to `limits.lockouts`. A level
    that is newly reached is a crossing. When the level falls, an episode ends: to reach those
    levels again is news. Levels that are still reached are no news.

    `change` is given after a change of the budget; it also makes up for lockouts that a level
    without this action did not make.
    """
    now = now or timezone.now()
    judged = [
        _judge(rule, window, now=now, by=by, change=change)
        for window in windows
        if (rule := book.rules.get(window.budget_id)) is not None
        and rule.revision == window.revision
        # The limits of a period that is over are what they were.
        and not (by != FellBy.SPEND and window.ends_at is not None and window.ends_at <= now)
    ]
    _write_levels(book.tenant_id, [each for each in judged if each.is_moved])
    crossings = [_crossing(book, each, level, now) for each in judged for level in each.reached]
    if crossings:
        Crossing.objects.bulk_create(crossings, ignore_conflicts=True)
    return LevelChanges(
        lifts_above={
            each.window.id: each.lifts_above for each in judged if each.lifts_above is not None
        },
        lockouts=[
            Lockout(each.rule, each.window, level.percent, each.use.percent)
            for each in judged
            for level in each.locking
        ],
    )


class _Judged(NamedTuple):
    """A window and the level that it has reached; its episode is that of now."""

    rule: BudgetRule
    window: WindowState
    use: Use
    # The highest level that is reached; 0 for none.
    top: int
    fell_by: str
    # Levels that are newly reached, and those that lock out now.
    reached: Sequence[LevelRule]
    locking: Sequence[LevelRule]
    # Lockouts of levels above this have lost their cause; None: no lockout has.
    lifts_above: int | None

    @property
    def is_moved(self) -> bool:
        return bool(self.fell_by) or self.top != self.window.level_percent


def _judge(
    rule: BudgetRule,
    window: WindowState,
    *,
    now: datetime,
    by: FellBy,
    change: Change | None,
) -> _Judged:
    """What has become of a window's level. Pure."""
    use = used_percent(rule, window, now=now)
    reached = [level for level in rule.levels if level.percent <= use.percent]
    top = reached[-1].percent if reached else 0
    is_reset = change is not None and change.is_reset
    has_fallen = top < window.level_percent or (is_reset and window.level_percent > 0)
    before = 0 if is_reset else window.level_percent
    new = [level for level in reached if level.percent > before]
    if has_fallen:
        window = window._replace(episode=window.episode + 1)
    locking = reached if change is not None else new
    lifts = has_fallen or (change is not None and (change.lifts or is_reset))
    return _Judged(
        rule=rule,
        window=window,
        use=use,
        top=top,
        fell_by=by.value if has_fallen else "",
        reached=new,
        locking=[level for level in locking if level.action == Action.LOCKOUT],
        lifts_above=(0 if is_reset else top) if lifts else None,
    )


def _write_levels(tenant_id: int, moved: Sequence[_Judged]) -> None:
    if not moved:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE budget_window w SET level_percent = n.level, episode = n.episode,"
            " fell_by = CASE WHEN n.fell_by = '' THEN w.fell_by ELSE n.fell_by END"
            " FROM unnest(%s::bigint[], %s::int[], %s::int[], %s::text[])"
            " AS n (id, level, episode, fell_by) WHERE w.tenant_id = %s AND w.id = n.id",
            [
                [each.window.id for each in moved],
                [each.top for each in moved],
                [each.window.episode for each in moved],
                [each.fell_by for each in moved],
                tenant_id,
            ],
        )


def _crossing(book: BudgetIndex, judged: _Judged, level: LevelRule, now: datetime) -> Crossing:
    rule, window = judged.rule, judged.window
    return Crossing(
        tenant_id=book.tenant_id,
        budget_id=rule.id,
        window_id=window.id,
        percent=level.percent,
        episode=window.episode,
        action=level.action,
        mode=rule.mode,
        notify=list(level.notify),
        group_key=window.group_key,
        used_percent=judged.use.percent,
        spent_nanos=window.spent_nanos,
        limit_nanos=balance_of(rule, window, now=now).limit(rule, 0),
    )


def judge_windows_again(
    *,
    book: BudgetIndex,
    budget_id: int,
    change: Change,
    group_key: str = "",
    now: datetime | None = None,
) -> LevelChanges:
    """Settle the levels of a budget's open windows (of one group, or of all) after a change of
    their limits or levels: a first portion now, what is left by a job.

    The caller holds the configuration lock alone, so that nothing moves the windows meanwhile. Only
    windows that have reached a level, or reach one now, are judged, however many there are. Of
    windows that are beyond a limit on time alone, those which were first used within a day are:
    others are old sessions, whose time counts when they are used next.
    """
    rule = book.rules.get(budget_id)
    if rule is None:
        return NO_LEVEL_CHANGES
    now = now or timezone.now()
    portion = _judge_portion(book, rule, change, group_key=group_key, after=0, now=now)
    if portion.is_last:
        return portion.changes
    start_job(
        tenant_id=book.tenant_id,
        kind=JobKind.JUDGE_WINDOWS,
        actor=BY_LEVEL,
        # Counted by the first step: no one waits for that each.
        total=0,
        budget_id=budget_id,
        revision=rule.revision,
        parameters={"change": change._asdict(), "group_key": group_key},
        after_id=portion.last_id,
        done=portion.read,
    )
    return portion.changes


def judge_a_portion(book: BudgetIndex, job: BackgroundJob) -> LevelChanges:
    """A step of such a job. In a transaction that holds the configuration shared, and the job; the
    windows stay locked until commit, so that none moves while it is judged.

    Usage that came after the change was judged by the new limits. Where what levels do was changed,
    a level that it reached meanwhile is news once more.
    """
    rule = book.rules.get(job.budget_id or 0)
    if rule is None or rule.revision != job.revision:
        finish_job(job, {"is_complete": False})
        return NO_LEVEL_CHANGES
    if not job.total:
        job.total = BudgetWindow.objects.filter(tenant_id=book.tenant_id).count()
    stored = job.parameters["change"]
    portion = _judge_portion(
        book,
        rule,
        Change(**{**stored, "by": FellBy(stored["by"])}),
        group_key=job.parameters["group_key"],
        after=job.after_id,
        now=timezone.now(),
    )
    job.after_id = portion.last_id
    job.done += portion.read
    if portion.is_last:
        finish_job(job, {"is_complete": True})
    return portion.changes


class _Portion(NamedTuple):
    """Windows of a tenant in the order of their ids, those of one budget among them judged."""

    read: int
    last_id: int
    is_last: bool
    changes: LevelChanges


def _next_windows(cursor: CursorWrapper, tenant_id: int, after: int) -> tuple[int, int]:
    """Return the number of windows of a portion, and the id of the last."""
    cursor.execute(
        "SELECT count(*), coalesce(max(id), %s) FROM (SELECT id FROM budget_window"
        " WHERE tenant_id = %s AND id > %s ORDER BY id LIMIT %s) portion",
        [after, tenant_id, after, PORTION_WINDOWS],
    )
    read, last_id = cursor.fetchone()
    return read, last_id


def _judge_portion(
    book: BudgetIndex,
    rule: BudgetRule,
    change: Change,
    *,
    group_key: str,
    after: int,
    now: datetime,
) -> _Portion:
    condition, parameters = _may_change(rule)
    if change.is_of_time and rule.limit_seconds is not None and rule.levels:
        reached_after = timedelta(seconds=rule.limit_seconds * rule.levels[0].percent / 100)
        condition += " OR (w.first_used_at <= %s AND w.first_used_at > %s)"
        parameters += [now - reached_after, now - reached_after - YOUNG]
    with connection.cursor() as cursor:
        # One group has few windows: they are not worth waiting for.
        read, last_id = (0, ID_MAX) if group_key else _next_windows(cursor, book.tenant_id, after)
        cursor.execute(
            f"SELECT {WINDOW_COLUMNS} FROM budget_window w"
            " WHERE w.tenant_id = %s AND w.budget_id = %s AND w.revision = %s AND w.id > %s"
            " AND w.id <= %s AND (%s = '' OR w.group_key = %s)"
            " AND (w.ends_at IS NULL OR w.ends_at > %s)"
            f" AND ({condition}) ORDER BY w.id LIMIT {JUDGED_MAX} FOR UPDATE",
            [
                *(book.tenant_id, rule.id, rule.revision, after, last_id),
                *(group_key, group_key, now),
                *parameters,
            ],
        )
        windows = [WindowState(*row) for row in cursor.fetchall()]
    changes = settle_levels(book=book, windows=windows, by=change.by, change=change, now=now)
    if len(windows) == JUDGED_MAX:
        return _Portion(len(windows), windows[-1].id, is_last=False, changes=changes)
    return _Portion(read, last_id, is_last=read < PORTION_WINDOWS, changes=changes)


def _may_change(rule: BudgetRule) -> tuple[str, list[Parameter]]:
    """A condition for windows whose level may change: at a level, beyond the lowest one, or locked
    out. Raises only make the limit larger, so they are left out here.
    """
    conditions = [
        "w.level_percent > 0",
        "EXISTS (SELECT FROM halt h WHERE h.tenant_id = w.tenant_id AND h.window_id = w.id"
        " AND h.lifted_at IS NULL AND h.lifted_by <> %s)",
    ]
    parameters: list[Parameter] = [BY_LEVEL]
    if rule.levels:
        reached, of_limits = may_have_reached(rule, rule.levels[0].percent)
        conditions.append(reached)
        parameters += of_limits
    return " OR ".join(conditions), parameters
