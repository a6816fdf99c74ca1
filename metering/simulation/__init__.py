"""What if: a past period replayed against a proposed budget or breaker.

`budget_replay` and `breaker_replay` decide call by call, without a database; `reading` streams what
is stored to them, and `store` keeps what was proposed and what came of it.
"""

from metering.simulation.proposals import Proposal, ProposedBudget
from metering.simulation.running import Replayed, simulate
from metering.simulation.store import create_simulation, work_off

__all__ = [
    "Proposal",
    "ProposedBudget",
    "Replayed",
    "create_simulation",
    "simulate",
    "work_off",
]
