"""Filters as SQL. Values travel as parameters; names come from the list of dimensions."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from common.queries import Parameter
from metering.reporting.question import NUMBERED, TAG_PREFIX, Filters, is_tag
from metering.rollups.sets import DimensionSet

# The columns that are indexed for events which have a value.
SPARSE = frozenset({"session", "task", "trace"})
# These have an index beside the customer's, whose calls may be any number.
_INDEXED = SPARSE | {"customer"}
# What JSON takes for a number, of a size that PostgreSQL takes for one too.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{1,99})?(?:[eE][+-]?[0-9]{1,3})?")


class Condition(NamedTuple):
    """A piece of SQL with its parameters."""

    sql: str
    parameters: Sequence[Parameter]


NO_CONDITION: Final = Condition("true", [])


def join(separator: str, pieces: Sequence[Condition]) -> Condition:
    """Return pieces of SQL as one, with a word between them."""
    return Condition(
        separator.join([piece.sql for piece in pieces]),
        [parameter for piece in pieces for parameter in piece.parameters],
    )


def on_events(filters: Filters) -> Condition:
    """Return the filters as a condition on usage_event."""
    on_each = [_on_event(name, list(values)) for name, values in filters.items()]
    return join(" AND ", [NO_CONDITION, *on_each])


def are_indexed(filters: Filters) -> bool:
    """Whether an index finds the events of these filters."""
    return any(name in _INDEXED and "" not in values for name, values in filters.items())


def on_rollup(filters: Filters, dimension_set: DimensionSet) -> Condition:
    """Return the filters as a condition on rows of a dimension set that has their dimensions."""
    on_each = [
        Condition(f"{rollup_value(name, dimension_set)} = ANY(%s)", [list(values)])
        for name, values in filters.items()
    ]
    return join(" AND ", [NO_CONDITION, *on_each])


def event_value(name: str) -> str:
    """Return a dimension of an event as text, sorted by bytes in any database language."""
    if name in NUMBERED:
        labels = ", ".join(f"'{label}'" for label in NUMBERED[name])
        return f'(ARRAY[{labels}])[{name}] COLLATE "C"'
    return f'"{name}" COLLATE "C"'


def rollup_value(name: str, dimension_set: DimensionSet) -> str:
    """Return the column of a dimension set that holds a dimension."""
    return f"value_{dimension_set.dimensions.index(name) + 1}"


def _on_event(name: str, values: list[str]) -> Condition:
    if is_tag(name):
        return _on_tag(name.removeprefix(TAG_PREFIX), values)
    if name in NUMBERED:
        return Condition(f"{name} = ANY(%s)", [[NUMBERED[name][value] for value in values]])
    if name in _INDEXED and "" not in values:
        # Spelled out so that the partial index is used.
        return Condition(f'"{name}" = ANY(%s) AND "{name}" <> \'\'', [values])
    return Condition(f'"{name}" = ANY(%s)', [values])


def _on_tag(key: str, values: list[str]) -> Condition:
    """Compare a tag as text, as JSON writes it, and a number also by its value: `5` is 5, 5.0 and
    "5". An empty value is that of events without the tag.
    """
    as_text = Condition("coalesce(tags ->> %s, '') = ANY(%s)", [key, values])
    numbers = [value for value in values if _NUMBER.fullmatch(value)]
    if not numbers:
        return as_text
    return Condition(
        f"({as_text.sql} OR tags -> %s = ANY(%s::jsonb[]))", [*as_text.parameters, key, numbers]
    )
