"""Long lists by pages."""

from typing import Final, Generic, NamedTuple, TypeVar

from django.db.models import Model, QuerySet

NUMBER_DIGITS_MAX: Final = 18

Row = TypeVar("Row", bound=Model)


class Newest(NamedTuple, Generic[Row]):
    """Rows, the newest first, and the id from which on older ones follow; None: there are none."""

    rows: list[Row]
    older: int | None


def newest_before(rows: QuerySet[Row], before: int | None, *, limit: int) -> Newest[Row]:
    """A page of rows by falling id: the newest, or what is older than `before`."""
    ordered = rows.order_by("-id")
    found = list((ordered.filter(id__lt=before) if before else ordered)[: limit + 1])
    older = found[limit - 1].pk if len(found) > limit else None
    return Newest(found[:limit], older)


def number_of(text: str) -> int | None:
    """A whole number out of an address; None for what is none that a row can have."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX
    return int(text) if is_number else None
