"""Rows of a tenant as a resource: list, show, create, change and remove, alike for all of them."""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

from django.db.models import Model, QuerySet
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.viewsets import ViewSetMixin

from common.api.fields import read_body
from common.api.pagination import PAGE_PARAMETERS, paginate
from common.api.structs import Answer
from common.errors import NotFound
from common.json_bodies import JsonObject
from tenants.api.idempotency import idempotent
from tenants.api.views import ApiView, actor_of, tenant_of
from tenants.kinds import Kind
from tenants.models import Tenant

Row = TypeVar("Row", bound=Model)
# What the methods at the two addresses of a resource do, for `as_view`.
Actions = JsonObject
LIST: Final[Actions] = {"get": "list"}
LIST_AND_CREATE: Final[Actions] = {**LIST, "post": "create"}
SHOW: Final[Actions] = {"get": "retrieve"}
REMOVE: Final[Actions] = {"delete": "destroy"}
SHOW_AND_REMOVE: Final[Actions] = {**SHOW, **REMOVE}
SHOW_AND_CHANGE: Final[Actions] = {**SHOW, "patch": "partial_update"}
SHOW_CHANGE_AND_REMOVE: Final[Actions] = {**SHOW_AND_CHANGE, **REMOVE}


class Resource(ViewSetMixin, ApiView, Generic[Row]):
    """Rows of one model that belong to a tenant.

    `body` reads requests, and shows rows unless `answer` says what they are answered as. The
    functions of the domain are those of `kind`, or are called by `create_row`, `update_row` and
    `delete_row`; an address offers the actions that it is routed to. What a key may not see is
    answered 404.
    """

    model: type[Row]
    kind: ClassVar[Kind]
    # As errors name a row.
    noun: ClassVar[str]
    body: ClassVar[type[Serializer[Any]]]
    answer: ClassVar[type[Any]]
    # What is read with each row.
    related: ClassVar[Sequence[str]] = ()
    order: ClassVar[Sequence[str]] = ("id",)
    parameters = {"list": PAGE_PARAMETERS}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not hasattr(cls, "answer") and hasattr(cls, "body"):
            cls.answer = cls.body

    def rows(self) -> QuerySet[Row]:
        """Return the rows that this address is about."""
        rows = self.model._default_manager.filter(tenant=self.tenant)
        return rows.select_related(*self.related) if self.related else rows

    def listed_rows(self) -> QuerySet[Row]:
        """Return the rows that a list has, by its query parameters."""
        return self.rows()

    def fitting(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the first of the rows that a page asks for, where all of them are too many."""
        return rows

    def answers(self, rows: Sequence[Row]) -> Sequence[object]:
        """Return rows as they are answered."""
        return [self.answer_of(row) for row in rows]

    def answer_of(self, row: Row) -> object:
        """Return a row as lists have it."""
        return self.answer.of(row) if issubclass(self.answer, Answer) else self.answer(row).data

    def full_answer(self, row: Row) -> object:
        """Return one row as it is answered by itself."""
        return self.answers([row])[0]

    def create_row(self, fields: JsonObject) -> Row:
        row: Row = self.kind.create(tenant=self.tenant, actor=self.actor, **fields)
        return row

    def update_row(self, row: Row, changes: JsonObject) -> Row:
        changed: Row = self.kind.update(row, actor=self.actor, changes=changes)
        return changed

    def delete_row(self, row: Row) -> object:
        return self.kind.delete(row, actor=self.actor)

    @property
    def tenant(self) -> Tenant:
        return tenant_of(self.request)

    @property
    def actor(self) -> str:
        return actor_of(self.request)

    def row(self) -> Row:
        """Return the row whose id is the last of the address. Raises NotFound."""
        *_, row_id = self.kwargs.values()
        row = self.rows().filter(id=row_id).first()
        if row is None:
            raise NotFound.of(self.noun, row_id)
        return row

    def list(self, request: Request, **path: object) -> HttpResponse:
        rows = self.listed_rows()
        return Response(
            paginate(request, rows, self.answers, order=self.order, fitting=self.fitting)
        )

    @idempotent
    def create(self, request: Request, **path: object) -> Response:
        row = self.create_row(read_body(self.body, request))
        return Response(self.full_answer(row), status=201)

    def retrieve(self, request: Request, **path: object) -> Response:
        return Response(self.full_answer(self.row()))

    def partial_update(self, request: Request, **path: object) -> Response:
        row = self.row()
        changed = self.update_row(row, read_body(self.body, request, row))
        return Response(self.full_answer(changed))

    def destroy(self, request: Request, **path: object) -> Response:
        self.delete_row(self.row())
        return Response(status=204)
