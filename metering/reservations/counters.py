"""What this process has decided, for `/metrics`."""

from typing import Final

from prometheus_client import Counter

from metering.reservations.works import Reserve, Settle, Work

DECISIONS: Final = Counter(
    "spendgate_decisions",
    "Reservations asked for, by what was decided; the code says why one was refused.",
    ["decision", "code"],
)
SETTLES: Final = Counter(
    "spendgate_settles", "Reservations settled, by whether that was late.", ["late"]
)


def count(work: Work) -> None:
    """Add a finished work. It carries no tenant: names of tenants are nobody's but theirs."""
    if isinstance(work, Reserve):
        if work.error is not None:
            DECISIONS.labels("refuse", work.error.code).inc()
        elif work.answer is not None:
            DECISIONS.labels(work.answer["decision"], "").inc()
    elif isinstance(work, Settle) and work.answer is not None:
        SETTLES.labels("yes" if work.answer["late"] else "no").inc()
