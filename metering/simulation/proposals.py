"""What is proposed: a budget or a breaker that is not stored, and the budget that it would change.

A proposal waits as JSON values until a worker replays it, so that a change of the budget meanwhile
changes nothing of the answer.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import NamedTuple, TypeVar

import msgspec
from django.db import models

from metering.budgets.rules import BudgetRule, LevelRule, LimitIncreaseRule
from metering.configuration.budgets import COUNTING_FIELDS, DEFAULT_LEVELS
from metering.core.periods import EPOCH
from metering.models import Breaker, Budget, Mode
from tenants.audit import facts_of

Row = TypeVar("Row", bound=models.Model)


class StoredBudget(msgspec.Struct):
    """A proposed budget as JSON: the columns of its row, and its levels."""

    budget: dict[str, object]
    levels: tuple[LevelRule, ...]


class StoredProposal(msgspec.Struct):
    """A proposal as JSON."""

    budget: StoredBudget | None
    breaker: dict[str, object] | None
    present: StoredBudget | None


class ProposedBudget(NamedTuple):
    """A budget and its levels, stored or not."""

    budget: Budget
    levels: tuple[LevelRule, ...]

    @classmethod
    def of(cls, budget: Budget, levels: Sequence[LevelRule]) -> "ProposedBudget":
        """Return a budget that would be made; without levels the limit blocks, as everywhere."""
        return cls(budget, tuple(levels) or DEFAULT_LEVELS)

    @classmethod
    def stored(cls, budget: Budget) -> "ProposedBudget":
        """Return a budget as it is stored."""
        return cls(budget, tuple(map(LevelRule.of, budget.levels.order_by("percent"))))

    def changed(
        self, changes: Mapping[str, object], levels: Sequence[LevelRule] | None
    ) -> "ProposedBudget":
        """Return a copy with these changes, in a new revision if they change what counts."""
        budget = copy(self.budget)
        for name, value in changes.items():
            setattr(budget, name, value)
        if any(getattr(budget, name) != getattr(self.budget, name) for name in COUNTING_FIELDS):
            budget.revision += 1
        return ProposedBudget(
            budget, self.levels if levels is None else tuple(levels) or DEFAULT_LEVELS
        )

    def keeps_carried(self, present: "ProposedBudget | None") -> bool:
        """Whether what earlier periods left unused is there when the replay begins."""
        budget = self.budget
        return (
            budget.has_rollover
            and present is not None
            and budget.revision == present.budget.revision
        )

    def rule_from(
        self,
        at: datetime,
        *,
        keeps_carried: bool,
        kept_from: datetime = EPOCH,
        mode: str = Mode.ENFORCE,
        raises: Sequence[LimitIncreaseRule] = (),
    ) -> BudgetRule:
        """Return the rule of a budget that began to count at this time, in the middle of its
        period.

        With `keeps_carried` it counts as long as the budget itself does, except for periods that
        began before `kept_from`: what they left unused is no longer known.
        """
        budget = copy(self.budget)
        budget.mode = mode
        counts_from = _first_counted(budget, at)
        if not keeps_carried:
            budget.counts_from = counts_from
        else:
            kept_whole_from = max(self.budget.counts_from, _next_period(budget, kept_from))
            budget.counts_from = min(kept_whole_from, counts_from)
        return BudgetRule(budget, self.levels, raises)


class Proposal(NamedTuple):
    """What is replayed: a budget or a breaker; and what is in force instead of the budget."""

    budget: ProposedBudget | None = None
    breaker: Breaker | None = None
    present: ProposedBudget | None = None

    def to_json(self) -> object:
        """Return JSON values, which `from_json` reads."""
        stored = StoredProposal(
            _to_stored(self.budget),
            None if self.breaker is None else facts_of(self.breaker),
            _to_stored(self.present),
        )
        return msgspec.to_builtins(stored)

    @classmethod
    def from_json(cls, values: object) -> "Proposal":
        """Return what `to_json` wrote."""
        stored = msgspec.convert(values, StoredProposal)
        breaker = None if stored.breaker is None else _row(Breaker, stored.breaker)
        return cls(_from_stored(stored.budget), breaker, _from_stored(stored.present))


def _to_stored(proposed: ProposedBudget | None) -> StoredBudget | None:
    return proposed and StoredBudget(facts_of(proposed.budget), proposed.levels)


def _from_stored(stored: StoredBudget | None) -> ProposedBudget | None:
    if stored is None:
        return None
    return ProposedBudget(_row(Budget, stored.budget), stored.levels)


def _first_counted(budget: Budget, at: datetime) -> datetime:
    """Return when the period began in which a budget is made: it counts from then on."""
    budget.counts_from = EPOCH
    rule = BudgetRule(budget, [])
    if rule.is_per_request:
        return at
    return rule.counted_from(at) if rule.is_rolling else rule.clock.span(at).starts_at


def _next_period(budget: Budget, at: datetime) -> datetime:
    """Return when the first period begins, at this time or after it."""
    if at == EPOCH:
        return at
    span = BudgetRule(budget, []).clock.span(at)
    return at if span.starts_at == at else span.ends_at or at


def _row(model: type[Row], columns: Mapping[str, object]) -> Row:
    """Return a row that is not stored, from `facts_of` one."""
    return model(
        **{
            field.attname: field.to_python(columns[field.attname])
            for field in model._meta.concrete_fields
        }
    )
