"""What a bill's lines become: exact sums by provider, day and model, and the faults of the others.
Pure.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Final, NamedTuple

from common.errors import InvalidRequest
from common.money import NANOS_PER_USD
from metering.pricing.model_names import find_model, find_provider

TEXT_CHARACTERS_MAX: Final = 200
# Kept of one bill; a month of 100 models a day has 3,100.
LINES_MAX: Final = 20_000
USD_MAX: Final = 1_000_000_000
# Finer digits than anyone bills; 10**-1000000 as a fraction would fill the memory.
DECIMALS_MAX: Final = 60
# Faults that are named; the others are counted.
FAULTS_MAX: Final = 100
PROVIDER_CHARACTERS_MAX: Final = 50
# Companies by the names that they have on bills, and the provider as usage names it.
_PROVIDER_OF_COMPANY: Final = {
    "microsoft": "azure",
    "microsoft azure": "azure",
    "amazon web services": "aws",
    "amazon web services, inc.": "aws",
    "google cloud": "google",
    "google cloud platform": "google",
    "gcp": "google",
}
A_DAY: Final = timedelta(days=1)
FIRST_DAY: Final = date(2000, 1, 1)
LAST_DAY: Final = date(2099, 12, 31)


class InvalidBill(InvalidRequest):
    """A bill with lines that cannot be taken; `errors` names each. Nothing of it was stored."""

    code = "invalid_bill"


class BillKey(NamedTuple):
    """What lines are added up by. A line that names no model has its item; a sum of everything has
    neither.
    """

    provider: str
    day: date
    model: str
    line_item: str


class LineFault(ValueError):
    """What is wrong with one line, and with which member of it."""

    def __init__(self, member: str, detail: str) -> None:
        super().__init__(detail)
        self.member = member


class BillLines:
    """The sums of a bill that is being read, and what is wrong with it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.skipped = 0
        self._sums: dict[BillKey, Fraction] = {}
        self._errors: list[dict[str, str]] = []
        self._error_count = 0

    def add(self, key: BillKey, usd: Fraction) -> None:
        """Count a line. Raises InvalidBill where there are too many different ones."""
        self._sums[key] = self._sums.get(key, Fraction(0)) + usd
        if len(self._sums) > LINES_MAX:
            raise InvalidBill(
                f"The bill has more than {LINES_MAX:,} days and models; import it in parts of whole"
                " days."
            )

    @contextmanager
    def line(self, pointer: str) -> Iterator[None]:
        """Read a line; what is wrong with it is noted under its place in the bill."""
        try:
            yield
        except LineFault as fault:
            self.fault(f"{pointer}/{fault.member}" if fault.member else pointer, str(fault))

    def fault(self, pointer: str, detail: str) -> None:
        """Note what is wrong."""
        self._error_count += 1
        if len(self._errors) < FAULTS_MAX:
            self._errors.append({"pointer": pointer, "code": "invalid", "detail": detail})

    def nanos(self) -> Mapping[BillKey, int]:
        """Return the sums, each rounded once to a whole nano-dollar, half up. Raises InvalidBill
        with every fault.
        """
        if self._errors:
            first = self._errors[0]
            detail = f"{first['pointer']}: {first['detail']}."
            members = {"error_count": self._error_count} if self._error_count > FAULTS_MAX else {}
            raise InvalidBill(detail, errors=self._errors, **members)
        return {
            key: (2 * usd.numerator * NANOS_PER_USD + usd.denominator) // (2 * usd.denominator)
            for key, usd in self._sums.items()
        }


def exact(text: str, member: str) -> Fraction:
    """Return a number as it was written. Raises LineFault."""
    try:
        # Without the underscores and other scripts that Decimal reads too.
        number = Decimal(text) if text.isascii() and "_" not in text else None
    except InvalidOperation:
        number = None
    if number is None:
        raise LineFault(member, "must be a decimal number")
    exponent = number.as_tuple().exponent
    # Not abs(), which refuses 1E999999999 in its own way.
    if not isinstance(exponent, int) or number.copy_abs() > USD_MAX:
        raise LineFault(member, f"must be an amount up to {USD_MAX:,}")
    # OpenAI writes nothing as 0E-6176.
    if number == 0:
        return Fraction(0)
    if exponent < -DECIMALS_MAX:
        raise LineFault(member, f"must have at most {DECIMALS_MAX} decimals")
    return Fraction(number)


def require_usd(currency: str, member: str) -> None:
    """Refuse another currency: costs of usage are in US dollars."""
    if currency.upper() != "USD":
        raise LineFault(member, "must be USD, the currency that usage is priced in")


def whole_day(starts_at: datetime, ends_at: datetime | None, member: str) -> date:
    """Return the day in UTC of a time from its midnight to the next at most."""
    starts_at = starts_at.astimezone(UTC)
    if starts_at != starts_at.replace(hour=0, minute=0, second=0, microsecond=0):
        raise LineFault(member, "must be a midnight in UTC: ask for the report by day")
    if ends_at is not None and ends_at - starts_at > A_DAY:
        raise LineFault(member, "must be of one day: ask for the report by day")
    return known_day(starts_at, member)


def known_day(at: datetime, member: str) -> date:
    """Return the day in UTC of a time that usage may have."""
    day = at.astimezone(UTC).date()
    if not FIRST_DAY <= day <= LAST_DAY:
        raise LineFault(member, "must be of a day from 2000 to 2099")
    return day


def plain_text(value: str | None, member: str) -> str:
    """Return a text that a line names something by; "" if it names nothing."""
    text = (value or "").strip()
    if "\x00" in text:
        raise LineFault(member, "holds the character NUL")
    return text[:TEXT_CHARACTERS_MAX]


def provider_name(provider: str) -> str:
    """Return the one spelling of a provider."""
    name = provider.lower().strip()
    known = find_provider(_PROVIDER_OF_COMPANY.get(name, name))
    return (known.id if known is not None else name)[:PROVIDER_CHARACTERS_MAX]


def seller_of(provider: str, model: str) -> str:
    """Return who bills for a call: its provider, or the model's maker where a gateway or nothing
    is named.
    """
    if find_provider(provider) is None and model:
        known = find_model(provider or None, model)
        if known is not None:
            return known.provider
    return provider_name(provider)


def model_name(provider: str, model: str) -> str:
    """Return the one spelling of a model: that of the price catalogue where it is known there."""
    known = find_model(provider or None, model)
    return known.model if known is not None else model.lower().strip()


def is_known_model(provider: str, model: str) -> bool:
    """Whether the price catalogue knows a name as a model."""
    return bool(model) and find_model(provider or None, model) is not None
