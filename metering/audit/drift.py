"""What a proof finds."""

from typing import NamedTuple


class Drift(NamedTuple):
    """A balance that is not what it must be: `subject` says which, both numbers are in its unit."""

    subject: str
    part: str
    expected: int
    stored: int

    def __str__(self) -> str:
        difference = self.stored - self.expected
        return (
            f"{self.subject}: {self.part} is {self.stored:,}, must be {self.expected:,}"
            f" ({difference:+,})"
        )
