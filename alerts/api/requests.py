"""What endpoints of alerts share: reading a body, finding a row, and listing rows by their ids."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response

from common.api.fields import StrictSerializer
from common.api.pagination import page_answer, page_of
from common.errors import NotFound

Row = TypeVar("Row", bound=Model)


def read_body(kind: type[StrictSerializer], request: Request, **options: Any) -> dict[str, Any]:
    """Return the members of a valid body. Raises ValidationError for others."""
    body = kind(data=request.data, **options)
    body.is_valid(raise_exception=True)
    return dict(body.validated_data)


def find(rows: QuerySet[Row], row_id: int) -> Row:
    """Return the row with this id. Raises NotFound."""
    row = rows.filter(pk=row_id).first()
    if row is None:
        raise NotFound(f"There is no {rows.model._meta.verbose_name} {row_id}.")
    return row


def answer_page(
    request: Request,
    rows: QuerySet[Row],
    answer: Callable[[Row], Any],
    *,
    is_newest_first: bool = True,
) -> Response:
    """Answer the page that the request asks for."""
    page = page_of(request, [int])
    if page.after is not None:
        rows = rows.filter(**{f"pk__{'lt' if is_newest_first else 'gt'}": page.after[0]})
    shown = list(rows.order_by("-pk" if is_newest_first else "pk")[: page.limit + 1])
    return Response(page_answer(shown, page=page, answer=answer, key=lambda row: [row.pk]))
