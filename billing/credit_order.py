"""In which order grants are drawn, and which of them pay for what. Pure whole numbers.

What an expired grant has kept goes first: it pays for usage of its own time and for nothing else.
Then priority, the earliest expiry, promotional before paid, and the order of their beginning.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from billing.models import CreditGrant, CreditKind, CreditState

NEVER: Final = datetime.max.replace(tzinfo=UTC)


class Share(NamedTuple):
    """What of an amount a grant pays."""

    grant: CreditGrant
    amount: int


def in_order(grants: Iterable[CreditGrant]) -> list[CreditGrant]:
    """Return grants as they are drawn."""
    return sorted(
        grants,
        key=lambda grant: (
            grant.state != CreditState.EXPIRED,
            grant.priority,
            grant.expires_at or NEVER,
            grant.kind == CreditKind.PAID,
            grant.effective_at,
            # Ids rise with the order in which grants were made.
            grant.id,
        ),
    )


def share_out(amount: int, ordered: Sequence[tuple[CreditGrant, int]]) -> list[Share]:
    """Return what each grant pays of an amount, by the most that each may pay, in their order."""
    shares = []
    for grant, most in ordered:
        part = min(amount, most)
        if part > 0:
            shares.append(Share(grant, part))
            amount -= part
    return shares


def needed_of(balance: int, *, paid_before: int, committed: int) -> int:
    """Return what a grant must keep for an amount of which `paid_before` is paid by others."""
    return max(0, min(balance, committed - paid_before))
