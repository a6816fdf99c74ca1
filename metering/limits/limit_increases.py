"""Temporary raises of a budget's limits: asked for with a reason, decided by a person.

A request moves nothing. An approved raise counts from the next reservation that begins, since an
approval is a change of configuration.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from common.errors import Conflict
from metering.budgets.index import BudgetIndex
from metering.budgets.reading import read_budget_index
from metering.core.dimensions import REQUEST
from metering.core.validation import Problem, require
from metering.ledger.crossings import Change, judge_windows_again
from metering.limits.lockouts import follow_levels
from metering.models import Budget, FellBy, LimitIncrease, LimitIncreaseStatus
from tenants.audit import audited_change, create_audited
from tenants.limits import require_room
from tenants.scope import change_configuration, hold_configuration

# The most raises that are over which one transaction judges, each a portion of windows at most.
ENDED_MAX: Final = 10
# Written out, so that the partial index fits.
_ENDED: Final = (
    f"status = '{LimitIncreaseStatus.APPROVED.value}' AND judged_at IS NULL AND ends_at <= now()"
)
# Undecided requests of a budget: more of them would tell people nothing.
OPEN_REQUESTS_MAX: Final = 100


class AlreadyDecided(Conflict):
    """A different decision was made before."""

    code = "already_decided"


class LimitIncreaseOver(Conflict):
    """The time that the raise was asked for is over."""

    code = "raise_over"


class NotApproved(Conflict):
    """Only what was approved can be ended."""

    code = "not_approved"


class TooManyRequests(Conflict):
    """Too many requests are waiting for a decision for another to be read."""

    code = "too_many_open_requests"


class Added(NamedTuple):
    """How much higher the limits are to be, part by part."""

    cost_nanos: int = 0
    tokens: int = 0
    requests: int = 0
    tool_calls: int = 0
    seconds: int = 0


class IncreaseAsk(NamedTuple):
    """What is asked for. `group_key` as `budget_window` has it; empty: every group."""

    add: Added
    reason: str
    ends_at: datetime
    group_key: str = ""
    # Of a level that holds: its window and percentage, so that it asks once.
    window_id: int | None = None
    level_percent: int | None = None


def validate_increase(budget: Budget, ask: IncreaseAsk) -> None:
    """Raise ValidationError with an error for each field that is wrong."""
    require(increase_problems(budget, ask))


def increase_problems(budget: Budget, ask: IncreaseAsk) -> Iterator[Problem]:
    """Judge what is asked for."""
    if not any(ask.add):
        yield Problem("by", "Raise at least one part.")
    for part, amount in ask.add._asdict().items():
        if amount and getattr(budget, f"limit_{part}") is None:
            yield Problem(f"by.{part}", "The budget has no such limit.", "unlimited")
    if ask.ends_at <= timezone.now():
        yield Problem("ends_at", "Must lie in the future.")
    if ask.group_key and REQUEST in budget.per and ask.window_id is None:
        yield Problem("group", "Each call is a group of its own; raise all of them.")


@transaction.atomic
def ask_for_increase(*, budget: Budget, actor: str, ask: IncreaseAsk) -> LimitIncrease:
    """Ask people for higher limits for a while. Moves nothing until one of them approves.

    A level that holds asks once: while its request is open, or stands refused, that one is
    answered. Raises ValidationError, Conflict for a budget that is archived or not a person's to
    raise, and TooManyRequests.
    """
    validate_increase(budget, ask)
    if budget.archived_at is not None:
        raise Conflict("The budget is archived: it limits nothing.")
    if budget.managed_by:
        raise Conflict(f"The limit is that of a {budget.managed_by}: raise it there.")
    if ask.window_id is None:
        _require_readable_number(budget)
        waiting = LimitIncrease.objects.filter(
            tenant_id=budget.tenant_id, status=LimitIncreaseStatus.ASKED, ends_at__gt=timezone.now()
        )
        require_room(budget.tenant_id, "raises", waiting)
    elif (standing := _standing_request(budget, ask)) is not None:
        return standing
    wanted = {f"add_{part}": amount for part, amount in ask.add._asdict().items()}
    limit_increase = LimitIncrease(
        tenant_id=budget.tenant_id,
        budget_id=budget.id,
        asked_by=actor[:300],
        **wanted,
        **{name: value for name, value in ask._asdict().items() if name != "add"},
    )
    return create_audited(limit_increase, actor=actor)


def _require_readable_number(budget: Budget) -> None:
    open_requests = LimitIncrease.objects.filter(
        tenant_id=budget.tenant_id,
        budget_id=budget.id,
        status=LimitIncreaseStatus.ASKED,
        ends_at__gt=timezone.now(),
    )
    if open_requests.count() >= OPEN_REQUESTS_MAX:
        raise TooManyRequests(
            f"{OPEN_REQUESTS_MAX} requests to raise this budget wait for a decision already."
        )


def _standing_request(budget: Budget, ask: IncreaseAsk) -> LimitIncrease | None:
    """The request of this window and level that is open or stands refused, if there is one.

    The caller holds the window's lock, so no one else asks for it meanwhile.
    """
    latest = (
        LimitIncrease.objects.filter(
            tenant_id=budget.tenant_id,
            window_id=ask.window_id,
            level_percent=ask.level_percent,
        )
        .order_by("-id")
        .first()
    )
    if latest is None or latest.status == LimitIncreaseStatus.APPROVED:
        return None
    if latest.ends_at > timezone.now():
        return latest
    if latest.status == LimitIncreaseStatus.REFUSED:
        return None
    # No one decided in time. The same request now asks for the time to come.
    with audited_change(latest, actor=latest.asked_by, changes={"ends_at": ask.ends_at}) as change:
        return change.row


@transaction.atomic
def approve_increase(*, limit_increase: LimitIncrease, actor: str, note: str = "") -> LimitIncrease:
    """Put a raise in force until its end. Approving it twice changes nothing.

    Raises AlreadyDecided where it was refused, RaiseOver where its end is past, and Conflict where
    the budget is archived.
    """
    change_configuration(limit_increase.tenant_id)
    with audited_change(limit_increase, actor=actor, action="approve") as change:
        stored = change.row
        if stored.status == LimitIncreaseStatus.APPROVED:
            return stored
        _require_open(stored)
        if stored.ends_at <= timezone.now():
            raise LimitIncreaseOver("The time that this raise was asked for is over.")
        if stored.budget.archived_at is not None:
            raise Conflict("The budget is archived: it limits nothing.")
        _decide(stored, LimitIncreaseStatus.APPROVED, actor=actor, note=note)
    _judge_windows(read_budget_index(stored.tenant_id), stored, lifts=True)
    return stored


@transaction.atomic
def refuse_increase(*, limit_increase: LimitIncrease, actor: str, note: str = "") -> LimitIncrease:
    """Say no. Refusing it twice changes nothing; raises AlreadyDecided where it was approved."""
    with audited_change(limit_increase, actor=actor, action="refuse") as change:
        if change.row.status != LimitIncreaseStatus.REFUSED:
            _require_open(change.row)
            _decide(change.row, LimitIncreaseStatus.REFUSED, actor=actor, note=note)
    return change.row


@transaction.atomic
def end_increase(*, limit_increase: LimitIncrease, actor: str) -> LimitIncrease:
    """Let an approved raise end now; one that is over stays as it is. Raises NotApproved."""
    change_configuration(limit_increase.tenant_id)
    with audited_change(limit_increase, actor=actor) as change:
        if change.row.status != LimitIncreaseStatus.APPROVED:
            raise NotApproved("This raise was not approved, so it is not in force.")
        _end(change.row)
    _judge_windows(read_budget_index(limit_increase.tenant_id), change.row, lifts=False)
    return change.row


def tenants_with_ended_increases() -> list[int]:
    """Tenants with a raise that is over by the database's clock, whose windows have not been judged
    without it. Needs a platform scope.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT tenant_id FROM limit_increase WHERE {_ENDED}")
        return [row[0] for row in cursor.fetchall()]


@transaction.atomic
def judge_ended_increases(tenant_id: int) -> int:
    """Judge the windows of some raises that are over by the limits without them; return the
    number of raises.

    Holds the configuration lock alone, as ending a raise manually does. The configuration itself
    stays: every book knows when a raise ends.
    """
    hold_configuration(tenant_id)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, now() FROM limit_increase WHERE tenant_id = %s AND {_ENDED} ORDER BY id"
            f" LIMIT {ENDED_MAX} FOR UPDATE",
            [tenant_id],
        )
        ended = cursor.fetchall()
    raises = LimitIncrease.objects.filter(tenant_id=tenant_id, id__in=[row[0] for row in ended])
    book = read_budget_index(tenant_id)
    for limit_increase in raises.order_by("budget_id", "group_key"):
        _judge_windows(book, limit_increase, lifts=False, now=ended[0][1])
    raises.update(judged_at=timezone.now())
    return len(ended)


def _judge_windows(
    book: BudgetIndex, limit_increase: LimitIncrease, *, lifts: bool, now: datetime | None = None
) -> None:
    """Settle the levels of the windows whose limit an approved raise moves. No one else moves them
    while the caller holds the configuration lock.
    """
    is_of_time = limit_increase.add_seconds > 0
    changes = judge_windows_again(
        book=book,
        budget_id=limit_increase.budget_id,
        change=Change(FellBy.INCREASE, lifts=lifts, is_of_time=is_of_time),
        group_key=limit_increase.group_key,
        now=now,
    )
    follow_levels(book, changes, now=now)


def end_increases_of_groups(*, budget: Budget, actor: str) -> None:
    """After a change of the budget's `per`: what was raised for one group names no group now.

    The caller holds the configuration lock alone.
    """
    raises = LimitIncrease.objects.filter(
        tenant_id=budget.tenant_id, budget_id=budget.id, ends_at__gt=timezone.now()
    ).exclude(group_key="")
    for approved in raises.filter(status=LimitIncreaseStatus.APPROVED):
        with audited_change(approved, actor=actor) as change:
            _end(change.row)
    for asked in raises.filter(status=LimitIncreaseStatus.ASKED):
        with audited_change(asked, actor=actor, action="refuse") as change:
            if change.row.status == LimitIncreaseStatus.ASKED:
                note = "The budget's groups were changed."
                _decide(change.row, LimitIncreaseStatus.REFUSED, actor=actor, note=note)


def _require_open(stored: LimitIncrease) -> None:
    if stored.status != LimitIncreaseStatus.ASKED:
        raise AlreadyDecided(f"This raise was {stored.status} by {stored.decided_by}.")


def _decide(stored: LimitIncrease, status: LimitIncreaseStatus, *, actor: str, note: str) -> None:
    now = timezone.now()
    stored.status = status
    stored.decided_at, stored.decided_by, stored.note = now, actor[:300], note
    if status == LimitIncreaseStatus.APPROVED and stored.starts_at is None:
        stored.starts_at = now


def _end(stored: LimitIncrease) -> None:
    now = timezone.now()
    stored.ends_at = min(stored.ends_at, now)
    # The caller that ends it judges the windows, too.
    stored.judged_at = stored.judged_at or now
