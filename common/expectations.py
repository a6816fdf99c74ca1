"""What a value must be, in the words that every validator of the API uses."""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

import msgspec
from msgspec import inspect

from common.spelling import did_you_mean

STRING: Final = 'must be a string, such as "call-123"'
BOOLEAN: Final = "must be true or false"
WHOLE_NUMBER: Final = "must be a whole number, such as 5"
TIMESTAMP: Final = "must be RFC 3339 with a zone, as in 2026-11-21T12:00:00Z"
DECIMAL: Final = 'must be a decimal number that is not negative, such as "12.50"'
USD: Final = 'must be a decimal number of USD, as in "0.0123"'
_USD_KINDS: Final = frozenset({inspect.StrType, inspect.IntType, inspect.FloatType})


def must_be_one_of(choices: Iterable[object]) -> str:
    """Return what a choice must be; all of them are listed."""
    return f"must be one of {', '.join(map(str, choices))}"


def must_be_object(example: object = None) -> str:
    """Return what an object must be."""
    return "must be an object" + (f", such as {json.dumps(example)}" if example else "")


def unknown_field(name: str, known: tuple[str, ...]) -> str:
    """Return what is wrong with a field that is not known, with the nearest that is."""
    return f"Unknown field {name[:100]!r}.{did_you_mean(name, known)}"


@cache
def expectation_at(kind: type[msgspec.Struct], pointer: str) -> str:
    """Return what the part of a struct's JSON at a pointer must be, by its declared type. An item
    of a list or a value of an object is named by an empty part: `/tags/`.
    """
    types = [inspect.type_info(kind)]
    for part in pointer.split("/")[1:]:
        types = [inner for outer in types for inner in _inside(outer, part)]
    return _expectation([inner for inner in types if not isinstance(inner, inspect.NoneType)])


def _inside(outer: inspect.Type, part: str) -> Iterator[inspect.Type]:
    if isinstance(outer, inspect.StructType):
        for field in outer.fields:
            if field.encode_name == part:
                yield from _alternatives(field.type)
    elif isinstance(outer, inspect.ListType):
        yield from _alternatives(outer.item_type)
    elif isinstance(outer, inspect.DictType):
        yield from _alternatives(outer.value_type)


def _alternatives(declared: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(declared, inspect.Metadata):
        yield from _alternatives(declared.type)
    elif isinstance(declared, inspect.UnionType):
        for inner in declared.types:
            yield from _alternatives(inner)
    else:
        yield declared


def _expectation(types: list[inspect.Type]) -> str:
    if {type(each) for each in types} == _USD_KINDS:
        return USD
    if not types:
        return "has a value that cannot be taken"
    first, *others = [_described(each) for each in types]
    return " or ".join([first, *(other.removeprefix("must be ") for other in others)])


def _described(declared: inspect.Type) -> str:
    match declared:
        case inspect.LiteralType(values=values):
            return must_be_one_of(values)
        case inspect.StrType(max_length=int(most)):
            return f"{STRING}, of at most {most:,} characters"
        case inspect.IntType(ge=int(least), le=int(most)):
            return f"must be a whole number from {least:,} to {most:,}"
        case inspect.DictType(max_length=int(most)):
            return f"must be an object of at most {most:,} members with names and values"
    return _BY_TYPE.get(type(declared), must_be_object())


_BY_TYPE: Final[dict[type[inspect.Type], str]] = {
    inspect.StrType: STRING,
    inspect.IntType: WHOLE_NUMBER,
    inspect.FloatType: "must be a number, such as 0.5",
    inspect.BoolType: BOOLEAN,
    inspect.DateTimeType: TIMESTAMP,
    inspect.ListType: "must be a list",
}


def as_sentence(expectation: str) -> str:
    """Return what a value must be as a sentence: "must be 1" → "Must be 1."."""
    return f"{expectation[0].upper()}{expectation[1:]}."
