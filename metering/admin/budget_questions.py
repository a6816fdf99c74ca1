"""The question that a budget's form in the admin ends with."""

from datetime import datetime

from metering.simulation import Proposal, ProposedBudget
from metering.simulation.preview import Preview, Replay, preview
from metering.simulation.warnings import (
    acts_alike,
    describe_since,
    format_limit,
    is_nothing,
    refuses,
    refuses_more,
    slips,
    usd_text,
    warnings_of,
)
from tenants.admin_questions import Question


def ask_about(proposal: Proposal, *, now: datetime, is_asked_for: bool) -> Question | None:
    """The question that a budget's form ends with; None where saving it refuses nothing that goes
    through as it is, unless a preview `is_asked_for`. Runs in the tenant's scope.
    """
    proposed, present = proposal.budget, proposal.present
    assert proposed is not None, "a budget is proposed"
    is_same = present is not None and acts_alike(proposed, present)
    warnings = [] if is_same else slips(proposal)
    effect: Preview | None = None
    if is_asked_for or (refuses(proposed) and not is_same):
        effect = preview(tenant_id=proposed.budget.tenant_id, proposal=proposal, now=now)
        # That a limit of nothing refuses everything says it all.
        if refuses(proposed) and not is_nothing(proposed):
            warnings += warnings_of(effect, proposed)
    if not warnings and not is_asked_for:
        return None
    sentences = ["Nothing is saved yet."]
    if effect is not None and effect.replay is not None:
        sentences.insert(
            0, "Each past call is replayed at its actual cost, against this budget alone."
        )
    return Question(
        title=f"Save “{proposed.budget.name}”?",
        verb="Save anyway" if warnings else "Save",
        consequence=" ".join(sentences),
        details=_details(proposed, effect),
        warnings=warnings,
    )


def _details(proposed: ProposedBudget, effect: Preview | None) -> list[tuple[str, str]]:
    budget = proposed.budget
    each = f" for each {', '.join(budget.per)}" if budget.per else ""
    limit = f"{' or '.join(format_limit(budget))}{each}, {budget.period}"
    rows = [("Limit", limit), ("Mode", budget.mode)]
    if effect is None:
        return rows
    if effect.groups is not None:
        rows.append(("Now", _describe_present(effect, has_groups=bool(budget.per))))
    if effect.replay is not None and not refuses_more(effect.replay, proposed):
        rows.append(
            ("Recent calls", _describe_replay(effect.replay, is_enforced=refuses(proposed)))
        )
    return rows


def _describe_present(effect: Preview, *, has_groups: bool) -> str:
    full = len(effect.newly_full) + effect.still_full
    if not effect.groups:
        return "Nothing has been spent yet in the current period."
    if not has_groups:
        return "At or over the limit." if full else "Below the limit."
    words = f"{effect.groups:,} {'group has' if effect.groups == 1 else 'groups have'} spent"
    still = f", {effect.still_full:,} of them already" if effect.still_full else ""
    return f"{words}; {full:,} {'is' if full == 1 else 'are'} at the limit or over{still}."


def _describe_replay(replay: Replay, *, is_enforced: bool) -> str:
    result = replay.result
    mode = "" if is_enforced else "in mode enforce "
    calls = f"{replay.refused:,} of {result.calls:,} calls"
    saved = usd_text(result.saved_usd)
    return f"{describe_since(replay)} {mode}it would have refused {calls} and saved {saved}."
