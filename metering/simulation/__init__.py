"""What if: a past period replayed against a proposed budget or breaker (see README.md)."""

from metering.simulation.proposals import Proposal, ProposedBudget
from metering.simulation.running import Replayed, simulate
from metering.simulation.store import create_simulation, work_off
