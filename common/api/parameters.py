"""Query parameters: which an address takes, and what their texts mean."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from drf_spectacular.utils import OpenApiParameter
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from common.api.fields import Timestamp
from common.cursors import ID_MAX
from common.errors import InvalidRequest
from common.expectations import BOOLEAN, TIMESTAMP, must_be_one_of
from common.spelling import did_you_mean

NAME_CHARACTERS_MAX: Final = 100
FILTER: Final = re.compile(r"filter\[(.+)\]", re.DOTALL)
# A zone's plus sign that was not escaped in an address arrives as a space.
UNESCAPED_PLUS: Final = re.compile(r" (?=\d\d:?\d\d$)")
TIMESTAMP_SCHEMA: Final = {"type": "string", "format": "date-time"}
ID_SCHEMA: Final = {"type": "integer", "minimum": 1, "maximum": ID_MAX}


class InvalidParameter(InvalidRequest):
    """A query parameter that cannot be taken; `errors` says which."""

    def __init__(self, code: str, errors: Sequence[Mapping[str, str]]) -> None:
        super().__init__(errors[0]["detail"], errors=list(errors))
        self.code = code

    @classmethod
    def of(cls, name: str, code: str, detail: str) -> "InvalidParameter":
        """Return the refusal of one parameter."""
        return cls(code, [{"pointer": f"?{name}", "code": code, "detail": detail}])


def read_flag(request: Request, name: str) -> bool | None:
    """Return true, false, or None if the parameter is not given."""
    text = request.query_params.get(name)
    if text not in (None, "true", "false"):
        raise InvalidParameter.of(name, "invalid_flag", f"{name!r} {BOOLEAN}.")
    return None if text is None else text == "true"


def read_timestamp(request: Request, name: str) -> datetime | None:
    """Return a time, or None if it is not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        return Timestamp().to_internal_value(UNESCAPED_PLUS.sub("+", text))
    except ValidationError as error:
        detail = f"{name!r} {TIMESTAMP}."
        raise InvalidParameter.of(name, "invalid_time", detail) from error


def read_choice(request: Request, name: str, choices: Iterable[str]) -> str | None:
    """Return one of the choices, or None if it is not given."""
    text = request.query_params.get(name)
    known = tuple(choices)
    if text is not None and text not in known:
        detail = f"{name!r} {must_be_one_of(known)}."
        raise InvalidParameter.of(name, "invalid_request", detail)
    return text


def read_id(request: Request, name: str) -> int | None:
    """Return the id of an object, or None if it is not given."""
    text = request.query_params.get(name)
    if text is None:
        return None
    is_number = text.isascii() and text.isdecimal() and len(text) <= 19
    if not is_number or not 1 <= int(text) <= ID_MAX:
        detail = f"{name!r} must be an id, a whole number of 1 or more."
        raise InvalidParameter.of(name, "invalid_request", detail)
    return int(text)


def require_known_parameters(
    request: Request, known: Sequence[OpenApiParameter], *, filters: tuple[str, ...]
) -> None:
    """Raise InvalidRequest for parameters that are unknown or repeated, or hold NUL. Where there
    are `filters`, `filter[name]` may be given for each, more than once.
    """
    names = {parameter.name for parameter in known if parameter.location == parameter.QUERY}
    errors = []
    for name, values in request.query_params.lists():
        is_filter = bool(filters) and FILTER.fullmatch(name) is not None
        shown = name[:NAME_CHARACTERS_MAX]
        if name not in names and not is_filter:
            code = "unknown_parameter"
            near = _did_you_mean(name, names, filters=filters)
            detail = f"Unknown query parameter {shown!r}.{near}"
        elif any("\x00" in value for value in values):
            code, detail = "invalid_value", f"The query parameter {name!r} holds the character NUL."
        elif len(values) > 1 and not is_filter:
            code, detail = "repeated_parameter", f"The query parameter {name!r} is given twice."
        else:
            continue
        errors.append({"pointer": f"?{shown}", "code": code, "detail": detail})
    if errors:
        is_known = errors[0]["code"] == "invalid_value"
        raise InvalidParameter("invalid_value" if is_known else "unknown_parameter", errors)


def _did_you_mean(name: str, known: Iterable[str], *, filters: tuple[str, ...]) -> str:
    if not filters:
        return did_you_mean(name, tuple(sorted(known)))
    if name in filters:
        return f" Use 'filter[{name}]='."
    return did_you_mean(name, (*sorted(known), *(f"filter[{each}]" for each in filters)))
