"""What saving a budget would do that may not be meant: what it would refuse from then on, what it
would have refused lately, and what may be a slip of the keyboard.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from common.formats import format_time
from common.money import money, nanos_from_usd
from metering.budgets.levels import REFUSING
from metering.core.amounts import describe_unusual_rise, format_amount
from metering.models import Budget, Mode
from metering.simulation.budget_replay import FullGroup
from metering.simulation.preview import Preview, Replay
from metering.simulation.proposals import Proposal, ProposedBudget
from tenants.audit import facts_of

PARTS: Final = ("cost_nanos", "tokens", "requests", "tool_calls", "seconds")
# What a limit of nothing refuses.
REFUSED_BY_NOTHING: Final = {"requests": "model call", "tool_calls": "tool call"}
GROUPS_NAMED: Final = 3
NOT_ADDED_UP: Final = (
    "Current spend could not be added up in time: the budget may refuse calls as soon as you "
    "save it."
)
NOT_REPLAYED: Final = (
    "The last 30 days could not be replayed in time. POST /v1/simulations replays them all."
)


def refuses(proposed: ProposedBudget) -> bool:
    """Whether a budget refuses calls at all."""
    is_enforced = proposed.budget.mode == Mode.ENFORCE
    return is_enforced and any(level.action in REFUSING for level in proposed.levels)


def acts_alike(proposed: ProposedBudget, present: ProposedBudget) -> bool:
    """Whether a change leaves what is refused as it is: a name, whom levels notify."""
    return _acting(proposed) == _acting(present)


def _acting(proposed: ProposedBudget) -> tuple[object, ...]:
    columns = facts_of(proposed.budget)
    levels = [level._replace(notify=()) for level in proposed.levels]
    return {name: value for name, value in columns.items() if name != "name"}, levels


def slips(proposal: Proposal) -> list[str]:
    """What may not be meant, as the budget's own numbers show it."""
    proposed, present = proposal.budget, proposal.present
    assert proposed is not None, "a budget is proposed"
    warnings = list(_nothing(proposed, present))
    if present is not None and refuses(present):
        if not refuses(proposed):
            warnings.append("This budget stops refusing calls from the moment you save it.")
        else:
            warnings += _loosened(proposed.budget, present.budget)
    return warnings


def is_nothing(proposed: ProposedBudget) -> bool:
    """Whether the limit of a budget lets nothing through."""
    limits = [limit_of(proposed.budget, part) for part in PARTS]
    return refuses(proposed) and 0 in limits


def _nothing(proposed: ProposedBudget, present: ProposedBudget | None) -> Iterator[str]:
    if not is_nothing(proposed):
        return
    was_nothing = present is not None and is_nothing(present)
    for part in PARTS:
        if limit_of(proposed.budget, part) != 0:
            continue
        if present is not None and was_nothing and limit_of(present.budget, part) == 0:
            continue
        calls = REFUSED_BY_NOTHING.get(part, "call")
        which = " that it counts" if proposed.budget.match else ""
        yield (
            f"This budget refuses every {calls}{which} from the moment you save it: its limit is "
            f"{format_amount(part, 0)}."
        )


def _loosened(proposed: Budget, present: Budget) -> Iterator[str]:
    for part in PARTS:
        before, after = limit_of(present, part), limit_of(proposed, part)
        if before and after is None:
            yield f"The limit of {format_amount(part, before)} is gone."
        elif warning := describe_unusual_rise(part, before, after):
            yield warning


def limit_of(budget: Budget, part: str) -> int | None:
    """One part of a budget's limit."""
    limit: int | None = getattr(budget, f"limit_{part}")
    return limit


def format_limit(budget: Budget) -> list[str]:
    """Return the parts of a budget's limit."""
    limits = {part: limit_of(budget, part) for part in PARTS}
    return [format_amount(part, limit) for part, limit in limits.items() if limit is not None]


def warnings_of(effect: Preview, proposed: ProposedBudget) -> list[str]:
    """What a budget that refuses would refuse that goes through as it is."""
    warnings = []
    if effect.newly_full:
        warnings.append(describe_full(effect.newly_full, effect.groups or 0))
    replay = effect.replay
    if replay is not None and refuses_more(replay, proposed):
        warnings.append(_describe_refusals(replay))
    if effect.groups is None:
        warnings.append(NOT_ADDED_UP)
    if replay is None:
        refusal = f"The last 30 days cannot be replayed. {effect.refusal}"
        warnings.append(refusal if effect.refusal else NOT_REPLAYED)
    return warnings


def refuses_more(replay: Replay, proposed: ProposedBudget) -> bool:
    """Whether calls that went through would have been refused; a limit of nothing goes without
    saying.
    """
    is_more = replay.refused > replay.present_refused
    return is_more and refuses(proposed) and not is_nothing(proposed)


def describe_full(full: Sequence[FullGroup], groups: int) -> str:
    """Whose calls are refused as soon as a budget is saved."""
    named = [_describe_group(group) for group in full[:GROUPS_NAMED]]
    if not full[0].group:
        return (
            f"The limit is already used up: {named[0]}. Calls are refused as soon as you save it."
        )
    is_one = len(full) == 1
    more = f"; and {len(full) - GROUPS_NAMED:,} more" if len(full) > GROUPS_NAMED else ""
    return (
        f"{len(full):,} of {groups:,} {'group' if groups == 1 else 'groups'} "
        f"{'has' if is_one else 'have'} already used up the limit, and "
        f"{'is' if is_one else 'are'} refused as soon as you save it: {'; '.join(named)}{more}."
    )


def _describe_group(full: FullGroup) -> str:
    names = ", ".join(f"{name} {value or '(none)'}" for name, value in full.group.items())
    is_money = full.part == "cost_nanos"
    spent = money(full.spent) if is_money else f"{full.spent:,}"
    words = f"{spent} of {format_amount(full.part, full.limit)}"
    if is_money and full.spent > full.limit:
        words += f", {money(full.spent - full.limit)} over"
    return f"{names}: {words}" if names else words


def _describe_refusals(replay: Replay) -> str:
    result, refused = replay.result, replay.result.refused
    words = (
        f"{describe_since(replay)} it would have refused "
        f"{replay.refused:,} of {result.calls:,} calls "
        f"({usd_text(refused.cost_usd)} of {usd_text(result.cost_usd)})"
    )
    groups = [group for group in result.groups if group.refused]
    if groups and groups[0].group:
        count = (
            f"at least {len(groups)}"
            if len(groups) == len(result.groups) == 50
            else (f"{len(groups)}")
        )
        words += f" in {count} {'group' if len(groups) == 1 else 'groups'}"
    if replay.present_refused:
        words += f"; as it is now, {replay.present_refused:,}"
    return f"{words}."


def describe_since(replay: Replay) -> str:
    """Since when calls are replayed."""
    if replay.is_whole:
        return "In the last 30 days"
    return f"Since {format_time(replay.starts_at)} (older calls are too many to replay)"


def usd_text(usd: str) -> str:
    """An amount of a replay's result, as people read it."""
    return money(nanos_from_usd(usd))
