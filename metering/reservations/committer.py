"""Combines callers that ask, settle, release or extend: one transaction a tenant at a time."""

from typing import Final

from metering.core.committer import Committer
from metering.reservations.transaction import take_turn
from metering.reservations.works import Work

# A turn of so many callers takes some tens of milliseconds; those who come later have the next.
WORKS_MAX: Final = 200
# While other tenants wait, a turn that is slow takes fewer, down to these.
WORKS_MIN: Final = 8
# Turns of so many tenants at once: most of a turn is waiting for PostgreSQL.
THREADS: Final = 8

PROCESS_ENFORCER: Final[Committer[Work]] = Committer(
    take_turn,
    name="enforcer",
    weight_max=WORKS_MAX,
    weight_min=WORKS_MIN,
    threads=THREADS,
    tenant_threads=1,
)
