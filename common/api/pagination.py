"""Lists by pages: `{"data": [...], "next_cursor": "…" | null}`."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from types import GenericAlias
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from django.db.models import DateTimeField, Model, Q, QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request

from common.api.parameters import InvalidParameter
from common.api.structs import Answer, about
from common.cursors import read_sort_key, write_cursor
from common.json_bodies import JsonObject

Row = TypeVar("Row")
Stored = TypeVar("Stored", bound=Model)
LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 500
PAGE_PARAMETERS: Final = (
    OpenApiParameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}
    ),
    OpenApiParameter("cursor", str, description="The `next_cursor` of the page before."),
)
PAGE: Final = "A page of a list."


@cache
def page_of(row: type[Any]) -> type[Any]:
    """Return what describes a page of a list whose rows are these answers or bodies."""
    name = row.__name__.removesuffix("Answer").removesuffix("Body") + "Page"
    if issubclass(row, Answer):
        cursor = Annotated[str | None, about("Null on the last page.")]
        fields = [("data", GenericAlias(list, (row,))), ("next_cursor", cursor)]
        return msgspec.defstruct(name, fields, bases=(Answer,), namespace={"__doc__": PAGE})
    members = {
        "__doc__": PAGE,
        "data": row(many=True),
        "next_cursor": serializers.CharField(allow_null=True, help_text="Null on the last page."),
    }
    return type(name, (serializers.Serializer,), members)


class Page(NamedTuple):
    """The number of rows that a page has, and the sort key after which it begins."""

    limit: int
    after: tuple[Any, ...] | None


def read_page(request: Request, kinds: Sequence[type] = (int,)) -> Page:
    """Return the page that a request asks for; `kinds` are the types of the list's sort key."""
    text = request.query_params.get("cursor")
    return Page(read_limit(request), None if text is None else read_sort_key(text, kinds))


def read_limit(request: Request) -> int:
    """Return the number of rows that a page may have."""
    text = request.query_params.get("limit", str(LIMIT_DEFAULT))
    is_number = text.isascii() and text.isdecimal() and len(text) <= 3
    if not is_number or not 1 <= int(text) <= LIMIT_MAX:
        detail = f"'limit' must be a whole number from 1 to {LIMIT_MAX}."
        raise InvalidParameter.of("limit", "invalid_limit", detail)
    return int(text)


def page_answer(
    rows: Sequence[Row],
    *,
    page: Page,
    answers: Callable[[Sequence[Row]], Sequence[object]],
    key: Callable[[Row], Sequence[object]],
    fitting: Callable[[Sequence[Row]], Sequence[Row]] = lambda rows: rows,
) -> JsonObject:
    """Return the body of a list, from one row more than the page holds where there are more.
    `fitting` is given what the page may hold, and returns the first rows of it, one at the least.
    """
    shown = fitting(rows[: page.limit])
    has_more = len(rows) > len(shown)
    return {
        "data": answers(shown),
        "next_cursor": write_cursor(key(shown[-1])) if has_more else None,
    }


def paginate(
    request: Request,
    rows: QuerySet[Stored],
    answers: Callable[[Sequence[Stored]], Sequence[object]],
    *,
    order: Sequence[str] = ("id",),
    fitting: Callable[[Sequence[Stored]], Sequence[Stored]] = lambda rows: rows,
) -> JsonObject:
    """Return the body of a list of stored rows: by `order`, as of a query set, all rising or all
    falling, whose last field is unique. `fitting` is that of `page_answer`.
    """
    names = [name.removeprefix("-") for name in order]
    fields = [rows.model._meta.get_field(name) for name in names]
    kinds = [datetime if isinstance(field, DateTimeField) else int for field in fields]
    page = read_page(request, kinds)
    if page.after is not None:
        rows = rows.filter(_follows(names, page.after, "lt" if order[0].startswith("-") else "gt"))
    return page_answer(
        list(rows.order_by(*order)[: page.limit + 1]),
        page=page,
        answers=answers,
        key=lambda row: [getattr(row, name) for name in names],
        fitting=fitting,
    )


def _follows(names: Sequence[str], values: Sequence[object], comparison: str) -> Q:
    """The condition that a row comes after a sort key."""
    name, value = names[0], values[0]
    beyond = Q(**{f"{name}__{comparison}": value})
    if len(names) == 1:
        return beyond
    return beyond | Q(**{name: value}) & _follows(names[1:], values[1:], comparison)
