"""Answers as typed structs: one class says what is sent and what the OpenAPI document says of it.

A field without a default is always there; `X | None` may be null; `X | UnsetType = UNSET`, which
comes last, is left out where there is nothing to say.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from common.money import usd_from_nanos

# Sent as RFC 3339; what comes from the database is in UTC.
UtcTimestamp = Annotated[datetime, Meta(tz=True)]
# An exact decimal string. What is left of a limit may be below zero.
AmountUsd = Annotated[
    str,
    Meta(
        description="US dollars as a decimal string, exact to the nano-dollar.",
        pattern=r"^-?[0-9]+(\.[0-9]{1,9})?$",
        examples=["0.001234567"],
    ),
]
# Dimension to value; empty where the calls have none.
GroupValues = dict[str, str]


def about(text: str) -> Meta:
    """The description of a field."""
    return Meta(description=text)


def one_of(values: Iterable[str | None], text: str | None = None) -> Meta:
    """The values that a field may have."""
    return Meta(description=text, extra_json_schema={"enum": list(values)})


def usd_or_none(nanos: int | None) -> str | None:
    """The exact amount, or None where there is none."""
    return None if nanos is None else usd_from_nanos(nanos)


class Answer(msgspec.Struct):
    """What an endpoint answers, or a part of it."""

    @classmethod
    def of(cls, row: object, **computed: object) -> Self:
        """Fill an answer from what is computed, else from the row's attributes of the same names,
        an amount in USD from one in nano-dollars. A field with a default keeps it where there is
        neither.
        """
        values = computed
        for name in cls.__struct_fields__:
            if name in computed:
                continue
            nanos = f"{name.removesuffix('_usd')}_nanos"
            if hasattr(row, name):
                values[name] = getattr(row, name)
            elif name.endswith("_usd") and hasattr(row, nanos):
                values[name] = usd_or_none(getattr(row, nanos))
        return cls(**values)
