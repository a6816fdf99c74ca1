"""Combines callers that reserve, settle, release or extend, of one tenant or of several."""

from typing import Final

from metering.core.committer import Committer
from metering.reservations.commands import Command
from metering.reservations.shared_transaction import run_together
from metering.reservations.transaction import run_batch

# A batch of this many callers takes some tens of milliseconds; those who come later get the next.
COMMANDS_MAX: Final = 200
# While other tenants wait, a batch that is slow takes fewer, down to these.
COMMANDS_MIN: Final = 8
# Simultaneous batches of this many tenants: most of a batch is waiting for PostgreSQL.
THREADS: Final = 8

PROCESS_ENFORCER: Final[Committer[Command]] = Committer(
    run_batch,
    name="enforcer",
    commit_together=run_together,
    weight_max=COMMANDS_MAX,
    weight_min=COMMANDS_MIN,
    threads=THREADS,
    tenant_threads=1,
)
