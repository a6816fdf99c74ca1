"""What a person is told before a budget is saved: what it would refuse from then on, what it would
have refused lately, and what a slip of the keyboard may have made of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from common.money import money, nanos_from_usd
from metering.budgets.levels import REFUSING
from metering.fields.forms import usd_words
from metering.models import Budget, Mode
from metering.simulation import Proposal, ProposedBudget
from metering.simulation.preview import GroupNow, Preview, Replay, preview
from tenants.admin_questions import Question

PARTS: Final = ("cost_nanos", "tokens", "requests", "tool_calls", "seconds")
# What a limit of nothing refuses.
REFUSED_BY_NOTHING: Final = {"requests": "model call", "tool_calls": "tool call"}
TIMES_UNUSUAL: Final = 10
GROUPS_NAMED: Final = 3
NOT_ADDED_UP: Final = (
    "What is spent now could not be added up in time: it may refuse calls as soon as you save it."
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


def _acting(proposed: ProposedBudget) -> tuple[Any, ...]:
    facts = proposed.facts()["budget"]
    levels = [level._replace(notify=()) for level in proposed.levels]
    return {name: value for name, value in facts.items() if name != "name"}, levels


def slips(proposal: Proposal) -> list[str]:
    """What may not be meant, as the budget's own numbers show it."""
    proposed, present = proposal.budget, proposal.present
    assert proposed is not None, "a budget is proposed"
    found = list(_nothing(proposed, present))
    if present is not None and refuses(present):
        if not refuses(proposed):
            found.append("This budget stops refusing calls from the moment you save it.")
        else:
            found += _loosened(proposed.budget, present.budget)
    return found


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
            f"{amount_words(part, 0)}."
        )


def _loosened(proposed: Budget, present: Budget) -> Iterator[str]:
    for part in PARTS:
        before, after = limit_of(present, part), limit_of(proposed, part)
        if before and after is None:
            yield f"The limit of {amount_words(part, before)} is gone."
        elif before and after is not None and after >= TIMES_UNUSUAL * before:
            yield _times_words(part, before, after)


def raise_slips(budget: Budget, added: Mapping[str, int]) -> Iterator[str]:
    """Raises of a budget's limits that may have a digit too many."""
    for part, amount in added.items():
        before = limit_of(budget, part)
        if before and before + amount >= TIMES_UNUSUAL * before:
            yield _times_words(part, before, before + amount)


def _times_words(part: str, before: int, after: int) -> str:
    return (
        f"The limit goes from {amount_words(part, before)} to {amount_words(part, after)}: "
        f"{after // before:,} times as much."
    )


def limit_of(budget: Budget, part: str) -> int | None:
    """One part of a budget's limit."""
    limit: int | None = getattr(budget, f"limit_{part}")
    return limit


def amount_words(part: str, amount: int) -> str:
    """An exact amount of a part of a limit: $50.00, 1 request, 2,000 tokens."""
    if part == "cost_nanos":
        return usd_words(amount)
    words = part.replace("_", " ")
    return f"{amount:,} {words.removesuffix('s') if amount == 1 else words}"


def warnings_of(found: Preview, proposed: ProposedBudget) -> list[str]:
    """What a budget that refuses would refuse that goes through as it is."""
    warnings = []
    if found.newly_full:
        warnings.append(_full_words(found.newly_full, found.groups or 0))
    replay = found.replay
    if replay is not None and _refuses_more(replay, proposed):
        warnings.append(_refused_words(replay))
    if found.groups is None:
        warnings.append(NOT_ADDED_UP)
    if replay is None:
        refusal = f"The last 30 days cannot be replayed. {found.refusal}"
        warnings.append(refusal if found.refusal else NOT_REPLAYED)
    return warnings


def _refuses_more(replay: Replay, proposed: ProposedBudget) -> bool:
    """Whether calls that went through would have been refused; a limit of nothing goes without
    saying.
    """
    is_more = replay.refused > replay.present_refused
    return is_more and refuses(proposed) and not is_nothing(proposed)


def _full_words(full: Sequence[GroupNow], groups: int) -> str:
    named = [_group_words(one) for one in full[:GROUPS_NAMED]]
    if not full[0].group:
        return (
            f"The limit is used up already: {named[0]}. Calls are refused as soon as you save it."
        )
    is_one = len(full) == 1
    more = f"; and {len(full) - GROUPS_NAMED:,} more" if len(full) > GROUPS_NAMED else ""
    return (
        f"{len(full):,} of {groups:,} {'group' if groups == 1 else 'groups'} "
        f"{'has' if is_one else 'have'} used up the limit already, and "
        f"{'is' if is_one else 'are'} refused as soon as you save it: {'; '.join(named)}{more}."
    )


def _group_words(full: GroupNow) -> str:
    names = ", ".join(f"{name} {value or '(none)'}" for name, value in full.group.items())
    is_money = full.part == "cost_nanos"
    spent = money(full.spent) if is_money else f"{full.spent:,}"
    words = f"{spent} of {amount_words(full.part, full.limit)}"
    if is_money and full.spent > full.limit:
        words += f", {money(full.spent - full.limit)} over"
    return f"{names}: {words}" if names else words


def _refused_words(replay: Replay) -> str:
    result, refused = replay.result, replay.result["refused"]
    words = (
        f"{_since(replay)} it would have refused {replay.refused:,} of {result['calls']:,} calls "
        f"({_money(refused['cost_usd'])} of {_money(result['cost_usd'])})"
    )
    groups = [one for one in result["groups"] if one["refused"]]
    if groups and groups[0]["group"]:
        count = (
            f"at least {len(groups)}"
            if len(groups) == len(result["groups"]) == 50
            else (f"{len(groups)}")
        )
        words += f" in {count} {'group' if len(groups) == 1 else 'groups'}"
    if replay.present_refused:
        words += f"; as it is now, {replay.present_refused:,}"
    return f"{words}."


def _since(replay: Replay) -> str:
    if replay.is_whole:
        return "In the last 30 days"
    return f"Since {replay.starts_at:%Y-%m-%d %H:%M} UTC (older calls are too many to replay)"


def _money(usd: str) -> str:
    return money(nanos_from_usd(usd))


def ask_about(proposal: Proposal, *, now: datetime, is_asked_for: bool) -> Question | None:
    """The question that a budget's form ends with; None where saving it refuses nothing that goes
    through as it is, unless a preview `is_asked_for`. Runs in the tenant's scope.
    """
    proposed, present = proposal.budget, proposal.present
    assert proposed is not None, "a budget is proposed"
    is_same = present is not None and acts_alike(proposed, present)
    warnings = [] if is_same else slips(proposal)
    found: Preview | None = None
    if is_asked_for or (refuses(proposed) and not is_same):
        found = preview(tenant_id=proposed.budget.tenant_id, proposal=proposal, now=now)
        # That a limit of nothing refuses everything says it all.
        if refuses(proposed) and not is_nothing(proposed):
            warnings += warnings_of(found, proposed)
    if not warnings and not is_asked_for:
        return None
    sentences = ["Nothing is saved yet."]
    if found is not None and found.replay is not None:
        sentences.insert(
            0, "Each past call is replayed at its true cost, against this budget alone."
        )
    return Question(
        title=f"Save “{proposed.budget.name}”?",
        verb="Save anyway" if warnings else "Save",
        consequence=" ".join(sentences),
        facts=_facts(proposed, found),
        warnings=warnings,
    )


def _facts(proposed: ProposedBudget, found: Preview | None) -> list[tuple[str, str]]:
    budget = proposed.budget
    limits = [
        amount_words(part, limit) for part in PARTS if (limit := limit_of(budget, part)) is not None
    ]
    each = f" for each {', '.join(budget.per)}" if budget.per else ""
    facts = [("Limit", f"{' or '.join(limits)}{each}, {budget.period}"), ("Mode", budget.mode)]
    if found is None:
        return facts
    if found.groups is not None:
        facts.append(("Now", _now_words(found, has_groups=bool(budget.per))))
    if found.replay is not None and not _refuses_more(found.replay, proposed):
        facts.append(("Lately", _lately_words(found.replay, is_enforced=refuses(proposed))))
    return facts


def _now_words(found: Preview, *, has_groups: bool) -> str:
    full = len(found.newly_full) + found.still_full
    if not found.groups:
        return "Nothing is spent yet in the present period."
    if not has_groups:
        return "Over the limit, or at it." if full else "Below the limit."
    words = f"{found.groups:,} {'group has' if found.groups == 1 else 'groups have'} spent"
    still = f", {found.still_full:,} of them as it is" if found.still_full else ""
    return f"{words}; {full:,} {'is' if full == 1 else 'are'} at the limit or over{still}."


def _lately_words(replay: Replay, *, is_enforced: bool) -> str:
    result = replay.result
    mode = "" if is_enforced else "in mode enforce "
    calls = f"{replay.refused:,} of {result['calls']:,} calls"
    saved = _money(result["saved_usd"])
    return f"{_since(replay)} {mode}it would have refused {calls} and saved {saved}."
