"""What the reasons for a loss mean, and what to set so that it ends: `source_advice.toml`."""

from typing import Final

from metering.usage.tables import Table, read_table


class Advice(Table, frozen=True):
    """What a code means where the report itself does not say, and what its sender should set.

    `is_harmless` is true of what is passed over, and rightly so.
    """

    detail: str
    what_to_set: str
    is_harmless: bool = False


ADVICE: Final = read_table(__file__, "source_advice.toml", dict[str, Advice])
HARMLESS: Final = frozenset(code for code, advice in ADVICE.items() if advice.is_harmless)
_OTHER: Final = "See the detail and the sample; GET /v1/docs describes what can be sent."


def detail_of(code: str) -> str:
    """Return what a code means, for reports that do not say it themselves."""
    return ADVICE[code].detail if code in ADVICE else code.replace("_", " ").capitalize()


def what_to_set(code: str) -> str:
    """Return the sentence that ends the loss."""
    return ADVICE[code].what_to_set if code in ADVICE else _OTHER
