"""Fields of request bodies: matches; and bodies of rows that the domain judges."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from django.core.exceptions import ValidationError
from django.db import models
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from common.api.fields import Bodies, Spoken, StrictSerializer, unknown_members
from common.expectations import must_be_object
from common.json_bodies import JsonObject
from metering.core.dimensions import (
    MATCHABLE,
    VALUE_CHARACTERS_MAX,
    normal_match,
    unknown_dimension,
)
from metering.core.match import problems_by_dimension

_VALUE_SCHEMA: Final = {"type": "string", "minLength": 1, "maxLength": VALUE_CHARACTERS_MAX}
_OR_NULL_SCHEMA: Final = {**_VALUE_SCHEMA, "type": ["string", "null"]}
MATCH_SCHEMA: Final = {
    "type": "object",
    "description": "Dimension to value, to any of a list of values, or to null for none.",
    "properties": {
        name: {
            "oneOf": [_OR_NULL_SCHEMA, {"type": "array", "items": _OR_NULL_SCHEMA, "minItems": 1}]
        }
        for name in MATCHABLE
    },
    "additionalProperties": False,
    "example": {"team": "growth"},
}
# In the OpenAPI document it is a component of its own.
MATCH_REFERENCE: Final = {"$ref": "#/components/schemas/Match"}


@extend_schema_field(MATCH_REFERENCE)
class Match(Spoken):
    """Which events a budget counts, by dimension; empty means all."""

    example: ClassVar[dict[str, str]] = {"team": "growth"}
    member_names = MATCHABLE

    def to_internal_value(self, data: object) -> JsonObject:
        if not isinstance(data, dict):
            raise serializers.ValidationError(must_be_object(self.example))
        if not data.keys() <= set(MATCHABLE):
            errors = unknown_members(data, MATCHABLE, words=unknown_dimension)
            raise serializers.ValidationError(errors)
        match = normal_match(data)
        if problems := problems_by_dimension(match):
            raise serializers.ValidationError(problems)
        return match

    def to_representation(self, value: JsonObject) -> JsonObject:
        return value


class RowBody(StrictSerializer):
    """The body of a row of configuration, which the domain judges as the row would be."""

    model: ClassVar[type[models.Model]]
    # Raises ValidationError with the domain's errors by field.
    judge: ClassVar[Callable[..., None]]

    def validate(self, attrs: JsonObject) -> JsonObject:
        with errors_at_members(self):
            self.judge(self.proposed_row(attrs))
        return attrs

    def proposed_row(self, attrs: Mapping[str, object]) -> Any:
        """Return the row with these attributes, unsaved."""
        stored = self.instance if isinstance(self.instance, self.model) else self.model()
        return self.model(
            **{
                field.attname: attrs.get(field.attname, getattr(stored, field.attname))
                for field in self.model._meta.concrete_fields
            }
        )


@contextmanager
def errors_at_members(body: Bodies | StrictSerializer) -> Iterator[None]:
    """Show the domain's errors of fields at the members of the body that they come from."""
    try:
        yield
    except ValidationError as error:
        detail: JsonObject = {}
        for name, errors in error.error_dict.items():
            *outer, last = _member_path(body, name.split("."))
            holder = detail
            for member in outer:
                holder = holder.setdefault(member, {})
            holder[last] = [
                serializers.ErrorDetail(message, code=each.code or "invalid")
                for each in errors
                for message in each.messages
            ]
        raise serializers.ValidationError(detail) from error


def _member_path(field: object, path: Sequence[str]) -> list[str]:
    """Return the path to a member, by the one to the attribute that is its source."""
    if isinstance(field, serializers.ListSerializer) and path:
        return [path[0], *_member_path(field.child, path[1:])]
    if not isinstance(field, serializers.Serializer) or not path:
        return list(path)
    for name, member in field.fields.items():
        if member.source == path[0]:
            return [name, *_member_path(member, path[1:])]
    for name, member in field.fields.items():
        inner = member.fields.values() if isinstance(member, serializers.Serializer) else ()
        if member.source == "*" and path[0] in {each.source for each in inner}:
            return [name, *_member_path(member, path)]
    return list(path)
