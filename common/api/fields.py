"""Fields of request bodies and answers: strict where DRF's own are lenient."""

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any, ClassVar, cast

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.fields import SkipField, empty
from rest_framework.request import Request
from rest_framework.settings import api_settings

from common.api.problems import ERRORS_MAX, CountedCode
from common.errors import QUOTED_CHARACTERS_MAX
from common.expectations import (
    BOOLEAN,
    DECIMAL,
    STRING,
    TIMESTAMP,
    USD,
    WHOLE_NUMBER,
    must_be_object,
    must_be_one_of,
    unknown_field,
)
from common.formats import moment
from common.json_bodies import JsonObject
from common.money import (
    DECIMAL_PATTERN,
    USD_PATTERN,
    decimal_of,
    nanos_from_usd,
    usd_from_nanos,
)
from common.times import YEAR, is_known_year, parse_timestamp, zone_names
from common.values import COUNT_MAX, normal_value


class Spoken(serializers.Field[Any, Any, Any, Any]):
    """A field that says what a value must be in the words of the other validators."""

    default_error_messages = {
        "required": "is required",
        "null": "must not be null",
        "blank": "must not be blank",
        "empty": "must not be empty",
        "not_a_list": "must be a list",
        "min_length": "must be at least {min_length} long",
        "max_length": "must be at most {max_length} long",
        "min_value": "must be at least {min_value}",
        "max_value": "must be at most {max_value}",
    }


class Bodies(Spoken, serializers.ListSerializer[Any]):
    """A list of bodies."""


class StrictSerializer(Spoken, serializers.Serializer[Any]):
    """A body whose every member must be known. An error names every fault."""

    unknown_code: ClassVar[str] = "unknown_field"
    # What could be read, also where other members could not.
    readable: JsonObject

    class Meta:
        list_serializer_class = Bodies

    @property
    def member_names(self) -> tuple[str, ...]:
        """The members that a request may have."""
        return tuple(str(field.field_name) for field in self._writable_fields)

    @property
    def example(self) -> dict[str, object]:
        """An object with one member: a required one if there is any."""
        examples = {
            str(field.field_name): example
            for field in sorted(self._writable_fields, key=lambda field: not field.required)
            if (example := getattr(field, "example", None)) is not None
        }
        return dict(list(examples.items())[:1])

    def judge_readable(self, faulty: Collection[str]) -> None:
        """Raise ValidationError by the domain's rules about what is `readable`, although `faulty`
        members are not.
        """

    def unknown(self, name: str) -> str:
        """Return what is wrong with a member that is not known."""
        for field in self._writable_fields:
            if name in getattr(field, "member_names", ()):
                return f"Unknown field {name!r}. Did you mean '{field.field_name}.{name}'?"
        return unknown_field(name, self.member_names)

    def to_internal_value(self, data: object) -> JsonObject:
        self.readable = {}
        if not isinstance(data, dict):
            wrong = serializers.ErrorDetail(must_be_object(self.example), code="invalid")
            raise serializers.ValidationError({api_settings.NON_FIELD_ERRORS_KEY: [wrong]})
        errors = unknown_members(
            data, self.member_names, words=self.unknown, code=self.unknown_code
        )
        try:
            self.readable = super().to_internal_value(data)
        except serializers.ValidationError as error:
            errors.update(cast(JsonObject, error.detail))
            self._read_others(data, errors)
        if not errors:
            return self.readable
        try:
            self.judge_readable(errors)
        except serializers.ValidationError as error:
            errors = cast(JsonObject, _merged(error.detail, errors))
        raise serializers.ValidationError(errors)

    def _read_others(self, data: JsonObject, errors: JsonObject) -> None:
        for field in self._writable_fields:
            with suppress(SkipField):
                if field.field_name not in errors:
                    value = field.run_validation(field.get_value(data))
                elif isinstance(field, StrictSerializer) and isinstance(
                    data.get(field.field_name), dict
                ):
                    value = field.readable
                else:
                    continue
                self.set_value(self.readable, field.source_attrs, value)


def _merged(judged: object, read: object) -> object:
    """Return both errors of a body; where one of them is about a whole, the one from reading."""
    if not isinstance(judged, dict) or not isinstance(read, dict):
        return read
    both = {name: _merged(judged[name], read[name]) for name in judged.keys() & read.keys()}
    return {**judged, **read, **both}


class OptionalBody(StrictSerializer):
    """A body whose members are all optional; null names none of them."""

    def run_validation(self, data: object = empty) -> object:
        return {} if data is None else super().run_validation(data)


def unknown_members(
    data: JsonObject,
    known: tuple[str, ...],
    *,
    words: Callable[[str], str],
    code: str = "unknown_field",
) -> JsonObject:
    """Return the first members that are not known, with what `words` says of each, and the count of
    the rest.
    """
    unknown = (name for name in data if name not in known)
    errors: JsonObject = {
        name[:QUOTED_CHARACTERS_MAX]: serializers.ErrorDetail(words(name), code=code)
        for name in islice(unknown, ERRORS_MAX)
    }
    if count := sum(1 for _ in unknown):
        further = serializers.ErrorDetail(
            f"{count:,} more are not known either.", code=CountedCode.of(code, stands_for=count)
        )
        errors[api_settings.NON_FIELD_ERRORS_KEY] = [further]
    return errors


class Text(Spoken, serializers.CharField):
    """A string and nothing else: numbers are not turned into text, and spaces stay."""

    example = "research"
    default_error_messages = {
        "invalid": STRING,
        "min_length": "must have at least {min_length} characters",
        "max_length": "must have at most {max_length} characters",
    }

    def __init__(self, **options: Any) -> None:
        options = {"max_length": 200, "trim_whitespace": False, **options}
        if not options.get("allow_blank"):
            options.setdefault("min_length", 1)
        super().__init__(**options)

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if data and not data.strip():
            self.fail("blank")
        text: str = super().to_internal_value(data)
        return text


class Value(Text):
    """A value of a dimension, as events carry it (`normal_value`)."""

    def to_internal_value(self, data: object) -> str:
        value = normal_value(super().to_internal_value(data))
        if data and not value:
            self.fail("blank")
        return value


class Items(Spoken, serializers.ListField):
    """A list with a limit, which counts its items before it judges any of them."""

    default_error_messages = {
        "min_length": "must have at least {min_length} items",
        "max_length": "must have at most {max_length} items",
    }

    def __init__(self, *, max_length: int, **options: Any) -> None:
        super().__init__(max_length=max_length, **options)
        if (item := getattr(self.child, "example", None)) is not None:
            self.example = [item]
            # A template, in which the braces of an example would be names.
            shown = json.dumps([item]).replace("{", "{{").replace("}", "}}")
            self.error_messages["not_a_list"] = f"must be a list, such as {shown}"

    def to_internal_value(self, data: object) -> list[object]:
        assert self.max_length is not None
        if isinstance(data, list) and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        items: list[object] = super().to_internal_value(data)
        return items


class Choice(Spoken, serializers.ChoiceField):
    """One of some words, as a string."""

    @property
    def example(self) -> str:
        """The first of them."""
        return next(map(str, self.choices))

    def to_internal_value(self, data: object) -> object:
        if isinstance(data, str) and data in self.choices:
            return super().to_internal_value(data)
        raise serializers.ValidationError(must_be_one_of(self.choices), code="invalid_choice")


class Flag(Spoken, serializers.BooleanField):
    """true or false; not "yes", and not 1."""

    example = True
    default_error_messages = {"invalid": BOOLEAN}

    def to_internal_value(self, data: object) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Count(Spoken, serializers.IntegerField):
    """A whole number; not "5", not 5.0, not true."""

    example = 5
    default_error_messages = {"invalid": WHOLE_NUMBER}

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": 1, "max_value": COUNT_MAX, **options})

    def to_internal_value(self, data: object) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return data


class JsonMembers(Spoken, serializers.DictField):
    """Any object; what reads its members judges them."""

    default_error_messages = {"not_a_dict": must_be_object()}


@extend_schema_field({"type": "string", "format": "date-time"})
class Timestamp(Spoken):
    """A time with a zone (RFC 3339), answered in UTC."""

    example = "2026-11-21T12:00:00Z"
    default_error_messages = {
        "invalid": TIMESTAMP,
        "range": YEAR,
    }

    def to_internal_value(self, data: object) -> datetime:
        if not isinstance(data, str):
            self.fail("invalid")
        try:
            timestamp = parse_timestamp(data)
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from error
        # Before the change of zone, which the first and last years cannot make.
        if not is_known_year(timestamp):
            self.fail("range")
        return timestamp.astimezone(UTC)

    def to_representation(self, value: datetime) -> str:
        return moment(value.astimezone(UTC))


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "pattern": USD_PATTERN, "maxLength": 40},
            {"type": "number", "minimum": 0, "maximum": 1_000_000_000},
        ],
        "example": "0.0123",
        "description": "US dollars as a decimal string; answered exactly, to the nano-dollar.",
    }
)
class Usd(Spoken):
    """Money: a decimal string in USD outside, whole nano-dollars inside."""

    example = "5"

    def to_internal_value(self, data: object) -> int:
        if not isinstance(data, str | int | float):
            raise serializers.ValidationError(USD)
        try:
            return nanos_from_usd(data)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error

    def to_representation(self, value: int) -> str:
        return usd_from_nanos(value)


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string", "pattern": DECIMAL_PATTERN, "maxLength": 40},
            {"type": "number", "minimum": 0},
        ],
        "example": "12.50",
        "description": "A decimal string or number, taken exactly.",
    }
)
class Amount(Spoken):
    """An exact amount in any unit: a decimal string outside, a Decimal inside."""

    example = "12.50"
    default_error_messages = {"invalid": DECIMAL}

    def to_internal_value(self, data: object) -> Decimal:
        try:
            return decimal_of(data)
        except ValueError:
            self.fail("invalid")

    def to_representation(self, value: Decimal) -> str:
        return f"{value:f}"


@extend_schema_field({"type": "string", "example": "Europe/Berlin", "maxLength": 64})
class Timezone(Spoken):
    """The name of a time zone, as in the IANA database."""

    example = "Europe/Berlin"

    def to_internal_value(self, data: object) -> str:
        if not isinstance(data, str) or data not in zone_names():
            raise serializers.ValidationError(
                "must be the name of a time zone, as in Europe/Berlin", code="unknown_timezone"
            )
        return data

    def to_representation(self, value: str) -> str:
        return value


def problem_at(field: str, message: str, code: str = "invalid") -> serializers.ValidationError:
    """A refusal of one member of a body."""
    return serializers.ValidationError({field: serializers.ErrorDetail(message, code=code)})


def read_body(
    body: type[serializers.Serializer[Any]],
    request: Request,
    instance: object = None,
    **context: object,
) -> JsonObject:
    """Return the fields of a request's body: of a whole one, or of changes to an instance. Raises
    ValidationError. Some bodies are judged by what `context` names.
    """
    read = body(instance, data=request.data, partial=instance is not None, context=context)
    read.is_valid(raise_exception=True)
    fields: JsonObject = read.validated_data
    return fields
