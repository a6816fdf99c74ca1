"""What is proposed: a budget or a breaker that is not stored, and the budget that it would change.

A proposal waits as JSON values until a worker replays it, so that a change of the budget meanwhile
changes nothing of the answer.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from django.db import models

from metering.budgets.rules import BudgetRule, LevelRule, RaiseRule
from metering.configuration.budgets import COUNTING_FIELDS, DEFAULT_LEVELS
from metering.core.periods import EPOCH
from metering.models import Breaker, Budget
from tenants.audit import facts_of

Row = TypeVar("Row", bound=models.Model)


class ProposedBudget(NamedTuple):
    """A budget and its levels, stored or not."""

    budget: Budget
    levels: tuple[LevelRule, ...]

    @classmethod
    def of(cls, budget: Budget, levels: Sequence[LevelRule]) -> "ProposedBudget":
        """A budget that would be made; without levels the limit blocks, as everywhere."""
        return cls(budget, tuple(levels) or DEFAULT_LEVELS)

    @classmethod
    def stored(cls, budget: Budget) -> "ProposedBudget":
        """A budget as it is stored."""
        levels = budget.levels.order_by("percent")
        return cls(
            budget,
            tuple(
                LevelRule(
                    level.percent,
                    level.action,
                    tuple(level.notify),
                    level.cost_nanos_per_minute,
                    level.tokens_per_minute,
                )
                for level in levels
            ),
        )

    def changed(
        self, changes: Mapping[str, Any], levels: Sequence[LevelRule] | None
    ) -> "ProposedBudget":
        """A copy with these changes, whose counting begins anew where they change what counts."""
        budget = _copy(self.budget)
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
        raises: Sequence[RaiseRule] = (),
    ) -> BudgetRule:
        """The rule as of a budget that began to count at a moment, in the middle of its period.

        With `keeps_carried` it counts as long as the budget itself does, but for periods that began
        before `kept_from`: what they left unused is not known any more.
        """
        budget = _copy(self.budget)
        counts_from = _first_counted(budget, at)
        if not keeps_carried:
            budget.counts_from = counts_from
        else:
            whole = max(self.budget.counts_from, _next_period(budget, kept_from))
            budget.counts_from = min(whole, counts_from)
        return BudgetRule(budget, self.levels, raises)

    def facts(self) -> dict[str, Any]:
        """As JSON values; `from_facts` reads them again."""
        return {"budget": facts_of(self.budget), "levels": [list(level) for level in self.levels]}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "ProposedBudget":
        """The reverse of `facts`."""
        levels = [
            LevelRule(percent, action, tuple(notify), *rates)
            for percent, action, notify, *rates in facts["levels"]
        ]
        return cls(_row(Budget, facts["budget"]), tuple(levels))


class Proposal(NamedTuple):
    """What is replayed: a budget or a breaker; and what is in force instead of the budget."""

    budget: ProposedBudget | None = None
    breaker: Breaker | None = None
    present: ProposedBudget | None = None

    def facts(self) -> dict[str, Any]:
        """As JSON values; `from_facts` reads them again."""
        return {
            "budget": self.budget.facts() if self.budget else None,
            "breaker": facts_of(self.breaker) if self.breaker else None,
            "present": self.present.facts() if self.present else None,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Proposal":
        """The reverse of `facts`."""
        budget, breaker, present = facts["budget"], facts["breaker"], facts["present"]
        return cls(
            ProposedBudget.from_facts(budget) if budget else None,
            _row(Breaker, breaker) if breaker else None,
            ProposedBudget.from_facts(present) if present else None,
        )


def _first_counted(budget: Budget, at: datetime) -> datetime:
    """From when a budget would count that is made at a moment: the beginning of its period."""
    budget.counts_from = EPOCH
    rule = BudgetRule(budget, [])
    if rule.is_per_request:
        return at
    return rule.counted_from(at) if rule.is_rolling else rule.clock.span(at).starts_at


def _next_period(budget: Budget, at: datetime) -> datetime:
    """The first begin of a period from a moment on."""
    if at == EPOCH:
        return at
    span = BudgetRule(budget, []).clock.span(at)
    return at if span.starts_at == at else span.ends_at or at


def _copy(budget: Budget) -> Budget:
    return _row(Budget, facts_of(budget))


def _row(model: type[Row], facts: Mapping[str, Any]) -> Row:
    """A row that is not stored, from `facts_of` one."""
    return model(
        **{
            field.attname: field.to_python(facts[field.attname])
            for field in model._meta.concrete_fields
        }
    )
