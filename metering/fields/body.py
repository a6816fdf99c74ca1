"""Fields of request bodies: values of dimensions, and matches of them."""

from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from common.api.fields import unknown_members
from metering.core.dimensions import MATCHABLE, VALUE_CHARACTERS_MAX, normal_match
from metering.models import Operation, Status

VALUES_MAX: Final = 200
NAMES_BY_DIMENSION: Final = {"operation": Operation.labels, "status": Status.labels}
_VALUE_SCHEMA: Final = {"type": "string", "minLength": 1, "maxLength": VALUE_CHARACTERS_MAX}
_OR_NULL_SCHEMA: Final = {**_VALUE_SCHEMA, "type": ["string", "null"]}
MATCH_SCHEMA: Final = {
    "type": "object",
    "description": "Dimension to value, to any of a list of values, or to null for none.",
    "properties": {
        name: {
            "oneOf": [
                _OR_NULL_SCHEMA,
                {"type": "array", "items": _OR_NULL_SCHEMA, "minItems": 1},
            ]
        }
        for name in MATCHABLE
    },
    "additionalProperties": False,
    "example": {"team": "growth"},
}
# In the OpenAPI document it is a component of its own.
MATCH_REFERENCE: Final = {"$ref": "#/components/schemas/Match"}


@extend_schema_field(MATCH_REFERENCE)
class Match(serializers.Field[dict[str, Any], Any, dict[str, Any], Any]):
    """Which events a budget counts, by dimension; empty means all."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError('must be an object, as in {"team": "growth"}')
        if not data.keys() <= set(MATCHABLE):
            message = f"This is no dimension; dimensions are {', '.join(MATCHABLE)}."
            raise serializers.ValidationError(unknown_members(data, MATCHABLE, message))
        match = normal_match(data)
        errors = {
            name: problem
            for name, value in match.items()
            if (problem := _match_problem(name, value))
        }
        if errors:
            raise serializers.ValidationError(errors)
        return match

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        return value


def _match_problem(name: str, wanted: object) -> str | None:
    values = wanted if isinstance(wanted, list) else [wanted]
    if not 1 <= len(values) <= VALUES_MAX:
        return f"a list must hold 1 to {VALUES_MAX} values"
    names = NAMES_BY_DIMENSION.get(name)
    for value in values:
        is_text = isinstance(value, str) and 1 <= len(value) <= VALUE_CHARACTERS_MAX
        if value is not None and not is_text:
            return "must be a string of 1 to 200 characters, a list of such, or null for none"
        if names is not None and value not in names:
            return f"must be one of {', '.join(names)}"
    return None
