"""Long lists by pages."""

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from django.db.models import Model, QuerySet

NUMBER_DIGITS_MAX: Final = 18

Row = TypeVar("Row", bound=Model)


class Newest(NamedTuple, Generic[Row]):
    """Rows, the newest first, and the number before which older ones are; None: there are none."""

    rows: list[Row]
    older: int | None


def newest_before(
    rows: QuerySet[Row], before: int | None, *, limit: int, by: str = "id"
) -> Newest[Row]:
    """A page of rows by falling number: the newest, or what is older than `before`."""
    ordered = rows.order_by(f"-{by}")
    page = list((ordered.filter(**{f"{by}__lt": before}) if before else ordered)[: limit + 1])
    older = getattr(page[limit - 1], by) if len(page) > limit else None
    return Newest(page[:limit], older)


def number_of(text: str) -> int | None:
    """A whole number out of an address; None for what is none that a row can have."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX
    return int(text) if is_number else None


class Numbered(NamedTuple):
    """A page of rows that are counted: the places of its first and last row, from 1 on, and where
    the pages beside it are.
    """

    first: int
    last: int
    total: int
    previous: str | None
    next: str | None

    @property
    def rows(self) -> slice:
        """Where its rows are among all."""
        return slice(self.first - 1, self.last)


def numbered_page(
    page: int, total: int, *, per_page: int, address: Callable[[int], str]
) -> Numbered:
    """The page of this number, from 1 on. One beyond the last is empty, and leads back."""
    last = min(page * per_page, total)
    return Numbered(
        first=(page - 1) * per_page + 1,
        last=last,
        total=total,
        previous=address(page - 1) if page > 1 else None,
        next=address(page + 1) if page * per_page < total else None,
    )
