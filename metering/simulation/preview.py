"""What a budget would do once it is saved, and would have done lately, while a person waits for the
answer: bounded in calls and in time.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeVar

from django.db import OperationalError, transaction
from msgspec import UNSET

from common.errors import MeteringError
from common.queries import fetch_row, fetch_rows
from metering.calls.seals import read_sealed
from metering.core.match import Values
from metering.models import Mode
from metering.simulation.budget_replay import BudgetReplay, FullGroup
from metering.simulation.earlier import remember_earlier
from metering.simulation.outcome import SimulationOutcome
from metering.simulation.proposals import Proposal, ProposedBudget
from metering.simulation.reading import Stretch
from metering.simulation.running import Replayed, TooManyCalls, read_increases, simulate, time_limit
from metering.snapshot import known_configuration

Result = TypeVar("Result")

LOOK_BACK: Final = timedelta(days=30)
# Replayed twice where a budget is changed: in well under a second, and in time on a busy machine.
CALLS_MAX: Final = 10_000
SECONDS_MAX: Final = 3.0
STATEMENT_MS: Final = 2_500
SET_TIMEOUT: Final = "SELECT set_config('statement_timeout', %s, true)"


class Replay(NamedTuple):
    """What became of the calls since a time: by the proposal, and by what is in force."""

    starts_at: datetime
    is_whole: bool
    result: SimulationOutcome
    present_refused: int

    @property
    def refused(self) -> int:
        """The number of calls that the proposal would have refused."""
        return self.result.refused.calls


class Preview(NamedTuple):
    """What saving a budget would do. None where it could not be found out in time."""

    groups: int | None
    # Those that go on as long as nothing is saved.
    newly_full: list[FullGroup]
    # Those that are refused as it is.
    still_full: int
    replay: Replay | None
    # Why the last 30 days cannot be replayed at all, such as that calls are no longer kept.
    refusal: str = ""


def preview(*, tenant_id: int, proposal: Proposal, now: datetime) -> Preview:
    """Hold a budget against what is spent now and against the last 30 days, as if in mode enforce.

    Reads in the tenant's scope, takes no locks, and gives up after some seconds rather than keep
    the person and the connection.
    """
    assert proposal.budget is not None, "a budget is proposed"
    check = time_limit(SECONDS_MAX)
    present = _present(tenant_id, proposal, now, check)
    try:
        replay = _within(lambda: _replay(tenant_id, proposal, now, check))
    except MeteringError as error:
        return present._replace(refusal=error.detail)
    return present._replace(replay=replay)


def preview_present(*, tenant_id: int, proposal: Proposal, now: datetime) -> Preview:
    """The same of what is spent now alone, without the last 30 days."""
    return _present(tenant_id, proposal, now, time_limit(SECONDS_MAX))


def _present(
    tenant_id: int, proposal: Proposal, now: datetime, check: Callable[[], None]
) -> Preview:
    standing = _within(lambda: _standing(tenant_id, proposal, now, check))
    if standing is None:
        return Preview(None, [], 0, None)
    groups, full, before = standing
    newly_full = [each for each in full if each.values not in before]
    return Preview(groups, newly_full, len(full) - len(newly_full), None)


def _within(find: Callable[[], Result]) -> Result | None:
    """Return what can be found in time, else None; the caller's transaction stays usable."""
    try:
        with transaction.atomic():
            (before,) = fetch_row("SELECT current_setting('statement_timeout')")
            fetch_row(SET_TIMEOUT, [str(STATEMENT_MS)])
            result = find()
            fetch_row(SET_TIMEOUT, [before])
            return result
    except (TooManyCalls, OperationalError):
        return None


def _standing(
    tenant_id: int, proposal: Proposal, now: datetime, check: Callable[[], None]
) -> tuple[int, list[FullGroup], frozenset[Values]]:
    """Return the number of groups, those whose next call would be refused, and those of which it
    already is.
    """
    budget, present = proposal.budget, proposal.present
    assert budget is not None, "a budget is proposed"
    groups, full = _full_groups(tenant_id, budget, present, now, check)
    is_refusing = present is not None and present.budget.mode == Mode.ENFORCE
    if present is None or not is_refusing or present.budget.per != budget.budget.per:
        return groups, full, frozenset()
    _, before = _full_groups(tenant_id, present, present, now, check)
    return groups, full, frozenset(each.values for each in before)


def _full_groups(
    tenant_id: int,
    proposed: ProposedBudget,
    present: ProposedBudget | None,
    now: datetime,
    check: Callable[[], None],
) -> tuple[int, list[FullGroup]]:
    period = Replayed(now, now + timedelta(seconds=1))
    kept_from = read_sealed(tenant_id).sealed_until
    rule = proposed.rule_from(
        now,
        keeps_carried=proposed.keeps_carried(present),
        kept_from=kept_from,
        raises=read_increases(tenant_id, proposed.budget.id, period),
    )
    replay = BudgetReplay(rule, known_configuration(tenant_id))
    stretch = Stretch(tenant_id, now, period.ends_at, rule.match, rule.dimensions)
    remember_earlier(replay, stretch, rule, kept_from=kept_from)
    check()
    return replay.group_count, replay.full_groups(now)


def _replay(tenant_id: int, proposal: Proposal, now: datetime, check: Callable[[], None]) -> Replay:
    starts_at = _replayed_from(tenant_id, now)
    period = Replayed(starts_at or now - LOOK_BACK, now, check)
    result = simulate(tenant_id=tenant_id, proposal=proposal, period=period)
    present = result.compared_with
    return Replay(
        starts_at=period.starts_at,
        is_whole=starts_at is None,
        result=result,
        present_refused=present.refused.calls if present is not UNSET else 0,
    )


def _replayed_from(tenant_id: int, now: datetime) -> datetime | None:
    """Return the time from which there are few enough calls; None for the whole 30 days."""
    since = now - LOOK_BACK
    rows = fetch_rows(
        "SELECT time FROM usage_event WHERE tenant_id = %s AND time >= %s AND time < %s"
        " ORDER BY time DESC OFFSET %s LIMIT 2",
        [tenant_id, since, now, CALLS_MAX - 1],
    )
    # The second is one more than are replayed.
    return rows[0][0] if len(rows) == 2 else None
