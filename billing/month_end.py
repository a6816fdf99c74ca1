"""Month end: many statements become final, read by the hundred and written by a few.

A statement that is final is not touched again, so a run may be killed anywhere and started again,
and two may run simultaneously.
"""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

import structlog
from dateutil.relativedelta import relativedelta
from django.db import connection
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from billing.drafts import Draft, drafts_of
from billing.finalization import write_final
from billing.models import BillingSettings, Statement, StatementState
from billing.statements import finalize, unpriced_words
from billing.usage import usage_kept_from
from common.errors import MeteringError
from metering.core.periods import EPOCH
from tenants.scope import tenant_scope

log = structlog.get_logger(__name__)

ACTOR: Final = "month end"
# Statements whose usage is read in one snapshot; and what is written in one transaction: no more
# statements, and no more lines unless a single statement has them.
READ_AT_ONCE: Final = 200
WRITTEN_AT_ONCE: Final = 50
LINES_AT_ONCE: Final = 5_000
# How long a draft that cannot become final is left alone by what goes by the clock.
HELD_FOR: Final = timedelta(hours=1)


class Share(NamedTuple):
    """One of several processes, each of which takes customers of its own."""

    number: int = 0
    of: int = 1


EVERYONE: Final = Share()


@dataclass(frozen=True)
class Due:
    """Which drafts of a tenant are to become final: those of periods that ended by a moment; with a
    month, only those that ended in it by the statement's own clock.
    """

    tenant_id: int
    ended_by: datetime
    month: date | None = None
    share: Share = EVERYONE
    skips_held: bool = False

    def statements(self) -> QuerySet[Statement]:
        """Return the drafts, unordered."""
        rows = Statement.objects.filter(
            tenant_id=self.tenant_id, state=StatementState.DRAFT, period_end__lte=self.ended_by
        )
        if self.skips_held:
            rows = rows.filter(Q(held_until=None) | Q(held_until__lte=timezone.now()))
        if self.share.of > 1:
            of_share = rows.annotate(place=F("customer_id") % self.share.of)
            rows = of_share.filter(place=self.share.number)
        if self.month is None:
            return rows
        # A period that ends with a month ends at the first moment of the next.
        end = self.month + relativedelta(months=1)
        return rows.extra(
            where=[
                "timezone(statement.timezone, period_end) > %s::timestamp"
                " AND timezone(statement.timezone, period_end) <= %s::timestamp"
            ],
            params=[self.month.isoformat(), end.isoformat()],
        )


class Held(NamedTuple):
    """A statement that stays a draft, and why."""

    statement: Statement
    reason: str


@dataclass
class MonthEnd:
    """A run over what is due, which looks at each draft once.

    `progress` is called with the number of drafts that are done with.
    """

    due: Due
    actor: str = ACTOR
    progress: Callable[[int], None] = lambda count: None
    final: int = 0
    held: list[Held] = field(default_factory=list)
    _after: tuple[datetime, int] = (EPOCH, 0)

    def run(self) -> None:
        """Finalize all that is due."""
        while self.step():
            pass

    def step(self, *, ends_at: float | None = None) -> int:
        """Finalize some, fewer when that time of the monotonic clock has come; return how many
        drafts are done with: none if none is left.
        """
        statements, drafts = self._read()
        done = 0
        for batch in self._batches(statements, drafts):
            if done and ends_at is not None and time.monotonic() >= ends_at:
                break
            self._finalize(batch, drafts)
            self._after = (batch[-1].period_end, batch[-1].id)
            self.progress(len(batch))
            done += len(batch)
        return done

    def _read(self) -> tuple[list[Statement], dict[int, Draft]]:
        """Return the next statements, and what those of them have on them that can be read."""
        statements: list[Statement] = []
        try:
            with tenant_scope(self.due.tenant_id, is_snapshot=True):
                statements = self._next()
                kept_from = usage_kept_from(self.due.tenant_id)
                kept = [each for each in statements if each.period_start >= kept_from]
                return statements, drafts_of(kept)
        except Exception as error:
            if not statements:
                raise
            self._note_failure(error, statements)
            return statements, {}

    def _next(self) -> list[Statement]:
        """Return the next drafts; of each customer one, since what is final first is adjusted by
        the next.
        """
        ended_at, last_id = self._after
        rows = (
            self.due.statements()
            .filter(
                Q(period_end__gt=ended_at) | Q(id__gt=last_id),
                period_end__gte=ended_at,
            )
            .select_related("customer")
            .order_by("period_end", "id")
        )
        statements: dict[int, Statement] = {}
        for each in rows[:READ_AT_ONCE]:
            if each.customer_id in statements:
                break
            statements[each.customer_id] = each
        return list(statements.values())

    def _batches(
        self, statements: Collection[Statement], drafts: dict[int, Draft]
    ) -> Iterator[list[Statement]]:
        """Yield what is written together."""
        batch: list[Statement] = []
        lines = 0
        for each in statements:
            more = len(drafts[each.id].lines) if each.id in drafts else 0
            if batch and (len(batch) == WRITTEN_AT_ONCE or lines + more > LINES_AT_ONCE):
                yield batch
                batch, lines = [], 0
            batch.append(each)
            lines += more
        if batch:
            yield batch

    def _finalize(self, batch: Collection[Statement], drafts: dict[int, Draft]) -> None:
        ready = [
            drafts[each.id] for each in batch if each.id in drafts and not drafts[each.id].unpriced
        ]
        final: set[int] = set()
        try:
            final = {each.id for each in write_final(ready, actor=self.actor)}
        except Exception as error:
            self._note_failure(error, batch)
        self.final += len(final)
        for each in batch:
            if each.id in final:
                continue
            draft = drafts.get(each.id)
            if draft is not None and draft.unpriced:
                self._hold(each, unpriced_words(draft.unpriced))
            else:
                self._finalize_alone(each)

    def _finalize_alone(self, statement: Statement) -> None:
        """Finalize what was overtaken meanwhile, or failed in company."""
        try:
            finalize(self.due.tenant_id, statement.id, actor=self.actor)
            self.final += 1
        except MeteringError as error:
            self._hold(statement, error.detail)
        except Exception as error:
            self._note_failure(error, [statement])
            self._hold(statement, f"It failed, and the log says why ({type(error).__name__}).")

    def _hold(self, statement: Statement, reason: str) -> None:
        self.held.append(Held(statement, reason))
        with tenant_scope(self.due.tenant_id):
            drafts = Statement.objects.filter(id=statement.id, state=StatementState.DRAFT)
            drafts.update(held_until=timezone.now() + HELD_FOR)

    def _note_failure(self, error: Exception, statements: Collection[Statement]) -> None:
        """Log a failure, which must not keep other statements from becoming final."""
        if not connection.is_usable():
            raise error
        log.error(
            "statements could not be finalized",
            tenant_id=self.due.tenant_id,
            statements=[each.id for each in statements],
            exc_info=error,
        )


def tenants_with_due_statements() -> list[int]:
    """Return the tenants whose statements become final by themselves. Needs a platform scope."""
    by_itself = BillingSettings.objects.exclude(finalize_after_days=None)
    return list(by_itself.values_list("tenant_id", flat=True))


def finalize_due(*, tenant_id: int, seconds: float) -> int:
    """Finalize some statements of periods that ended as long ago as the tenant's settings say;
    return how many drafts were done with.
    """
    with tenant_scope(tenant_id):
        settings = BillingSettings.objects.filter(tenant_id=tenant_id).first()
    if settings is None or settings.finalize_after_days is None:
        return 0
    ended_by = timezone.now() - timedelta(days=settings.finalize_after_days)
    due = Due(tenant_id, ended_by, skips_held=True)
    return MonthEnd(due).step(ends_at=time.monotonic() + seconds)
