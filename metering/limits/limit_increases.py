"""Temporary raises of a budget's limits: asked for with a reason, decided by a person.

A request moves nothing. An approved raise counts from the next reservation that begins, since an
approval is a change of configuration.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from common.errors import Conflict
from metering.budgets.index import BudgetBook
from metering.budgets.reading import read_book
from metering.ledger.crossings import Change, judge_windows_again
from metering.limits.lockouts import follow_levels
from metering.models import Budget, BudgetRaise, FellBy, RaiseStatus
from tenants.audit import facts_of, record_change
from tenants.limits import require_room
from tenants.scope import change_configuration, hold_configuration

# How many raises that are over one transaction judges, each a portion of windows at most.
ENDED_MAX: Final = 10
# Written out, so that the partial index fits.
_ENDED: Final = (
    f"status = '{RaiseStatus.APPROVED.value}' AND judged_at IS NULL AND ends_at <= now()"
)
# Requests of a budget that nobody has decided: more of them would tell people nothing.
OPEN_REQUESTS_MAX: Final = 100


class AlreadyDecided(Conflict):
    """Somebody decided otherwise before."""

    code = "already_decided"


class RaiseOver(Conflict):
    """The time that the raise was asked for is over."""

    code = "raise_over"


class NotApproved(Conflict):
    """Only what was approved can be ended."""

    code = "not_approved"


class TooManyRequests(Conflict):
    """So many requests wait for a decision that one more would not be read."""

    code = "too_many_open_requests"


class Added(NamedTuple):
    """How much higher the limits are to be, part by part."""

    cost_nanos: int = 0
    tokens: int = 0
    requests: int = 0
    tool_calls: int = 0
    seconds: int = 0


class RaiseAsk(NamedTuple):
    """What is asked for. `group_key` as `budget_window` has it; empty: every group."""

    add: Added
    reason: str
    ends_at: datetime
    group_key: str = ""
    # Of a level that holds: its window and percentage, so that it asks once.
    window_id: int | None = None
    level_percent: int | None = None


def unlimited_parts(budget: Budget, add: Sequence[int]) -> list[str]:
    """The parts that would be raised although the budget has no limit of them."""
    return [
        part
        for part, amount in zip(Added._fields, add, strict=True)
        if amount and getattr(budget, f"limit_{part}") is None
    ]


@transaction.atomic
def ask_for_raise(*, budget: Budget, actor: str, ask: RaiseAsk) -> BudgetRaise:
    """Ask people for higher limits for a while. Moves nothing until one of them approves.

    A level that holds asks once: while its request is open, or stands refused, that one is
    answered. Raises Conflict for an archived budget and TooManyRequests.
    """
    assert any(ask.add), "a raise raises something"
    assert not unlimited_parts(budget, ask.add), "what has no limit cannot be raised"
    if budget.archived_at is not None:
        raise Conflict("The budget is archived: it limits nothing.")
    if ask.window_id is None:
        _require_readable_number(budget)
        waiting = BudgetRaise.objects.filter(
            tenant_id=budget.tenant_id, status=RaiseStatus.ASKED, ends_at__gt=timezone.now()
        )
        require_room(budget.tenant_id, "raises", waiting)
    elif (standing := _standing_request(budget, ask)) is not None:
        return standing
    wanted = {f"add_{part}": amount for part, amount in ask.add._asdict().items()}
    budget_raise = BudgetRaise.objects.create(
        tenant_id=budget.tenant_id,
        budget_id=budget.id,
        asked_by=actor[:300],
        **wanted,
        **{name: value for name, value in ask._asdict().items() if name != "add"},
    )
    _record(budget_raise, actor=actor, action="create")
    return budget_raise


def _require_readable_number(budget: Budget) -> None:
    open_requests = BudgetRaise.objects.filter(
        tenant_id=budget.tenant_id,
        budget_id=budget.id,
        status=RaiseStatus.ASKED,
        ends_at__gt=timezone.now(),
    )
    if open_requests.count() >= OPEN_REQUESTS_MAX:
        raise TooManyRequests(
            f"{OPEN_REQUESTS_MAX} requests to raise this budget wait for a decision already."
        )


def _standing_request(budget: Budget, ask: RaiseAsk) -> BudgetRaise | None:
    """The request of this window and level that is open or stands refused, if there is one.

    The caller holds the window's lock, so nobody else asks for it meanwhile.
    """
    latest = (
        BudgetRaise.objects.filter(
            tenant_id=budget.tenant_id,
            window_id=ask.window_id,
            level_percent=ask.level_percent,
        )
        .order_by("-id")
        .first()
    )
    if latest is None or latest.status == RaiseStatus.APPROVED:
        return None
    if latest.ends_at > timezone.now():
        return latest
    if latest.status == RaiseStatus.REFUSED:
        return None
    # Nobody decided in time. The same request now asks for the time to come.
    before = facts_of(latest)
    latest.ends_at = ask.ends_at
    latest.save(update_fields=["ends_at"])
    _record(latest, actor=latest.asked_by, action="update", before=before)
    return latest


@transaction.atomic
def approve_raise(*, budget_raise: BudgetRaise, actor: str, note: str = "") -> BudgetRaise:
    """Put a raise in force until its end. Approving it twice changes nothing.

    Raises AlreadyDecided where it was refused, RaiseOver where its end is past, and Conflict where
    the budget is archived.
    """
    change_configuration(budget_raise.tenant_id)
    stored = _locked(budget_raise)
    if stored.status == RaiseStatus.APPROVED:
        return stored
    _require_open(stored)
    if stored.ends_at <= timezone.now():
        raise RaiseOver("The time that this raise was asked for is over.")
    if stored.budget.archived_at is not None:
        raise Conflict("The budget is archived: it limits nothing.")
    decided = _decide(stored, RaiseStatus.APPROVED, actor=actor, note=note)
    _judge_windows(read_book(stored.tenant_id), decided, lifts=True)
    return decided


@transaction.atomic
def refuse_raise(*, budget_raise: BudgetRaise, actor: str, note: str = "") -> BudgetRaise:
    """Say no. Refusing it twice changes nothing; raises AlreadyDecided where it was approved."""
    stored = _locked(budget_raise)
    if stored.status == RaiseStatus.REFUSED:
        return stored
    _require_open(stored)
    return _decide(stored, RaiseStatus.REFUSED, actor=actor, note=note)


@transaction.atomic
def end_raise(*, budget_raise: BudgetRaise, actor: str) -> BudgetRaise:
    """Let an approved raise end now; one that is over stays as it is. Raises NotApproved."""
    change_configuration(budget_raise.tenant_id)
    stored = _locked(budget_raise)
    if stored.status != RaiseStatus.APPROVED:
        raise NotApproved("This raise was not approved, so it is not in force.")
    ended = _end(stored, actor=actor)
    _judge_windows(read_book(stored.tenant_id), ended, lifts=False)
    return ended


def tenants_with_ended_raises() -> list[int]:
    """Tenants with a raise that is over by the database's clock, whose windows have not been judged
    without it. Needs a platform scope.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT DISTINCT tenant_id FROM budget_raise WHERE {_ENDED}")  # noqa: S608
        return [row[0] for row in cursor.fetchall()]


@transaction.atomic
def judge_ended_raises(tenant_id: int) -> int:
    """Judge the windows of some raises that are over by the limits without them; return how many
    raises.

    Holds the configuration lock alone, as whoever ends a raise by hand. The configuration itself
    stays: every book knows when a raise ends.
    """
    hold_configuration(tenant_id)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, now() FROM budget_raise WHERE tenant_id = %s AND {_ENDED} ORDER BY id"  # noqa: S608
            f" LIMIT {ENDED_MAX} FOR UPDATE",
            [tenant_id],
        )
        ended = cursor.fetchall()
    raises = BudgetRaise.objects.filter(tenant_id=tenant_id, id__in=[row[0] for row in ended])
    book = read_book(tenant_id)
    for budget_raise in raises.order_by("budget_id", "group_key"):
        _judge_windows(book, budget_raise, lifts=False, now=ended[0][1])
    raises.update(judged_at=timezone.now())
    return len(ended)


def _judge_windows(
    book: BudgetBook, budget_raise: BudgetRaise, *, lifts: bool, now: datetime | None = None
) -> None:
    """Settle the levels of the windows whose limit an approved raise moves. Nobody else moves them
    while the caller holds the configuration lock.
    """
    is_of_time = budget_raise.add_seconds > 0
    changes = judge_windows_again(
        book=book,
        budget_id=budget_raise.budget_id,
        change=Change(FellBy.INCREASE, lifts=lifts, is_of_time=is_of_time),
        group_key=budget_raise.group_key,
        now=now,
    )
    follow_levels(book, changes, now=now)


def end_raises_of_groups(*, budget: Budget, actor: str) -> None:
    """After a change of the budget's `per`: what was raised for one group names no group now.

    The caller holds the configuration lock alone.
    """
    for stored in BudgetRaise.objects.select_for_update().filter(
        tenant_id=budget.tenant_id, budget_id=budget.id, ends_at__gt=timezone.now()
    ):
        if stored.group_key and stored.status == RaiseStatus.APPROVED:
            _end(stored, actor=actor)
        elif stored.group_key and stored.status == RaiseStatus.ASKED:
            note = "The budget's groups were changed."
            _decide(stored, RaiseStatus.REFUSED, actor=actor, note=note)


def _locked(budget_raise: BudgetRaise) -> BudgetRaise:
    return BudgetRaise.objects.select_for_update().get(
        tenant_id=budget_raise.tenant_id, id=budget_raise.id
    )


def _require_open(stored: BudgetRaise) -> None:
    if stored.status != RaiseStatus.ASKED:
        raise AlreadyDecided(f"This raise was {stored.status} by {stored.decided_by}.")


def _decide(stored: BudgetRaise, status: RaiseStatus, *, actor: str, note: str) -> BudgetRaise:
    before = facts_of(stored)
    now = timezone.now()
    stored.status = status
    stored.decided_at, stored.decided_by, stored.note = now, actor[:300], note
    if status == RaiseStatus.APPROVED and stored.starts_at is None:
        stored.starts_at = now
    stored.save()
    action = "approve" if status == RaiseStatus.APPROVED else "refuse"
    _record(stored, actor=actor, action=action, before=before)
    return stored


def _end(stored: BudgetRaise, *, actor: str) -> BudgetRaise:
    before = facts_of(stored)
    now = timezone.now()
    stored.ends_at = min(stored.ends_at, now)
    # Whoever ends it judges the windows, too.
    stored.judged_at = stored.judged_at or now
    stored.save(update_fields=["ends_at", "judged_at"])
    _record(stored, actor=actor, action="update", before=before)
    return stored


def _record(
    budget_raise: BudgetRaise,
    *,
    actor: str,
    action: str,
    before: dict[str, object] | None = None,
) -> None:
    record_change(
        tenant_id=budget_raise.tenant_id,
        actor=actor,
        action=action,
        subject=budget_raise,
        before=before,
        after=facts_of(budget_raise),
    )
