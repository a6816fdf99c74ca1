"""Lists by pages: `{"data": [...], "next_cursor": "…" | null}`."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request

from common.api.structs import Answer, about
from common.errors import InvalidRequest

Row = TypeVar("Row")
LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 500
CURSOR_MAX_CHARACTERS: Final = 500
ID_MAX: Final = 2**63 - 1
PAGE_PARAMETERS: Final = frozenset({"limit", "cursor"})
PAGE_SCHEMA: Final = [
    OpenApiParameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
    ),
    OpenApiParameter("cursor", str, description="The `next_cursor` of the page before."),
]
PAGE: Final = "A page of a list."


@cache
def page_serializer(row: type[Any]) -> type[Any]:
    """Return what describes a page of a list, whose rows are answers or bodies."""
    name = row.__name__.removesuffix("Answer").removesuffix("Body") + "Page"
    if issubclass(row, Answer):
        cursor = Annotated[str | None, about("Null on the last page.")]
        fields = [("data", list[row]), ("next_cursor", cursor)]  # type: ignore[valid-type]
        return msgspec.defstruct(name, fields, bases=(Answer,), namespace={"__doc__": PAGE})
    members = {
        "__doc__": PAGE,
        "data": row(many=True),
        "next_cursor": serializers.CharField(allow_null=True, help_text="Null on the last page."),
    }
    return type(name, (serializers.Serializer,), members)


class InvalidCursor(InvalidRequest):
    """A cursor that this list did not hand out."""

    code = "invalid_cursor"


class Page(NamedTuple):
    """How much of a list is asked for, and the sort key after which it goes on."""

    limit: int
    after: tuple[Any, ...] | None


def page_of(request: Request, kinds: Sequence[type]) -> Page:
    """The page that a request asks for; `kinds` are the types of the list's sort key."""
    text = request.query_params.get("cursor")
    return Page(
        limit=_limit(request.query_params.get("limit")),
        after=None if text is None else read_cursor(text, kinds),
    )


def _limit(text: str | None) -> int:
    if text is None:
        return LIMIT_DEFAULT
    is_number = text.isascii() and text.isdecimal() and len(text) <= 3
    if not is_number or not 1 <= int(text) <= LIMIT_MAX:
        raise InvalidRequest(f"'limit' must be a whole number from 1 to {LIMIT_MAX}.")
    return int(text)


def flag_parameter(request: Request, name: str) -> bool:
    """A query parameter that is `true` or `false`, and false when it is missing."""
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidRequest(f"{name!r} must be true or false.")
    return text == "true"


def write_cursor(key: Sequence[Any]) -> str:
    """A sort key as text that clients hand back unread."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(key))).rstrip(b"=").decode()


def read_cursor(text: str, kinds: Sequence[type]) -> tuple[Any, ...]:
    """The sort key in a cursor. Raises InvalidCursor for anything that no page has handed out."""
    try:
        if len(text) > CURSOR_MAX_CHARACTERS:
            raise ValueError
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        values = msgspec.json.decode(raw, type=list)
        return tuple(_convert(value, kind) for value, kind in zip(values, kinds, strict=True))
    except (ValueError, OverflowError, binascii.Error, msgspec.DecodeError) as error:
        raise InvalidCursor("'cursor' must be the 'next_cursor' of the page before.") from error


def _convert(value: object, kind: type) -> object:
    if kind is int and type(value) is int and abs(value) <= ID_MAX:
        return value
    if kind is datetime and isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    raise ValueError(value)


def page_answer(
    rows: Sequence[Row],
    *,
    page: Page,
    answer: Callable[[Row], Any],
    key: Callable[[Row], Sequence[Any]],
) -> dict[str, Any]:
    """The body of a list, out of one row more than the page holds where there are more."""
    shown = rows[: page.limit]
    has_more = len(rows) > page.limit
    return {
        "data": [answer(row) for row in shown],
        "next_cursor": write_cursor(key(shown[-1])) if has_more else None,
    }
