"""Which attributes of spans and of their processes name each dimension, and which of them counts.

What is nearest to the call counts: its own span, then the spans around it, then its process. In
each of them `spendgate.<dimension>` comes first, then the attributes that the tenant maps to the
dimension, in its order, then, in spans, those of the dialects (`dialects.toml`).
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from metering.usage.decoders.assembly import name
from metering.usage.decoders.otlp.dialects import DIMENSION_NAMES

OWN: Final = "spendgate."
# The dimensions that attributes name. Spans tell the others by what they are.
MAPPABLE: Final = ("team", "customer", "agent", "user", "feature", "session", "task")

Keys = Mapping[str, tuple[str, ...]]


class AttributeMapping(NamedTuple):
    """An attribute of spans and processes whose value a tenant takes for a dimension."""

    attribute: str
    dimension: str


class DimensionKeys:
    """The keys of each dimension, the first that counts first, with a tenant's mappings."""

    def __init__(self, mappings: Iterable[AttributeMapping] = ()) -> None:
        mapped: dict[str, list[str]] = {dimension: [] for dimension in MAPPABLE}
        for mapping in mappings:
            mapped[mapping.dimension].append(mapping.attribute)
        self.mapped = frozenset(key for keys in mapped.values() for key in keys)
        self.of_spans: Keys = {
            dimension: (*_own_keys(dimension), *keys, *_usual_keys(dimension))
            for dimension, keys in mapped.items()
        }
        self.of_processes: Keys = {
            dimension: (f"{OWN}{dimension}", *keys) for dimension, keys in mapped.items()
        }


def named_by(attributes: Mapping[str, object], keys: Keys) -> dict[str, str]:
    """Return each dimension's value: that of its first key that has a usable one."""
    return {
        dimension: value
        for dimension, dimension_keys in keys.items()
        if (value := _first_name(attributes, dimension_keys)) is not None
    }


def _first_name(attributes: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        given = attributes.get(key)
        if given is not None and (value := name(given)) is not None:
            return value
    return None


def _own_keys(dimension: str) -> tuple[str, ...]:
    own = f"{OWN}{dimension}"
    return (own, *(f"{prefix}{own}" for prefix in DIMENSION_NAMES.prefixes))


def _usual_keys(dimension: str) -> tuple[str, ...]:
    words = (
        dimension,
        f"{dimension}_id",
        f"{dimension}Id",
        *DIMENSION_NAMES.words.get(dimension, ()),
    )
    free = tuple(f"{prefix}{word}" for prefix in DIMENSION_NAMES.prefixes for word in words)
    return (*free, *DIMENSION_NAMES.usual.get(dimension, ()))


# Those of a tenant that maps none.
USUAL: Final = DimensionKeys()
