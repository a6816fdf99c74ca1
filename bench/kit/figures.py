"""How a benchmark hands over a figure."""

from typing import Protocol


class Row(Protocol):
    """Takes what was measured, the figure, what is wanted, and what the same PostgreSQL does alone
    where that is the limit.
    """

    def __call__(self, what: str, figure: str, wanted: str, raw: str = "") -> None:
        """Show a figure."""
