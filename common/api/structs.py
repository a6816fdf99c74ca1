"""Answers as typed structs: one class says what is sent and what the OpenAPI document says of it.

A field without a default is always there; `X | None` may be null; `X | UnsetType = UNSET`, which
comes last, is left out where there is nothing to say.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, Self

import msgspec
from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentIdentity, ResolvedComponent
from drf_spectacular.utils import Direction
from msgspec import Meta

from common.json_bodies import JsonObject
from common.money import usd_from_nanos

REFERENCE: Final = "#/components/schemas/{name}"
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
    def of(cls, row: object, **computed: Any) -> Self:
        """Fill an answer from what is computed, else from the row's attributes of the same names.
        A field with a default keeps it where there is neither.
        """
        values = {
            name: getattr(row, name)
            for name in cls.__struct_fields__
            if name not in computed and hasattr(row, name)
        }
        return cls(**values, **computed)


class AnswerExtension(OpenApiSerializerExtension):
    """Describes an answer, and the answers within it, as components of their names."""

    target_class = "common.api.structs.Answer"
    match_subclasses = True

    def get_name(self, auto_schema: AutoSchema, direction: Direction) -> str:
        name: str = self.target.__name__
        return name

    def get_identity(self, auto_schema: AutoSchema, direction: Direction) -> ComponentIdentity:
        return ComponentIdentity(self.target.__name__)

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> JsonObject:
        _, schemas = msgspec.json.schema_components([self.target], ref_template=REFERENCE)
        described: JsonObject = schemas.pop(self.target.__name__)
        for name, schema in schemas.items():
            component = ResolvedComponent(
                name=name,
                type=ResolvedComponent.SCHEMA,
                object=ComponentIdentity(name),
                schema=schema,
            )
            auto_schema.registry.register_on_missing(component)
        return described
