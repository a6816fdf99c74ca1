"""Fields of request bodies and answers: strict where DRF's own are lenient."""

from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final
from zoneinfo import available_timezones

from django.utils.functional import SimpleLazyObject
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.fields import empty
from rest_framework.request import Request
from rest_framework.settings import api_settings

from common.api.problems import ERRORS_MAX, CountedCode
from common.errors import QUOTED_CHARACTERS_MAX
from common.formats import moment
from common.money import USD_PATTERN, nanos_from_usd, usd_from_nanos
from common.spelling import did_you_mean
from common.times import parse_timestamp
from common.values import COUNT_MAX, normal_value

YEAR_MIN: Final = 1970
YEAR_MAX: Final = 2200
ZONES: Any = SimpleLazyObject(lambda: frozenset(available_timezones()))


class StrictSerializer(serializers.Serializer[Any]):
    """A body whose every member must be known."""

    default_error_messages = {"invalid": "This must be an object."}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            known = tuple(str(field.field_name) for field in self._writable_fields)
            if not data.keys() <= set(known):
                raise serializers.ValidationError(unknown_members(data, known, "Unknown field."))
        return super().to_internal_value(data)


class OptionalBody(StrictSerializer):
    """A body whose members are all optional; null names none of them."""

    def run_validation(self, data: Any = empty) -> Any:
        return {} if data is None else super().run_validation(data)


def unknown_members(data: dict[Any, Any], known: tuple[str, ...], message: str) -> dict[str, Any]:
    """The first members that are not known, each with the nearest that is, and the count of the
    rest.
    """
    unknown = (name for name in data if name not in known)
    errors: dict[str, Any] = {
        str(name)[:QUOTED_CHARACTERS_MAX]: serializers.ErrorDetail(
            f"{message}{did_you_mean(str(name), known)}", code="unknown_field"
        )
        for name in islice(unknown, ERRORS_MAX)
    }
    if count := sum(1 for _ in unknown):
        code = CountedCode.of("unknown_field", stands_for=count)
        further = serializers.ErrorDetail(f"{count:,} more are not known either.", code=code)
        errors[api_settings.NON_FIELD_ERRORS_KEY] = [further]
    return errors


class Text(serializers.CharField):
    """A string and nothing else: numbers are not turned into text, and spaces stay."""

    def __init__(self, **options: Any) -> None:
        options = {"min_length": 1, "max_length": 200, "trim_whitespace": False, **options}
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if data and not data.strip():
            self.fail("blank")
        return super().to_internal_value(data)


class Value(Text):
    """A value of a dimension, as events carry it (`normal_value`)."""

    def to_internal_value(self, data: Any) -> str:
        value = normal_value(super().to_internal_value(data))
        if data and not value:
            self.fail("blank")
        return value


class Items(serializers.ListField):
    """A list with a limit, which counts its items before it judges any of them."""

    def __init__(self, *, max_length: int, **options: Any) -> None:
        super().__init__(max_length=max_length, **options)

    def to_internal_value(self, data: Any) -> list[Any]:
        assert self.max_length is not None
        if isinstance(data, list) and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        items: list[Any] = super().to_internal_value(data)
        return items


class Choice(serializers.ChoiceField):
    """One of some words, as a string."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, str) and data in self.choices:
            return super().to_internal_value(data)
        known = tuple(map(str, self.choices))
        near = did_you_mean(data, known) if isinstance(data, str) else ""
        raise serializers.ValidationError(
            f"{data!r} is none of {', '.join(known)}.{near}", code="invalid_choice"
        )


class Flag(serializers.BooleanField):
    """true or false; not "yes", and not 1."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Count(serializers.IntegerField):
    """A whole number; not "5", not 5.0, not true."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"min_value": 1, "max_value": COUNT_MAX, **options})

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return data


@extend_schema_field({"type": "string", "format": "date-time"})
class Timestamp(serializers.Field[datetime, Any, str, Any]):
    """A time with a zone (RFC 3339), answered in UTC."""

    default_error_messages = {
        "invalid": "A time must be a string: RFC 3339 with a zone, as in 2026-11-21T12:00:00Z.",
        "range": f"A time must lie in the years {YEAR_MIN} to {YEAR_MAX}.",
    }

    def to_internal_value(self, data: Any) -> datetime:
        if not isinstance(data, str):
            self.fail("invalid")
        try:
            timestamp = parse_timestamp(data)
        except ValueError as error:
            raise serializers.ValidationError(f"A time {error}.", code="invalid") from error
        # Before the change of zone, which the first and last years cannot make.
        if not YEAR_MIN <= timestamp.year <= YEAR_MAX:
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
class Usd(serializers.Field[int, Any, str, Any]):
    """Money: a decimal string in USD outside, whole nano-dollars inside."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, str | int | float):
            raise serializers.ValidationError('must be a decimal number of USD, as in "0.0123"')
        try:
            return nanos_from_usd(data)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error

    def to_representation(self, value: int) -> str:
        return usd_from_nanos(value)


@extend_schema_field({"type": "string", "example": "Europe/Berlin", "maxLength": 64})
class Timezone(serializers.Field[str, Any, str, Any]):
    """The name of a time zone, as in the IANA database."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str) or data not in ZONES:
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
    body: type[serializers.Serializer[Any]], request: Request, instance: Any = None, **context: Any
) -> dict[str, Any]:
    """Return the fields of a request's body: of a whole one, or of changes to an instance. Raises
    ValidationError. Some bodies are judged by what `context` names.
    """
    read = body(instance, data=request.data, partial=instance is not None, context=context)
    read.is_valid(raise_exception=True)
    fields: dict[str, Any] = read.validated_data
    return fields
