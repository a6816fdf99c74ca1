"""What comparing finds, and when it is more than a tenant lets pass. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Final, NamedTuple, Self

from common.money import NANOS_PER_USD

USD: Final = "USD"
ZERO: Final = Decimal(0)


class Difference(NamedTuple):
    """Two figures of the same thing that differ."""

    unit: str
    # What usage makes it, and what was found instead.
    expected: Decimal
    found: Decimal
    day: date | None = None
    provider: str = ""
    model: str = ""
    line_item: str = ""
    statement_id: int | None = None
    line: str = ""
    note: str = ""

    @property
    def difference(self) -> Decimal:
        """What was found beyond what was expected."""
        return self.found - self.expected


@dataclass
class Sums:
    """What was compared in one currency, added up."""

    expected: Decimal = ZERO
    found: Decimal = ZERO
    # Differences without their signs: too much here does not make up for too little there.
    absolute: Decimal = ZERO

    def add(self, *, expected: Decimal, found: Decimal) -> None:
        """Count one comparison."""
        self.expected += expected
        self.found += found
        self.absolute += abs(found - expected)

    def exceeds(self, threshold: "Threshold") -> bool:
        """Whether this is more than is let pass."""
        share = abs(self.expected) * threshold.percent / 100
        return self.absolute > threshold.amount and self.absolute > share


class Threshold(NamedTuple):
    """What is let pass: a difference up to either of the two."""

    percent: Decimal
    # In dollars, and alike in the currency of a statement.
    amount: Decimal


EXACT: Final = Threshold(ZERO, ZERO)


@dataclass
class KindResult:
    """What one kind of comparison has found so far."""

    compared: int = 0
    drifts: int = 0
    # Statements whose usage is no longer kept.
    skipped: int = 0
    # Money by currency, and of bills also by provider.
    sums: dict[str, Sums] = field(default_factory=dict)
    providers: dict[str, Sums] = field(default_factory=dict)
    # False: there is nothing to compare with.
    is_connected: bool = True

    def add(self, unit: str, *, expected: Decimal, found: Decimal, provider: str = "") -> None:
        """Count the money of one comparison."""
        self.sums.setdefault(unit, Sums()).add(expected=expected, found=found)
        if provider:
            self.providers.setdefault(provider, Sums()).add(expected=expected, found=found)

    def exceeds(self, threshold: Threshold) -> bool:
        """Whether people should look at it: a currency, or a provider, differs too much."""
        return any(
            sums.exceeds(threshold) for sums in (*self.sums.values(), *self.providers.values())
        )

    def stored(self) -> Mapping[str, Any]:
        """Return this as JSON, with figures as decimal strings."""
        return {
            "compared": self.compared,
            "drifts": self.drifts,
            "skipped": self.skipped,
            "sums": _stored_sums(self.sums),
            "providers": _stored_sums(self.providers),
            "is_connected": self.is_connected,
        }

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> Self:
        """Return what was stored; an empty one of nothing."""
        if stored is None:
            return cls()
        return cls(
            compared=stored["compared"],
            drifts=stored["drifts"],
            skipped=stored["skipped"],
            sums=_read_sums(stored["sums"]),
            providers=_read_sums(stored["providers"]),
            is_connected=stored["is_connected"],
        )


def _stored_sums(sums: Mapping[str, Sums]) -> dict[str, list[str]]:
    return {
        name: [decimal_string(figure) for figure in (each.expected, each.found, each.absolute)]
        for name, each in sums.items()
    }


def _read_sums(stored: Mapping[str, Iterable[str]]) -> dict[str, Sums]:
    return {name: Sums(*map(Decimal, figures)) for name, figures in stored.items()}


def dollars(nanos: int) -> Decimal:
    """Return nano-dollars as dollars."""
    return Decimal(nanos) / NANOS_PER_USD


def decimal_string(figure: Decimal) -> str:
    """Return a figure without an exponent and without zeros at its end."""
    text = f"{figure:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
